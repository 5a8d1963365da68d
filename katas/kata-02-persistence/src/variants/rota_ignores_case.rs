//! Flaw: the rota is sorted as people would, and not by code point.
//!
//! Two systems with two collations then disagree about the same list.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::{
    contract::Answered,
    variants::{
        protocol::Protocol,
        serving::{self, Service},
    },
};

/// Takes capitals for small letters.
#[derive(Debug)]
pub struct RotaIgnoresCase;

#[async_trait]
impl Protocol for RotaIgnoresCase {
    async fn on_call(&self, service: &Service) -> Answered<Vec<String>> {
        let sql = "select doctor from doctors where on_call order by lower(doctor) collate \"C\"";
        Ok(sqlx::query_scalar(sql).fetch_all(&service.db).await?)
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, RotaIgnoresCase).await
}
