//! The gym's equipment: what every kata is run, broken and judged with.

mod app;
pub mod cli;
mod client;
mod crash_points;
pub mod experiment;
pub mod fakes;
mod grounds;
mod history;
mod implementation;
mod instance;
mod kata;
mod lab;
pub mod matrix;
mod place;
pub mod proxy;
pub mod report;
mod runner;
pub mod testing;
mod verdict;

pub use app::{App, BoxError, Env, EnvError, Task};
pub use client::{NoAnswer, Pending, Reply, Request};
pub use crash_points::{CrashPoint, FakePoint, at_every_crash_point};
pub use grounds::Grounds;
pub use history::{Event, History, Mark};
pub use implementation::{Implementation, StartError};
pub use instance::Instance;
pub use kata::{AppFn, BoxFuture, Check, Given, IntoNote, Kata, Kind, Step, Variant};
pub use lab::Lab;
pub use runner::{Outcome, Preflight, Session};
pub use verdict::{Finding, Judged, Promise, Stop, Verdict, VerdictKind};
