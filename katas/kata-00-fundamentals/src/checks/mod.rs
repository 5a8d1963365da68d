//! The checks, by step. Each one's name is the promise that it tests.

mod customer;
mod points;

pub mod step_1_orders;
pub mod step_2_prices;
pub mod step_3_effects;
pub mod step_4_instances;
pub mod step_5_replay;
pub mod step_6_order;
