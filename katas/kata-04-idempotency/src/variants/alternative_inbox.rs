//! Alternative: a message is stored, acked, and done by a worker in the background.
//!
//! The ack is quick and the broker is free, since the message is ours now: durably kept, and tried
//! again until it is settled. The key still does the rest, because the inbox too works at least once.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{Message, PayBody},
    variants::{
        keys::TABLES,
        protocol::Protocol,
        reference::Reference,
        serving::{self, Service},
    },
};

const INBOX: &str = "
create table if not exists inbox (
    message_id   text primary key,
    account      text not null,
    payment_id   text not null,
    amount_cents bigint not null,
    currency     text not null,
    card         text not null,
    -- Taken by a worker until then; a worker that has died is not waited for any longer.
    next_try_at  timestamptz not null default now()
);";

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Keeps messages.
#[derive(Debug)]
pub struct Inbox;

#[async_trait]
impl Protocol for Inbox {
    fn tables(&self) -> String {
        format!("{TABLES} {INBOX}")
    }

    async fn take(self: Arc<Self>, service: Service, message: Message) -> Response {
        match keep(&service, &message).await {
            Ok(()) => StatusCode::NO_CONTENT.into_response(),
            Err(error) => serving::answer(Err(error)),
        }
    }

    async fn background(self: Arc<Self>, service: Service) {
        tokio::join!(
            Arc::new(Reference).background(service.clone()),
            work(&service)
        );
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, Inbox).await
}

async fn keep(service: &Service, message: &Message) -> Result<(), sqlx::Error> {
    let Message::PaymentRequested {
        message_id,
        account,
        body,
    } = message
    else {
        return Ok(());
    };
    sqlx::query(
        "insert into inbox (message_id, account, payment_id, amount_cents, currency, card)
         values ($1, $2, $3, $4, $5, $6) on conflict do nothing",
    )
    .bind(message_id)
    .bind(account)
    .bind(&body.payment_id)
    .bind(body.amount_cents)
    .bind(&body.currency)
    .bind(&body.card)
    .execute(&service.db)
    .await?;
    Ok(())
}

async fn work(service: &Service) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match due(service).await {
            // Side by side: one that the provider holds must not hold up the others.
            Ok(messages) => messages.into_iter().for_each(|message| {
                tokio::spawn(settle(service.clone(), message));
            }),
            Err(error) => tracing::warn!(%error, "the inbox cannot be read"),
        }
    }
}

async fn due(service: &Service) -> Result<Vec<Message>, sqlx::Error> {
    let rows: Vec<(String, String, String, i64, String, String)> = sqlx::query_as(
        "update inbox set next_try_at = now() + $1
         where message_id in (
             select message_id from inbox where next_try_at <= now()
             order by next_try_at limit 20
             -- Another instance's worker has taken the ones that are locked.
             for update skip locked)
         returning message_id, account, payment_id, amount_cents, currency, card",
    )
    .bind(service.config.key_lease)
    .fetch_all(&service.db)
    .await?;
    Ok(rows
        .into_iter()
        .map(
            |(message_id, account, payment_id, amount_cents, currency, card)| {
                Message::PaymentRequested {
                    message_id,
                    account,
                    body: PayBody {
                        payment_id,
                        amount_cents,
                        currency,
                        card,
                    },
                }
            },
        )
        .collect())
}

async fn settle(service: Service, message: Message) {
    let Message::PaymentRequested { ref message_id, .. } = message else {
        return;
    };
    let message_id = message_id.clone();
    let response = Arc::new(Reference).take(service.clone(), message).await;
    if !response.status().is_success() {
        return;
    }
    let removed = sqlx::query("delete from inbox where message_id = $1")
        .bind(&message_id)
        .execute(&service.db)
        .await;
    if let Err(error) = removed {
        tracing::warn!(%error, message_id, "done, and still in the inbox: it will be done again");
    }
}
