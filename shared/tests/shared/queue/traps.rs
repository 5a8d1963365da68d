//! Traps that other queues fell into, each sprung on ours on purpose.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use libtest_mimic::Trial;
use shared::queue::{
    Broker, ConnectOptions, Consumer, ConsumerOptions, Delivery, Message, Nack, Queue, connect,
};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::conformance::{Fixture, Start};
use super::nothing_lost;
use crate::support::{Outcome, test};

/// Far longer than anything takes.
const LIMIT: Duration = Duration::from_secs(60);

const LEASE: Duration = Duration::from_secs(60);

type Trap = fn(Arc<dyn Queue>) -> BoxFuture<'static, ()>;

/// The traps, for the broker of this name.
pub(super) fn tests(broker: &'static str, start: Start) -> Vec<Trial> {
    let traps: [(&str, Trap); 5] = [
        ("nobody_sleeps_through_a_wake_up", |queue| {
            Box::pin(nobody_sleeps_through_a_wake_up(queue))
        }),
        (
            "prefetch_batches_and_failures_keep_the_order_of_a_key",
            |queue| Box::pin(prefetch_batches_and_failures_keep_the_order_of_a_key(queue)),
        ),
        ("a_key_that_fails_holds_up_nobody_else", |queue| {
            Box::pin(a_key_that_fails_holds_up_nobody_else(queue))
        }),
        ("ten_thousand_due_at_once_are_no_trouble", |queue| {
            Box::pin(ten_thousand_due_at_once_are_no_trouble(queue))
        }),
        (
            "dead_letters_are_listed_redriven_and_discarded_one_by_one",
            |queue| {
                Box::pin(dead_letters_are_listed_redriven_and_discarded_one_by_one(
                    queue,
                ))
            },
        ),
    ];
    let trial = |(name, trap): (&str, Trap)| {
        test(
            &format!("queue::traps::{broker}::{name}"),
            move || async move {
                let fixture = start().await?;
                let (broker, queue) = open(fixture.as_ref()).await;
                trap(Arc::clone(&queue)).await;
                let _ = queue.delete().await;
                broker.close().await;
                Outcome::Ok(())
            },
        )
    };
    traps.into_iter().map(trial).collect()
}

async fn open(fixture: &dyn Fixture) -> (Arc<dyn Broker>, Arc<dyn Queue>) {
    let broker = connect(&fixture.url(), &ConnectOptions::default())
        .await
        .unwrap();
    let name = format!("traps-{:08x}", rand::random::<u32>());
    let queue = broker.queue(&name, &["g"]).await.unwrap();
    (broker, queue)
}

/// The next message, however long it takes.
pub(super) async fn one(consumer: &Arc<dyn Consumer>) -> Delivery {
    let deadline = Instant::now() + LIMIT;
    loop {
        let wait = Duration::from_secs(1);
        // A connection that was cut may be told once.
        let came = consumer.receive(1, LEASE, wait).await.unwrap_or_default();
        if let Some(delivery) = came.into_iter().next() {
            return delivery;
        }
        assert!(Instant::now() < deadline, "nothing came");
    }
}

/// apalis 1.0 looked at the queue first and registered for the wake-up then.
async fn nobody_sleeps_through_a_wake_up(queue: Arc<dyn Queue>) {
    // Who sleeps through it sleeps for an hour.
    let options = ConsumerOptions::default().poll_interval(Duration::from_secs(3600));
    let consumer = queue.consumer("g", &options).await.unwrap();
    for round in 0..200_u64 {
        let publishing = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move {
                // Now before, now after, now while the consumer looks.
                for _ in 0..round % 20 {
                    tokio::task::yield_now().await;
                }
                queue.publish(&[Message::new("x")]).await.unwrap();
            }
        });
        let receiving = consumer.receive(1, LEASE, Duration::from_secs(3600));
        let came = tokio::time::timeout(LIMIT, receiving).await;
        let came = came
            .unwrap_or_else(|_| panic!("slept through round {round}"))
            .unwrap();
        assert_eq!(came.len(), 1);
        nothing_lost(consumer.ack(&[came[0].receipt.clone()]).await);
        publishing.await.unwrap();
    }
    consumer.close().await.unwrap();
}

const KEYS: usize = 10;
const EACH: usize = 30;

