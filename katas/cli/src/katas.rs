//! Which katas there are, and how one is started.

use std::{env, ffi::OsString, io, path::PathBuf, process::Command};

use serde::Deserialize;

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// `cargo` is not on the `PATH`.
    #[error("cargo cannot be run: {0}")]
    CargoDoesNotRun(io::Error),
    /// Not called from the repository, or its manifests are broken.
    #[error("cargo does not know this workspace:\n{0}")]
    NoWorkspace(String),
    /// Another form of answer than ours.
    #[error("cargo metadata said something unexpected: {0}")]
    NotUnderstood(serde_json::Error),
    /// Somebody named a kata that is not there.
    #[error("there is no kata {asked:?}; there {}", list(known))]
    Unknown {
        /// As it was typed.
        asked: String,
        /// The packages.
        known: Vec<String>,
    },
    /// An empty command line, which the parser does not let through.
    #[error("name a kata")]
    NoKata,
}

/// The katas of the workspace, in order.
#[derive(Debug)]
pub(crate) struct Katas {
    manifest: PathBuf,
    names: Vec<String>,
}

/// The part of `cargo metadata` that we read.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
}

impl Katas {
    /// Asks cargo, so that what counts is what can be started.
    pub(crate) fn find() -> Result<Self, Error> {
        let mut command = Command::new(cargo());
        command.args(["metadata", "--format-version", "1", "--no-deps"]);
        // Set by `cargo run`: the workspace that we were built in, wherever we were called.
        if let Some(own) = env::var_os("CARGO_MANIFEST_DIR") {
            command.arg("--manifest-path");
            command.arg(PathBuf::from(own).join("Cargo.toml"));
        }
        let answer = command.output().map_err(Error::CargoDoesNotRun)?;
        if !answer.status.success() {
            let said = String::from_utf8_lossy(&answer.stderr).trim().to_owned();
            return Err(Error::NoWorkspace(said));
        }
        Self::in_metadata(&answer.stdout)
    }

    fn in_metadata(json: &[u8]) -> Result<Self, Error> {
        let metadata: Metadata = serde_json::from_slice(json).map_err(Error::NotUnderstood)?;
        let packages = metadata.packages.into_iter().map(|package| package.name);
        let mut names: Vec<_> = packages.filter(|name| number(name).is_some()).collect();
        names.sort();
        Ok(Self {
            manifest: metadata.workspace_root.join("Cargo.toml"),
            names,
        })
    }

    /// The packages.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The one that somebody means by `4`, `04`, `idempotency` or the whole name.
    pub(crate) fn named(&self, asked: &str) -> Result<&str, Error> {
        let meant = |name: &&str| {
            *name == asked
                || title(name) == asked
                || asked
                    .parse()
                    .is_ok_and(|asked: u8| number(name) == Some(asked))
        };
        self.names().find(meant).ok_or_else(|| Error::Unknown {
            asked: asked.to_owned(),
            known: self.names.clone(),
        })
    }

    /// The kata as a program, to which words may be added. It runs in the current folder, since
    /// that is where a learner's own program is.
    pub(crate) fn run(&self, name: &str) -> Command {
        let mut command = Command::new(cargo());
        command
            .args(["run", "--quiet", "--manifest-path"])
            .arg(&self.manifest)
            .args(["--package", name, "--"]);
        command
    }
}

/// The cargo that runs us, so that the katas are built by the same one.
fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The phase: 4 for `kata-04-idempotency`, nothing for what is no kata.
pub(crate) fn number(name: &str) -> Option<u8> {
    let (digits, _) = name.strip_prefix("kata-")?.split_once('-')?;
    digits.parse().ok()
}

/// What it is about: `idempotency` for `kata-04-idempotency`.
pub(crate) fn title(name: &str) -> &str {
    name.splitn(3, '-').nth(2).unwrap_or(name)
}

fn list(known: &[String]) -> String {
    match known {
        [] => "are none in this workspace".to_owned(),
        [one] => format!("is {one}"),
        many => format!("are {}", many.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &[u8] = br#"{
        "packages": [
            {"name": "shared"}, {"name": "kata-lab"}, {"name": "kata-cli"},
            {"name": "kata-04-idempotency"}, {"name": "kata-01-concurrency"}
        ],
        "workspace_root": "/gym"
    }"#;

    #[test]
    fn a_kata_has_a_number_and_the_tools_have_none() {
        let katas = Katas::in_metadata(METADATA).unwrap();
        let names: Vec<_> = katas.names().collect();
        assert_eq!(names, ["kata-01-concurrency", "kata-04-idempotency"]);
    }

    #[test]
    fn a_kata_is_named_by_number_by_title_or_in_full() {
        let katas = Katas::in_metadata(METADATA).unwrap();
        for asked in ["4", "04", "idempotency", "kata-04-idempotency"] {
            assert_eq!(katas.named(asked).unwrap(), "kata-04-idempotency");
        }
        assert_eq!(
            katas.named("9").unwrap_err().to_string(),
            "there is no kata \"9\"; there are kata-01-concurrency, kata-04-idempotency"
        );
    }

    #[test]
    fn what_cargo_does_not_say_is_an_error_and_no_panic() {
        assert!(matches!(
            Katas::in_metadata(b"warning: no"),
            Err(Error::NotUnderstood(_))
        ));
    }
}
