//! The connection over which everything goes that does not wait, and how errors are read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, RedisError, Script,
    ServerErrorKind, cmd,
};
use tokio::sync::Mutex;

use super::BROKER;
use crate::queue::QueueError;

/// One connection that all calls share, made anew when it broke.
///
/// Calls that wait on the server have connections of their own, since one that blocks holds up
/// whatever was sent after it.
#[derive(Debug)]
pub(super) struct Link {
    client: Client,
    name: String,
    timeout: Duration,
    current: Mutex<Current>,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Current {
    connection: Option<MultiplexedConnection>,
    /// Counts connections, so that a late error does not throw away a new one.
    number: u64,
}

impl Link {
    pub(super) fn new(client: Client, name: &str, timeout: Duration) -> Self {
        Self {
            client,
            name: name.replace(|c: char| !c.is_ascii_graphic(), "-"),
            timeout,
            current: Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends a command and reads its answer.
    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Failure> {
        let (mut connection, number) = self.connection().await?;
        let answer = command.query_async(&mut connection).await;
        if let Err(error) = &answer {
            self.look_at(error, number).await;
        }
        Ok(answer?)
    }

    /// Runs a script, which is sent first if the server does not know it.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        command: &Cmd,
    ) -> Result<T, Failure> {
        match self.ask(command).await {
            Err(Failure::Redis(error)) if is_unknown_script(&error) => {
                let (mut connection, _) = self.connection().await?;
                script.load_async(&mut connection).await?;
                self.ask(command).await
            }
            answer => answer,
        }
    }

    /// A connection that may block, and the number by which the server knows it.
    pub(super) async fn open_waiting(&self) -> Result<(MultiplexedConnection, i64), Failure> {
        self.check_open()?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            // How long the server may be silent depends on the call, which has a deadline itself.
            .set_response_timeout(None);
        let mut connection = self.open(&config).await?;
        let mut command = cmd("CLIENT");
        let id = command.arg("ID").query_async(&mut connection);
        let id = tokio::time::timeout(self.timeout, id).await;
        Ok((connection, id.map_err(|_| Failure::Silent)??))
    }

    pub(super) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.current.lock().await.connection = None;
    }

    async fn connection(&self) -> Result<(MultiplexedConnection, u64), Failure> {
        self.check_open()?;
        let mut current = self.current.lock().await;
        if let Some(connection) = &current.connection {
            return Ok((connection.clone(), current.number));
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout));
        let connection = self.open(&config).await?;
        current.connection = Some(connection.clone());
        current.number += 1;
        Ok((connection, current.number))
    }

    async fn open(&self, config: &AsyncConnectionConfig) -> Result<MultiplexedConnection, Failure> {
        let connecting = self
            .client
            .get_multiplexed_async_connection_with_config(config);
        let mut connection = connecting.await?;
        let mut command = cmd("CLIENT");
        command.arg("SETNAME").arg(&self.name);
        let named = command.query_async::<()>(&mut connection);
        // A user who may not name connections may use them all the same.
        tokio::time::timeout(self.timeout, named)
            .await
            .map_err(|_| Failure::Silent)?
            .or_else(|error| match error.kind() {
                ErrorKind::Server(_) | ErrorKind::Extension => Ok(()),
                _ => Err(error),
            })?;
        Ok(connection)
    }

    /// Throws the connection away if it is of no use any more.
    async fn look_at(&self, error: &RedisError, number: u64) {
        if error.is_timeout() || error.is_io_error() || error.is_unrecoverable_error() {
            let mut current = self.current.lock().await;
            if current.number == number {
                current.connection = None;
            }
        }
    }

    fn check_open(&self) -> Result<(), Failure> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(Failure::Closed("broker")),
            false => Ok(()),
        }
    }
}

/// Why an exchange with the server gave nothing.
#[derive(Debug)]
pub(super) enum Failure {
    Redis(RedisError),
    /// It did not answer in time.
    Silent,
    /// We closed it.
    Closed(&'static str),
}

impl Failure {
    /// Whether the streams are not there: the server lost them, or somebody deleted the queue.
    pub(super) fn is_missing_group(&self) -> bool {
        matches!(self, Self::Redis(error) if error.code() == Some("NOGROUP"))
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

impl From<Failure> for QueueError {
    fn from(failure: Failure) -> Self {
        let error = match failure {
            Failure::Closed(what) => return Self::Closed { what },
            Failure::Silent => {
                return Self::Unavailable {
                    broker: BROKER,
                    reason: "it accepts connections and says nothing".to_owned(),
                };
            }
            Failure::Redis(error) => error,
        };
        let (broker, reason) = (BROKER, error.to_string());
        match is_passing(&error) {
            true => Self::Unavailable { broker, reason },
            false => Self::Refused { broker, reason },
        }
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Whether the same call may succeed later.
fn is_passing(error: &RedisError) -> bool {
    let passing = [
        "LOADING",
        "BUSY",
        "MASTERDOWN",
        "CLUSTERDOWN",
        "TRYAGAIN",
        "READONLY",
    ];
    error.is_timeout()
        || error.is_io_error()
        || error.is_connection_dropped()
        || error.is_connection_refusal()
        || error.code().is_some_and(|code| passing.contains(&code))
}
