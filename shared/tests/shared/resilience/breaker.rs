//! `Breaker`: what opens it, what closes it, and what it does not listen to.

use std::time::Duration;

use shared::resilience::{Breaker, BreakerSettings, BreakerState, CallError, Refused};
use tokio::time::{advance, sleep, timeout};

use super::paused_tests;

paused_tests![
    a_share_of_failures_opens_it_in_a_row_or_not,
    too_few_calls_open_nothing,
    an_open_one_calls_nobody_and_says_when_to_come_back,
    probes_go_first_and_no_more_of_them_than_asked_for,
    a_failed_probe_opens_it_again,
    a_probe_that_is_dropped_gives_its_place_back,
    results_of_an_earlier_state_are_not_heard,
    slow_is_failed_even_if_nobody_waits_for_it,
    errors_that_do_not_speak_against_the_dependency_do_not_count,
    a_panic_is_no_lock_for_ever,
    settings_that_cannot_work_are_refused,
];

fn settings() -> BreakerSettings {
    BreakerSettings {
        window: 10,
        least: 4,
        failure_ratio: 0.5,
        slow: Duration::from_secs(2),
        open_for: Duration::from_secs(5),
        probes: 2,
    }
}

fn breaker() -> Breaker {
    Breaker::new("payments", settings()).unwrap()
}

fn outcomes(breaker: &Breaker, outcomes: &[bool]) {
    for succeeded in outcomes {
        let permit = breaker.acquire().unwrap();
        if *succeeded {
            permit.succeeded()
        } else {
            permit.failed()
        }
    }
}

async fn open() -> Breaker {
    let breaker = breaker();
    outcomes(&breaker, &[false; 4]);
    assert_eq!(breaker.state(), BreakerState::Open);
    breaker
}

async fn half_open() -> Breaker {
    let breaker = open().await;
    advance(Duration::from_secs(5)).await;
    breaker
}

async fn a_share_of_failures_opens_it_in_a_row_or_not() {
    let breaker = breaker();
    outcomes(&breaker, &[true; 10]);
    // Every second call fails: never two in a row.
    for n in 0..10 {
        assert_eq!(breaker.state(), BreakerState::Closed, "{n}");
        outcomes(&breaker, &[n % 2 == 0]);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
}

async fn too_few_calls_open_nothing() {
    let breaker = breaker();
    outcomes(&breaker, &[false; 3]);
    assert_eq!(breaker.state(), BreakerState::Closed);
    outcomes(&breaker, &[true]);
    // Three of four; and what counts is the fourth call, not the fourth failure.
    assert_eq!(breaker.state(), BreakerState::Open);
}

async fn an_open_one_calls_nobody_and_says_when_to_come_back() {
    let breaker = open().await;
    advance(Duration::from_secs(2)).await;
    let call = breaker.run(|_: &()| true, async { panic!("a test: it was called") });
    let refused: Result<(), _> = call.await;
    let Err(CallError::Refused(Refused::BreakerOpen { retry_in, .. })) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(retry_in, Duration::from_secs(3));
}

async fn probes_go_first_and_no_more_of_them_than_asked_for() {
    let breaker = half_open().await;
    let probes = [breaker.acquire().unwrap(), breaker.acquire().unwrap()];
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert!(breaker.acquire().is_err(), "a third one");
    let [first, second] = probes;
    first.succeeded();
    assert!(
        breaker.acquire().is_err(),
        "one has succeeded, one is under way"
    );
    second.succeeded();
    assert_eq!(breaker.state(), BreakerState::Closed);
    // What it counted before is forgotten.
    outcomes(&breaker, &[false; 3]);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

async fn a_failed_probe_opens_it_again() {
    let breaker = half_open().await;
    outcomes(&breaker, &[true, false]);
    assert_eq!(breaker.state(), BreakerState::Open);
    advance(Duration::from_millis(4_999)).await;
    assert!(breaker.acquire().is_err());
    advance(Duration::from_millis(1)).await;
    outcomes(&breaker, &[true, true]);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

async fn a_probe_that_is_dropped_gives_its_place_back() {
    let breaker = half_open().await;
    for _ in 0..10 {
        let call = breaker.run(|_: &()| true, std::future::pending::<Result<(), ()>>());
        timeout(Duration::from_millis(10), call).await.unwrap_err();
    }
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    outcomes(&breaker, &[true, true]);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

async fn results_of_an_earlier_state_are_not_heard() {
    let breaker = breaker();
    let begun_before: Vec<_> = (0..8).map(|_| breaker.acquire().unwrap()).collect();
    outcomes(&breaker, &[false; 4]);
    advance(Duration::from_secs(5)).await;
    let probe = breaker.acquire().unwrap();
    for (n, late) in begun_before.into_iter().enumerate() {
        if n % 2 == 0 {
            late.succeeded()
        } else {
            late.failed()
        }
        assert_eq!(breaker.state(), BreakerState::HalfOpen, "{n}");
    }
    probe.succeeded();
    assert_eq!(
        breaker.state(),
        BreakerState::HalfOpen,
        "one probe is missing"
    );
    outcomes(&breaker, &[true]);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

/// A timeout outside drops the call, and a breaker that hears only results never hears of it.
async fn slow_is_failed_even_if_nobody_waits_for_it() {
    let breaker = breaker();
    for n in 0..4 {
        assert_eq!(breaker.state(), BreakerState::Closed, "{n}");
        let call = breaker.run(|_: &()| true, std::future::pending::<Result<(), ()>>());
        timeout(Duration::from_secs(3), call).await.unwrap_err();
    }
    assert_eq!(breaker.state(), BreakerState::Open);
    let slow_but_right = self::breaker();
    for _ in 0..4 {
        let call = slow_but_right.run(|_: &()| true, async {
            sleep(Duration::from_secs(2)).await;
            Ok(7)
        });
        assert_eq!(call.await.unwrap(), 7);
    }
    assert_eq!(slow_but_right.state(), BreakerState::Open);
}

async fn errors_that_do_not_speak_against_the_dependency_do_not_count() {
    let breaker = breaker();
    for _ in 0..20 {
        let call = breaker.run(|error: &&str| *error == "outage", async {
            Err::<(), _>("declined")
        });
        assert!(matches!(call.await, Err(CallError::Failed("declined"))));
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
}

async fn a_panic_is_no_lock_for_ever() {
    let breaker = half_open().await;
    for _ in 0..5 {
        let breaker = breaker.clone();
        let call = async move {
            let call = async { panic!("a test: the call panics") };
            let _: Result<(), _> = breaker.run(|_: &()| true, call).await;
        };
        assert!(tokio::spawn(call).await.unwrap_err().is_panic());
    }
    outcomes(&breaker, &[true, true]);
    assert_eq!(breaker.state(), BreakerState::Closed);
}

async fn settings_that_cannot_work_are_refused() {
    let wrong: [fn(&mut BreakerSettings); 6] = [
        |settings| settings.least = 0,
        |settings| settings.least = settings.window + 1,
        |settings| settings.failure_ratio = 0.0,
        |settings| settings.failure_ratio = 1.1,
        |settings| settings.failure_ratio = f64::NAN,
        |settings| settings.probes = 0,
    ];
    for change in wrong {
        let mut settings = settings();
        change(&mut settings);
        let refused = Breaker::new("payments", settings);
        assert!(matches!(refused, Err(Refused::Unusable(_))), "{settings:?}");
    }
}
