//! The lines that the driver reads.

use std::io::Write;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::Error;

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Status {
    /// Every job was done, and the store shows none that is not.
    Finished,
    /// Time was up with jobs left.
    Stalled,
    /// The worker ended although nobody asked it to, of this.
    Died(String),
}

/// What a run showed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: Status,
    pub(crate) jobs: usize,
    pub(crate) done: usize,
    pub(crate) again: usize,
    pub(crate) left: Option<u64>,
    pub(crate) seconds: f64,
    pub(crate) enqueue_seconds: Option<f64>,
    pub(crate) latency: Option<Latency>,
    pub(crate) unclean_stop: bool,
}

/// How late jobs were done, in nanoseconds.
#[derive(Debug)]
pub(crate) struct Latency {
    pub(crate) rate: usize,
    pub(crate) sample: Vec<u64>,
    pub(crate) refused: usize,
}

/// Says that a point of the run is reached.
pub(crate) fn event(name: &str) {
    print(&json!({ "event": name, "client_cpu_seconds": cpu_seconds() }));
}

/// Says what came out.
pub(crate) fn result(outcome: &Outcome) -> ExitCode {
    let (status, reason) = match &outcome.status {
        Status::Finished => ("finished", None),
        Status::Stalled => ("stalled", None),
        Status::Died(reason) => ("died", Some(reason)),
    };
    print(&json!({
        "event": "result",
        "status": status,
        "reason": reason,
        "jobs": outcome.jobs,
        "done": outcome.done,
        "again": outcome.again,
        "left": outcome.left,
        "seconds": outcome.seconds,
        "enqueue_seconds": outcome.enqueue_seconds,
        "latency": outcome.latency.as_ref().map(latency),
        "unclean_stop": outcome.unclean_stop,
    }));
    ExitCode::SUCCESS
}

/// Says why nothing came out.
pub(crate) fn failed(error: &Error) -> ExitCode {
    print(&json!({ "event": "failed", "reason": error.to_string() }));
    ExitCode::FAILURE
}

fn print(line: &Value) {
    let mut out = std::io::stdout().lock();
    // Nobody reads any more: there is nobody left to tell.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn latency(latency: &Latency) -> Value {
    let mut sample = latency.sample.clone();
    sample.sort_unstable();
    let at = |share: f64| percentile(&sample, share) as f64 / 1e6;
    json!({
        "rate": latency.rate,
        "refused": latency.refused,
        "p50_ms": at(0.5),
        "p95_ms": at(0.95),
        "p99_ms": at(0.99),
        "max_ms": at(1.0),
    })
}

/// The smallest value that at least this share of a sorted sample does not exceed ("nearest rank").
fn percentile(sorted: &[u64], share: f64) -> u64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// Processor time of this process so far, all threads; `None` where there is no `/proc`.
fn cpu_seconds() -> Option<f64> {
    // The kernel counts in USER_HZ here, which is 100 on every Linux.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name is in parentheses and may contain anything; user and system time are fields 14 and
    // 15, counted with the two before its end.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some((next()? + next()?) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_of_the_sample() {
        let sorted: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&sorted, 0.5), 50);
        assert_eq!(percentile(&sorted, 0.99), 99);
        assert_eq!(percentile(&sorted, 1.0), 100);
        assert_eq!(percentile(&[7], 0.5), 7);
        assert_eq!(percentile(&[], 0.5), 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn processor_time_passes_when_it_is_used() {
        let before = cpu_seconds().expect("there is /proc");
        let began = std::time::Instant::now();
        let mut sum = 0_u64;
        while cpu_seconds().is_some_and(|now| now <= before) && began.elapsed().as_secs() < 20 {
            sum = sum.wrapping_add(1);
        }
        assert!(cpu_seconds().expect("there is /proc") > before, "{sum}");
    }
}
