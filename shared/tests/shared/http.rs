//! `http`: problems, request ids, JSON, and the end of a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Extension;
use axum::routing::{get, post};
use reqwest::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use shared::http::{Drained, Json, Manners, RequestId, serve};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::support::{Outcome, tests};

tests![
    a_sane_request_id_is_kept_and_another_one_replaced,
    what_does_not_exist_is_a_problem,
    a_panic_is_a_problem_that_tells_nothing,
    json_that_cannot_be_read_is_a_problem_that_says_why,
    a_request_in_hand_gets_its_answer_before_the_end,
    a_request_that_takes_too_long_is_cut_off_with_a_503,
    an_idle_connection_does_not_hold_up_the_end,
];

#[derive(Debug, Serialize, Deserialize)]
struct Payment {
    amount_cents: u32,
}

struct Server {
    address: String,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<std::io::Result<Drained>>,
}

impl Server {
    async fn start(router: Router, drain: Duration) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let manners = Manners {
            body_limit_bytes: 100,
        };
        let router = manners.apply(router);
        let running = tokio::spawn(serve(listener, router, shutdown, drain));
        Self {
            address,
            stop: Some(stop),
            running,
        }
    }

    async fn plain() -> Self {
        let router = Router::new()
            .route(
                "/id",
                get(async |Extension(id): Extension<RequestId>| id.as_str().to_owned()),
            )
            .route(
                "/pay",
                post(async |Json(payment): Json<Payment>| Json(payment)),
            )
            .route(
                "/panic",
                get(async || -> () { panic!("the password is secret") }),
            );
        Self::start(router, Duration::from_secs(5)).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    async fn stop(mut self) -> Drained {
        self.stop.take().unwrap().send(()).unwrap();
        self.running.await.unwrap().unwrap()
    }
}

async fn problem(response: Response, status: u16) -> String {
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    assert!(response.headers().contains_key("x-request-id"));
    let text = response.text().await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["status"], status);
    assert!(json["title"].is_string(), "{text}");
    text
}

async fn a_sane_request_id_is_kept_and_another_one_replaced() -> Outcome {
    let server = Server::plain().await;
    let client = reqwest::Client::new();
    for (sent, kept) in [
        (Some("trace-1.2:3_4"), true),
        (Some("a b"), false),
        (None, false),
    ] {
        let mut request = client.get(server.url("/id"));
        if let Some(id) = sent {
            request = request.header("X-Request-Id", id);
        }
        let response = request.send().await.unwrap();
        let returned = response.headers()["x-request-id"]
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(Some(returned.as_str()) == sent, kept, "{returned}");
        assert_eq!(
            response.text().await.unwrap(),
            returned,
            "what the handler saw"
        );
        assert!(
            kept || uuid::Uuid::parse_str(&returned).is_ok(),
            "{returned}"
        );
    }
    Ok(())
}

async fn what_does_not_exist_is_a_problem() -> Outcome {
    let server = Server::plain().await;
    let text = problem(reqwest::get(server.url("/nothing")).await.unwrap(), 404).await;
    assert!(text.contains("there is no /nothing"), "{text}");
    let response = reqwest::get(server.url("/pay")).await.unwrap();
    assert_eq!(response.headers()["allow"], "POST");
    let text = problem(response, 405).await;
    assert!(text.contains("/pay takes no GET"), "{text}");
    Ok(())
}

async fn a_panic_is_a_problem_that_tells_nothing() -> Outcome {
    let server = Server::plain().await;
    let text = problem(reqwest::get(server.url("/panic")).await.unwrap(), 500).await;
    assert!(!text.contains("secret"), "{text}");
    Ok(())
}

async fn json_that_cannot_be_read_is_a_problem_that_says_why() -> Outcome {
    let server = Server::plain().await;
    let long = format!("{{\"amount_cents\": 1, \"note\": \"{}\"}}", "x".repeat(100));
    let cases = [
        ("application/json", "{\"amount_cents\": ", 400, "EOF"),
        ("application/json", "", 400, "EOF"),
        (
            "application/json",
            "{\"amount_cents\": -1}",
            422,
            "amount_cents: invalid value",
        ),
        (
            "application/json",
            "{}",
            422,
            "missing field `amount_cents`",
        ),
        (
            "text/plain",
            "{\"amount_cents\": 1}",
            415,
            "application/json",
        ),
        ("application/json", &long, 413, "length limit"),
    ];
    let client = reqwest::Client::new();
    let post = async |media_type: &str, body: &str| {
        let request = client
            .post(server.url("/pay"))
            .header("content-type", media_type);
        request.body(body.to_owned()).send().await.unwrap()
    };
    for (media_type, body, status, detail) in cases {
        let text = problem(post(media_type, body).await, status).await;
        assert!(text.contains(detail), "{body}: {text}");
    }
    let response = post("application/json; charset=utf-8", "{\"amount_cents\": 1}").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.text().await.unwrap(), "{\"amount_cents\":1}");
    Ok(())
}

/// Says when it is dropped.
struct OnDrop(Arc<AtomicBool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A route that says when it has begun, and waits until it is let go.
fn held() -> (Router, Arc<Notify>, Arc<Notify>, Arc<AtomicBool>) {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let dropped = Arc::new(AtomicBool::new(false));
    let (tell, wait, on_drop) = (Arc::clone(&begun), Arc::clone(&go), Arc::clone(&dropped));
    let handler = async move || {
        let _on_drop = OnDrop(on_drop);
        tell.notify_one();
        wait.notified().await;
        "done"
    };
    (
        Router::new().route("/held", get(handler)),
        begun,
        go,
        dropped,
    )
}

async fn a_request_in_hand_gets_its_answer_before_the_end() -> Outcome {
    let (router, begun, go, _) = held();
    let server = Server::start(router, Duration::from_secs(10)).await;
    let request = tokio::spawn(reqwest::get(server.url("/held")));
    let address = server.address.clone();
    begun.notified().await;
    let ended = tokio::spawn(server.stop());
    // No new connection is taken as soon as it has begun to stop.
    let socket = address.trim_start_matches("http://");
    while tokio::net::TcpStream::connect(socket).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!ended.is_finished());
    go.notify_one();
    assert_eq!(
        request.await.unwrap().unwrap().text().await.unwrap(),
        "done"
    );
    assert_eq!(ended.await.unwrap(), Drained::Completely);
    Ok(())
}

async fn a_request_that_takes_too_long_is_cut_off_with_a_503() -> Outcome {
    let (router, begun, _go, dropped) = held();
    let server = Server::start(router, Duration::from_millis(50)).await;
    let request = tokio::spawn(reqwest::get(server.url("/held")));
    begun.notified().await;
    assert_eq!(server.stop().await, Drained::Cut);
    assert!(dropped.load(Ordering::SeqCst), "the handler goes on");
    let response = request.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    Ok(())
}

async fn an_idle_connection_does_not_hold_up_the_end() -> Outcome {
    let server = Server::plain().await;
    let client = reqwest::Client::new();
    client
        .get(server.url("/id"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let began = Instant::now();
    assert_eq!(server.stop().await, Drained::Completely);
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    drop(client);
    Ok(())
}
