//! The gym's equipment: what every kata is run, broken and judged with.

mod app;
pub mod fakes;
mod history;
pub mod proxy;

pub use app::{App, BoxError, Env, EnvError};
pub use history::{Event, History};
