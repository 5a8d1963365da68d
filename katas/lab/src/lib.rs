//! The gym's equipment: what every kata is run, broken and judged with.

mod app;
pub mod cli;
mod client;
mod command;
mod crash_points;
pub mod experiment;
pub mod fakes;
mod fronts;
mod grounds;
mod history;
mod hold;
mod implementation;
mod instance;
mod interleavings;
mod kata;
mod lab;
mod limits;
pub mod matrix;
mod place;
pub mod proxy;
mod replica;
pub mod report;
mod runner;
pub mod serializability;
pub mod testing;
mod verdict;

pub use app::{App, BoxError, Env, EnvError, Task};
pub use client::{NoAnswer, Pending, Reply, Request};
pub use command::{Argument, Call, Command};
pub use crash_points::{CrashPoint, FakePoint, at_every_crash_point};
pub use grounds::Grounds;
pub use history::{Event, History, Mark};
pub use implementation::{Implementation, StartError, Threads, Work, free_port};
pub use instance::Instance;
pub use interleavings::{
    HoldPoint, Interleaving, Played, Reached, at_every_hold_point, is_blocked,
};
pub use kata::{AppFn, BoxFuture, Check, Given, IntoNote, Kata, Kind, Step, Variant};
pub use lab::Lab;
pub use replica::{Lsn, Positions, Replica};
pub use runner::{Outcome, Preflight, Session};
pub use verdict::{Finding, Judged, Promise, Stop, Verdict, VerdictKind};
