//! Programmable fakes of the outside world.
//!
//! A fake is a real HTTP server whose answers a check controls call by call: it can hold a call
//! until told, refuse it, or do what was asked and then break the connection, which no timing
//! trick on a real service does reliably.
//!
//! What a service *does* is a [`Service`]; everything about holding, losing and recording calls
//! is the same for all of them and lives in [`Fake`]. Start with [`Approvals`], the smallest; an
//! [`Intake`] takes whatever it is sent, and a [`PaymentProvider`] has rules of its own.

mod approvals;
mod call;
mod fake;
mod intake;
pub mod payment_provider;
mod request;
mod server;
mod slow_service;
mod trap;
mod weather;

#[cfg(test)]
mod tests;

pub use approvals::Approvals;
pub use call::{CallRecord, Fate};
pub use fake::{Fake, Service};
pub use intake::Intake;
pub use payment_provider::PaymentProvider;
pub use request::{Answer, Request};
pub use slow_service::SlowService;
pub use trap::{Caught, Trap};
pub use weather::Weather;
