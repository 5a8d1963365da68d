//! The lab: the world that one check runs in.

use std::{
    collections::BTreeMap,
    future::Future,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use sqlx::PgPool;

use crate::{
    fakes::{Approvals, Intake, PaymentProvider, SlowService},
    grounds::Grounds,
    history::History,
    implementation::{Implementation, Output, StartError},
    instance::Instance,
    kata::Given,
    place::Place,
    replica::{Lease, Replica},
    verdict::{Judged, Promise, Stop},
};

/// How a condition is looked at again while a check waits for it.
const PAUSE: Duration = Duration::from_millis(10);

/// The world of one check: a fresh place, the implementation, its instances, the history, a seed.
///
/// Cloning gives another handle to the same lab.
#[derive(Clone)]
pub struct Lab(Arc<Inner>);

struct Inner {
    plan: Plan,
    place: Arc<Place>,
    history: History,
    variables: Mutex<BTreeMap<&'static str, u64>>,
    instances: Mutex<Vec<Instance>>,
    random: Mutex<StdRng>,
    /// The history that shows a failure, when it happened in a scene of its own.
    evidence: Mutex<Option<(History, Vec<String>)>>,
    have_points_moved: AtomicBool,
}

/// What a lab is set up for.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) implementation: Implementation,
    pub(crate) given: Given,
    /// Tells the random numbers of one check from those of another under the same seed.
    pub(crate) check: String,
    pub(crate) seed: u64,
    pub(crate) start_timeout: Duration,
}

impl Lab {
    pub(crate) async fn open(
        grounds: &Arc<Grounds>,
        plan: Plan,
        lease: Option<Arc<Lease>>,
    ) -> Judged<Self> {
        let history = History::new();
        let place = Place::open(grounds, &plan.given, lease, &history).await?;
        Ok(Self::on(Arc::new(place), plan, history))
    }

    /// A lab in a place that outlives it: the learner's own program runs there (`--url`).
    pub(crate) fn on(place: Arc<Place>, plan: Plan, history: History) -> Self {
        for fake in place.fakes() {
            fake.record_into(history.clone());
        }
        let mut hasher = DefaultHasher::new();
        (plan.seed, &plan.check).hash(&mut hasher);
        if !plan.implementation.is_ours() {
            // The place remembers the ids of earlier runs; the same ones would be replays.
            uuid::Uuid::new_v4().hash(&mut hasher);
        }
        let random = StdRng::seed_from_u64(hasher.finish());
        let variables = plan.given.variables.iter().copied().collect();
        Self(Arc::new(Inner {
            plan,
            place,
            history,
            variables: Mutex::new(variables),
            instances: Mutex::default(),
            random: Mutex::new(random),
            evidence: Mutex::default(),
            have_points_moved: AtomicBool::new(false),
        }))
    }

    /// A second lab for the same implementation, with a fresh place: one of many scenes of a check.
    ///
    /// # Errors
    /// [`Stop::NotRun`] where there is one place only (`--url`).
    pub async fn scene(&self, number: usize) -> Judged<Lab> {
        if !self.0.plan.implementation.is_ours() {
            return Stop::not_run(
                "it needs fresh state for each scene, and a program that the lab starts (--cmd)",
            );
        }
        let mut plan = self.0.plan.clone();
        plan.check = format!("{} {number}", plan.check);
        let lab = Lab::open(&self.0.place.grounds, plan, self.0.place.lease.clone()).await?;
        *lock(&lab.0.variables) = lock(&self.0.variables).clone();
        Ok(lab)
    }

    /// Takes the history of a scene as the evidence for the verdict on this lab.
    pub fn adopt(&self, scene: &Lab) {
        lock(&self.0.evidence).get_or_insert_with(|| (scene.0.history.clone(), scene.output()));
    }

    /// The variable as it will be given, or is, to the instances of this lab.
    pub fn number(&self, name: &str) -> u64 {
        lock(&self.0.variables)
            .get(name)
            .copied()
            .unwrap_or_default()
    }

    /// The same as a duration in milliseconds.
    pub fn millis(&self, name: &str) -> Duration {
        Duration::from_millis(self.number(name))
    }

    /// Gives a variable the value that suits this check best. A program that runs already keeps
    /// its own value, so compute waits from [`Lab::millis`].
    pub fn prefer(&self, name: &'static str, value: u64) {
        if self.0.plan.implementation.is_ours() {
            lock(&self.0.variables).insert(name, value);
        }
    }

