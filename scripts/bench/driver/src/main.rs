//! Runs everybody in turn, again and again, and says who is how fast.
//!
//! In turn and not one after the other: what disturbs the machine for a minute then disturbs one
//! round of each, which the median leaves out, and not all rounds of one.

mod flags;
mod plan;
mod plot;
mod raw;
mod results;
mod run;
mod servers;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};

use flags::Flags;
use run::{Folders, Load};
use servers::Servers;

/// Any error: all that can be done with one here is to show it.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|it| it == "--help" || it == "-h") {
        println!("{}", flags::USAGE);
        return ExitCode::SUCCESS;
    }
    let flags = match Flags::parse(arguments) {
        Ok(flags) => flags,
        Err(problem) => {
            eprintln!("{problem}\n\n{}", flags::USAGE);
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::from(2);
        }
    };
    match runtime.block_on(until_told_to_stop(&flags)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Ends early on Ctrl-C or SIGTERM; dropping the servers then removes them. (SIGKILL is what the
/// watchers of `shared::services` are for.)
async fn until_told_to_stop(flags: &Flags) -> Result<(), Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        outcome = measure(flags) => outcome,
        _ = tokio::signal::ctrl_c() => Err("stopped".into()),
        _ = terminated.recv() => Err("stopped".into()),
    }
}

async fn measure(flags: &Flags) -> Result<(), Error> {
    let began = Instant::now();
    let plan = &flags.plan;
    let out = match &flags.out {
        Some(out) => out.clone(),
        None => shared::services::target_folder().join("bench"),
    };
    let folders = Folders {
        programs: flags.programs.clone(),
        logs: out.join("logs"),
    };
    run::prepare(&folders.logs)?;
    let mut servers = Servers::start().await?;
    let machine = machine();
    println!("{machine}");
    for line in servers.describe() {
        println!("{line}");
    }
    println!();

    let mut runs: Vec<Value> = Vec::new();
    for round in 1..=plan.rounds {
        for contestant in &plan.contestants {
            let mut loads = vec![Load::BurnDown { jobs: plan.jobs }];
            loads.extend(plan.rates.iter().map(|rate| Load::Latency {
                rate: *rate,
                seconds: plan.seconds,
            }));
            for load in loads {
                let outcome = run::run(&mut servers, &folders, plan, contestant, load);
                keep(&mut runs, round, outcome.await?, &out)?;
            }
        }
        for raw in &plan.raw {
            let outcome = raw::run(&mut servers, &flags.scripts, raw, plan.jobs, plan.limit);
            keep(&mut runs, round, outcome.await?, &out)?;
        }
    }
    let described = servers.describe();
    servers.close().await?;

    let burn_downs = results::burn_downs(plan, &runs);
    let latencies = results::latencies(plan, &runs);
    let table = format!(
        "{machine}\n{}\n\n{}",
        described.join("\n"),
        table::render(plan, &burn_downs, &latencies)
    );
    write(&out, "table.md", &table)?;
    write(&out, "throughput.svg", &plot::throughput(&burn_downs))?;
    if !latencies.is_empty() {
        write(&out, "latency.svg", &plot::latency(&latencies))?;
    }
    println!("\n{}", table::render(plan, &burn_downs, &latencies));
    println!(
        "{} runs in {:.0} s; table.md, runs.json and the plots are in {}",
        runs.len(),
        began.elapsed().as_secs_f64(),
        out.display()
    );
    Ok(())
}

/// Shows a run in a line, and keeps all so far in a file, for whoever stops us early.
fn keep(runs: &mut Vec<Value>, round: usize, mut outcome: Value, out: &Path) -> Result<(), Error> {
    outcome["round"] = json!(round);
    println!("{}", line(&outcome));
    runs.push(outcome);
    write(out, "runs.json", &serde_json::to_string_pretty(&runs)?)
}

fn line(outcome: &Value) -> String {
    let text = |key: &str| outcome[key].as_str().unwrap_or("").to_owned();
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let figures = match &outcome["latency"] {
        Value::Object(latency) => format!(
            "p50 {:.1}  p95 {:.1}  p99 {:.1} ms",
            number(&latency["p50_ms"]),
            number(&latency["p95_ms"]),
            number(&latency["p99_ms"])
        ),
        _ if outcome["seconds"].is_number() => format!(
            "{:.0} jobs/s",
            number(&outcome["done"]) / number(&outcome["seconds"])
        ),
        _ => String::new(),
    };
    let trouble = match outcome["status"].as_str() {
        Some("finished") => String::new(),
        status => format!("  {}  {}", status.unwrap_or("no status"), text("reason")),
    };
    format!(
        "round {}  {:<30} {:<10} {figures}{trouble}",
        outcome["round"],
        text("contestant"),
        text("load")
    )
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), Error> {
    let path: PathBuf = folder.join(name);
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// What the figures were measured on, as far as the system tells.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load
        .split_whitespace()
        .next()
        .unwrap_or("unknown")
        .to_owned();
    format!(
        "{cores} cores, {} {}, load {load} at the start",
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}
