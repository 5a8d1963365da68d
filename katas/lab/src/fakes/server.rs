//! The HTTP side of a fake.
//!
//! On hyper itself rather than axum, for one reason: a service that returns an error makes hyper
//! stop without sending a byte, and gives the socket back, which can then be reset. With axum a
//! handler can only ever answer.

use std::{future::poll_fn, io, net::Ipv4Addr, sync::Arc, time::Duration};

use axum::body::Body;
use http::{Response, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};

use super::{Answer, call::Reply, fake::Shared};

/// Room for every connection of a burst: one that finds the queue full would wait a second for the
/// kernel's next try, and a check would blame the program for it.
const BACKLOG: u32 = 1024;

/// More than any caller of a fake has to say.
const MAX_BODY_BYTES: usize = 1 << 20;

pub(super) fn listen() -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    socket.listen(BACKLOG)
}

/// Accepts until aborted. The connections end with it, since their set is part of this future.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&shared)));
                }
                // Out of file descriptors, or the peer has gone already. Trying again at once
                // would be a busy loop in the first case.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Stops hyper from answering.
#[derive(Debug, thiserror::Error)]
#[error("the connection is to be reset")]
struct Reset;

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    // Best effort: without it answers are correct and some are 40 ms late.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| Box::pin(respond(request, Arc::clone(&shared))));
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // `without shutdown`, because a shutdown would send an orderly end before the reset.
    let outcome = poll_fn(|context| connection.poll_without_shutdown(context)).await;
    if outcome.is_err_and(|error| error.is_user()) {
        let stream = connection.into_parts().io.into_inner();
        // If the socket is dead already there is nothing left to reset.
        let _ = stream.set_zero_linger();
    }
}

async fn respond(
    request: http::Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Body>, Reset> {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(Body::new(body), MAX_BODY_BYTES).await else {
        // Too long, or cut off half way: then nobody reads this.
        let answer = Answer::error(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large");
        return Ok(answer.into_response());
    };
    match shared.receive(head, &body).reply().await {
        Reply::Send(answer) => Ok(answer.into_response()),
        Reply::Reset => Err(Reset),
    }
}
