//! Where private servers keep their data, who owns it, and how what a dead owner left is swept.
//!
//! ```text
//! target/services/uid-101/          owned by the account that runs the servers
//!   lock                            held while an instance is made or looked for leftovers
//!   template-postgres-15-…/         an initialised cluster, copied for each instance
//!   postgres-1f6e20c3/              one instance
//!     owner                         locked by the process that it belongs to, as long as it lives
//!     pid                           of the server
//!     socket-folder                 where the socket is, if not here
//!     data/  log
//! ```
//!
//! The watcher of the guard removes an instance when its owner dies. The sweep is for what even
//! that missed: a watcher that was killed too, or a machine that was switched off.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::ServiceError;
use super::guard::{User, can_write};
use super::processes;

/// The longest path of a Unix socket that all systems take (macOS: 104 bytes with the final zero).
const LONGEST_SOCKET_PATH_BYTES: usize = 100;

/// How long a server that nobody owns may take to stop before it is killed.
const ORPHAN_STOP: Duration = Duration::from_secs(5);

/// The folder that holds templates and instances.
#[derive(Debug, Clone)]
pub(super) struct ServicesFolder {
    path: PathBuf,
    user: Option<User>,
}

impl ServicesFolder {
    /// Opens the folder for servers that run as `user` (as ourselves if `None`): `chosen` if given,
    /// else below the target folder, else, if that account cannot reach it, below the system's
    /// folder for temporary files.
    pub(super) fn open(chosen: Option<&Path>, user: Option<&User>) -> Result<Self, ServiceError> {
        let base = chosen.map_or_else(|| target_folder().join("services"), Path::to_owned);
        let folder = Self::open_below(&base, user)?;
        if user.is_none_or(|user| can_write(user, &folder.path)) {
            return Ok(folder);
        }
        // The folder was made by us a moment ago or is empty of use: leave nothing in vain.
        let _ = fs::remove_dir(&folder.path);
        let own = rustix::process::geteuid().as_raw();
        let base = std::env::temp_dir().join(format!("kata-services-{own}"));
        Self::open_below(&base, user)
    }

    fn open_below(base: &Path, user: Option<&User>) -> Result<Self, ServiceError> {
        let made = |error| ServiceError::io("make", base, error);
        let own = rustix::process::geteuid().as_raw();
        // Others pass through to what is theirs and see nothing else.
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o711)
            .create(base)
            .map_err(made)?;
        if fs::symlink_metadata(base).map_err(made)?.uid() != own {
            // In a folder for temporary files anybody can put something in our way.
            return Err(made(std::io::ErrorKind::PermissionDenied.into()));
        }
        let base = base.canonicalize().map_err(made)?;
        let uid = user.map_or(own, |user| user.uid);
        let path = base.join(format!("uid-{uid}"));
        builder
            .create(&path)
            .map_err(|error| ServiceError::io("make", &path, error))?;
        let folder = Self {
            path,
            user: user.cloned(),
        };
        folder.give(&folder.path)?;
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// Makes `path` the property of the account that runs the servers.
    pub(super) fn give(&self, path: &Path) -> Result<(), ServiceError> {
        let Some(user) = &self.user else {
            return Ok(());
        };
        chown(path, Some(user.uid), Some(user.gid))
            .map_err(|error| ServiceError::io("give away", path, error))
    }

    /// Blocks until no other process holds the lock `name`; it is let go when the file is dropped,
    /// and by the kernel when we die.
    pub(super) fn lock(&self, name: &str) -> Result<File, ServiceError> {
        let path = self.path.join(name);
        let failed = |error| ServiceError::io("lock", &path, error);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(file)
    }

    /// Makes an empty folder that is ours until we die.
    pub(super) fn instance(&self, kind: &str) -> Result<Instance, ServiceError> {
        // Under the lock a folder whose owner file is not locked can only be a dead one's.
        let _lock = self.lock("lock")?;
        let name = format!("{kind}-{:08x}", rand::random::<u32>());
        let path = self.path.join(&name);
        let failed = |error| ServiceError::io("make", &path, error);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(failed)?;
        let mut instance = Instance {
            owner: None,
            socket_folder: path.clone(),
            path: path.clone(),
        };
        let owner = File::create(path.join("owner")).map_err(failed)?;
        owner.lock().map_err(failed)?;
        instance.owner = Some(owner);
        if path.as_os_str().len() + "/.s.PGSQL.5432".len() > LONGEST_SOCKET_PATH_BYTES {
            instance.socket_folder = short_folder(&name)?;
            self.give(&instance.socket_folder)?;
            let note = path.join("socket-folder");
            fs::write(&note, instance.socket_folder.as_os_str().as_encoded_bytes())
                .map_err(|error| ServiceError::io("write", &note, error))?;
        }
        Ok(instance)
    }

