//! An outbox in a schema of its own, and a queue that notes what it is given.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use shared::db::{PoolSettings, TxOptions, begin, connect_lazy, migrate};
use shared::outbox::{Event, MIGRATIONS, Relay, RelayOptions, stage_all};
use shared::queue::{
    Backoff, Consumer, ConsumerOptions, DeadLetter, Depth, Message, Queue, QueueError,
};
use shared::services::{Options, Postgres, Schema};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::sync::{OnceCell, Semaphore};

use crate::support::End;

/// One server for all tests of this module, each in a schema of its own: none of them stops it, and
/// starting one is most of what such a test costs. It ends with the process.
static SERVER: OnceCell<Postgres> = OnceCell::const_new();

pub(super) struct Outbox {
    pub(super) pool: PgPool,
    schema: Schema,
}

impl Outbox {
    pub(super) async fn start() -> Result<Self, End> {
        let server = SERVER.get_or_try_init(async || {
            // Below the target folder, since nobody drops a static: the next start sweeps what
            // even the guard could not.
            let services = Path::new(env!("CARGO_TARGET_TMPDIR")).join("services");
            let options = Options::from_env().url(None).folder(services);
            Postgres::find_or_start(&options).await
        });
        let schema = server.await?.fresh_schema().await?;
        let settings = PoolSettings {
            max_connections: 20,
            ..PoolSettings::default()
        };
        let pool = connect_lazy(schema.options(), &settings);
        migrate(&pool, &[MIGRATIONS]).await.unwrap();
        Ok(Self { pool, schema })
    }

    /// For another process.
    pub(super) fn url(&self) -> String {
        self.schema.url(&SERVER.get().unwrap().upstream())
    }

    /// Stages events in a transaction of their own.
    pub(super) async fn stage(&self, events: &[Event]) {
        let mut tx = begin(&self.pool, &TxOptions::default()).await.unwrap();
        stage_all(&mut tx, events).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// A relay with little patience.
    pub(super) fn relay(&self, queue: &Arc<Recorder>) -> Relay {
        self.relay_with(queue, |_| {})
    }

    pub(super) fn relay_with(
        &self,
        queue: &Arc<Recorder>,
        change: impl FnOnce(&mut RelayOptions),
    ) -> Relay {
        let mut options = RelayOptions::default();
        let ms = Duration::from_millis;
        options.lanes = 64;
        options.retry = Backoff::exponential(ms(1), ms(1));
        options.broker_down = Backoff::exponential(ms(1), ms(20));
        options.poll = ms(50);
        change(&mut options);
        let queue: Arc<dyn Queue> = Arc::clone(queue) as Arc<dyn Queue>;
        Relay::new(self.pool.clone(), [queue]).options(options)
    }

    /// The first column of the first row.
    pub(super) async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    pub(super) async fn run(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql).execute(&self.pool).await.unwrap();
    }

    /// As if the time of every claim were over.
    pub(super) async fn end_leases(&self) {
        self.run("update outbox_lanes set claimed_until = clock_timestamp() - interval '1 s' where claim is not null")
            .await;
    }
}

/// Event `n` of a key, for the queue `orders`.
pub(super) fn event(key: &str, n: usize) -> Event {
    Event::new("orders", Message::new(n.to_string()).key(key))
}

/// Steps until there is nothing to do.
pub(super) async fn drain(relay: &mut Relay) {
    while !relay.step().await.unwrap().is_idle {}
}

type Verdict<T> = Mutex<Box<dyn Fn(&[Message]) -> T + Send + Sync>>;

/// A queue that keeps what it takes, in order, refuses what it is told to, and can be made to hold
/// its answer.
pub(super) struct Recorder {
    taken: Mutex<Vec<Message>>,
    refuse: Verdict<Option<QueueError>>,
    hang: Verdict<bool>,
    /// One permit for each call that may return; closed: as many as like.
    answers: Semaphore,
    /// One permit for each call that has stored its messages.
    pub(super) stored: Semaphore,
}

