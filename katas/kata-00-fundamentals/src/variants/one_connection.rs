//! Flaw: one connection is opened at start and is taken to be there for ever.

use std::sync::Arc;

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::{Connection, PgConnection};
use tokio::sync::Mutex;

use crate::{
    contract::Config,
    variants::{
        serving::{self, Db, Service},
        shop::Shop,
    },
};

/// Holds on to it.
#[derive(Debug)]
pub struct OneConnection {
    db: Arc<Mutex<PgConnection>>,
}

#[async_trait]
impl Shop for OneConnection {
    async fn db(&self, _service: &Service) -> Result<Db, sqlx::Error> {
        Ok(Box::new(Arc::clone(&self.db).lock_owned().await))
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    let url = Config::from_env(&env)?.database_url;
    let db = Arc::new(Mutex::new(PgConnection::connect(&url).await?));
    serving::start(env, OneConnection { db }).await
}
