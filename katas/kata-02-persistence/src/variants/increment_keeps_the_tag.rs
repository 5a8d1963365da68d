//! Flaw: an increment does not raise the version.
//!
//! Who has read the profile before writes over the count, and nobody is told.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::PgConnection;
use sqlx::types::Json;

use crate::{
    contract::{self, Answered, Data},
    variants::{profiles, protocol::Protocol, serving},
};

/// Writes the content alone.
#[derive(Debug)]
pub struct IncrementKeepsTheTag;

#[async_trait]
impl Protocol for IncrementKeepsTheTag {
    async fn increment_in(
        &self,
        tx: &mut PgConnection,
        id: &str,
        field: &str,
    ) -> Answered<(Data, String)> {
        let Some((mut data, version)) = profiles::lock(tx, id).await? else {
            return Err(contract::not_found("profile").into());
        };
        profiles::add_one(&mut data, field)?;
        sqlx::query("update profiles set data = $2 where profile_id = $1")
            .bind(id)
            .bind(Json(&data))
            .execute(tx)
            .await?;
        Ok((data, profiles::etag(version)))
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, IncrementKeepsTheTag).await
}
