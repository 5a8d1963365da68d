//! `IdempotencyLayer`: what a client gets.

use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use http::{HeaderName, StatusCode};
use shared::idempotency::{BodyForm, HangUp, MissingKey, Token, Unkept};
use shared::resilience::Deadline;
use tower::ServiceExt;

use super::Database;
use super::web::{Call, Got, Till, call, options, router};
use crate::support::{End, Outcome, tests};

tests![
    an_answer_is_given_again_with_a_mark,
    a_key_is_needed_and_has_to_be_one,
    methods_that_are_safe_to_repeat_pass_untouched,
    a_key_belongs_to_a_caller_a_method_and_a_route,
    a_caller_who_cannot_be_named_is_sent_away_first,
    a_body_above_the_limit_is_refused_and_claims_nothing,
    the_handler_gets_the_whole_request_and_its_token,
    json_may_be_written_differently_if_asked_for,
    what_asks_to_try_again_is_tried_again,
    a_decline_is_as_final_as_a_success,
    a_panic_frees_the_key,
    a_handler_finishes_when_its_client_hangs_up,
    a_handler_can_be_cancelled_with_its_client,
    an_answer_too_large_to_keep_is_not_made_twice,
    a_stream_is_passed_on_as_it_comes,
    what_is_not_kept_can_be_made_again_if_asked_for,
    a_body_that_breaks_is_no_answer,
    an_answer_expires,
    a_deadline_goes_along_into_the_handlers_task,
];

async fn an_answer_is_given_again_with_a_mark() -> Outcome {
    let database = Database::start().await?;
    let till = Till::open();
    let router = till.router(&database.pool, options());
    let first = call().send(&router).await;
    assert_eq!((first.status, first.body.as_str()), (201, "run 1"));
    assert!(!first.is_replayed());
    assert_eq!(first.headers["set-cookie"], "session=secret");
    let bare = Call {
        key: Some("k"),
        ..call()
    };
    for again in [call().send(&router).await, bare.send(&router).await] {
        assert_eq!((again.status, again.body.as_str()), (201, "run 1"));
        assert!(again.is_replayed());
        assert_eq!(again.headers["content-type"], "text/plain");
        assert_eq!(again.headers["location"], "/payments/7");
        // Somebody's session, and not part of the answer.
        assert!(!again.headers.contains_key("set-cookie"));
    }
    assert_eq!(till.runs(), 1);
    Ok(())
}

async fn a_key_is_needed_and_has_to_be_one() -> Outcome {
    let database = Database::start().await?;
    let till = Till::open();
    let strict = till.router(&database.pool, options());
    for key in [None, Some("\"k"), Some("a, b"), Some("\"\"")] {
        let got = Call { key, ..call() }.send(&strict).await;
        assert!(got.problem(400).contains("Idempotency-Key"), "{key:?}");
    }
    assert_eq!(till.runs(), 0);
    let mut lenient = options();
    lenient.missing_key = MissingKey::Run;
    let lenient = till.router(&database.pool, lenient);
    let without = Call {
        key: None,
        ..call()
    };
    for run in 1..3 {
        assert_eq!(without.send(&lenient).await.body, format!("run {run}"));
    }
    // A key that cannot be read was meant to protect.
    let broken = Call {
        key: Some("\"k"),
        ..call()
    };
    broken.send(&lenient).await.problem(400);
    Ok(())
}

async fn methods_that_are_safe_to_repeat_pass_untouched() -> Outcome {
    let database = Database::start().await?;
    let till = Till::open();
    let router = till.router(&database.pool, options());
    for (method, run) in [("GET", 1), ("PUT", 2), ("DELETE", 3)] {
        let got = Call { method, ..call() }.send(&router).await;
        assert_eq!(
            (got.body, got.headers.get("idempotency-replayed")),
            (format!("run {run}"), None)
        );
    }
    Ok(())
}

async fn a_key_belongs_to_a_caller_a_method_and_a_route() -> Outcome {
    let database = Database::start().await?;
    let till = Till::open();
    let router = till.router(&database.pool, options());
    let others = [
        call(),
        Call {
            caller: "umbrella",
            ..call()
        },
        Call {
            method: "PATCH",
            ..call()
        },
        Call {
            uri: "/ship/7",
            ..call()
        },
    ];
    for (n, other) in others.iter().enumerate() {
        assert_eq!(other.send(&router).await.body, format!("run {}", n + 1));
    }
    for (n, other) in others.iter().enumerate() {
        let got = other.send(&router).await;
        assert_eq!(got.body, format!("run {}", n + 1));
        assert!(got.is_replayed());
    }
    Ok(())
}

async fn a_caller_who_cannot_be_named_is_sent_away_first() -> Outcome {
    let database = Database::start().await?;
    let till = Till::open();
    let router = till.router(&database.pool, options());
    let mut request = Call {
        key: None,
        ..call()
    }
    .request();
    request.headers_mut().remove("x-caller");
    let response = router.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(till.runs(), 0);
    Ok(())
}

