//! The grounds on which labs are set up: the services that one run of the tool shares.

use std::sync::Arc;

use shared::services::{self, Options, Postgres, Schema, ServiceError};
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::proxy::{Front, Upstream};

/// The services of this run; every lab takes a fresh place on them.
pub struct Grounds {
    postgres: Postgres,
    admin: PgPool,
}

/// Enough for the looks that dozens of labs take at the server, few enough for any server.
const ADMIN_CONNECTIONS: u32 = 8;

impl Grounds {
    /// Finds or starts PostgreSQL.
    ///
    /// # Errors
    /// [`ServiceError`] says which program is missing and how to install it.
    pub async fn open() -> Result<Arc<Self>, ServiceError> {
        let postgres = Postgres::find_or_start(&Options::from_env()).await?;
        let admin = PgPoolOptions::new()
            .max_connections(ADMIN_CONNECTIONS)
            .connect_lazy_with(postgres.admin_options());
        Ok(Arc::new(Self { postgres, admin }))
    }

    /// Which services these are, in one line.
    pub fn describe(&self) -> String {
        self.postgres.describe()
    }

    /// The server, for what only a private one allows (pause, kill).
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    pub(crate) fn admin(&self) -> &PgPool {
        &self.admin
    }

    pub(crate) async fn fresh_schema(&self) -> Result<Schema, ServiceError> {
        self.postgres.fresh_schema().await
    }

    pub(crate) fn open_front(&self) -> std::io::Result<Front> {
        Front::open(match self.postgres.upstream() {
            services::Upstream::Tcp(host, port) => Upstream::Tcp(format!("{host}:{port}")),
            services::Upstream::Unix(socket) => Upstream::Unix(socket),
        })
    }

    /// Ends what this run started, and takes back what it made in a server that it was given.
    ///
    /// # Errors
    /// If a schema cannot be dropped.
    pub async fn close(&self) -> Result<(), ServiceError> {
        self.admin.close().await;
        self.postgres.close().await
    }
}
