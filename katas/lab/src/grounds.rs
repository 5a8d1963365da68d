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
        let postgres = Postgres::find_or_start(&options()).await?;
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

/// What the environment says, except where that is our own word: in a shell that took over what
/// `env` printed, `DATABASE_URL` is a place on a server and not a server to make places on.
fn options() -> Options {
    let options = Options::from_env();
    match std::env::var("DATABASE_URL") {
        Ok(url) if is_place(&url) => options.url(None),
        _ => options,
    }
}

/// Whether the role is one that was made for a check: `kata_1f6e20c3_7`.
fn is_place(url: &str) -> bool {
    let role = || {
        let rest = url.split_once("://")?.1;
        let (user, _) = rest.split_once('@')?;
        let role = user.split(':').next()?.strip_prefix("kata_")?;
        role.split_once('_')
    };
    role().is_some_and(|(run, number)| {
        run.len() == 8
            && run.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_env_printed_is_not_taken_for_a_server() {
        assert!(is_place(
            "postgres://kata_f1847dc4_0:9cda@127.0.0.1:38557/postgres?sslmode=disable"
        ));
        assert!(!is_place(
            "postgres://kata_owner:x@127.0.0.1/kata_f1847dc4_0"
        ));
        assert!(!is_place(
            "postgres://postgres:kata_f1847dc4_0@127.0.0.1/db"
        ));
        assert!(!is_place("postgres:///db"));
    }
}
