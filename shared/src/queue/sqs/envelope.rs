//! Messages as SQS messages, and back.
//!
//! SQS carries text and at most ten attributes. A payload that is text is the body, so that other
//! programs can read it; any other is an attribute of bytes beside a body that says nothing. What
//! else there is stands in one attribute, as JSON.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_sqs::primitives::Blob;
use aws_sdk_sqs::types::{Message as Received, MessageAttributeValue, MessageSystemAttributeName};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::queue::{Message, QueueError};

/// The attributes' names.
const REST: &str = "queue";
const PAYLOAD: &str = "payload";

/// A body may not be empty.
const NO_TEXT: &str = "-";

/// All but the payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Rest {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    /// Not before this time, in milliseconds since 1970; 0 if at once.
    #[serde(default, skip_serializing_if = "is_zero")]
    due_ms: u64,
    payload: Place,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    death: Option<Death>,
}

/// Where the payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    Body,
    Attribute,
    /// An attribute may not be empty either.
    Nowhere,
}

/// Why a message was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Death {
    pub(super) reason: String,
    pub(super) attempts: u32,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What is sent.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub(super) body: String,
    pub(super) attributes: HashMap<String, MessageAttributeValue>,
    /// What SQS keeps in order.
    pub(super) group_id: String,
    pub(super) deduplication_id: String,
    /// As SQS counts it.
    pub(super) bytes: usize,
}

/// What came, and what SQS says of it.
#[derive(Debug, Clone)]
pub(super) struct Incoming {
    pub(super) message: Message,
    pub(super) handle: String,
    /// SQS's own name for it.
    pub(super) message_id: String,
    pub(super) sent_at: SystemTime,
    pub(super) due_ms: u64,
    pub(super) receives: u32,
    /// When it was first received, in milliseconds since 1970.
    pub(super) first_received_ms: u64,
    pub(super) death: Option<Death>,
}

impl Outgoing {
    pub(super) fn new(message: &Message, now_ms: u64) -> Result<Self, QueueError> {
        let delay_ms = u64::try_from(message.delay.as_millis()).unwrap_or(u64::MAX);
        let due_ms = match delay_ms {
            0 => 0,
            delay_ms => now_ms.saturating_add(delay_ms),
        };
        Self::build(message, due_ms, None)
    }

    /// A dead letter. It keeps nobody waiting, and has the same id however often it is sent for
    /// the same message.
    pub(super) fn dead(
        message: &Message,
        message_id: &str,
        death: Death,
    ) -> Result<Self, QueueError> {
        let mut outgoing = Self::build(message, 0, Some(death))?;
        outgoing.group_id = message_id.to_owned();
        outgoing.deduplication_id = message_id.to_owned();
        Ok(outgoing)
    }

    fn build(message: &Message, due_ms: u64, death: Option<Death>) -> Result<Self, QueueError> {
        let text = std::str::from_utf8(&message.payload);
        let text = text.ok().filter(|text| text.chars().all(is_allowed));
        let (payload, body) = match text {
            Some("") => (Place::Nowhere, NO_TEXT),
            Some(text) => (Place::Body, text),
            None => (Place::Attribute, NO_TEXT),
        };
        let rest = Rest {
            id: message.id.to_string(),
            key: message.key.clone(),
            headers: message.headers.clone(),
            due_ms,
            payload,
            death,
        };
        let rest = serde_json::to_vec(&rest).map_err(|error| QueueError::Invalid {
            what: format!("message {}", message.id),
            reason: error.to_string(),
        })?;
        let mut bytes = body.len() + REST.len() + BINARY.len() + rest.len();
        let mut attributes = HashMap::from([(REST.to_owned(), binary(rest)?)]);
        if payload == Place::Attribute {
            bytes += PAYLOAD.len() + BINARY.len() + message.payload.len();
            attributes.insert(PAYLOAD.to_owned(), binary(message.payload.to_vec())?);
        }
        Ok(Self {
            body: body.to_owned(),
            attributes,
            group_id: group_id(message),
            deduplication_id: message.id.to_string(),
            bytes,
        })
    }
}

impl Incoming {
    /// Reads a message, whoever sent it. `None` for one without a handle, which SQS never sends.
    pub(super) fn read(mut received: Received) -> Option<Self> {
        let handle = received.receipt_handle.take()?;
        let message_id = received.message_id.take().unwrap_or_default();
        let system = received.attributes.take().unwrap_or_default();
        let number = |name| system.get(&name).and_then(|text| text.parse::<u64>().ok());
        let sent_ms = number(MessageSystemAttributeName::SentTimestamp).unwrap_or(0);
        let receives = number(MessageSystemAttributeName::ApproximateReceiveCount).unwrap_or(1);
        let first = number(MessageSystemAttributeName::ApproximateFirstReceiveTimestamp);
        let mut attributes = received.message_attributes.take().unwrap_or_default();
        let mut bytes = |name: &str| {
            let value = attributes.remove(name)?.binary_value?;
            Some(value.into_inner())
        };
        let body = received.body.take().unwrap_or_default();
        let rest = bytes(REST).and_then(|rest| serde_json::from_slice::<Rest>(&rest).ok());
        // Another program sent it: its body is the payload, and SQS's names will do.
        let rest = rest.unwrap_or_else(|| Rest {
            id: message_id.clone(),
            key: system
                .get(&MessageSystemAttributeName::MessageGroupId)
                .cloned(),
            headers: BTreeMap::new(),
            due_ms: 0,
            payload: Place::Body,
            death: None,
        });
        let payload = match rest.payload {
            Place::Body => Bytes::from(body),
            Place::Attribute => bytes(PAYLOAD).map(Bytes::from).unwrap_or_default(),
            Place::Nowhere => Bytes::new(),
        };
        Some(Self {
            message: Message {
                id: rest.id.parse().unwrap_or_else(|_| hashed(&rest.id)),
                key: rest.key,
                payload,
                headers: rest.headers,
                delay: Duration::ZERO,
                priority: 0,
            },
            handle,
            message_id,
            sent_at: UNIX_EPOCH + Duration::from_millis(sent_ms),
            due_ms: rest.due_ms,
            receives: u32::try_from(receives).unwrap_or(u32::MAX),
            first_received_ms: first.unwrap_or(sent_ms),
            death: rest.death,
        })
    }

