//! Events that are published if, and only if, the change that they tell of was committed.
//!
//! The obvious design writes to the database and then publishes. Whoever dies in between has changed
//! something and told nobody; whoever publishes first may tell of what was then rolled back. Here
//! [`stage`] writes the event in the same transaction as the change, and a [`Relay`] publishes what
//! was committed.
//!
//! ```no_run
//! # async fn example(pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
//! use shared::db::{TxOptions, begin};
//! use shared::outbox::{Event, Relay, stage};
//! use shared::queue::{ConnectOptions, Message, connect};
//!
//! let mut tx = begin(&pool, &TxOptions::default()).await?;
//! sqlx::query("update orders set state = 'paid' where id = 7").execute(&mut *tx).await?;
//! stage(&mut tx, &Event::new("orders", Message::new("{\"paid\":7}").key("order-7"))).await?;
//! tx.commit().await?;
//!
//! // In another task or program, as many as you like:
//! let broker = connect("redis://localhost", &ConnectOptions::default()).await?;
//! let orders = broker.queue("orders", &["shipping"]).await?;
//! Relay::new(pool, [orders]).run(std::future::pending()).await;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! - An event whose transaction was committed reaches the broker *at least once*, always with the
//!   same message id; one whose transaction was rolled back never does. A consumer that must not act
//!   twice keeps the ids that it has acted on.
//! - Events of one queue with the same key reach the broker in the order in which they were staged,
//!   however many relays there are; repetitions follow what they repeat. This needs transactions
//!   that stage for one key to come one after the other, as they do if they change the same row
//!   first: those that run side by side have no order to keep.
//! - An event that cannot be published holds back the later ones of its key and nothing else, and is
//!   listed by [`stuck()`] until somebody decides.
//!
//! # If the process dies here …
//!
//! | where | what happens |
//! | --- | --- |
//! | before the commit | nothing was changed and nothing is told |
//! | between the commit and the relay's look | another relay, or the next one, finds the event |
//! | between the claim of a lane and the publish | the lane is free again when its lease ends; nothing was published |
//! | between the publish and the mark | the same, and the events are published a second time, with the same ids |
//! | after the mark | nothing is left to do |
//!
//! # Why not read on from the last id?
//!
//! Numbers are drawn when an event is staged, and transactions commit in another order. A reader
//! that has seen 8 and goes on with 9 never sees 7, whose transaction was slower. One may store the
//! transaction's id with each event and read below the oldest transaction that still runs
//! (`pg_snapshot_xmin`); then one long transaction, anywhere in the server, stops all events. Here
//! an event is waiting or it is not, and a relay takes what waits: there is no position that could
//! run ahead of a late commit.
//!
//! The tables are those of `migrations/shared/outbox`; give [`MIGRATIONS`] to `db::migrate`.

mod error;
mod event;
mod stage;

mod lanes;
mod outlet;
mod relay;
mod wake;

mod clean;
mod lag;
mod stuck;

use crate::db::{Migration, Migrations};

pub use clean::clean_up;
pub use error::OutboxError;
pub use event::Event;
pub use lag::{COUNT_LIMIT, Lag, lag};
pub use relay::{Progress, Relay, RelayOptions, Step};
pub use stage::{stage, stage_all};
pub use stuck::{Stuck, discard, retry, stuck};

/// The outbox's tables, for the list of migrations of a program that has one.
pub const MIGRATIONS: Migrations<'static> = Migrations {
    owner: "shared/outbox",
    steps: &[Migration {
        version: 1,
        name: "events",
        sql: include_str!("../../../migrations/shared/outbox/0001_events.sql"),
    }],
};
