//! An in-process instance: an axum application on a Tokio runtime of its own.
//!
//! The runtime is what makes a crash possible: dropping it ends every task at its next await, with
//! nothing flushed and nobody told. (Blocking threads outlive it, which is why a crash also cuts
//! the instance's database connections, at the proxy.)

use std::{
    any::Any,
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    response::{IntoResponse, Response},
    routing::get,
};
use futures::FutureExt;
use http::StatusCode;
use shared::http::Problem;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    sync::oneshot,
    task::JoinSet,
};
use tower_http::catch_panic::CatchPanicLayer;

use super::{Output, StartError};
use crate::{
    app::{App, Env},
    kata::AppFn,
};

/// Enough that one blocked thread does not stop an instance, few enough for dozens of instances.
const WORKER_THREADS: usize = 2;

/// How long a polite stop waits for requests that still run.
const DRAIN: Duration = Duration::from_secs(5);

/// How long the end of an instance waits for threads that do not come to an await.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// Threads of instances are named so that the panic hook knows whose panic it sees.
const THREAD_NAME: &str = "kata-instance-";

enum End {
    Crash,
    Stop,
}

/// A running in-process instance. Dropping it is a crash.
pub(crate) struct InProcess {
    address: SocketAddr,
    end: oneshot::Sender<End>,
    gone: oneshot::Receiver<()>,
}

impl InProcess {
    pub(crate) async fn start(
        app: AppFn,
        mut env: Env,
        timeout: Duration,
        output: Output,
    ) -> Result<Self, StartError> {
        quieten_panics();
        // Only `serve` names a port; everything else takes what is free.
        let port = env
            .text("PORT")
            .ok()
            .and_then(|port| port.parse().ok())
            .unwrap_or(0);
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|error| {
                StartError::Ended(match port {
                    0 => format!("no free port: {error}"),
                    port => format!("port {port}: {error}"),
                })
            })?;
        let address = listener
            .local_addr()
            .map_err(|error| StartError::Ended(format!("no free port: {error}")))?;
        env.set("PORT", address.port());

        let (end, ended) = oneshot::channel();
        let (started, starting) = oneshot::channel();
        let (leaving, gone) = oneshot::channel();
        let thread = std::thread::Builder::new().name(THREAD_NAME.to_owned());
        let spawned = thread.spawn(move || {
            let registered = Registered::new(output);
            let name = format!("{THREAD_NAME}{}", registered.id);
            let runtime = Builder::new_multi_thread()
                .worker_threads(WORKER_THREADS)
                .thread_name(name)
                .enable_all()
                .build();
            match runtime {
                Ok(runtime) => run(runtime, app, env, listener, started, ended),
                Err(error) => {
                    let why = format!("no runtime for another instance: {error}");
                    let _ = started.send(Err(StartError::Ended(why)));
                }
            }
            let _ = leaving.send(());
        });
        if let Err(error) = spawned {
            return Err(StartError::Ended(format!(
                "no thread for another instance: {error}"
            )));
        }

        match tokio::time::timeout(timeout, starting).await {
            Ok(Ok(Ok(()))) => Ok(Self { address, end, gone }),
            Ok(Ok(Err(error))) => Err(error),
            Ok(Err(_)) => Err(StartError::Ended("it ended while starting".to_owned())),
            Err(_) => Err(StartError::NeverHealthy(format!(
                "it was still starting after {} s",
                timeout.as_secs()
            ))),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn crash(self) {
        let _ = self.end.send(End::Crash);
        let _ = self.gone.await;
    }

    pub(crate) async fn stop(self) {
        let _ = self.end.send(End::Stop);
        let _ = self.gone.await;
    }
}

/// The life of an instance, on its own thread.
fn run(
    runtime: Runtime,
    app: AppFn,
    env: Env,
    listener: std::net::TcpListener,
    started: oneshot::Sender<Result<(), StartError>>,
    ended: oneshot::Receiver<End>,
) {
    runtime.block_on(async move {
        let build = async { AssertUnwindSafe(app(env)).catch_unwind().await };
        let app = match build.await {
            Ok(Ok(app)) => app,
            Ok(Err(error)) => {
                let _ = started.send(Err(StartError::Ended(with_causes(&*error))));
                return;
            }
            Err(panic) => {
                let _ = started.send(Err(match not_yet(&message(&*panic)) {
                    Some(what) => StartError::NotStarted(what),
                    None => StartError::Ended(format!("it panicked: {}", message(&*panic))),
                }));
                return;
            }
        };
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                let _ = started.send(Err(StartError::Ended(error.to_string())));
                return;
            }
        };
        let App { router, tasks } = app;
        let mut background = JoinSet::new();
        for task in tasks {
            background.spawn(task);
        }
        let (drain, drained) = oneshot::channel::<()>();
        let serve = axum::serve(listener, furnished(router))
            .with_graceful_shutdown(async { drained.await.unwrap_or_default() });
        let serve = tokio::spawn(async move { serve.await });
        let _ = started.send(Ok(()));

        if let Ok(End::Stop) = ended.await {
            let _ = drain.send(());
            let _ = tokio::time::timeout(DRAIN, serve).await;
        }
    });
    // Until every task is dropped, so that nothing of the instance acts after its crash; but a
    // handler that blocks its thread must not hold the crash up for long.
    runtime.shutdown_timeout(SHUTDOWN);
}

