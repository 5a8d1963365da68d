//! A Redis that the user named: which keys are ours, and whose run they belong to.
//!
//! - Every key begins with the run that made it.
//! - The run holds a connection that is named after it, which the server closes when we die.
//! - The next start removes the keys of runs without a connection, and touches nothing else.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use redis::{Client, Connection};

use super::connection::{information, open, refused, server_name, upstream};
use super::{Inner, Origin, Redis, VARIABLE};
use crate::services::ServiceError;

/// The set of runs that may have keys: without it, a start would have to look at every key.
const RUNS: &str = "kata:runs";

pub(super) fn named(url: &str) -> Result<Redis, ServiceError> {
    let refuse = |address: String, reason: String| ServiceError::Refused {
        variable: VARIABLE,
        address,
        reason,
    };
    let client = Client::open(url)
        .map_err(|error| refuse("no valid address".to_owned(), error.to_string()))?;
    let address = upstream(&client).to_string();
    let refuse = |error: redis::RedisError| refuse(address.clone(), error.to_string());
    let mut connection = open(&client).map_err(refuse)?;
    let name = server_name(&information(&mut connection).map_err(refuse)?);
    let run = rand::random();
    let take = |connection: &mut Connection| {
        redis::cmd("CLIENT")
            .arg("SETNAME")
            .arg(run_name(run))
            .exec(connection)?;
        redis::cmd("SADD")
            .arg(RUNS)
            .arg(run_name(run))
            .exec(connection)?;
        sweep(connection)
    };
    take(&mut connection).map_err(refused)?;
    Ok(Redis {
        inner: Arc::new(Inner {
            client,
            url: url.to_owned(),
            name,
            run,
            next: AtomicU64::new(0),
            live: Mutex::default(),
            origin: Origin::Named {
                _lease: Mutex::new(connection),
            },
        }),
    })
}

pub(super) fn run_name(run: u32) -> String {
    format!("kata-{run:08x}")
}

pub(super) fn run_prefix(name: &str) -> String {
    format!("kata:{}:", name.trim_start_matches("kata-"))
}

/// Removes what runs left that hold no connection any more.
fn sweep(connection: &mut Connection) -> Result<(), redis::RedisError> {
    let runs: Vec<String> = redis::cmd("SMEMBERS").arg(RUNS).query(connection)?;
    let clients: String = redis::cmd("CLIENT").arg("LIST").query(connection)?;
    for run in runs {
        // The names become part of a pattern; one that is not ours is left alone.
        let Some(digits) = run.strip_prefix("kata-") else {
            continue;
        };
        if u32::from_str_radix(digits, 16).is_err() {
            continue;
        }
        let name = format!("name={run}");
        if !clients.split_whitespace().any(|word| word == name) {
            remove_run(connection, &run)?;
        }
    }
    Ok(())
}

pub(super) fn remove_run(connection: &mut Connection, name: &str) -> Result<(), redis::RedisError> {
    remove_keys(connection, &run_prefix(name))?;
    redis::cmd("SREM").arg(RUNS).arg(name).exec(connection)
}

pub(super) fn remove_keys(
    connection: &mut Connection,
    prefix: &str,
) -> Result<(), redis::RedisError> {
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor)
            .arg("MATCH")
            .arg(format!("{prefix}*"))
            .arg("COUNT")
            .arg(1000);
        let (next, keys): (u64, Vec<String>) = scan.query(connection)?;
        if !keys.is_empty() {
            redis::cmd("UNLINK").arg(keys).exec(connection)?;
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}
