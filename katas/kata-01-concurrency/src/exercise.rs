//! Your exercise: the last unit in stock is sold once. This is the only file to edit.
//!
//! | step | what to build | where | checks |
//! | --- | --- | --- | --- |
//! | 1 | make it break: the race, to be seen | `Shelf::look`, `Shelf::put`, `reserve_naive` | `rejects_wrong_input`, `reads_back_the_stock`, `oversells_without_a_lock` |
//! | 2 | a lock, not held while we wait | `Shelf::take`, `reserve_lock` | `lock_never_oversells`, `lock_is_free_while_asking`, `lock_sells_nothing_unapproved` |
//! | 3 | one owner, and messages | `Owner::ask`, `own`, `reserve_worker`, `app` | `worker_never_oversells`, `worker_is_free_while_asking`, `worker_sells_nothing_unapproved`, `worker_comes_back_with_its_stock`, `worker_drops_no_request` |
//! | 4 | a queue with a bound | `Desk`, `accept`, `stats`, `app` | `bounds_the_queue`, `refuses_at_once_when_full`, `limits_its_workers`, `does_what_it_accepted`, `counts_its_jobs` |
//! | 5 | a limit for calls | `Desk`, `fetch` | `limits_its_calls`, `gets_every_permit_back`, `passes_a_failure_on` |
//! | 6 | computing beside serving, and on two cores | `digest` | `computes_the_right_digest`, `answers_while_it_computes`, `computes_in_parallel` |
//! | 7 | every interleaving (`cargo test`, in Rust only) | `nothing_is_lost` | `cargo test -p kata-01-concurrency "step 7"` |
//!
//! `crate::contract` has the bodies and the answers, `crate::outside` the clients of the two
//! services. What is here already runs, and answers 501 on every route until you replace the
//! `todo!()`s. Change whatever you like: the checks know the routes, and step 7 knows `Shelf`,
//! `Owner`, `own`, `reserve_naive`, `reserve_lock` and `reserve_worker`.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use http::{HeaderMap, StatusCode};
use kata_lab::{App, BoxError, Env};
use serde_json::json;
use shared::http::Problem;
use tokio::sync::{mpsc, oneshot};

use crate::{
    contract::{self, Config, DigestOrder, JobStats, Order, Refused, Stock, Style},
    outside::Outside,
    sync::Mutex,
};

/// What the handlers work with. Cheap to clone. Steps 4 and 5 need more than this.
#[derive(Debug, Clone)]
pub struct Desk {
    /// Addresses and limits.
    pub config: Config,
    /// The approvals and the slow service.
    pub outside: Outside,
    /// The stock of the style `naive`.
    pub naive: Arc<Shelf>,
    /// The stock of the style `lock`.
    pub lock: Arc<Shelf>,
    /// The way to the stock of the style `worker`.
    pub worker: Owner,
}

/// The application.
pub async fn app(env: Env) -> Result<App, BoxError> {
    let config = Config::from_env(&env)?;
    let (worker, messages) = Owner::new();
    let desk = Desk {
        outside: Outside::new(&config)?,
        naive: Arc::default(),
        lock: Arc::default(),
        worker,
        config,
    };
    let router = Router::new()
        .route(contract::STOCK, put(put_stock).get(get_stock))
        .route(contract::RESERVE, post(reserve))
        .route(contract::JOBS, post(post_job))
        .route(contract::JOB_STATS, get(job_stats))
        .route(contract::FETCHES, post(post_fetch))
        .route(contract::DIGESTS, post(post_digest))
        .with_state(desk);
    // Step 3: somebody has to answer these: `.with_task(own(messages))`. Step 4: and do the jobs.
    drop(messages);
    Ok(App::new(router))
}

// ---------------------------------------------------------------------------- steps 1 and 2: stock

/// Stock behind a mutex: std's in the program, another one where step 7 plays every interleaving.
#[derive(Debug)]
pub struct Shelf<M = std::sync::Mutex<Stock>> {
    /// Holds it as long as the guard of `lock()` lives.
    pub stock: M,
}

impl<M: Mutex<Stock>> Default for Shelf<M> {
    fn default() -> Self {
        let stock = M::new(Stock::new());
        Self { stock }
    }
}

