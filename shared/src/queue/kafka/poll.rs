//! The thread that polls. librdkafka wants to be polled without a pause, or it takes the member for
//! dead; a consumer's caller asks when it likes. Between the two is this thread.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::error::sorted;
use super::marks::Marks;
use super::member::Member;
use super::record;
use crate::queue::QueueError;

/// How soon the thread sees that it shall end, and goes on with a partition that was paused.
const TICK: Duration = Duration::from_millis(50);

/// How often what a former owner committed is asked for before the member gives up.
const RECALL_ATTEMPTS: usize = 3;

/// Joins the group, in a thread that ends when the member leaves or nobody holds it any more.
pub(super) fn start(
    config: &ClientConfig,
    member: &Arc<Member>,
    timeout: Duration,
) -> Result<(), QueueError> {
    let context = Context {
        member: Arc::downgrade(member),
        timeout,
    };
    let client: BaseConsumer<Context> = config
        .create_with_context(context)
        .map_err(|error| sorted(&error))?;
    client
        .subscribe(&[member.topic()])
        .map_err(|error| sorted(&error))?;
    let client = Arc::new(client);
    member.connected(&client);
    let (watched, name) = (Arc::downgrade(member), format!("kafka-{}", member.group));
    let thread = std::thread::Builder::new().name(name);
    let spawned = thread.spawn(move || {
        poll(&client, &watched);
        // Leaves the group, which takes a round trip.
        drop(client);
        if let Some(member) = watched.upgrade() {
            member.ended();
        }
    });
    match spawned {
        Ok(_) => Ok(()),
        Err(error) => Err(super::error::unavailable(format!(
            "no thread can be started: {error}"
        ))),
    }
}

fn poll(client: &BaseConsumer<Context>, watched: &Weak<Member>) {
    loop {
        let polled = client.poll(TICK);
        let Some(member) = watched.upgrade() else {
            return;
        };
        if member.is_leaving() {
            return;
        }
        match polled {
            Some(Ok(message)) => {
                let taken = record::read(&message);
                member.read(message.partition(), message.offset(), taken);
            }
            Some(Err(error)) => member.report(error.to_string()),
            None => {}
        }
        let (pause, resume) = member.flow();
        let list = |partitions: Vec<i32>| {
            let mut list = TopicPartitionList::new();
            for partition in partitions {
                list.add_partition(member.topic(), partition);
            }
            list
        };
        // A partition that was taken away meanwhile is none of ours to pause.
        if !pause.is_empty() {
            let _ = client.pause(&list(pause));
        }
        if !resume.is_empty() {
            let _ = client.resume(&list(resume));
        }
    }
}

/// What librdkafka tells while it is polled.
pub(super) struct Context {
    member: Weak<Member>,
    timeout: Duration,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => tracing::warn!(facility, message, "librdkafka"),
            _ => tracing::debug!(facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        if let Some(member) = self.member.upgrade()
            && error.rdkafka_error_code() == Some(Code::AllBrokersDown)
        {
            member.report(reason.to_owned());
        }
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, client: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Some(member) = self.member.upgrade() else {
            return;
        };
        match rebalance {
            Rebalance::Assign(list) => match recall(client, list, self.timeout) {
                Ok(partitions) => member.assigned(partitions),
                Err(error) => member.fail(format!("cannot read the group's offsets: {error}")),
            },
            Rebalance::Revoke(list) => {
                let partitions: Vec<i32> = list
                    .elements()
                    .iter()
                    .map(|element| element.partition())
                    .collect();
                member.revoked(&partitions, |list| {
                    // If it fails the new owner repeats what was done since the last commit.
                    if let Err(error) = client.commit(list, CommitMode::Sync) {
                        tracing::debug!(%error, "the last commit of a partition that goes away");
                    }
                });
            }
            Rebalance::Error(error) => member.report(error.to_string()),
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let (Rebalance::Assign(_), Some(member)) = (rebalance, self.member.upgrade()) {
            member.settled_in();
        }
    }
}

/// What the last owners of partitions committed.
fn recall(
    client: &BaseConsumer<Context>,
    assigned: &TopicPartitionList,
    timeout: Duration,
) -> Result<Vec<(i32, Option<Marks>)>, KafkaError> {
    if assigned.count() == 0 {
        return Ok(Vec::new());
    }
    let mut attempts = 0;
    let committed = loop {
        attempts += 1;
        match client.committed_offsets(assigned.clone(), timeout) {
            Ok(committed) => break committed,
            Err(error) if attempts >= RECALL_ATTEMPTS => return Err(error),
            Err(_) => {}
        }
    };
    let recalled = committed.elements().into_iter().map(|element| {
        element.error()?;
        let marks = match element.offset() {
            Offset::Offset(base) => Some(Marks::read(base, element.metadata())),
            _ => None,
        };
        Ok((element.partition(), marks))
    });
    recalled.collect()
}
