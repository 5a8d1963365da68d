//! Plumbing that the katas teach and the projects run on.
//!
//! Each module is one concern, and says in its first lines what it promises.

pub mod db;
pub mod http;
pub mod idempotency;
pub mod queue;
pub mod resilience;
pub mod services;
pub mod telemetry;
