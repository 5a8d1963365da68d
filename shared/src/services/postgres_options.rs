//! What a caller can ask of PostgreSQL before there is one.

use std::path::PathBuf;

use super::archive::Download;
use super::postgres::VARIABLE;
use super::programs::Places;

/// Where to look for PostgreSQL, and how to start it.
#[derive(Debug, Clone)]
pub struct Options {
    pub(super) url: Option<String>,
    pub(super) places: Places,
    pub(super) download: Download,
    pub(super) folder: Option<PathBuf>,
    pub(super) tcp: bool,
    pub(super) databases: bool,
    pub(super) settings: Vec<(String, String)>,
}

impl Options {
    /// What the environment says: `DATABASE_URL`, `PATH`, `CARGO_TARGET_DIR`, and for a download
    /// `KATA_POSTGRES_DOWNLOAD` (another base address, or `off`) and `KATA_CACHE_DIR`.
    pub fn from_env() -> Self {
        Self {
            url: super::variable(VARIABLE),
            places: Places::usual(std::env::var_os("PATH")),
            download: Download::from_env(),
            folder: None,
            tcp: false,
            databases: false,
            settings: Vec::new(),
        }
    }

    /// Uses the server at this address, or none that was named if `None`.
    #[must_use]
    pub fn url(mut self, url: Option<String>) -> Self {
        self.url = url;
        self
    }

    /// Looks for programs in these folders only.
    #[must_use]
    pub fn programs_in<P: Into<PathBuf>>(mut self, folders: impl IntoIterator<Item = P>) -> Self {
        self.places = Places::only(folders.into_iter().map(Into::into).collect());
        self
    }

    /// Downloads from this base address into this folder if no program is found.
    #[must_use]
    pub fn download(mut self, base: impl Into<String>, cache: impl Into<PathBuf>) -> Self {
        self.download = Download::from(base.into(), cache.into());
        self
    }

    /// Keeps data below this folder, and not below the target folder.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Has a private server listen on a free loopback port too. Its address is then that port.
    #[must_use]
    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// Lets `create database` work on a private server, which takes longer to start then: the two
    /// databases that it copies are most of an empty server's files.
    #[must_use]
    pub fn databases(mut self) -> Self {
        self.databases = true;
        self
    }

    /// Has a private server keep what a [`Standby`](super::Standby) needs: a log that can be
    /// replayed elsewhere, from its first byte on, and commits that are in it when they are
    /// answered. Otherwise a read could find a standby complete that lacks what a client was just
    /// told.
    #[must_use]
    pub fn replicated(self) -> Self {
        // As `initdb` has it in the log's first record: a standby may not have less.
        self.setting("max_wal_senders", "10")
            .setting("wal_level", "replica")
            // A standby that starts late, or was cut off, finds everything since the template: up
            // to so much, and no disk is filled by one that never comes back, as with a slot.
            .setting("wal_keep_size", "1GB")
            .setting("synchronous_commit", "on")
    }

    /// One more line in a private server's `postgresql.conf`, which beats ours:
    /// `setting("wal_level", "replica")`.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }
}
