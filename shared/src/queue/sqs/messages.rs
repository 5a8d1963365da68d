//! What is asked of messages, in the sizes that SQS takes: ten of them and 256 KiB at a time.

use std::collections::HashSet;
use std::time::Duration;

use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry,
    DeleteMessageBatchRequestEntry, MessageSystemAttributeName, SendMessageBatchRequestEntry,
};

use super::api::Api;
use super::envelope::{Incoming, Outgoing};
use super::error::{is_throttle, sorted, unavailable};
use super::{BROKER, LIMIT_BYTES, whole_seconds};
use crate::queue::QueueError;

/// What a request takes.
const BATCH: usize = 10;

/// What became of a part of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// SQS knows the handle no more: the lease has run out, or the message is gone.
    Lost,
}

impl Api {
    /// Sends in this order.
    ///
    /// No request holds two messages of one group: SQS may refuse one of a batch and take the next,
    /// and sending the first again would put it behind.
    pub(super) async fn send(&self, url: &str, messages: &[Outgoing]) -> Result<(), QueueError> {
        for batch in batches(messages) {
            let mut entries = Vec::with_capacity(batch.len());
            for (index, message) in batch.iter().enumerate() {
                let entry = SendMessageBatchRequestEntry::builder()
                    .id(index.to_string())
                    .message_body(&message.body)
                    .set_message_attributes(Some(message.attributes.clone()))
                    .message_group_id(&message.group_id)
                    .message_deduplication_id(&message.deduplication_id);
                entries.push(entry.build().map_err(|error| built(&error))?);
            }
            let request = self.client.send_message_batch().queue_url(url);
            let answer = request.set_entries(Some(entries)).send().await;
            let answer = answer.map_err(|error| sorted(&error))?;
            if let Some(failed) = answer.failed().first() {
                return Err(failure(failed));
            }
        }
        Ok(())
    }

    /// Takes up to `max` messages, at most ten, and hides them for `lease`.
    pub(super) async fn receive(
        &self,
        url: &str,
        max: usize,
        lease: Duration,
        wait_s: u64,
    ) -> Result<Vec<Incoming>, QueueError> {
        let max = i32::try_from(max).unwrap_or(self.address.batch);
        let request = self.client.receive_message().queue_url(url);
        let request = request
            .max_number_of_messages(max.clamp(1, self.address.batch))
            .visibility_timeout(whole_seconds(lease))
            .wait_time_seconds(i32::try_from(wait_s).unwrap_or(20))
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .message_attribute_names("All");
        let answer = request.send().await.map_err(|error| sorted(&error))?;
        let messages = answer.messages.unwrap_or_default();
        Ok(messages.into_iter().filter_map(Incoming::read).collect())
    }

    /// Deletes messages.
    pub(super) async fn delete(
        &self,
        url: &str,
        handles: &[String],
    ) -> Result<Vec<Outcome>, QueueError> {
        let mut outcomes = Vec::with_capacity(handles.len());
        for batch in handles.chunks(BATCH) {
            let mut entries = Vec::with_capacity(batch.len());
            for (index, handle) in batch.iter().enumerate() {
                let entry = DeleteMessageBatchRequestEntry::builder()
                    .id(index.to_string())
                    .receipt_handle(handle);
                entries.push(entry.build().map_err(|error| built(&error))?);
            }
            let request = self.client.delete_message_batch().queue_url(url);
            let answer = request.set_entries(Some(entries)).send().await;
            let answer = answer.map_err(|error| sorted(&error))?;
            outcomes.extend(told(batch.len(), answer.failed())?);
        }
        Ok(outcomes)
    }

    /// Hides messages for other times than they are hidden now; 0 shows them.
    pub(super) async fn hide(
        &self,
        url: &str,
        handles: &[(String, i32)],
    ) -> Result<Vec<Outcome>, QueueError> {
        let mut outcomes = Vec::with_capacity(handles.len());
        for batch in handles.chunks(BATCH) {
            let mut entries = Vec::with_capacity(batch.len());
            for (index, (handle, seconds)) in batch.iter().enumerate() {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
                    .id(index.to_string())
                    .receipt_handle(handle)
                    .visibility_timeout(*seconds);
                entries.push(entry.build().map_err(|error| built(&error))?);
            }
            let request = self.client.change_message_visibility_batch().queue_url(url);
            let answer = request.set_entries(Some(entries)).send().await;
            let answer = answer.map_err(|error| sorted(&error))?;
            outcomes.extend(told(batch.len(), answer.failed())?);
        }
        Ok(outcomes)
    }
}

