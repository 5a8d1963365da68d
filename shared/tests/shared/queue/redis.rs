//! Redis Streams' fixture, and what only Redis can get wrong.

use std::time::Duration;

use async_trait::async_trait;
use redis::{Value, cmd};
use shared::queue::{ConnectOptions, ConsumerOptions, Message, connect};
use shared::services::{Keyspace, Redis, RedisOptions};
use tempfile::TempDir;

use super::conformance::{self, Fixture};
use super::nothing_lost;
use super::traps;
use crate::postgres::empty_folder;
use crate::support::{End, Outcome, test};

pub(crate) fn tests() -> Vec<libtest_mimic::Trial> {
    let mut all = conformance::trials("redis", || Box::pin(Private::start()));
    all.extend(traps::tests("redis", || Box::pin(Private::start())));
    all.extend([
        test(
            "queue::redis::a_job_that_brpop_loses_is_not_lost",
            a_job_that_brpop_loses_is_not_lost,
        ),
        test(
            "queue::redis::a_server_that_lost_everything_is_used_on",
            a_server_that_lost_everything_is_used_on,
        ),
        test(
            "queue::redis::only_the_first_of_a_key_is_ever_in_a_stream",
            only_the_first_of_a_key_is_ever_in_a_stream,
        ),
        test(
            "queue::redis::a_member_that_was_dropped_while_it_waited_takes_nothing",
            a_member_that_was_dropped_while_it_waited_takes_nothing,
        ),
        test(
            "queue::redis::what_the_server_promises_is_told",
            what_the_server_promises_is_told,
        ),
        test(
            "queue::redis::a_prefix_keeps_two_programs_apart",
            a_prefix_keeps_two_programs_apart,
        ),
    ]);
    all
}

/// A private server that logs each command before it answers.
struct Private {
    redis: Redis,
    keyspace: Keyspace,
    _folder: TempDir,
}

impl Private {
    async fn start() -> Result<Box<dyn Fixture>, End> {
        Ok(Box::new(Self::durable(true).await?))
    }

    async fn durable(logged: bool) -> Result<Self, End> {
        let folder = empty_folder();
        let options = RedisOptions::from_env()
            .url(None)
            .folder(folder.path().join("services"));
        let options = match logged {
            true => options.append_only(),
            false => options,
        };
        let redis = Redis::find_or_start(&options).await?;
        let keyspace = redis.fresh_keyspace().await?;
        Ok(Self {
            redis,
            keyspace,
            _folder: folder,
        })
    }

    async fn raw(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.keyspace.url()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }
}

#[async_trait]
impl Fixture for Private {
    fn url(&self) -> String {
        self.keyspace.url()
    }

    fn lease(&self) -> Duration {
        Duration::from_millis(400)
    }

    async fn restart(&self) -> Option<Result<(), End>> {
        let restart = async {
            self.redis.kill().await?;
            self.redis.restart().await?;
            Ok(())
        };
        Some(restart.await)
    }
}

/// The trap itself, beside what we do: both workers die with the job in their hands.
async fn a_job_that_brpop_loses_is_not_lost() -> Outcome {
    let server = Private::durable(true).await?;
    let mut raw = server.raw().await;
    let push: Value = cmd("LPUSH")
        .arg("list")
        .arg("job")
        .query_async(&mut raw)
        .await
        .unwrap();
    assert_eq!(push, Value::Int(1));
    let mut worker = server.raw().await;
    let popped: Vec<String> = cmd("BRPOP")
        .arg("list")
        .arg(1)
        .query_async(&mut worker)
        .await
        .unwrap();
    assert_eq!(popped, ["list", "job"]);
    drop(worker);
    let left: usize = cmd("LLEN").arg("list").query_async(&mut raw).await.unwrap();
    assert_eq!(left, 0, "nobody will ever see it again");

    let options = ConnectOptions::default();
    let broker = connect(&server.keyspace.url(), &options).await.unwrap();
    let queue = broker.queue("jobs", &["g"]).await.unwrap();
    let job = Message::new("job");
    queue.publish(std::slice::from_ref(&job)).await.unwrap();
    let worker = queue
        .consumer("g", &ConsumerOptions::default())
        .await
        .unwrap();
    let lease = Duration::from_millis(100);
    let taken = worker
        .receive(1, lease, Duration::from_secs(60))
        .await
        .unwrap();
    assert_eq!(taken[0].message.id, job.id);
    drop(worker);
    let survivor = queue
        .consumer("g", &ConsumerOptions::default())
        .await
        .unwrap();
    let again = traps::one(&survivor).await;
    assert_eq!((again.message.id, again.attempt), (job.id, 2));
    // Should the dead worker have been slow only, it cannot settle what is not its own any more.
    let late = survivor.ack(&[taken[0].receipt.clone()]).await.unwrap();
    assert_eq!(late.lost.len(), 1);
    nothing_lost(survivor.ack(&[again.receipt]).await);
    Ok(())
}

/// Nothing else is to be expected of a server that logs nothing; but whoever uses it need not be
/// started again.
async fn a_server_that_lost_everything_is_used_on() -> Outcome {
    let server = Private::durable(false).await?;
    let options = ConnectOptions::default();
    let broker = connect(&server.keyspace.url(), &options).await.unwrap();
    assert!(
        broker
            .capabilities()
            .durability
            .contains("lost when the server ends")
    );
    let queue = broker.queue("jobs", &["g"]).await.unwrap();
    let consumer = queue
        .consumer("g", &ConsumerOptions::default())
        .await
        .unwrap();
    queue
        .publish(&[Message::new("lost").key("k")])
        .await
        .unwrap();
    let lost = traps::one(&consumer).await;
    server.redis.kill().await?;
    let error = queue.publish(&[Message::new("x")]).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    server.redis.restart().await?;
    let message = Message::new("kept").key("k");
    queue.publish(std::slice::from_ref(&message)).await.unwrap();
    let late = consumer
        .ack(std::slice::from_ref(&lost.receipt))
        .await
        .unwrap();
    assert_eq!(late.lost, [lost.receipt]);
    assert_eq!(traps::one(&consumer).await.message.id, message.id);
    Ok(())
}

