//! `RateLimit`: for each user and endpoint, and the fields that tell of it.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use axum::routing::get;
use http::{HeaderMap, StatusCode};
use shared::resilience::{Quota, RateLimit, Refused, TrustedProxies, address_to_count_by};
use tokio::time::advance;
use tower::ServiceExt;

use super::paused_tests;

paused_tests![
    the_quota_passes_at_once_and_then_one_in_each_period,
    a_user_and_an_endpoint_have_a_quota_of_their_own,
    another_id_in_the_path_is_no_other_endpoint,
    a_client_that_invents_addresses_stays_one_client,
    a_user_who_cannot_be_named_is_not_counted,
    users_whose_quota_is_whole_are_forgotten,
    quotas_that_cannot_work_are_refused,
];

const QUOTA: Quota = Quota {
    name: "default",
    requests: 5,
    window: Duration::from_secs(10),
};

fn by_user(quota: Quota) -> RateLimit {
    RateLimit::new(quota, |parts| {
        let user = parts.headers.get("x-user");
        let user = user.and_then(|user| user.to_str().ok());
        user.map(str::to_owned).ok_or(StatusCode::UNAUTHORIZED)
    })
    .unwrap()
}

fn routes() -> Router {
    Router::new()
        .route("/orders/{id}", get(async || "order"))
        .route("/reports", get(async || "report"))
}

async fn ask(router: &Router, user: &str, path: &str) -> Response {
    let request = Request::builder().uri(path).header("x-user", user);
    let request = request.body(Body::empty()).unwrap();
    router.clone().oneshot(request).await.unwrap()
}

fn field<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers[name].to_str().unwrap()
}

async fn the_quota_passes_at_once_and_then_one_in_each_period() {
    let router = by_user(QUOTA).apply(routes());
    for left in (0..5).rev() {
        let response = ask(&router, "ann", "/reports").await;
        assert_eq!(response.status(), StatusCode::OK, "{left}");
        let headers = response.headers();
        assert_eq!(field(headers, "ratelimit-policy"), "\"default\";q=5;w=10");
        let whole_in = (5 - left) * 2;
        assert_eq!(
            field(headers, "ratelimit"),
            format!("\"default\";r={left};t={whole_in}")
        );
    }
    let refused = ask(&router, "ann", "/reports").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let headers = refused.headers();
    assert_eq!(field(headers, "content-type"), "application/problem+json");
    assert_eq!(field(headers, "retry-after"), "2");
    assert_eq!(field(headers, "ratelimit"), "\"default\";r=0;t=10");
    // What was refused costs nothing.
    advance(Duration::from_millis(1_999)).await;
    let early = ask(&router, "ann", "/reports").await;
    assert_eq!(early.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(field(early.headers(), "retry-after"), "1");
    advance(Duration::from_millis(1)).await;
    for status in [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        assert_eq!(ask(&router, "ann", "/reports").await.status(), status);
    }
    // Nobody gets twice the quota by waiting for the full minute.
    advance(Duration::from_secs(3_600)).await;
    let mut passed = 0;
    for _ in 0..20 {
        passed += u32::from(ask(&router, "ann", "/reports").await.status() == StatusCode::OK);
    }
    assert_eq!(passed, 5);
}

async fn use_up(router: &Router, user: &str, path: &str) {
    for _ in 0..5 {
        assert_eq!(ask(router, user, path).await.status(), StatusCode::OK);
    }
    let refused = ask(router, user, path).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
}

async fn a_user_and_an_endpoint_have_a_quota_of_their_own() {
    let router = by_user(QUOTA).apply(routes());
    use_up(&router, "ann", "/reports").await;
    use_up(&router, "bob", "/reports").await;
    use_up(&router, "ann", "/orders/7").await;
}

async fn another_id_in_the_path_is_no_other_endpoint() {
    let router = by_user(QUOTA).apply(routes());
    use_up(&router, "ann", "/orders/7").await;
    let refused = ask(&router, "ann", "/orders/8").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
}

async fn a_client_that_invents_addresses_stays_one_client() {
    let limit = RateLimit::new(QUOTA, |parts| {
        let address = TrustedProxies::none().client(parts);
        address
            .map(address_to_count_by)
            .ok_or(StatusCode::INTERNAL_SERVER_ERROR)
    });
    let router = limit.unwrap().apply(routes());
    let mut passed = 0;
    for n in 0..20 {
        let mut request = Request::builder()
            .uri("/reports")
            .header("x-forwarded-for", format!("198.51.100.{n}"))
            .header("forwarded", format!("for=198.51.100.{n}"))
            .header("x-real-ip", format!("198.51.100.{n}"))
            .body(Body::empty())
            .unwrap();
        let peer = SocketAddr::from(([203, 0, 113, 9], 40_000 + n));
        request.extensions_mut().insert(ConnectInfo(peer));
        let response = router.clone().oneshot(request).await.unwrap();
        passed += u32::from(response.status() == StatusCode::OK);
    }
    assert_eq!(passed, 5);
}

async fn a_user_who_cannot_be_named_is_not_counted() {
    let router = by_user(QUOTA).apply(routes());
    let request = Request::builder()
        .uri("/reports")
        .body(Body::empty())
        .unwrap();
    let response = router.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(!response.headers().contains_key("ratelimit"));
}

async fn users_whose_quota_is_whole_are_forgotten() {
    let limit = by_user(QUOTA);
    let router = limit.apply(routes());
    for n in 0..999 {
        ask(&router, &format!("user-{n}"), "/reports").await;
    }
    assert!(format!("{limit:?}").contains("users: 999"), "{limit:?}");
    advance(Duration::from_secs(20)).await;
    ask(&router, "ann", "/reports").await;
    assert!(format!("{limit:?}").contains("users: 1 "), "{limit:?}");
}

async fn quotas_that_cannot_work_are_refused() {
    let (requests, window) = (QUOTA.requests, QUOTA.window);
    let quota = |name, requests, window| Quota {
        name,
        requests,
        window,
    };
    for wrong in [
        quota("", requests, window),
        quota("a\"b", requests, window),
        quota("a b", requests, window),
        quota("default", 0, window),
        quota("default", requests, Duration::ZERO),
        quota("default", requests, Duration::from_millis(1_500)),
    ] {
        let refused = RateLimit::new(wrong, |_| Ok::<_, StatusCode>(String::new()));
        assert!(matches!(refused, Err(Refused::Unusable(_))), "{wrong:?}");
    }
}