    /// Attempts begin when the message is due: one that was received early was hidden again.
    pub(super) fn attempt(&self) -> u32 {
        let early = u32::from(self.first_received_ms < self.due_ms);
        self.receives.saturating_sub(early).max(1)
    }
}

const BINARY: &str = "Binary";

fn binary(bytes: Vec<u8>) -> Result<MessageAttributeValue, QueueError> {
    let value = MessageAttributeValue::builder()
        .data_type(BINARY)
        .binary_value(Blob::new(bytes));
    value.build().map_err(|error| QueueError::Invalid {
        what: "an attribute".to_owned(),
        reason: error.to_string(),
    })
}

/// A group id takes 1 to 128 letters, digits and punctuation marks of ASCII. A key that is none is
/// hashed; the letter in front keeps the three kinds apart.
fn group_id(message: &Message) -> String {
    match &message.key {
        None => format!("m{}", message.id),
        Some(key) if key.len() < 128 && key.bytes().all(|byte| byte.is_ascii_graphic()) => {
            format!("k{key}")
        }
        Some(key) => {
            let digest = Sha256::digest(key);
            let digits = digest.iter().map(|byte| format!("{byte:02x}"));
            format!("h{}", digits.collect::<String>())
        }
    }
}

fn hashed(text: &str) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Sha256::digest(text)[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// What may stand in a body (those of XML 1.0).
fn is_allowed(letter: char) -> bool {
    matches!(letter, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}')
        || letter >= '\u{10000}'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(message: &Message) -> Incoming {
        let outgoing = Outgoing::new(message, 1_000).unwrap();
        let received = Received::builder()
            .receipt_handle("h")
            .message_id("m")
            .body(outgoing.body)
            .set_message_attributes(Some(outgoing.attributes))
            .attributes(MessageSystemAttributeName::SentTimestamp, "1000")
            .attributes(MessageSystemAttributeName::ApproximateReceiveCount, "2")
            .attributes(
                MessageSystemAttributeName::ApproximateFirstReceiveTimestamp,
                "1100",
            );
        Incoming::read(received.build()).unwrap()
    }

    #[test]
    fn any_payload_comes_back_and_text_can_be_read_by_others() {
        for payload in [
            &b""[..],
            b"-",
            b"{\"a\":1}",
            b"\x00\xff",
            "ä\u{fffe}".as_bytes(),
        ] {
            let message = Message::new(payload.to_vec()).key("k ü").header("a", "b");
            assert_eq!(there_and_back(&message).message, message);
        }
        let json = Outgoing::new(&Message::new("{\"a\":1}"), 0).unwrap();
        assert_eq!(json.body, "{\"a\":1}");
    }

    #[test]
    fn a_receive_that_was_too_early_is_no_attempt() {
        let punctual = there_and_back(&Message::new("x"));
        assert_eq!((punctual.due_ms, punctual.attempt()), (0, 2));
        let delayed = there_and_back(&Message::new("x").delay(Duration::from_millis(500)));
        assert_eq!((delayed.due_ms, delayed.attempt()), (1_500, 1));
    }

    #[test]
    fn every_key_is_a_group_that_sqs_takes_and_no_two_are_the_same() {
        let message = Message::new("x");
        let mut seen = std::collections::HashSet::new();
        assert!(seen.insert(group_id(&message)));
        for key in [
            "a",
            "A",
            "a b",
            "ü",
            &"k".repeat(127),
            &"k".repeat(128),
            &"k".repeat(255),
        ] {
            let id = group_id(&message.clone().key(key));
            assert!(id.len() <= 128 && id.bytes().all(|byte| byte.is_ascii_graphic()));
            assert!(seen.insert(id));
        }
    }

    #[test]
    fn what_another_program_sent_is_read_as_it_is() {
        let received = Received::builder()
            .receipt_handle("h")
            .message_id("0192f7a0-0000-7000-8000-000000000001")
            .body("hello")
            .attributes(MessageSystemAttributeName::MessageGroupId, "g");
        let read = Incoming::read(received.build()).unwrap();
        assert_eq!(
            read.message.id.to_string(),
            "0192f7a0-0000-7000-8000-000000000001"
        );
        assert_eq!(&read.message.payload[..], b"hello");
        assert_eq!(read.message.key.as_deref(), Some("g"));
    }
}