impl<M: Mutex<Stock>> Shelf<M> {
    /// What there is of an article, if it is known.
    pub fn look(&self, sku: &str) -> Option<u64> {
        let _ = sku;
        todo!("step 1: read it, behind the lock")
    }

    /// Sets what there is of an article.
    pub fn put(&self, sku: &str, quantity: u64) {
        let _ = (sku, quantity);
        todo!("step 1: write it, behind the lock; what was there before is replaced")
    }

    /// Decides and takes; what is left.
    pub fn take(&self, order: &Order) -> Result<u64, Refused> {
        let _ = order;
        todo!("step 2: how many locks does this need?")
    }
}

/// Reads, asks, and writes back what it read minus the quantity. `approval` asks when it is
/// awaited.
pub async fn reserve_naive<M: Mutex<Stock>>(
    shelf: &Shelf<M>,
    order: &Order,
    approval: impl Future<Output = Result<(), Refused>> + Send,
) -> Result<u64, Refused> {
    let _ = (shelf, order, approval);
    todo!("step 1: look, approval.await?, put: in this order, so that the race can be seen")
}

/// Sells under a lock that nobody holds while waiting for an approval.
pub async fn reserve_lock<M: Mutex<Stock>>(
    shelf: &Shelf<M>,
    order: &Order,
    approval: impl Future<Output = Result<(), Refused>> + Send,
) -> Result<u64, Refused> {
    let _ = (shelf, order, approval);
    todo!("step 2: what comes first, the approval or the lock?")
}

// ------------------------------------------------------------------------------ step 3: the worker

/// What an owner can be asked. Each message carries the way back for its answer.
#[derive(Debug)]
pub enum Message {
    /// Set what there is of an article.
    Put {
        /// The article.
        sku: String,
        /// How many units.
        quantity: u64,
        /// It is done.
        done: oneshot::Sender<()>,
    },
    /// Say what there is of an article.
    Look {
        /// The article.
        sku: String,
        /// How many units, if the article is known.
        tell: oneshot::Sender<Option<u64>>,
    },
    /// Decide and take.
    Take {
        /// What to take.
        order: Order,
        /// What is left, or why not.
        tell: oneshot::Sender<Result<u64, Refused>>,
    },
}

/// A way to the owner of a stock. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Owner {
    inbox: mpsc::Sender<Message>,
}

impl Owner {
    /// A way to an owner, and the messages that the owner has to answer.
    pub fn new() -> (Self, mpsc::Receiver<Message>) {
        let (inbox, messages) = mpsc::channel(16);
        (Self { inbox }, messages)
    }

    /// Sends a message and waits for its answer; `None` if the owner failed over it.
    pub async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Option<T> {
        let _ = (&self.inbox, message);
        todo!("step 3: a channel back, the message into the inbox, then wait at the channel")
    }

    /// What there is of an article.
    pub async fn look(&self, sku: &str) -> Result<u64, Refused> {
        let sku = sku.to_owned();
        let found = self.ask(|tell| Message::Look { sku, tell }).await;
        found.ok_or(Refused::OwnerFailed)?.ok_or(Refused::Unknown)
    }

    /// Sets what there is of an article.
    pub async fn put(&self, sku: &str, quantity: u64) -> Result<(), Refused> {
        let sku = sku.to_owned();
        let put = |done| Message::Put {
            sku,
            quantity,
            done,
        };
        self.ask(put).await.ok_or(Refused::OwnerFailed)
    }
}

/// The life of an owner: one message after the other.
pub async fn own(messages: mpsc::Receiver<Message>) {
    let _ = messages;
    todo!("step 3: whose is the stock? and what is left of it when a message for 666 units fails?")
}

/// Sells by asking the owner.
pub async fn reserve_worker(
    owner: &Owner,
    order: &Order,
    approval: impl Future<Output = Result<(), Refused>> + Send,
) -> Result<u64, Refused> {
    let _ = (owner, order, approval);
    todo!("step 3: who waits for the approval, the owner or this?")
}

// ------------------------------------------------------------ steps 4 to 6: limits, and two cores

