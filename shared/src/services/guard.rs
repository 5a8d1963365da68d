//! A process that cannot outlive us: it ends when our process ends, however that happens.
//!
//! A destructor is not enough. It does not run after SIGKILL, after `abort`, or for a value in a
//! `static`. `PR_SET_PDEATHSIG` is Linux only, needs unsafe code, and fires when the *thread* that
//! spawned the child ends. So a small shell stands between: it starts a watcher that blocks on a
//! pipe whose other end only we hold, then becomes the program by `exec`. However we end, the
//! kernel closes our end, the watcher reads end-of-file, and cleans up.
//!
//! What this does not promise: a program that leaves its process group (`setsid`) and forks
//! escapes `OnOrphaned::KillGroup`. PostgreSQL does that to its own children, and takes them along
//! when it is told to quit.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, WaitId, WaitIdOptions};
use tokio::sync::watch;

/// Prepares the watcher, then becomes the program.
///
/// - `$1` is `group` or the name of the signal that stops the program; `$2` how many of the
///   following arguments are folders to remove; then the folders; then the program.
/// - The watcher is started by a subshell that ends at once, so that it is a child of init and not
///   of the program: PostgreSQL is surprised by children that it did not start.
/// - It ignores what a terminal or `signal_group` sends to the group, and holds no output open.
///   The signals are ignored before the fork, since one could arrive in between.
/// - A line on the pipe means "nothing to do"; end-of-file means that we are gone.
/// - The tools that it needs are found even if our `PATH` is peculiar; `kill` is built in.
/// - Stopped children of a paused server could not act on the signal, so all are continued.
/// - The signal is sent again and again: one that comes while the program starts may be lost.
/// - One that has ended and that nobody reaps, in a container without an init, counts as gone.
const SCRIPT: &str = r#"
exec 3<&0 </dev/null
trap '' HUP INT QUIT TERM
main=$$ stop=$1 folders=$2
shift 2
( (
    read -r _ <&3 && exit 0
    [ "$stop" = group ] && kill -KILL 0
    PATH=$PATH:/usr/bin:/bin
    ps -A -o ppid= -o pid= | while read -r parent child; do
        [ "$parent" = "$main" ] && kill -CONT "$child"
    done
    kill -CONT "$main"
    tries=0
    while kill -s "$stop" "$main" && [ "$tries" -lt 200 ]; do
        case $(ps -o stat= -p "$main") in Z*) break ;; esac
        tries=$((tries + 1))
        sleep 0.05 || sleep 1
    done
    kill -KILL "$main"
    while [ "$folders" -gt 0 ]; do
        rm -rf -- "$1"
        shift
        folders=$((folders - 1))
    done
) >/dev/null 2>&1 & )
trap - HUP INT QUIT TERM
exec 3<&-
shift "$folders"
exec "$@"
"#;

/// An account to run a program as; only root can choose one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name, for messages.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Group id; all other groups are dropped.
    pub gid: u32,
}

/// Where a program's output goes.
#[derive(Debug, Clone, Default)]
pub enum Output {
    /// Nowhere.
    #[default]
    Null,
    /// Where our own goes.
    Inherit,
    /// Into a pipe that we read (`Guarded::take_stdout`); a reader must keep up with it.
    Piped,
    /// At the end of a file, which is made if it does not exist.
    Append(PathBuf),
}

impl Output {
    fn open(&self) -> io::Result<Stdio> {
        Ok(match self {
            Self::Null => Stdio::null(),
            Self::Inherit => Stdio::inherit(),
            Self::Piped => Stdio::piped(),
            Self::Append(path) => File::options().append(true).create(true).open(path)?.into(),
        })
    }
}

/// What to run, and with what around it. Its standard input is always empty.
#[derive(Debug, Clone)]
pub struct Program {
    argv: Vec<OsString>,
    env: Vec<(OsString, Option<OsString>)>,
    cwd: Option<PathBuf>,
    user: Option<User>,
    stdout: Output,
    stderr: Output,
}

