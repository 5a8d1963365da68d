//! Flaw: one connection to the replica, opened for the first read and kept, dead or alive.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::{PgConnection, pool::PoolConnection};
use tokio::sync::Mutex;

use crate::{
    contract::Answered,
    variants::{
        protocol::Protocol,
        reads,
        serving::{self, Service},
    },
};

/// Holds on to what it once had.
#[derive(Debug, Default)]
pub struct ReplicaNeverReconnected {
    connection: Mutex<Option<PoolConnection<sqlx::Postgres>>>,
}

#[async_trait]
impl Protocol for ReplicaNeverReconnected {
    async fn eventual(&self, service: &Service, id: &str) -> Answered {
        let Some(replica) = &service.replica else {
            return reads::current(&service.db, id).await;
        };
        let mut kept = self.connection.lock().await;
        if kept.is_none() {
            *kept = Some(replica.acquire().await?);
        }
        let connection: Option<&mut PgConnection> = kept.as_deref_mut();
        let connection = connection.ok_or(sqlx::Error::PoolClosed)?;
        let (replayed, balance) = reads::look_by(connection, id).await?;
        let staleness_ms = self.staleness_ms(service, &replayed).await?;
        reads::behind(id, balance, staleness_ms)
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, ReplicaNeverReconnected::default()).await
}
