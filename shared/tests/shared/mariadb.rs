//! `services::MariaDb`: it answers, and nothing of it stays.

use shared::services::MariaDb;
use sqlx::{Connection, MySqlConnection};

use crate::postgres::empty_folder;
use crate::role::Role;
use crate::support::{End, Outcome, instances, processes_in, tests, until};

tests![
    a_private_mariadb_answers_and_leaves_nothing,
    a_killed_owner_leaves_no_mariadb_and_no_folder,
];

async fn a_private_mariadb_answers_and_leaves_nothing() -> Outcome {
    let folder = empty_folder();
    let services = folder.path().join("services");
    let mariadb = MariaDb::start_below(Some(services.clone())).await?;
    let mut connection = MySqlConnection::connect_with(&mariadb.admin_options())
        .await
        .unwrap();
    let version: String = sqlx::query_scalar("select version()")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert!(version.starts_with(mariadb.version()), "{version}");
    assert!(mariadb.describe().starts_with("MariaDB 1"));
    connection.close().await.unwrap();
    mariadb.close().await?;
    assert_eq!(instances(&services), [] as [std::path::PathBuf; 0]);
    assert!(processes_in(folder.path()).is_empty());
    Ok(())
}

async fn a_killed_owner_leaves_no_mariadb_and_no_folder() -> Outcome {
    let folder = empty_folder();
    let target = folder.path().to_str().unwrap();
    let mut owner = Role::start("mariadb", &[("CARGO_TARGET_DIR", target)], None);
    let line = owner.ready();
    if line[0] == "error" {
        return Err(End::NoService(line[1].clone()));
    }
    owner.kill();
    until("no process", || processes_in(folder.path()).is_empty()).await;
    until("no folder", || {
        instances(&folder.path().join("services")).is_empty()
    })
    .await;
    Ok(())
}
