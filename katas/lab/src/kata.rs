//! The map of a kata: its steps, checks and variants as one readable value.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use crate::{
    app::{App, BoxError, Env},
    lab::Lab,
    verdict::Judged,
};

/// A boxed future, as the tables below store them.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Starts an in-process implementation.
pub type AppFn = Arc<dyn Fn(Env) -> BoxFuture<Result<App, BoxError>> + Send + Sync>;

type CheckFn = Arc<dyn Fn(Lab) -> BoxFuture<Judged<Option<String>>> + Send + Sync>;

/// The reference on a slow machine, see [`Variant::slowed`].
const SLOWED: &str = "alternative-slow-machine";

/// Much longer than a call takes on an idle machine.
const LATE: Duration = Duration::from_millis(100);

/// One phase's kata.
#[derive(Debug)]
pub struct Kata {
    /// The package's name, `kata-04-idempotency`.
    pub name: &'static str,
    /// What it is about, in a word or two.
    pub title: &'static str,
    /// The promise in one line: what will never happen again.
    pub promise: &'static str,
    /// The lesson in English; its section "The contract" is what `contract` prints.
    pub readme: &'static str,
    /// The lesson in Spanish.
    pub readme_es: &'static str,
    /// The file that the learner edits, from the root of the repository.
    pub exercise_file: &'static str,
    /// What an implementation is given besides `PORT`: fakes and limits.
    pub given: Given,
    /// How many labs with variants in process run side by side for each core: few where scenes
    /// compute, since each session of the server hears of every table that another lab makes; more
    /// where they wait, for a lease to end.
    pub labs_per_core: usize,
    /// What to build, in order.
    pub steps: Vec<Step>,
    /// The implementations that come with the kata, in the order of the matrix.
    pub variants: Vec<Variant>,
    /// Lines of `curl` for `serve`, with `$URL` where the address goes.
    pub curl: &'static [&'static str],
    /// The narrated run.
    pub experiment: crate::experiment::ExperimentFn,
    /// Verbs that only this kata has.
    pub commands: &'static [crate::command::Command],
}

/// What an implementation of this kata is given.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// `DATABASE_URL` and the same in parts: a schema in PostgreSQL.
    pub database: bool,
    /// `REPLICA_URL`: a streaming standby of that database, in the checks that ask for one
    /// ([`Check::with_replica`]). In the others it is not set.
    pub replica: bool,
    /// SQL that makes the tables of the contract, run as the program's role before it is started.
    /// Without a database it must be empty.
    pub tables: &'static str,
    /// `PAYMENT_PROVIDER_URL`: the fake payment provider.
    pub payment_provider: bool,
    /// `MAIL_URL`: the fake mail service.
    pub mail: bool,
    /// `WAREHOUSE_URL`: the fake warehouse.
    pub warehouse: bool,
    /// `APPROVAL_URL`: the fake that every sale is approved by.
    pub approvals: bool,
    /// `SLOW_URL`: the fake slow service.
    pub slow_service: bool,
    /// The kata's own variables with values that suit most checks; `env` prints these.
    pub variables: &'static [(&'static str, u64)],
    /// The kata's own variables that are text, and the same for every check.
    pub texts: &'static [(&'static str, &'static str)],
}

/// One thing to build.
#[derive(Debug)]
pub struct Step {
    /// What holds when it is done, in one line.
    pub title: &'static str,
    /// A question, a pointer, nearly the answer.
    pub hints: [&'static str; 3],
    /// What proves it.
    pub checks: Vec<Check>,
}

/// One promise and the async function that tests it.
#[derive(Clone)]
pub struct Check {
    /// The promise as a name: `charges_once_under_concurrency`.
    pub name: &'static str,
    /// A question that leads towards the mistake; shown with a failure.
    pub think: &'static str,
    /// Measures time, so that nothing else may run beside it.
    pub alone: bool,
    /// Its database has a replica.
    pub replica: bool,
    run: CheckFn,
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// A check named after its function: `check!(replays_the_first_answer, "where is it kept?")`.
#[macro_export]
macro_rules! check {
    ($($path:ident)::+, $think:literal) => {
        $crate::Check::new($crate::last_ident!($($path)::+), $think, $($path)::+)
    };
}

/// The last segment of a path, as text.
#[doc(hidden)]
#[macro_export]
macro_rules! last_ident {
    ($name:ident) => { stringify!($name) };
    ($first:ident :: $($rest:ident)::+) => { $crate::last_ident!($($rest)::+) };
}

impl Check {
    /// A check; use [`check!`](crate::check) so that the name is the function's.
    pub fn new<F, Fut, Note>(name: &'static str, think: &'static str, run: F) -> Self
    where
        F: Fn(Lab) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Judged<Note>> + Send + 'static,
        Note: IntoNote,
    {
        let run: CheckFn = Arc::new(move |lab| {
            let judged = run(lab);
            Box::pin(async move { judged.await.map(IntoNote::into_note) })
        });
        Self {
            name,
            think,
            alone: false,
            replica: false,
            run,
        }
    }

