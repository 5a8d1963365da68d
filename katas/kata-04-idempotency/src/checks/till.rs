//! What a check does as a customer: payments with random ids, requests, and the waits that they
//! share.
//!
//! "Paid" is any 2xx with the right content here: a check insists on a detail only if its name
//! promises that detail. Otherwise one small flaw would fail half of the matrix.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use http::StatusCode;
use kata_lab::{
    Instance, Judged, Lab, Pending, Promise, Reply, Request, Stop,
    fakes::{Caught, Trap, payment_provider::GOOD_CARD},
};
use serde_json::{Value, json};

/// The lab's own slack on top of what the contract allows: a slow machine may make a check slow,
/// never wrong.
pub(super) const SLACK: Duration = Duration::from_secs(10);

/// The last resort of a wait whose condition a right implementation always meets.
pub(super) const LAST_RESORT: Duration = Duration::from_secs(60);

/// A wait between two retries of one customer. Short ones would keep the machine busy with answers
/// that are known beforehand: dozens of checks wait for a lease at the same time.
const BETWEEN_RETRIES: Duration = Duration::from_millis(300);

/// A payment that a customer wants to make, and the key under which they ask for it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Payment {
    pub(super) account: String,
    pub(super) key: String,
    pub(super) payment_id: String,
    pub(super) amount_cents: u64,
    pub(super) currency: String,
    pub(super) card: String,
}

impl Payment {
    /// A payment that nobody has made before.
    pub(super) fn new(lab: &Lab) -> Self {
        Self {
            account: lab.id("acct"),
            key: lab.id("key"),
            payment_id: lab.id("pay"),
            amount_cents: lab.pick(100..=99_999),
            currency: "EUR".to_owned(),
            card: GOOD_CARD.to_owned(),
        }
    }

    /// Another payment of the same account under the same key.
    pub(super) fn under_the_same_key(&self, lab: &Lab) -> Self {
        Self {
            account: self.account.clone(),
            key: self.key.clone(),
            ..Self::new(lab)
        }
    }

    /// The four bodies that differ from this one in one member each, with that member's name.
    pub(super) fn with_one_member_changed(&self, lab: &Lab) -> Vec<(&'static str, Self)> {
        let changed = |change: &dyn Fn(&mut Self)| {
            let mut other = self.clone();
            change(&mut other);
            other
        };
        let (payment_id, card) = (lab.id("pay"), lab.id("card"));
        vec![
            (
                "payment_id",
                changed(&|p| p.payment_id.clone_from(&payment_id)),
            ),
            ("amount_cents", changed(&|p| p.amount_cents += 1)),
            ("currency", changed(&|p| p.currency = "USD".to_owned())),
            ("card", changed(&|p| p.card.clone_from(&card))),
        ]
    }

    pub(super) fn body(&self) -> Value {
        json!({
            "payment_id": self.payment_id,
            "amount_cents": self.amount_cents,
            "currency": self.currency,
            "card": self.card,
        })
    }

    /// `POST /pay` with the bare form of the key.
    pub(super) fn request(&self, at: &Instance) -> Request {
        self.request_with_key(at, &self.key)
    }

    /// `POST /pay` with the header's value as given.
    pub(super) fn request_with_key(&self, at: &Instance, key: &str) -> Request {
        at.post("/pay")
            .bearer(&self.account)
            .header("idempotency-key", key)
            .json(&self.body())
            .shown(format!("key {key}  {}", self.payment_id))
    }

    /// `GET /payments/{id}` as the account given.
    pub(super) fn look_up(&self, at: &Instance, account: &str) -> Request {
        at.get(format!("/payments/{}", self.payment_id))
            .bearer(account)
            .shown(format!("as {account}"))
    }

    /// The message that asks for this payment.
    pub(super) fn message(&self, message_id: &str) -> Value {
        let mut message = self.body();
        message["message_id"] = json!(message_id);
        message["type"] = json!("payment.requested");
        message["account"] = json!(self.account);
        message
    }