async fn a_body_above_the_limit_is_refused_and_claims_nothing() -> Outcome {
    let database = Database::start().await?;
    let till = Till::open();
    let mut small = options();
    small.request_limit_bytes = 10;
    let router = till.router(&database.pool, small);
    let body = |body: &'static str| Call {
        body: body.into(),
        ..call()
    };
    let got = body("0123456789a").send(&router).await;
    assert!(got.problem(413).contains("10 bytes"));
    assert_eq!(till.runs(), 0);
    assert_eq!(body("0123456789").send(&router).await.body, "run 1");
    Ok(())
}

async fn the_handler_gets_the_whole_request_and_its_token() -> Outcome {
    let database = Database::start().await?;
    let echo = axum::routing::post(
        async |Extension(token): Extension<Token>, uri: http::Uri, body: Bytes| {
            format!(
                "{} {} {uri} {}",
                token.key(),
                token.scope().as_str(),
                body.len()
            )
        },
    );
    let layer =
        shared::idempotency::IdempotencyLayer::new(database.pool.clone(), options()).unwrap();
    let router = axum::Router::new().route("/pay/{id}", echo.layer(layer));
    let got = Call {
        uri: "/pay/7?when=now",
        ..call()
    }
    .send(&router)
    .await;
    assert_eq!(
        got.body,
        r#"k ["acme","POST","/pay/{id}"] /pay/7?when=now 37"#
    );
    Ok(())
}

async fn json_may_be_written_differently_if_asked_for() -> Outcome {
    let database = Database::start().await?;
    let till = Till::open();
    let differently = Call {
        body: "{ \"currency\": \"EUR\", \"amount_cents\": 100 }".into(),
        ..call()
    };
    let mut as_json = options();
    as_json.body_form = BodyForm::Json;
    let router = till.router(&database.pool, as_json);
    call().send(&router).await;
    assert!(differently.send(&router).await.is_replayed());
    // In the default form it is another request.
    let strict = till.router(&database.pool, options());
    let key = Some("other");
    Call { key, ..call() }.send(&strict).await;
    Call { key, ..differently }.send(&strict).await.problem(422);
    Ok(())
}

async fn what_asks_to_try_again_is_tried_again() -> Outcome {
    let database = Database::start().await?;
    for status in [400_u16, 404, 408, 409, 422, 429, 500, 503] {
        let till = Till::open();
        let router = till.router_with(&database.pool, options(), move |run, _| {
            let status = if run == 1 { status } else { 201 };
            (StatusCode::from_u16(status).unwrap(), format!("run {run}")).into_response()
        });
        let uri = "/pay/7";
        let caller: &'static str = Box::leak(format!("caller-{status}").into_boxed_str());
        let call = Call {
            uri,
            caller,
            ..call()
        };
        assert_eq!(call.send(&router).await.status, status);
        let second = call.send(&router).await;
        assert_eq!((second.status, second.is_replayed()), (201, false));
        assert!(call.send(&router).await.is_replayed());
        assert_eq!(till.runs(), 2);
    }
    Ok(())
}

async fn a_decline_is_as_final_as_a_success() -> Outcome {
    let database = Database::start().await?;
    let till = Till::open();
    let router = till.router_with(&database.pool, options(), |run, _| {
        (StatusCode::PAYMENT_REQUIRED, format!("declined {run}")).into_response()
    });
    call().send(&router).await;
    let again = call().send(&router).await;
    assert_eq!((again.status, again.body.as_str()), (402, "declined 1"));
    assert!(again.is_replayed());
    Ok(())
}

async fn a_panic_frees_the_key() -> Outcome {
    let database = Database::start().await?;
    let till = Till::open();
    let router = till.router_with(&database.pool, options(), |run, _| {
        assert!(run > 1, "a test: this run panics");
        format!("run {run}").into_response()
    });
    // Nobody catches it here; in a service the outermost layer does.
    let panicked = call().begin(&router).await.unwrap_err();
    assert!(panicked.is_panic());
    let again = call().send(&router).await;
    assert_eq!((again.body.as_str(), again.is_replayed()), ("run 2", false));
    Ok(())
}

async fn a_handler_finishes_when_its_client_hangs_up() -> Outcome {
    let database = Database::start().await?;
    let (till, mut begun) = Till::new();
    let router = till.router(&database.pool, options());
    let client = call().begin(&router);
    assert_eq!(begun.recv().await, Some(1));
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    call().send(&router).await.problem(409);
    till.may_finish.add_permits(1);
    database
        .until(
            "answered",
            "select bool_or(status = 201) from idempotency_keys",
        )
        .await;
    let again = call().send(&router).await;
    assert_eq!((again.body.as_str(), again.is_replayed()), ("run 1", true));
    assert_eq!(till.runs(), 1);
    Ok(())
}

