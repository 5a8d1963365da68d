//! An initialised PostgreSQL cluster, made once and copied for each instance.
//!
//! `initdb` takes half a second to more than one; copying its result takes a tenth of that. What costs
//! is how many files there are, so it holds one database and not the usual three, unless they are
//! asked for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::ServiceError;
use super::folder::ServicesFolder;
use super::guard::{Guarded, OnOrphaned, Output, Program};
use super::private::clean_environment;
use super::programs::PostgresPrograms;

/// The superuser of every private instance.
pub(super) const SUPERUSER: &str = "postgres";

/// The database of every private instance.
pub(super) const DATABASE: &str = "postgres";

/// `initdb` writes 30 MB, without waiting for the disk. Longer than this and it hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// Settings that all private instances share, in the order of how much they matter.
///
/// - The data is thrown away: nothing waits for the disk, and no page is logged twice.
/// - `wal_level = minimal` writes least. A streaming standby overrides it.
/// - A deadlock is a lesson here: found after 0.1 s, not after a second.
/// - Autovacuum is off because a check lives for a second, and a worker in the middle of it is
///   noise in timings and locks. An experiment that measures dead tuples turns it on.
/// - 500 connections: several checks at once, each with pools of two or three instances.
/// - Shared memory in files of the data folder, and not in `/dev/shm`: that is 64 MB in a
///   container, and what is in the folder goes with the folder.
/// - Passwords are sent in clear text over a socket of our own, so that roles are really apart.
///   SCRAM would cost 4,096 hash rounds on both sides of every new connection, and checks open
///   thousands.
const SETTINGS: &str = "\
listen_addresses = ''
max_connections = 500
shared_buffers = '48MB'
huge_pages = off
dynamic_shared_memory_type = mmap
fsync = off
synchronous_commit = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
min_wal_size = '4MB'
max_wal_size = '128MB'
autovacuum = off
jit = off
max_logical_replication_workers = 0
deadlock_timeout = '100ms'
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %u '
lc_messages = 'C'
";

/// Takes the two databases away that only `create database` would read: of 970 files, 375 are left.
const ONE_DATABASE: &str = "\
update pg_database set datistemplate = false where datname <> current_database();
drop database template0;
drop database template1;
";

/// A finished template.
#[derive(Debug)]
pub(super) struct Template {
    path: PathBuf,
}

impl Template {
    /// Finds the template for these programs, or makes it. Blocks: half a second to two the first
    /// time, and as long as another process is at it.
    pub(super) fn find_or_make(
        folder: &ServicesFolder,
        programs: &PostgresPrograms,
        databases: bool,
    ) -> Result<Self, ServiceError> {
        let statements = if databases { "" } else { ONE_DATABASE };
        let settings = settings(programs.major);
        // What the cluster depends on: a new minor version, a package of another origin or another
        // setting makes a new template.
        let key = Sha256::new()
            .chain_update(programs.version.as_bytes())
            .chain_update(programs.bin.as_os_str().as_encoded_bytes())
            .chain_update(settings.as_bytes())
            .chain_update(statements.as_bytes())
            .finalize();
        let key: String = key
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let name = format!("template-postgres-{}-{key}", programs.major);
        let template = Self {
            path: folder.path().join(&name),
        };
        // It gets its name when it is complete, so whoever sees it can use it.
        if template.path.is_dir() {
            return Ok(template);
        }
        let _lock = folder.lock(&format!("{name}.lock"))?;
        if template.path.is_dir() {
            return Ok(template);
        }
        let unfinished = folder.path().join(format!("{name}.unfinished"));
        let _ = fs::remove_dir_all(&unfinished);
        let made = make(folder, programs, &settings, statements, &unfinished).and_then(|()| {
            fs::rename(&unfinished, &template.path)
                .map_err(|error| ServiceError::io("rename", &unfinished, error))
        });
        if made.is_err() {
            let _ = fs::remove_dir_all(&unfinished);
        }
        made.map(|()| template)
    }

    /// The superuser's password.
    pub(super) fn password(&self) -> Result<String, ServiceError> {
        let path = self.path.join("password");
        let text =
            fs::read_to_string(&path).map_err(|error| ServiceError::io("read", &path, error))?;
        Ok(text.trim().to_owned())
    }

