//! Flaw: the message is acked, then done; a crash in between loses it, and nobody sends it again.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::Message,
    variants::{
        protocol::Protocol,
        reference::Reference,
        serving::{self, Service},
    },
};

/// Says yes first.
#[derive(Debug)]
pub struct MessageAckedFirst;

#[async_trait]
impl Protocol for MessageAckedFirst {
    async fn take(self: Arc<Self>, service: Service, message: Message) -> Response {
        tokio::spawn(async move {
            let again = || Arc::new(Reference).take(service.clone(), message.clone());
            while !again().await.status().is_success() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        StatusCode::NO_CONTENT.into_response()
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, MessageAckedFirst).await
}
