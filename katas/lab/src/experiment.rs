//! The experiment: the narrated run that a kata shows when it is given no verb.

use std::{fmt, sync::Arc};

use futures::{StreamExt, stream};
use tokio::sync::OnceCell;

use crate::{
    app::BoxError,
    history::Event,
    implementation::Implementation,
    kata::BoxFuture,
    report::{Progress, Record, Screen, Standing, Table, text, timeline},
    runner::Session,
};

/// A kata's narrated run.
pub type ExperimentFn = fn(Stage) -> BoxFuture<Result<(), BoxError>>;

/// A timeline in a story shows more than one in a finding: it was chosen to be read.
const SCENE: usize = 40;

/// What an experiment is given: the session, and where to show progress and results.
///
/// Cloning gives another handle to the same stage.
#[derive(Clone)]
pub struct Stage {
    session: Arc<Session>,
    screen: Screen,
    standing: Arc<OnceCell<Standing>>,
}

impl Stage {
    /// A stage for one run of the experiment.
    pub fn new(session: Arc<Session>, screen: Screen) -> Self {
        Self {
            session,
            screen,
            standing: Arc::default(),
        }
    }

    /// The session: labs, seed, services.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// A variant of the kata as an implementation.
    ///
    /// # Panics
    /// If the kata's map has no such variant.
    pub fn variant(&self, id: &str) -> Implementation {
        let variant = self
            .session
            .kata()
            .variant(id)
            .expect("the map names the variant");
        Implementation::in_process(variant)
    }

    /// How many columns there are to write in.
    pub fn columns(&self) -> usize {
        self.screen.columns()
    }

    /// A paragraph, wrapped to the width, with an empty line after it.
    pub fn say(&self, paragraph: impl AsRef<str>) {
        let lines = text::wrap(paragraph.as_ref(), self.columns());
        self.screen.print(&format!("{}\n\n", lines.join("\n")));
    }

    /// A line as it is.
    pub fn line(&self, line: impl fmt::Display) {
        self.screen.line(line);
    }

    /// A table, with an empty line after it.
    pub fn table(&self, table: &Table) {
        self.screen
            .print(&format!("{}\n", table.render(self.columns())));
    }

    /// Who did what, when; with an empty line after it.
    pub fn timeline(&self, events: &[Event]) {
        self.screen
            .print(&format!("{}\n", timeline(events, SCENE, self.columns())));
    }

    /// Progress on standard error while something runs; it disappears when it is dropped.
    pub fn progress(&self, total: usize, what: &str) -> Progress {
        self.screen.progress(total, what)
    }

    /// Where the learner's exercise stands: its checks are run once, however often this is asked.
    pub async fn standing(&self) -> &Standing {
        let judge = async || {
            let kata = self.session.kata();
            let checks: Vec<_> = kata
                .checks()
                .map(|(step, check)| (step, check.clone()))
                .collect();
            let exercise = Implementation::in_process(kata.exercise());
            let progress = self.progress(checks.len(), "checks of your exercise");
            let records: Vec<Record> = stream::iter(checks)
                .map(|(step, check)| self.session.check(&exercise, step, check))
                .buffer_unordered(usize::MAX)
                .map(|outcome| {
                    progress.step();
                    Record::from(outcome)
                })
                .collect()
                .await;
            Standing::of(&records, kata.steps.len())
        };
        self.standing.get_or_init(judge).await
    }
}
