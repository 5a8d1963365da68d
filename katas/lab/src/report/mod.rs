//! What people read: lists, findings, timelines, tables and the matrix, as text.
//!
//! Everything in here turns values into strings and touches nothing else, so that golden files can
//! hold it still. Colour is always written and is only a second signal; [`Screen`] removes it for
//! pipes and `NO_COLOR`.

mod finding;
mod hint;
mod list;
mod matrix;
mod record;
mod screen;
mod standing;
mod style;
mod table;
pub mod text;
mod timeline;

pub(crate) use finding::written;
pub use finding::{Evidence, finding};
pub use hint::hint;
pub use list::{CheckList, reasons, summary};
pub use matrix::matrix;
pub use record::{Record, Report, Subject, Summary};
pub use screen::{Progress, Screen};
pub use standing::{Standing, StepState};
pub(crate) use style::{bad, dim, good, strong, warn};
pub use table::Table;
pub use timeline::{LONG, timeline};

#[cfg(test)]
mod tests;
