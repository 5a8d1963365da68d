//! The smallest kata: it shows how one is put together, and the lab's own tests drive it.
//!
//! A turnstile counts people whose tickets are approved. The same ticket counts once, also when it
//! is shown many times at once. What a learner and a shell would do is played by variables:
//!
//! - `TURNSTILE_EXERCISE`: `1` and `2` for a learner who has done so many steps, `broken` for one
//!   whose second step is wrong, `ends` for one whose code does not even start;
//! - `TURNSTILE_LIES`: the map declares a failure that does not happen;
//! - `TURNSTILE_AS`: `tests` for the runner of `cargo test`, `program` for an implementation in
//!   some other language, which listens on `PORT`;
//! - `TURNSTILE_NAME`: another name, so that tests do not share what a kata remembers.

use std::{
    collections::HashSet,
    pin::pin,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use kata_lab::{
    App, BoxError, BoxFuture, Env, Given, Instance, Judged, Kata, Kind, Lab, Promise, Step,
    Variant, check, experiment::Stage, report::Table,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// How many come at once.
const CROWD: usize = 20;

fn main() -> ExitCode {
    match std::env::var("TURNSTILE_AS").as_deref() {
        Ok("tests") => kata_lab::testing::main(kata()),
        Ok("program") => program(),
        _ => kata_lab::cli::main(kata()),
    }
}

/// What `--cmd` and `--url` are pointed at.
#[tokio::main]
async fn program() -> ExitCode {
    let port = std::env::var("PORT").expect("the lab gives a port");
    let approval_url = std::env::var("APPROVAL_URL").expect("the lab gives approvals");
    let way = match std::env::var("TURNSTILE_EXERCISE").as_deref() {
        Ok("broken") => Way::CheckThenAct,
        _ => Way::Insert,
    };
    println!("a turnstile on port {port}");
    let routes = routes(way, approval_url)
        .expect("an HTTP client")
        .route("/health", get(async || StatusCode::OK));
    let listener = TcpListener::bind(format!("127.0.0.1:{port}"))
        .await
        .expect("a free port");
    axum::serve(listener, routes)
        .await
        .expect("a listener that works");
    ExitCode::SUCCESS
}

fn kata() -> Kata {
    let always_one: &[&str] = match std::env::var_os("TURNSTILE_LIES") {
        Some(_) => &["counts_every_ticket", "counts_a_ticket_once"],
        None => &["counts_every_ticket"],
    };
    Kata {
        name: std::env::var("TURNSTILE_NAME").map_or("kata-99-turnstile", |name| name.leak()),
        title: "turnstile",
        promise: "one ticket, one person",
        readme: "# Turnstile\n\n## The contract\n\n`POST /enter {ticket}` → 200 `{people}`, once `POST $APPROVAL_URL/approvals {sku, quantity: 1}` was answered with 204 for this ticket.\n\n## Next\n",
        readme_es: "# Torniquete\n\n## El contrato\n\n`POST /enter {ticket}` → 200 `{people}`, cuando `POST $APPROVAL_URL/approvals {sku, quantity: 1}` ha respondido 204 para este billete.\n",
        exercise_file: "katas/lab/examples/turnstile.rs",
        given: Given {
            database: true,
            payment_provider: true,
            approvals: true,
            variables: &[("TICKET_TTL_MS", 15_000)],
            ..Given::default()
        },
        labs_per_core: 4,
        steps: vec![
            Step {
                title: "Every ticket counts",
                hints: [
                    "Where does the number of people live?",
                    "A set of tickets knows how many there are.",
                    "Insert into a `HashSet` behind a mutex and answer its length.",
                ],
                checks: vec![check!(
                    counts_every_ticket,
                    "what does the answer to the first say?"
                )],
            },
            Step {
                title: "The same ticket counts once",
                hints: [
                    "What may happen between looking and writing?",
                    "Look and write under one lock.",
                    "`HashSet::insert` does both.",
                ],
                checks: vec![
                    check!(counts_a_ticket_once, "who remembers the ticket?"),
                    check!(
                        counts_once_under_concurrency,
                        "what stops request 2 between looking for the ticket and writing it?"
                    ),
                ],
            },
        ],
        variants: vec![
            Variant::new("reference", "reference", Kind::Reference, |env| {
                app(Way::Insert, env)
            }),
            Variant::new("waits", "waits", Kind::Alternative, |env| {
                app(Way::Waits, env)
            }),
            Variant::new(
                "check-then-act",
                "check then act",
                Kind::Flawed(&["counts_once_under_concurrency"]),
                |env| app(Way::CheckThenAct, env),
            ),
            Variant::new(
                "counts-calls",
                "counts calls",
                Kind::Flawed(&["counts_a_ticket_once", "counts_once_under_concurrency"]),
                |env| app(Way::CountsCalls, env),
            ),
            Variant::new(
                "always-one",
                "always one",
                Kind::Flawed(always_one),
                |env| app(Way::AlwaysOne, env),
            ),
            Variant::new("exercise", "yours", Kind::Exercise, exercise),
        ],
        curl: &["curl -s $URL/enter --json '{\"ticket\": \"a\"}'"],
        experiment,
        commands: &[],
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Insert,
    Waits,
    CheckThenAct,
    CountsCalls,
    AlwaysOne,
    NotStarted,
    FirstStep,
}

#[derive(Clone)]
struct Gate {
    way: Way,
    tickets: Arc<Mutex<(HashSet<String>, usize)>>,
    turn: Arc<tokio::sync::Mutex<()>>,
    http: reqwest::Client,
    approval_url: String,
}

async fn exercise(env: Env) -> Result<App, BoxError> {
    let done = std::env::var("TURNSTILE_EXERCISE").unwrap_or_default();
    let way = match done.as_str() {
        "1" => Way::FirstStep,
        "2" => Way::Insert,
        "broken" => Way::CheckThenAct,
        "ends" => return Err("the gate is locked".into()),
        _ => Way::NotStarted,
    };
    app(way, env).await
}

async fn app(way: Way, env: Env) -> Result<App, BoxError> {
    let approval_url = env.text("APPROVAL_URL")?.to_owned();
    Ok(App::new(routes(way, approval_url)?))
}

fn routes(way: Way, approval_url: String) -> Result<Router, BoxError> {
    let gate = Gate {
        way,
        tickets: Arc::default(),
        turn: Arc::default(),
        http: reqwest::Client::builder().no_proxy().build()?,
        approval_url,
    };
    Ok(Router::new().route("/enter", post(enter)).with_state(gate))
}

impl Gate {
    async fn approve(&self, ticket: &str) -> Result<(), StatusCode> {
        let approvals = format!("{}/approvals", self.approval_url);
        let order = json!({ "sku": ticket, "quantity": 1 });
        let answer = self.http.post(approvals).json(&order).send().await;
        match answer.map(|answer| answer.status()) {
            Ok(StatusCode::NO_CONTENT) => Ok(()),
            _ => Err(StatusCode::BAD_GATEWAY),
        }
    }
}

async fn enter(
    State(gate): State<Gate>,
    Json(body): Json<Value>,
) -> Result<Json<Value>, StatusCode> {
    let ticket = body["ticket"]
        .as_str()
        .ok_or(StatusCode::UNPROCESSABLE_ENTITY)?
        .to_owned();
    let state = || gate.tickets.lock().unwrap_or_else(PoisonError::into_inner);
    let known = state().0.contains(&ticket);
    match gate.way {
        Way::NotStarted => todo!("step 1: every ticket counts"),
        Way::FirstStep if known => todo!("step 2: the same ticket counts once"),
        _ if known => {}
        // While this waits, others look too.
        _ => gate.approve(&ticket).await?,
    }
    let _turn = match gate.way {
        Way::Waits => Some(gate.turn.lock().await),
        _ => None,
    };
    let mut state = state();
    let is_new = state.0.insert(ticket);
    state.1 += match gate.way {
        Way::CheckThenAct => usize::from(!known),
        Way::CountsCalls => 1,
        _ => usize::from(is_new),
    };
    let people = match gate.way {
        Way::AlwaysOne => 1,
        _ => state.1,
    };
    Ok(Json(json!({ "people": people })))
}

async fn people(gate: &Instance, actor: &str, ticket: &str) -> Judged<u64> {
    let sent = gate
        .post("/enter")
        .actor(actor)
        .shown(format!("ticket {ticket}"));
    let reply = sent.json(&json!({ "ticket": ticket })).send().await?;
    let people = reply.json().and_then(|body| body["people"].as_u64());
    match people {
        Some(people) => Ok(people),
        None => Promise::new("POST /enter", "200 and a number of people").broken(reply.to_string()),
    }
}

async fn counts_every_ticket(lab: Lab) -> Judged {
    let gate = lab.start().await?;
    let promise = Promise::new(
        "POST /enter with three tickets, one after the other",
        "people: 3",
    );
    let mut last = 0;
    for number in 1..=3 {
        last = people(&gate, &format!("request {number}"), &lab.id("ticket")).await?;
    }
    promise.holds(last == 3, format!("people: {last}"))
}

async fn counts_a_ticket_once(lab: Lab) -> Judged<String> {
    let gate = lab.start().await?;
    let ticket = lab.id("ticket");
    let promise = Promise::new(
        "POST /enter twice with the same ticket",
        "people: 1, both times",
    );
    let first = people(&gate, "request 1", &ticket).await?;
    let second = people(&gate, "request 2", &ticket).await?;
    promise.holds(first == second, format!("people: {first}, then {second}"))?;
    Ok("2 calls".to_owned())
}

/// So many show one ticket at once: nobody is let in before all of them have asked.
async fn crowd(lab: &Lab, gate: &Instance, actor: &str, ticket: &str) -> Judged {
    let trap = lab.approvals().trap_sku(ticket);
    let calls = (1..=CROWD).map(|n| {
        let actor = format!("{actor} {n}");
        async move { people(gate, &actor, ticket).await }
    });
    let mut calls = pin!(futures::future::try_join_all(calls));
    let all_ask = async {
        let mut asking = Vec::new();
        while asking.len() < CROWD {
            asking.push(trap.caught().await);
        }
    };
    tokio::select! {
        biased;
        () = all_ask => {}
        answers = &mut calls => {
            let promise = Promise::new(
                format!("{CROWD} × POST /enter with the same ticket at once; the approvals were held"),
                "none is answered before it is approved",
            );
            return promise.broken(format!("all were answered: people: {:?}", answers?));
        }
    }
    drop(trap);
    calls.await.map(|_| ())
}

async fn counts_once_under_concurrency(lab: Lab) -> Judged {
    let gate = lab.start().await?;
    let ticket = lab.id("ticket");
    crowd(&lab, &gate, "request", &ticket).await?;
    let last = people(&gate, "lab", &ticket).await?;
    let promise = Promise::new(
        format!(
            "{CROWD} × POST /enter with the same ticket at once; the approvals were held until all had asked; then once more"
        ),
        "people: 1",
    );
    promise.holds(last == 1, format!("people: {last}"))
}

fn experiment(stage: Stage) -> BoxFuture<Result<(), BoxError>> {
    Box::pin(async move {
        stage.say("Twenty people show one ticket at the same moment.");
        let mut table = Table::new(["variant", "people", "tickets"]);
        for (id, title) in [
            ("check-then-act", "check, then act"),
            ("reference", "reference"),
        ] {
            let lab = stage.session().lab(&stage.variant(id), "experiment").await;
            let lab = lab.map_err(|stop| format!("{stop:?}"))?;
            let count = async {
                let gate = lab.start().await?;
                crowd(&lab, &gate, "person", "a").await?;
                people(&gate, "lab", "a").await
            };
            let count = count.await.map_err(|stop| format!("{stop:?}"))?;
            table
                .row([title.to_owned(), count.to_string(), "1".to_owned()])
                .bar(count as f64);
            lab.close().await;
        }
        table.remark("yours", stage.standing().await.words());
        stage.table(&table);
        Ok(())
    })
}
