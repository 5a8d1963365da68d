//! A command under way, as a person at a terminal has it: read, waited for, ended with Ctrl-C.

use std::{
    io::Read,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use rustix::process::{Pid, Signal, kill_process_group};

/// The last resort: a cold build of one package on a busy machine is the slowest thing here.
const DEADLINE: Duration = Duration::from_secs(600);

/// How long what a command started may outlive it.
const TIDYING: Duration = Duration::from_secs(20);

/// Everything that a trial starts carries it in its environment, however far down.
const MARK: &str = "KATA_README_TRIAL";

/// A command in a process group of its own.
pub(crate) struct Running {
    child: Child,
    output: Receiver<Vec<u8>>,
    said: String,
    mark: String,
    began: Instant,
}

impl Running {
    /// Starts a line of shell in a folder.
    pub(crate) fn start(folder: &Path, line: &str) -> Result<Self, Failed> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{}-{number}", std::process::id());
        let mut child = Command::new("sh")
            .args(["-c", line])
            .current_dir(folder)
            .env(MARK, &mark)
            // What the reader does not have set, either.
            .env_remove("KATA_REQUIRE_SERVICES")
            // Some verbs read keys from it, and its end means nothing to them.
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let (tell, output) = channel();
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|stream| Box::new(stream) as _),
            child.stderr.take().map(|stream| Box::new(stream) as _),
        ];
        for mut stream in streams.into_iter().flatten() {
            let tell = tell.clone();
            std::thread::spawn(move || {
                let mut piece = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut piece) {
                    if tell.send(piece[..read].to_vec()).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self {
            child,
            output,
            said: String::new(),
            mark,
            began: Instant::now(),
        })
    }

    /// It ends by itself like this.
    pub(crate) fn ends(mut self, codes: &[i32], says: &str) -> Result<(), Failed> {
        let status = self.end()?;
        if !status.code().is_some_and(|code| codes.contains(&code)) {
            return self.wrong(&format!("ended with {status}, expected one of {codes:?}"));
        }
        if !self.said.contains(says) {
            return self.wrong(&format!("did not say {says:?}"));
        }
        self.nothing_is_left()
    }

    /// It says that it is ready, and ends on Ctrl-C.
    pub(crate) fn waits(mut self, ready: &str, code: i32) -> Result<(), Failed> {
        self.until(ready)?;
        self.interrupted(code)
    }

    /// Reads until it says this, and returns all that it said.
    pub(crate) fn until(&mut self, says: &str) -> Result<String, Failed> {
        while !self.said.contains(says) {
            if !self.hear()? {
                return self.wrong(&format!("ended before it said {says:?}"));
            }
        }
        Ok(self.said.clone())
    }

    /// Ctrl-C, which a terminal sends to the whole group.
    pub(crate) fn interrupted(mut self, code: i32) -> Result<(), Failed> {
        self.signal(Signal::INT)?;
        let status = self.end()?;
        if status.code() != Some(code) {
            return self.wrong(&format!("ended with {status} on Ctrl-C, expected {code}"));
        }
        self.nothing_is_left()
    }

    /// Ends a program of the reader's own.
    pub(crate) fn kill(mut self) -> Result<(), Failed> {
        self.signal(Signal::KILL)?;
        self.end()?;
        self.nothing_is_left()
    }

    fn signal(&self, signal: Signal) -> Result<(), Failed> {
        kill_process_group(Pid::from_child(&self.child), signal).map_err(Failed::from)
    }

    /// Waits for its output; `false` when that has ended.
    fn hear(&mut self) -> Result<bool, Failed> {
        let left = DEADLINE.saturating_sub(self.began.elapsed());
        match self.output.recv_timeout(left) {
            Ok(piece) => {
                self.said.push_str(&String::from_utf8_lossy(&piece));
                Ok(true)
            }
            Err(RecvTimeoutError::Disconnected) => Ok(false),
            Err(RecvTimeoutError::Timeout) => self.wrong(&format!("went on for {DEADLINE:?}")),
        }
    }

    fn end(&mut self) -> Result<ExitStatus, Failed> {
        while self.hear()? {}
        Ok(self.child.wait()?)
    }

    fn wrong<T>(&self, what: &str) -> Result<T, Failed> {
        Err(Failed::from(format!("{what}\n--- it said:\n{}", self.said)))
    }

    /// Whatever it started has to go with it: servers, programs under test, watchers.
    fn nothing_is_left(&self) -> Result<(), Failed> {
        let began = Instant::now();
        loop {
            let left = marked(&self.mark);
            if left.is_empty() {
                return Ok(());
            }
            if began.elapsed() > TIDYING {
                return self.wrong(&format!("left behind: {}", left.join(", ")));
            }
            // A look at the process table has nothing to wait on.
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After a failure it may still be there.
        if let Ok(None) = self.child.try_wait() {
            let _ = self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// The processes that carry a mark. Empty where there is no `/proc` to look at.
fn marked(mark: &str) -> Vec<String> {
    let wanted = format!("{MARK}={mark}");
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|process| {
            let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|entry| entry == wanted.as_bytes())
        })
        .map(|process| {
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            format!("{} {line}", process.file_name().to_string_lossy())
        })
        .collect()
}
