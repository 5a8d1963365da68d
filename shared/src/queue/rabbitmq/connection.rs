//! A connection that is made anew when it broke, and how errors are read.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind};
use tokio::sync::Mutex;

use super::BROKER;
use crate::queue::QueueError;

/// One connection for many channels.
pub(super) struct Link {
    url: String,
    name: String,
    timeout: Duration,
    current: Mutex<Option<Arc<Connection>>>,
    closed: AtomicBool,
}

impl Link {
    pub(super) fn new(url: &str, name: String, timeout: Duration) -> Self {
        Self {
            url: url.to_owned(),
            name,
            timeout,
            current: Mutex::new(None),
            closed: AtomicBool::new(false),
        }
    }

    /// The connection, made anew if it is not usable.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>, QueueError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(QueueError::Closed { what: "broker" });
        }
        let mut current = self.current.lock().await;
        if let Some(connection) = current.as_ref().filter(|one| one.status().connected()) {
            return Ok(Arc::clone(connection));
        }
        let properties =
            ConnectionProperties::default().with_connection_name(self.name.as_str().into());
        let connection = self
            .within(Connection::connect(&self.url, properties))
            .await?;
        let connection = Arc::new(connection);
        *current = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// A new channel. An error closes a channel, so each kind of work has its own.
    pub(super) async fn channel(&self) -> Result<Channel, QueueError> {
        let connection = self.connection().await?;
        self.within(connection.create_channel()).await
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Waits for an answer for as long as a caller of ours was told.
    pub(super) async fn within<T>(
        &self,
        work: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, QueueError> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(answer) => answer.map_err(|error| failed(&error)),
            Err(_) => Err(silent(self.timeout)),
        }
    }

    pub(super) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if let Some(connection) = self.current.lock().await.take() {
            let closing = connection.close(200, "done".into());
            // Nobody waits for the answer of a broker that may be gone.
            let _ = tokio::time::timeout(self.timeout, closing).await;
        }
    }
}

pub(super) fn silent(limit: Duration) -> QueueError {
    QueueError::Unavailable {
        broker: BROKER,
        reason: format!("it said nothing for {} ms", limit.as_millis()),
    }
}

pub(super) fn failed(error: &lapin::Error) -> QueueError {
    let (broker, reason) = (BROKER, error.to_string());
    let refused = match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            // What somebody deleted may be declared again, also by us.
            AMQPErrorKind::Soft(soft) => !matches!(
                soft,
                AMQPSoftError::RESOURCELOCKED | AMQPSoftError::NOTFOUND
            ),
            AMQPErrorKind::Hard(hard) => hard.get_id() >= 500 && hard.get_id() != 541,
        },
        ErrorKind::InvalidProtocolVersion(_) | ErrorKind::AuthProviderError(_) => true,
        _ => false,
    };
    match refused {
        true => QueueError::Refused { broker, reason },
        false => QueueError::Unavailable { broker, reason },
    }
}
