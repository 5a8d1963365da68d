//! One contract over five brokers, and one worker runtime on top of it.
//!
//! A program is written against [`Broker`], [`Queue`] and [`Consumer`]; the scheme of `QUEUE_URL`
//! picks the broker. What brokers cannot do alike is declared in [`Capabilities`] and measured by
//! one conformance suite, whose results are the table in this crate's README.
//!
//! # What is promised, and what is not
//!
//! - Delivery is *at least once*: a message is handed out again until somebody acknowledges it while
//!   its lease is valid. A consumer that must not act twice keeps the ids that it has acted on, in
//!   the same transaction as the action.
//! - A message that `publish` returned `Ok` for is stored as durably as [`Capabilities::durability`]
//!   says. After an `Err` nobody knows: publish again with the same id.
//! - Attempts are counted by the broker and survive the death of the consumer: a message that kills
//!   whoever touches it ends among the dead letters all the same.
//!
//! # The life of a message, for each group
//!
//! ```text
//! published → ready            at once
//! published → delayed          with a delay
//! delayed   → ready            when its time has come
//! ready     → leased           received; attempt + 1
//! leased    → gone             acknowledged
//! leased    → delayed or ready refused (nack), or the lease ran out
//! leased    → ready            released; attempt - 1
//! leased    → dead             given up
//! dead      → ready            redriven; attempts begin anew
//! dead      → gone             discarded
//! ```
//!
//! # Example
//!
//! ```no_run
//! # async fn example() -> Result<(), shared::queue::QueueError> {
//! use std::time::Duration;
//! use shared::queue::{ConnectOptions, ConsumerOptions, Message, connect};
//!
//! let url = "postgres://shop@localhost/shop";
//! let broker = connect(url, &ConnectOptions::default()).await?;
//! let orders = broker.queue("orders", &["fulfilment"]).await?;
//! orders.publish(&[Message::new("{\"order\":7}").key("customer-3")]).await?;
//!
//! let consumer = orders.consumer("fulfilment", &ConsumerOptions::default()).await?;
//! let lease = Duration::from_secs(30);
//! for delivery in consumer.receive(10, lease, Duration::from_secs(1)).await? {
//!     println!("{:?}", delivery.message.payload);
//!     consumer.ack(&[delivery.receipt]).await?;
//! }
//! # Ok(())
//! # }
//! ```

mod backoff;
mod capabilities;
mod contract;
mod error;
mod message;
pub mod worker;

mod connect;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod postgres;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
pub mod redis;
#[cfg(feature = "sqs")]
pub mod sqs;

pub use backoff::Backoff;
pub use capabilities::{Capabilities, KeyOrder, LeaseKind};
pub use connect::{ConnectOptions, connect};
use contract::check_names;
pub use contract::{
    Broker, Consumer, ConsumerOptions, DeadLetter, Depth, Nack, Queue, Settled, check_name,
};
pub use error::QueueError;
pub use message::{Delivery, Message, Receipt, header};
