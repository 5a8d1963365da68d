//! librdkafka's errors as decisions.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::BROKER;
use crate::queue::QueueError;

/// What a caller can do about it.
pub(super) fn sorted(error: &KafkaError) -> QueueError {
    let code = code(error);
    let reason = match code {
        Some(code) => code.to_string(),
        None => error.to_string(),
    };
    match code {
        Some(code) if is_final(code) => QueueError::Refused {
            broker: BROKER,
            reason,
        },
        Some(_) => QueueError::Unavailable {
            broker: BROKER,
            reason,
        },
        None => QueueError::Refused {
            broker: BROKER,
            reason,
        },
    }
}

/// Asks for something that may be asked for twice, until there is an answer or no time left. Blocks.
///
/// librdkafka gives a request up at once if its connection breaks, as one does that is opened while
/// a broker starts or is very busy; asked again, it uses the next.
pub(super) fn asked<T>(
    timeout: Duration,
    mut ask: impl FnMut(Duration) -> Result<T, KafkaError>,
) -> Result<T, QueueError> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match ask(left.max(Duration::from_millis(1))).map_err(|error| sorted(&error)) {
            Err(error) if error.is_transient() && Instant::now() < deadline => {}
            answer => return answer,
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// librdkafka's code; the crate's own method leaves out an administrator's requests.
pub(super) fn code(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    }
}

pub(super) fn unavailable(reason: impl Into<String>) -> QueueError {
    QueueError::Unavailable {
        broker: BROKER,
        reason: reason.into(),
    }
}

/// No later attempt helps. All others may pass: elections, rebalances, a broker that starts.
fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedVersion
            | Code::InvalidConfig
            | Code::InvalidPartitions
            | Code::InvalidReplicationFactor
            | Code::InvalidTopic
            | Code::PolicyViolation
            | Code::OffsetMetadataTooLarge
            | Code::MessageSizeTooLarge
            | Code::InvalidArgument
            | Code::NotImplemented
            | Code::Fatal
    )
}