    /// Copies the cluster to `data`, which must not exist yet, and hands it to the servers' user.
    pub(super) fn copy(&self, folder: &ServicesFolder, data: &Path) -> Result<(), ServiceError> {
        copy_tree(folder, &self.path.join("data"), data)
    }
}

/// The settings for a major version.
fn settings(major: u32) -> String {
    let mut settings = SETTINGS.to_owned();
    // What costs least processor time per login, see above: one MD5, or one round of SHA-256 where
    // the server can be told so. MD5 is deprecated from 18 on and will go.
    settings.push_str(match major {
        ..16 => "password_encryption = md5\n",
        16.. => "scram_iterations = 1\n",
    });
    if major >= 18 {
        // No worker processes for I/O: the pages are in the kernel's cache.
        settings.push_str("io_method = sync\n");
    }
    settings
}

fn make(
    folder: &ServicesFolder,
    programs: &PostgresPrograms,
    settings: &str,
    statements: &str,
    path: &Path,
) -> Result<(), ServiceError> {
    let failed = |error| ServiceError::io("write", path, error);
    fs::create_dir(path).map_err(failed)?;
    folder.give(path)?;
    let password = path.join("password");
    fs::write(&password, super::random_secret()).map_err(failed)?;
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    folder.give(&password)?;

    let data = path.join("data");
    let log = path.join("log");
    let run = |name: &Path, program: Program| {
        let program = program
            .user(folder.user().cloned())
            .cwd(path)
            .stdout(Output::Append(log.clone()))
            .stderr(Output::Append(log.clone()));
        let running = Guarded::spawn(clean_environment(program), OnOrphaned::KillGroup)
            .map_err(|error| ServiceError::io("run", name, error))?;
        let reason = match running.wait_blocking(LIMIT) {
            Some(status) if status.success() => return Ok(()),
            Some(status) => status.to_string(),
            None => format!("still running after {LIMIT:?}"),
        };
        Err(ServiceError::did_not_start(name, reason, &log))
    };

    let initdb = programs.initdb();
    let mut arguments = vec![initdb.clone().into_os_string()];
    arguments.extend(["--pgdata".into(), data.clone().into_os_string()]);
    arguments.extend(["--pwfile".into(), password.into_os_string()]);
    let rest = [
        "--username",
        SUPERUSER,
        "--auth=password",
        // The locale C is everywhere, sorts by bytes and is the fastest.
        "--locale=C",
        "--encoding=UTF8",
        // Sixteen times less to copy.
        "--wal-segsize=1",
        "--no-sync",
        "--no-instructions",
    ];
    arguments.extend(rest.map(Into::into));
    run(&initdb, Program::new(arguments))?;

    // No server has to come up for this.
    let postgres = programs.postgres();
    let single = Program::shell(
        r#"printf '%s' "$STATEMENTS" | "$POSTGRES" --single -F -D "$DATA" "$DATABASE""#,
    )
    .env("STATEMENTS", statements)
    .env("POSTGRES", &postgres)
    .env("DATA", &data)
    .env("DATABASE", DATABASE);
    run(&postgres, single)?;

    let configuration = data.join("postgresql.conf");
    append(&configuration, settings)
}

/// Writes at the end of a configuration file, where a setting beats an earlier one.
pub(super) fn append(path: &Path, text: &str) -> Result<(), ServiceError> {
    use std::io::Write;
    let open = fs::File::options().append(true).create(true).open(path);
    open.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| ServiceError::io("write", path, error))
}

fn copy_tree(folder: &ServicesFolder, from: &Path, to: &Path) -> Result<(), ServiceError> {
    let failed = |error| ServiceError::io("copy to", to, error);
    fs::create_dir(to).map_err(failed)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let target = to.join(entry.file_name());
        if entry.file_type().map_err(failed)?.is_dir() {
            copy_tree(folder, &entry.path(), &target)?;
        } else {
            // Shares the blocks where the file system can.
            fs::copy(entry.path(), &target).map_err(failed)?;
            folder.give(&target)?;
        }
    }
    folder.give(to)
}
