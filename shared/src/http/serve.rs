//! Serving until told to stop, and then not a moment longer than agreed.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use http::{HeaderValue, StatusCode, header};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::Problem;

/// How long connections may take after the deadline to hand over their last answers.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request that was being worked on got its own answer.
    Completely,
    /// Some were cut off: they got a 503, or the end of their connection.
    Cut,
}

/// Serves until `shutdown` completes. Then takes no new connection, lets requests that are being
/// worked on finish for as long as `drain`, and answers the others with a 503: their futures are
/// dropped at whatever await they are, as if the client had hung up.
///
/// # Errors
/// The listener breaks.
///
/// # Cancel safety
/// Not safe: a dropped future accepts no more, but lets open connections go on.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
    drain: Duration,
) -> io::Result<Drained> {
    let (tell_stopping, mut stopping) = watch::channel(false);
    let (tell_late, late) = watch::channel(false);
    let router = router.layer(from_fn(move |request, next| {
        or_late(late.clone(), request, next)
    }));
    // Small answers go out at once. That it cannot be set harms nobody.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let graceful = async move {
        shutdown.await;
        tell_stopping.send_replace(true);
    };
    let server = axum::serve(listener, router).with_graceful_shutdown(graceful);
    let mut server = pin!(server.into_future());

    // The sender lives as long as the server, so an error means that the server has ended.
    let deadline = async {
        let _ = stopping.wait_for(|stopping| *stopping).await;
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        ended = &mut server => return ended.map(|()| Drained::Completely),
        () = deadline => {}
    }
    tell_late.send_replace(true);
    match tokio::time::timeout(LAST_ANSWERS, server).await {
        Ok(ended) => ended.map(|()| Drained::Cut),
        Err(_) => Ok(Drained::Cut),
    }
}

async fn or_late(mut late: watch::Receiver<bool>, request: Request, next: Next) -> Response {
    let is_late = async {
        if late.wait_for(|late| *late).await.is_err() {
            // Nobody will ever say so.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        response = next.run(request) => response,
        () = is_late => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "shutting down")
            .detail("the request took longer than the server had left")
            .header(header::CONNECTION, HeaderValue::from_static("close"))
            .into_response(),
    }
}

/// Completes at the first SIGTERM or SIGINT (Ctrl-C). They no longer end the process by
/// themselves from this call on.
///
/// Must be called on a Tokio runtime.
///
/// # Errors
/// The handlers cannot be installed.
pub fn shutdown_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