/// Takes a job, or says at once that there is no room.
pub async fn accept(desk: &Desk, job: String) -> bool {
    let _ = (desk, job);
    todo!("step 4: a queue with room for QUEUE_LIMIT jobs, and QUEUE_WORKERS who do them")
}

/// What became of the jobs.
pub async fn stats(desk: &Desk) -> JobStats {
    let _ = desk;
    todo!("step 4: do the numbers add up, whenever somebody looks?")
}

/// Fetches a thing; `false` if that failed.
pub async fn fetch(desk: &Desk, id: &str) -> bool {
    let _ = (desk, id);
    todo!("step 5: never more than FETCH_LIMIT calls at once, whoever hangs up")
}

/// Computes a digest; `None` if the program is going down.
pub async fn digest(order: DigestOrder) -> Option<String> {
    let _ = order;
    todo!("step 6: on which thread?")
}

// ------------------------------------------------------------------- step 7: every interleaving

/// Whether the numbers can be right after a few orders at once: so many units were put, the
/// answers say that so many were sold, and so many are left.
pub fn nothing_is_lost(put: u64, sold: u64, left: u64) -> bool {
    let _ = (put, sold, left);
    todo!(
        "step 7: what is true in every interleaving of the lock, and not in every one of `naive`?"
    )
}

// ---------------------------------------------------------------------------------- the handlers

async fn put_stock(
    State(desk): State<Desk>,
    Path((style, sku)): Path<(String, String)>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let style = Style::of(&style)?;
    let quantity = contract::stock_body(&headers, &bytes)?;
    let outcome = match style {
        Style::Naive => {
            desk.naive.put(&sku, quantity);
            Ok(())
        }
        Style::Lock => {
            desk.lock.put(&sku, quantity);
            Ok(())
        }
        Style::Worker => desk.worker.put(&sku, quantity).await,
    };
    Ok(match outcome {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refused) => refused.into_response(),
    })
}

async fn get_stock(
    State(desk): State<Desk>,
    Path((style, sku)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let found = match Style::of(&style)? {
        Style::Naive => desk.naive.look(&sku).ok_or(Refused::Unknown),
        Style::Lock => desk.lock.look(&sku).ok_or(Refused::Unknown),
        Style::Worker => desk.worker.look(&sku).await,
    };
    Ok(match found {
        Ok(quantity) => contract::quantity(quantity),
        Err(refused) => refused.into_response(),
    })
}

async fn reserve(
    State(desk): State<Desk>,
    Path((style, sku)): Path<(String, String)>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let style = Style::of(&style)?;
    let quantity = contract::reserve_body(&headers, &bytes)?;
    let order = Order { sku, quantity };
    let approval = async {
        let answer = desk.outside.approve(&order).await;
        answer.map_err(|_| Refused::NotApproved)
    };
    let sold = match style {
        Style::Naive => reserve_naive(&desk.naive, &order, approval).await,
        Style::Lock => reserve_lock(&desk.lock, &order, approval).await,
        Style::Worker => reserve_worker(&desk.worker, &order, approval).await,
    };
    Ok(match sold {
        Ok(remaining) => contract::sold(remaining),
        Err(refused) => refused.into_response(),
    })
}

async fn post_job(
    State(desk): State<Desk>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let job = contract::job_body(&headers, &bytes)?;
    Ok(match accept(&desk, job).await {
        true => StatusCode::ACCEPTED.into_response(),
        false => contract::queue_full(),
    })
}

async fn job_stats(State(desk): State<Desk>) -> Response {
    Json(stats(&desk).await).into_response()
}

async fn post_fetch(
    State(desk): State<Desk>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let id = contract::fetch_body(&headers, &bytes)?;
    Ok(match fetch(&desk, &id).await {
        true => Json(json!({ "id": id })).into_response(),
        false => contract::fetch_failed(),
    })
}

async fn post_digest(headers: HeaderMap, bytes: Bytes) -> Result<Response, Problem> {
    let order = contract::digest_body(&headers, &bytes)?;
    Ok(match digest(order).await {
        Some(digest) => Json(json!({ "digest": digest })).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    })
}
