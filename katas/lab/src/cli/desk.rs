//! The desk of an open environment: where `check --url` hands in what to judge.
//!
//! `env` holds the fakes and the database proxy in its own process, and a check has to see and to
//! steer them. So a check of a running program runs there, and its outcomes come back as lines of
//! JSON. The desk listens on loopback; whoever can read the small file below `target/` may use it.

use std::{convert::Infallible, net::SocketAddr, ops::Range, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};

use super::{
    context::{Context, Ran, Refusal},
    judging::{self, Judged, not_up},
    memory::Memory,
};
use crate::{
    client::{http, root_cause},
    implementation::Implementation,
    kata::Check,
    place::Place,
    report::{Progress, Record, Screen},
    runner::Session,
};

/// Where an open environment is remembered.
const OPEN: &str = "env";

/// How long the desk may take to say that it is there.
const ALIVE: Duration = Duration::from_secs(3);

/// An open environment, as the file below `target/` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    address: SocketAddr,
    token: String,
    pid: u32,
}

/// What is to be judged.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ask {
    address: SocketAddr,
    checks: Vec<String>,
    first_seed: u64,
    end_seed: u64,
    start_timeout_s: u64,
}

/// A line of the answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Outcome {
        seed: u64,
        record: Record,
    },
    Refused {
        message: String,
        output: Vec<String>,
    },
    Done,
}

/// The desk. Dropping it takes the file away.
pub(super) struct Desk {
    memory: Memory,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.memory.forget(OPEN);
        self.server.abort();
    }
}

struct Clerk {
    context: Context,
    session: Session,
    place: Arc<Place>,
    token: String,
    // One at a time: two would see each other's calls at the fakes.
    turn: Arc<Semaphore>,
}

impl Desk {
    /// Opens the desk and leaves word where it is.
    pub(super) async fn open(context: &Context, session: Session, place: Arc<Place>) -> Ran<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let open = Open {
            address: listener.local_addr()?,
            token: format!("{:032x}", rand::random::<u128>()),
            pid: std::process::id(),
        };
        let clerk = Arc::new(Clerk {
            context: context.clone(),
            session,
            place,
            token: open.token.clone(),
            turn: Arc::new(Semaphore::new(1)),
        });
        let router = Router::new()
            .route("/alive", get(alive))
            .route("/judge", post(judge))
            .with_state(clerk);
        let server = tokio::spawn(async move {
            // It ends with the process; a failure to accept shows at the other end.
            let _ = axum::serve(listener, router).await;
        });
        let memory = Memory::of(context.kata.name);
        memory.remember(OPEN, &open).map_err(|error| {
            Refusal::new(format!(
                "`check --url` could not find this environment: a small file below {} cannot be written: {error}.\n\
                 Set CARGO_TARGET_DIR to a folder that you may write to.",
                shared::services::target_folder().display()
            ))
        })?;
        Ok(Self { memory, server })
    }
}

/// Refuses to open a second environment: `check --url` would not know which one is meant.
pub(super) async fn refuse_second(context: &Context) -> Ran<()> {
    match find(context).await {
        Some(open) => Err(Refusal::new(format!(
            "An environment for {} is open already, in process {}.\nUse that one, or end it first (Ctrl-C in its terminal).",
            context.kata.name, open.pid
        ))),
        None => Ok(()),
    }
}

/// The open environment. Word of one that is gone is taken away.
async fn find(context: &Context) -> Option<Open> {
    let memory = Memory::of(context.kata.name);
    let open: Open = memory.recall(OPEN)?;
    let asked = http()
        .get(format!("http://{}/alive", open.address))
        .bearer_auth(&open.token);
    match asked.timeout(ALIVE).send().await {
        Ok(answer) if answer.status() == StatusCode::NO_CONTENT => Some(open),
        _ => {
            memory.forget(OPEN);
            None
        }
    }
}

fn is_welcome(clerk: &Clerk, headers: &HeaderMap) -> bool {
    let given = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    given.and_then(|given| given.strip_prefix("Bearer ")) == Some(&clerk.token)
}

async fn alive(State(clerk): State<Arc<Clerk>>, headers: HeaderMap) -> StatusCode {
    match is_welcome(&clerk, &headers) {
        true => StatusCode::NO_CONTENT,
        false => StatusCode::UNAUTHORIZED,
    }
}

