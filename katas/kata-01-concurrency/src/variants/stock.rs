//! Stock, and the two ways of keeping it right: behind a lock, or with an owner.
//!
//! In both, whoever decides also takes, and nobody comes in between. That is the whole trick; the
//! rest is who waits for whom.

use std::{collections::HashMap, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use tokio::sync::{mpsc, oneshot};

use crate::{
    contract::{DOOMED, DOOMED_WORK_MS, Order, Refused, Stock},
    sync::Mutex,
};

/// How many messages may wait for an owner. Whoever finds it full waits to send: that is
/// backpressure, too.
const INBOX: usize = 16;

/// Decides and takes. Needs the stock for itself, which is what `&mut` says.
///
/// # Errors
/// [`Refused::Unknown`], [`Refused::SoldOut`].
pub fn take(stock: &mut Stock, order: &Order) -> Result<u64, Refused> {
    let left = stock.get_mut(&order.sku).ok_or(Refused::Unknown)?;
    *left = left.checked_sub(order.quantity).ok_or(Refused::SoldOut)?;
    Ok(*left)
}

/// Stock behind a mutex. A blocking one is right, also in async code: it is held for a few
/// instructions and never across an await.
#[derive(Debug)]
pub struct Shelf<M = std::sync::Mutex<Stock>> {
    stock: M,
}

impl<M: Mutex<Stock>> Default for Shelf<M> {
    fn default() -> Self {
        let stock = M::new(HashMap::new());
        Self { stock }
    }
}

impl<M: Mutex<Stock>> Shelf<M> {
    /// What there is of an article.
    pub fn look(&self, sku: &str) -> Option<u64> {
        self.stock.lock().get(sku).copied()
    }

    /// Sets what there is of an article.
    pub fn put(&self, sku: &str, quantity: u64) {
        self.stock.lock().insert(sku.to_owned(), quantity);
    }

    /// Decides and takes, under one lock.
    ///
    /// # Errors
    /// As [`take`].
    pub fn take(&self, order: &Order) -> Result<u64, Refused> {
        take(&mut self.stock.lock(), order)
    }

    /// Changes whatever has to be changed, under one lock.
    pub fn change<T>(&self, change: impl FnOnce(&mut Stock) -> T) -> T {
        change(&mut self.stock.lock())
    }
}

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
        let (inbox, messages) = mpsc::channel(INBOX);
        (Self { inbox }, messages)
    }

    /// Sends a message, waits while the channel is full, then waits for the answer; `None` if the
    /// owner failed over it.
    pub async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Option<T> {
        let (tell, told) = oneshot::channel();
        self.inbox.send(message(tell)).await.ok()?;
        told.await.ok()
    }

    /// What there is of an article.
    ///
    /// # Errors
    /// [`Refused::Unknown`], [`Refused::OwnerFailed`].
    pub async fn look(&self, sku: &str) -> Result<u64, Refused> {
        let sku = sku.to_owned();
        let found = self.ask(|tell| Message::Look { sku, tell }).await;
        found.ok_or(Refused::OwnerFailed)?.ok_or(Refused::Unknown)
    }

    /// Sets what there is of an article.
    ///
    /// # Errors
    /// [`Refused::OwnerFailed`].
    pub async fn put(&self, sku: &str, quantity: u64) -> Result<(), Refused> {
        let sku = sku.to_owned();
        let put = |done| Message::Put {
            sku,
            quantity,
            done,
        };
        self.ask(put).await.ok_or(Refused::OwnerFailed)
    }

    /// Decides and takes.
    ///
    /// # Errors
    /// As [`take`], and [`Refused::OwnerFailed`].
    pub async fn take(&self, order: &Order) -> Result<u64, Refused> {
        let order = order.clone();
        let took = self.ask(|tell| Message::Take { order, tell }).await;
        took.ok_or(Refused::OwnerFailed)?
    }
}

/// One message after the other, which is why nobody else can come in between.
///
/// # Panics
/// Over an order for [`DOOMED`] units, as the contract has it, before anything is taken.
pub async fn answer(stock: &mut Stock, message: Message) {
    // Whoever asked may have gone. What was asked is done all the same.
    match message {
        Message::Put {
            sku,
            quantity,
            done,
        } => {
            stock.insert(sku, quantity);
            let _ = done.send(());
        }
        Message::Look { sku, tell } => {
            let _ = tell.send(stock.get(&sku).copied());
        }
        Message::Take { order, tell } => {
            if order.quantity == DOOMED {
                tokio::time::sleep(Duration::from_millis(DOOMED_WORK_MS)).await;
                panic!("the owner fails over an order of {DOOMED}");
            }
            let _ = tell.send(take(stock, &order));
        }
    }
}

/// Answers until nobody can ask any more. A failure ends the message that caused it and nothing
/// else: the stock and the other messages are kept here, outside of what fails.
pub async fn own(mut messages: mpsc::Receiver<Message>) {
    let mut stock = Stock::new();
    while let Some(message) = messages.recv().await {
        survived(answer(&mut stock, message)).await;
    }
}

/// Whether the work was done without a panic.
pub async fn survived(work: impl Future<Output = ()>) -> bool {
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    if outcome.is_err() {
        tracing::warn!("the owner failed over a message, and goes on with the next");
    }
    outcome.is_ok()
}
