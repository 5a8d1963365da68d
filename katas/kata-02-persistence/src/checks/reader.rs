//! A reader of balances: from the primary and from its replica, and what it may conclude.

use std::time::{Duration, Instant};

use http::StatusCode;
use kata_lab::{Instance, Judged, Lab, NoAnswer, Promise, Replica, Reply, Stop};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

use super::bank::{Transfer, open, unreadable};

/// What the first account is opened with.
pub(super) const OPENED_WITH: i64 = 100_000;

/// What each transfer moves.
const MOVED: i64 = 700;

/// The contract says 5 s for what has to be answered, or to work again, while something is cut
/// off. A program that keeps to it is not failed by a machine that is four times slower.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The clocks of the lab, of the program and of two servers, rounded to milliseconds, may differ by
/// so much.
const CLOCKS_MS: f64 = 25.0;

/// A program with two accounts, and its replica, which has both.
pub(super) struct Scene {
    pub(super) lab: Lab,
    pub(super) program: Instance,
    pub(super) replica: Replica,
    /// The account that is read.
    pub(super) account: String,
    /// Where its money goes.
    other: String,
}

/// Which balance is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    Plain,
    Strong,
    Eventual,
}

/// A change that the program has answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    /// The balance since then.
    pub(super) balance_cents: i64,
    /// When the answer was there, so that it was committed by then.
    pub(super) by: Instant,
}

/// What an eventual read says.
#[derive(Debug)]
pub(super) struct Balance {
    pub(super) cents: i64,
    pub(super) staleness: Staleness,
    /// When it was asked.
    asked: Instant,
    reply: Reply,
}

/// How far behind it says that it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Staleness {
    Ms(f64),
    /// `null`.
    Unknown,
    /// It says nothing, or nothing that can be understood.
    Unsaid,
}

impl Scene {
    /// Starts the program and opens the accounts, and reads in each of the ways once.
    pub(super) async fn open(lab: Lab) -> Judged<Self> {
        let program = lab.start().await?;
        let account = open(&lab, &program, OPENED_WITH).await?;
        let other = open(&lab, &program, 0).await?;
        let replica = lab.replica();
        replica.caught_up().await?;
        let scene = Self {
            lab,
            program,
            replica,
            account,
            other,
        };
        // So that nothing is opened for the first time later. What is answered is for other checks.
        for read in [Read::Plain, Read::Strong, Read::Eventual] {
            let _ = scene.read(read).await?;
        }
        Ok(scene)
    }

    /// Moves money out of the account that is read.
    pub(super) async fn change(&self, before: i64) -> Judged<Change> {
        let promise = Promise::new("moved money between two accounts", "a 2xx");
        let transfer = Transfer::new(&self.lab, &self.account, &self.other, MOVED);
        let answer = transfer.request(&self.program).attempt().await?;
        if let Some(saw) = transfer.not_done_by(&answer) {
            return promise.broken(saw);
        }
        Ok(Change {
            balance_cents: before - MOVED,
            by: Instant::now(),
        })
    }

    /// Insists that the primary has a balance and the replica another one: what the check is about.
    pub(super) async fn is_parted(&self, primary: i64, replica: i64) -> Judged {
        let there = self.row(self.lab.admin()).await?;
        let here = self.row(self.replica.reader()).await?;
        if (there, here) != (Some(primary), Some(replica)) {
            return Stop::inconclusive(format!(
                "the primary has {there:?} and the replica {here:?}, not {primary} and {replica}"
            ));
        }
        self.lab.note(format!(
            "the primary has {primary}, the replica still {replica}"
        ));
        Ok(())
    }

    async fn row(&self, server: &PgPool) -> Judged<Option<i64>> {
        let sql = format!(
            "select balance_cents from {}.accounts where account_id = $1",
            self.lab.schema()
        );
        let read = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(&self.account)
            .fetch_optional(server)
            .await;
        read.or_else(unreadable)
    }

    /// One read, whatever comes of it.
    pub(super) async fn read(&self, read: Read) -> Judged<Result<Reply, NoAnswer>> {
        self.program.get(read.path(&self.account)).attempt().await
    }

    /// One read that has to be answered while something is cut off. A program that is waited for in
    /// vain is failed; on a machine on which all it does takes long, that says nothing.
    pub(super) async fn read_in_time(&self, read: Read, promise: &Promise) -> Judged<Reply> {
        let health = Instant::now();
        let _ = self.program.get("/health").quietly().send().await?;
        // Nothing is cut off that this needs, and it takes a millisecond or two.
        let patience = PATIENCE.max(health.elapsed() * 100);
        match tokio::time::timeout(patience, self.read(read)).await {
            Ok(answer) => match answer? {
                Ok(reply) => Ok(reply),
                Err(silence) => promise.broken(silence.to_string()),
            },
            Err(_) => promise.broken(format!("no answer in {} s", patience.as_secs())),
        }
    }

    /// An eventual read that has to be answered.
    pub(super) async fn eventual(&self, promise: &Promise) -> Judged<Balance> {
        let asked = Instant::now();
        let reply = self.read_in_time(Read::Eventual, promise).await?;
        Balance::of(reply, asked, promise)
    }
}

impl Read {
    pub(super) fn path(self, account: &str) -> String {
        let query = match self {
            Read::Plain => "",
            Read::Strong => "?read=strong",
            Read::Eventual => "?read=eventual",
        };
        format!("/accounts/{account}{query}")
    }
}

impl Balance {
    /// What a reply says, if it is a balance.
    fn of(reply: Reply, asked: Instant, promise: &Promise) -> Judged<Self> {
        let body = reply.json().unwrap_or_default();
        let cents = body["balance_cents"].as_i64();
        let staleness = match body.get("staleness_ms") {
            Some(Value::Null) => Staleness::Unknown,
            Some(value) => match value.as_f64().filter(|ms| *ms >= 0.0) {
                Some(ms) => Staleness::Ms(ms),
                None => Staleness::Unsaid,
            },
            None => Staleness::Unsaid,
        };
        match (reply.status, cents) {
            (StatusCode::OK, Some(cents)) => Ok(Self {
                cents,
                staleness,
                asked,
                reply,
            }),
            _ => promise.broken(reply.to_string()),
        }
    }

    /// For how long at least a change had been committed when this was asked.
    pub(super) fn lacks_for(&self, oldest: Change) -> Duration {
        self.asked.saturating_duration_since(oldest.by)
    }

    /// Whether it says less than is true, given that it lacks this change.
    pub(super) fn says_too_little(&self, oldest: Change) -> bool {
        let at_least_ms = self.lacks_for(oldest).as_secs_f64() * 1_000.0 - CLOCKS_MS;
        match self.staleness {
            Staleness::Ms(said_ms) => said_ms == 0.0 || said_ms < at_least_ms,
            Staleness::Unknown | Staleness::Unsaid => false,
        }
    }

    pub(super) fn told(&self) -> String {
        self.reply.to_string()
    }
}

/// Whether it is 200 with this balance.
pub(super) fn shows(answer: &Result<Reply, NoAnswer>, balance_cents: i64) -> bool {
    let Ok(reply) = answer else { return false };
    let body = reply.json().unwrap_or_default();
    reply.status == StatusCode::OK && body["balance_cents"].as_i64() == Some(balance_cents)
}
