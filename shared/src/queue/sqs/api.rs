//! The connection to SQS, and what is asked of queues: to make, find, count, empty and delete them.
//! What is asked of messages is in `messages`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{Credentials, Region};
use aws_sdk_sqs::types::QueueAttributeName;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use tokio::sync::Notify;

use super::address::Address;
use super::error::{sorted, unavailable};
use super::{BROKER, LIMIT_BYTES, names};
use crate::queue::{ConnectOptions, QueueError};

/// SQS's longest.
const RETENTION_S: &str = "1209600";

/// SQS's highest. Attempts are counted and ended by the consumer; this is for what kills everybody
/// who looks at it, before anybody can count.
const MOST_RECEIVES: u32 = 1_000;

pub(super) struct Api {
    pub(super) client: Client,
    pub(super) address: Address,
    create: bool,
    closed: AtomicBool,
    /// Wakes consumers that wait when the broker is closed.
    pub(super) closing: Notify,
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
}
