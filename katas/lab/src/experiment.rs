//! The experiment: the narrated run that a kata shows when it is given no verb.

use std::sync::Arc;

use crate::{app::BoxError, implementation::Implementation, kata::BoxFuture, runner::Session};

/// A kata's narrated run.
pub type ExperimentFn = fn(Stage) -> BoxFuture<Result<(), BoxError>>;

/// What an experiment is given: the session, and where to show progress and results.
#[derive(Clone)]
pub struct Stage {
    session: Arc<Session>,
}

impl Stage {
    /// A stage for one run of the experiment.
    pub fn new(session: Arc<Session>) -> Self {
        Self { session }
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
}
