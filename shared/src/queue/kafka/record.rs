//! Messages as Kafka records, and back.
//!
//! Key and payload are the record's own, and so are headers, so that any Kafka client can read what
//! we publish and we can read what others publish. What Kafka has no field for stands in headers
//! with a dot in their name, which no header of a message can have.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::queue::{DeadLetter, Message};

const ID: &str = "q.id";
/// Not before this time, in milliseconds since 1970.
const DUE: &str = "q.due";
/// For this group alone: a dead letter that was put back.
const ONLY: &str = "q.only";
/// Why, and after how many attempts, a dead letter was given up.
const REASON: &str = "q.reason";
const ATTEMPTS: &str = "q.attempts";
/// The key of the message in a dead letter, whose record has another.
const KEY: &str = "q.key";

/// A record as a consumer needs it.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) message: Message,
    /// By the broker's clock if the topic says `LogAppendTime`, as ours do.
    pub(super) enqueued_at: SystemTime,
    /// 0 if at once.
    pub(super) due_ms: u64,
    /// `None` for every group.
    pub(super) only: Option<String>,
}

/// The headers of a message that is published, for one group or for all.
pub(super) fn headers(message: &Message, now_ms: u64, only: Option<&str>) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(message.headers.len() + 3);
    headers = with(headers, ID, &message.id.to_string());
    if !message.delay.is_zero() {
        let delay_ms = u64::try_from(message.delay.as_millis()).unwrap_or(u64::MAX);
        headers = with(headers, DUE, &now_ms.saturating_add(delay_ms).to_string());
    }
    if let Some(group) = only {
        headers = with(headers, ONLY, group);
    }
    for (name, value) in &message.headers {
        headers = with(headers, name, value);
    }
    headers
}

/// The headers of a dead letter.
pub(super) fn dead_headers(message: &Message, attempts: u32, reason: &str) -> OwnedHeaders {
    let mut headers = headers(message, 0, None);
    if let Some(key) = &message.key {
        headers = with(headers, KEY, key);
    }
    let headers = with(headers, ATTEMPTS, &attempts.to_string());
    with(headers, REASON, reason)
}

fn with(headers: OwnedHeaders, key: &str, value: &str) -> OwnedHeaders {
    headers.insert(Header {
        key,
        value: Some(value),
    })
}

/// Reads a record, whoever wrote it. What cannot be read as text is read as well as it can be: a
/// record that is refused would stop its partition for good.
pub(super) fn read(record: &BorrowedMessage<'_>) -> Taken {
    let mut parts = Parts::of(record);
    let number = |text: Option<String>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
    Taken {
        enqueued_at: time(record),
        due_ms: number(parts.own.remove(DUE)),
        only: parts.own.remove(ONLY),
        message: parts.message(record),
    }
}

/// Reads a dead letter; `None` for one that was taken away again, which has no payload.
pub(super) fn read_dead(record: &BorrowedMessage<'_>, id: String) -> Option<DeadLetter> {
    record.payload()?;
    let mut parts = Parts::of(record);
    let attempts = parts.own.remove(ATTEMPTS);
    let reason = parts.own.remove(REASON).unwrap_or_default();
    let mut message = parts.message(record);
    message.key = parts.own.remove(KEY);
    Some(DeadLetter {
        id,
        message,
        attempts: attempts.and_then(|text| text.parse().ok()),
        reason,
        died_at: Some(time(record)),
    })
}

struct Parts {
    own: BTreeMap<String, String>,
    theirs: BTreeMap<String, String>,
}

impl Parts {
    fn of(record: &BorrowedMessage<'_>) -> Self {
        let (mut own, mut theirs) = (BTreeMap::new(), BTreeMap::new());
        for header in record.headers().into_iter().flat_map(Headers::iter) {
            let value = String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned();
            let place = match header.key.starts_with("q.") {
                true => &mut own,
                false => &mut theirs,
            };
            place.insert(header.key.to_owned(), value);
        }
        Self { own, theirs }
    }

    fn message(&mut self, record: &BorrowedMessage<'_>) -> Message {
        let id = self.own.remove(ID).and_then(|text| text.parse().ok());
        let key = record
            .key()
            .map(|key| String::from_utf8_lossy(key).into_owned());
        Message {
            id: id.unwrap_or_else(|| id_of_place(record)),
            key: key.filter(|key| !key.is_empty()),
            payload: Bytes::copy_from_slice(record.payload().unwrap_or_default()),
            headers: std::mem::take(&mut self.theirs),
            delay: Duration::ZERO,
            priority: 0,
        }
    }
}

/// A record that another client published has no id. Its place names it just as well, and is the
/// same at every attempt and in every group.
fn id_of_place(record: &BorrowedMessage<'_>) -> Uuid {
    let place = format!(
        "{}/{}/{}",
        record.topic(),
        record.partition(),
        record.offset()
    );
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Sha256::digest(place)[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

fn time(record: &BorrowedMessage<'_>) -> SystemTime {
    let since = record.timestamp().to_millis();
    let since = since.and_then(|ms| u64::try_from(ms).ok());
    since.map_or_else(SystemTime::now, |ms| UNIX_EPOCH + Duration::from_millis(ms))
}

/// Now, in milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
