//! Flaw: the application compares the entity tag, and then writes.
//!
//! Between its look and its write there is room for another one who has looked as well.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::{Answered, Data},
    variants::{
        profiles,
        protocol::Protocol,
        serving::{self, Service},
    },
};

/// Compares, then writes.
#[derive(Debug)]
pub struct IfMatchInTheApplication;

#[async_trait]
impl Protocol for IfMatchInTheApplication {
    async fn replace(
        &self,
        service: &Service,
        id: &str,
        data: &Data,
        seen: &str,
    ) -> Answered<Option<String>> {
        match profiles::find(service, id).await? {
            Some((_, etag)) if etag == seen => {}
            _ => return Ok(None),
        }
        let mut db = service.db.acquire().await?;
        let version = profiles::write(&mut db, id, data).await?;
        Ok(Some(profiles::etag(version)))
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, IfMatchInTheApplication).await
}