/// The rule that keeps the order of a key, and the order without it.
async fn only_the_first_of_a_key_is_ever_in_a_stream() -> Outcome {
    let server = Private::durable(true).await?;
    let mut raw = server.raw().await;
    let broker = connect(&server.keyspace.url(), &ConnectOptions::default())
        .await
        .unwrap();
    for rule in [true, false] {
        let name = format!("rule-{rule}");
        let queue = broker.queue(&name, &["g"]).await.unwrap();
        let length = async |raw: &mut redis::aio::MultiplexedConnection| {
            let key = format!("{{{name}}}:g:ready");
            cmd("XLEN")
                .arg(key)
                .query_async::<usize>(raw)
                .await
                .unwrap()
        };
        for number in 0..3 {
            queue
                .publish(&[Message::new(format!("{number}")).key("k")])
                .await
                .unwrap();
            if !rule {
                // As if nobody minded which keys are on their way.
                let key = format!("{{{name}}}:g:busy");
                let _: Value = cmd("DEL").arg(key).query_async(&mut raw).await.unwrap();
            }
        }
        assert_eq!(length(&mut raw).await, if rule { 1 } else { 3 });
        // Two consumers, each of which takes what it can.
        let first = queue
            .consumer("g", &ConsumerOptions::default())
            .await
            .unwrap();
        let second = queue
            .consumer("g", &ConsumerOptions::default())
            .await
            .unwrap();
        let lease = Duration::from_secs(60);
        let ahead = first
            .receive(1, lease, Duration::from_secs(60))
            .await
            .unwrap();
        let behind = second.receive(10, lease, Duration::ZERO).await.unwrap();
        assert_eq!(
            behind.is_empty(),
            rule,
            "whether a later one is out beside an earlier"
        );
        let receipts: Vec<_> = ahead
            .into_iter()
            .chain(behind)
            .map(|one| one.receipt)
            .collect();
        let _ = first.ack(&receipts).await.unwrap();
    }
    Ok(())
}

async fn a_member_that_was_dropped_while_it_waited_takes_nothing() -> Outcome {
    let server = Private::durable(true).await?;
    let broker = connect(&server.keyspace.url(), &ConnectOptions::default())
        .await
        .unwrap();
    let queue = broker.queue("jobs", &["g"]).await.unwrap();
    let options = ConsumerOptions::default().poll_interval(Duration::from_secs(60));
    let consumer = queue.consumer("g", &options).await.unwrap();
    let waiting = tokio::spawn(async move {
        let lease = Duration::from_secs(600);
        let _ = consumer.receive(1, lease, Duration::from_secs(60)).await;
    });
    let mut raw = server.raw().await;
    let blocked = async |raw: &mut redis::aio::MultiplexedConnection| {
        let info: String = cmd("INFO").arg("clients").query_async(raw).await.unwrap();
        info.contains("blocked_clients:1")
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !blocked(&mut raw).await {
        assert!(std::time::Instant::now() < deadline, "it never waited");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    while blocked(&mut raw).await {
        assert!(
            std::time::Instant::now() < deadline,
            "the server thinks that it waits"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    queue.publish(&[Message::new("x")]).await.unwrap();
    let heir = queue
        .consumer("g", &ConsumerOptions::default())
        .await
        .unwrap();
    assert_eq!(traps::one(&heir).await.attempt, 1);
    Ok(())
}

async fn what_the_server_promises_is_told() -> Outcome {
    let server = Private::durable(true).await?;
    let broker = connect(&server.keyspace.url(), &ConnectOptions::default())
        .await
        .unwrap();
    let always = broker.capabilities().durability;
    assert!(always.contains("appendfsync always"), "{always}");
    let mut raw = server.raw().await;
    let mut command = cmd("CONFIG");
    command.arg("SET").arg("appendfsync").arg("everysec");
    let _: Value = command.query_async(&mut raw).await.unwrap();
    let broker = connect(&server.keyspace.url(), &ConnectOptions::default())
        .await
        .unwrap();
    let later = broker.capabilities().durability;
    assert!(later.contains("last second"), "{later}");
    Ok(())
}

async fn a_prefix_keeps_two_programs_apart() -> Outcome {
    let server = Private::durable(true).await?;
    let mut consumers = Vec::new();
    for prefix in ["one:", "two:"] {
        let url = format!("{}?prefix={prefix}", server.keyspace.url());
        let broker = connect(&url, &ConnectOptions::default()).await.unwrap();
        let queue = broker.queue("jobs", &["g"]).await.unwrap();
        queue.publish(&[Message::new(prefix)]).await.unwrap();
        consumers.push(
            queue
                .consumer("g", &ConsumerOptions::default())
                .await
                .unwrap(),
        );
    }
    for (consumer, prefix) in consumers.iter().zip(["one:", "two:"]) {
        let delivery = traps::one(consumer).await;
        assert_eq!(traps::text(&delivery), prefix);
    }
    let mut raw = server.raw().await;
    let keys: Vec<String> = cmd("KEYS").arg("*").query_async(&mut raw).await.unwrap();
    let foreign = keys
        .iter()
        .find(|key| !key.starts_with("{one:jobs}") && !key.starts_with("{two:jobs}"));
    assert_eq!(foreign, None);
    Ok(())
}
