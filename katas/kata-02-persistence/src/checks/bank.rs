//! What a check does as a customer of the bank: accounts, transfers and payments with random ids,
//! and what is in the tables afterwards.
//!
//! "Moved" and "paid" are any 2xx with the right content here: a check insists on a detail only if
//! its name promises that detail. Otherwise one small flaw would fail half of the matrix.

use std::time::{Duration, Instant};

use http::StatusCode;
use kata_lab::{Instance, Judged, Lab, NoAnswer, Promise, Reply, Request, Stop};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

/// How long a customer goes on asking after a crash or a broken connection. A right program answers
/// at once; a slow machine only makes it later.
const PATIENCE: Duration = Duration::from_secs(60);

/// A customer's pause between two tries; nothing is concluded from it.
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// A transfer that a customer wants to make.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Transfer {
    pub(super) transfer_id: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) amount_cents: i64,
}

impl Transfer {
    /// A transfer that nobody has made before.
    pub(super) fn new(lab: &Lab, from: &str, to: &str, amount_cents: i64) -> Self {
        Self {
            transfer_id: lab.id("tr"),
            from: from.to_owned(),
            to: to.to_owned(),
            amount_cents,
        }
    }

    pub(super) fn body(&self) -> Value {
        json!({
            "transfer_id": self.transfer_id,
            "from": self.from,
            "to": self.to,
            "amount_cents": self.amount_cents,
        })
    }

    /// `POST /transfers`.
    pub(super) fn request(&self, at: &Instance) -> Request {
        self.request_to(at, "/transfers")
    }

    /// `POST /unsafe/transfers`.
    pub(super) fn unsafe_request(&self, at: &Instance) -> Request {
        self.request_to(at, "/unsafe/transfers")
    }

    fn request_to(&self, at: &Instance, path: &str) -> Request {
        let Self {
            from,
            to,
            amount_cents,
            ..
        } = self;
        at.post(path)
            .json(&self.body())
            .shown(format!("{amount_cents} from {from} to {to}"))
    }

    /// Why an answer does not say that the money was moved, if it does not.
    pub(super) fn not_done_by(&self, answer: &Result<Reply, NoAnswer>) -> Option<String> {
        not_said(answer, &self.body())
    }
}

/// A payment that a customer wants to make.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Payment {
    pub(super) payment_id: String,
    pub(super) account: String,
    pub(super) amount_cents: i64,
}

impl Payment {
    /// A payment that nobody has made before.
    pub(super) fn new(lab: &Lab, account: &str, amount_cents: i64) -> Self {
        Self {
            payment_id: lab.id("pay"),
            account: account.to_owned(),
            amount_cents,
        }
    }

    pub(super) fn body(&self) -> Value {
        json!({
            "payment_id": self.payment_id,
            "account": self.account,
            "amount_cents": self.amount_cents,
        })
    }

    /// `POST /payments`.
    pub(super) fn request(&self, at: &Instance) -> Request {
        at.post("/payments").json(&self.body()).shown(format!(
            "{}: {} from {}",
            self.payment_id, self.amount_cents, self.account
        ))
    }

    /// `GET /payments/{id}`.
    pub(super) fn look_up(&self, at: &Instance) -> Request {
        at.get(format!("/payments/{}", self.payment_id))
    }

    /// Why an answer does not say that this was paid, if it does not.
    pub(super) fn not_paid_by(&self, answer: &Result<Reply, NoAnswer>) -> Option<String> {
        not_said(answer, &self.body())
    }

    /// How many rows there are with its id.
    pub(super) async fn rows(&self, lab: &Lab) -> Judged<i64> {
        let sql = format!(
            "select count(*) from {}.payments where payment_id = $1",
            lab.schema()
        );
        let counted = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(&self.payment_id)
            .fetch_one(lab.admin())
            .await;
        counted.or_else(unreadable)
    }
}

