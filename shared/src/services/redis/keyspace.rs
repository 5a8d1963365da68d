//! A place in Redis for one check alone.

use std::sync::Arc;

use super::connection::{connect, refused};
use super::named::{remove_keys, run_name, run_prefix};
use super::{DATABASES, Redis};
use crate::services::{ServiceError, Upstream};

/// A place in Redis for one check alone.
#[derive(Debug)]
pub struct Keyspace {
    pub(super) redis: Redis,
    pub(super) number: u64,
}

impl Keyspace {
    /// What every key must begin with; empty in a private server.
    pub fn prefix(&self) -> String {
        if self.redis.is_private() {
            return String::new();
        }
        format!(
            "{}{}:",
            run_prefix(&run_name(self.redis.inner.run)),
            self.number
        )
    }

    /// The address to give to a program: `redis://:password@host:port/database`.
    pub fn url(&self) -> String {
        match self.redis.upstream() {
            through @ Upstream::Tcp(..) if self.redis.is_private() => self.url_through(&through),
            _ => self.redis.inner.url.clone(),
        }
    }

    /// The same through a proxy. For a server that the user named, only if its address is of the
    /// form `redis://`.
    pub fn url_through(&self, through: &Upstream) -> String {
        let settings = self
            .redis
            .inner
            .client
            .get_connection_info()
            .redis_settings();
        let user = settings.username().unwrap_or_default();
        let password = settings
            .password()
            .map(|password| format!("{user}:{password}@"));
        let password = password.unwrap_or_default();
        let database = match self.redis.is_private() {
            true => i64::try_from(self.number % DATABASES).unwrap_or_default(),
            false => settings.db(),
        };
        match through {
            Upstream::Tcp(host, port) => format!("redis://{password}{host}:{port}/{database}"),
            Upstream::Unix(path) => format!("redis+unix://{}?db={database}", path.display()),
        }
    }

    /// Removes all keys.
    ///
    /// # Errors
    /// `NoAnswer` while the server is paused or stopped; `Redis`.
    ///
    /// # Cancel safety
    /// Safe: it goes on to its end.
    pub async fn drop(self) -> Result<(), ServiceError> {
        self.empty().await?;
        crate::services::lock(&self.redis.inner.live).remove(&self.number);
        Ok(())
    }

    pub(super) async fn empty(&self) -> Result<(), ServiceError> {
        let inner = Arc::clone(&self.redis.inner);
        let prefix = self.prefix();
        let database = self.number % DATABASES;
        crate::services::blocking(move || {
            let mut connection = connect(&inner.client)?;
            if !prefix.is_empty() {
                return remove_keys(&mut connection, &prefix).map_err(refused);
            }
            redis::pipe()
                .cmd("SELECT")
                .arg(database)
                .cmd("FLUSHDB")
                .query(&mut connection)
                .map_err(refused)
        })
        .await
    }
}
