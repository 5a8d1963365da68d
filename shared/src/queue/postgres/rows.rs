//! Between rows and messages.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use sqlx::Row;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgHasArrayType, PgRow, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Postgres, Type};

use crate::queue::{DeadLetter, Delivery, Message, Receipt};

/// An absolute time, as PostgreSQL sends it: microseconds since the year 2000. One type is no
/// reason to build a calendar (`chrono`, `time`).
pub(super) struct Timestamp(pub(super) SystemTime);

/// 2000-01-01 in seconds since 1970.
const EPOCH: Duration = Duration::from_secs(946_684_800);

impl Type<Postgres> for Timestamp {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("timestamptz")
    }
}

impl PgHasArrayType for Timestamp {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("_timestamptz")
    }
}

impl<'r> Decode<'r, Postgres> for Timestamp {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let micros = <i64 as Decode<Postgres>>::decode(value)?;
        let distance = Duration::from_micros(micros.unsigned_abs());
        let epoch = SystemTime::UNIX_EPOCH + EPOCH;
        let time = match micros < 0 {
            true => epoch.checked_sub(distance),
            false => epoch.checked_add(distance),
        };
        Ok(Self(time.ok_or("a time that this system cannot express")?))
    }
}

/// Positions and tokens of receipts, as the statements take them.
pub(super) struct Places {
    pub(super) positions: Vec<i64>,
    pub(super) leases: Vec<i64>,
    /// Empty if none has a key.
    pub(super) keys: Vec<String>,
}

impl Places {
    pub(super) fn of<'a>(receipts: impl IntoIterator<Item = &'a Receipt>) -> Self {
        let mut places = Self {
            positions: Vec::new(),
            leases: Vec::new(),
            keys: Vec::new(),
        };
        for receipt in receipts {
            places.positions.push(receipt.place());
            places.leases.push(receipt.token());
            if !receipt.text().is_empty() {
                places.keys.push(receipt.text().to_owned());
            }
        }
        places
    }
}

/// A row of a claim.
pub(super) fn delivery(row: &PgRow, token: i64) -> Result<Delivery, sqlx::Error> {
    let attempt = row.try_get::<i32, _>("attempt")?;
    let message = message(row)?;
    let receipt = Receipt::new(row.try_get("position")?, token);
    Ok(Delivery {
        receipt: match &message.key {
            Some(key) => receipt.with_text(key.as_str()),
            None => receipt,
        },
        message,
        attempt: u32::try_from(attempt).unwrap_or_default(),
        first_enqueued_at: row.try_get::<Timestamp, _>("enqueued_at")?.0,
        redelivered: attempt > 1,
    })
}

pub(super) fn dead_letter(row: &PgRow) -> Result<DeadLetter, sqlx::Error> {
    Ok(DeadLetter {
        id: row.try_get::<i64, _>("number")?.to_string(),
        message: message(row)?,
        attempts: u32::try_from(row.try_get::<i32, _>("attempt")?).ok(),
        reason: row.try_get("reason")?,
        died_at: Some(row.try_get::<Timestamp, _>("died_at")?.0),
    })
}

/// Any row with `id`, `key`, `headers`, `payload`.
pub(super) fn message(row: &PgRow) -> Result<Message, sqlx::Error> {
    let headers: Option<&str> = row.try_get("headers")?;
    let headers = match headers {
        Some(json) => serde_json::from_str(json).map_err(|error| sqlx::Error::ColumnDecode {
            index: "headers".to_owned(),
            source: Box::new(error),
        })?,
        None => BTreeMap::new(),
    };
    Ok(Message {
        id: row.try_get("id")?,
        key: row.try_get("key")?,
        payload: Bytes::from(row.try_get::<Vec<u8>, _>("payload")?),
        headers,
        delay: Duration::ZERO,
        priority: 0,
    })
}

/// Columns of messages, as `publish` takes them.
pub(super) struct Columns<'a> {
    pub(super) ids: Vec<uuid::Uuid>,
    pub(super) keys: Vec<Option<&'a str>>,
    pub(super) headers: Vec<Option<String>>,
    pub(super) delays_s: Vec<f64>,
    pub(super) payloads: Vec<&'a [u8]>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(messages: &'a [Message]) -> Self {
        // Of text to text there is nothing that could not be written.
        let headers = |message: &Message| match message.headers.is_empty() {
            true => None,
            false => serde_json::to_string(&message.headers).ok(),
        };
        Self {
            ids: messages.iter().map(|message| message.id).collect(),
            keys: messages
                .iter()
                .map(|message| message.key.as_deref())
                .collect(),
            headers: messages.iter().map(headers).collect(),
            delays_s: messages
                .iter()
                .map(|message| seconds(message.delay))
                .collect(),
            payloads: messages
                .iter()
                .map(|message| &message.payload[..])
                .collect(),
        }
    }

    pub(super) fn has_keys(&self) -> bool {
        self.keys.iter().any(Option::is_some)
    }
}

/// A century is for ever here, and more than that no timestamp takes.
pub(super) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64().min(100.0 * 365.25 * 86_400.0)
}
