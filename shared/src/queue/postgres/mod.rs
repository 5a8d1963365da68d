//! PostgreSQL as a broker. Not built yet: connecting says so.

use std::sync::Arc;

use super::{Broker, ConnectOptions, QueueError};

/// Connects.
///
/// # Errors
/// `Unsupported`, until the backend is there.
pub(super) async fn connect(
    _url: &str,
    _options: &ConnectOptions,
) -> Result<Arc<dyn Broker>, QueueError> {
    Err(QueueError::Unsupported {
        broker: "PostgreSQL",
        what: "be used in this version: its backend is not built yet".to_owned(),
    })
}
