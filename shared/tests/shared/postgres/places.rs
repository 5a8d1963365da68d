//! Starting where it is not easy: for the first time, as somebody else, in folders that are closed,
//! full or far down.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use shared::services::Postgres;
use shared::services::guard::{Guarded, OnOrphaned, Program, Signal};

use super::owners::owner_with;
use super::support::{empty_folder, folder, options, start};
use crate::role::Role;
use crate::support::{End, Outcome, instances, nobody, processes_in, tests, until};

tests![
    two_first_starts_at_once_do_not_trip_over_each_other,
    the_path_alone_is_enough_to_find_it,
    an_ordinary_user_gets_a_server_too,
    a_closed_home_folder_makes_it_use_the_temporary_one,
    a_long_path_gets_its_socket_elsewhere_and_cleaned_up,
    a_folder_that_cannot_be_written_is_one_clear_error,
    a_full_disk_is_one_clear_error,
    a_start_that_nobody_waits_for_is_undone,
];

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
    // Too small for `initdb`; then that is done, and what is left is too small for a copy.
    for (size, taken_bytes) in [("8m", 0), ("40m", 20 << 20)] {
        if !mount(size) {
            return Err(End::Skip("a file system cannot be mounted here".into()));
        }
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        if taken_bytes > 0 {
            drop(start(&folder).await?);
            std::fs::write(folder.path().join("taken"), vec![0; taken_bytes]).unwrap();
        }
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
