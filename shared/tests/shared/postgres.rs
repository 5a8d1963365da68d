//! `services::Postgres`, private: started, broken, restarted, and never left behind.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use shared::services::guard::{Guarded, OnOrphaned, Program, Signal};
use shared::services::{Options, Postgres, ServiceError, Upstream};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use crate::role::Role;
use crate::support::{End, Outcome, instances, is_alive, nobody, processes_in, tests, until};

tests![
    a_private_server_says_what_it_is_and_how_long_it_took,
    only_the_first_start_runs_initdb,
    roles_of_different_checks_share_nothing,
    a_dropped_schema_leaves_no_role_and_no_session,
    a_server_on_a_port_is_at_the_address_that_it_says,
    settings_beat_ours,
    a_paused_server_is_silent_and_goes_on_where_it_was,
    a_killed_server_keeps_what_was_committed,
    a_stopped_server_is_not_running_until_restarted,
    a_dropped_server_leaves_no_process_and_no_folder,
    a_killed_owner_leaves_no_process_and_no_folder,
    a_killed_owner_of_a_paused_server_leaves_nothing_either,
    an_owner_that_forgets_its_server_leaves_nothing_either,
    what_a_killed_watcher_missed_is_swept_at_the_next_start,
    two_first_starts_at_once_do_not_trip_over_each_other,
    the_path_alone_is_enough_to_find_it,
    an_ordinary_user_gets_a_server_too,
    a_closed_home_folder_makes_it_use_the_temporary_one,
    a_long_path_gets_its_socket_elsewhere_and_cleaned_up,
    a_folder_that_cannot_be_written_is_one_clear_error,
    a_full_disk_is_one_clear_error,
    a_start_that_nobody_waits_for_is_undone,
];

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

