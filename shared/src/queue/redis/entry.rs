//! What a message looks like in a stream, and how it is read back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use redis::{Cmd, Value};
use uuid::Uuid;

use super::BROKER;
use crate::queue::{DeadLetter, Delivery, Message, QueueError, Receipt};

/// Among the headers, under a name that no header can have.
const PRIORITY: &str = "!priority";

/// Which of a group's two streams an entry is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// What waited before: read first.
    Again,
    /// What is new.
    Ready,
}

impl Stream {
    /// How the scripts call it.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Self::Again => "1",
            Self::Ready => "0",
        }
    }
}

/// Appends a message to the arguments of `publish.lua`.
pub(super) fn push(command: &mut Cmd, message: &Message) -> Result<(), QueueError> {
    let mut head: BTreeMap<&str, &str> = BTreeMap::new();
    head.extend(
        message
            .headers
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str())),
    );
    let priority = message.priority.to_string();
    if message.priority > 0 {
        head.insert(PRIORITY, &priority);
    }
    let head = match head.is_empty() {
        true => String::new(),
        false => serde_json::to_string(&head).map_err(|error| QueueError::Invalid {
            what: format!("the headers of message {}", message.id),
            reason: error.to_string(),
        })?,
    };
    command
        .arg(message.id.to_string())
        .arg(message.key.as_deref().unwrap_or_default())
        .arg(head)
        .arg(&message.payload[..])
        .arg(milliseconds(message.delay));
    Ok(())
}

/// Whole milliseconds, rounded up so that nothing is early; at most 30,000 years, so that a script
/// can add them to the time without losing digits.
pub(super) fn milliseconds(time: Duration) -> u64 {
    let ms = time.as_nanos().div_ceil(1_000_000);
    u64::try_from(ms)
        .unwrap_or(u64::MAX)
        .min(1_000_000_000_000_000)
}

/// By which a delivery is found again: its stream and id there, and its key.
pub(super) fn receipt(stream: Stream, id: &str, key: Option<&str>) -> Result<Receipt, QueueError> {
    let (ms, sequence) = id
        .split_once('-')
        .and_then(|(ms, sequence)| Some((ms.parse().ok()?, sequence.parse::<i64>().ok()?)))
        .ok_or_else(|| unreadable(&format!("the entry id {id:?}")))?;
    let again = i64::from(stream == Stream::Again);
    let receipt = Receipt::new(ms, sequence * 2 + again);
    Ok(match key {
        Some(key) => receipt.with_text(Arc::from(key)),
        None => receipt,
    })
}

/// The other way round: the stream and the id there.
pub(super) fn place(receipt: &Receipt) -> (Stream, String) {
    let stream = match receipt.token() & 1 {
        1 => Stream::Again,
        _ => Stream::Ready,
    };
    (
        stream,
        format!("{}-{}", receipt.place(), receipt.token() >> 1),
    )
}

