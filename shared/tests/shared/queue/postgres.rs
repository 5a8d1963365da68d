//! PostgreSQL's fixture, and what is its own: the traps of queues in a database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use shared::db::{PoolSettings, connect_lazy};
use shared::queue::worker::Worker;
use shared::queue::{
    Broker, ConnectOptions, Consumer, ConsumerOptions, Delivery, Message, Queue, connect,
};
use shared::services::{Postgres, Schema};
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tempfile::TempDir;

use super::conformance::order::{messages, play};
use super::conformance::{self, Fixture};
use super::nothing_lost;
use crate::postgres::{folder, options};
use crate::support::{End, Outcome, tests, until};

mod own {
    use super::*;

    tests![
        without_the_rule_the_order_breaks_and_the_suite_sees_it,
        one_worker_keeps_the_order_of_what_it_took_at_once,
        a_long_snapshot_does_not_starve_it,
        a_message_whose_publisher_commits_late_is_not_lost,
        many_publications_are_notified_together,
        a_lost_lease_drops_the_handler,
    ];
}

pub(crate) fn tests() -> Vec<libtest_mimic::Trial> {
    let mut all = conformance::trials("postgres", || {
        Box::pin(async { Ok(Box::new(Private::start().await?) as Box<dyn Fixture>) })
    });
    all.extend(own::tests());
    all
}

/// A private server, killed at will.
struct Private {
    postgres: Postgres,
    schema: Schema,
    pool: PgPool,
    _folder: TempDir,
}

impl Private {
    async fn start() -> Result<Self, End> {
        let folder = folder();
        // A broker that may lose what it said it has stored would be judged by luck.
        let options = options(&folder)
            .setting("synchronous_commit", "on")
            .setting("fsync", "on")
            .setting("full_page_writes", "on");
        let postgres = Postgres::find_or_start(&options).await?;
        let schema = postgres.fresh_schema().await?;
        let settings = PoolSettings {
            // Some tests hold a transaction open on purpose.
            idle_in_transaction_timeout: Duration::from_secs(300),
            ..PoolSettings::default()
        };
        Ok(Self {
            pool: connect_lazy(schema.options(), &settings),
            postgres,
            schema,
            _folder: folder,
        })
    }

    async fn broker(&self) -> Arc<dyn Broker> {
        let options = ConnectOptions::default();
        connect(&self.url(), &options).await.unwrap()
    }

    async fn queue(&self) -> (Arc<dyn Broker>, Arc<dyn Queue>) {
        let broker = self.broker().await;
        let queue = broker.queue("orders", &["group"]).await.unwrap();
        (broker, queue)
    }

    async fn run(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.pool).await.unwrap();
    }

    async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }
}

/// What a publisher does, but for the notification.
const SILENTLY: &str = "\
    insert into queue_messages (group_id, enqueued_at, position, id, payload) \
    select id, now(), nextval('queue_positions'), gen_random_uuid(), convert_to($2, 'UTF8') \
    from queue_groups where queue = $1";

#[async_trait]
impl Fixture for Private {
    fn url(&self) -> String {
        self.schema.url(&self.postgres.upstream())
    }

    fn lease(&self) -> Duration {
        Duration::from_millis(400)
    }

    async fn restart(&self) -> Option<Result<(), End>> {
        let restart = async {
            self.postgres.kill().await?;
            self.postgres.restart().await?;
            Ok(())
        };
        Some(restart.await)
    }

    async fn publish_silently(&self, queue: &str, payload: &str) -> Option<Result<(), End>> {
        let query = sqlx::query(SILENTLY).bind(queue).bind(payload);
        query.execute(&self.pool).await.unwrap();
        Some(Ok(()))
    }
}

async fn consumer(queue: &Arc<dyn Queue>) -> Arc<dyn Consumer> {
    let options = ConsumerOptions::default().poll_interval(Duration::from_millis(50));
    queue.consumer("group", &options).await.unwrap()
}

/// The rule is that only the first message of a key has a position. Without it:
const NO_RULE: &str = "update queue_messages set blocked = false, position = rank";

async fn without_the_rule_the_order_breaks_and_the_suite_sees_it() -> Outcome {
    let private = Private::start().await?;
    let mut consumers = Vec::new();
    for _ in 0..4 {
        consumers.push(consumer(&private.queue().await.1).await);
    }
    private.queue().await.1.publish(&messages()).await.unwrap();
    private.run(NO_RULE).await;
    let (lease, retry) = (Duration::from_secs(60), Duration::from_millis(100));
    let journal = play(consumers, lease, retry, |_| false).await;
    assert!(!journal.lock().unwrap().violations.is_empty());
    Ok(())
}

/// The worker's part of the rule: a batch that holds many of a key is not run side by side.
async fn one_worker_keeps_the_order_of_what_it_took_at_once() -> Outcome {
    let private = Private::start().await?;
    let (_broker, queue) = private.queue().await;
    queue.publish(&messages()).await.unwrap();
    private.run(NO_RULE).await;
    let (lease, retry) = (Duration::from_secs(60), Duration::from_millis(100));
    let journal = play(vec![consumer(&queue).await], lease, retry, |_| false).await;
    let journal = journal.lock().unwrap();
    assert!(journal.violations.is_empty(), "{:#?}", journal.violations);
    Ok(())
}

