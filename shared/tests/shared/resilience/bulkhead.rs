//! `Bulkhead`: so many at once, few that wait, and none for long.

use std::time::Duration;

use shared::resilience::{Bulkhead, BulkheadSettings, Deadline, Refused};
use tokio::time::{Instant, sleep, timeout};

use super::paused_tests;

paused_tests![
    so_many_pass_so_many_wait_and_the_rest_hears_busy_at_once,
    nobody_waits_longer_than_the_settings_or_the_deadline_allow,
    whoever_stops_waiting_leaves_the_queue,
    a_cancelled_or_panicking_call_ends_its_turn,
    one_slow_dependency_leaves_the_other_alone,
    settings_that_cannot_work_are_refused,
];

fn bulkhead(calls: usize, waiting: usize) -> Bulkhead {
    let settings = BulkheadSettings {
        calls,
        waiting,
        longest_wait: Duration::from_millis(100),
    };
    Bulkhead::new("payments", settings).unwrap()
}

const FULL: Refused = Refused::BulkheadFull {
    dependency: "payments",
};

async fn so_many_pass_so_many_wait_and_the_rest_hears_busy_at_once() {
    let bulkhead = bulkhead(2, 3);
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let bulkhead = bulkhead.clone();
            tokio::spawn(async move {
                let began = Instant::now();
                // A sleep begins when it is made.
                let work = async { sleep(Duration::from_millis(40)).await };
                let done = bulkhead.run(work).await;
                (done, began.elapsed())
            })
        })
        .collect();
    let mut seen = Vec::new();
    for task in tasks {
        let (done, took) = task.await.unwrap();
        seen.push((done.is_ok(), took.as_millis()));
    }
    let at_once = [(true, 40); 2];
    let waited = [(true, 80), (true, 80), (true, 120)];
    assert_eq!(seen[..2], at_once);
    assert_eq!(seen[2..5], waited, "in the order of arrival");
    assert_eq!(seen[5..], [(false, 0); 5]);
}

async fn nobody_waits_longer_than_the_settings_or_the_deadline_allow() {
    let bulkhead = bulkhead(1, 3);
    let _turn = bulkhead.acquire().await.unwrap();
    let began = Instant::now();
    assert_eq!(bulkhead.acquire().await.unwrap_err(), FULL);
    assert_eq!(began.elapsed(), Duration::from_millis(100));
    let wait = async { bulkhead.acquire().await.unwrap_err() };
    let refused = Deadline::after(Duration::from_millis(30)).run(wait).await;
    assert_eq!(refused.unwrap_or_else(|over| over), Refused::DeadlineOver);
    assert_eq!(began.elapsed(), Duration::from_millis(130));
}

async fn whoever_stops_waiting_leaves_the_queue() {
    let bulkhead = bulkhead(1, 1);
    let turn = bulkhead.acquire().await.unwrap();
    for _ in 0..5 {
        let gives_up = timeout(Duration::from_millis(10), bulkhead.acquire());
        gives_up.await.unwrap_err();
    }
    let next = tokio::spawn({
        let bulkhead = bulkhead.clone();
        async move { bulkhead.run(async { 7 }).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(
        bulkhead.acquire().await.unwrap_err(),
        FULL,
        "the queue has one place"
    );
    drop(turn);
    // The next one's time was over when ours was: both began at the same moment.
    assert!(matches!(next.await.unwrap(), Ok(7) | Err(_)));
    assert_eq!(bulkhead.run(async { 8 }).await, Ok(8));
}

async fn a_cancelled_or_panicking_call_ends_its_turn() {
    let bulkhead = bulkhead(1, 0);
    let cancelled = timeout(
        Duration::from_millis(10),
        bulkhead.run(std::future::pending::<()>()),
    );
    cancelled.await.unwrap_err();
    let panics = tokio::spawn({
        let bulkhead = bulkhead.clone();
        async move {
            let call = async { panic!("a test: the call panics") };
            let _: Result<(), _> = bulkhead.run(call).await;
        }
    });
    assert!(panics.await.unwrap_err().is_panic());
    assert_eq!(bulkhead.run(async { 7 }).await, Ok(7));
}

async fn one_slow_dependency_leaves_the_other_alone() {
    let (slow, quick) = (bulkhead(4, 0), bulkhead(4, 0));
    for _ in 0..4 {
        let slow = slow.clone();
        tokio::spawn(async move { slow.run(std::future::pending::<()>()).await });
    }
    tokio::task::yield_now().await;
    assert!(slow.run(async {}).await.is_err());
    assert!(quick.run(async {}).await.is_ok());
}

async fn settings_that_cannot_work_are_refused() {
    for calls in [0, usize::MAX] {
        let settings = BulkheadSettings {
            calls,
            ..BulkheadSettings::default()
        };
        let refused = Bulkhead::new("payments", settings);
        assert!(matches!(refused, Err(Refused::Unusable(_))));
    }
}
