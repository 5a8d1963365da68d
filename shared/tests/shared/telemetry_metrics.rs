//! Metrics, as a scraper gets them: ours, `promtool`, and a real Prometheus.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Write;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{Method, Request, StatusCode};
use shared::db::{PoolSettings, acquire, connect_lazy};
use shared::http::Manners;
use shared::services::Postgres;
use shared::services::guard::{Guarded, OnOrphaned, Output, Program};
use shared::telemetry::Metrics;
use tokio::sync::Notify;
use tower::ServiceExt;

use crate::postgres::{folder, options};
use crate::support::{End, Outcome, tests};
use crate::telemetry_shop::{Collector, Shop};

tests![
    each_request_is_counted_by_route_method_and_kind_of_answer,
    labels_stay_few_whatever_clients_send,
    a_client_that_hangs_up_is_counted_as_aborted,
    the_format_is_what_the_scraper_asks_for,
    promtool_finds_nothing_to_complain_of,
    an_exemplar_names_the_trace_of_a_slow_request,
    a_real_prometheus_takes_it_with_exemplars,
    a_pool_shows_its_connections_and_what_was_waited_for_them,
    a_pool_is_watched_until_its_metrics_are_gone,
];

const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0";

fn shop() -> (Metrics, Router) {
    let metrics = Metrics::new();
    let router = Router::new()
        .route("/orders/{id}", get(async || "ok").post(async || "ok"))
        .route("/broken", get(async || StatusCode::BAD_GATEWAY))
        .route("/panic", get(async || -> () { panic!("on purpose") }))
        .route("/metrics", metrics.route());
    let router = metrics.measure(Manners::default().apply(router));
    (metrics, router)
}

async fn ask(router: &Router, method: &str, path: &str) -> StatusCode {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let request = Request::builder().method(method).uri(path);
    let request = request.body(Body::empty()).unwrap();
    router.clone().oneshot(request).await.unwrap().status()
}

/// The page in the format that `accept` asks for, and its content type.
async fn scrape(router: &Router, accept: &str) -> (String, String) {
    let request = Request::builder().uri("/metrics").header("accept", accept);
    let request = request.body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let content_type = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
    (
        String::from_utf8(body.unwrap().to_vec()).unwrap(),
        content_type,
    )
}

/// The values of the lines that begin with a name, by their labels.
fn series(text: &str, name: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(name));
    let lines = lines.filter_map(|line| line.strip_prefix('{'));
    lines
        .map(|line| {
            let (labels, rest) = line.split_once("} ").unwrap();
            let value = rest.split(' ').next().unwrap();
            (labels.to_owned(), value.parse().unwrap())
        })
        .collect()
}

