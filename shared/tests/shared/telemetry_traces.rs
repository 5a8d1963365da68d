//! Traces, as a collector gets them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

use crate::support::{Outcome, tests};
use crate::telemetry_shop::{Collector, Shop, attribute, hex};

tests![
    a_trace_goes_from_the_caller_to_the_server_and_on_by_a_link,
    each_line_of_a_request_has_its_trace_and_its_request_id,
    a_server_error_marks_the_span_and_a_missing_page_does_not,
    no_secret_leaves_by_the_log_or_by_a_trace,
    what_is_sampled_is_the_operators_choice,
    without_a_collector_the_callers_decision_is_passed_on,
    a_collector_that_is_down_costs_one_warning,
    a_collector_that_never_answers_does_not_hold_up_the_end,
    variables_that_are_wrong_are_warned_of,
];

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const NOT_SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

async fn a_trace_goes_from_the_caller_to_the_server_and_on_by_a_link() -> Outcome {
    let (collector, endpoint) = Collector::open().await;
    let attributes = "deployment.environment.name=test,service.version=1.2";
    let shop = Shop::open(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_RESOURCE_ATTRIBUTES", attributes),
    ]);
    assert!(shop.is_exporting);
    let answer = shop.ask("/orders/7", Some(SAMPLED)).await;
    let message: BTreeMap<String, String> = answer.json().await.unwrap();
    shop.close();

    let server = collector.span("GET /orders/{id}");
    assert_eq!(hex(&server.trace_id), TRACE);
    assert_eq!(hex(&server.parent_span_id), "b7ad6b7169203331");
    assert_eq!(server.kind(), SpanKind::Server);
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/orders/{id}"),
        ("url.path", "/orders/7"),
        ("http.response.status_code", "200"),
        ("request_id", "r-7"),
    ] {
        assert_eq!(attribute(&server.attributes, key), value, "{key}");
    }

    let charge = collector.span("charge");
    assert_eq!(hex(&charge.trace_id), TRACE);
    assert_eq!(charge.parent_span_id, server.span_id);
    assert_eq!(charge.kind(), SpanKind::Client);
    assert_eq!(attribute(&charge.attributes, "amount_cents"), "1250");
    assert_eq!(charge.events[0].name, "charged");

    let send = collector.span("send orders");
    assert_eq!(send.parent_span_id, server.span_id);
    assert_eq!(send.kind(), SpanKind::Producer);
    let carried = format!("00-{TRACE}-{}-01", hex(&send.span_id));
    assert_eq!(message["traceparent"], carried);
    assert_eq!(message["x-request-id"], "r-7");
    assert!(!message.contains_key("tracestate"), "{message:?}");

    // A trace of its own that points to the producer's.
    let process = collector.span("process orders");
    assert_eq!(process.kind(), SpanKind::Consumer);
    assert_ne!(hex(&process.trace_id), TRACE);
    assert_eq!(process.parent_span_id, Vec::<u8>::new());
    assert_eq!(process.links.len(), 1);
    assert_eq!(hex(&process.links[0].trace_id), TRACE);
    assert_eq!(process.links[0].span_id, send.span_id);
    let destination = attribute(&process.attributes, "messaging.destination.name");
    assert_eq!(destination, "orders");

    let requests = collector.requests();
    let resource = requests[0].resource_spans[0].resource.clone().unwrap();
    for (key, value) in [
        ("service.name", "shop"),
        ("service.version", "1.2"),
        ("deployment.environment.name", "test"),
    ] {
        assert_eq!(attribute(&resource.attributes, key), value, "{key}");
    }
    assert_ne!(attribute(&resource.attributes, "service.instance.id"), "");
    Ok(())
}

async fn each_line_of_a_request_has_its_trace_and_its_request_id() -> Outcome {
    // A level that hides the spans from the log hides neither the trace nor the ids.
    for (filter, path, route) in [
        ("info", "/orders/7", "GET /orders/{id}"),
        ("warn", "/secrets", "GET /secrets"),
    ] {
        let (collector, endpoint) = Collector::open().await;
        let shop = Shop::open(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("RUST_LOG", filter),
        ]);
        shop.ask(path, Some(SAMPLED)).await;
        let (_, log) = shop.close();
        assert_eq!(log.lines().count(), 3, "{log}");
        let server = collector.span(route);
        for line in log.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let is_consumer = line["message"] == "shipped";
            assert_eq!(line["trace_id"] == TRACE, !is_consumer, "{line}");
            assert_eq!(line["trace_id"].as_str().unwrap().len(), 32, "{line}");
            assert_eq!(line["request_id"] == "r-7", !is_consumer, "{line}");
            let timestamp = line["timestamp"].as_str().unwrap();
            assert!(timestamp.len() == 27 && timestamp.ends_with('Z'), "{line}");
            if line["message"] == "answered" {
                assert_eq!(line["span_id"], hex(&server.span_id));
            }
        }
    }
    Ok(())
}

async fn a_server_error_marks_the_span_and_a_missing_page_does_not() -> Outcome {
    let (collector, endpoint) = Collector::open().await;
    let shop = Shop::open(&[(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        &format!("{endpoint}/v1/traces"),
    )]);
    shop.ask("/broken", None).await;
    shop.ask("/no/such/page", None).await;
    shop.close();
    let broken = collector.span("GET /broken");
    assert_eq!(broken.status.as_ref().unwrap().code(), StatusCode::Error);
    assert_eq!(attribute(&broken.attributes, "error.type"), "500");
    let missing = collector.span("GET unknown");
    let status = missing.status.clone().unwrap_or_default();
    assert_eq!(status.code(), StatusCode::Unset);
    let code = attribute(&missing.attributes, "http.response.status_code");
    assert_eq!(code, "404");
    Ok(())
}

