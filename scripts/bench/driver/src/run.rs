//! One run of one contestant's program: started, watched, read, and ended whatever it does.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shared::services::guard::{Guarded, OnOrphaned, Output, Program};
use tokio::sync::mpsc;

use crate::Error;
use crate::plan::{Contestant, Plan};
use crate::servers::{Place, Reading, Servers};

/// Time for starting, preparing the store and ending, on top of what the program is given.
const SLACK: Duration = Duration::from_secs(30);

/// What a program is asked to do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load {
    BurnDown { jobs: usize },
    Latency { rate: usize, seconds: usize },
}

/// Where programs and their output are.
pub(crate) struct Folders {
    pub(crate) programs: PathBuf,
    pub(crate) logs: PathBuf,
}

/// Runs a program once. What goes wrong in it is a result like any other; an error is ours.
pub(crate) async fn run(
    servers: &mut Servers,
    folders: &Folders,
    plan: &Plan,
    contestant: &Contestant,
    load: Load,
) -> Result<Value, Error> {
    let place = servers.fresh(contestant.store).await?;
    let mut outcome = watch(servers, folders, plan, &place, contestant, load).await?;
    if let Some(dead) = servers.dead_tuples(&place).await? {
        outcome["dead_tuples"] = json!(dead);
    }
    servers.remove(place).await?;
    outcome["contestant"] = json!(contestant.name);
    outcome["load"] = match load {
        Load::BurnDown { .. } => json!("burn-down"),
        Load::Latency { rate, .. } => json!(format!("{rate}/s")),
    };
    Ok(outcome)
}

async fn watch(
    servers: &mut Servers,
    folders: &Folders,
    plan: &Plan,
    place: &Place,
    contestant: &Contestant,
    load: Load,
) -> Result<Value, Error> {
    let path = folders.programs.join(contestant.program);
    if !path.is_file() {
        return Ok(no_result("not built", &path.display().to_string()));
    }
    let mut argv = vec![path.display().to_string()];
    let mut flag = |name: &str, value: String| argv.extend([name.to_owned(), value]);
    flag("--url", place.url.clone());
    flag("--concurrency", plan.concurrency.to_string());
    let longest = match load {
        Load::BurnDown { jobs } => {
            flag("--mode", "burn-down".to_owned());
            flag("--jobs", jobs.to_string());
            flag("--limit", plan.limit.as_secs().to_string());
            // Enqueueing and working have it each.
            plan.limit * 2
        }
        Load::Latency { rate, seconds } => {
            flag("--mode", "latency".to_owned());
            flag("--rate", rate.to_string());
            flag("--seconds", seconds.to_string());
            flag("--limit", plan.drain.as_secs().to_string());
            plan.drain + Duration::from_secs(seconds as u64)
        }
    };
    let log = folders.logs.join(format!("{}.log", contestant.program));
    let program = Program::new(argv)
        .stdout(Output::Piped)
        .stderr(Output::Append(log.clone()));
    let mut guarded = Guarded::spawn(program, OnOrphaned::KillGroup)?;
    let mut lines = lines_of(&mut guarded)?;

    let deadline = Instant::now() + longest + SLACK;
    let mut marks: Vec<(String, Option<f64>, Reading)> = Vec::new();
    let outcome = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, lines.recv()).await {
            Err(_) => break no_result("hung", &format!("no result after {:?}", longest + SLACK)),
            Ok(None) => {
                let status = guarded.wait().await;
                let reason = format!("{status}, see {}", log.display());
                break no_result("died", &reason);
            }
            Ok(Some(line)) => {
                let Ok(line) = serde_json::from_str::<Value>(&line) else {
                    continue; // somebody's print: only our own lines are JSON objects
                };
                match line["event"].as_str() {
                    Some("result") => break line,
                    Some("failed") => {
                        break no_result("failed", line["reason"].as_str().unwrap_or(""));
                    }
                    Some(mark) => {
                        let cpu = line["client_cpu_seconds"].as_f64();
                        marks.push((mark.to_owned(), cpu, servers.read(place).await?));
                    }
                    None => {}
                }
            }
        }
    };
    // It has said what it had to say, and has a moment to close its connections.
    if guarded.wait_blocking(Duration::from_secs(2)).is_none() {
        drop(guarded);
    }
    Ok(with_costs(outcome, &marks))
}

/// What a run cost, from `ready` to `settled`, enqueueing included.
fn with_costs(mut outcome: Value, marks: &[(String, Option<f64>, Reading)]) -> Value {
    let mark = |name: &str| marks.iter().find(|(mark, ..)| mark == name);
    if let (Some((_, client_before, before)), Some((_, client_after, after))) =
        (mark("ready"), mark("settled"))
    {
        let difference = |after: Option<f64>, before: Option<f64>| Some(after? - before?);
        outcome["log_bytes"] = json!(after.log_bytes - before.log_bytes);
        outcome["server_cpu_seconds"] = json!(difference(after.cpu_seconds, before.cpu_seconds));
        outcome["client_cpu_seconds"] = json!(difference(*client_after, *client_before));
    }
    outcome
}

fn no_result(status: &str, reason: &str) -> Value {
    json!({ "event": "result", "status": status, "reason": reason })
}

/// A thread reads, since the pipe blocks; it ends with the program.
fn lines_of(guarded: &mut Guarded) -> Result<mpsc::UnboundedReceiver<String>, Error> {
    let stdout = guarded.take_stdout().ok_or("the program has no output")?;
    let (send, receive) = mpsc::unbounded_channel();
    std::thread::Builder::new()
        .name("read".to_owned())
        .spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        })?;
    Ok(receive)
}

/// Makes the folders of a program's output.
pub(crate) fn prepare(logs: &Path) -> Result<(), Error> {
    Ok(std::fs::create_dir_all(logs)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_differences_between_two_marks() {
        let mark = |name: &str, client, log_bytes, server| {
            let reading = Reading {
                log_bytes,
                cpu_seconds: Some(server),
            };
            (name.to_owned(), Some(client), reading)
        };
        let marks = [
            mark("ready", 1.0, 100.0, 10.0),
            mark("enqueued", 2.0, 300.0, 11.0),
            mark("settled", 4.0, 700.0, 15.0),
        ];
        let outcome = with_costs(json!({}), &marks);
        assert_eq!(outcome["log_bytes"], json!(600.0));
        assert_eq!(outcome["client_cpu_seconds"], json!(3.0));
        assert_eq!(outcome["server_cpu_seconds"], json!(5.0));
    }

    #[test]
    fn a_run_that_never_settled_has_no_costs() {
        let outcome = with_costs(no_result("died", "of something"), &[]);
        assert_eq!(outcome.get("log_bytes"), None);
    }
}