impl Program {
    /// A program with its arguments, found through `PATH` unless it is a path.
    pub fn new<S: Into<OsString>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: None,
            user: None,
            stdout: Output::Null,
            stderr: Output::Null,
        }
    }

    /// A command line as one would type it: `sh -c COMMAND`.
    pub fn shell(command: impl AsRef<OsStr>) -> Self {
        Self::new([OsStr::new("/bin/sh"), OsStr::new("-c"), command.as_ref()])
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), Some(value.into())));
        self
    }

    /// Hides one of our own environment variables.
    #[must_use]
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.env.push((name.into(), None));
        self
    }

    /// The folder to start in; ours if not given.
    #[must_use]
    pub fn cwd(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cwd = Some(folder.into());
        self
    }

    /// The account to run as.
    #[must_use]
    pub fn user(mut self, user: Option<User>) -> Self {
        self.user = user;
        self
    }

    /// Where standard output goes.
    #[must_use]
    pub fn stdout(mut self, output: Output) -> Self {
        self.stdout = output;
        self
    }

    /// Where standard error goes.
    #[must_use]
    pub fn stderr(mut self, output: Output) -> Self {
        self.stderr = output;
        self
    }
}

/// What the watcher does when our process is gone.
#[derive(Debug, Clone)]
pub enum OnOrphaned {
    /// SIGKILL for the whole process group.
    KillGroup,
    /// Send `signal` to the program, wait until it is gone (SIGKILL after ten seconds), then
    /// remove the folders.
    StopThenRemove {
        /// What asks the program to end.
        signal: Signal,
        /// What is removed afterwards; the account that the program runs as must be able to.
        folders: Vec<PathBuf>,
    },
}

/// A running program that ends with us. Dropping it kills its whole process group.
///
/// Usable from any thread and any runtime: it is not bound to the one that spawned it.
#[derive(Debug)]
pub struct Guarded {
    pid: Pid,
    process: Arc<Process>,
    ended: watch::Receiver<bool>,
    /// The end of the pipe that the watcher blocks on. `None` once the watcher was sent home.
    lifeline: Option<ChildStdin>,
    kills_group: bool,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

/// What the reaper's thread and the handles share.
#[derive(Debug)]
struct Process {
    /// The status, once the process was reaped. Signals are sent and the process is reaped under
    /// this lock, so that a signal never reaches a stranger who was given the same pid.
    status: Mutex<Option<ExitStatus>>,
    reaped: Condvar,
}

impl Process {
    fn lock(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guarded {
    /// Starts a program in a process group of its own, with a watcher beside it.
    ///
    /// # Errors
    /// The shell could not be started, an output file not opened, or the user or folder not be
    /// switched to. A program that does not exist shows as exit status 127.
    pub fn spawn(program: Program, on_orphaned: OnOrphaned) -> io::Result<Self> {
        let (stop, folders, kills_group) = match on_orphaned {
            OnOrphaned::KillGroup => ("group", Vec::new(), true),
            OnOrphaned::StopThenRemove { signal, folders } => {
                (signal_name(signal)?, folders, false)
            }
        };
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "guard", stop, &folders.len().to_string()])
            .args(folders)
            .args(&program.argv)
            .stdin(Stdio::piped())
            .stdout(program.stdout.open()?)
            .stderr(program.stderr.open()?)
            .process_group(0);
        for (name, value) in &program.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(folder) = &program.cwd {
            command.current_dir(folder);
        }
        if let Some(user) = &program.user {
            command.uid(user.uid).gid(user.gid);
        }

        let mut child = command.spawn()?;
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("the system gave the process no usable id"))?;
        let lifeline = child.stdin.take();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let process = Arc::new(Process {
            status: Mutex::new(None),
            reaped: Condvar::new(),
        });
        let (tell, ended) = watch::channel(false);
        let shared = Arc::clone(&process);
        std::thread::Builder::new()
            .name(format!("reap-{}", pid.as_raw_nonzero()))
            .spawn(move || {
                // Wait without reaping, so that the pid stays ours until the lock is held.
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                while let Err(rustix::io::Errno::INTR) =
                    rustix::process::waitid(WaitId::Pid(pid), options)
                {}
                let mut status = shared.lock();
                *status = Some(child.wait().unwrap_or_default());
                drop(status);
                shared.reaped.notify_all();
                tell.send_replace(true);
            })?;
        Ok(Self {
            pid,
            process,
            ended,
            lifeline,
            kills_group,
            stdout,
            stderr,
        })
    }

