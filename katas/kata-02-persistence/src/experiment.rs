//! The experiment: the same transfers at once, without a transaction and with one; which anomaly each
//! isolation level lets through, measured on the PostgreSQL that is there; what locking and comparing
//! cost when few meet and when all do; and what a network that is cut leaves to choose.
//!
//! Nothing is arranged here, unlike in the checks: the clients meet by themselves, and every number
//! is a count of what happened.

use kata_lab::{
    BoxError, BoxFuture, Implementation, Judged, Lab, Pending, Stop,
    experiment::Stage,
    report::{Progress, Table},
};
use serde_json::json;

use crate::{
    cap, contention,
    isolation::{
        anomalies::ANOMALIES,
        cell::Cell,
        server::{Address, Level, Server},
        table::{self, Matrix},
    },
};

const ACCOUNTS: usize = 4;
const OPENED_WITH: i64 = 100_000;
const TRANSFERS: usize = 200;
const AT_ONCE: usize = 40;

/// What is run, and how the table calls it: the variant and the route.
const RUNS: [(&str, &str, &str); 2] = [
    ("reference", "/unsafe/transfers", "four statements"),
    ("reference", "/transfers", "one transaction"),
];

pub(crate) fn run(stage: Stage) -> BoxFuture<Result<(), BoxError>> {
    Box::pin(narrate(stage))
}

async fn narrate(stage: Stage) -> Result<(), BoxError> {
    transfers(&stage).await?;
    isolation(&stage).await?;
    contention::narrate(&stage).await?;
    cap::narrate(&stage).await
}

/// The same transfers at once, with and without a transaction.
async fn transfers(stage: &Stage) -> Result<(), BoxError> {
    let total = ACCOUNTS as i64 * OPENED_WITH;
    stage.say(format!(
        "{TRANSFERS} transfers between {ACCOUNTS} accounts with {OPENED_WITH} cents each, {AT_ONCE} at once. Whatever is moved, the total is {total} cents. First each transfer is two reads and two writes on their own, then one transaction."
    ));
    let progress = stage.progress((RUNS.len() + 1) * TRANSFERS, "transfers");
    let mut table = Table::new([
        "a transfer is",
        "done",
        "refused",
        "total",
        "lost or made up",
    ]);
    for (variant, route, title) in RUNS {
        progress.say(title);
        let tally = crowd(stage, &stage.variant(variant), route, &progress)
            .await
            .map_err(|stop| sentence(*stop))?;
        tally.row(&mut table, title);
    }
    progress.say("yours");
    let exercise = stage.variant(stage.session().kata().exercise().id);
    match crowd(stage, &exercise, "/transfers", &progress).await {
        Ok(tally) => tally.row(&mut table, "yours"),
        Err(stop) => match *stop {
            Stop::NotStarted(_) => {
                let steps = stage.session().kata().steps.len();
                table.remark("yours", format!("not started (step 1 of {steps})"));
            }
            other => table.remark("yours", sentence(other)),
        },
    }
    drop(progress);
    stage.table(&table);
    stage.say("Each of the four statements did what it said. What was missing is that they belong together: two transfers read the same balance, and the second to write forgot the first.");
    Ok(())
}

/// The cell whose script is shown: the one that surprises most people.
const SHOWN: (&str, Level) = ("write-skew", Level::RepeatableRead);

/// The matrix of anomalies and levels, and the script of one cell.
async fn isolation(stage: &Stage) -> Result<(), BoxError> {
    stage.say("A transaction is not enough either: it depends on its isolation level what two of them do to each other. Ten anomalies that the literature names, each played on real sessions, statement by statement:");
    let options = stage.session().grounds().postgres().admin_options();
    let server = Server::open(Address::Postgres(options)).await?;
    let progress = stage.progress(ANOMALIES.len() * server.levels().len(), "cells");
    let matrix = Matrix::measure(&server, || progress.step()).await?;
    drop(progress);
    stage.line(matrix.render(stage.columns()));
    let (id, level) = SHOWN;
    if let Some(anomaly) = ANOMALIES.iter().find(|anomaly| anomaly.id == id) {
        let cell = Cell::measure(&server, anomaly, level).await?;
        stage.line(table::cell(anomaly, level, &cell, stage.columns()).trim_end());
        stage.line("");
    }
    server.close().await?;
    stage.say("Neither wrote what the other wrote, so no lock stopped them; both wrote what the other had read. Any other cell, on any server: `-- anomaly lost-update --level read-committed`, `-- isolation --url mysql://…`.");
    Ok(())
}

pub(crate) fn sentence(stop: Stop) -> String {
    match stop {
        Stop::Failed { did, saw, .. } => format!("{did}: {saw}"),
        Stop::NotStarted(why) | Stop::Inconclusive(why) | Stop::NotRun(why) => why,
    }
}

/// What one way of moving money did to it.
struct Tally {
    done: usize,
    refused: usize,
    total: i64,
}

impl Tally {
    fn row(&self, table: &mut Table, title: &str) {
        let difference = self.total - ACCOUNTS as i64 * OPENED_WITH;
        table
            .row([
                title.to_owned(),
                self.done.to_string(),
                self.refused.to_string(),
                self.total.to_string(),
                format!("{difference:+}"),
            ])
            .bar(difference.abs() as f64);
    }
}

async fn crowd(
    stage: &Stage,
    implementation: &Implementation,
    route: &str,
    progress: &Progress,
) -> Judged<Tally> {
    let lab = stage.session().lab(implementation, "experiment").await?;
    let tally = move_all(&lab, route, progress).await;
    lab.close().await;
    tally
}

async fn move_all(lab: &Lab, route: &str, progress: &Progress) -> Judged<Tally> {
    let bank = lab.start().await?;
    let accounts: Vec<String> = (0..ACCOUNTS).map(|n| format!("account-{n}")).collect();
    for account in &accounts {
        let body = json!({ "account_id": account, "balance_cents": OPENED_WITH });
        bank.post("/accounts").json(&body).send().await?;
    }
    let mut tally = Tally {
        done: 0,
        refused: 0,
        total: 0,
    };
    for wave in 0..TRANSFERS / AT_ONCE {
        let mut pending: Vec<Pending> = Vec::new();
        for number in 0..AT_ONCE {
            let from = lab.pick(0..=ACCOUNTS as u64 - 1) as usize;
            let to = (from + 1 + lab.pick(0..=ACCOUNTS as u64 - 2) as usize) % ACCOUNTS;
            let body = json!({
                "transfer_id": format!("t-{wave}-{number}"),
                "from": accounts[from],
                "to": accounts[to],
                "amount_cents": lab.pick(1..=1_000),
            });
            pending.push(bank.post(route).json(&body).spawn());
        }
        for one in &mut pending {
            match one.attempted().await? {
                Ok(reply) if reply.status.is_success() => tally.done += 1,
                _ => tally.refused += 1,
            }
            progress.step();
        }
    }
    for account in &accounts {
        let reply = bank.get(format!("/accounts/{account}")).send().await?;
        let body = reply.json().unwrap_or_default();
        tally.total += body["balance_cents"].as_i64().unwrap_or_default();
    }
    Ok(tally)
}
