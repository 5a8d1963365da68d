//! The checks, by step. Each one's name is the promise that it tests.

mod till;

pub mod step_1_replay;
pub mod step_2_concurrency;
pub mod step_3_reuse;
pub mod step_4_patience;
pub mod step_5_lost_answers;
pub mod step_6_crashes;
pub mod step_7_memory;
pub mod step_8_expiry;
pub mod step_9_messages;