fn count(text: &str, method: &str, route: &str, status: &str) -> Option<f64> {
    let labels = format!(r#"method="{method}",route="{route}",status="{status}""#);
    let counts = series(text, "http_server_request_duration_seconds_count");
    counts.get(&labels).copied()
}

async fn each_request_is_counted_by_route_method_and_kind_of_answer() -> Outcome {
    let (_metrics, router) = shop();
    for (method, path, status) in [
        ("GET", "/orders/1", 200),
        ("GET", "/orders/2", 200),
        ("POST", "/orders/1", 200),
        ("DELETE", "/orders/1", 405),
        ("GET", "/broken", 502),
        ("GET", "/panic", 500),
        ("GET", "/no/such/page", 404),
    ] {
        assert_eq!(ask(&router, method, path).await, status, "{method} {path}");
    }
    let (text, _) = scrape(&router, "*/*").await;
    for (method, route, status, expected) in [
        ("GET", "/orders/{id}", "2xx", 2.0),
        ("POST", "/orders/{id}", "2xx", 1.0),
        ("DELETE", "/orders/{id}", "4xx", 1.0),
        ("GET", "/broken", "5xx", 1.0),
        ("GET", "/panic", "5xx", 1.0),
        ("GET", "unknown", "4xx", 1.0),
    ] {
        let counted = count(&text, method, route, status);
        assert_eq!(counted, Some(expected), "{method} {route} {status}\n{text}");
    }
    // The scrape is the one that is in hand.
    let active = series(&text, "http_server_active_requests");
    assert_eq!(active["method=\"GET\""], 1.0);
    assert_eq!(active["method=\"POST\""], 0.0);
    Ok(())
}

async fn labels_stay_few_whatever_clients_send() -> Outcome {
    let (_metrics, router) = shop();
    for n in 0..300 {
        ask(&router, "GET", &format!("/orders/{n}")).await;
        ask(&router, "GET", &format!("/no/{n}")).await;
        ask(&router, &format!("BREW{n}"), "/orders/1").await;
        ask(&router, &format!("BREW{n}"), &format!("/no/{n}")).await;
    }
    let (text, _) = scrape(&router, "*/*").await;
    let counts = series(&text, "http_server_request_duration_seconds_count");
    assert_eq!(counts.len(), 4, "{counts:?}");
    assert_eq!(count(&text, "other", "unknown", "4xx"), Some(300.0));
    assert_eq!(count(&text, "other", "/orders/{id}", "4xx"), Some(300.0));
    Ok(())
}

async fn a_client_that_hangs_up_is_counted_as_aborted() -> Outcome {
    let metrics = Metrics::new();
    let begun = Arc::new(Notify::new());
    let tell = Arc::clone(&begun);
    let held = async move || {
        tell.notify_one();
        std::future::pending::<()>().await;
    };
    let router = Router::new()
        .route("/held", get(held))
        .route("/metrics", metrics.route());
    let router = metrics.measure(Manners::default().apply(router));
    let asking = router.clone();
    let request = tokio::spawn(async move { ask(&asking, "GET", "/held").await });
    begun.notified().await;
    let (text, _) = scrape(&router, "*/*").await;
    assert_eq!(
        series(&text, "http_server_active_requests")["method=\"GET\""],
        2.0
    );
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    let (text, _) = scrape(&router, "*/*").await;
    assert_eq!(count(&text, "GET", "/held", "aborted"), Some(1.0), "{text}");
    assert_eq!(
        series(&text, "http_server_active_requests")["method=\"GET\""],
        1.0
    );
    Ok(())
}

async fn the_format_is_what_the_scraper_asks_for() -> Outcome {
    let (metrics, router) = shop();
    metrics.register(|registry| {
        let shipped = prometheus_client::metrics::counter::Counter::<u64>::default();
        registry.register(
            "orders_shipped",
            "Orders that left the house",
            shipped.clone(),
        );
        shipped.inc();
    });
    ask(&router, "GET", "/orders/1").await;
    let (text, content_type) = scrape(&router, OPENMETRICS).await;
    let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(content_type, openmetrics);
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert!(
        text.contains("# UNIT http_server_request_duration_seconds seconds\n"),
        "{text}"
    );
    assert!(text.contains("# TYPE orders_shipped counter\n"), "{text}");
    let (text, content_type) = scrape(&router, "*/*").await;
    assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
    assert!(
        !text.contains("# EOF") && !text.contains("# UNIT"),
        "{text}"
    );
    assert!(
        text.contains("# TYPE orders_shipped_total counter\norders_shipped_total 1\n"),
        "{text}"
    );
    Ok(())
}

/// A program of the package, or the reason why there is no test.
fn program(name: &str) -> Result<&str, End> {
    match Command::new(name).arg("--version").output() {
        Ok(_) => Ok(name),
        Err(error) => Err(End::Skip(format!(
            "no {name} here (Debian: prometheus): {error}"
        ))),
    }
}

async fn promtool_finds_nothing_to_complain_of() -> Outcome {
    let promtool = program("promtool")?;
    let database = Database::start().await?;
    let (metrics, router) = shop();
    metrics.watch_pool("orders", &database.pool);
    drop(acquire(&database.pool).await.unwrap());
    ask(&router, "GET", "/orders/1").await;
    let (text, _) = scrape(&router, "*/*").await;
    for family in [
        "db_pool_connections",
        "db_pool_wait_seconds",
        "http_server_active_requests",
    ] {
        assert!(
            text.contains(&format!("# TYPE {family} ")),
            "{family}: {text}"
        );
    }
    let check = |text: String| {
        let mut child = Command::new(promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    };
    assert_eq!(check(text.clone()), (true, String::new()), "{text}");
    // It does look.
    let (is_fine, said) = check(text + "# TYPE wrong_total gauge\nwrong_total 1\n");
    assert!(!is_fine && said.contains("wrong_total"), "{said}");
    Ok(())
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A shop that exports, with one request of a known trace behind it.
async fn traced_shop() -> Shop {
    let (_collector, endpoint) = Collector::open().await;
    let shop = Shop::open(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    assert_eq!(shop.ask("/orders/7", Some(SAMPLED)).await.status(), 200);
    shop
}

async fn an_exemplar_names_the_trace_of_a_slow_request() -> Outcome {
    let shop = traced_shop().await;
    let request = reqwest::Client::new().get(format!("{}/metrics", shop.address));
    let answer = request.header("accept", OPENMETRICS).send().await.unwrap();
    let text = answer.text().await.unwrap();
    let exemplars = text.lines().filter(|line| line.contains(" # {trace_id="));
    let exemplars: Vec<&str> = exemplars.collect();
    assert_eq!(exemplars.len(), 1, "{text}");
    assert!(
        exemplars[0].starts_with("http_server_request_duration_seconds_bucket{")
            && exemplars[0].contains(r#"route="/orders/{id}""#)
            && exemplars[0].contains(&format!(r#"# {{trace_id="{TRACE}"}} "#)),
        "{exemplars:?}"
    );
    Ok(())
}

async fn a_real_prometheus_takes_it_with_exemplars() -> Outcome {
    let prometheus = program("prometheus")?;
    let shop = traced_shop().await;
    let folder = tempfile::TempDir::new().unwrap();
    let target = shop.address.trim_start_matches("http://");
    let config = format!(
        "scrape_configs:\n- job_name: shop\n  scrape_interval: 100ms\n  scrape_timeout: 100ms\n  \
         static_configs:\n  - targets: ['{target}']\n"
    );
    let file = folder.path().join("prometheus.yml");
    std::fs::write(&file, config).unwrap();
    // Prometheus cannot be asked for a free port, and says none: take one that was free just now.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let argv = [
        prometheus.to_owned(),
        format!("--config.file={}", file.display()),
        format!(
            "--storage.tsdb.path={}",
            folder.path().join("data").display()
        ),
        format!("--web.listen-address={address}"),
        "--enable-feature=exemplar-storage".to_owned(),
    ];
    let program = Program::new(argv).stdout(Output::Null).stderr(Output::Null);
    let _prometheus = Guarded::spawn(program, OnOrphaned::KillGroup).unwrap();

    let query = format!("http://{address}/api/v1/query_exemplars");
    let deadline = Instant::now() + Duration::from_secs(60);
    let found = loop {
        assert!(Instant::now() < deadline, "no exemplar came to Prometheus");
        let parameters = [
            ("query", "http_server_request_duration_seconds_bucket"),
            ("start", "2020-01-01T00:00:00Z"),
            ("end", "2100-01-01T00:00:00Z"),
        ];
        let url = reqwest::Url::parse_with_params(&query, parameters).unwrap();
        if let Ok(answer) = reqwest::get(url).await {
            let answer: serde_json::Value = answer.json().await.unwrap_or_default();
            if let Some(found) = answer["data"].get(0) {
                break found.clone();
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(found["seriesLabels"]["route"], "/orders/{id}");
    assert_eq!(found["seriesLabels"]["job"], "shop");
    assert_eq!(found["exemplars"][0]["labels"]["trace_id"], TRACE);
    Ok(())
}

struct Database {
    pool: sqlx::PgPool,
    _schema: shared::services::Schema,
    _postgres: Postgres,
    _folder: tempfile::TempDir,
}

impl Database {
    /// With a pool of one connection.
    async fn start() -> Result<Self, End> {
        let folder = folder();
        let postgres = Postgres::find_or_start(&options(&folder)).await?;
        let schema = postgres.fresh_schema().await?;
        let settings = PoolSettings {
            max_connections: 1,
            ..PoolSettings::default()
        };
        let pool = connect_lazy(schema.options(), &settings);
        Ok(Self {
            pool,
            _schema: schema,
            _postgres: postgres,
            _folder: folder,
        })
    }
}

async fn a_pool_shows_its_connections_and_what_was_waited_for_them() -> Outcome {
    let database = Database::start().await?;
    let pool = &database.pool;
    let (metrics, router) = shop();
    let connections = async |pool: &str| {
        let (text, _) = scrape(&router, "*/*").await;
        let all = series(&text, "db_pool_connections");
        let of = |state: &str| all[&format!("pool=\"{pool}\",state=\"{state}\"")];
        (of("used"), of("idle"))
    };
    metrics.watch_pool("orders", pool);
    assert_eq!(connections("orders").await, (0.0, 0.0), "it opens lazily");
    let held = acquire(pool).await.unwrap();
    assert_eq!(connections("orders").await, (1.0, 0.0));

    // One that gives up, and one that waits until the connection is free.
    {
        let mut given_up = pin!(acquire(pool));
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(
            given_up.as_mut().poll(&mut context),
            Poll::Pending
        ));
    }
    let mut waiting = pin!(acquire(pool));
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(waiting.as_mut().poll(&mut context), Poll::Pending));
    drop(held);
    drop(waiting.await.unwrap());
    let deadline = Instant::now() + Duration::from_secs(60);
    while connections("orders").await != (0.0, 1.0) {
        // A connection goes back in a task of its own.
        assert!(Instant::now() < deadline, "it never became idle");
        tokio::task::yield_now().await;
    }
    // One for which no connection comes in time.
    let impatient = PoolSettings {
        max_connections: 1,
        acquire_timeout: Duration::from_millis(200),
        ..PoolSettings::default()
    };
    let other = connect_lazy((*pool.connect_options()).clone(), &impatient);
    metrics.watch_pool("stock", &other);
    // The limit holds for opening a connection, too, which takes a busy machine longer. Not through
    // our own `acquire`, so that it does not count.
    let held = loop {
        match other.acquire().await {
            Ok(held) => break held,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    assert!(matches!(
        acquire(&other).await,
        Err(sqlx::Error::PoolTimedOut)
    ));
    drop(held);

    let (text, _) = scrape(&router, "*/*").await;
    let waits = series(&text, "db_pool_wait_seconds_count");
    let expected = [
        (r#"pool="orders",outcome="acquired""#, 2.0),
        (r#"pool="orders",outcome="cancelled""#, 1.0),
        (r#"pool="stock",outcome="timed_out""#, 1.0),
    ];
    let expected = expected.map(|(labels, count)| (labels.to_owned(), count));
    assert_eq!(waits, BTreeMap::from(expected), "{text}");
    let sums = series(&text, "db_pool_wait_seconds_sum");
    assert!(
        sums[r#"pool="stock",outcome="timed_out""#] >= 0.05,
        "{text}"
    );
    assert_eq!(
        series(&text, "db_pool_max_connections")["pool=\"orders\""],
        1.0
    );
    assert_eq!(
        text.matches("# TYPE db_pool_connections gauge").count(),
        1,
        "{text}"
    );
    Ok(())
}

async fn a_pool_is_watched_until_its_metrics_are_gone() -> Outcome {
    let database = Database::start().await?;
    let pool = &database.pool;
    let (first, first_router) = shop();
    let (second, second_router) = shop();
    first.watch_pool("orders", pool);
    second.watch_pool("orders", pool);
    drop(acquire(pool).await.unwrap());
    drop((first, first_router));
    drop(acquire(pool).await.unwrap());
    let (text, _) = scrape(&second_router, "*/*").await;
    let waits = series(&text, "db_pool_wait_seconds_count");
    assert_eq!(waits[r#"pool="orders",outcome="acquired""#], 2.0, "{text}");
    pool.close().await;
    let (text, _) = scrape(&second_router, "*/*").await;
    assert_eq!(
        series(&text, "db_pool_connections"),
        BTreeMap::new(),
        "{text}"
    );
    Ok(())
}
