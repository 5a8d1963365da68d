//! Flaw: the message is marked as seen, and then done; a crash in between leaves the mark.
//!
//! The next push, or a duplicate that comes meanwhile, is acked as done.

use std::sync::Arc;

use async_trait::async_trait;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::Message,
    variants::{
        keys::TABLES,
        protocol::Protocol,
        reference::Reference,
        serving::{self, Service, in_own_task},
    },
};

/// Ticks it off first.
#[derive(Debug)]
pub struct MessageSeenFirst;

#[async_trait]
impl Protocol for MessageSeenFirst {
    fn tables(&self) -> String {
        format!("{TABLES} create table if not exists seen_messages (message_id text primary key);")
    }

    async fn take(self: Arc<Self>, service: Service, message: Message) -> Response {
        let Message::PaymentRequested { message_id, .. } = &message else {
            return StatusCode::NO_CONTENT.into_response();
        };
        let message_id = message_id.clone();
        let work = async move {
            if !mark(&service, &message_id).await? {
                return Ok(StatusCode::NO_CONTENT.into_response());
            }
            let response = Arc::new(Reference).take(service.clone(), message).await;
            if !response.status().is_success() {
                unmark(&service, &message_id).await?;
            }
            Ok(response)
        };
        in_own_task(work).await
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, MessageSeenFirst).await
}

/// Whether nobody had seen it.
async fn mark(service: &Service, message_id: &str) -> Result<bool, sqlx::Error> {
    let marked = sqlx::query("insert into seen_messages values ($1) on conflict do nothing")
        .bind(message_id)
        .execute(&service.db)
        .await?;
    Ok(marked.rows_affected() == 1)
}

async fn unmark(service: &Service, message_id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("delete from seen_messages where message_id = $1")
        .bind(message_id)
        .execute(&service.db)
        .await?;
    Ok(())
}
