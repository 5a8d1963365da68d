//! `retry`: again, but not for ever, not together, and not for nobody.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use shared::resilience::{
    Again, BudgetSettings, Deadline, Refused, RetryBudget, RetrySettings, retry,
};
use tokio::time::Instant;

use super::paused_tests;

paused_tests![
    what_passes_is_tried_again,
    what_is_final_is_not,
    the_last_error_is_told_when_the_attempts_are_used_up,
    waits_are_drawn_from_the_whole_interval_and_grow_to_the_limit,
    what_asks_for_more_time_gets_it,
    an_attempt_that_would_be_too_late_is_not_waited_for,
    no_attempts_are_one,
    an_outage_costs_a_tenth_more_and_not_twice_more,
];

fn budget(capacity: f64) -> RetryBudget {
    RetryBudget::new(BudgetSettings {
        capacity,
        ..BudgetSettings::default()
    })
    .unwrap()
}

fn settings(attempts: u32) -> RetrySettings {
    RetrySettings {
        attempts,
        ..RetrySettings::default()
    }
}

/// Fails with the number of the attempt until it is this one.
async fn succeeds_at(
    attempt: u32,
    settings: RetrySettings,
    budget: &RetryBudget,
    judge: impl Fn(&u32) -> Again,
) -> (Result<u32, u32>, u32) {
    let calls = AtomicU32::new(0);
    let call = || async {
        let number = calls.fetch_add(1, Ordering::Relaxed) + 1;
        if number >= attempt {
            Ok(number)
        } else {
            Err(number)
        }
    };
    let result = retry(settings, budget, judge, call).await;
    (result, calls.into_inner())
}

async fn what_passes_is_tried_again() {
    let (result, calls) = succeeds_at(3, settings(5), &budget(9.0), |_| Again::Maybe).await;
    assert_eq!((result, calls), (Ok(3), 3));
}

async fn what_is_final_is_not() {
    let judge = |attempt: &u32| {
        if *attempt == 2 {
            Again::Never
        } else {
            Again::Maybe
        }
    };
    let (result, calls) = succeeds_at(9, settings(5), &budget(9.0), judge).await;
    assert_eq!((result, calls), (Err(2), 2));
}

async fn the_last_error_is_told_when_the_attempts_are_used_up() {
    let (result, calls) = succeeds_at(9, settings(4), &budget(9.0), |_| Again::Maybe).await;
    assert_eq!((result, calls), (Err(4), 4));
}

async fn waits_are_drawn_from_the_whole_interval_and_grow_to_the_limit() {
    use backon::BackoffBuilder;
    let settings = RetrySettings {
        attempts: 6,
        base: Duration::from_millis(100),
        limit: Duration::from_millis(500),
    };
    let draws: Vec<Vec<Duration>> = (0..400).map(|_| settings.build().collect()).collect();
    for (n, ceiling_ms) in [100, 200, 400, 500, 500].into_iter().enumerate() {
        let ceiling = Duration::from_millis(ceiling_ms);
        let waits: Vec<Duration> = draws.iter().map(|draw| draw[n]).collect();
        assert!(waits.iter().all(|wait| *wait <= ceiling), "{n}");
        // 400 draws miss a quarter of the interval once in 10⁴⁹ runs.
        assert!(waits.iter().any(|wait| *wait < ceiling / 4), "{n}");
        assert!(waits.iter().any(|wait| *wait > ceiling * 3 / 4), "{n}");
    }
    assert!(draws.iter().all(|draw| draw.len() == 5));
}

async fn what_asks_for_more_time_gets_it() {
    let began = Instant::now();
    let judge = |_: &u32| Again::After(Duration::from_secs(30));
    let (result, _) = succeeds_at(2, settings(3), &budget(9.0), judge).await;
    assert_eq!(result, Ok(2));
    assert_eq!(began.elapsed(), Duration::from_secs(30));
}

async fn an_attempt_that_would_be_too_late_is_not_waited_for() {
    let began = Instant::now();
    let judge = |_: &u32| Again::After(Duration::from_secs(30));
    let budget = budget(1.0);
    let work = succeeds_at(2, settings(3), &budget, judge);
    let done = Deadline::after(Duration::from_secs(29)).run(work).await;
    assert_eq!(
        done,
        Ok((Err(1), 1)),
        "its own error, and not the deadline's"
    );
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(budget.withdraw(), "what was not tried costs nothing");
}

async fn no_attempts_are_one() {
    let (result, calls) = succeeds_at(2, settings(0), &budget(9.0), |_| Again::Maybe).await;
    assert_eq!((result, calls), (Err(1), 1));
}

/// The failure that the budget is against. Everything fails: at three attempts each, 1,000 calls
/// would be 3,000.
async fn an_outage_costs_a_tenth_more_and_not_twice_more() {
    let shared = RetryBudget::new(BudgetSettings {
        min_per_second: 0.0,
        ..BudgetSettings::default()
    })
    .unwrap();
    let mut calls = 0;
    for _ in 0..1_000 {
        calls += succeeds_at(9, settings(3), &shared, |_| Again::Maybe)
            .await
            .1;
    }
    // 1,000, a tenth of that, and the 20 that had been saved up.
    assert!((1_118..=1_120).contains(&calls), "{calls}");
    let alone = RetryBudget::new(BudgetSettings {
        ratio: -0.1,
        ..BudgetSettings::default()
    });
    assert!(matches!(alone, Err(Refused::Unusable(_))));
}