/// One entry: its id, and its values by name.
pub(super) struct Entry {
    pub(super) id: String,
    values: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    pub(super) fn read(value: Value) -> Result<Self, QueueError> {
        let read = || {
            let Value::Array(pair) = value else {
                return None;
            };
            let [id, Value::Array(flat)] = <[Value; 2]>::try_from(pair).ok()? else {
                return None;
            };
            let mut values = Vec::with_capacity(flat.len() / 2);
            let mut flat = flat.into_iter();
            while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
                values.push((bytes(name)?, bytes(value)?));
            }
            let id = String::from_utf8(bytes(id)?).ok()?;
            Some(Self { id, values })
        };
        read().ok_or_else(|| unreadable("an entry"))
    }

    /// Several of them.
    pub(super) fn read_all(value: Value) -> Result<Vec<Self>, QueueError> {
        match value {
            Value::Array(entries) => entries.into_iter().map(Self::read).collect(),
            Value::Nil => Ok(Vec::new()),
            _ => Err(unreadable("a list of entries")),
        }
    }

    pub(super) fn delivery(mut self, stream: Stream) -> Result<Delivery, QueueError> {
        let message = self.message()?;
        let tries: u32 = self.number("tries")?;
        Ok(Delivery {
            receipt: receipt(stream, &self.id, message.key.as_deref())?,
            attempt: tries.saturating_add(1),
            first_enqueued_at: time(self.number("at")?),
            redelivered: self.number::<u8>("handed")? != 0,
            message,
        })
    }

    pub(super) fn dead_letter(mut self) -> Result<DeadLetter, QueueError> {
        let died_at = self.id.split('-').next().and_then(|ms| ms.parse().ok());
        Ok(DeadLetter {
            message: self.message()?,
            attempts: self.number("tries").ok(),
            reason: self.text("reason")?,
            died_at: died_at.map(time),
            id: self.id,
        })
    }

    fn message(&mut self) -> Result<Message, QueueError> {
        let id = self.text("id")?;
        let id = Uuid::parse_str(&id).map_err(|_| unreadable(&format!("the id {id:?}")))?;
        let key = Some(self.text("key")?).filter(|key| !key.is_empty());
        let head = self.text("head")?;
        let mut headers: BTreeMap<String, String> = match head.is_empty() {
            true => BTreeMap::new(),
            false => serde_json::from_str(&head).map_err(|_| unreadable("the headers"))?,
        };
        let priority = headers.remove(PRIORITY);
        let priority = priority.and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut message = Message::new(self.take("body")?).id(id).priority(priority);
        message.key = key;
        message.headers = headers;
        Ok(message)
    }

    fn take(&mut self, name: &str) -> Result<Vec<u8>, QueueError> {
        let found = self.values.iter_mut().find(|(n, _)| n == name.as_bytes());
        let value = found.map(|(_, value)| std::mem::take(value));
        value.ok_or_else(|| unreadable(&format!("an entry without {name:?}")))
    }

    fn text(&mut self, name: &str) -> Result<String, QueueError> {
        String::from_utf8(self.take(name)?).map_err(|_| unreadable(&format!("{name:?}")))
    }

    fn number<T: std::str::FromStr>(&mut self, name: &str) -> Result<T, QueueError> {
        let text = self.text(name)?;
        text.parse()
            .map_err(|_| unreadable(&format!("{name:?}, {text:?}")))
    }
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        Value::Int(number) => Some(number.to_string().into_bytes()),
        _ => None,
    }
}

fn time(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(ms.min(1_000_000_000_000_000))
}

/// Something in the streams that we did not put there.
pub(super) fn unreadable(what: &str) -> QueueError {
    QueueError::Refused {
        broker: BROKER,
        reason: format!("it holds {what} that this version did not write"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_finds_its_entry_again() {
        for (stream, id) in [
            (Stream::Again, "1795524010000-0"),
            (Stream::Ready, "1795524010000-7"),
        ] {
            let receipt = receipt(stream, id, Some("k")).unwrap();
            assert_eq!(place(&receipt), (stream, id.to_owned()));
            assert_eq!(receipt.text(), "k");
        }
        receipt(Stream::Again, "nonsense", None).unwrap_err();
    }

    #[test]
    fn times_are_rounded_up_and_kept_small_enough_for_a_double() {
        assert_eq!(milliseconds(Duration::from_micros(1)), 1);
        assert_eq!(milliseconds(Duration::from_millis(5)), 5);
        assert!(milliseconds(Duration::MAX) < 1 << 53);
    }

    #[test]
    fn what_we_did_not_write_is_an_error_and_no_panic() {
        let text = |text: &str| Value::BulkString(text.into());
        let entry = |fields: Vec<Value>| Value::Array(vec![text("1-1"), Value::Array(fields)]);
        for odd in [
            Value::Nil,
            Value::Array(vec![]),
            Value::Array(vec![text("1-1"), Value::Nil]),
            entry(vec![Value::Nil, Value::Nil]),
        ] {
            assert!(Entry::read(odd).is_err());
        }
        for fields in [
            vec![],
            vec![text("id"), text("no uuid")],
            vec![text("id"), text("0192f3a0-0000-7000-8000-000000000000")],
        ] {
            assert!(
                Entry::read(entry(fields))
                    .unwrap()
                    .delivery(Stream::Ready)
                    .is_err()
            );
        }
    }
}