/// graphile_worker's issue 621: batches that are taken ahead lose the order of a key.
async fn prefetch_batches_and_failures_keep_the_order_of_a_key(queue: Arc<dyn Queue>) {
    let mut messages = Vec::new();
    for number in 0..EACH {
        for key in 0..KEYS {
            messages.push(Message::new(format!("{number}")).key(format!("key-{key}")));
        }
        messages.push(Message::new("free"));
    }
    queue.publish(&messages).await.unwrap();
    let done: Arc<Mutex<HashMap<String, Vec<usize>>>> = Arc::default();
    let left = Arc::new(std::sync::atomic::AtomicUsize::new(KEYS * EACH + EACH));
    let mut members = Vec::new();
    for member in 0..4_usize {
        let options = ConsumerOptions::default().poll_interval(Duration::from_millis(50));
        let consumer = queue.consumer("g", &options).await.unwrap();
        let (done, left) = (Arc::clone(&done), Arc::clone(&left));
        members.push(tokio::spawn(async move {
            use std::sync::atomic::Ordering::SeqCst;
            let deadline = Instant::now() + LIMIT;
            while left.load(SeqCst) > 0 {
                assert!(Instant::now() < deadline, "{} left", left.load(SeqCst));
                let wait = Duration::from_millis(100);
                let batch = consumer.receive(16, LEASE, wait).await.unwrap();
                let (mut acks, mut nacks, mut back) = (Vec::new(), Vec::new(), Vec::new());
                let mut failed = Vec::new();
                for delivery in batch {
                    let Some(key) = delivery.message.key.clone() else {
                        left.fetch_sub(1, SeqCst);
                        acks.push(delivery.receipt);
                        continue;
                    };
                    if failed.contains(&key) {
                        back.push(delivery.receipt);
                        continue;
                    }
                    let number: usize = text(&delivery).parse().unwrap();
                    // Every fifth fails the first time, and is done the second.
                    if (number + member).is_multiple_of(5) && delivery.attempt == 1 {
                        failed.push(key);
                        nacks.push(Nack {
                            receipt: delivery.receipt,
                            delay: Duration::from_millis(10),
                            error: "first time".to_owned(),
                        });
                        continue;
                    }
                    done.lock().unwrap().entry(key).or_default().push(number);
                    left.fetch_sub(1, SeqCst);
                    acks.push(delivery.receipt);
                }
                // First what failed, then all at once what did not.
                nothing_lost(consumer.nack(&nacks).await);
                nothing_lost(consumer.release(&back).await);
                nothing_lost(consumer.ack(&acks).await);
            }
            consumer.close().await.unwrap();
        }));
    }
    for member in members {
        member.await.unwrap();
    }
    let done = done.lock().unwrap();
    assert_eq!(done.len(), KEYS);
    for (key, numbers) in done.iter() {
        assert!(is_in_order(numbers), "{key}: {numbers:?}");
    }
}

/// Each once, in the order in which it was published.
pub(super) fn is_in_order(numbers: &[usize]) -> bool {
    numbers.iter().copied().eq(0..EACH)
}

async fn a_key_that_fails_holds_up_nobody_else(queue: Arc<dyn Queue>) {
    let consumer = queue
        .consumer("g", &ConsumerOptions::default())
        .await
        .unwrap();
    let mut messages = vec![
        Message::new("a1").key("a"),
        Message::new("a2").key("a"),
        Message::new("free"),
    ];
    messages.extend((0..8).map(|n| Message::new(format!("b{n}")).key(format!("b{n}"))));
    queue.publish(&messages).await.unwrap();
    let mut came = BTreeMap::new();
    let mut first = None;
    while came.len() < 9 {
        let delivery = one(&consumer).await;
        match text(&delivery).as_str() {
            "a1" => {
                assert!(first.replace(Instant::now()).is_none(), "a1 is too early");
                let nack = Nack {
                    receipt: delivery.receipt,
                    delay: Duration::from_secs(4),
                    error: "no".to_owned(),
                };
                nothing_lost(consumer.nack(&[nack]).await);
            }
            "a2" => panic!("a2 is before a1"),
            other => {
                came.insert(other.to_owned(), ());
                nothing_lost(consumer.ack(&[delivery.receipt]).await);
            }
        }
    }
    let again = one(&consumer).await;
    assert_eq!((text(&again).as_str(), again.attempt), ("a1", 2));
    assert!(first.unwrap().elapsed() >= Duration::from_secs(4));
    nothing_lost(consumer.ack(&[again.receipt]).await);
    assert_eq!(text(&one(&consumer).await), "a2");
    consumer.close().await.unwrap();
}

