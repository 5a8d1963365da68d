//! What a check does as a customer: articles with random names, orders, and the waits that they
//! share.
//!
//! "Nothing more comes" needs a witness here: the program answers a row of other requests, which
//! queue behind everything that it has to do.

use std::time::{Duration, Instant};

use http::StatusCode;
use kata_lab::{Instance, Judged, Lab, Pending, Promise, Reply, Request, Stop};
use serde_json::{Value, json};

/// The last resort of a wait whose condition a right implementation always meets.
pub(super) const LAST_RESORT: Duration = Duration::from_secs(60);

/// How long the program may take for a row of requests before it counts as stuck.
const STUCK: Duration = Duration::from_secs(15);

/// How many requests make a row.
const ROW: usize = 50;

/// A style of keeping stock, as a part of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Naive,
    Lock,
    Worker,
}

impl Style {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::Lock => "lock",
            Self::Worker => "worker",
        }
    }
}

/// An article that nobody has heard of before, in one of the styles.
#[derive(Debug, Clone)]
pub(super) struct Article {
    pub(super) style: Style,
    pub(super) sku: String,
}

impl Article {
    pub(super) fn new(lab: &Lab, style: Style) -> Self {
        let sku = lab.id("sku");
        Self { style, sku }
    }

    fn path(&self) -> String {
        format!("/{}/stock/{}", self.style.path(), self.sku)
    }

    /// `PUT`, with any body.
    pub(super) fn put_request(&self, at: &Instance, body: &Value) -> Request {
        at.put(self.path()).json(body)
    }

    /// `POST …/reserve`, with any body.
    pub(super) fn reserve_request(&self, at: &Instance, body: &Value) -> Request {
        at.post(format!("{}/reserve", self.path())).json(body)
    }

    /// Reserves some of it.
    pub(super) fn reserve(&self, at: &Instance, quantity: u64) -> Request {
        self.reserve_request(at, &json!({ "quantity": quantity }))
    }

    /// Shows what there is.
    pub(super) fn look(&self, at: &Instance) -> Request {
        at.get(self.path())
    }

    /// Puts so much on the shelf.
    pub(super) async fn put(&self, at: &Instance, quantity: u64) -> Judged {
        let request = self.put_request(at, &json!({ "quantity": quantity }));
        let reply = request.send().await?;
        Promise::new(
            format!("PUT {} {{quantity: {quantity}}}", self.path()),
            "200, 201 or 204",
        )
        .holds(reply.status.is_success(), reply.to_string())
    }

    /// What the program says there is.
    pub(super) async fn quantity(&self, at: &Instance, promise: &Promise) -> Judged<u64> {
        let reply = self.look(at).send().await?;
        let quantity = reply.json().and_then(|body| body["quantity"].as_u64());
        match quantity.filter(|_| reply.status == StatusCode::OK) {
            Some(quantity) => Ok(quantity),
            None => promise.broken(format!("GET {}: {reply}", self.path())),
        }
    }

    /// How often somebody asked for an approval.
    pub(super) fn asked(&self, lab: &Lab) -> usize {
        lab.approvals().calls_for(&self.sku).len()
    }
}

/// What is left according to an answer that says "sold".
pub(super) fn remaining(reply: &Reply) -> Option<u64> {
    let body = (reply.status == StatusCode::OK).then(|| reply.json())??;
    body["remaining"].as_u64()
}

/// So many orders for one unit at once.
pub(super) fn crowd(article: &Article, at: &Instance, size: usize) -> Vec<Pending> {
    (1..=size)
        .map(|number| {
            let actor = format!("request {number}");
            article.reserve(at, 1).actor(actor).spawn()
        })
        .collect()
}

/// All answers; silence is not one.
///
/// # Errors
/// The promise's failure if one does not come.
pub(super) async fn answers(crowd: &mut [Pending], promise: &Promise) -> Judged<Vec<Reply>> {
    let mut replies = Vec::new();
    for one in crowd {
        match one.attempted().await? {
            Ok(reply) => replies.push(reply),
            Err(silence) => return promise.broken(silence.to_string()),
        }
    }
    Ok(replies)
}

/// What was answered before anybody let it go on, for a finding: the first of them.
///
/// # Errors
/// [`Stop::NotStarted`] if an answer is a 501.
pub(super) async fn early_answers(crowd: &mut [Pending]) -> Judged<String> {
    let (mut number, mut first) = (0, None);
    for one in crowd.iter_mut().filter(|one| one.is_answered()) {
        let said = match one.attempted().await? {
            Ok(reply) => reply.to_string(),
            Err(silence) => silence.to_string(),
        };
        number += 1;
        first.get_or_insert(said);
    }
    Ok(first.map_or_else(String::new, |first| {
        format!("; {number} were answered without, the first with {first}")
    }))
}

/// One `GET /health` after the other; `false` if the program does not get through them.
async fn row(at: &Instance, enough: impl Fn() -> bool) -> Judged<bool> {
    let questions = async {
        for _ in 0..ROW {
            if enough() {
                break;
            }
            at.get("/health").quietly().attempt().await?.ok();
        }
        Ok(())
    };
    match tokio::time::timeout(STUCK, questions).await {
        Ok(judged) => judged.map(|()| true),
        Err(_) => Ok(false),
    }
}

/// Waits until so many have come, or nothing has moved for a while in which the program was awake;
/// how many have come. A program that does what it should never waits here for a clock.
pub(super) async fn arrived(
    lab: &Lab,
    at: &Instance,
    wanted: usize,
    count: impl Fn() -> usize,
) -> Judged<usize> {
    const STILL: Duration = Duration::from_secs(2);
    let (mut seen, mut since) = (count(), Instant::now());
    loop {
        let awake = row(at, || count() >= wanted).await?;
        let now = count();
        if now >= wanted || !awake {
            return Ok(now);
        }
        if now != seen {
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() >= STILL {
            return Ok(now);
        }
        // Nothing is concluded from this pause: it only spares the processor.
        lab.until(Duration::from_millis(50), || {
            std::future::ready(count() >= wanted)
        })
        .await;
    }
}

/// Gives whatever could still come the time to come: as long as the program needs to answer a row
/// of other requests.
pub(super) async fn all_quiet(at: &Instance) -> Judged {
    row(at, || false).await.map(|_| ())
}

/// A fake must be idle before it is asked to count: a program that runs already may still be
/// working off what an earlier check left.
pub(super) async fn idle(lab: &Lab) -> Judged {
    let nobody_calls = || std::future::ready(lab.slow_service().open_calls() == 0);
    match lab.until(LAST_RESORT, nobody_calls).await {
        true => Ok(()),
        false => Stop::inconclusive("the slow service is still called for an earlier check"),
    }
}
