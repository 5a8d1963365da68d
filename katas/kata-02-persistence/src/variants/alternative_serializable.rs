//! Alternative: no lock at all, everything serializable, and repeated as often as it takes.
//!
//! Whoever reads what another one changes is refused by PostgreSQL and begins again, so plain reads
//! are enough.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use shared::db::{Isolation, TxOptions};
use sqlx::PgConnection;

use crate::{
    contract::{self, Answered, Data, Transfer},
    variants::{
        attempts::Attempts,
        ledger::{self, Balances},
        profiles,
        protocol::{Protocol, patient},
        serving::{self, Service},
    },
};

/// Trusts the database to notice.
#[derive(Debug)]
pub struct AlternativeSerializable;

#[async_trait]
impl Protocol for AlternativeSerializable {
    fn money(&self) -> TxOptions {
        patient(Isolation::Serializable)
    }

    async fn lock(&self, tx: &mut PgConnection, transfer: &Transfer) -> Answered<Balances> {
        Ok(ledger::look(tx, transfer).await?)
    }

    async fn increment(
        &self,
        service: &Service,
        id: &str,
        field: &str,
    ) -> Answered<(Data, String)> {
        let mut attempts = Attempts::new(patient(Isolation::Serializable));
        loop {
            let mut tx = attempts.begin(&service.db).await?;
            let outcome = count(&mut tx, id, field).await;
            if let Some(answer) = attempts.end(tx, outcome).await {
                return answer;
            }
        }
    }
}

async fn count(tx: &mut PgConnection, id: &str, field: &str) -> Answered<(Data, String)> {
    let Some((mut data, _)) = profiles::look(tx, id).await? else {
        return Err(contract::not_found("profile").into());
    };
    profiles::add_one(&mut data, field)?;
    let version = profiles::write(tx, id, &data).await?;
    Ok((data, profiles::etag(version)))
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, AlternativeSerializable).await
}
