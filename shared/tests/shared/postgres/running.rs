//! What a private server is while it runs, and after it was paused, killed, stopped or dropped.

use std::path::PathBuf;
use std::time::Duration;

use shared::services::{Postgres, ServiceError, Upstream};
use sqlx::{Connection, PgConnection};

use super::support::{code, empty_folder, execute, folder, options, query, start};
use crate::support::{End, Outcome, instances, processes_in, tests, until};

tests![
    a_private_server_says_what_it_is_and_how_long_it_took,
    only_the_first_start_runs_initdb,
    a_private_server_has_one_database_and_more_if_asked,
    roles_of_different_checks_share_nothing,
    a_dropped_schema_leaves_no_role_and_no_session,
    a_server_on_a_port_is_at_the_address_that_it_says,
    settings_beat_ours,
    a_paused_server_is_silent_and_goes_on_where_it_was,
    a_killed_server_keeps_what_was_committed,
    a_stopped_server_is_not_running_until_restarted,
    a_dropped_server_leaves_no_process_and_no_folder,
];

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

/// The other two are most of the files that each start would copy.
async fn a_private_server_has_one_database_and_more_if_asked() -> Outcome {
    const COUNT: &str = "select count(*) from pg_database";
    let folder = folder();
    let postgres = start(&folder).await?;
    assert_eq!(query(&postgres.admin_options(), COUNT).await.unwrap(), 1);

    // Side by side in one folder: neither gets the other's template.
    let asked = Postgres::find_or_start(&options(&folder).databases()).await?;
    execute(&asked.admin_options(), "create database other")
        .await
        .unwrap();
    let other = asked.admin_options().database("other");
    assert_eq!(query(&other, COUNT).await.unwrap(), 4);
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
