//! Alternative: a lock before every look, and read committed everywhere.
//!
//! The whole team is locked before a doctor leaves, and a profile before its tag is compared.

use async_trait::async_trait;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use kata_lab::{App, BoxError, Env};
use shared::db::{Isolation, TxOptions};
use sqlx::PgConnection;

use crate::{
    contract::{self, Answered, Data},
    variants::{
        profiles,
        protocol::{Protocol, patient},
        serving::{self, Service},
    },
};

/// Locks first.
#[derive(Debug)]
pub struct AlternativePessimistic;

#[async_trait]
impl Protocol for AlternativePessimistic {
    fn shifts(&self) -> TxOptions {
        patient(Isolation::ReadCommitted)
    }

    async fn leave_in(&self, tx: &mut PgConnection, doctor: &str) -> Answered<Response> {
        // All rows, in one order: what matters is who else is on call, so everybody is locked.
        let team: Vec<(String, bool)> =
            sqlx::query_as("select doctor, on_call from doctors order by doctor for update")
                .fetch_all(&mut *tx)
                .await?;
        match team.iter().find(|(name, _)| name == doctor) {
            None => return Err(contract::not_found("doctor").into()),
            Some((_, false)) => return Ok(StatusCode::NO_CONTENT.into_response()),
            Some((_, true)) => {}
        }
        if !team
            .iter()
            .any(|(name, on_call)| *on_call && name != doctor)
        {
            return Err(contract::nobody_left().into());
        }
        sqlx::query("update doctors set on_call = false where doctor = $1")
            .bind(doctor)
            .execute(tx)
            .await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    async fn replace(
        &self,
        service: &Service,
        id: &str,
        data: &Data,
        seen: &str,
    ) -> Answered<Option<String>> {
        let options = patient(Isolation::ReadCommitted);
        let mut tx = shared::db::begin(&service.db, &options).await?;
        match profiles::lock(&mut tx, id).await? {
            Some((_, version)) if profiles::etag(version) == seen => {}
            _ => return Ok(None),
        }
        let version = profiles::write(&mut tx, id, data).await?;
        tx.commit().await?;
        Ok(Some(profiles::etag(version)))
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, AlternativePessimistic).await
}