    /// Gives a variable a value without which this check makes no sense.
    ///
    /// # Errors
    /// [`Stop::NotRun`] if a running program was given another one.
    pub fn require(&self, name: &'static str, value: u64) -> Judged {
        self.prefer(name, value);
        match self.number(name) {
            in_force if in_force == value => Ok(()),
            in_force => Stop::not_run(format!(
                "it needs {name}={value}, and the running program has {in_force} (--cmd can)"
            )),
        }
    }

    /// Whether the lab starts, crashes and restarts instances here, or somebody else runs the one
    /// there is.
    pub fn can_start_instances(&self) -> bool {
        self.0.plan.implementation.is_ours()
    }

    /// Starts an instance named `program` and waits until it is healthy.
    ///
    /// # Errors
    /// [`Stop::Failed`] if it does not come up, [`Stop::NotStarted`] if it says so itself.
    pub async fn start(&self) -> Judged<Instance> {
        self.start_as("program").await
    }

    /// Starts an instance with a name of its own, for checks with several.
    ///
    /// # Errors
    /// As [`Lab::start`]; [`Stop::NotRun`] for a second instance of something that runs already.
    pub async fn start_as(&self, name: &str) -> Judged<Instance> {
        match self.try_start(name, &Output::default()).await? {
            Ok(instance) => Ok(instance),
            Err(StartError::NotStarted(what)) => Err(Box::new(Stop::NotStarted(what))),
            Err(error) => Promise::new(
                "started it with the variables of the contract",
                "GET /health answers 200",
            )
            .broken(error.to_string()),
        }
    }

