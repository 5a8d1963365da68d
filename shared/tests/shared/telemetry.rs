//! `telemetry` and signals, seen from outside: both belong to a whole process.

use std::process::{Command, Output, Stdio};

use crate::role;
use crate::support::{Outcome, tests};

tests![
    json_lines_name_the_service_and_the_request,
    text_is_for_people,
    a_filter_that_cannot_be_understood_counts_as_far_as_it_can,
    a_closed_standard_error_is_no_panic,
    a_polite_signal_ends_a_server_politely,
    a_request_is_logged_by_its_route_and_its_id,
];

fn log(env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .env(role::VARIABLE, "log")
        .env_remove("RUST_LOG")
        .env_remove("LOG_FORMAT");
    command.envs(env.iter().copied()).stdin(Stdio::null());
    command.output().unwrap()
}

fn stderr(env: &[(&str, &str)]) -> String {
    let output = log(env);
    // The second `init` in the process says that it was not the first.
    assert_eq!(String::from_utf8_lossy(&output.stdout), "true false\n");
    assert!(output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

async fn json_lines_name_the_service_and_the_request() -> Outcome {
    let text = stderr(&[("RUST_LOG", "debug")]);
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[0]["service"], "a \"test\"");
    assert_eq!(lines[0]["message"], "paid");
    assert_eq!(lines[0]["amount_cents"], 1250);
    assert_eq!(lines[0]["span"]["request_id"], "r-1");
    assert_eq!(lines[1]["level"], "DEBUG");
    Ok(())
}

async fn text_is_for_people() -> Outcome {
    let text = stderr(&[("LOG_FORMAT", "text")]);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        text.contains("INFO") && text.contains("paid") && text.contains("1250"),
        "{text}"
    );
    assert!(!text.contains('\u{1b}') && !text.starts_with('{'), "{text}");
    Ok(())
}

async fn a_filter_that_cannot_be_understood_counts_as_far_as_it_can() -> Outcome {
    let text = stderr(&[("RUST_LOG", "warn,!!=??,shared=debug")]);
    assert!(text.contains("\"message\":\"paid\""), "{text}");
    Ok(())
}

async fn a_closed_standard_error_is_no_panic() -> Outcome {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "exec \"$0\" 2>&-"])
        .arg(std::env::current_exe().unwrap());
    let output = command.env(role::VARIABLE, "log").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "true false\n");
    assert!(output.status.success());
    // And one that nobody reads any more.
    command = Command::new(std::env::current_exe().unwrap());
    command
        .env(role::VARIABLE, "log")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stderr.take());
    assert!(child.wait_with_output().unwrap().status.success());
    Ok(())
}

async fn a_polite_signal_ends_a_server_politely() -> Outcome {
    for signal in ["TERM", "INT"] {
        let mut server = role::Role::start("serve", &[], None);
        let ready = server.ready();
        let address = format!("http://{}/health", ready[0]);
        assert_eq!(
            reqwest::get(address).await.unwrap().text().await.unwrap(),
            "ok"
        );
        Command::new("kill")
            .args(["-s", signal, &ready[1]])
            .status()
            .unwrap();
        assert_eq!(server.ready(), ["Completely"]);
        server.finish();
    }
    Ok(())
}

async fn a_request_is_logged_by_its_route_and_its_id() -> Outcome {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .env(role::VARIABLE, "log-request")
        .env("LOG_FORMAT", "json");
    let output = command.env("RUST_LOG", "off,shared=info").output().unwrap();
    let line: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(line["message"], "answered");
    assert_eq!(line["status"], 200);
    assert_eq!(line["span"]["request_id"], "r-7");
    assert_eq!(line["span"]["route"], "/orders/{id}");
    assert_eq!(line["span"]["method"], "GET");
    Ok(())
}
