//! `services::Standby`: it follows, is cut off, lags, answers for itself, and is never left behind.

use std::path::PathBuf;
use std::time::Duration;

use shared::services::{Options, Postgres, ServiceError, Standby};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use crate::postgres::{execute, folder, killed_owner_leaves_nothing, options, query};
use crate::role::Role;
use crate::support::{End, Outcome, instances, nobody, processes_in, tests, until};

/// The role that owns a primary and its standby.
pub(crate) const ROLE: &str = "standby";

tests![
    a_standby_has_what_was_there_before_and_what_comes_after,
    a_role_of_the_primary_reads_and_cannot_write,
    what_is_committed_while_it_is_cut_off_comes_when_it_is_healed,
    a_replay_that_is_held_goes_on_receiving,
    a_delay_keeps_a_commit_back_and_ends_when_it_is_taken_away,
    a_synchronous_commit_waits_for_a_standby_that_is_cut_off,
    a_synchronous_commit_is_let_go_when_it_is_asynchronous_again,
    a_killed_standby_catches_up,
    a_killed_primary_is_followed_again,
    two_standbys_of_one_primary_are_cut_one_by_one,
    a_primary_that_keeps_no_log_has_no_standby,
    a_dropped_pair_leaves_no_process_and_no_folder,
    a_killed_owner_of_a_pair_leaves_nothing,
    an_ordinary_user_gets_a_standby_too,
];

/// Longer than any of it takes, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

const COUNT: &str = "select count(*) from t";

async fn pair(folder: &TempDir) -> Result<Standby, End> {
    let primary = Postgres::find_or_start(&options(folder).replicated()).await?;
    Ok(Standby::start(&primary).await?)
}

/// Says something on the primary.
async fn write(standby: &Standby, sql: &str) {
    execute(&standby.primary().admin_options(), sql)
        .await
        .unwrap();
}

/// What the standby's readers see.
async fn seen(standby: &Standby, sql: &str) -> i64 {
    query(&standby.server().admin_options(), sql).await.unwrap()
}

async fn a_standby_has_what_was_there_before_and_what_comes_after() -> Outcome {
    let folder = folder();
    let primary = Postgres::find_or_start(&options(&folder).replicated()).await?;
    let table = "create table t as select 1 as n";
    execute(&primary.admin_options(), table).await.unwrap();
    let standby = Standby::start(&primary).await?;
    assert_eq!(seen(&standby, COUNT).await, 1);
    write(&standby, "insert into t values (2)").await;
    assert!(standby.caught_up(LIMIT).await?);
    assert_eq!(seen(&standby, COUNT).await, 2);
    let is_standby = "select pg_is_in_recovery()::int::int8";
    assert_eq!(seen(&standby, is_standby).await, 1);
    Ok(())
}

async fn a_role_of_the_primary_reads_and_cannot_write() -> Outcome {
    let folder = folder();
    let standby = pair(&folder).await?;
    let schema = standby.primary().fresh_schema().await?;
    let table = "create table mine as select 1 as n";
    execute(&schema.options(), table).await.unwrap();
    assert!(standby.caught_up(LIMIT).await?);
    let address = schema.url(&standby.server().upstream()).parse().unwrap();
    let count = query(&address, "select count(*) from mine").await;
    assert_eq!(count.unwrap(), 1);
    let refused = execute(&address, "insert into mine values (2)").await;
    let refused = refused.unwrap_err().into_database_error().unwrap();
    assert_eq!(refused.code().unwrap(), "25006");
    Ok(())
}

