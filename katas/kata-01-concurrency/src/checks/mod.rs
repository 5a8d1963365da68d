//! The checks, by step. Each one's name is the promise that it tests.

mod shop;

pub mod step_1_race;
pub mod step_2_lock;
pub mod step_3_worker;
pub mod step_4_backpressure;
pub mod step_5_permits;
pub mod step_6_parallelism;
