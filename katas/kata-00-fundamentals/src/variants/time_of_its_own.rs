//! Flaw: an order is cancelled when the server's clock says so, whatever the input says.
//!
//! The same commands, replayed tomorrow, make another state.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::PgConnection;

use crate::{
    contract::Cancellation,
    moment::Moment,
    variants::{orders::Cancelled, reference::Reference, serving, shop::Shop},
};

/// Looks at the clock.
#[derive(Debug)]
pub struct TimeOfItsOwn;

#[async_trait]
impl Shop for TimeOfItsOwn {
    async fn cancel(
        &self,
        db: &mut PgConnection,
        id: &str,
        _by: &Cancellation,
    ) -> Result<Cancelled, sqlx::Error> {
        let now: String = sqlx::query_scalar(
            r#"select to_char(now() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"#,
        )
        .fetch_one(&mut *db)
        .await?;
        let cancelled_at =
            Moment::try_from(now).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        Reference
            .cancel(db, id, &Cancellation { cancelled_at })
            .await
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, TimeOfItsOwn).await
}