async fn a_handler_can_be_cancelled_with_its_client() -> Outcome {
    let database = Database::start().await?;
    let (till, mut begun) = Till::new();
    let mut cancels = options();
    cancels.on_hang_up = HangUp::Cancel;
    let router = till.router(&database.pool, cancels);
    let client = call().begin(&router);
    assert_eq!(begun.recv().await, Some(1));
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    // Long before the lease is over.
    let free = "select count(*) = 0 from idempotency_keys";
    database.until("the key is free", free).await;
    till.may_finish.add_permits(1);
    let again = call().send(&router).await;
    assert_eq!((again.body.as_str(), again.is_replayed()), ("run 2", false));
    Ok(())
}

/// 100 bytes where 99 are kept, and a stream of unknown length.
async fn unkept(unkept: Unkept, answer: fn() -> Body) -> Result<(Till, [Got; 2]), End> {
    let database = Database::start().await?;
    let till = Till::open();
    let mut options = options();
    options.answer_limit_bytes = 99;
    options.unkept = unkept;
    let router = till.router_with(&database.pool, options, move |_, _| Response::new(answer()));
    let got = [call().send(&router).await, call().send(&router).await];
    Ok((till, got))
}

fn large() -> Body {
    Body::from("x".repeat(100))
}

fn stream() -> Body {
    let parts = ["a", "b", "c"].map(|part| Ok::<_, std::io::Error>(Bytes::from(part)));
    Body::from_stream(futures::stream::iter(parts))
}

async fn an_answer_too_large_to_keep_is_not_made_twice() -> Outcome {
    let (till, [first, second]) = unkept(Unkept::Spent, large).await?;
    assert_eq!((first.status, first.body.len()), (200, 100));
    assert!(second.problem(409).contains("was done"));
    assert!(second.is_replayed());
    // It would hear the same again.
    assert!(!second.headers.contains_key("retry-after"));
    assert_eq!(till.runs(), 1);
    Ok(())
}

async fn a_stream_is_passed_on_as_it_comes() -> Outcome {
    let (till, [first, second]) = unkept(Unkept::Spent, stream).await?;
    assert_eq!((first.status, first.body.as_str()), (200, "abc"));
    second.problem(409);
    assert_eq!(till.runs(), 1);
    Ok(())
}

async fn what_is_not_kept_can_be_made_again_if_asked_for() -> Outcome {
    for body in [large, stream] {
        let (till, [first, second]) = unkept(Unkept::Free, body).await?;
        assert_eq!(first, second);
        assert_eq!(
            (second.status, second.is_replayed(), till.runs()),
            (200, false, 2)
        );
    }
    Ok(())
}

async fn a_body_that_breaks_is_no_answer() -> Outcome {
    struct Breaks;
    impl http_body::Body for Breaks {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
            std::task::Poll::Ready(Some(Err(std::io::Error::other("the disk is gone"))))
        }

        fn size_hint(&self) -> http_body::SizeHint {
            http_body::SizeHint::with_exact(3)
        }
    }
    let database = Database::start().await?;
    let till = Till::open();
    let router = till.router_with(&database.pool, options(), |run, _| match run {
        1 => Response::new(Body::new(Breaks)),
        _ => "whole".into_response(),
    });
    let broken = call().send(&router).await;
    assert!(!broken.problem(500).contains("disk"));
    assert_eq!(call().send(&router).await.body, "whole");
    Ok(())
}

async fn an_answer_expires() -> Outcome {
    let database = Database::start().await?;
    let till = Till::open();
    let mut short = options();
    short.terms.ttl = Duration::from_secs(3_600);
    let router = till.router(&database.pool, short);
    call().send(&router).await;
    database.pass(Duration::from_secs(3_000)).await;
    assert!(call().send(&router).await.is_replayed());
    database.pass(Duration::from_secs(600)).await;
    // Also for another request: the key is a new one.
    let other = Call {
        uri: "/pay/8",
        ..call()
    };
    assert_eq!(other.send(&router).await.body, "run 2");
    Ok(())
}

async fn a_deadline_goes_along_into_the_handlers_task() -> Outcome {
    let database = Database::start().await?;
    let router = router(&database.pool, options(), |_| async {
        let left = Deadline::current().map(Deadline::remaining);
        format!(
            "{}",
            left.is_some_and(|left| left > Duration::from_secs(60))
        )
        .into_response()
    });
    let router = shared::resilience::deadline::with_deadline(router, Duration::from_secs(600));
    let got = call().send(&router).await;
    assert_eq!(got.body, "true");
    // The header is about the way, and not part of the request.
    let mut again = call().request();
    let name = HeaderName::from_static("x-deadline-ms");
    again.headers_mut().insert(name, 500_000.into());
    let again = router.oneshot(again).await.unwrap();
    assert!(super::web::got(again).await.is_replayed());
    Ok(())
}
