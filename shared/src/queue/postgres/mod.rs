//! PostgreSQL as a broker: tables, `for update skip locked`, and a wake-up by `notify`.
//!
//! # How it is made fast, and kept so
//!
//! - A claim, an acknowledgement and a publication are one statement each, for a whole batch.
//! - A message without a key is in one index. A claim changes no column that is in an index, so it
//!   touches none; what is delayed or held back is in no index that a claim reads.
//! - A claim does not begin where the table begins but where the last one was (`cursor.rs`), so that
//!   a long snapshot, which keeps dead rows from being removed, does not starve it.
//! - `notify` takes a lock on the whole database while its transaction commits. So no publication
//!   notifies: a task of its own does, a few times a hundredth of a second at most, for all that was
//!   published since (`wake.rs`). Should it get lost, consumers look by themselves.
//!
//! # Order by key
//!
//! Of the messages of a key only the first can be claimed. The next one is let go in the
//! transaction that deletes the first, or moves it to the dead letters; a retry stays the first. So
//! there is nothing to be got wrong in the claim, and messages without a key pay nothing.
//!
//! # If a process dies
//!
//! - While publishing: a batch is stored whole or not at all, up to 5,000 messages; of more, a
//!   beginning may be stored.
//! - After a claim: the messages are out until their lease ends, with the attempt counted, since
//!   the claim was committed before they were handed out.
//! - While acknowledging: done or not; if not, the message comes again.

mod broker;
mod consumer;
mod cursor;
mod line;
mod queue;
mod rows;
mod sql;
mod wake;

use sqlx::Error;

use super::QueueError;

pub(super) use broker::connect;
pub use sql::MIGRATIONS;

const NAME: &str = "PostgreSQL";

/// A row may hold a gigabyte, but every copy of it on the way takes as much memory.
const LARGEST_BYTES: usize = 16 * 1024 * 1024;

/// What a failure of the database means for the caller.
fn failed(error: Error) -> QueueError {
    let reason = error.to_string();
    match &error {
        Error::PoolClosed => QueueError::Closed { what: "broker" },
        Error::Io(_)
        | Error::Tls(_)
        | Error::Protocol(_)
        | Error::PoolTimedOut
        | Error::WorkerCrashed => QueueError::Unavailable {
            broker: NAME,
            reason,
        },
        Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            // Connections, lost races, resources, an administrator, a limit of time.
            let passing = ["08", "40", "53", "57", "58"];
            match passing.iter().any(|class| code.starts_with(class)) || code == "55P03" {
                true => QueueError::Unavailable {
                    broker: NAME,
                    reason,
                },
                false => QueueError::Refused {
                    broker: NAME,
                    reason,
                },
            }
        }
        _ => QueueError::Refused {
            broker: NAME,
            reason,
        },
    }
}
