//! Step 3: one owner, and messages. The same promises as the lock's, and what happens when the
//! owner fails.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::StatusCode;
use kata_lab::{Instance, Judged, Lab, Promise, Stop};

use super::{
    shop::{Article, Style, remaining},
    step_2_lock::{is_free_while_asking, never_oversells, sells_nothing_unapproved},
};

/// The order over which the owner fails.
const DOOMED: u64 = 666;

/// Enough that nothing is ever sold out.
const STOCK: u64 = 1_000_000;

/// As [`lock_never_oversells`](super::step_2_lock::lock_never_oversells).
pub async fn worker_never_oversells(lab: Lab) -> Judged {
    never_oversells(&lab, Style::Worker).await
}

/// The owner does not ask for approvals itself: it would answer nobody meanwhile.
pub async fn worker_is_free_while_asking(lab: Lab) -> Judged {
    is_free_while_asking(&lab, Style::Worker).await
}

/// As [`lock_sells_nothing_unapproved`](super::step_2_lock::lock_sells_nothing_unapproved).
pub async fn worker_sells_nothing_unapproved(lab: Lab) -> Judged {
    sells_nothing_unapproved(&lab, Style::Worker).await
}

/// The owner fails over an order, twice: that caller is told, nothing is taken, and the next order
/// is served.
pub async fn worker_comes_back_with_its_stock(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let article = Article::new(&lab, Style::Worker);
    article.put(&program, STOCK).await?;
    let promise = Promise::new(
        format!("POST /worker/stock/…/reserve {{quantity: {DOOMED}}}, then {{quantity: 1}}; twice"),
        format!("500 for {DOOMED}, nothing taken by it; then 200 from the stock that was there"),
    );
    for sold in 1..=2 {
        let failed = article.reserve(&program, DOOMED).send().await?;
        promise.holds(
            failed.status == StatusCode::INTERNAL_SERVER_ERROR,
            format!("for {DOOMED}: {failed}"),
        )?;
        let reply = article.reserve(&program, 1).send().await?;
        promise.holds(
            remaining(&reply) == Some(STOCK - sold),
            format!("afterwards: {reply}"),
        )?;
    }
    Ok(())
}

/// Whoever has sent an order while the owner was failing over another gets an answer all the same.
pub async fn worker_drops_no_request(lab: Lab) -> Judged<String> {
    const SENDERS: usize = 24;
    const ROUNDS: usize = 5;
    let program = lab.start().await?;
    let article = Article::new(&lab, Style::Worker);
    article.put(&program, STOCK).await?;
    let promise = Promise::new(
        format!(
            "POST /worker/stock/…/reserve {{quantity: {DOOMED}}}, and {SENDERS} others who order 1 again and again until the owner has failed"
        ),
        format!("200 or 409 for everybody else, and no 5xx but for {DOOMED}"),
    );
    for _ in 0..ROUNDS {
        let across = round(&article, &program, SENDERS, &promise).await?;
        // The fault has to have met somebody: an order that was sent before and answered after.
        if across > 0 {
            return Ok(format!("{across} orders under way"));
        }
    }
    Stop::inconclusive("no order was under way when the owner failed")
}

/// How many orders were under way when the owner failed.
async fn round(
    article: &Article,
    at: &Instance,
    senders: usize,
    promise: &Promise,
) -> Judged<usize> {
    let failed = AtomicBool::new(false);
    let across = AtomicUsize::new(0);
    let order = async |number: usize| -> Judged {
        while !failed.load(Ordering::SeqCst) {
            let actor = format!("request {number}");
            let reply = match article.reserve(at, 1).actor(actor).attempt().await? {
                Ok(reply) => reply,
                Err(silence) => return promise.broken(silence.to_string()),
            };
            if reply.status.is_server_error() {
                return promise.broken(reply.to_string());
            }
            if failed.load(Ordering::SeqCst) {
                across.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    };
    let doomed = async {
        let outcome = article.reserve(at, DOOMED).actor("doomed").attempt().await;
        failed.store(true, Ordering::SeqCst);
        // What it is told is another promise; that it is over is what matters here.
        outcome.map(|_| ())
    };
    let orders = futures::future::try_join_all((1..=senders).map(order));
    futures::future::try_join(orders, doomed).await?;
    Ok(across.into_inner())
}
