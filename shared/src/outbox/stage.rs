//! Writing events in the transaction of the change that they tell of.

use std::borrow::Cow;
use std::collections::BTreeMap;

use sqlx::PgConnection;
use sqlx::types::Json;

use super::wake::channel;
use super::{Event, OutboxError};
use crate::queue::{Message, header};
use crate::telemetry::trace;

/// Stages an event in a transaction: it is published after the commit, and never without one.
///
/// `tx` is a transaction of `db::begin` or what `db::transaction` hands out. On a connection without
/// a transaction the event is committed at once, by itself.
///
/// The trace and the request in hand go along in the headers, unless the message names its own: the
/// relay publishes later, and from nobody's span.
///
/// Change the row that the event's key stands for *before* staging: its lock then keeps the order of
/// the key.
///
/// # Errors
/// `Invalid` for an event that no broker would take: nothing was sent, the transaction can go on.
/// `Sql`: roll it back.
///
/// # Cancel safety
/// Safe as long as the transaction is dropped with it.
pub async fn stage(tx: &mut PgConnection, event: &Event) -> Result<(), OutboxError> {
    stage_all(tx, std::slice::from_ref(event)).await
}

/// Stages events, in this order, with one statement.
///
/// # Errors
/// As `stage`; one invalid event and none is staged.
///
/// # Cancel safety
/// As `stage`.
pub async fn stage_all(tx: &mut PgConnection, events: &[Event]) -> Result<(), OutboxError> {
    for event in events {
        event.check()?;
    }
    if events.is_empty() {
        return Ok(());
    }
    let messages = || events.iter().map(|event| &event.message);
    let in_hand = InHand::now();
    let delays = messages().map(|message| message.delay.as_secs_f64());
    // `order by` reaches the numbers: they are drawn for the rows as they come.
    // One message for however many transactions, and only if somebody sleeps: see `wake`. The look
    // at the sleepers is the statement's, so it costs no round trip.
    sqlx::query(concat!(
        "with staged as (
             insert into outbox_events
                 (message_id, queue, key, payload, headers, priority, due_at)
             select message_id, queue, key, payload, headers, priority,
                    case when delay_s > 0
                         then clock_timestamp() + make_interval(secs => delay_s) end
             from unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::jsonb[],
                         $6::smallint[], $7::float8[])
                  with ordinality
                  as e (message_id, queue, key, payload, headers, priority, delay_s, place)
             order by place
         )
         select pg_notify(",
        channel!(),
        ", '')
         where exists (select from outbox_sleepers where until > clock_timestamp())"
    ))
    .bind(messages().map(|message| message.id).collect::<Vec<_>>())
    .bind(events.iter().map(|event| &*event.queue).collect::<Vec<_>>())
    .bind(
        messages()
            .map(|message| message.key.as_deref())
            .collect::<Vec<_>>(),
    )
    .bind(
        messages()
            .map(|message| &message.payload[..])
            .collect::<Vec<_>>(),
    )
    .bind(
        messages()
            .map(|message| Json(in_hand.headers(message)))
            .collect::<Vec<_>>(),
    )
    .bind(
        messages()
            .map(|message| i16::from(message.priority))
            .collect::<Vec<_>>(),
    )
    .bind(delays.collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// On whose behalf events are staged.
struct InHand {
    /// `traceparent` and `tracestate`.
    trace: BTreeMap<String, String>,
    request_id: Option<String>,
}

impl InHand {
    fn now() -> Self {
        let mut trace = BTreeMap::new();
        trace::inject(&mut trace);
        Self {
            trace,
            request_id: trace::current_request_id(),
        }
    }

    fn headers<'a>(&self, message: &'a Message) -> Cow<'a, BTreeMap<String, String>> {
        let mut headers = Cow::Borrowed(&message.headers);
        // Both or none: a state belongs to its parent.
        if !self.trace.is_empty() && !headers.contains_key(header::TRACEPARENT) {
            headers.to_mut().extend(self.trace.clone());
        }
        if let Some(id) = &self.request_id
            && !headers.contains_key(header::REQUEST_ID)
        {
            headers
                .to_mut()
                .insert(header::REQUEST_ID.to_owned(), id.clone());
        }
        headers
    }
}
