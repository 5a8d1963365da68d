//! The third and the fourth way: a download, or the name of the package.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use sha2::{Digest, Sha256};
use shared::services::{Options, Postgres, Redis, RedisOptions, ServiceError};
use tempfile::TempDir;

use crate::postgres::{folder, options};
use crate::support::{End, Outcome, tests};

tests![
    a_download_is_started_like_any_other_and_fetched_once,
    a_download_with_a_wrong_checksum_is_refused,
    a_missing_build_names_the_package_to_install,
    without_a_network_the_answer_comes_at_once,
    an_archive_without_a_server_is_refused,
    redis_that_is_nowhere_names_the_package_to_install,
];

type Files = HashMap<String, Vec<u8>>;

/// A server on loopback for files by their names; the last part of the path decides.
async fn serve(files: Files) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let get = |State(files): State<Files>, UrlPath((_, name)): UrlPath<(String, String)>| async move {
        files.get(&name).cloned().ok_or(StatusCode::NOT_FOUND)
    };
    let router = Router::new().route("/{version}/{name}", axum::routing::get(get));
    let router = router.with_state(files);
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// The name of the build for this system, learnt from what is asked for first.
async fn build_name() -> Result<String, End> {
    let name = missing("http://127.0.0.1:9").await;
    let start = name
        .find("postgresql-1")
        .ok_or_else(|| End::Skip("no build for this system".into()))?;
    let end = name.find(".tar.gz").unwrap();
    Ok(name[start..end].to_owned())
}

/// What is said when nothing is found and this base address is tried.
async fn missing(base: &str) -> String {
    let cache = folder();
    match nothing_but(base, &cache, &folder()).await {
        Err(error @ ServiceError::Missing(_)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

async fn nothing_but(
    base: &str,
    cache: &TempDir,
    data: &TempDir,
) -> Result<Postgres, ServiceError> {
    let nowhere: [PathBuf; 0] = [];
    let options = options(data)
        .programs_in(nowhere)
        .download(base, cache.path().join("cache"));
    Postgres::find_or_start(&options).await
}

/// An archive of `bin/postgres` and `bin/initdb` that pass on to the programs of this machine.
async fn archive(name: &str, with_server: bool) -> Result<Vec<u8>, End> {
    let data = folder();
    let postgres = Postgres::find_or_start(&options(&data)).await?;
    let (programs, _) = postgres.programs_and_data().await?;
    let folder = folder();
    let bin = folder.path().join(name).join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    if with_server {
        for program in ["postgres", "initdb"] {
            let script = format!("#!/bin/sh\nexec {}/{program} \"$@\"\n", programs.display());
            std::fs::write(bin.join(program), script).unwrap();
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(bin.join(program), mode).unwrap();
        }
    }
    let mut tar = Command::new("tar");
    let output = tar
        .arg("-czf")
        .arg("-")
        .arg("-C")
        .arg(folder.path())
        .arg(name)
        .output()
        .unwrap();
    assert!(output.status.success());
    Ok(output.stdout)
}

fn files(name: &str, archive: Vec<u8>, checksum_of: &[u8]) -> Files {
    let hash: String = Sha256::digest(checksum_of)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let file = format!("{name}.tar.gz");
    let line = format!("{hash}  {file}\n").into_bytes();
    HashMap::from([(format!("{file}.sha256"), line), (file, archive)])
}

fn entries(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name != "lock").collect();
    names.sort();
    names
}

async fn a_download_is_started_like_any_other_and_fetched_once() -> Outcome {
    let name = build_name().await?;
    let archive = archive(&name, true).await?;
    let base = serve(files(&name, archive.clone(), &archive)).await;
    let (cache, data) = (folder(), folder());
    let postgres = nothing_but(&base, &cache, &data).await?;
    assert!(
        postgres
            .describe()
            .contains(" · downloaded, private instance, ready in ")
    );
    postgres.fresh_schema().await?;
    drop(postgres);
    assert_eq!(entries(&cache.path().join("cache")), [name]);
    // The second time the address does not matter any more.
    let again = nothing_but("http://127.0.0.1:9", &cache, &data).await?;
    assert!(again.is_private());
    Ok(())
}

async fn a_download_with_a_wrong_checksum_is_refused() -> Outcome {
    let name = build_name().await?;
    let base = serve(files(&name, b"something else".to_vec(), b"something")).await;
    let (cache, data) = (folder(), folder());
    let error = nothing_but(&base, &cache, &data)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains(" has the SHA-256 "), "{error}");
    assert!(error.contains("not 3fc9b689459d738f8c88a3a48aa9e33542016b7a4052e001aaa536fca74813cb"));
    assert_eq!(entries(&cache.path().join("cache")), [""; 0]);
    Ok(())
}

async fn a_missing_build_names_the_package_to_install() -> Outcome {
    let name = build_name().await?;
    let text = missing(&serve(Files::new()).await).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "no PostgreSQL server on this machine, and no DATABASE_URL"
    );
    assert!(
        lines[1].starts_with("Install one:     ") && lines[1].contains("ostgreSQL")
            || lines[1].contains("postgresql"),
        "{text}"
    );
    assert!(
        lines[2].ends_with("docker compose up -d postgres"),
        "{text}"
    );
    let variable = "export DATABASE_URL=postgres://kata:kata@127.0.0.1:5432/kata";
    assert!(lines[3].ends_with(variable), "{text}");
    assert!(
        lines[4].contains(&name) && lines[4].contains("404"),
        "{text}"
    );
    Ok(())
}

async fn without_a_network_the_answer_comes_at_once() -> Outcome {
    let began = Instant::now();
    let text = missing("http://127.0.0.1:9").await;
    // Curl by itself would go on for minutes; a busy machine takes some seconds.
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    assert!(text.contains("Download tried:  "), "{text}");
    Ok(())
}

async fn an_archive_without_a_server_is_refused() -> Outcome {
    let name = build_name().await?;
    let archive = archive(&name, false).await?;
    let base = serve(files(&name, archive.clone(), &archive)).await;
    let text = missing(&base).await;
    assert!(text.contains("holds no bin/postgres"), "{text}");
    let base = serve(files(&name, b"no archive".to_vec(), b"no archive")).await;
    let text = missing(&base).await;
    assert!(text.contains("cannot unpack "), "{text}");
    Ok(())
}

async fn redis_that_is_nowhere_names_the_package_to_install() -> Outcome {
    let nowhere: [PathBuf; 0] = [];
    let options = RedisOptions::from_env().url(None).programs_in(nowhere);
    let error = Redis::find_or_start(&options).await.unwrap_err();
    assert!(error.is_missing());
    let text = error.to_string();
    assert!(text.contains("docker compose up -d redis"), "{text}");
    assert!(
        text.contains("export REDIS_URL=redis://127.0.0.1:6379"),
        "{text}"
    );
    // Options from the environment look further than these.
    assert!(format!("{:?}", Options::from_env()).contains("/usr/lib/postgresql"));
    Ok(())
}
