//! `check --watch`: again when a file changes, again when asked, and nothing left behind.

use std::fs;

use super::{
    Running, kata, run,
    running::{program, until},
};

#[test]
fn a_change_judges_again_and_q_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("server.txt");
    fs::write(&source, "broken").unwrap();
    let line = format!(
        "TURNSTILE_AS=program TURNSTILE_EXERCISE=$(cat server.txt) exec {}",
        program().display()
    );
    let mut command = kata(
        "watch",
        &["check", "--watch", "--step", "2", "--cmd", &line],
    );
    command.current_dir(folder.path());
    // The last run may have left something.
    run("watch", &["hint", "2", "--again"]);
    let mut running = Running::start(command);
    running.says("Waiting for a change", 1);
    assert!(
        running.said().contains("1 passed, 1 failed"),
        "{}",
        running.said()
    );

    fs::write(&source, "2").unwrap();
    running.says("Waiting for a change", 2);
    let said = running.said();
    assert!(
        said.contains("server.txt changed") && said.contains("2 passed"),
        "{said}"
    );

    running.type_line("");
    running.says("Waiting for a change", 3);
    running.type_line("h");
    running.says("hint 2 of 3", 1);
    running.type_line("x");
    running.says("means nothing here", 1);
    running.type_line("q");
    assert_eq!(running.ends().code(), Some(0), "{}", running.said());
}

#[test]
fn a_run_that_is_under_way_ends_with_the_watch() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid.log");
    let line = "echo $$ > pid.log; exec sleep 1000";
    let mut command = kata("watch", &["check", "--watch", "--cmd", line]);
    command.current_dir(folder.path());
    let mut running = Running::start(command);
    let read = || fs::read_to_string(&pid).ok()?.trim().parse::<u32>().ok();
    until(|| read().is_some(), || running.said());
    let path = format!("/proc/{}", read().unwrap());
    running.signal(rustix::process::Signal::INT);
    assert_eq!(running.ends().code(), Some(130));
    if cfg!(target_os = "linux") {
        until(
            || !std::path::Path::new(&path).exists(),
            || "the program is gone".to_owned(),
        );
    }
}
