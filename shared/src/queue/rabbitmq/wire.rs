//! What a message looks like on the wire, and how it is read back, whoever sent it.
//!
//! Headers of the message are headers on the wire. Ours have a dot in their names, which a message's
//! cannot have, so neither can be mistaken for the other.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::queue::{Message, header};

const KEY: &str = "queue.key";
const AT: &str = "queue.published-ms";
const DUE: &str = "queue.due-ms";
const ATTEMPTS: &str = "queue.attempts";
const HANDED: &str = "queue.handed-out";
const ERROR: &str = "queue.error";
const LETTER: &str = "queue.letter";
const REASON: &str = "queue.reason";
const DIED: &str = "queue.died-ms";

/// What the broker itself puts among the headers.
const BROKERS: [&str; 8] = [
    "x-death",
    "x-delivery-count",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
];

/// A message with what we know of its life so far.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Letter {
    pub(super) message: Message,
    /// Attempts that were made.
    pub(super) attempts: u32,
    /// How many of them the broker counted in the queue that it came from.
    pub(super) counted: u32,
    /// Whether it may have been handed out before.
    pub(super) handed: bool,
    pub(super) at: SystemTime,
    /// Nobody gets it earlier.
    pub(super) due: Option<SystemTime>,
    /// What went wrong last.
    pub(super) error: Option<String>,
    pub(super) death: Option<Death>,
}

/// Why it was given up.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Death {
    pub(super) id: String,
    pub(super) reason: String,
    pub(super) at: SystemTime,
}

impl Letter {
    /// A message as its publisher hands it in.
    pub(super) fn new(message: &Message, now: SystemTime) -> Self {
        let mut message = message.clone();
        let delay = std::mem::take(&mut message.delay);
        Self {
            message,
            attempts: 0,
            counted: 0,
            handed: false,
            at: now,
            due: due(now, delay),
            error: None,
            death: None,
        }
    }

    /// Another attempt was made, and failed.
    pub(super) fn failed(&mut self, error: String) {
        self.attempts = self.attempts.saturating_add(1);
        self.handed = true;
        self.error = Some(error);
    }

    pub(super) fn properties(&self) -> BasicProperties {
        let mut headers = FieldTable::default();
        let mut put = |name: &str, value: AMQPValue| {
            headers.insert(name.into(), value);
        };
        for (name, value) in &self.message.headers {
            put(name, text(value));
        }
        put(AT, AMQPValue::LongLongInt(to_ms(self.at)));
        if let Some(key) = &self.message.key {
            put(KEY, text(key));
        }
        if let Some(due) = self.due {
            put(DUE, AMQPValue::LongLongInt(to_ms(due)));
        }
        if self.attempts > 0 {
            put(ATTEMPTS, AMQPValue::LongLongInt(self.attempts.into()));
        }
        if self.handed {
            put(HANDED, AMQPValue::Boolean(true));
        }
        if let Some(error) = &self.error {
            put(ERROR, text(error));
        }
        if let Some(death) = &self.death {
            put(LETTER, text(&death.id));
            put(REASON, text(&death.reason));
            put(DIED, AMQPValue::LongLongInt(to_ms(death.at)));
        }
        let id = ShortString::from(self.message.id.to_string());
        let mut properties = BasicProperties::default()
            // On disk.
            .with_delivery_mode(2)
            .with_message_id(id)
            .with_priority(self.message.priority)
            .with_headers(headers);
        let kind = self.message.headers.get(header::CONTENT_TYPE);
        if let Some(kind) = kind.filter(|kind| kind.len() <= 255) {
            properties = properties.with_content_type(kind.as_str().into());
        }
        properties
    }

