//! However the process that owns a server ends, nothing of the server is left behind.

use std::path::PathBuf;

use tempfile::TempDir;

use super::support::{folder, start};
use crate::role::Role;
use crate::support::{End, Outcome, instances, is_alive, processes_in, tests, until};

tests![
    a_killed_owner_leaves_no_process_and_no_folder,
    a_killed_owner_of_a_paused_server_leaves_nothing_either,
    an_owner_that_forgets_its_server_leaves_nothing_either,
    what_a_killed_watcher_missed_is_swept_at_the_next_start,
];

/// Starts a process that owns a server, in a folder of the test. `Err` if there is no server.
pub(super) fn owner(role: &str, folder: &TempDir) -> Result<(Role, PathBuf), End> {
    let target = folder.path().to_str().unwrap();
    owner_with(role, &[("CARGO_TARGET_DIR", target)])
}

pub(super) fn owner_with(role: &str, env: &[(&str, &str)]) -> Result<(Role, PathBuf), End> {
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