    /// Stops and removes what dead owners left. Blocks, for seconds if a server is still running.
    ///
    /// What cannot be removed is left for its owner: a sweep never fails a start.
    pub(super) fn sweep(&self) -> Result<(), ServiceError> {
        let dead = {
            let _lock = self.lock("lock")?;
            let entries = fs::read_dir(&self.path)
                .map_err(|error| ServiceError::io("read", &self.path, error))?;
            let folders = entries.flatten().map(|entry| entry.path());
            folders
                .filter(|path| path.is_dir() && !is_template(path))
                .filter_map(|path| claim_dead(&path).map(|claim| (path, claim)))
                .collect::<Vec<_>>()
        };
        // The claims are held meanwhile, so that no other sweep works on the same folder.
        for (path, _claim) in dead {
            tracing::debug!(path = %path.display(), "sweeping what a dead process left");
            sweep_one(&path);
        }
        Ok(())
    }
}

/// The folder of one server. Dropping it removes it, so stop the server first.
#[derive(Debug)]
pub(super) struct Instance {
    path: PathBuf,
    socket_folder: PathBuf,
    owner: Option<File>,
}

impl Instance {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the socket is to be: here if the path is short enough, else in a folder of its own.
    pub(super) fn socket_folder(&self) -> &Path {
        &self.socket_folder
    }

    /// All that must go when the server does.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.path.clone()];
        if self.socket_folder != self.path {
            folders.push(self.socket_folder.clone());
        }
        folders
    }

    /// Notes the server's pid for a sweep that may have to stop it.
    pub(super) fn note_pid(&self, pid: i32) -> Result<(), ServiceError> {
        let path = self.path.join("pid");
        fs::write(&path, pid.to_string()).map_err(|error| ServiceError::io("write", &path, error))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        for folder in self.folders() {
            if let Err(error) = fs::remove_dir_all(&folder)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %folder.display(), %error, "cannot remove");
            }
        }
    }
}

fn is_template(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"template-"))
}

/// Takes the owner's lock of a folder, if nobody holds it. A folder without an owner file was left
/// by somebody who died, or is removed this very moment: `Some(None)`.
fn claim_dead(path: &Path) -> Option<Option<File>> {
    let Ok(owner) = File::open(path.join("owner")) else {
        return Some(None);
    };
    match owner.try_lock() {
        Ok(()) => Some(Some(owner)),
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => None,
    }
}

fn sweep_one(path: &Path) {
    let pid = fs::read_to_string(path.join("pid"))
        .ok()
        .and_then(|text| text.trim().parse().ok());
    if let Some(pid) = pid
        && processes::works_in(pid, path)
    {
        let mut all = processes::descendants(pid);
        processes::signal(pid, Signal::QUIT);
        all.push(pid);
        // A paused server acts on nothing until it is continued.
        all.iter()
            .for_each(|pid| processes::signal(*pid, Signal::CONT));
        if !processes::wait_until_gone(&all, ORPHAN_STOP) {
            all.iter()
                .for_each(|pid| processes::signal(*pid, Signal::KILL));
            processes::wait_until_gone(&all, ORPHAN_STOP);
        }
    }
    remove_shared_memory(&path.join("data"));
    if let Ok(socket_folder) = fs::read_to_string(path.join("socket-folder")) {
        let _ = fs::remove_dir_all(socket_folder);
    }
    let _ = fs::remove_dir_all(path);
}

/// Removes the System V segment of a PostgreSQL server that was killed; one that ended by itself
/// has done so. The kernel keeps it otherwise until the machine is switched off.
pub(super) fn remove_shared_memory(data: &Path) {
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else {
        return;
    };
    // Seventh line: key and id.
    let id = text
        .lines()
        .nth(6)
        .and_then(|line| line.split_whitespace().nth(1));
    if let Some(id) = id.filter(|id| id.bytes().all(|byte| byte.is_ascii_digit())) {
        let mut command = Command::new("/usr/bin/ipcrm");
        command
            .args(["-m", id])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Without `ipcrm` 56 bytes stay behind; not worth an error.
        let _ = command.stdin(Stdio::null()).status();
    }
}

/// A folder with a short path for a socket.
fn short_folder(name: &str) -> Result<PathBuf, ServiceError> {
    let mut base = std::env::temp_dir();
    if base.as_os_str().len() > 50 {
        base = PathBuf::from("/tmp");
    }
    let path = base.join(format!("kata-{name}"));
    let failed = |error| ServiceError::io("make", &path, error);
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&path)
        .map_err(failed)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    Ok(path)
}

/// The target folder of the build that we belong to.
///
/// A relative `CARGO_TARGET_DIR` is relative to the folder where Cargo was called, which is not
/// ours when a test runs: then the place of our own program is the better witness.
pub fn target_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from)
        && folder.is_absolute()
    {
        return folder;
    }
    let program = std::env::current_exe().unwrap_or_default();
    let marked = program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    marked.map_or(workspace, Path::to_owned)
}
