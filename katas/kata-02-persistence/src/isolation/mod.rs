//! The isolation laboratory: ten named anomalies, played on real sessions at every level that a
//! server offers, and what came of each.
//!
//! [`script`] says what an anomaly is made of and [`anomalies`] lists the ten; [`engine`] plays one,
//! [`cell`] judges it, [`table`] shows all, and [`histories`] lets random transactions loose on the
//! server and asks [`kata_lab::serializability`] what they saw.

pub mod anomalies;
pub mod cell;
pub mod engine;
pub mod histories;
pub mod script;
pub mod server;
mod session;
pub mod table;

pub use session::Answer;