async fn no_secret_leaves_by_the_log_or_by_a_trace() -> Outcome {
    for format in ["json", "text"] {
        let (collector, endpoint) = Collector::open().await;
        let shop = Shop::open(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("LOG_FORMAT", format),
        ]);
        shop.ask("/secrets", Some(SAMPLED)).await;
        let (_, log) = shop.close();
        let trace = format!("{:?}", collector.requests());
        for (what, text) in [("log", &log), ("trace", &trace)] {
            for secret in ["hunter2", "aHVudGVyMg"] {
                assert!(
                    !text.contains(secret),
                    "{format}: {secret} in the {what}: {text}"
                );
            }
            // It is masked there, and not merely absent.
            assert!(
                text.contains("postgres://shop:***@db:5432/shop"),
                "{what}: {text}"
            );
        }
        assert!(
            log.contains("authorization") && log.contains("r-7"),
            "{log}"
        );
        assert!(trace.contains("authorization"), "{trace}");
        assert_eq!(log.lines().count(), 4, "{log}");
        if format == "json" {
            for line in log.lines() {
                serde_json::from_str::<serde_json::Value>(line).unwrap();
            }
        } else {
            let ends = log
                .lines()
                .all(|line| line.ends_with(&format!(" trace_id={TRACE}")));
            assert!(ends, "{log}");
        }
    }
    Ok(())
}

async fn what_is_sampled_is_the_operators_choice() -> Outcome {
    for (sampler, parent, is_sampled) in [
        ("always_off", Some(SAMPLED), false),
        ("parentbased_always_off", Some(SAMPLED), true),
        ("parentbased_always_off", None, false),
        ("parentbased_always_on", Some(NOT_SAMPLED), false),
        ("parentbased_always_on", None, true),
    ] {
        let (collector, endpoint) = Collector::open().await;
        let shop = Shop::open(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_TRACES_SAMPLER", sampler),
        ]);
        shop.ask("/broken", parent).await;
        let (_, log) = shop.close();
        assert_eq!(
            collector.spans().len(),
            usize::from(is_sampled),
            "{sampler} {parent:?}"
        );
        // The id is there all the same.
        assert!(log.contains("\"trace_id\""), "{log}");
    }
    Ok(())
}

async fn without_a_collector_the_callers_decision_is_passed_on() -> Outcome {
    let shop = Shop::open(&[]);
    assert!(!shop.is_exporting);
    let sent = async |parent| {
        let answer = shop.ask("/orders/7", parent).await;
        let message: BTreeMap<String, String> = answer.json().await.unwrap();
        message["traceparent"].clone()
    };
    let carried = sent(Some(SAMPLED)).await;
    assert!(
        carried.contains(TRACE) && carried.ends_with("-01"),
        "{carried}"
    );
    assert!(sent(Some(NOT_SAMPLED)).await.ends_with("-00"));
    assert!(sent(None).await.ends_with("-00"), "nobody would find it");
    Ok(())
}

async fn a_collector_that_is_down_costs_one_warning() -> Outcome {
    // Nobody listens there any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", port.local_addr().unwrap());
    drop(port);
    let shop = Shop::open(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "50"),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16"),
    ]);
    let began = Instant::now();
    let mut asked = 0;
    // Long enough for many exports to fail, in batches and by the clock.
    while asked < 200 || began.elapsed() < Duration::from_millis(500) {
        assert_eq!(shop.ask("/orders/7", None).await.status(), 200);
        asked += 1;
    }
    let (took, log) = shop.close();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let warned = log
        .lines()
        .filter(|line| line.contains("traces cannot be exported"));
    assert_eq!(warned.count(), 1, "{log}");
    Ok(())
}

async fn a_collector_that_never_answers_does_not_hold_up_the_end() -> Outcome {
    // The system accepts for it, and nobody reads.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let shop = Shop::open(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    shop.ask("/broken", None).await;
    let (took, log) = shop.close();
    // 1.5 s were allowed; the rest is a machine that is busy with other things.
    assert!(
        took >= Duration::from_millis(1400),
        "it did not wait: {took:?}"
    );
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert!(log.contains("could not be sent in time"), "{log}");
    Ok(())
}

async fn variables_that_are_wrong_are_warned_of() -> Outcome {
    let (_collector, endpoint) = Collector::open().await;
    for (name, value, said, is_exporting) in [
        ("OTEL_TRACES_SAMPLER", "sometimes", "sometimes", true),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf", true),
        ("OTEL_TRACES_EXPORTER", "jaeger", "jaeger", false),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "not an address",
            "OTEL_EXPORTER_OTLP",
            false,
        ),
    ] {
        let shop = Shop::open(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), (name, value)]);
        assert_eq!(shop.is_exporting, is_exporting, "{name}");
        assert_eq!(shop.ask("/orders/7", None).await.status(), 200);
        let (_, log) = shop.close();
        let warned = log
            .lines()
            .filter(|line| line.contains("WARN") && line.contains(said));
        assert_eq!(warned.count(), 1, "{name}: {log}");
    }
    Ok(())
}
