//! The grounds on which labs are set up: the services that one run of the tool shares.

use std::sync::Arc;

use shared::services::{Options, Postgres, Schema, ServiceError};

use crate::proxy::{Front, Upstream};

/// The services of this run; every lab takes a fresh place on them.
pub struct Grounds {
    postgres: Postgres,
}

impl Grounds {
    /// Finds or starts PostgreSQL.
    ///
    /// # Errors
    /// [`ServiceError`] says which program is missing and how to install it.
    pub async fn open() -> Result<Arc<Self>, ServiceError> {
        let postgres = Postgres::find_or_start(&Options::default()).await?;
        Ok(Arc::new(Self { postgres }))
    }

    /// Which services these are, in one line.
    pub fn describe(&self) -> String {
        self.postgres.describe()
    }

    /// The server, for what only a private one allows (pause, kill).
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    pub(crate) async fn fresh_schema(&self) -> Result<Schema, ServiceError> {
        self.postgres.fresh_schema().await
    }

    pub(crate) async fn open_front(&self) -> std::io::Result<Front> {
        let upstream = match self.postgres.upstream() {
            shared::services::Upstream::Tcp(address) => Upstream::Tcp(address),
            shared::services::Upstream::Unix(path) => Upstream::Unix(path),
        };
        Front::open(upstream).await
    }

    /// Stops what this run started.
    pub async fn close(&self) {
        self.postgres.stop().await;
    }
}
