//! Where server programs are on this machine, and which one to take.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::ServiceError;

/// The oldest PostgreSQL that the katas work on.
pub(super) const OLDEST_POSTGRES: u32 = 14;

/// A PostgreSQL installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PostgresPrograms {
    /// The folder with `postgres` and `initdb`.
    pub(super) bin: PathBuf,
    pub(super) major: u32,
    /// As the program writes it, `15.18 (Debian …)`: part of the template's key.
    pub(super) version: String,
}

impl PostgresPrograms {
    /// The first usable one in the folders of `PATH`, else the newest in the usual places.
    ///
    /// `Ok(None)` if there is none at all; an error if there are only old ones.
    pub(super) fn find(places: &Places) -> Result<Option<Self>, ServiceError> {
        let on_path = places
            .path
            .iter()
            .filter_map(|folder| Self::look_in(folder));
        let mut too_old = None;
        for found in on_path {
            if found.major >= OLDEST_POSTGRES {
                return Ok(Some(found));
            }
            too_old = Some(found);
        }
        let elsewhere = places.postgres.iter().flat_map(|pattern| expand(pattern));
        let newest = elsewhere
            .filter_map(|folder| Self::look_in(&folder))
            .max_by_key(|found| found.major)
            .or(too_old);
        match newest {
            Some(found) if found.major < OLDEST_POSTGRES => Err(ServiceError::TooOld {
                found: format!("PostgreSQL {} in {}", found.version, found.bin.display()),
                needed: "PostgreSQL 14",
            }),
            found => Ok(found),
        }
    }

    /// What is in a folder, if both programs are there and run.
    pub(super) fn look_in(folder: &Path) -> Option<Self> {
        // Programs are found through links (`/usr/local/bin/postgres`), and look for their own
        // files beside where they really are.
        let postgres = folder.join("postgres").canonicalize().ok()?;
        let bin = postgres.parent()?.to_owned();
        if !bin.join("initdb").is_file() {
            return None;
        }
        let answer = Command::new(&postgres).arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        let version = text
            .trim()
            .strip_prefix("postgres (PostgreSQL) ")?
            .to_owned();
        let digits = version
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(version.len());
        Some(Self {
            bin,
            major: version[..digits].parse().ok()?,
            version,
        })
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.bin.join("postgres")
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.bin.join("initdb")
    }
}

/// The Redis server, or Valkey, which took its place in some distributions.
pub(super) fn find_redis(places: &Places) -> Option<PathBuf> {
    let folders: Vec<&Path> = places
        .path
        .iter()
        .chain(&places.redis)
        .map(PathBuf::as_path)
        .collect();
    let look = |name: &str| {
        let program = folders.iter().map(|folder| folder.join(name));
        program.into_iter().find(|program| program.is_file())
    };
    look("redis-server").or_else(|| look("valkey-server"))
}

/// The folders to look in.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) path: Vec<PathBuf>,
    /// With at most one `*`, which stands for a part of one folder's name.
    pub(super) postgres: Vec<PathBuf>,
    pub(super) redis: Vec<PathBuf>,
}

impl Places {
    /// These folders and no others.
    pub(super) fn only(path: Vec<PathBuf>) -> Self {
        Self {
            path,
            postgres: Vec::new(),
            redis: Vec::new(),
        }
    }

    /// `PATH`, then where distributions and Homebrew put servers without linking them.
    pub(super) fn usual(path: Option<OsString>) -> Self {
        let path = path.map(|path| std::env::split_paths(&path).collect());
        Self {
            path: path.unwrap_or_default(),
            postgres: [
                "/usr/lib/postgresql/*/bin",         // Debian, Ubuntu
                "/usr/pgsql-*/bin",                  // Fedora, RHEL with the project's packages
                "/usr/libexec/postgresql*",          // Alpine
                "/opt/homebrew/opt/postgresql*/bin", // Homebrew on Apple silicon
                "/usr/local/opt/postgresql*/bin",    // Homebrew on Intel
                "/Applications/Postgres.app/Contents/Versions/*/bin",
                "/usr/local/pgsql/bin", // built from source
                "/usr/bin",             // Arch, Fedora
            ]
            .map(PathBuf::from)
            .to_vec(),
            redis: [
                "/usr/bin",
                "/usr/sbin",
                "/usr/local/bin",
                "/opt/homebrew/bin",
            ]
            .map(PathBuf::from)
            .to_vec(),
        }
    }
}

/// The folders that a pattern with at most one `*` stands for.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::new()];
    for part in pattern.components() {
        let part = Path::new(part.as_os_str());
        let Some((before, after)) = part.to_str().and_then(|part| part.split_once('*')) else {
            folders.iter_mut().for_each(|folder| folder.push(part));
            continue;
        };
        let entries = folders
            .iter()
            .flat_map(std::fs::read_dir)
            .flatten()
            .flatten();
        folders = entries
            .filter(|entry| {
                let name = entry.file_name();
                name.to_str().is_some_and(|name| {
                    name.strip_prefix(before)
                        .is_some_and(|rest| rest.ends_with(after))
                })
            })
            .map(|entry| entry.path())
            .collect();
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_a_part_of_one_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["pgsql-9/bin", "pgsql-15/bin", "mysql-8/bin"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let mut found = expand(&folder.path().join("pgsql-*/bin"));
        found.sort();
        let expected = ["pgsql-15/bin", "pgsql-9/bin"].map(|name| folder.path().join(name));
        assert_eq!(found, expected);
        assert!(expand(&folder.path().join("nothing/*/bin")).is_empty());
    }
}
