//! `LoadLimits`: over all routes, and shed above.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use shared::resilience::LoadLimits;
use tokio::time::{Instant, sleep};
use tower::ServiceExt;
use tower::limit::ConcurrencyLimitLayer;

use super::paused_tests;

paused_tests![
    all_routes_share_one_limit_and_the_rest_is_shed_at_once,
    towers_own_layer_would_limit_each_route_by_itself,
    what_takes_too_long_is_ended,
];

fn routes() -> Router {
    let slow = async || {
        sleep(Duration::from_secs(1)).await;
        "done"
    };
    Router::new().route("/a", get(slow)).route("/b", get(slow))
}

async fn ask(router: &Router, path: &str) -> Response {
    let request = Request::builder().uri(path).body(Body::empty()).unwrap();
    router.clone().oneshot(request).await.unwrap()
}

/// Two requests to each of two routes at once; what they got, and when all had it.
async fn four_at_once(router: Router) -> (Vec<StatusCode>, Duration) {
    let began = Instant::now();
    let tasks: Vec<_> = ["/a", "/b", "/a", "/b"]
        .map(|path| {
            let router = router.clone();
            tokio::spawn(async move { ask(&router, path).await.status() })
        })
        .into_iter()
        .collect();
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(task.await.unwrap());
    }
    (seen, began.elapsed())
}

async fn all_routes_share_one_limit_and_the_rest_is_shed_at_once() {
    let limits = LoadLimits {
        at_once: 3,
        ..LoadLimits::default()
    };
    let router = limits.apply(routes());
    let (seen, took) = four_at_once(router.clone()).await;
    assert_eq!(seen[..3], [StatusCode::OK; 3]);
    assert_eq!(seen[3], StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(took, Duration::from_secs(1), "nobody was made to wait");
    // The places are free again.
    assert_eq!(ask(&router, "/b").await.status(), StatusCode::OK);
    let full = limits.apply(routes());
    let busy: Vec<_> = (0..3)
        .map(|_| {
            let full = full.clone();
            tokio::spawn(async move { ask(&full, "/a").await.status() })
        })
        .collect();
    tokio::task::yield_now().await;
    let shed = ask(&full, "/b").await;
    assert_eq!(shed.headers()["retry-after"], "1");
    assert_eq!(shed.headers()["content-type"], "application/problem+json");
    for task in busy {
        assert_eq!(task.await.unwrap(), StatusCode::OK);
    }
}

/// Shows that the test above can fail: this is the obvious way, with the limit that should let one
/// pass.
async fn towers_own_layer_would_limit_each_route_by_itself() {
    let limited = routes().layer(ConcurrencyLimitLayer::new(1));
    // As `axum::serve` does it for each connection: one semaphore for each route, and a queue.
    let (seen, took) = four_at_once(limited.clone().with_state(())).await;
    assert_eq!(seen, [StatusCode::OK; 4]);
    assert_eq!(
        took,
        Duration::from_secs(2),
        "two at once, and nobody refused"
    );
    // Not served but called, it is layered for each request, and limits nothing.
    let (seen, took) = four_at_once(limited).await;
    assert_eq!(seen, [StatusCode::OK; 4]);
    assert_eq!(took, Duration::from_secs(1), "four at once");
}

async fn what_takes_too_long_is_ended() {
    let limits = LoadLimits {
        longest: Duration::from_millis(999),
        ..LoadLimits::default()
    };
    let late = ask(&limits.apply(routes()), "/a").await;
    assert_eq!(late.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(late.headers()["content-type"], "application/problem+json");
}
