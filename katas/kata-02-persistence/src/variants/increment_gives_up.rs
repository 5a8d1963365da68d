//! Flaw: an increment compares and writes, and gives up after three tries.
//!
//! Under contention whoever is slow is refused, though nothing was wrong with the request.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::types::Json;

use crate::{
    contract::{self, Answered, Data},
    variants::{
        profiles,
        protocol::Protocol,
        serving::{self, Service},
    },
};

/// How often it tries.
const TRIES: u32 = 3;

/// Is optimistic three times.
#[derive(Debug)]
pub struct IncrementGivesUp;

#[async_trait]
impl Protocol for IncrementGivesUp {
    async fn increment(
        &self,
        service: &Service,
        id: &str,
        field: &str,
    ) -> Answered<(Data, String)> {
        let mut db = service.db.acquire().await?;
        for _ in 0..TRIES {
            let Some((mut data, seen)) = profiles::look(&mut db, id).await? else {
                return Err(contract::not_found("profile").into());
            };
            profiles::add_one(&mut data, field)?;
            let sql = "update profiles set data = $2, version = version + 1
                 where profile_id = $1 and version = $3 returning version";
            let written = sqlx::query_scalar(sql)
                .bind(id)
                .bind(Json(&data))
                .bind(seen)
                .fetch_optional(&mut *db)
                .await?;
            if let Some(version) = written {
                return Ok((data, profiles::etag(version)));
            }
        }
        Err(contract::precondition_failed().into())
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, IncrementGivesUp).await
}