async fn what_is_committed_while_it_is_cut_off_comes_when_it_is_healed() -> Outcome {
    let folder = folder();
    let standby = pair(&folder).await?;
    write(&standby, "create table t as select 1 as n").await;
    assert!(standby.caught_up(LIMIT).await?);
    for round in 1..=3 {
        standby.cut().await?;
        let before = standby.positions().await?;
        write(&standby, "insert into t values (2)").await;
        let after = standby.positions().await?;
        assert!(after.flushed > before.flushed, "{before:?} {after:?}");
        assert!(!after.is_complete(), "{after:?}");
        assert!(after.lag_bytes() > 0, "{after:?}");
        assert_eq!(after.received, before.received, "a byte passed");
        assert_eq!(seen(&standby, COUNT).await, round);
        standby.heal().await?;
        assert!(standby.caught_up(LIMIT).await?);
        assert_eq!(seen(&standby, COUNT).await, round + 1);
    }
    Ok(())
}

async fn a_replay_that_is_held_goes_on_receiving() -> Outcome {
    let folder = folder();
    let standby = pair(&folder).await?;
    write(&standby, "create table t as select 1 as n").await;
    assert!(standby.caught_up(LIMIT).await?);
    standby.hold_replay().await?;
    write(&standby, "insert into t values (2)").await;
    let goal = standby.positions().await?.flushed;
    while standby.positions().await?.received < goal {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(standby.positions().await?.replayed < goal);
    assert_eq!(seen(&standby, COUNT).await, 1);
    // It can be cut meanwhile, and streams again when it replays again.
    standby.cut().await?;
    assert_eq!(seen(&standby, COUNT).await, 1);
    standby.release_replay().await?;
    standby.heal().await?;
    assert!(standby.caught_up(LIMIT).await?);
    assert_eq!(seen(&standby, COUNT).await, 2);
    Ok(())
}

async fn a_delay_keeps_a_commit_back_and_ends_when_it_is_taken_away() -> Outcome {
    let folder = folder();
    let standby = pair(&folder).await?;
    write(&standby, "create table t as select 1 as n").await;
    assert!(standby.caught_up(LIMIT).await?);
    // Longer than the test may take: only that it is taken away ends it.
    standby.delay(Duration::from_secs(3600)).await?;
    write(&standby, "insert into t values (2)").await;
    let goal = standby.positions().await?.flushed;
    while standby.positions().await?.received < goal {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(seen(&standby, COUNT).await, 1);
    standby.delay(Duration::ZERO).await?;
    assert!(standby.caught_up(LIMIT).await?);
    assert_eq!(seen(&standby, COUNT).await, 2);
    Ok(())
}

/// A commit that waits for the standby, under way on a task of its own.
async fn waiting_commit(standby: &Standby) -> tokio::task::JoinHandle<()> {
    let admin = standby.primary().admin_options();
    let commit = tokio::spawn(async move {
        let mut session = PgConnection::connect_with(&admin).await.unwrap();
        let insert = sqlx::raw_sql("insert into t values (2)");
        insert.execute(&mut session).await.unwrap();
    });
    let waits = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
    let admin = standby.primary().admin_options();
    while query(&admin, waits).await.unwrap() == 0 {
        assert!(!commit.is_finished(), "it did not wait");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    commit
}

async fn a_synchronous_commit_waits_for_a_standby_that_is_cut_off() -> Outcome {
    let folder = folder();
    let standby = pair(&folder).await?;
    write(&standby, "create table t as select 1 as n").await;
    standby.synchronous(true).await?;
    write(&standby, "insert into t values (2)").await;
    // The standby has received it, or the commit would not have been answered.
    assert!(standby.caught_up(LIMIT).await?);
    standby.cut().await?;
    let commit = waiting_commit(&standby).await;
    assert_eq!(seen(&standby, COUNT).await, 2);
    standby.heal().await?;
    commit.await.unwrap();
    assert!(standby.caught_up(LIMIT).await?);
    assert_eq!(seen(&standby, COUNT).await, 3);
    Ok(())
}

async fn a_synchronous_commit_is_let_go_when_it_is_asynchronous_again() -> Outcome {
    let folder = folder();
    let standby = pair(&folder).await?;
    write(&standby, "create table t as select 1 as n").await;
    assert!(standby.caught_up(LIMIT).await?);
    standby.cut().await?;
    for _ in 0..5 {
        // The very next commit waits, and the very next one does not.
        standby.synchronous(true).await?;
        let commit = waiting_commit(&standby).await;
        standby.synchronous(false).await?;
        commit.await.unwrap();
        write(&standby, "insert into t values (3)").await;
    }
    assert_eq!(seen(&standby, COUNT).await, 1);
    Ok(())
}

async fn a_killed_standby_catches_up() -> Outcome {
    let folder = folder();
    let standby = pair(&folder).await?;
    write(&standby, "create table t as select 1 as n").await;
    standby.server().kill().await?;
    write(&standby, "insert into t values (2)").await;
    standby.server().restart().await?;
    assert!(standby.caught_up(LIMIT).await?);
    assert_eq!(seen(&standby, COUNT).await, 2);
    Ok(())
}

async fn a_killed_primary_is_followed_again() -> Outcome {
    let folder = folder();
    let standby = pair(&folder).await?;
    write(&standby, "create table t as select 1 as n").await;
    assert!(standby.caught_up(LIMIT).await?);
    standby.primary().kill().await?;
    assert_eq!(seen(&standby, COUNT).await, 1);
    standby.primary().restart().await?;
    write(&standby, "insert into t values (2)").await;
    assert!(standby.caught_up(LIMIT).await?);
    assert_eq!(seen(&standby, COUNT).await, 2);
    Ok(())
}

async fn two_standbys_of_one_primary_are_cut_one_by_one() -> Outcome {
    let folder = folder();
    let one = pair(&folder).await?;
    write(&one, "create table t as select 1 as n").await;
    let two = Standby::start(one.primary()).await?;
    one.cut().await?;
    write(&one, "insert into t values (2)").await;
    assert!(two.caught_up(LIMIT).await?);
    assert_eq!(seen(&one, COUNT).await, 1);
    assert_eq!(seen(&two, COUNT).await, 2);
    Ok(())
}

async fn a_primary_that_keeps_no_log_has_no_standby() -> Outcome {
    let folder = folder();
    let primary = Postgres::find_or_start(&options(&folder)).await?;
    let refused = Standby::start(&primary).await.unwrap_err();
    assert!(matches!(refused, ServiceError::KeepsNoLog), "{refused}");
    let url = Some("postgres://somebody@127.0.0.1:1/x".to_owned());
    let named = Postgres::find_or_start(&Options::from_env().url(url)).await;
    assert!(matches!(named, Err(ServiceError::Refused { .. })));
    Ok(())
}

async fn a_dropped_pair_leaves_no_process_and_no_folder() -> Outcome {
    let folder = folder();
    let standby = pair(&folder).await?;
    assert_eq!(instances(&folder.path().join("services")).len(), 2);
    drop(standby);
    let left = instances(&folder.path().join("services"));
    assert_eq!(left, Vec::<PathBuf>::new());
    until("no process", || processes_in(folder.path()).is_empty()).await;
    Ok(())
}

async fn a_killed_owner_of_a_pair_leaves_nothing() -> Outcome {
    killed_owner_leaves_nothing(ROLE, "standby.signal").await
}

async fn an_ordinary_user_gets_a_standby_too() -> Outcome {
    let user = nobody()?;
    let folder = crate::postgres::empty_folder();
    std::os::unix::fs::chown(folder.path(), Some(user.uid), Some(user.gid)).unwrap();
    let target = folder.path().to_str().unwrap();
    let mut owner = Role::start(ROLE, &[("CARGO_TARGET_DIR", target)], Some(&user));
    let line = owner.ready();
    if line[1].starts_with("no PostgreSQL") {
        return Err(End::NoService(line[1].clone()));
    }
    assert!(line[0].starts_with("PostgreSQL"), "{line:?}");
    owner.finish();
    until("no process", || processes_in(folder.path()).is_empty()).await;
    Ok(())
}
