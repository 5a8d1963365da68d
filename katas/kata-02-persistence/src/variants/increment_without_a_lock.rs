//! Flaw: an increment reads without a lock, and writes what it has computed.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::PgConnection;

use crate::{
    contract::{self, Answered, Data},
    variants::{profiles, protocol::Protocol, serving},
};

/// Counts from what it has read.
#[derive(Debug)]
pub struct IncrementWithoutALock;

#[async_trait]
impl Protocol for IncrementWithoutALock {
    async fn increment_in(
        &self,
        tx: &mut PgConnection,
        id: &str,
        field: &str,
    ) -> Answered<(Data, String)> {
        let Some((mut data, _)) = profiles::look(tx, id).await? else {
            return Err(contract::not_found("profile").into());
        };
        profiles::add_one(&mut data, field)?;
        let version = profiles::write(tx, id, &data).await?;
        Ok((data, profiles::etag(version)))
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, IncrementWithoutALock).await
}
