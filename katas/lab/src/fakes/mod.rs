//! Programmable fakes of the outside world.
//!
//! A fake is a real HTTP server whose answers a check controls call by call: it can hold a call
//! until told, refuse it, or do what was asked and then break the connection, which no timing
//! trick on a real service does reliably.
//!
//! What a service *does* is a [`Service`]; everything about holding, losing and recording calls
//! is the same for all of them and lives in [`Fake`]. Start with [`PaymentProvider`].

mod call;
mod fake;
pub mod payment_provider;
mod request;
mod server;
mod trap;
mod weather;

#[cfg(test)]
mod tests;

pub use call::{CallRecord, Fate};
pub use fake::{Fake, Service};
pub use payment_provider::PaymentProvider;
pub use request::{Answer, Request};
pub use trap::{Caught, Trap};
pub use weather::Weather;