    /// Why an answer does not say that this payment was made, if it does not.
    pub(super) fn not_paid_by(&self, lab: &Lab, reply: &Reply) -> Option<String> {
        if !reply.status.is_success() {
            return Some(reply.to_string());
        }
        if reply.text("payment_id").as_ref() != Some(&self.payment_id) {
            return Some(format!("{reply}, which is about another payment"));
        }
        let charge = reply.text("charge_id").unwrap_or_default();
        let charges = lab.provider().charges_for(&self.payment_id);
        if charges.iter().any(|real| real.charge_id == charge) {
            None
        } else {
            Some(format!("{reply}, a charge that the provider does not know"))
        }
    }

    /// How often the provider captured this payment, as a sentence.
    pub(super) fn captures(&self, lab: &Lab) -> (usize, String) {
        const SHOWN: usize = 3;
        let charges = lab.provider().charges_for(&self.payment_id);
        let ids: Vec<_> = charges
            .iter()
            .map(|charge| charge.charge_id.clone())
            .collect();
        let saw = match ids.len() {
            0 => "no charge".to_owned(),
            1 => format!("1 charge ({})", ids[0]),
            many if many > SHOWN => format!("{many} charges ({}, …)", ids[..SHOWN].join(", ")),
            many => format!("{many} charges ({})", ids.join(", ")),
        };
        (ids.len(), saw)
    }

    /// How often the provider was called for this payment.
    pub(super) fn calls(&self, lab: &Lab) -> usize {
        lab.provider().calls_for(&self.payment_id).len()
    }
}

/// Waits for a call to the provider.
///
/// # Errors
/// The promise's failure if none comes.
pub(super) async fn caught(trap: &Trap, promise: &Promise) -> Judged<Caught> {
    match tokio::time::timeout(LAST_RESORT, trap.caught()).await {
        Ok(caught) => Ok(caught),
        Err(_) => promise.broken("the provider was never called"),
    }
}

/// Waits for the first call to the provider, or for the end of the request that should cause it.
///
/// # Errors
/// The promise's failure if the request ends without a call.
pub(super) async fn caught_from(
    trap: &Trap,
    cause: &mut Pending,
    promise: &Promise,
) -> Judged<Caught> {
    tokio::select! {
        biased;
        caught = caught(trap, promise) => caught,
        answer = cause.attempted() => promise.broken(match answer? {
            Ok(reply) => format!("{reply}, and the provider was never called"),
            Err(silence) => format!("{silence}, and the provider was never called"),
        }),
    }
}

/// The customer asks again and again until an answer is final: neither 409 nor 5xx nor silence.
///
/// # Errors
/// As [`until`].
pub(super) async fn until_final(
    lab: &Lab,
    within: Duration,
    promise: &Promise,
    ask: impl Fn() -> Request,
) -> Judged<Reply> {
    let ask = |number| ask().actor(format!("retry {number}"));
    until(lab, within, promise, ask, |reply| is_final(reply.status)).await
}

/// Asks again and again until an answer is as wanted.
///
/// Refused for good is only who was refused when they asked after the time given, and at once. A
/// handler that needs longer than its lease may have lost it, on a machine that is busy enough.
///
/// # Errors
/// The promise's failure if no answer is as wanted within the time given; [`Stop::Inconclusive`]
/// if no other one after it came at once.
pub(super) async fn until(
    lab: &Lab,
    within: Duration,
    promise: &Promise,
    ask: impl Fn(u32) -> Request,
    is_wanted: impl Fn(&Reply) -> bool,
) -> Judged<Reply> {
    let lease = lab.millis("KEY_LEASE_MS");
    let began = Instant::now();
    let mut tries = 0;
    loop {
        tries += 1;
        let asked = Instant::now();
        let (last, is_fair) = match ask(tries).attempt().await? {
            Ok(reply) if is_wanted(&reply) => return Ok(reply),
            Ok(reply) => (reply.to_string(), asked.elapsed() < lease),
            Err(silence) => (silence.to_string(), true),
        };
        let seconds = began.elapsed().as_secs_f64();
        if asked - began >= within && is_fair {
            return promise.broken(format!("{tries} tries in {seconds:.1} s; the last: {last}"));
        }
        if began.elapsed() >= within + LAST_RESORT {
            return Stop::inconclusive(format!(
                "{tries} tries in {seconds:.1} s, and none was answered within a lease of {} ms: \
                 the machine is too busy for this check",
                lease.as_millis()
            ));
        }
        pause(lab).await;
    }
}