/// Why an answer is not a 2xx with these members, if it is not. More members are allowed.
fn not_said(answer: &Result<Reply, NoAnswer>, members: &Value) -> Option<String> {
    let reply = match answer {
        Ok(reply) => reply,
        Err(silence) => return Some(silence.to_string()),
    };
    if !reply.status.is_success() {
        return Some(reply.to_string());
    }
    let body = reply.json().unwrap_or_default();
    let mut members = members.as_object()?.iter();
    let (name, value) = members.find(|(name, value)| body.get(name.as_str()) != Some(*value))?;
    Some(format!("{reply}, without {name} = {value}"))
}

/// Whether an answer says that the same request is running: 409 with `Retry-After`.
pub(super) fn says_wait(reply: &Reply) -> bool {
    reply.status == StatusCode::CONFLICT && reply.header("retry-after").is_some()
}

/// Opens an account through the program's own route.
pub(super) async fn open(lab: &Lab, at: &Instance, balance_cents: i64) -> Judged<String> {
    let id = lab.id("acct");
    let promise = Promise::new(
        format!("POST /accounts with {balance_cents} cents"),
        "a 2xx: the account is open",
    );
    let body = json!({ "account_id": id, "balance_cents": balance_cents });
    let reply = at.post("/accounts").json(&body).send().await?;
    promise.holds(reply.status.is_success(), reply.to_string())?;
    Ok(id)
}

/// The balance of an account as it is in the table.
pub(super) async fn balance(lab: &Lab, account: &str) -> Judged<i64> {
    let sql = format!(
        "select balance_cents from {}.accounts where account_id = $1",
        lab.schema()
    );
    let read = sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(account)
        .fetch_one(lab.admin())
        .await;
    read.or_else(unreadable)
}

/// The balances of some accounts, read in one statement and in the order given.
pub(super) async fn balances(lab: &Lab, accounts: &[&str]) -> Judged<Vec<i64>> {
    let sql = format!(
        "select coalesce(balance_cents, 0) from unnest($1::text[]) with ordinality as asked (id, n)
         left join {}.accounts on account_id = id order by n",
        lab.schema()
    );
    let read = sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(
            accounts
                .iter()
                .map(|id| (*id).to_owned())
                .collect::<Vec<_>>(),
        )
        .fetch_all(lab.admin())
        .await;
    read.or_else(unreadable)
}

pub(super) fn unreadable<T>(error: sqlx::Error) -> Judged<T> {
    Stop::inconclusive(format!("the tables cannot be read: {error}"))
}

/// The customer asks again and again until an answer is final: neither "still running" nor 429 nor
/// 5xx nor silence.
///
/// # Errors
/// The promise's failure if there is no final answer in a minute, however many tries were made.
pub(super) async fn until_final(
    lab: &Lab,
    promise: &Promise,
    ask: impl Fn() -> Request,
) -> Judged<Reply> {
    let began = Instant::now();
    let mut tries = 0;
    loop {
        tries += 1;
        let last = match ask().actor(format!("retry {tries}")).attempt().await? {
            Ok(reply) if is_final(&reply) => return Ok(reply),
            Ok(reply) => reply.to_string(),
            Err(silence) => silence.to_string(),
        };
        if began.elapsed() >= PATIENCE {
            return promise.broken(format!("{tries} tries in a minute; the last: {last}"));
        }
        lab.until(BETWEEN_TRIES, || std::future::ready(false)).await;
    }
}

fn is_final(reply: &Reply) -> bool {
    !(says_wait(reply)
        || reply.status == StatusCode::TOO_MANY_REQUESTS
        || reply.status.is_server_error())
}

/// A refusal of wrong input: 400, 415 or 422.
pub(super) fn refuses_input(reply: &Reply) -> bool {
    matches!(
        reply.status,
        StatusCode::BAD_REQUEST
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY
    )
}

/// A refusal because an id was used for something else: 409 or 422, and not "wait".
pub(super) fn refuses_reuse(reply: &Reply) -> bool {
    matches!(
        reply.status,
        StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY
    ) && !says_wait(reply)
}