/// The router with what every instance has: `/health`, and panics as answers.
fn furnished(router: Router) -> Router {
    // An outer router that knows only `/health` and hands everything else on shadows no other
    // route and leaves the application's own fallback alone. An application is ready once it is
    // built, so an answer of its own would say nothing more.
    Router::new()
        .route("/health", get(async || StatusCode::OK))
        .fallback_service(router)
        .layer(CatchPanicLayer::custom(|panic: Box<dyn Any + Send>| {
            panic_answer(&message(&*panic))
        }))
}

/// `todo!()` is 501, so that Rust says "not started" like every other language.
fn panic_answer(message: &str) -> Response {
    match not_yet(message) {
        Some(what) => Problem::new(StatusCode::NOT_IMPLEMENTED, "Not implemented yet").detail(what),
        None => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "The handler panicked")
            .detail(message.to_owned()),
    }
    .into_response()
}

/// The text after "not yet implemented" if a panic came from `todo!()` or `unimplemented!()`.
fn not_yet(message: &str) -> Option<String> {
    let rest = message
        .strip_prefix("not yet implemented")
        .or_else(|| message.strip_prefix("not implemented"))?;
    let what = rest.trim_start_matches(':').trim();
    Some(if what.is_empty() {
        "todo!()".to_owned()
    } else {
        what.to_owned()
    })
}

fn message(panic: &dyn Any) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

static OUTPUTS: Mutex<Option<HashMap<u64, Output>>> = Mutex::new(None);

/// An instance's entry in the list that the panic hook looks up; removed when the instance ends.
struct Registered {
    id: u64,
}

impl Registered {
    fn new(output: Output) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut outputs = OUTPUTS.lock().unwrap_or_else(PoisonError::into_inner);
        outputs.get_or_insert_default().insert(id, output);
        Self { id }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut outputs = OUTPUTS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outputs) = outputs.as_mut() {
            outputs.remove(&self.id);
        }
    }
}

/// Panics inside instances go to the instance's output instead of the screen; all others are
/// shown as ever.
fn quieten_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let shown = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let current = std::thread::current();
            let Some(id) = current
                .name()
                .and_then(|name| name.strip_prefix(THREAD_NAME))
            else {
                return shown(panic);
            };
            let outputs = OUTPUTS.lock().unwrap_or_else(PoisonError::into_inner);
            let output = id
                .parse()
                .ok()
                .and_then(|id: u64| outputs.as_ref().and_then(|outputs| outputs.get(&id)));
            if let Some(output) = output {
                let place = panic
                    .location()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                output.push(&format!(
                    "panicked at {place}: {}",
                    message(panic.payload())
                ));
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_todo_is_told_from_every_other_panic() {
        assert_eq!(
            not_yet("not yet implemented: step 1"),
            Some("step 1".to_owned())
        );
        assert_eq!(not_yet("not yet implemented"), Some("todo!()".to_owned()));
        assert_eq!(not_yet("index out of bounds"), None);
        assert_eq!(
            panic_answer("not yet implemented: x").status(),
            StatusCode::NOT_IMPLEMENTED
        );
        assert_eq!(
            panic_answer("boom").status(),
            StatusCode::INTERNAL_SERVER_ERROR
        );
    }
}
