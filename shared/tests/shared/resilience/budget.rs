//! `RetryBudget`: a bucket, to the token.

use std::time::Duration;

use shared::resilience::{BudgetSettings, Refused, RetryBudget};
use tokio::time::advance;

use super::paused_tests;

paused_tests![
    calls_earn_their_share_and_no_more,
    ratios_that_are_no_unit_fraction_hold,
    time_earns_the_minimum,
    a_quiet_time_saves_no_more_than_the_capacity,
    callers_at_once_never_overdraw,
    settings_that_cannot_work_are_refused,
];

fn budget(ratio: f64, min_per_second: f64, capacity: f64) -> RetryBudget {
    RetryBudget::new(BudgetSettings {
        ratio,
        min_per_second,
        capacity,
    })
    .unwrap()
}

fn drain(budget: &RetryBudget) -> u32 {
    let mut taken = 0;
    while budget.withdraw() {
        taken += 1;
    }
    taken
}

async fn calls_earn_their_share_and_no_more() {
    let budget = budget(0.1, 0.0, 50.0);
    assert_eq!(drain(&budget), 50);
    for _ in 0..9 {
        budget.deposit();
    }
    assert!(!budget.withdraw());
    budget.deposit();
    assert!(budget.withdraw(), "ten calls, one repeat");
    assert!(!budget.withdraw());
}

/// Rounded to 1/n, 0.6 would be 1.
async fn ratios_that_are_no_unit_fraction_hold() {
    for (ratio, repeats) in [(0.3, 30), (0.6, 60), (0.75, 75), (1.5, 150)] {
        let budget = budget(ratio, 0.0, 1_000.0);
        drain(&budget);
        for _ in 0..100 {
            budget.deposit();
        }
        assert_eq!(drain(&budget), repeats, "{ratio}");
    }
}

async fn time_earns_the_minimum() {
    let budget = budget(0.0, 2.0, 10.0);
    drain(&budget);
    advance(Duration::from_millis(499)).await;
    assert!(!budget.withdraw());
    advance(Duration::from_millis(1)).await;
    assert_eq!(drain(&budget), 1);
    advance(Duration::from_secs(2)).await;
    assert_eq!(drain(&budget), 4);
}

async fn a_quiet_time_saves_no_more_than_the_capacity() {
    let budget = budget(0.5, 1.0, 3.0);
    advance(Duration::from_secs(86_400)).await;
    for _ in 0..100 {
        budget.deposit();
    }
    assert_eq!(drain(&budget), 3);
}

async fn callers_at_once_never_overdraw() {
    let budget = budget(0.0, 0.0, 1_000.0);
    let taken: u32 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| drain(&budget))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(taken, 1_000);
}

async fn settings_that_cannot_work_are_refused() {
    for (ratio, min_per_second, capacity) in [
        (-0.1, 1.0, 10.0),
        (f64::NAN, 1.0, 10.0),
        (0.1, f64::INFINITY, 10.0),
        (0.1, 1.0, 0.5),
        (0.1, -1.0, 10.0),
    ] {
        let refused = RetryBudget::new(BudgetSettings {
            ratio,
            min_per_second,
            capacity,
        });
        assert!(matches!(refused, Err(Refused::Unusable(_))));
    }
}
