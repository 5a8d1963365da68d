//! Waiting for conditions, and finding or skipping.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Failed, Trial};
use shared::services::ServiceError;
use shared::services::guard::{User, unprivileged_user};

/// How a test ends early.
#[derive(Debug)]
pub(crate) enum End {
    /// It cannot be run here, and why: it takes root, for example.
    Skip(String),
    /// There is no such server on this machine.
    NoService(String),
}

impl From<ServiceError> for End {
    fn from(error: ServiceError) -> Self {
        match error.is_missing() {
            true => Self::NoService(error.to_string()),
            false => panic!("{error}"),
        }
    }
}

pub(crate) type Outcome = Result<(), End>;

/// A test from an async function. Each has a runtime of its own.
pub(crate) fn test<F, Fut>(name: &str, body: F) -> Trial
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Outcome>,
{
    Trial::ignorable_test(name, move || {
        let runtime = tokio::runtime::Runtime::new().map_err(Failed::from)?;
        match runtime.block_on(body()) {
            Ok(()) => Ok(Completion::Completed),
            Err(End::NoService(reason)) if std::env::var_os("KATA_REQUIRE_SERVICES").is_some() => {
                Err(Failed::from(reason))
            }
            Err(End::Skip(reason) | End::NoService(reason)) => {
                Ok(Completion::ignored_with(reason.replace('\n', " / ")))
            }
        }
    })
}

/// A list of tests from the names of their functions.
macro_rules! tests {
    ($($name:ident,)*) => {
        pub(crate) fn tests() -> Vec<libtest_mimic::Trial> {
            vec![$(crate::support::test(
                concat!(module_path!(), "::", stringify!($name)).trim_start_matches("shared::"),
                $name,
            ),)*]
        }
    };
}
pub(crate) use tests;

/// A program in `PATH`.
///
/// # Errors
/// `NoService` if there is none, with `advice`.
pub(crate) fn find(program: &str, advice: &str) -> Result<PathBuf, End> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(program));
    let found = places.find(|place| place.is_file());
    found.ok_or_else(|| End::NoService(format!("no program {program} in PATH; {advice}")))
}

/// Waits for a condition; fails with `what` after a minute, which is long even for a
/// machine that is busy with other things.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A future that is dropped when it has been polled so often.
pub(crate) struct PollTimes<F> {
    future: Pin<Box<F>>,
    left: usize,
}

impl<F: Future> Future for PollTimes<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        match self.future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Polls it so often at the most: `None` if it did not come to its end.
pub(crate) fn poll_times<F: Future>(future: F, left: usize) -> PollTimes<F> {
    PollTimes {
        future: Box::pin(future),
        left,
    }
}

/// Whether a process is there and not merely waiting to be reaped.
pub(crate) fn is_alive(pid: i32) -> bool {
    let answer = std::process::Command::new("ps")
        .args(["-o", "stat=", "-p", &pid.to_string()])
        .output()
        .unwrap();
    let state = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

/// Pids of processes that work in a folder or below, or whose arguments name it.
pub(crate) fn processes_in(folder: &Path) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&arguments).into_owned();
            cwd.starts_with(folder) || arguments.contains(folder.to_str().unwrap())
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id().cast_signed())
        .collect()
}

/// The account of ordinary people, if we are root and can become it.
pub(crate) fn nobody() -> Result<User, End> {
    unprivileged_user(&["nobody"]).ok_or_else(|| End::Skip("only root can become nobody".into()))
}

/// Folders of instances below a services folder.
pub(crate) fn instances(services: &Path) -> Vec<PathBuf> {
    let folders = |path: &Path| {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect::<Vec<_>>()
    };
    let below = folders(services)
        .into_iter()
        .flat_map(|user| folders(&user));
    below
        .filter(|path| {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            !name.starts_with("template-")
        })
        .collect()
}
