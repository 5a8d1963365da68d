//! `services::guard`: a process that cannot outlive us.

use std::io::Read;
use std::time::Duration;

use shared::services::guard::{Guarded, OnOrphaned, Output, Program, Signal};

use crate::role::Role;
use crate::support::{Outcome, is_alive, tests, until};

tests![
    a_killed_owner_takes_the_whole_group_along,
    a_killed_owner_takes_even_a_stopped_group_along,
    dropping_it_ends_what_the_program_left_behind,
    its_output_ends_when_the_program_does,
    a_polite_signal_reaches_the_program_and_not_the_watcher,
    a_program_that_does_not_exist_ends_with_127,
    the_environment_and_the_folder_are_as_told,
    waiting_works_on_another_runtime,
];

fn killed_owner(role: &str) -> (Vec<i32>, Role) {
    let mut owner = Role::start(role, &[], None);
    let line = owner.ready().concat();
    let pids: Vec<i32> = line
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    assert_eq!(pids.len(), 2, "{line}");
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    owner.kill();
    (pids, owner)
}

async fn a_killed_owner_takes_the_whole_group_along() -> Outcome {
    let (pids, _owner) = killed_owner("guard");
    until("all gone", || !pids.iter().any(|pid| is_alive(*pid))).await;
    Ok(())
}

async fn a_killed_owner_takes_even_a_stopped_group_along() -> Outcome {
    let (pids, _owner) = killed_owner("guard-stopped");
    until("all gone", || !pids.iter().any(|pid| is_alive(*pid))).await;
    Ok(())
}

async fn dropping_it_ends_what_the_program_left_behind() -> Outcome {
    let program = Program::shell("sleep 1000 >/dev/null & echo $!").stdout(Output::Piped);
    let mut guarded = Guarded::spawn(program, OnOrphaned::KillGroup).unwrap();
    let mut text = String::new();
    guarded
        .take_stdout()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert!(guarded.wait().await.success());
    let left: i32 = text.trim().parse().unwrap();
    assert!(is_alive(left));
    drop(guarded);
    until("the sleeper is gone", || !is_alive(left)).await;
    Ok(())
}

async fn its_output_ends_when_the_program_does() -> Outcome {
    let program = Program::shell("echo out; echo err >&2")
        .stdout(Output::Piped)
        .stderr(Output::Piped);
    let mut guarded = Guarded::spawn(program, OnOrphaned::KillGroup).unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    guarded
        .take_stdout()
        .unwrap()
        .read_to_string(&mut out)
        .unwrap();
    guarded
        .take_stderr()
        .unwrap()
        .read_to_string(&mut err)
        .unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
    Ok(())
}

async fn a_polite_signal_reaches_the_program_and_not_the_watcher() -> Outcome {
    // The sleeper tells its own pid, from a shell without the trap: a fork that has yet to become
    // something else would swallow the signal.
    let sleeper = "sh -c 'echo $$; exec sleep 1000 >/dev/null'";
    let script = format!("trap 'exit 7' TERM; {sleeper} & wait");
    let program = Program::shell(script).stdout(Output::Piped);
    let mut guarded = Guarded::spawn(program, OnOrphaned::KillGroup).unwrap();
    let mut stdout = guarded.take_stdout().unwrap();
    let mut first = [0; 64];
    let count = stdout.read(&mut first).unwrap();
    let child: i32 = String::from_utf8_lossy(&first[..count])
        .trim()
        .parse()
        .unwrap();
    guarded.signal(Signal::TERM).unwrap();
    assert_eq!(guarded.wait().await.code(), Some(7));
    assert_eq!(guarded.try_wait().and_then(|status| status.code()), Some(7));
    // The group is still looked after: what the program forgot ends with the guard.
    guarded.signal_group(Signal::TERM).unwrap();
    until("the sleeper took the signal", || !is_alive(child)).await;
    Ok(())
}

async fn a_program_that_does_not_exist_ends_with_127() -> Outcome {
    let guarded =
        Guarded::spawn(Program::new(["/no/such/program"]), OnOrphaned::KillGroup).unwrap();
    assert_eq!(guarded.wait().await.code(), Some(127));
    Ok(())
}

async fn the_environment_and_the_folder_are_as_told() -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::shell("echo \"$A-${HOME-unset}\"; pwd -P; cat")
        .env("A", "a b")
        .env_remove("HOME")
        .cwd(folder.path())
        .stdout(Output::Piped);
    let mut guarded = Guarded::spawn(program, OnOrphaned::KillGroup).unwrap();
    let mut text = String::new();
    guarded
        .take_stdout()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    let path = folder.path().canonicalize().unwrap();
    assert_eq!(text, format!("a b-unset\n{}\n", path.display()));
    Ok(())
}

async fn waiting_works_on_another_runtime() -> Outcome {
    let guarded = Guarded::spawn(Program::shell("exit 3"), OnOrphaned::KillGroup).unwrap();
    let status = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(guarded.wait())
    });
    assert_eq!(status.join().unwrap().code(), Some(3));
    let guarded = Guarded::spawn(Program::shell("sleep 1000"), OnOrphaned::KillGroup).unwrap();
    assert!(guarded.wait_blocking(Duration::from_millis(20)).is_none());
    Ok(())
}
