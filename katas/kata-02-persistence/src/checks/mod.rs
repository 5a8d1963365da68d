//! The promises of the contract, step by step. A check's name is what it promises.

mod bank;
mod points;
mod reader;
mod writes;

pub mod step_1_loss;
pub mod step_2_transactions;
pub mod step_3_concurrency;
pub mod step_4_payments;
pub mod step_5_profiles;
pub mod step_6_shifts;
pub mod step_7_consistency;
pub mod step_7_outages;
pub mod step_8_index;