    /// The same check, never run beside another one.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// The same check, in a lab whose database has a replica: it costs a server of its own, so it
    /// is for the checks that need one.
    #[must_use]
    pub fn with_replica(mut self) -> Self {
        self.replica = true;
        self
    }

    pub(crate) fn run(&self, lab: Lab) -> BoxFuture<Judged<Option<String>>> {
        (self.run)(lab)
    }
}

/// What a passing check may say: nothing, or a short note.
pub trait IntoNote {
    /// The note, if there is one.
    fn into_note(self) -> Option<String>;
}

impl IntoNote for () {
    fn into_note(self) -> Option<String> {
        None
    }
}

impl IntoNote for String {
    fn into_note(self) -> Option<String> {
        Some(self)
    }
}

impl IntoNote for Option<String> {
    fn into_note(self) -> Option<String> {
        self
    }
}

/// What a variant is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The solution that the lesson explains.
    Reference,
    /// Unusual but right: passes everything.
    Alternative,
    /// One classic mistake: fails exactly these checks.
    Flawed(&'static [&'static str]),
    /// The learner's.
    Exercise,
}

/// One implementation of the contract that comes with the kata.
#[derive(Clone)]
pub struct Variant {
    /// How it is named on the command line: `check-then-act`.
    pub id: &'static str,
    /// How it is named in the matrix: "check then act".
    pub title: &'static str,
    /// What it is for.
    pub kind: Kind,
    /// The steps in which an alternative goes its own way; empty for all.
    pub steps: &'static [usize],
    /// Starts it.
    pub app: AppFn,
}

impl std::fmt::Debug for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.id)
    }
}

impl Variant {
    /// A variant of any kind.
    pub fn new<F, Fut>(id: &'static str, title: &'static str, kind: Kind, app: F) -> Self
    where
        F: Fn(Env) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<App, BoxError>> + Send + 'static,
    {
        Self {
            id,
            title,
            kind,
            steps: &[],
            app: Arc::new(move |env| Box::pin(app(env))),
        }
    }

    /// The same alternative, which is the reference's own code but for these steps, from 1.
    #[must_use]
    pub fn in_steps(mut self, steps: &'static [usize]) -> Self {
        self.steps = steps;
        self
    }

    /// The implementation that the others are measured by.
    pub fn reference<F, Fut>(app: F) -> Self
    where
        F: Fn(Env) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<App, BoxError>> + Send + 'static,
    {
        Self::new("reference", "reference", Kind::Reference, app)
    }

    /// The same program on a machine with too much to do: it comes up late, begins late and answers
    /// late. Every kata judges its reference so, too: a check that takes late for never would judge the
    /// machine.
    #[must_use]
    pub fn slowed(&self) -> Self {
        let app = Arc::clone(&self.app);
        let slow = move |env| {
            let starting = app(env);
            async move {
                tokio::time::sleep(LATE).await;
                Ok(starting.await?.slowed(LATE))
            }
        };
        Self::new(SLOWED, "on a slow machine", Kind::Alternative, slow)
    }

    /// Whether it is another variant on a slow machine, see [`Variant::slowed`].
    pub(crate) fn is_slowed(&self) -> bool {
        self.id == SLOWED
    }

    /// Whether its code is in a file of its own.
    pub(crate) fn has_a_file(&self) -> bool {
        !self.is_slowed()
    }

