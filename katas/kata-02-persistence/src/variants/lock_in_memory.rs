//! Flaw: the lock is a mutex in this process; another instance has one of its own.

use async_trait::async_trait;
use axum::response::Response;
use kata_lab::{App, BoxError, Env};
use tokio::sync::Mutex;

use crate::{
    contract::{Answered, Transfer},
    variants::{
        protocol::Protocol,
        read_compute_write::ReadComputeWrite,
        serving::{self, Service},
    },
};

/// Lets one transfer run at a time.
#[derive(Debug, Default)]
pub struct LockInMemory {
    // Tokio's mutex, since it is held while the database is asked.
    running: Mutex<()>,
}

#[async_trait]
impl Protocol for LockInMemory {
    async fn transfer(&self, service: &Service, transfer: &Transfer) -> Answered<Response> {
        let _one_at_a_time = self.running.lock().await;
        ReadComputeWrite.transfer(service, transfer).await
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, LockInMemory::default()).await
}
