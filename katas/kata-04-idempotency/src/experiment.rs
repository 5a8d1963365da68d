//! The experiment.

use kata_lab::{BoxError, BoxFuture, experiment::Stage};

pub(crate) fn run(_stage: Stage) -> BoxFuture<Result<(), BoxError>> {
    Box::pin(async { Ok(()) })
}
