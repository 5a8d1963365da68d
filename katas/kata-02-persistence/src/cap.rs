//! The choice that a network leaves: primary and replica are cut apart, and clients go on writing
//! and reading.
//!
//! With asynchronous commit the primary answers writes that the replica lacks: available, and not
//! consistent. With synchronous commit it answers none of them until the two are joined again:
//! consistent, and not available. Everything that is shown is counted while it happens.

use std::time::{Duration, Instant};

use kata_lab::{
    BoxError, Event, Instance, Judged, Lab, Pending, Stop, experiment::Stage, report::Table,
};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool};

use crate::experiment::sentence;

/// Each moves money between two accounts of its own, so that nobody waits for anybody else.
const CLIENTS: usize = 8;

const OPENED_WITH: i64 = 10_000;
const MOVED: i64 = 2_500;

/// A state that nothing notifies of is waited for so long: a machine may be very busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// When a commit is answered, and what the lesson calls that.
#[derive(Clone, Copy, PartialEq)]
enum Commit {
    Asynchronous,
    Synchronous,
}

/// What was counted in one scene.
#[derive(Debug, Default)]
struct Tally {
    /// Transfers that were answered while the two were apart.
    answered: usize,
    /// Transfers that the server says wait for the replica.
    waiting: usize,
    /// Answered, and not on the replica: lost, if the primary never came back.
    at_risk: usize,
    /// Eventual reads with an answer, those of them that lacked an answered transfer, and those of
    /// these that did not claim to be complete.
    read: usize,
    stale: usize,
    admitted: usize,
    largest_staleness_ms: f64,
    /// Transfers that were answered only after the two were joined.
    answered_late: usize,
    /// From joining them to the replica having all.
    whole_again: Duration,
    /// Balances that are not the same on both servers in the end.
    different: usize,
}

/// Plays both scenes, and shows a table and the timeline of the second.
///
/// # Errors
/// If there is no replica to be had, or the servers do not play along.
pub(crate) async fn narrate(stage: &Stage) -> Result<(), BoxError> {
    stage.say(format!(
        "CAP. A primary, its streaming replica, and {CLIENTS} clients of the reference. The two servers are cut apart, each client moves {MOVED} cents and then reads its balance with read=eventual, and the two are joined again. Once a commit is answered when the primary has it, once when the replica has it too."
    ));
    let progress = stage.progress(2 * CLIENTS, "transfers over a cut network");
    let mut table = Table::new([
        "commit",
        "answered",
        "waiting",
        "at risk",
        "reads",
        "stale",
        "behind",
        "answered later",
    ]);
    let mut story = Vec::new();
    let mut tallies = Vec::new();
    for commit in [Commit::Asynchronous, Commit::Synchronous] {
        let (tally, events) = play(stage, commit).await.map_err(|stop| sentence(*stop))?;
        (0..CLIENTS).for_each(|_| progress.step());
        table.row(tally.cells(commit));
        story = events;
        tallies.push(tally);
    }
    drop(progress);
    stage.table(&table);
    if let [asynchronous, synchronous] = tallies.as_slice() {
        stage.say(asynchronous.moral(Commit::Asynchronous));
        stage.say(synchronous.moral(Commit::Synchronous));
    }
    stage.say("The second one, as it happened:");
    stage.timeline(&story);
    Ok(())
}

impl Commit {
    fn title(self) -> &'static str {
        match self {
            Self::Asynchronous => "asynchronous (AP)",
            Self::Synchronous => "synchronous (CP)",
        }
    }
}

impl Tally {
    fn cells(&self, commit: Commit) -> [String; 8] {
        [
            commit.title().to_owned(),
            self.answered.to_string(),
            self.waiting.to_string(),
            self.at_risk.to_string(),
            self.read.to_string(),
            self.stale.to_string(),
            format!("{:.0} ms", self.largest_staleness_ms),
            self.answered_late.to_string(),
        ]
    }

    fn moral(&self, commit: Commit) -> String {
        let whole = format!(
            "{} ms after they were joined the replica had all, and {} of {} balances differed",
            self.whole_again.as_millis(),
            self.different,
            2 * CLIENTS
        );
        match commit {
            Commit::Asynchronous => format!(
                "Asynchronous: {} of {CLIENTS} transfers were answered although the network was cut. {} of {} reads were old, and {} of these said so. {} answered transfers were on the primary alone: had it been lost then, so would they. {whole}.",
                self.answered, self.stale, self.read, self.admitted, self.at_risk
            ),
            Commit::Synchronous => format!(
                "Synchronous: {} of {CLIENTS} transfers were answered and {} waited, so {} that were answered could be lost. {} were answered when the network was whole again: {whole}. A client that had given up in between would not have known that its transfer was in the primary's log all the time.",
                self.answered, self.waiting, self.at_risk, self.answered_late
            ),
        }
    }
}

async fn play(stage: &Stage, commit: Commit) -> Judged<(Tally, Vec<Event>)> {
    let reference = stage.variant("reference");
    let session = stage.session();
    let lab = session.lab_with_replica(&reference, "cap").await?;
    let tally = scene(&lab, commit).await;
    let events = lab.history().events();
    lab.close().await;
    Ok((tally?, events))
}

