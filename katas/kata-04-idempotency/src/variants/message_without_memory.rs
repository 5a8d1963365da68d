//! Flaw: the message's id is not used; each push of it is a new one.

use std::sync::Arc;

use async_trait::async_trait;
use axum::response::Response;
use kata_lab::{App, BoxError, Env};
use uuid::Uuid;

use crate::{
    contract::Message,
    variants::{
        protocol::Protocol,
        reference::Reference,
        serving::{self, Service},
    },
};

/// Greets everybody as new.
#[derive(Debug)]
pub struct MessageWithoutMemory;

#[async_trait]
impl Protocol for MessageWithoutMemory {
    async fn take(self: Arc<Self>, service: Service, mut message: Message) -> Response {
        if let Message::PaymentRequested { message_id, .. } = &mut message {
            *message_id = Uuid::new_v4().to_string();
        }
        Arc::new(Reference).take(service, message).await
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, MessageWithoutMemory).await
}
