//! Publishing a batch to one queue, and finding out which of its events is at fault if that fails.
//!
//! A broker says of a batch that it failed, and often not why: a message that is too large for it
//! may look like a connection that broke. The obvious answers are both wrong. Trying the batch for
//! ever lets one event block all others; counting failures lets an outage of a minute declare every
//! event stuck. So a failed batch is halved until single events fail, and a failure counts against
//! an event only if others went through at the same time. If nothing goes through, it is the broker:
//! the queue is left alone for a while and no event is blamed.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::lanes::{Failure, Settlement, Staged};
use crate::queue::{Backoff, Message, Queue, QueueError};

/// So many single events fail without one that goes through, and it is the broker.
const SUSPECTS: usize = 3;

/// How an event is treated that fails while others go through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// After so many failures it is stuck.
    pub(super) max_attempts: u32,
    /// How long it is left alone before.
    pub(super) retry: Backoff,
}

/// One queue, and what we remember of how it went.
pub(super) struct Outlet {
    queue: Arc<dyn Queue>,
    /// How long to leave the queue alone when nothing goes through.
    backoff: Backoff,
    /// Batches in a row of which nothing went through.
    failures: u32,
    closed_until: Option<Instant>,
    /// Events that failed when nothing went through. They are tried last the next time, so that
    /// even one that uses up all the time there is cannot keep the others from showing that the
    /// broker works.
    suspects: HashSet<i64>,
}

impl Outlet {
    pub(super) fn new(queue: Arc<dyn Queue>, backoff: Backoff) -> Self {
        Self {
            queue,
            backoff,
            failures: 0,
            closed_until: None,
            suspects: HashSet::new(),
        }
    }

    pub(super) fn set_backoff(&mut self, backoff: Backoff) {
        self.backoff = backoff;
    }

    /// When the queue is to be tried again, if it is left alone now.
    pub(super) fn closed_until(&self) -> Option<Instant> {
        self.closed_until.filter(|until| *until > Instant::now())
    }

    /// Publishes events, which are in the order of their ids, until the deadline, and adds to the
    /// settlement what became of them. Events that it says nothing of were not published, or nobody
    /// knows: they stay as they are.
    ///
    /// The error of a broker through which nothing went.
    pub(super) async fn publish(
        &mut self,
        events: &[Staged],
        deadline: Instant,
        patience: Patience,
        settlement: &mut Settlement,
    ) -> Result<(), String> {
        let mut events: Vec<&Staged> = events.iter().collect();
        let mut search = Search::default();
        if self.failures == 0 {
            search
                .run(&*self.queue, &events, events.len(), deadline)
                .await;
        } else {
            let suspect_keys: HashSet<_> = events
                .iter()
                .filter(|event| self.suspects.contains(&event.id))
                .map(|event| order_of(event))
                .collect();
            // A stable sort by key as a whole: the order within each stays.
            events.sort_by_key(|event| suspect_keys.contains(&order_of(event)));
            search.run(&*self.queue, &events, 1, deadline).await;
        }
        settlement.published.extend(&search.published);
        settlement.failed.extend(search.refused);
        if search.published.is_empty()
            && let Some(error) = search.last_error
        {
            self.failures = self.failures.saturating_add(1);
            self.closed_until = Some(Instant::now() + self.backoff.after(self.failures));
            self.suspects = search.suspects.iter().map(|(event, _)| event.id).collect();
            return Err(error);
        }
        self.failures = 0;
        self.closed_until = None;
        self.suspects.clear();
        settlement
            .failed
            .extend(search.suspects.into_iter().map(|(event, error)| {
                let attempts = event.attempts.unsigned_abs() + 1;
                Failure {
                    id: event.id,
                    error,
                    retry_in: (attempts < patience.max_attempts)
                        .then(|| patience.retry.after(attempts)),
                }
            }));
        Ok(())
    }
}

/// What has an order of its own: a key, or a single event that has none.
fn order_of(event: &Staged) -> Result<&str, i64> {
    event.key.as_deref().ok_or(event.id)
}

/// The search through one batch.
#[derive(Default)]
struct Search<'a> {
    published: Vec<i64>,
    /// The broker said that no attempt will help.
    refused: Vec<Failure>,
    /// Failed alone, for a reason that may lie elsewhere.
    suspects: Vec<(&'a Staged, String)>,
    /// Keys of which an event failed: later ones must not overtake it.
    failed_keys: HashSet<&'a str>,
    /// Of a publish that might have worked.
    last_error: Option<String>,
}

impl<'a> Search<'a> {
    /// Publishes parts of at most `size`, in order, and halves those that fail.
    async fn run(
        &mut self,
        queue: &dyn Queue,
        events: &[&'a Staged],
        size: usize,
        deadline: Instant,
    ) {
        // The last part is the next one.
        let mut parts: Vec<&[&'a Staged]> = events.chunks(size.max(1)).rev().collect();
        while let Some(part) = parts.pop() {
            let broker_is_down = self.published.is_empty() && self.suspects.len() >= SUSPECTS;
            if broker_is_down || Instant::now() >= deadline {
                break;
            }
            let sent: Vec<&Staged> = part
                .iter()
                .filter(|event| {
                    !event
                        .key
                        .as_deref()
                        .is_some_and(|key| self.failed_keys.contains(key))
                })
                .copied()
                .collect();
            if sent.is_empty() {
                continue;
            }
            let error = match send(queue, &sent, deadline).await {
                Ok(()) => {
                    self.published.extend(sent.iter().map(|event| event.id));
                    continue;
                }
                Err(error) => error,
            };
            if let [event] = *sent {
                self.blame(event, error);
            } else {
                if !error.is_final {
                    self.last_error = Some(error.text);
                }
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
        }
    }

    fn blame(&mut self, event: &'a Staged, error: SendError) {
        if let Some(key) = &event.key {
            self.failed_keys.insert(key);
        }
        if error.is_final {
            self.refused.push(Failure {
                id: event.id,
                error: error.text,
                retry_in: None,
            });
        } else {
            self.last_error = Some(error.text.clone());
            self.suspects.push((event, error.text));
        }
    }
}

struct SendError {
    text: String,
    /// No attempt will help this message.
    is_final: bool,
}

async fn send(queue: &dyn Queue, events: &[&Staged], deadline: Instant) -> Result<(), SendError> {
    let messages: Vec<Message> = events.iter().map(|event| message(event)).collect();
    match timeout_at(deadline, queue.publish(&messages)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(SendError {
            is_final: matches!(
                error,
                QueueError::Invalid { .. } | QueueError::TooLarge { .. }
            ),
            text: error.to_string(),
        }),
        Err(_) => Err(SendError {
            is_final: false,
            text: "the broker did not answer within half of the lease".to_owned(),
        }),
    }
}

/// The same message at each repetition.
fn message(event: &Staged) -> Message {
    Message {
        id: event.message_id,
        key: event.key.clone(),
        payload: event.payload.clone(),
        headers: event.headers.clone(),
        delay: event.delay,
        priority: u8::try_from(event.priority).unwrap_or_default(),
    }
}