    /// Starts and ends an instance; why it could not, with what it wrote.
    pub(crate) async fn try_start_for_preflight(&self) -> Result<(), (StartError, Vec<String>)> {
        let output = Output::default();
        match self.try_start("program", &output).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(why)) => Err((why, output.lines())),
            Err(stop) => Err((StartError::Ended(format!("{stop:?}")), Vec::new())),
        }
    }

    async fn try_start(&self, name: &str, output: &Output) -> Judged<Result<Instance, StartError>> {
        let ours = self.0.plan.implementation.is_ours();
        if !ours && !lock(&self.0.instances).is_empty() {
            return Stop::not_run(
                "it needs a second instance, which only the lab can start (--cmd)",
            );
        }
        let fronts = match &self.0.place.standing {
            Some(fronts) => fronts.clone(),
            None => match self.0.place.open_fronts(self.keeps_sessions()) {
                Ok(fronts) => fronts,
                Err(error) => return Stop::inconclusive(format!("no database front: {error}")),
            },
        };
        let mut env = self.0.place.env(&fronts);
        for (name, value) in &*lock(&self.0.variables) {
            env.set(*name, value);
        }
        let started = Instance::start(crate::instance::Setting {
            name: name.to_owned(),
            implementation: self.0.plan.implementation.clone(),
            env,
            fronts,
            history: self.0.history.clone(),
            start_timeout: self.0.plan.start_timeout,
            output: output.clone(),
        })
        .await;
        if let Ok(instance) = &started {
            lock(&self.0.instances).push(instance.clone());
        }
        Ok(started)
    }

    /// Whether the sessions of one instance are kept for the next. A program of the learner's own
    /// gets what the server gives, down to the last packet.
    fn keeps_sessions(&self) -> bool {
        matches!(self.0.plan.implementation, Implementation::InProcess { .. })
    }

    /// The fake payment provider of this lab.
    ///
    /// # Panics
    /// If the kata's map does not name it under `given`.
    pub fn provider(&self) -> &PaymentProvider {
        self.0
            .place
            .provider
            .as_ref()
            .expect("the kata's map gives a payment provider")
    }

    /// The fake mail service of this lab.
    ///
    /// # Panics
    /// If the kata's map does not name it under `given`.
    pub fn mail(&self) -> &Intake {
        let mail = self.0.place.mail.as_ref();
        mail.expect("the kata's map gives a mail service")
    }

    /// The fake warehouse of this lab.
    ///
    /// # Panics
    /// If the kata's map does not name it under `given`.
    pub fn warehouse(&self) -> &Intake {
        let warehouse = self.0.place.warehouse.as_ref();
        warehouse.expect("the kata's map gives a warehouse")
    }

    /// The fake that approves sales.
    ///
    /// # Panics
    /// If the kata's map does not name it under `given`.
    pub fn approvals(&self) -> &Approvals {
        let approvals = self.0.place.approvals.as_ref();
        approvals.expect("the kata's map gives approvals")
    }

    /// The fake slow service.
    ///
    /// # Panics
    /// If the kata's map does not name it under `given`.
    pub fn slow_service(&self) -> &SlowService {
        let slow_service = self.0.place.slow_service.as_ref();
        slow_service.expect("the kata's map gives a slow service")
    }

    /// Whether the database has a replica: in a check that asks for one, and for a program that
    /// somebody else runs, which has one in all checks or in none.
    pub fn has_replica(&self) -> bool {
        self.0.place.lease.is_some()
    }

    /// The replica of the database.
    ///
    /// # Panics
    /// If the check does not ask for one ([`Check::with_replica`](crate::Check::with_replica)).
    pub fn replica(&self) -> Replica {
        let lease = self.0.place.lease.clone();
        let lease = lease.expect("the check asks for a replica");
        Replica::new(lease, self.0.history.clone())
    }

    /// A connection pool with the lab's own rights, past every front: for looking at what is there.
    ///
    /// # Panics
    /// If the kata's map gives no database.
    pub fn admin(&self) -> &PgPool {
        let access = self.0.place.access.as_ref();
        let access = access.expect("the kata's map gives a database");
        access.database.admin()
    }

    /// The schema that this lab's instances write to.
    ///
    /// # Panics
    /// If the kata's map gives no database.
    pub fn schema(&self) -> &str {
        let access = self.0.place.access.as_ref();
        &access.expect("the kata's map gives a database").role
    }

    /// The history of this check.
    pub fn history(&self) -> &History {
        &self.0.history
    }

    /// Notes what the lab itself does.
    pub fn note(&self, what: impl Into<String>) {
        self.0.history.note("lab", what);
    }

    /// An id that is the same for the same seed and check: `pay-4f1c09`.
    pub fn id(&self, prefix: &str) -> String {
        let number: u32 = lock(&self.0.random).random();
        format!("{prefix}-{:06x}", number & 0xff_ffff)
    }

    /// A number from the seed, in a range.
    pub fn pick(&self, range: std::ops::RangeInclusive<u64>) -> u64 {
        lock(&self.0.random).random_range(range)
    }

    /// Waits until a condition holds; `false` if it does not within the time given.
    pub async fn until<F, Fut>(&self, within: Duration, mut holds: F) -> bool
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = bool>,
    {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            if holds().await {
                return true;
            }
            if tokio::time::Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The present scene has other points than it was meant to have.
    pub(crate) fn points_have_moved(&self) {
        self.0.have_points_moved.store(true, Ordering::Relaxed);
    }

    /// Whether that was so since it was asked last.
    pub(crate) fn had_moved_points(&self) -> bool {
        self.0.have_points_moved.swap(false, Ordering::Relaxed)
    }

    /// The place that it stands in.
    pub(crate) fn place(&self) -> &Place {
        &self.0.place
    }

    /// What failed, with everything that shows it.
    pub(crate) fn evidence(&self) -> (History, Vec<String>) {
        match &*lock(&self.0.evidence) {
            Some((history, output)) => (history.clone(), output.clone()),
            None => (self.0.history.clone(), self.output()),
        }
    }

    /// The variables in force, as `NAME=value`.
    pub(crate) fn settings(&self) -> Vec<String> {
        let variables = lock(&self.0.variables);
        variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    fn output(&self) -> Vec<String> {
        let instances = lock(&self.0.instances);
        instances.iter().flat_map(Instance::output).collect()
    }

    /// Ends every instance and gives the place back. A lab that is only dropped ends them too, but
    /// leaves its schema until the server goes or the next run sweeps it.
    pub async fn close(self) {
        let instances = std::mem::take(&mut *lock(&self.0.instances));
        if !self.0.plan.implementation.is_ours() {
            self.0.place.reset().await;
            return;
        }
        let ended = futures::future::join_all(instances.iter().map(Instance::end)).await;
        match self.keeps_sessions() && ended.into_iter().all(|nothing_left| nothing_left) {
            true => self.0.place.recycle().await,
            false => self.0.place.give_back().await,
        }
    }
}

// The mutexes of a lab are held for a few instructions and never across an await.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
