//! Questions about processes that no safe library call answers: who are the children, who is gone.
//!
//! Linux answers through `/proc`; elsewhere (macOS) through `ps` and `lsof`, which are part of the
//! system there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// All processes below `pid`, nearest first. Those who left its process group are found too,
/// which is why PostgreSQL needs this: each of its children leads a session of its own.
pub(super) fn descendants(pid: i32) -> Vec<i32> {
    let table = table();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(
            table
                .iter()
                .filter(|row| row.parent == parent)
                .map(|row| row.pid),
        );
        next += 1;
    }
    found.remove(0);
    found
}

/// Whether the process is no more. One that has ended and waits to be reaped counts as gone: in a
/// container without an init nobody ever reaps it.
pub(super) fn is_gone(pid: i32) -> bool {
    if cfg!(target_os = "linux") {
        return std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .ok()
            .and_then(|stat| Row::parse(pid, &stat))
            .is_none_or(|row| row.ended);
    }
    // A refusal ("not permitted") still says that the process is there.
    Pid::from_raw(pid)
        .is_none_or(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

/// Sends a signal; a process that is gone is not an error, nor is one that is not ours.
pub(super) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Waits until all are gone, at most `limit`; blocks the thread. True if they are.
pub(super) fn wait_until_gone(pids: &[i32], limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while !pids.iter().all(|pid| is_gone(*pid)) {
        if Instant::now() > deadline {
            return false;
        }
        // Nothing notifies of the end of a process that is not our child: look again.
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

/// The folder that a process works in, if it may be known.
pub(super) fn working_folder(pid: i32) -> Option<PathBuf> {
    if cfg!(target_os = "linux") {
        return std::fs::read_link(format!("/proc/{pid}/cwd")).ok();
    }
    let arguments = ["-a", "-p", &pid.to_string(), "-d", "cwd", "-Fn"];
    let answer = Command::new("/usr/sbin/lsof")
        .args(arguments)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    text.lines()
        .find_map(|line| line.strip_prefix('n'))
        .map(PathBuf::from)
}

/// Whether the process works in `folder` or below: how a server of ours is told from a stranger
/// who was given its pid later.
pub(super) fn works_in(pid: i32, folder: &Path) -> bool {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    !is_gone(pid) && working_folder(pid).is_some_and(|cwd| cwd.starts_with(folder))
}

struct Row {
    pid: i32,
    parent: i32,
    ended: bool,
}

impl Row {
    /// `pid (name) state parent …`, where the name may hold blanks and brackets.
    fn parse(pid: i32, stat: &str) -> Option<Self> {
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        Some(Self {
            pid,
            parent: fields.next()?.parse().ok()?,
            ended: matches!(state, "Z" | "X"),
        })
    }
}

fn table() -> Vec<Row> {
    if cfg!(target_os = "linux") {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        return entries
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                Row::parse(
                    pid,
                    &std::fs::read_to_string(entry.path().join("stat")).ok()?,
                )
            })
            .collect();
    }
    let answer = Command::new("/bin/ps")
        .args(["-A", "-o", "pid=", "-o", "ppid="])
        .output();
    let text = answer.map(|answer| String::from_utf8_lossy(&answer.stdout).into_owned());
    text.unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            Some(Row {
                pid: fields.next()?.parse().ok()?,
                parent: fields.next()?.parse().ok()?,
                ended: false,
            })
        })
        .collect()
}
