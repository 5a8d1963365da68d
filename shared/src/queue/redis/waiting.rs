//! Connections that wait. A command that blocks has one for itself; when nobody waits it is kept for
//! the next who does.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value, cmd};

use super::link::{Failure, Link};
use super::publish::lock;

/// How often those who wait are told to stop: the word is lost on one that was about to wait.
const INSIST: Duration = Duration::from_millis(10);

/// The waiting connections of one consumer.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    idle: Mutex<Vec<(MultiplexedConnection, i64)>>,
    /// The numbers, by which the server knows them, of those that wait now.
    busy: Mutex<BTreeSet<i64>>,
}

impl Waiting {
    /// Sends a command that blocks for `nap`, and gives the server `grace` on top of that.
    ///
    /// If the future is dropped the connection is closed, and with it what the server would do.
    pub(super) async fn ask(
        &self,
        link: &Link,
        command: &Cmd,
        nap: Duration,
    ) -> Result<Value, Failure> {
        let idle = lock(&self.idle).pop();
        let (connection, number) = match idle {
            Some(found) => found,
            None => link.open_waiting().await?,
        };
        lock(&self.busy).insert(number);
        let mut seat = Seat {
            waiting: self,
            connection,
            number,
            keep: false,
        };
        let limit = nap.saturating_add(link.timeout());
        let asking = command.query_async(&mut seat.connection);
        let answer = match tokio::time::timeout(limit, asking).await {
            Ok(answer) => answer,
            Err(_) => return Err(Failure::Silent),
        };
        // An error that the server sent leaves the connection as good as it was.
        seat.keep =
            !matches!(&answer, Err(error) if error.is_io_error() || error.is_unrecoverable_error());
        drop(seat);
        Ok(answer?)
    }

    /// Makes all who wait return with what they have, until none waits.
    pub(super) fn end(self: &Arc<Self>, link: &Arc<Link>) {
        let (waiting, link) = (Arc::clone(self), Arc::clone(link));
        let insist = async move {
            loop {
                let busy: Vec<i64> = lock(&waiting.busy).iter().copied().collect();
                if busy.is_empty() {
                    return;
                }
                for number in busy {
                    let mut command = cmd("CLIENT");
                    command.arg("UNBLOCK").arg(number);
                    // Whoever may not do this waits for one poll interval.
                    if link.ask::<Value>(&command).await.is_err() {
                        return;
                    }
                }
                tokio::time::sleep(INSIST).await;
            }
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(insist);
        }
    }
}

/// A connection in use.
struct Seat<'a> {
    waiting: &'a Waiting,
    connection: MultiplexedConnection,
    number: i64,
    keep: bool,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        lock(&self.waiting.busy).remove(&self.number);
        if self.keep {
            let kept = (self.connection.clone(), self.number);
            lock(&self.waiting.idle).push(kept);
        }
    }
}