async fn start(folder: &TempDir) -> Result<Postgres, End> {
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

fn code(result: Result<i64, sqlx::Error>) -> String {
    match result {
        Err(sqlx::Error::Database(error)) => error.code().unwrap_or_default().into_owned(),
        other => panic!("{other:?}"),
    }
}

async fn a_private_server_says_what_it_is_and_how_long_it_took() -> Outcome {
    let folder = folder();
    let postgres = start(&folder).await?;
    assert!(postgres.is_private());
    let line = postgres.describe();
    assert!(line.starts_with("PostgreSQL 1"), "{line}");
    let (_, seconds) = line.split_once(" · private instance, ready in ").unwrap();
    assert!(
        seconds.strip_suffix(" s").unwrap().parse::<f64>().is_ok(),
        "{line}"
    );
    Ok(())
}

/// What makes a second start fast. Its time in a test would be the time of a busy machine.
async fn only_the_first_start_runs_initdb() -> Outcome {
    let folder = empty_folder();
    let identifier = "select system_identifier from pg_control_system()";
    let mut found = Vec::new();
    for _ in 0..2 {
        let postgres = start(&folder).await?;
        found.push(query(&postgres.admin_options(), identifier).await.unwrap());
    }
    assert_eq!(found[0], found[1], "two calls of initdb");
    Ok(())
}

async fn roles_of_different_checks_share_nothing() -> Outcome {
    let folder = folder();
    let postgres = start(&folder).await?;
    let (one, two) = (
        postgres.fresh_schema().await?,
        postgres.fresh_schema().await?,
    );
    execute(
        &one.options(),
        "create table t (n int); insert into t values (1)",
    )
    .await
    .unwrap();
    assert_eq!(
        query(&one.options(), "select count(*) from t")
            .await
            .unwrap(),
        1
    );
    // The other one finds no such table, may not read it by its full name, and not use `public`.
    assert_eq!(
        code(query(&two.options(), "select count(*) from t").await),
        "42P01"
    );
    let full = format!("select count(*) from {}.t", one.role());
    assert_eq!(code(query(&two.options(), &full).await), "42501");
    let public = execute(&two.options(), "create table public.t (n int)").await;
    assert_eq!(code(public.map(|()| 0)), "42501");
    // A role is more than a name: its password is asked for.
    let wrong = two.options().password(one.password());
    assert_eq!(code(query(&wrong, "select 1::int8").await), "28P01");
    let address = one.url(&postgres.upstream());
    let by_address = address.parse().unwrap();
    assert_eq!(
        query(&by_address, "select count(*) from t").await.unwrap(),
        1
    );
    Ok(())
}

async fn a_dropped_schema_leaves_no_role_and_no_session() -> Outcome {
    let folder = folder();
    let postgres = start(&folder).await?;
    let schema = postgres.fresh_schema().await?;
    let name = schema.role().to_owned();
    let mut busy = PgConnection::connect_with(&schema.options()).await.unwrap();
    sqlx::raw_sql("create table t (n int); begin; lock table t")
        .execute(&mut busy)
        .await
        .unwrap();
    assert_eq!(schema.sessions().await?, 1);
    assert!(!schema.wait_until_unused(Duration::from_millis(20)).await?);
    schema.drop().await?;
    let left = format!(
        "select (select count(*) from pg_roles where rolname = '{name}') \
         + (select count(*) from pg_namespace where nspname = '{name}')"
    );
    assert_eq!(query(&postgres.admin_options(), &left).await.unwrap(), 0);
    assert!(sqlx::query("select 1").execute(&mut busy).await.is_err());
    Ok(())
}

async fn a_server_on_a_port_is_at_the_address_that_it_says() -> Outcome {
    let folder = folder();
    let postgres = Postgres::find_or_start(&options(&folder).tcp()).await?;
    let Upstream::Tcp(host, port) = postgres.upstream() else {
        panic!("{:?}", postgres.upstream());
    };
    std::net::TcpStream::connect((host.as_str(), port)).unwrap();
    let schema = postgres.fresh_schema().await?;
    let address = schema.url(&postgres.upstream()).parse().unwrap();
    assert_eq!(query(&address, "select 1::int8").await.unwrap(), 1);
    Ok(())
}

async fn settings_beat_ours() -> Outcome {
    let folder = folder();
    let options = options(&folder)
        .setting("wal_level", "replica")
        .setting("max_wal_senders", "4")
        .setting("application_name", "it's quoted");
    let postgres = Postgres::find_or_start(&options).await?;
    let sql = "select count(*) from pg_settings where (name, setting) in \
               (('wal_level', 'replica'), ('max_wal_senders', '4'))";
    assert_eq!(query(&postgres.admin_options(), sql).await.unwrap(), 2);
    Ok(())
}

async fn a_paused_server_is_silent_and_goes_on_where_it_was() -> Outcome {
    let folder = folder();
    let postgres = start(&folder).await?;
    let mut open = PgConnection::connect_with(&postgres.admin_options())
        .await
        .unwrap();
    postgres.pause().await?;
    let asked = tokio::spawn(async move {
        let one: i32 = sqlx::query_scalar("select 1")
            .fetch_one(&mut open)
            .await
            .unwrap();
        one
    });
    let admin = postgres.admin_options();
    let new = PgConnection::connect_with(&admin);
    // The absence of an answer has no event to wait for.
    assert!(
        tokio::time::timeout(Duration::from_millis(150), new)
            .await
            .is_err()
    );
    assert!(!asked.is_finished());
    postgres.resume().await?;
    assert_eq!(asked.await.unwrap(), 1);
    assert_eq!(
        query(&postgres.admin_options(), "select 2::int8")
            .await
            .unwrap(),
        2
    );
    Ok(())
}

async fn a_killed_server_keeps_what_was_committed() -> Outcome {
    let folder = folder();
    let postgres = start(&folder).await?;
    let admin = postgres.admin_options();
    // Durable on purpose: this is about the kill, and the write-ahead log is written late else.
    let sql = "set synchronous_commit = on; create table t as select 1 as n";
    execute(&admin, sql).await.unwrap();
    let segment = shared_memory(&postgres).await?;
    for paused in [false, true] {
        if paused {
            postgres.pause().await?;
        }
        postgres.kill().await?;
        assert!(query(&admin, "select 1::int8").await.is_err());
        postgres.restart().await?;
        assert_eq!(query(&admin, "select count(*) from t").await.unwrap(), 1);
    }
    postgres.kill().await?;
    postgres.close().await?;
    assert!(!shared_memory_exists(segment), "segment {segment} is left");
    Ok(())
}

/// The id of the System V segment, from the seventh line of the lock file.
async fn shared_memory(postgres: &Postgres) -> Result<u64, End> {
    let (_, data) = postgres.programs_and_data().await?;
    let text = std::fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let line = text.lines().nth(6).unwrap();
    Ok(line.split_whitespace().nth(1).unwrap().parse().unwrap())
}

fn shared_memory_exists(id: u64) -> bool {
    let answer = std::process::Command::new("ipcs")
        .args(["-m"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    text.lines()
        .any(|line| line.split_whitespace().nth(1) == Some(&id.to_string()))
}

async fn a_stopped_server_is_not_running_until_restarted() -> Outcome {
    let folder = folder();
    let postgres = start(&folder).await?;
    let before = postgres.upstream();
    execute(&postgres.admin_options(), "create table t as select 1 as n")
        .await
        .unwrap();
    let mut open = PgConnection::connect_with(&postgres.admin_options())
        .await
        .unwrap();
    postgres.stop().await?;
    assert!(sqlx::query("select 1").execute(&mut open).await.is_err());
    assert!(matches!(
        postgres.pause().await,
        Err(ServiceError::NotRunning(_))
    ));
    postgres.stop().await?;
    postgres.restart().await?;
    assert_eq!(postgres.upstream(), before);
    assert_eq!(
        query(&postgres.admin_options(), "select count(*) from t")
            .await
            .unwrap(),
        1
    );
    postgres.restart().await?;
    // The administrator's own connections come back too.
    postgres.fresh_schema().await?.drop().await?;
    postgres.close().await?;
    assert!(matches!(
        postgres.restart().await,
        Err(ServiceError::NotRunning(_))
    ));
    Ok(())
}

async fn a_dropped_server_leaves_no_process_and_no_folder() -> Outcome {
    let folder = folder();
    let postgres = start(&folder).await?;
    assert!(!processes_in(folder.path()).is_empty());
    drop(postgres);
    assert_eq!(
        instances(&folder.path().join("services")),
        Vec::<PathBuf>::new()
    );
    // The watcher was sent home and is on its way.
    until("no process", || processes_in(folder.path()).is_empty()).await;
    Ok(())
}

/// Starts a process that owns a server, in a folder of the test. `Err` if there is no server.
fn owner(role: &str, folder: &TempDir) -> Result<(Role, PathBuf), End> {
    let target = folder.path().to_str().unwrap();
    owner_with(role, &[("CARGO_TARGET_DIR", target)])
}

fn owner_with(role: &str, env: &[(&str, &str)]) -> Result<(Role, PathBuf), End> {
    let mut owner = Role::start(role, env, None);
    let line = owner.ready();
    if line[0] == "error" && line[1].starts_with("no PostgreSQL") {
        return Err(End::NoService(line[1].clone()));
    }
    assert!(line[0].starts_with("PostgreSQL"), "{line:?}");
    let data = PathBuf::from(&line[1]);
    Ok((owner, data))
}

/// `there` is a file of the owner's data folder, by which it is the server that is meant.
pub(crate) async fn killed_owner_leaves_nothing(role: &str, there: &str) -> Outcome {
    let folder = folder();
    let (mut owner, data) = owner(role, &folder)?;
    assert!(data.join(there).is_file());
    assert!(!processes_in(&data).is_empty());
    owner.kill();
    until("no process", || processes_in(folder.path()).is_empty()).await;
    until("no folder", || {
        instances(&folder.path().join("services")).is_empty()
    })
    .await;
    Ok(())
}

async fn a_killed_owner_leaves_no_process_and_no_folder() -> Outcome {
    killed_owner_leaves_nothing("postgres", "postmaster.pid").await
}

async fn a_killed_owner_of_a_paused_server_leaves_nothing_either() -> Outcome {
    killed_owner_leaves_nothing("postgres-paused", "postmaster.pid").await
}

async fn an_owner_that_forgets_its_server_leaves_nothing_either() -> Outcome {
    let folder = folder();
    let (mut owner, _) = owner("postgres-forgotten", &folder)?;
    owner.finish();
    until("no process", || processes_in(folder.path()).is_empty()).await;
    until("no folder", || {
        instances(&folder.path().join("services")).is_empty()
    })
    .await;
    Ok(())
}

async fn what_a_killed_watcher_missed_is_swept_at_the_next_start() -> Outcome {
    let folder = folder();
    let (mut owner, data) = owner("postgres-paused", &folder)?;
    let text = std::fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let postmaster: i32 = text.lines().next().unwrap().parse().unwrap();
    // The watcher is what else is in the server's process group.
    let answer = std::process::Command::new("ps")
        .args(["-A", "-o", "pid=,pgid="])
        .output();
    let table = String::from_utf8(answer.unwrap().stdout).unwrap();
    let rows = table.lines().map(|line| {
        let mut fields = line
            .split_whitespace()
            .map(|field| field.parse::<i32>().unwrap());
        (fields.next().unwrap(), fields.next().unwrap())
    });
    let watchers: Vec<i32> = rows
        .filter(|(pid, group)| *group == postmaster && *pid != postmaster)
        .map(|(pid, _)| pid)
        .collect();
    assert!(!watchers.is_empty());
    for watcher in watchers {
        let watcher = watcher.to_string();
        std::process::Command::new("kill")
            .args(["-KILL", &watcher])
            .status()
            .unwrap();
    }
    owner.kill();
    assert!(is_alive(postmaster), "nobody was left to stop it");
    let postgres = start(&folder).await?;
    assert!(!is_alive(postmaster));
    assert!(!data.exists());
    assert_eq!(instances(&folder.path().join("services")).len(), 1);
    drop(postgres);
    Ok(())
}

async fn two_first_starts_at_once_do_not_trip_over_each_other() -> Outcome {
    let folder = empty_folder();
    let target = folder.path().to_str().unwrap().to_owned();
    let env = [("CARGO_TARGET_DIR", target.as_str())];
    let mut owners: Vec<Role> = (0..3)
        .map(|_| Role::start("postgres", &env, None))
        .collect();
    for owner in &mut owners {
        let line = owner.ready();
        if line[0] == "error" && line[1].starts_with("no PostgreSQL") {
            return Err(End::NoService(line[1].clone()));
        }
        assert!(line[0].contains("private instance"), "{line:?}");
    }
    assert_eq!(instances(&folder.path().join("services")).len(), 3);
    owners.iter_mut().for_each(Role::finish);
    assert_eq!(instances(&folder.path().join("services")).len(), 0);
    Ok(())
}

async fn the_path_alone_is_enough_to_find_it() -> Outcome {
    let folder = folder();
    let postgres = start(&folder).await?;
    let (programs, _) = postgres.programs_and_data().await?;
    drop(postgres);
    // Not even the tools of the system are on this path.
    let target = folder.path().to_str().unwrap();
    let path = programs.to_str().unwrap();
    let (mut owner, data) =
        owner_with("postgres", &[("CARGO_TARGET_DIR", target), ("PATH", path)])?;
    assert!(data.starts_with(folder.path()), "{}", data.display());
    owner.kill();
    until("no process", || processes_in(&data).is_empty()).await;
    until("no folder", || {
        instances(&folder.path().join("services")).is_empty()
    })
    .await;
    // And only these folders are looked in.
    let elsewhere = options(&folder).programs_in([programs]);
    drop(Postgres::find_or_start(&elsewhere).await?);
    Ok(())
}

async fn an_ordinary_user_gets_a_server_too() -> Outcome {
    let user = nobody()?;
    let folder = empty_folder();
    std::os::unix::fs::chown(folder.path(), Some(user.uid), Some(user.gid)).unwrap();
    let target = folder.path().to_str().unwrap();
    let env = [("CARGO_TARGET_DIR", target), ("HOME", "/nonexistent")];
    let mut owner = Role::start("postgres", &env, Some(&user));
    let line = owner.ready();
    assert!(line[0].contains("private instance"), "{line:?}");
    assert!(
        line[1].contains(&format!("/services/uid-{}/", user.uid)),
        "{line:?}"
    );
    owner.kill();
    until("no process", || processes_in(folder.path()).is_empty()).await;
    until("no folder", || {
        instances(&folder.path().join("services")).is_empty()
    })
    .await;
    Ok(())
}

async fn a_closed_home_folder_makes_it_use_the_temporary_one() -> Outcome {
    nobody()?;
    let home = empty_folder();
    let closed = home.path().join("home");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let temporary = home.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    std::fs::set_permissions(&temporary, Permissions::from_mode(0o1777)).unwrap();
    let env = [
        ("CARGO_TARGET_DIR", closed.to_str().unwrap()),
        ("TMPDIR", temporary.to_str().unwrap()),
    ];
    let (mut owner, data) = owner_with("postgres", &env)?;
    assert!(data.starts_with(&temporary), "{}", data.display());
    owner.kill();
    until("no process", || processes_in(home.path()).is_empty()).await;
    until("no folder", || {
        instances(&temporary.join("kata-services-0")).is_empty()
    })
    .await;
    Ok(())
}

async fn a_long_path_gets_its_socket_elsewhere_and_cleaned_up() -> Outcome {
    let folder = folder();
    let long = folder.path().join("a-folder-with-a-long-name".repeat(4));
    std::fs::create_dir(&long).unwrap();
    let sockets = |data: &Path| {
        let name = data
            .parent()
            .unwrap()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap();
        std::env::temp_dir().join(format!("kata-{name}"))
    };
    let env = [("CARGO_TARGET_DIR", long.to_str().unwrap())];
    let (mut killed, data) = owner_with("postgres", &env)?;
    assert!(data.starts_with(&long));
    assert!(sockets(&data).join(".s.PGSQL.5432").exists());
    killed.kill();
    until("no process", || processes_in(folder.path()).is_empty()).await;
    until("no folder", || !sockets(&data).exists() && !data.exists()).await;
    let (mut ended, data) = owner_with("postgres", &env)?;
    ended.finish();
    assert!(!sockets(&data).exists() && !data.exists());
    Ok(())
}

async fn a_folder_that_cannot_be_written_is_one_clear_error() -> Outcome {
    let user = nobody()?;
    let folder = empty_folder();
    let target = folder.path().to_str().unwrap();
    let mut owner = Role::start("postgres", &[("CARGO_TARGET_DIR", target)], Some(&user));
    let line = owner.ready();
    let expected = format!(
        "cannot write to {target}/services: Permission denied (os error 13) / Set CARGO_TARGET_DIR \
         to a folder that you may write to, or correct its owner."
    );
    assert_eq!(line, ["error", expected.as_str()]);
    Ok(())
}

async fn a_full_disk_is_one_clear_error() -> Outcome {
    nobody()?;
    let folder = empty_folder();
    let mount = |size: &str| {
        let size = format!("size={size}");
        let mut mount = std::process::Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path());
        mount.stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success())
    };
    // Too small for `initdb`, then enough for that and not for a copy.
    for size in ["8m", "40m"] {
        if !mount(size) {
            return Err(End::Skip("a file system cannot be mounted here".into()));
        }
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let result = Postgres::find_or_start(&options(&folder)).await;
        let left = instances(&folder.path().join("services"));
        let umount = std::process::Command::new("umount")
            .arg(folder.path())
            .status();
        assert!(umount.unwrap().success());
        let error = result
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(error.starts_with("no space left for "), "{size}: {error}");
        assert!(
            error.ends_with("set CARGO_TARGET_DIR to a folder on another disk"),
            "{error}"
        );
        assert_eq!(left, Vec::<PathBuf>::new());
    }
    Ok(())
}

async fn a_start_that_nobody_waits_for_is_undone() -> Outcome {
    let folder = folder();
    drop(start(&folder).await?);
    for wait_ms in [0, 20, 40, 60, 80] {
        let began = options(&folder);
        let began = Postgres::find_or_start(&began);
        let _ = tokio::time::timeout(Duration::from_millis(wait_ms), began).await;
        until("no process", || processes_in(folder.path()).is_empty()).await;
        until("no folder", || {
            instances(&folder.path().join("services")).is_empty()
        })
        .await;
    }
    // Not only this test's: the guard's own kind of orphan is told apart from a released one.
    let folders = vec![folder.path().join("gone")];
    std::fs::create_dir(&folders[0]).unwrap();
    let on_orphaned = OnOrphaned::StopThenRemove {
        signal: Signal::TERM,
        folders: folders.clone(),
    };
    let guarded = Guarded::spawn(Program::new(["sleep", "1000"]), on_orphaned).unwrap();
    drop(guarded);
    until("the folder goes with the process", || !folders[0].exists()).await;
    Ok(())
}