/// apalis-redis's worker died of some 8,000: Lua's `unpack` puts them all on its stack.
async fn ten_thousand_due_at_once_are_no_trouble(queue: Arc<dyn Queue>) {
    const MANY: usize = 10_000;
    let due = Instant::now() + Duration::from_millis(300);
    for _ in 0..10 {
        let delay = due.saturating_duration_since(Instant::now());
        let chunk: Vec<_> = (0..MANY / 10)
            .map(|_| Message::new("x").delay(delay))
            .collect();
        queue.publish(&chunk).await.unwrap();
    }
    let consumer = queue
        .consumer("g", &ConsumerOptions::default())
        .await
        .unwrap();
    let deadline = Instant::now() + LIMIT;
    let mut left = MANY;
    while left > 0 {
        assert!(Instant::now() < deadline, "{left} of {MANY} did not come");
        let wait = Duration::from_secs(1);
        let came = consumer.receive(1_000, LEASE, wait).await.unwrap();
        let receipts: Vec<_> = came.into_iter().map(|one| one.receipt).collect();
        nothing_lost(consumer.ack(&receipts).await);
        left -= receipts.len();
    }
    consumer.close().await.unwrap();
}

async fn dead_letters_are_listed_redriven_and_discarded_one_by_one(queue: Arc<dyn Queue>) {
    let consumer = queue
        .consumer("g", &ConsumerOptions::default())
        .await
        .unwrap();
    let sent: Vec<_> = (0..6)
        .map(|n| Message::new(format!("{n}")).key("k"))
        .collect();
    queue.publish(&sent).await.unwrap();
    for _ in &sent {
        let delivery = one(&consumer).await;
        let reason = format!("number {}", text(&delivery));
        nothing_lost(consumer.dead_letter(&[(delivery.receipt, reason)]).await);
    }
    let all = queue.dead_letters("g", None, 100).await.unwrap();
    let payloads: Vec<_> = all
        .iter()
        .map(|dead| dead.message.payload.clone())
        .collect();
    assert_eq!(payloads, ["0", "1", "2", "3", "4", "5"], "oldest first");
    assert_eq!(
        (all[1].reason.as_str(), all[1].attempts),
        ("number 1", Some(1))
    );
    assert_eq!(all[1].message, sent[1]);
    let page = queue.dead_letters("g", Some(&all[1].id), 2).await.unwrap();
    let page: Vec<_> = page.into_iter().map(|dead| dead.id).collect();
    assert_eq!(page, [all[2].id.clone(), all[3].id.clone()]);
    let unknown = "1-1".to_owned();
    let two = [all[1].id.clone(), all[4].id.clone(), unknown.clone()];
    assert_eq!(queue.redrive("g", &two).await.unwrap(), 2);
    assert_eq!(
        queue
            .discard("g", &[all[0].id.clone(), unknown])
            .await
            .unwrap(),
        1
    );
    // Some brokers count a moment later than they act.
    let deadline = Instant::now() + LIMIT;
    while queue.depth("g").await.unwrap().dead != Some(3) {
        assert!(Instant::now() < deadline, "the depth is wrong for ever");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let left = queue.dead_letters("g", None, 100).await.unwrap();
    let left: Vec<_> = left.into_iter().map(|dead| dead.id).collect();
    assert_eq!(
        left,
        [all[2].id.clone(), all[3].id.clone(), all[5].id.clone()]
    );
    for number in [1, 4] {
        let delivery = one(&consumer).await;
        assert_eq!(
            (delivery.message.id, delivery.attempt),
            (sent[number].id, 1)
        );
        nothing_lost(consumer.ack(&[delivery.receipt]).await);
    }
    consumer.close().await.unwrap();
}

pub(super) fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.message.payload).into_owned()
}

/// A port on which nobody listens.
pub(super) async fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// Stands before a server, and cuts what goes through it.
pub(super) struct Cut {
    port: u16,
    cuts: watch::Sender<u32>,
}

impl Cut {
    pub(super) async fn before(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cuts, watched) = watch::channel(0);
        let upstream = upstream.to_owned();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (upstream, mut watched) = (upstream.clone(), watched.clone());
                tokio::spawn(async move {
                    watched.mark_unchanged();
                    let Ok(mut server) = TcpStream::connect(upstream).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = watched.changed() => {}
                    }
                    let _ = client.shutdown().await;
                });
            }
        });
        Self { port, cuts }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Ends every connection that there is; new ones are let through.
    pub(super) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}
