//! What travels: a message on its way in, a delivery on its way out, and the receipt by which a
//! delivery is settled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::QueueError;

/// Names of headers that this crate gives a meaning.
pub mod header {
    /// W3C Trace Context: where the publisher's span is, for the consumer to link to.
    pub const TRACEPARENT: &str = "traceparent";
    /// W3C Trace Context: what vendors add.
    pub const TRACESTATE: &str = "tracestate";
    /// The request on whose behalf the message was published.
    pub const REQUEST_ID: &str = "x-request-id";
    /// The payload's media type.
    pub const CONTENT_TYPE: &str = "content-type";
}

/// Something to be done, as its publisher hands it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Names the message, not the delivery: it is the same at every attempt and in every group.
    /// A publisher that may publish twice chooses it, and a consumer remembers it.
    pub id: Uuid,
    /// Messages of the same key are handled in the order in which they were published, and never
    /// two at a time: see [`KeyOrder`](super::KeyOrder). Without a key there is no order.
    /// At most 255 bytes, not empty.
    pub key: Option<String>,
    /// Opaque to the broker.
    pub payload: Bytes,
    /// Small facts beside the payload. Names are ASCII letters in lower case, digits, `-` and `_`.
    pub headers: BTreeMap<String, String>,
    /// How long nobody gets it. With a key, later messages of that key wait for it as well.
    pub delay: Duration,
    /// Higher goes first, where the broker can; 0 unless said otherwise. Never against the order of
    /// a key.
    pub priority: u8,
}

impl Message {
    /// A message with a new id, whose order is that of time (UUID version 7).
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            id: Uuid::now_v7(),
            key: None,
            payload: payload.into(),
            headers: BTreeMap::new(),
            delay: Duration::ZERO,
            priority: 0,
        }
    }

    /// A message whose payload is JSON, and whose content type says so.
    ///
    /// # Errors
    /// `Invalid` if the value cannot be written as JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, QueueError> {
        let payload = serde_json::to_vec(value).map_err(|error| QueueError::Invalid {
            what: "the payload".to_owned(),
            reason: format!("it cannot be written as JSON: {error}"),
        })?;
        Ok(Self::new(payload).header(header::CONTENT_TYPE, "application/json"))
    }

    /// The payload, read as JSON.
    ///
    /// # Errors
    /// `Invalid`: no attempt will read it, so the message is one for the dead letters.
    pub fn read_json<T: DeserializeOwned>(&self) -> Result<T, QueueError> {
        serde_json::from_slice(&self.payload).map_err(|error| QueueError::Invalid {
            what: format!("the payload of message {}", self.id),
            reason: format!("it is not the JSON that was expected: {error}"),
        })
    }

    /// With this id in place of a new one.
    #[must_use]
    pub fn id(mut self, id: Uuid) -> Self {
        self.id = id;
        self
    }

    /// In order with the others of this key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Not before this time has passed.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Before others of a lower priority.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// Payload, key and headers, which is what brokers limit.
    pub fn size_bytes(&self) -> usize {
        let headers = self.headers.iter();
        self.payload.len()
            + self.key.as_ref().map_or(0, String::len)
            + headers
                .map(|(name, value)| name.len() + value.len())
                .sum::<usize>()
    }

    /// Refuses what some broker could not carry, so that a program that works with one works with
    /// all. Backends call it first in `publish`.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn check(&self) -> Result<(), QueueError> {
        let refuse = |what: &str, reason: &str| {
            Err(QueueError::Invalid {
                what: format!("{what} of message {}", self.id),
                reason: reason.to_owned(),
            })
        };
        if let Some(key) = &self.key {
            if key.is_empty() || key.len() > 255 {
                return refuse("the key", "it takes 1 to 255 bytes");
            }
            if key.contains('\0') {
                return refuse("the key", "it may not hold the character NUL");
            }
        }
        for (name, value) in &self.headers {
            let allowed = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
            };
            if name.is_empty() || name.len() > 128 || !name.bytes().all(allowed) {
                return refuse(
                    &format!("the header name {name:?}"),
                    "it takes 1 to 128 of a-z, 0-9, - and _",
                );
            }
            if value.contains('\0') {
                return refuse(
                    &format!("the header {name}"),
                    "it may not hold the character NUL",
                );
            }
        }
        Ok(())
    }

    /// [`check`](Self::check), and whether it is small enough for this broker.
    pub(super) fn check_fits(&self, broker: &'static str, limit: usize) -> Result<(), QueueError> {
        self.check()?;
        match self.size_bytes() {
            bytes if bytes > limit => Err(QueueError::TooLarge {
                broker,
                bytes,
                limit,
            }),
            _ => Ok(()),
        }
    }
}

/// By what a delivery is settled. It names this delivery, not the message: after the lease has run
/// out it is worth nothing, whoever holds it (fencing).
///
/// Backends put into it what they need; nobody else looks inside.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Receipt {
    place: i64,
    token: i64,
    text: Option<Arc<str>>,
}

impl Receipt {
    /// Where the message is, and the token that the broker compares when it is settled.
    pub fn new(place: i64, token: i64) -> Self {
        Self {
            place,
            token,
            text: None,
        }
    }

    /// With a text, for brokers whose handles are texts.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<Arc<str>>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// The first argument of `new`.
    pub fn place(&self) -> i64 {
        self.place
    }

    /// The second argument of `new`.
    pub fn token(&self) -> i64 {
        self.token
    }

    /// The text, or an empty one.
    pub fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }
}

/// A message in the hands of one consumer, until its lease runs out.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// As it was published; `delay` is zero.
    pub message: Message,
    /// For settling this delivery.
    pub receipt: Receipt,
    /// 1 at the first attempt. Counted by the broker before it hands the message out, so that it
    /// counts those that ended with the death of the consumer.
    pub attempt: u32,
    /// When it was published, by the broker's clock. Attempts do not change it.
    pub first_enqueued_at: SystemTime,
    /// Whether it may have been handed out before.
    pub redelivered: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_some_broker_could_not_carry_is_refused() {
        let fine = Message::new("x").key("k").header("x-request-id", "a b ü");
        fine.check().unwrap();
        let long = "k".repeat(256);
        for bad in [
            Message::new("x").key(""),
            Message::new("x").key(long),
            Message::new("x").key("a\0b"),
            Message::new("x").header("", "v"),
            Message::new("x").header("Upper", "v"),
            Message::new("x").header("dot.ted", "v"),
            Message::new("x").header("h", "a\0b"),
        ] {
            let error = bad.check().unwrap_err();
            assert!(!error.is_transient(), "{error}");
        }
    }

    #[test]
    fn json_comes_back_as_it_went_in() {
        let message = Message::json(&vec![1, 2, 3]).unwrap();
        assert_eq!(message.headers[header::CONTENT_TYPE], "application/json");
        assert_eq!(message.read_json::<Vec<i32>>().unwrap(), [1, 2, 3]);
        let error = message.read_json::<String>().unwrap_err().to_string();
        assert!(error.contains(&message.id.to_string()), "{error}");
    }

    #[test]
    fn the_size_counts_payload_key_and_headers() {
        let message = Message::new("1234").key("56").header("ab", "c");
        assert_eq!(message.size_bytes(), 9);
    }
}
