//! `deadline`: one for a request and all that is done for it.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::get;
use http::{HeaderMap, StatusCode};
use shared::resilience::deadline::{DEADLINE_MS, carry, pass_on, with_deadline};
use shared::resilience::{Deadline, Refused};
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

use super::paused_tests;

paused_tests![
    work_ends_with_its_deadline,
    work_cannot_give_itself_more_time,
    work_whose_time_is_over_is_not_begun,
    what_is_left_is_passed_on_without_the_way,
    a_task_has_it_only_if_it_is_carried_along,
    a_request_gets_the_headers_or_the_longest,
    a_request_that_nobody_waits_for_is_refused,
    a_header_that_is_no_number_is_refused,
    three_services_stop_with_their_client,
];

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

async fn work_ends_with_its_deadline() {
    let began = Instant::now();
    let done = Deadline::after(ms(100)).run(sleep(ms(99))).await;
    assert_eq!(done, Ok(()));
    let late = Deadline::after(ms(100)).run(sleep(ms(5_000))).await;
    assert_eq!(late, Err(Refused::DeadlineOver));
    assert_eq!(began.elapsed(), ms(199));
}

async fn work_cannot_give_itself_more_time() {
    let inner = async {
        let longer = Deadline::after(ms(5_000)).run(sleep(ms(1_000)));
        let shorter = Deadline::after(ms(10)).run(sleep(ms(1_000)));
        assert_eq!(shorter.await, Err(Refused::DeadlineOver));
        longer.await
    };
    let began = Instant::now();
    // Inner and outer end at the same moment; either may say so.
    let outer = Deadline::after(ms(100)).run(inner).await.flatten();
    assert_eq!(outer, Err(Refused::DeadlineOver));
    assert_eq!(began.elapsed(), ms(100));
    assert_eq!(Deadline::current(), None);
    // As long as can be said is no panic.
    assert_eq!(Deadline::after(Duration::MAX).run(async { 7 }).await, Ok(7));
}

async fn work_whose_time_is_over_is_not_begun() {
    let over = Deadline::after(ms(10));
    tokio::time::advance(ms(10)).await;
    let refused = over.run(async { panic!("a test: it was begun") }).await;
    assert_eq!(refused, Err::<(), _>(Refused::DeadlineOver));
}

async fn what_is_left_is_passed_on_without_the_way() {
    let mut headers = HeaderMap::new();
    pass_on(&mut headers, ms(5)).unwrap();
    assert!(headers.is_empty(), "no deadline, no header");
    let work = async {
        sleep(ms(31)).await;
        pass_on(&mut headers, ms(5)).unwrap();
        // Of the 69 that are left.
        assert_eq!(headers[DEADLINE_MS], "64");
        tokio::time::advance(Duration::from_micros(68_500)).await;
        // Half a millisecond would be none on arrival.
        assert_eq!(pass_on(&mut headers, ms(0)), Err(Refused::DeadlineOver));
    };
    Deadline::after(ms(100)).run(work).await.unwrap();
}

async fn a_task_has_it_only_if_it_is_carried_along() {
    let left = || async { Deadline::current().map(Deadline::remaining) };
    let work = async {
        assert_eq!(tokio::spawn(left()).await.unwrap(), None);
        assert_eq!(tokio::spawn(carry(left())).await.unwrap(), Some(ms(100)));
    };
    Deadline::after(ms(100)).run(work).await.unwrap();
    assert_eq!(carry(left()).await, None);
}

/// Answers with the milliseconds that are left, after so long.
fn service(takes: Duration, longest: Duration) -> Router {
    let handler = move || async move {
        sleep(takes).await;
        let left = Deadline::current().map(Deadline::remaining);
        left.unwrap_or_default().as_millis().to_string()
    };
    with_deadline(Router::new().route("/", get(handler)), longest)
}

async fn ask(router: Router, deadline: &[&str]) -> (StatusCode, String) {
    let mut request = Request::builder().uri("/");
    for value in deadline {
        request = request.header(DEADLINE_MS, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 10_000)
        .await
        .unwrap();
    (status, String::from_utf8_lossy(&body).into_owned())
}

async fn a_request_gets_the_headers_or_the_longest() {
    for (given, left) in [(&["300"][..], "290"), (&["90000"], "990"), (&[], "990")] {
        let (status, body) = ask(service(ms(10), ms(1_000)), given).await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, left), "{given:?}");
    }
    let (status, body) = ask(service(ms(2_000), ms(1_000)), &[]).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT, "{body}");
}

async fn a_request_that_nobody_waits_for_is_refused() {
    let handler = async || -> () { panic!("a test: it was begun") };
    let router = with_deadline(Router::new().route("/", get(handler)), ms(1_000));
    let (status, _) = ask(router, &["0"]).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
}

async fn a_header_that_is_no_number_is_refused() {
    for wrong in [
        &[""][..],
        &["-1"],
        &["+1"],
        &["1.5"],
        &["5s"],
        &["99999999999999999999999999"],
        &["5", "6"],
    ] {
        let (status, body) = ask(service(ms(1), ms(1_000)), wrong).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong:?}");
        assert!(body.contains("milliseconds"), "{body}");
    }
}

/// The failure that it is against: with timeouts of their own the second and the third would work
/// on for a client that has gone.
async fn three_services_stop_with_their_client() {
    let began = Instant::now();
    let ended = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    // Each calls the next one with what is left, less 10 ms.
    fn hop(
        depth: usize,
        ended: std::sync::Arc<std::sync::Mutex<Vec<(usize, Duration)>>>,
        began: Instant,
    ) -> Router {
        let handler = move || async move {
            struct Ends(
                usize,
                std::sync::Arc<std::sync::Mutex<Vec<(usize, Duration)>>>,
                Instant,
            );
            impl Drop for Ends {
                fn drop(&mut self) {
                    self.1.lock().unwrap().push((self.0, self.2.elapsed()));
                }
            }
            let _ends = Ends(depth, ended.clone(), began);
            if depth == 3 {
                sleep(Duration::from_secs(3_600)).await;
                return StatusCode::OK;
            }
            let mut headers = HeaderMap::new();
            pass_on(&mut headers, ms(10)).unwrap();
            let left = headers[DEADLINE_MS].to_str().unwrap().to_owned();
            // In a task of its own, as if it were another process: nothing but the header goes along.
            let next = hop(depth + 1, ended, began);
            let call = tokio::spawn(async move { ask(next, &[&left]).await.0 });
            call.await.unwrap()
        };
        with_deadline(
            Router::new().route("/", get(handler)),
            Duration::from_secs(60),
        )
    }
    let (status, _) = ask(hop(1, ended.clone(), began), &["200"]).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(
        *ended.lock().unwrap(),
        [(3, ms(180)), (2, ms(180)), (1, ms(180))],
        "the innermost gives up first, and its callers have time to hear it"
    );
}