    /// What somebody sent. Other programs may send to our queues too, so whatever is missing is made
    /// up, and nothing is refused.
    pub(super) fn read(delivery: Delivery) -> Self {
        let properties = delivery.properties;
        let none = FieldTable::default();
        let headers = properties.headers().as_ref().unwrap_or(&none).inner();
        let number = |name: &str| headers.get(name).and_then(integer);
        let string = |name: &str| headers.get(name).and_then(string);
        let time = |name: &str| number(name).map(from_ms);
        let counted = number("x-delivery-count").unwrap_or(0);
        let attempts = number(ATTEMPTS).unwrap_or(0).saturating_add(counted);
        let id = properties.message_id().as_ref();
        let id = id.and_then(|id| Uuid::parse_str(id.as_str()).ok());
        let death = string(LETTER).map(|id| Death {
            id,
            reason: string(REASON).unwrap_or_default(),
            at: time(DIED).unwrap_or(SystemTime::UNIX_EPOCH),
        });
        let mut letter = Self {
            message: Message::new(Bytes::new()),
            attempts: u32::try_from(attempts).unwrap_or(0),
            counted: u32::try_from(counted).unwrap_or(0),
            handed: delivery.redelivered || attempts > 0 || headers.contains_key(HANDED),
            at: time(AT).unwrap_or_else(SystemTime::now),
            due: time(DUE),
            error: string(ERROR),
            death,
        };
        // The same at every attempt, which is what an id is for.
        letter.message.id = id.unwrap_or_else(|| same_id(&delivery.data));
        letter.message.key = string(KEY).filter(|key| !key.is_empty());
        letter.message.priority = properties.priority().unwrap_or(0);
        for (name, value) in headers {
            let name = name.as_str();
            if let Some(value) = self::string(value)
                && !name.contains('.')
                && !BROKERS.contains(&name)
            {
                letter.message.headers.insert(name.to_owned(), value);
            }
        }
        letter.message.payload = Bytes::from(delivery.data);
        letter
    }
}

/// When it is due, if later than now.
pub(super) fn due(now: SystemTime, delay: Duration) -> Option<SystemTime> {
    // A year from which nobody will ask what became of it.
    let delay = delay.min(Duration::from_secs(1_000_000_000_000));
    (!delay.is_zero()).then(|| now + delay)
}

fn same_id(payload: &[u8]) -> Uuid {
    let digest = Sha256::digest(payload);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn string(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

fn integer(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::LongLongInt(number) => Some(*number),
        AMQPValue::LongInt(number) => Some((*number).into()),
        AMQPValue::LongUInt(number) => Some((*number).into()),
        AMQPValue::ShortInt(number) => Some((*number).into()),
        AMQPValue::ShortShortInt(number) => Some((*number).into()),
        _ => None,
    }
}

/// Rounded up, so that nothing is early.
fn to_ms(time: SystemTime) -> i64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

fn from_ms(ms: i64) -> SystemTime {
    // Within what the type can hold on every system.
    let ms = u64::try_from(ms).unwrap_or(0).min(1_000_000_000_000_000);
    SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(letter: &Letter) -> Delivery {
        let data = letter.message.payload.to_vec();
        let mut delivery = Delivery::mock(1, "".into(), "".into(), false, data);
        delivery.properties = letter.properties();
        delivery
    }

    #[test]
    fn a_letter_is_read_as_it_was_written() {
        let message = Message::new(&b"\0\xff"[..])
            .key("k")
            .header("content-type", "text/plain")
            .header("x-request-id", "ä")
            .priority(3)
            .delay(Duration::from_secs(1));
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_524_010_123);
        let mut letter = Letter::new(&message, now);
        assert_eq!(letter.due, Some(now + Duration::from_secs(1)));
        assert_eq!(Letter::read(sent(&letter)), letter);
        letter.attempts = 2;
        letter.handed = true;
        letter.error = Some("no".to_owned());
        letter.death = Some(Death {
            id: "7".to_owned(),
            reason: "because".to_owned(),
            at: now,
        });
        assert_eq!(Letter::read(sent(&letter)), letter);
    }

    #[test]
    fn what_the_broker_counted_is_added() {
        let mut letter = Letter::new(&Message::new("x"), SystemTime::now());
        letter.attempts = 2;
        let mut delivery = sent(&letter);
        let mut headers = delivery.properties.headers().clone().unwrap();
        headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(3));
        delivery.properties = delivery.properties.with_headers(headers);
        let read = Letter::read(delivery);
        assert_eq!((read.attempts, read.handed), (5, true));
        assert!(
            read.message.headers.is_empty(),
            "{:?}",
            read.message.headers
        );
    }

    #[test]
    fn what_others_sent_has_the_same_id_at_every_attempt() {
        let foreign = |data: &str| Delivery::mock(1, "".into(), "".into(), false, data.into());
        let first = Letter::read(foreign("a")).message.id;
        assert_eq!(Letter::read(foreign("a")).message.id, first);
        assert_ne!(Letter::read(foreign("b")).message.id, first);
    }
}