impl Recorder {
    /// Answers at once.
    pub(super) fn new() -> Arc<Self> {
        let recorder = Self::holding();
        recorder.answer_all();
        recorder
    }

    /// Stores what it is given, and answers when it is let.
    pub(super) fn holding() -> Arc<Self> {
        Arc::new(Self {
            taken: Mutex::default(),
            refuse: Mutex::new(Box::new(|_| None)),
            hang: Mutex::new(Box::new(|_| false)),
            answers: Semaphore::new(0),
            stored: Semaphore::new(0),
        })
    }

    pub(super) fn answer_all(&self) {
        self.answers.close();
    }

    /// From now on a batch is refused for which there is an error, and nothing of it is taken.
    pub(super) fn refuse(
        &self,
        verdict: impl Fn(&[Message]) -> Option<QueueError> + Send + Sync + 'static,
    ) {
        *self.refuse.lock().unwrap() = Box::new(verdict);
    }

    /// From now on such a batch is not answered, and nothing of it is taken.
    pub(super) fn hang(&self, verdict: impl Fn(&[Message]) -> bool + Send + Sync + 'static) {
        *self.hang.lock().unwrap() = Box::new(verdict);
    }

    pub(super) fn taken(&self) -> Vec<Message> {
        self.taken.lock().unwrap().clone()
    }

    /// What was taken, as `key:payload`.
    pub(super) fn texts(&self) -> Vec<String> {
        self.taken().iter().map(text).collect()
    }

    /// The payloads of one key, in order.
    pub(super) fn of_key(&self, key: &str) -> Vec<String> {
        let of_key = |message: &&Message| message.key.as_deref() == Some(key);
        self.taken().iter().filter(of_key).map(payload).collect()
    }

    /// Waits until one more call has stored its messages.
    pub(super) async fn next_stored(&self) {
        self.stored.acquire().await.unwrap().forget();
    }
}

pub(super) fn payload(message: &Message) -> String {
    String::from_utf8(message.payload.to_vec()).unwrap()
}

pub(super) fn text(message: &Message) -> String {
    let key = message.key.as_deref().unwrap_or("-");
    format!("{key}:{}", payload(message))
}

#[async_trait]
impl Queue for Recorder {
    fn name(&self) -> &str {
        "orders"
    }

    async fn publish(&self, messages: &[Message]) -> Result<(), QueueError> {
        if (self.hang.lock().unwrap())(messages) {
            std::future::pending::<()>().await;
        }
        if let Some(error) = (self.refuse.lock().unwrap())(messages) {
            return Err(error);
        }
        self.taken.lock().unwrap().extend_from_slice(messages);
        self.stored.add_permits(1);
        if let Ok(permit) = self.answers.acquire().await {
            permit.forget();
        }
        Ok(())
    }

    async fn consumer(
        &self,
        _: &str,
        _: &ConsumerOptions,
    ) -> Result<Arc<dyn Consumer>, QueueError> {
        unreachable!("a relay consumes nothing")
    }

    async fn depth(&self, _: &str) -> Result<Depth, QueueError> {
        unreachable!("a relay asks for no depth")
    }

    async fn dead_letters(
        &self,
        _: &str,
        _: Option<&str>,
        _: usize,
    ) -> Result<Vec<DeadLetter>, QueueError> {
        unreachable!("a relay has no dead letters")
    }

    async fn redrive(&self, _: &str, _: &[String]) -> Result<usize, QueueError> {
        unreachable!("a relay has no dead letters")
    }

    async fn discard(&self, _: &str, _: &[String]) -> Result<usize, QueueError> {
        unreachable!("a relay has no dead letters")
    }

    async fn purge(&self) -> Result<(), QueueError> {
        unreachable!("a relay deletes nothing")
    }

    async fn delete(&self) -> Result<(), QueueError> {
        unreachable!("a relay deletes nothing")
    }
}
