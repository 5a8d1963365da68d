//! SQS's requests, in the sizes that it takes: ten messages and 256 KiB at a time.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{Credentials, Region};
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry,
    DeleteMessageBatchRequestEntry, MessageSystemAttributeName, QueueAttributeName,
    SendMessageBatchRequestEntry,
};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use tokio::sync::Notify;

use super::address::Address;
use super::envelope::{Incoming, Outgoing};
use super::error::{is_throttle, sorted, unavailable};
use super::{BROKER, LIMIT_BYTES, names, whole_seconds};
use crate::queue::{ConnectOptions, QueueError};

/// What a request takes.
const BATCH: usize = 10;

/// SQS's longest.
const RETENTION_S: &str = "1209600";

/// SQS's highest. Attempts are counted and ended by the consumer; this is for what kills everybody
/// who looks at it, before anybody can count.
const MOST_RECEIVES: u32 = 1_000;

pub(super) struct Api {
    client: Client,
    pub(super) address: Address,
    create: bool,
    closed: AtomicBool,
    /// Wakes consumers that wait when the broker is closed.
    pub(super) closing: Notify,
}

/// What became of a part of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// SQS knows the handle no more: the lease has run out, or the message is gone.
    Lost,
}

impl Api {
    pub(super) async fn connect(
        address: Address,
        options: &ConnectOptions,
    ) -> Result<Arc<Self>, QueueError> {
        // ring, and not the SDK's own choice: half a minute of processor time less to build, and
        // one provider for the whole workspace.
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        // A request that waits for messages takes as long as it may wait.
        let poll = Duration::from_secs(address.long_poll_s);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(options.timeout)
            .operation_attempt_timeout(options.timeout + poll)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .region(Region::new(address.region.clone()))
            .endpoint_url(&address.endpoint)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard());
        if let Some((key, secret)) = &address.credentials {
            let credentials = Credentials::new(key, secret, None, None, "the address");
            loader = loader.credentials_provider(credentials);
        }
        let client = Client::new(&loader.load().await);
        let api = Self {
            client,
            address,
            create: options.create,
            closed: AtomicBool::new(false),
            closing: Notify::new(),
        };
        // Nothing was sent yet: whether anybody answers shows only now.
        let asked = api.list("none-such");
        match tokio::time::timeout(options.timeout, asked).await {
            Ok(asked) => asked.map(|_| Arc::new(api)),
            Err(_) => Err(unavailable(format!(
                "no answer from {} within {:?}",
                api.address.endpoint, options.timeout
            ))),
        }
    }

    pub(super) fn check_open(&self) -> Result<(), QueueError> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(QueueError::Closed { what: "broker" }),
            false => Ok(()),
        }
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.closing.notify_waiters();
    }

    // ------------------------------------------------------------------------------------- queues

    /// URLs of the queues whose names begin so.
    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<String>, QueueError> {
        let mut urls = Vec::new();
        let mut next = None;
        loop {
            let page = self.client.list_queues().queue_name_prefix(prefix);
            // Without a number there are no pages, and no more than a thousand.
            let page = page.max_results(1_000).set_next_token(next);
            let page = page.send().await.map_err(|error| sorted(&error))?;
            urls.extend(page.queue_urls().iter().cloned());
            next = page.next_token().map(str::to_owned);
            if next.is_none() {
                return Ok(urls);
            }
        }
    }

    /// A queue's URL; `None` if there is none.
    pub(super) async fn find(&self, name: &str) -> Result<Option<String>, QueueError> {
        match self.client.get_queue_url().queue_name(name).send().await {
            Ok(found) => Ok(found.queue_url().map(str::to_owned)),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_queue_does_not_exist()) =>
            {
                Ok(None)
            }
            Err(error) => Err(sorted(&error)),
        }
    }

    /// Makes a group's two queues if they are missing; the URL of the one with its messages.
    pub(super) async fn declare(&self, queue: &str, group: &str) -> Result<String, QueueError> {
        names::check(queue, group)?;
        let main = names::main(queue, group);
        if let Some(url) = self.find(&main).await? {
            return Ok(url);
        }
        if !self.create {
            return Err(QueueError::Refused {
                broker: BROKER,
                reason: format!("there is no queue {main}, and making one was switched off"),
            });
        }
        let dead = self.make(&names::dead(queue, group), None).await?;
        let arn = self.attribute(&dead, QueueAttributeName::QueueArn).await?;
        let policy =
            format!("{{\"deadLetterTargetArn\":\"{arn}\",\"maxReceiveCount\":{MOST_RECEIVES}}}");
        self.make(&main, Some(policy)).await
    }

    async fn make(&self, name: &str, redrive: Option<String>) -> Result<String, QueueError> {
        let mut request = self.client.create_queue().queue_name(name);
        for (attribute, value) in [
            (QueueAttributeName::FifoQueue, "true"),
            // Keys share no limit, and the same id under another key is another message.
            (QueueAttributeName::DeduplicationScope, "messageGroup"),
            (QueueAttributeName::FifoThroughputLimit, "perMessageGroupId"),
            (QueueAttributeName::MessageRetentionPeriod, RETENTION_S),
            (
                QueueAttributeName::MaximumMessageSize,
                &LIMIT_BYTES.to_string(),
            ),
        ] {
            request = request.attributes(attribute, value);
        }
        if let Some(policy) = redrive {
            request = request.attributes(QueueAttributeName::RedrivePolicy, policy);
        }
        let made = request.send().await.map_err(|error| sorted(&error))?;
        let url = made.queue_url().map(str::to_owned);
        url.ok_or_else(|| unavailable(format!("no URL for the queue {name}")))
    }

    async fn attribute(&self, url: &str, name: QueueAttributeName) -> Result<String, QueueError> {
        let request = self.client.get_queue_attributes().queue_url(url);
        let answer = request.attribute_names(name.clone()).send().await;
        let answer = answer.map_err(|error| sorted(&error))?;
        let value = answer.attributes().and_then(|all| all.get(&name)).cloned();
        value.ok_or_else(|| unavailable(format!("{url} does not tell its {name:?}")))
    }

    /// About how many messages can be seen, and how many are hidden.
    pub(super) async fn counts(&self, url: &str) -> Result<(u64, u64), QueueError> {
        let seen = QueueAttributeName::ApproximateNumberOfMessages;
        let hidden = QueueAttributeName::ApproximateNumberOfMessagesNotVisible;
        let request = self.client.get_queue_attributes().queue_url(url);
        let request = request.attribute_names(seen.clone());
        let answer = request.attribute_names(hidden.clone()).send().await;
        let answer = answer.map_err(|error| sorted(&error))?;
        let number = |name| {
            let text = answer.attributes().and_then(|all| all.get(&name));
            text.and_then(|text| text.parse().ok())
                .ok_or_else(|| unavailable(format!("{url} does not tell how much it holds")))
        };
        Ok((number(seen)?, number(hidden)?))
    }

    pub(super) async fn purge(&self, url: &str) -> Result<(), QueueError> {
        let purged = self.client.purge_queue().queue_url(url).send().await;
        purged.map(|_| ()).map_err(|error| sorted(&error))
    }

    pub(super) async fn delete_queue(&self, url: &str) -> Result<(), QueueError> {
        match self.client.delete_queue().queue_url(url).send().await {
            Ok(_) => Ok(()),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_queue_does_not_exist()) =>
            {
                Ok(())
            }
            Err(error) => Err(sorted(&error)),
        }
    }

    // ----------------------------------------------------------------------------------- messages

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