fn batches(messages: &[Outgoing]) -> Vec<&[Outgoing]> {
    let mut batches = Vec::new();
    let mut begin = 0;
    let (mut groups, mut bytes) = (HashSet::new(), 0);
    for (index, message) in messages.iter().enumerate() {
        let full = index - begin == BATCH || bytes + message.bytes > LIMIT_BYTES;
        if index > begin && (full || groups.contains(message.group_id.as_str())) {
            batches.push(&messages[begin..index]);
            (begin, bytes) = (index, 0);
            groups.clear();
        }
        groups.insert(message.group_id.as_str());
        bytes += message.bytes;
    }
    if begin < messages.len() {
        batches.push(&messages[begin..]);
    }
    batches
}

/// What SQS says of each part of a batch.
fn told(parts: usize, failed: &[BatchResultErrorEntry]) -> Result<Vec<Outcome>, QueueError> {
    let mut outcomes = vec![Outcome::Done; parts];
    for failed in failed {
        let code = failed.code();
        let lost = ["ReceiptHandle", "InvalidParameterValue", "NotInflight"];
        if !lost.iter().any(|lost| code.contains(lost)) {
            return Err(failure(failed));
        }
        if let Some(outcome) = failed
            .id()
            .parse()
            .ok()
            .and_then(|index: usize| outcomes.get_mut(index))
        {
            *outcome = Outcome::Lost;
        }
    }
    Ok(outcomes)
}

fn failure(failed: &BatchResultErrorEntry) -> QueueError {
    let reason = format!(
        "{}: {}",
        failed.code(),
        failed.message().unwrap_or_default()
    );
    match failed.sender_fault() && !is_throttle(failed.code()) {
        true => QueueError::Refused {
            broker: BROKER,
            reason,
        },
        false => unavailable(reason),
    }
}

/// A request that lacks something is a mistake of ours; told and not panicked.
fn built(error: &dyn std::error::Error) -> QueueError {
    QueueError::Refused {
        broker: BROKER,
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Message;

    fn message(key: Option<&str>, bytes: usize) -> Outgoing {
        let mut message = Message::new("x".repeat(bytes));
        message.key = key.map(str::to_owned);
        Outgoing::new(&message, 0).unwrap()
    }

    #[test]
    fn a_request_holds_ten_messages_and_one_of_each_key_and_no_more_bytes_than_it_may() {
        let sizes = |messages: &[Outgoing]| {
            let batches = batches(messages);
            assert_eq!(batches.concat().len(), messages.len());
            batches.iter().map(|batch| batch.len()).collect::<Vec<_>>()
        };
        assert!(sizes(&[]).is_empty());
        let plain: Vec<_> = (0..25).map(|_| message(None, 1)).collect();
        assert_eq!(sizes(&plain), [10, 10, 5]);
        let keys = ["a", "b", "a", "a", "c"].map(|key| message(Some(key), 1));
        assert_eq!(sizes(&keys), [2, 1, 2]);
        let large = [100_000, 100_000, 100_000, 250_000].map(|bytes| message(None, bytes));
        assert_eq!(sizes(&large), [2, 1, 1]);
    }

    #[test]
    fn a_handle_that_is_no_more_is_lost_and_any_other_failure_is_one() {
        let failed = |id: &str, code: &str| {
            let entry = BatchResultErrorEntry::builder();
            let entry = entry.id(id).code(code).sender_fault(true);
            entry.build().unwrap()
        };
        let outcomes = told(2, &[failed("1", "ReceiptHandleIsInvalid")]).unwrap();
        assert_eq!(outcomes, [Outcome::Done, Outcome::Lost]);
        assert!(
            told(1, &[failed("0", "RequestThrottled")])
                .unwrap_err()
                .is_transient()
        );
        assert!(
            !told(1, &[failed("0", "AccessDenied")])
                .unwrap_err()
                .is_transient()
        );
    }
}
