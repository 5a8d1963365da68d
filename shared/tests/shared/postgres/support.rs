//! What the tests of a private PostgreSQL share: its folders, its options, and a word with it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use shared::services::{Options, Postgres};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use crate::support::End;

/// A folder that the account of the server can reach, with a template that is made once: each
/// `initdb` costs a second.
pub(crate) fn folder() -> TempDir {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    let template = TEMPLATE.get_or_init(|| {
        let services = Path::new(env!("CARGO_TARGET_TMPDIR")).join("services");
        let options = Options::from_env().url(None).folder(&services);
        // In a thread of its own: we may be on a runtime, which must not be blocked on.
        let started = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            // The test finds out why, if there is no server.
            drop(runtime.block_on(Postgres::find_or_start(&options)));
        });
        started.join().unwrap();
        services
    });
    let folder = empty_folder();
    let mut copy = std::process::Command::new("cp");
    copy.arg("-a")
        .arg(template)
        .arg(folder.path().join("services"));
    // Without a server there is nothing to copy.
    let _ = copy.stderr(Stdio::null()).status().unwrap();
    folder
}

pub(crate) fn empty_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

pub(crate) fn options(folder: &TempDir) -> Options {
    Options::from_env()
        .url(None)
        .folder(folder.path().join("services"))
}

pub(super) async fn start(folder: &TempDir) -> Result<Postgres, End> {
    Ok(Postgres::find_or_start(&options(folder)).await?)
}

pub(crate) async fn query(
    options: &sqlx::postgres::PgConnectOptions,
    sql: &str,
) -> Result<i64, sqlx::Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    let sql = sqlx::AssertSqlSafe(sql.to_owned());
    let answer = sqlx::query_scalar(sql).fetch_one(&mut connection).await;
    connection.close().await?;
    answer
}

pub(crate) async fn execute(
    options: &sqlx::postgres::PgConnectOptions,
    sql: &str,
) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(&mut connection)
        .await?;
    connection.close().await
}

pub(super) fn code(result: Result<i64, sqlx::Error>) -> String {
    match result {
        Err(sqlx::Error::Database(error)) => error.code().unwrap_or_default().into_owned(),
        other => panic!("{other:?}"),
    }
}