fn is_final(status: StatusCode) -> bool {
    !(status == StatusCode::CONFLICT
        || status == StatusCode::TOO_MANY_REQUESTS
        || status.is_server_error())
}

/// A customer's short pause between two tries; nothing is concluded from it.
pub(super) async fn pause(lab: &Lab) {
    let never = || std::future::ready(false);
    lab.until(BETWEEN_RETRIES, never).await;
}

/// How long a retry may take until it gets through: the lease, and the lab's slack.
pub(super) fn lease_and_slack(lab: &Lab) -> Duration {
    lab.millis("KEY_LEASE_MS") + SLACK
}

/// Gives the program every chance to act on requests that it has, before something held is let go:
/// until `enough` (they are all answered, or another call has come), else for a second *and* as
/// long as it takes to answer a row of other requests, which queue behind them for the processor
/// and for database connections. A design that makes callers wait costs that second, nothing more.
pub(super) async fn settled(lab: &Lab, at: &[Instance], enough: impl Fn() -> bool) {
    const AT_LEAST: Duration = Duration::from_secs(1);
    const QUESTIONS: usize = 20;
    let nobody = lab.id("nobody");
    let ask = |instance: &Instance| {
        let path = format!("/payments/{nobody}");
        instance.get(path).bearer("nobody").quietly().attempt()
    };
    let questions = async {
        for _ in 0..QUESTIONS {
            futures::future::join_all(at.iter().map(ask)).await;
        }
    };
    let patience = async {
        // Bounded, since a design may park its waiters on all of its connections.
        let questions = tokio::time::timeout(SLACK, questions);
        let _ = tokio::join!(questions, tokio::time::sleep(AT_LEAST));
    };
    tokio::select! {
        () = patience => {}
        _ = lab.until(LAST_RESORT, || std::future::ready(enough())) => {}
    }
}

/// Runs a check's body that must be through before a lease ends. With the long leases that the lab
/// gives, it always is; a program that runs already may have been given a short one, and then a
/// machine that was too slow must not be taken for a broken promise.
pub(super) async fn within_a_lease(lab: &Lab, body: impl Future<Output = Judged>) -> Judged {
    let began = Instant::now();
    let lease = lab.millis("KEY_LEASE_MS");
    match body.await {
        Err(stop) if stop.is_failed() && began.elapsed() >= lease => Stop::inconclusive(format!(
            "this took {:.1} s and the lease is {:.1} s, so another call may have been right",
            began.elapsed().as_secs_f64(),
            lease.as_secs_f64(),
        )),
        other => other,
    }
}

/// Plays a round that holds a call and must be through before the lease is over; the round says
/// whether it was. A machine that is too slow for the first lease gets longer ones.
pub(super) async fn before_the_lease_ends<Round, Played>(lab: &Lab, round: Round) -> Judged
where
    Round: Fn(Instance) -> Played,
    Played: Future<Output = Judged<bool>>,
{
    const LEASES_MS: [u64; 3] = [2_000, 8_000, 30_000];
    lab.prefer("KEY_TTL_MS", 120_000);
    for lease in LEASES_MS {
        lab.prefer("KEY_LEASE_MS", lease);
        let program = lab.start().await?;
        if round(program).await? {
            return Ok(());
        }
        if !lab.can_start_instances() {
            break;
        }
    }
    Stop::inconclusive("the machine was too slow: a call was held for longer than the lease")
}

/// Whether so little of the lease has gone by that no second handler can have taken over.
pub(super) fn well_within_the_lease(lab: &Lab, began: Instant) -> bool {
    began.elapsed() < lab.millis("KEY_LEASE_MS") * 3 / 4
}

/// Long leases, for checks that hold a call and must not see a lease end. Nothing waits for one, so
/// they may be longer than the busiest machine needs.
pub(super) fn long_lease(lab: &Lab) {
    lab.prefer("KEY_LEASE_MS", 300_000);
    lab.prefer("KEY_TTL_MS", 1_200_000);
}

/// Short leases and a long memory, for checks in which a retry has to get through.
pub(super) fn short_lease(lab: &Lab) {
    lab.prefer("KEY_LEASE_MS", 1_000);
    lab.prefer("KEY_TTL_MS", 120_000);
}
