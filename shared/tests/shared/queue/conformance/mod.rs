//! What every broker must do alike, as trials over a fixture.
//!
//! A trial that a broker declares it cannot pass is shown as ignored, with what was declared; a
//! declaration that a call can contradict is held against the call. Each trial writes down what it
//! measured, and the table in the README is made from that.

mod delivery;
mod failure;
mod groups;
pub(crate) mod lab;
mod limits;
pub(crate) mod order;
mod restart;
mod waiting;

use std::time::Duration;

use async_trait::async_trait;
use futures::future::{BoxFuture, LocalBoxFuture};
use libtest_mimic::Trial;

pub(crate) use lab::{Lab, measured};

use crate::support::{End, Outcome, test};

/// A broker to be judged. Each trial gets one of its own.
#[async_trait]
pub(crate) trait Fixture: Send + Sync {
    /// For `queue::connect`. Queues and groups have names that no other trial uses, so fixtures may
    /// share a server.
    fn url(&self) -> String;

    /// A lease that is short for this broker and yet far longer than a round trip.
    fn lease(&self) -> Duration;

    /// How long a new member waits until its group lets it in, if it does.
    fn joining(&self) -> Duration {
        Duration::ZERO
    }

    /// Kills the broker and starts it again with its data, as after a power cut. `None` if it is
    /// not ours to kill.
    async fn restart(&self) -> Option<Result<(), End>> {
        None
    }

    /// Stores a message in a way that wakes nobody. `None` if the broker itself wakes whoever
    /// waits, so that there is no wake-up to be lost.
    async fn publish_silently(&self, queue: &str, payload: &str) -> Option<Result<(), End>> {
        let _ = (queue, payload);
        None
    }
}

/// Makes a fixture.
pub(crate) type Start = fn() -> BoxFuture<'static, Result<Box<dyn Fixture>, End>>;

type Judge = for<'a> fn(&'a Lab) -> LocalBoxFuture<'a, Outcome>;

/// All trials, for the broker of this name.
pub(crate) fn trials(broker: &'static str, start: Start) -> Vec<Trial> {
    trials_with(broker, start, start)
}

/// The same, where what kills the broker needs another one.
pub(crate) fn trials_with(broker: &'static str, start: Start, killable: Start) -> Vec<Trial> {
    let all: [(&[(&'static str, Judge)], Start); 7] = [
        (delivery::TRIALS, start),
        (failure::TRIALS, start),
        (groups::TRIALS, start),
        (limits::TRIALS, start),
        (order::TRIALS, start),
        (restart::TRIALS, killable),
        (waiting::TRIALS, start),
    ];
    let mut trials = Vec::new();
    for (group, start) in all {
        for &(name, judge) in group {
            let full_name = format!("queue::conformance::{broker}::{name}");
            trials.push(test(&full_name, move || async move {
                let lab = Lab::open(broker, name, start().await?).await?;
                let outcome = judge(&lab).await;
                lab.close().await;
                outcome
            }));
        }
    }
    trials
}

/// A list of trials from the names of their functions.
macro_rules! list {
    ($($name:ident,)*) => {
        pub(super) const TRIALS: &[(&str, super::Judge)] =
            &[$((stringify!($name), |lab| Box::pin($name(lab))),)*];
    };
}
use list;