async fn scene(lab: &Lab, commit: Commit) -> Judged<Tally> {
    let bank = lab.start().await?;
    for client in 0..CLIENTS {
        for account in [from(client), to(client)] {
            let body = json!({ "account_id": account, "balance_cents": OPENED_WITH });
            bank.post("/accounts").json(&body).quietly().send().await?;
        }
    }
    let replica = lab.replica();
    if commit == Commit::Synchronous {
        replica.synchronous(true).await?;
    }
    replica.caught_up().await?;
    let begins = lab.history().mark();
    replica.cut().await?;
    lab.history().forget_before(begins);

    let mut tally = Tally::default();
    let mut transfers: Vec<Pending> = (0..CLIENTS).map(|n| transfer(&bank, n)).collect();
    tally.waiting = all_answered_or_waiting(lab, &transfers).await?;
    let mut answered = [false; CLIENTS];
    for (transfer, answered) in transfers.iter_mut().zip(&mut answered) {
        *answered = transfer.is_answered() && is_done(transfer).await?;
    }
    tally.answered = answered.iter().filter(|answered| **answered).count();
    lab.note(format!(
        "{} of {CLIENTS} transfers are answered, {} wait for the replica",
        tally.answered, tally.waiting
    ));
    let there = balances(lab, replica.reader()).await?;
    for (client, is_answered) in answered.into_iter().enumerate() {
        let lacks = there.get(client) == Some(&OPENED_WITH);
        tally.at_risk += usize::from(is_answered && lacks);
        read(&bank, client, is_answered, &mut tally).await?;
    }

    let joined = Instant::now();
    replica.heal().await?;
    for (transfer, answered) in transfers.iter_mut().zip(answered) {
        tally.answered_late += usize::from(!answered && is_done(transfer).await?);
    }
    replica.caught_up().await?;
    tally.whole_again = joined.elapsed();
    lab.note("the replica has all that the primary has");
    let here = balances(lab, lab.admin()).await?;
    let there = balances(lab, replica.reader()).await?;
    tally.different = here.iter().zip(&there).filter(|(a, b)| a != b).count();
    Ok(tally)
}

fn from(client: usize) -> String {
    format!("from-{client}")
}

fn to(client: usize) -> String {
    format!("to-{client}")
}

fn transfer(bank: &Instance, client: usize) -> Pending {
    let body = json!({
        "transfer_id": format!("move-{client}"),
        "from": from(client),
        "to": to(client),
        "amount_cents": MOVED,
    });
    let request = bank.post("/transfers").json(&body);
    request
        .actor(format!("client {client}"))
        .shown(format!("{MOVED} cents"))
        .spawn()
}

async fn is_done(transfer: &mut Pending) -> Judged<bool> {
    let answer = transfer.attempted().await?;
    Ok(answer.is_ok_and(|reply| reply.status.is_success()))
}

/// Waits until each transfer is answered or, as the server says, waits for the replica. How many
/// wait.
async fn all_answered_or_waiting(lab: &Lab, transfers: &[Pending]) -> Judged<usize> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let sql = "select count(*) from pg_stat_activity
             where usename = $1 and wait_event = 'SyncRep'";
        let asked = sqlx::query_scalar(sql).bind(lab.schema());
        let waiting: i64 = asked.fetch_one(lab.admin()).await.or_else(unreadable)?;
        let waiting = usize::try_from(waiting).unwrap_or_default();
        let answered = transfers.iter().filter(|one| one.is_answered()).count();
        if answered + waiting == transfers.len() {
            return Ok(waiting);
        }
        if Instant::now() > deadline {
            return Stop::inconclusive("some transfers neither end nor wait for the replica");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An eventual read by a client, whose transfer was answered or not.
async fn read(bank: &Instance, client: usize, is_answered: bool, tally: &mut Tally) -> Judged {
    let request = bank.get(format!("/accounts/{}?read=eventual", from(client)));
    // The others say the same.
    let request = match client {
        0 => request.actor("client 0"),
        _ => request.quietly(),
    };
    let Ok(reply) = request.attempt().await? else {
        return Ok(());
    };
    let body = reply.json().unwrap_or_default();
    let Some(cents) = body["balance_cents"].as_i64() else {
        return Ok(());
    };
    let staleness_ms = body["staleness_ms"].as_f64();
    let is_stale = is_answered && cents == OPENED_WITH;
    tally.read += 1;
    tally.stale += usize::from(is_stale);
    tally.admitted += usize::from(is_stale && staleness_ms != Some(0.0));
    tally.largest_staleness_ms = staleness_ms
        .unwrap_or_default()
        .max(tally.largest_staleness_ms);
    Ok(())
}

/// All balances of one server: first those that money was taken from, in the clients' order.
async fn balances(lab: &Lab, server: &PgPool) -> Judged<Vec<i64>> {
    let sql = format!(
        "select balance_cents from {}.accounts order by account_id",
        lab.schema()
    );
    let asked = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(server);
    asked.await.or_else(unreadable)
}

fn unreadable<T>(error: sqlx::Error) -> Judged<T> {
    Stop::inconclusive(format!("a server cannot be asked: {error}"))
}