/// Takes and acknowledges so many.
async fn burn(consumer: &Arc<dyn Consumer>, mut number: usize, batch: usize) {
    while number > 0 {
        let lease = Duration::from_secs(60);
        let wait = Duration::from_secs(60);
        let came = consumer.receive(batch, lease, wait).await.unwrap();
        assert!(!came.is_empty());
        number -= came.len();
        let receipts: Vec<_> = came.into_iter().map(|delivery| delivery.receipt).collect();
        nothing_lost(consumer.ack(&receipts).await);
    }
}

async fn a_long_snapshot_does_not_starve_it() -> Outcome {
    const MANY: usize = 15_000;
    const FEW: usize = 100;
    let private = Private::start().await?;
    let (broker, queue) = private.queue().await;
    let consumer = consumer(&queue).await;
    let mut report = private.pool.begin().await.unwrap();
    sqlx::raw_sql("set transaction isolation level repeatable read; select 1 from queue_groups")
        .execute(&mut *report)
        .await
        .unwrap();
    for _ in 0..3 {
        let many: Vec<_> = (0..MANY / 3).map(|_| Message::new("x")).collect();
        queue.publish(&many).await.unwrap();
        burn(&consumer, MANY / 3, MANY / 3).await;
    }
    for _ in 0..FEW {
        queue.publish(&[Message::new("x")]).await.unwrap();
        burn(&consumer, 1, 1).await;
    }
    // Sessions hand in their statistics when they end.
    consumer.close().await.unwrap();
    broker.close().await;
    let vacuumed = sqlx::raw_sql("vacuum queue_messages").execute(&private.pool);
    vacuumed.await.unwrap();
    let kept = private
        .number("select n_dead_tup from pg_stat_user_tables where relname = 'queue_messages'")
        .await;
    let many = i64::try_from(MANY).unwrap();
    assert!(
        kept >= many,
        "inconclusive: the snapshot keeps only {kept} dead rows"
    );
    let read = private
        .number(
            "select idx_tup_read from pg_stat_user_indexes \
             where indexrelname = 'queue_messages_position'",
        )
        .await;
    // Each of the few would walk over all that were done: 1.5 million. As it is, a sweep does, some
    // times a second; the rest is one read to claim and one to delete each.
    let walks = many * i64::try_from(FEW).unwrap();
    assert!(
        read < walks / 2,
        "{read} entries read for {MANY} + {FEW} messages"
    );
    report.rollback().await.unwrap();
    Ok(())
}

/// Commit order is not the order of positions: "above the last one" loses it.
async fn a_message_whose_publisher_commits_late_is_not_lost() -> Outcome {
    let private = Private::start().await?;
    let (_broker, queue) = private.queue().await;
    let consumer = consumer(&queue).await;
    let mut late = private.pool.begin().await.unwrap();
    sqlx::query(SILENTLY)
        .bind("orders")
        .bind("late")
        .execute(&mut *late)
        .await
        .unwrap();
    // Beyond the cursor's lag and many sweeps.
    let until = Instant::now() + Duration::from_millis(700);
    while Instant::now() < until {
        queue.publish(&[Message::new("x")]).await.unwrap();
        burn(&consumer, 1, 10).await;
    }
    late.commit().await.unwrap();
    let lease = Duration::from_secs(60);
    let came = consumer.receive(10, lease, lease).await.unwrap();
    assert_eq!(&came[0].message.payload[..], b"late");
    Ok(())
}

async fn many_publications_are_notified_together() -> Outcome {
    const MANY: usize = 300;
    let private = Private::start().await?;
    let (_broker, queue) = private.queue().await;
    let table = private
        .number("select 'queue_messages'::regclass::oid::int8")
        .await;
    let mut listener = PgListener::connect_with(&private.pool).await.unwrap();
    listener.listen(&format!("queue_{table}")).await.unwrap();
    let began = Instant::now();
    let publishers = (0..MANY).map(|_| {
        let queue = Arc::clone(&queue);
        tokio::spawn(async move { queue.publish(&[Message::new("x")]).await })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await.unwrap().unwrap();
    }
    let took = began.elapsed();
    let mut heard = 0;
    // The last one comes a few milliseconds after the last publication.
    let quiet = Duration::from_secs(2);
    while tokio::time::timeout(quiet, listener.recv()).await.is_ok() {
        heard += 1;
    }
    let at_most = took.as_millis() / 4 + 2;
    assert!(heard >= 1, "nobody was notified");
    assert!(heard <= at_most, "{heard} notifications in {took:?}");
    assert!(heard < MANY as u128, "one for each publication");
    Ok(())
}

async fn a_lost_lease_drops_the_handler() -> Outcome {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let private = Private::start().await?;
    let (_broker, queue) = private.queue().await;
    queue.publish(&[Message::new("x")]).await.unwrap();
    let (begun, dropped) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let handler = {
        let (begun, dropped) = (Arc::clone(&begun), Arc::clone(&dropped));
        move |_: Delivery| {
            let dropped = Dropped(Arc::clone(&dropped));
            begun.store(true, Ordering::Relaxed);
            async move {
                let _dropped = dropped;
                std::future::pending().await
            }
        }
    };
    let stop = async {
        until("it has begun", || begun.load(Ordering::Relaxed)).await;
        // As another would who takes it after the lease, and keeps it.
        private
            .run("update queue_messages set lease = 7, until = now() + interval '1 h'")
            .await;
        until("it was dropped", || dropped.load(Ordering::Relaxed)).await;
    };
    let worker = Worker::new(consumer(&queue).await).lease(Duration::from_millis(900));
    let report = worker.run(handler, stop).await;
    assert_eq!((report.lost, report.done), (1, 0));
    let untouched = "select lease from queue_messages";
    assert_eq!(private.number(untouched).await, 7, "it is the other's");
    Ok(())
}
