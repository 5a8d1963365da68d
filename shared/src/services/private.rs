//! The process and the folder of one private server, whichever it is. Everything here blocks.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::ServiceError;
use super::folder::{Instance, ServicesFolder, remove_shared_memory};
use super::guard::{Guarded, OnOrphaned, Output, Program};
use super::processes;

/// How long a stop may take before the next harder one: politely, at once, by force.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How to run a server, and how to stop it.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) what: &'static str,
    /// The program and its arguments.
    pub(super) argv: Vec<std::ffi::OsString>,
    /// Ends it with everything written.
    pub(super) polite: Signal,
    /// Ends it at once, children and shared memory included.
    pub(super) at_once: Signal,
}

/// A private server.
///
/// ```text
/// started → running
/// running → paused  (pause)    paused → running (resume)
/// running, paused → stopped  (stop, kill)
/// running, paused, stopped → running  (restart)
/// any → discarded, as does dropping it
/// ```
#[derive(Debug)]
pub(super) struct Private {
    launch: Launch,
    folder: ServicesFolder,
    // Before the instance: the process goes first, then its folder.
    process: Option<Guarded>,
    instance: Option<Instance>,
    paused: bool,
}

impl Private {
    /// Starts a server on a prepared folder; it may not answer yet.
    pub(super) fn start(
        folder: &ServicesFolder,
        instance: Instance,
        launch: Launch,
    ) -> Result<Self, ServiceError> {
        let mut server = Self {
            launch,
            folder: folder.clone(),
            process: None,
            instance: Some(instance),
            paused: false,
        };
        server.launch()?;
        Ok(server)
    }

    fn launch(&mut self) -> Result<(), ServiceError> {
        let instance = self.instance.as_ref().ok_or(self.not_running())?;
        let log = instance.path().join("log");
        let program = Program::new(self.launch.argv.iter().cloned())
            .user(self.folder.user().cloned())
            .cwd(instance.path())
            .stdout(Output::Append(log.clone()))
            .stderr(Output::Append(log));
        let on_orphaned = OnOrphaned::StopThenRemove {
            signal: self.launch.at_once,
            folders: instance.folders(),
        };
        // Given away last: until now nobody else could put anything into it.
        self.folder.give(instance.path())?;
        let process = Guarded::spawn(clean_environment(program), on_orphaned)
            .map_err(|error| ServiceError::io("run", self.program(), error))?;
        instance.note_pid(process.pid())?;
        self.process = Some(process);
        self.paused = false;
        Ok(())
    }

    fn program(&self) -> &Path {
        self.launch.argv.first().map_or(Path::new(""), Path::new)
    }

    fn not_running(&self) -> ServiceError {
        ServiceError::NotRunning(self.launch.what)
    }

    fn running(&self) -> Result<&Guarded, ServiceError> {
        let running = self
            .process
            .as_ref()
            .filter(|process| process.try_wait().is_none());
        running.ok_or(self.not_running())
    }

    /// The folder that this instance and the templates are in.
    pub(super) fn services(&self) -> &ServicesFolder {
        &self.folder
    }

    /// The folder of the instance.
    pub(super) fn folder(&self) -> Result<PathBuf, ServiceError> {
        let path = self
            .instance
            .as_ref()
            .map(|instance| instance.path().to_owned());
        path.ok_or(self.not_running())
    }

    /// The server's process id.
    pub(super) fn pid(&self) -> Result<i32, ServiceError> {
        self.running().map(Guarded::pid)
    }

    /// An error if the process has ended, or if its time is up.
    pub(super) fn check_running(&self, failure: &str, late: bool) -> Result<(), ServiceError> {
        let (Some(process), Some(instance)) = (&self.process, &self.instance) else {
            return Err(self.not_running());
        };
        let reason = match process.try_wait() {
            Some(status) => status.to_string(),
            None if late => failure.to_owned(),
            None => return Ok(()),
        };
        let log = instance.path().join("log");
        Err(ServiceError::did_not_start(self.program(), reason, &log))
    }

    pub(super) fn pause(&mut self) -> Result<(), ServiceError> {
        stop_family(self.pid()?);
        self.paused = true;
        Ok(())
    }

    pub(super) fn resume(&mut self) -> Result<(), ServiceError> {
        let pid = self.pid()?;
        for pid in processes::descendants(pid).into_iter().chain([pid]) {
            processes::signal(pid, Signal::CONT);
        }
        self.paused = false;
        Ok(())
    }

    pub(super) fn kill(&mut self) -> Result<(), ServiceError> {
        let Some(process) = self.process.take() else {
            return Ok(());
        };
        if process.try_wait().is_none() {
            let family = stop_family(process.pid());
            family
                .iter()
                .for_each(|pid| processes::signal(*pid, Signal::KILL));
            processes::wait_until_gone(&family, STOP_LIMIT);
            process.wait_blocking(STOP_LIMIT);
        }
        process.release();
        self.paused = false;
        Ok(())
    }

    pub(super) fn stop(&mut self) -> Result<(), ServiceError> {
        self.end(&[self.launch.polite, self.launch.at_once])
    }

    /// Sends one signal after the other until the server is gone, and kills it in the end.
    fn end(&mut self, signals: &[Signal]) -> Result<(), ServiceError> {
        if self.paused && self.running().is_ok() {
            self.resume()?;
        }
        if let Some(process) = &self.process {
            // Ended or not, `kill` sees to the rest.
            let _ = signals.iter().any(|signal| stop(process, *signal));
        }
        self.kill()
    }

    pub(super) fn restart(&mut self) -> Result<(), ServiceError> {
        self.stop()?;
        self.launch()
    }

    /// Stops the server at once and removes its folder.
    pub(super) fn discard(&mut self) {
        // The data is thrown away, so there is nothing to write.
        if let Err(error) = self.end(&[self.launch.at_once]) {
            tracing::warn!(%error, "cannot stop the private server");
        }
        if let Some(instance) = self.instance.take() {
            remove_shared_memory(&instance.path().join("data"));
        }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        self.discard();
    }
}

/// Asks until the process ends, at most `STOP_LIMIT`. Again and again, since a signal that comes
/// while a server starts, and has no handler yet, is lost.
fn stop(process: &Guarded, signal: Signal) -> bool {
    let deadline = Instant::now() + STOP_LIMIT;
    while Instant::now() < deadline {
        if process.signal(signal).is_err() {
            return false;
        }
        if process.wait_blocking(Duration::from_millis(100)).is_some() {
            return true;
        }
    }
    false
}

/// Stops the parent first, so that it forks no more, then all below it. Their pids, its own
/// included.
fn stop_family(parent: i32) -> Vec<i32> {
    processes::signal(parent, Signal::STOP);
    let mut family = processes::descendants(parent);
    family
        .iter()
        .for_each(|pid| processes::signal(*pid, Signal::STOP));
    family.push(parent);
    family
}

/// Hides variables that would change what a server does.
pub(super) fn clean_environment(program: Program) -> Program {
    let names = [
        "PGDATA",
        "PGPORT",
        "PGUSER",
        "PGHOST",
        "PGOPTIONS",
        "PGTZ",
        "LANG",
    ];
    let program = names
        .iter()
        .fold(program, |program, name| program.env_remove(*name));
    // Messages in one language, since `did_not_start` looks for one of them.
    program.env("LC_ALL", "C")
}
