//! A connection of one's own, for what a consumer does over and over.
//!
//! Not from the pool: sqlx asks a connection whether it is alive when it is taken and again when it
//! is given back, which makes three round trips of one; and publications, which wait for the disk,
//! would stand in line before acknowledgements and heartbeats.

use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgRow};
use sqlx::query::Query;
use sqlx::{Connection, PgConnection, Postgres};
use tokio::sync::Mutex;

use super::{NAME, failed};
use crate::queue::QueueError;

/// One connection, opened when it is needed, and used by one caller at a time.
pub(super) struct Line {
    address: PgConnectOptions,
    limit: Duration,
    open: Mutex<Option<PgConnection>>,
}

impl Line {
    pub(super) fn new(address: PgConnectOptions, limit: Duration) -> Self {
        Self {
            address,
            limit,
            open: Mutex::new(None),
        }
    }

    /// Runs one statement.
    ///
    /// While it runs the connection belongs to this call. If it is dropped, the connection goes with
    /// it: in what state it is nobody knows.
    pub(super) async fn fetch(
        &self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, QueueError> {
        let mut slot = self.open.lock().await;
        let taken = slot.take();
        let work = async {
            let mut connection = match taken {
                Some(connection) => connection,
                None => PgConnection::connect_with(&self.address).await?,
            };
            let result = query.fetch_all(&mut connection).await;
            // After an error of the database the connection is as good as before; after any other
            // it may not be.
            match result {
                Ok(rows) => Ok((connection, Ok(rows))),
                Err(error @ sqlx::Error::Database(_)) => Ok((connection, Err(error))),
                Err(error) => Err(error),
            }
        };
        match tokio::time::timeout(self.limit, work).await {
            Ok(Ok((connection, result))) => {
                *slot = Some(connection);
                result.map_err(failed)
            }
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(QueueError::Unavailable {
                broker: NAME,
                reason: format!("no answer in {:?}", self.limit),
            }),
        }
    }

    pub(super) async fn close(&self) {
        let open = self.open.lock().await.take();
        if let Some(connection) = open {
            // It is over, whether or not the server hears of it.
            let _ = connection.close().await;
        }
    }
}
