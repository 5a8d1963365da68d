//! Our own connections to Redis: short, blocking, and so bound to no runtime.

use std::time::Duration;

use redis::{Client, Connection, ConnectionAddr};

use crate::services::{ServiceError, Upstream};

/// Longer than any command of ours takes, unless the server is paused.
const LIMIT: Duration = Duration::from_secs(5);

pub(super) fn open(client: &Client) -> Result<Connection, redis::RedisError> {
    let connection = client.get_connection_with_timeout(LIMIT)?;
    connection.set_read_timeout(Some(LIMIT))?;
    connection.set_write_timeout(Some(LIMIT))?;
    Ok(connection)
}

pub(super) fn connect(client: &Client) -> Result<Connection, ServiceError> {
    open(client).map_err(refused)
}

pub(super) fn refused(error: redis::RedisError) -> ServiceError {
    match error.is_timeout() || error.is_connection_refusal() {
        true => ServiceError::NoAnswer {
            what: "Redis",
            limit: LIMIT,
        },
        false => ServiceError::Redis(error),
    }
}

pub(super) fn information(connection: &mut Connection) -> Result<String, redis::RedisError> {
    redis::cmd("INFO").arg("server").query(connection)
}

pub(super) fn field<'a>(information: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = information.lines();
    lines
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

pub(super) fn server_name(information: &str) -> String {
    match (
        field(information, "valkey_version"),
        field(information, "redis_version"),
    ) {
        (Some(version), _) => format!("Valkey {version}"),
        (None, version) => format!("Redis {}", version.unwrap_or("of an unknown version")),
    }
}

pub(super) fn upstream(client: &Client) -> Upstream {
    match client.get_connection_info().addr() {
        ConnectionAddr::Unix(path) => Upstream::Unix(path.clone()),
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Upstream::Tcp(host.clone(), *port)
        }
        other => Upstream::Tcp(other.to_string(), 0),
    }
}