async fn judge(State(clerk): State<Arc<Clerk>>, headers: HeaderMap, body: Bytes) -> Response {
    if !is_welcome(&clerk, &headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let Ok(ask) = serde_json::from_slice::<Ask>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let Ok(turn) = clerk.turn.clone().try_acquire_owned() else {
        return StatusCode::CONFLICT.into_response();
    };
    let (tell, told) = mpsc::channel::<Line>(16);
    tokio::spawn(async move {
        let _turn = turn;
        tokio::select! {
            () = answer(&clerk, ask, &tell) => {}
            // Whoever asked has hung up: the checks end with the future above.
            () = tell.closed() => {}
        }
        clerk.place.reset().await;
    });
    let lines = stream::unfold(told, |mut told| async {
        let line = told.recv().await?;
        let mut text = serde_json::to_vec(&line).unwrap_or_default();
        text.push(b'\n');
        Some((Ok::<_, Infallible>(Bytes::from(text)), told))
    });
    Body::from_stream(lines).into_response()
}

async fn answer(clerk: &Clerk, ask: Ask, tell: &mpsc::Sender<Line>) {
    let implementation = Implementation::Url {
        address: ask.address,
    };
    let up = clerk.session.preflight(&implementation).await;
    if let Err(preflight) = up {
        let timeout = Duration::from_secs(ask.start_timeout_s);
        let Refusal { message, output } =
            not_up(&implementation, preflight, timeout, &clerk.context);
        let _ = tell.send(Line::Refused { message, output }).await;
        return;
    }
    let all = clerk.session.kata().checks();
    let checks: Vec<_> = all
        .filter(|(_, check)| ask.checks.iter().any(|name| name == check.name))
        .map(|(step, check)| (step, check.clone()))
        .collect();
    if checks.len() != ask.checks.len() {
        let message = "The environment was opened by another version of this kata: end it (Ctrl-C) and open it again.";
        let _ = tell
            .send(Line::Refused {
                message: message.to_owned(),
                output: Vec::new(),
            })
            .await;
        return;
    }
    let unseen = Screen::memory(80).progress(0, "");
    let seeds = ask.first_seed..ask.end_seed;
    let mut outcomes = std::pin::pin!(judging::outcomes(
        &clerk.session,
        &implementation,
        checks,
        seeds,
        &unseen
    ));
    while let Some((seed, record)) = outcomes.next().await {
        if tell.send(Line::Outcome { seed, record }).await.is_err() {
            return;
        }
    }
    let _ = tell.send(Line::Done).await;
}

/// The other end: a `check --url` that found an open environment.
pub(super) struct Client {
    open: Open,
    address: SocketAddr,
    start_timeout_s: u64,
}

impl Client {
    /// Finds the open environment and the program to judge.
    pub(super) async fn connect(context: &Context, url: &str, start_timeout_s: u64) -> Ran<Self> {
        let Some(open) = find(context).await else {
            return Err(Refusal::new(format!(
                "No environment is open for {}.\nOpen one, and start your program with the variables that it prints:\n  {}\n\
                 Or let the lab start your program, which can judge more:\n  {}",
                context.kata.name,
                context.command("env"),
                context.command("check --cmd \"…\""),
            )));
        };
        let address = resolve(url).await?;
        Ok(Self {
            open,
            address,
            start_timeout_s,
        })
    }

    /// Has it judged there.
    pub(super) fn judge<'a>(
        &'a self,
        checks: Vec<(usize, Check)>,
        seeds: Range<u64>,
        progress: &'a Progress,
    ) -> impl Stream<Item = Judged> + Send + 'a {
        let ask = Ask {
            address: self.address,
            checks: checks
                .iter()
                .map(|(_, check)| check.name.to_owned())
                .collect(),
            first_seed: seeds.start,
            end_seed: seeds.end,
            start_timeout_s: self.start_timeout_s,
        };
        let answer = async move {
            let asked = http()
                .post(format!("http://{}/judge", self.open.address))
                .bearer_auth(&self.open.token)
                .json(&ask);
            let answer = asked
                .send()
                .await
                .map_err(|error| gone(&root_cause(&error)))?;
            match answer.status() {
                StatusCode::OK => Ok(answer),
                StatusCode::CONFLICT => Err(Refusal::new(
                    "Another `check --url` is running in this environment: wait for it, or end it.",
                )),
                status => Err(gone(&format!("it answered {status}"))),
            }
        };
        stream::once(answer).flat_map(move |answer| match answer {
            Ok(answer) => lines(answer, progress).left_stream(),
            Err(refusal) => stream::once(async { Err(refusal) }).right_stream(),
        })
    }
}

/// The lines of an answer as they come, up to the one that says that it is complete.
fn lines(answer: reqwest::Response, progress: &Progress) -> impl Stream<Item = Judged> + Send + '_ {
    let state = Some((answer, Vec::<u8>::new()));
    stream::unfold(state, move |state| async move {
        let (mut answer, mut rest) = state?;
        loop {
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                return match serde_json::from_slice(&line) {
                    Ok(Line::Outcome { seed, record }) => {
                        progress.step();
                        Some((Ok((seed, record)), Some((answer, rest))))
                    }
                    Ok(Line::Done) => None,
                    Ok(Line::Refused { message, output }) => {
                        Some((Err(Refusal { message, output }), None))
                    }
                    Err(error) => Some((Err(gone(&error.to_string())), None)),
                };
            }
            match answer.chunk().await {
                Ok(Some(piece)) => rest.extend_from_slice(&piece),
                Ok(None) => return Some((Err(gone("it ended in the middle")), None)),
                Err(error) => return Some((Err(gone(&root_cause(&error))), None)),
            }
        }
    })
}

fn gone(why: &str) -> Refusal {
    Refusal::new(format!(
        "The open environment stopped answering while it judged ({why}).\nOpen it again, start your program with its variables, and repeat."
    ))
}

/// The address behind a URL, at which somebody accepts connections.
async fn resolve(text: &str) -> Ran<SocketAddr> {
    let wrong = |why: &str| {
        Refusal::new(format!(
            "--url {text:?} {why}.\nIt looks like http://127.0.0.1:3000, without a path: the lab adds the routes."
        ))
    };
    let url =
        reqwest::Url::parse(text).map_err(|error| wrong(&format!("is no address ({error})")))?;
    if url.scheme() != "http" {
        return Err(wrong("is not plain http"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("has more than host and port"));
    }
    let host = url.host_str().ok_or_else(|| wrong("names no host"))?;
    let port = url
        .port_or_known_default()
        .ok_or_else(|| wrong("names no port"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut last = "it has no address".to_owned();
    let addresses = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| wrong(&format!("names a host that is not known ({error})")))?;
    for address in addresses {
        let connect = tokio::net::TcpStream::connect(address);
        match tokio::time::timeout(Duration::from_secs(10), connect).await {
            Ok(Ok(_)) => return Ok(address),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => last = "no answer".to_owned(),
        }
    }
    Err(Refusal::new(format!(
        "Nothing can be reached at {text}: {last}.\nStart your program with the variables that `env` printed, or correct the address."
    )))
}
