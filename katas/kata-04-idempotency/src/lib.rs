//! Kata 04, idempotency: charge once, whatever happens.

pub mod contract;
pub mod provider;
pub mod variants;