    /// The process id, which is the id of its process group too.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// The reading end of standard output, once, if it was asked for as `Output::Piped`.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.stdout.take()
    }

    /// The reading end of standard error, once, if it was asked for as `Output::Piped`.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.stderr.take()
    }

    /// Sends a signal to the program alone. Nothing happens once it has ended.
    ///
    /// # Errors
    /// The system refuses, for example because the program changed its user.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let status = self.process.lock();
        if status.is_some() {
            return Ok(());
        }
        Ok(rustix::process::kill_process(self.pid, signal)?)
    }

    /// Sends a signal to the whole process group, children that outlived the program included.
    ///
    /// The watcher, a member too, ignores all that can be ignored. It does not survive SIGKILL,
    /// and then neither does anything that it would have to look after in the group.
    ///
    /// # Errors
    /// The system refuses.
    pub fn signal_group(&self, signal: Signal) -> io::Result<()> {
        let _status = self.process.lock();
        // As long as the watcher is alive the group's id cannot be given to anybody else.
        if self.lifeline.is_none() {
            return Ok(());
        }
        match rustix::process::kill_process_group(self.pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The exit status, if the program has ended.
    pub fn try_wait(&self) -> Option<ExitStatus> {
        *self.process.lock()
    }

    /// Waits until the program has ended. Cancel safe.
    pub async fn wait(&self) -> ExitStatus {
        let mut ended = self.ended.clone();
        // An error would mean that the reaper is gone, and it sets the status before it goes.
        let _ = ended.wait_for(|ended| *ended).await;
        self.try_wait().unwrap_or_default()
    }

    /// Waits until the program has ended, at most `limit`, and blocks the thread meanwhile.
    pub fn wait_blocking(&self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        let mut status = self.process.lock();
        while status.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.process.reaped.wait_timeout(status, left);
            status = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *status
    }

    /// Sends the watcher home: the program has ended and what it left is in our hands now.
    pub fn release(mut self) {
        if let Some(mut lifeline) = self.lifeline.take() {
            // A watcher that is gone already needs no word.
            let _ = lifeline.write_all(b"\n");
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // With `StopThenRemove`, closing the lifeline is the message, and the watcher is needed.
        if self.kills_group {
            let _ = self.signal_group(Signal::KILL);
        }
    }
}

/// The name that `kill -s` knows.
fn signal_name(signal: Signal) -> io::Result<&'static str> {
    match signal {
        Signal::QUIT => Ok("QUIT"),
        Signal::TERM => Ok("TERM"),
        Signal::INT => Ok("INT"),
        Signal::KILL => Ok("KILL"),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a program is stopped by QUIT, TERM, INT or KILL",
        )),
    }
}

/// The account that a program must be run as because it refuses root: the first of `names` that
/// exists. `None` if we are not root, and may not choose.
pub fn unprivileged_user(names: &[&str]) -> Option<User> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    // `id` asks every directory that the system is set up with; `/etc/passwd` is only one of them.
    let ask = |flag: &str, name: &str| -> Option<u32> {
        let answer = Command::new("/usr/bin/id")
            .args([flag, name])
            .output()
            .ok()?;
        String::from_utf8_lossy(&answer.stdout).trim().parse().ok()
    };
    names.iter().find_map(|name| {
        Some(User {
            name: (*name).to_owned(),
            uid: ask("-u", name)?,
            gid: ask("-g", name)?,
        })
    })
}

/// Whether `user` can enter `folder` and make files there. Tried, not computed: access lists and
/// mount options have their say too.
pub fn can_write(user: &User, folder: &Path) -> bool {
    let probe = r#"cd -- "$1" && : >"probe-$$" && rm -f "probe-$$""#;
    Command::new("/bin/sh")
        .args(["-c", probe, "probe"])
        .arg(folder)
        .uid(user.uid)
        .gid(user.gid)
        .current_dir("/")
        // `rm` must be found even if our `PATH` is peculiar.
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