    /// The learner's own.
    pub fn exercise<F, Fut>(app: F) -> Self
    where
        F: Fn(Env) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<App, BoxError>> + Send + 'static,
    {
        Self::new("exercise", "exercise", Kind::Exercise, app)
    }

    /// Whether the check must fail on this variant; `None` for the exercise, which may do anything.
    pub fn must_fail(&self, check: &str) -> Option<bool> {
        match self.kind {
            Kind::Reference | Kind::Alternative => Some(false),
            Kind::Flawed(fails) => Some(fails.contains(&check)),
            Kind::Exercise => None,
        }
    }

    /// The variant's name with its kind, as the matrix shows it.
    pub fn label(&self) -> String {
        match self.kind {
            Kind::Reference | Kind::Exercise => self.title.to_owned(),
            Kind::Alternative => format!("alternative: {}", self.title),
            Kind::Flawed(_) => format!("flawed: {}", self.title),
        }
    }
}

impl Kata {
    /// The number of the phase, from the name.
    pub fn number(&self) -> &'static str {
        self.name.split('-').nth(1).unwrap_or("?")
    }

    /// All checks with the number of their step (from 1), in order.
    pub fn checks(&self) -> impl Iterator<Item = (usize, &Check)> {
        self.steps
            .iter()
            .enumerate()
            .flat_map(|(index, step)| step.checks.iter().map(move |check| (index + 1, check)))
    }

    /// Whether one of its checks needs the machine for itself.
    pub(crate) fn has_to_be_alone(&self) -> bool {
        self.checks().any(|(_, check)| check.alone)
    }

    /// A variant by its id.
    pub fn variant(&self, id: &str) -> Option<&Variant> {
        self.variants.iter().find(|variant| variant.id == id)
    }

    /// The learner's variant.
    ///
    /// # Panics
    /// If the kata has none, which its own tests refuse.
    pub fn exercise(&self) -> &Variant {
        self.variants
            .iter()
            .find(|variant| variant.kind == Kind::Exercise)
            .expect("a kata has an exercise")
    }

    /// Mistakes in the map itself: doubled names, declared checks that do not exist.
    pub fn mistakes(&self) -> Vec<String> {
        let names: Vec<_> = self.checks().map(|(_, check)| check.name).collect();
        let mut mistakes = Vec::new();
        for (index, name) in names.iter().enumerate() {
            if names[..index].contains(name) {
                mistakes.push(format!("two checks are named {name}"));
            }
        }
        for (index, variant) in self.variants.iter().enumerate() {
            if self.variants[..index].iter().any(|v| v.id == variant.id) {
                mistakes.push(format!("two variants are named {}", variant.id));
            }
            for step in variant.steps {
                if variant.kind != Kind::Alternative || !(1..=self.steps.len()).contains(step) {
                    mistakes.push(format!(
                        "{} cannot go its own way in step {step}: it is no alternative, or there is no such step",
                        variant.id
                    ));
                }
            }
            if let Kind::Flawed(fails) = variant.kind {
                if fails.is_empty() {
                    mistakes.push(format!("{} declares no check that it fails", variant.id));
                }
                for check in fails.iter().filter(|check| !names.contains(check)) {
                    mistakes.push(format!(
                        "{} declares {check}, which does not exist",
                        variant.id
                    ));
                }
            }
        }
        for (_, check) in self.checks() {
            if check.replica && !(self.given.replica && self.given.database) {
                mistakes.push(format!(
                    "{} asks for a replica, which is not given",
                    check.name
                ));
            }
        }
        for check in &names {
            let caught = |v: &Variant| v.must_fail(check) == Some(true);
            if !self.variants.iter().any(caught) {
                mistakes.push(format!(
                    "no flawed variant fails {check}: it may be a check that cannot fail"
                ));
            }
        }
        let count = |kind| self.variants.iter().filter(|v| v.kind == kind).count();
        if count(Kind::Exercise) != 1 || count(Kind::Reference) != 1 {
            mistakes.push("a kata has one reference and one exercise".to_owned());
        }
        for (index, step) in self.steps.iter().enumerate() {
            if step.checks.is_empty() || step.hints.iter().any(|hint| hint.trim().is_empty()) {
                mistakes.push(format!(
                    "step {} lacks a check or one of three hints",
                    index + 1
                ));
            }
        }
        mistakes
    }
}
