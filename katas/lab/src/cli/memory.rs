//! What the command line remembers between runs, in small files below `target/`: how far the hints
//! went, what the last `check` saw, and where an open environment listens.
//!
//! All of it can be deleted at any time; nothing but convenience is lost.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use shared::services::target_folder;

/// The memory of one kata.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    folder: PathBuf,
}

impl Memory {
    pub(super) fn of(kata: &str) -> Self {
        Self::below(&target_folder().join("katas"), kata)
    }

    fn below(folder: &Path, kata: &str) -> Self {
        Self {
            folder: folder.join(kata),
        }
    }

    /// What is remembered; nothing if there is no such file, or if it makes no sense.
    pub(super) fn recall<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let text = fs::read(self.path(name)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Remembers a value, readable for nobody else. A reader sees the old one or the new one.
    pub(super) fn remember<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        use std::{io::Write, os::unix::fs::OpenOptionsExt};
        fs::create_dir_all(&self.folder)?;
        let path = self.path(name);
        let beside = self.folder.join(format!(".{name}.{}", std::process::id()));
        let text = serde_json::to_vec_pretty(value)?;
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside);
        let written = file
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| fs::rename(&beside, &path));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }

    pub(super) fn forget(&self, name: &str) {
        let _ = fs::remove_file(self.path(name));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_and_forgets_and_survives_nonsense() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::below(folder.path(), "kata-00-x");
        assert_eq!(memory.recall::<u32>("hints"), None);
        memory.remember("hints", &7).unwrap();
        assert_eq!(memory.recall::<u32>("hints"), Some(7));
        fs::write(memory.path("hints"), "{").unwrap();
        assert_eq!(memory.recall::<u32>("hints"), None);
        memory.remember("hints", &8).unwrap();
        memory.forget("hints");
        assert_eq!(memory.recall::<u32>("hints"), None);
        assert_eq!(
            fs::read_dir(folder.path().join("kata-00-x"))
                .unwrap()
                .count(),
            0
        );
    }
}
