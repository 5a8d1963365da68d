//! All runs together: medians and spreads, and who is best.

use serde_json::Value;

use crate::plan::{Plan, Store};

/// The middle of some values, and the least and the greatest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        Some(Self {
            median: (values[last / 2] + values[last.div_ceil(2)]) / 2.0,
            least: values[0],
            greatest: values[last],
        })
    }
}

/// What one contestant did in all its burn-downs.
#[derive(Debug, Clone)]
pub(crate) struct BurnDown {
    pub(crate) name: String,
    /// `None` for the bare statements.
    pub(crate) store: Option<Store>,
    pub(crate) ours: bool,
    pub(crate) jobs_per_second: Option<Spread>,
    pub(crate) enqueued_per_second: Option<Spread>,
    pub(crate) client_cpu_us: Option<Spread>,
    pub(crate) server_cpu_us: Option<Spread>,
    pub(crate) log_bytes: Option<Spread>,
    pub(crate) dead_tuples: Option<Spread>,
    /// Throughput as a part of the best peer's on the same store.
    pub(crate) of_best: Option<f64>,
    pub(crate) troubles: Vec<String>,
}

/// What one contestant did under one offered rate.
#[derive(Debug, Clone)]
pub(crate) struct Latency {
    pub(crate) name: String,
    pub(crate) store: Store,
    pub(crate) ours: bool,
    pub(crate) rate: usize,
    /// Milliseconds.
    pub(crate) p50: Option<Spread>,
    pub(crate) p95: Option<Spread>,
    pub(crate) p99: Option<Spread>,
    pub(crate) troubles: Vec<String>,
}

/// One line for each contestant and each raw script, in the order of the plan.
pub(crate) fn burn_downs(plan: &Plan, runs: &[Value]) -> Vec<BurnDown> {
    let contestants = plan.contestants.iter();
    let contestants = contestants.map(|it| (it.name, Some(it.store), it.ours));
    let raw = plan.raw.iter().map(|raw| (raw.name, None, false));
    let lines = contestants.chain(raw).map(|(name, store, ours)| {
        let runs = of(runs, name, "burn-down");
        let finished: Vec<&Value> = runs.iter().copied().filter(|run| finished(run)).collect();
        let per_job = |key: &str, unit: f64| {
            let values = finished
                .iter()
                .map(|run| Some(number(run, key)? * unit / number(run, "jobs")?));
            Spread::of(values.flatten())
        };
        let rate = |key: &str| {
            let values = finished
                .iter()
                .map(|run| Some(number(run, "jobs")? / number(run, key)?));
            Spread::of(values.flatten())
        };
        BurnDown {
            name: name.to_owned(),
            store,
            ours,
            jobs_per_second: rate("seconds"),
            enqueued_per_second: rate("enqueue_seconds"),
            client_cpu_us: per_job("client_cpu_seconds", 1e6),
            server_cpu_us: per_job("server_cpu_seconds", 1e6),
            log_bytes: per_job("log_bytes", 1.0),
            dead_tuples: per_job("dead_tuples", 1.0),
            of_best: None,
            troubles: troubles(&runs),
        }
    });
    let mut lines: Vec<BurnDown> = lines.collect();
    for at in 0..lines.len() {
        let best = lines
            .iter()
            .filter(|line| line.store.is_some() && line.store == lines[at].store && !line.ours)
            .filter_map(|line| line.jobs_per_second)
            .map(|spread| spread.median)
            .fold(0.0, f64::max);
        lines[at].of_best = lines[at]
            .jobs_per_second
            .filter(|_| best > 0.0)
            .map(|spread| spread.median / best);
    }
    lines
}

/// One line for each contestant and rate.
pub(crate) fn latencies(plan: &Plan, runs: &[Value]) -> Vec<Latency> {
    let pairs = plan
        .rates
        .iter()
        .flat_map(|rate| plan.contestants.iter().map(move |it| (*rate, it)));
    let lines = pairs.map(|(rate, contestant)| {
        let runs = of(runs, contestant.name, &format!("{rate}/s"));
        let at = |key: &str| {
            // A queue that stalled counts with what it has: jobs that were never done count as late
            // as they were at the end.
            let values = runs.iter().map(|run| run["latency"][key].as_f64());
            Spread::of(values.flatten())
        };
        Latency {
            name: contestant.name.to_owned(),
            store: contestant.store,
            ours: contestant.ours,
            rate,
            p50: at("p50_ms"),
            p95: at("p95_ms"),
            p99: at("p99_ms"),
            troubles: troubles(&runs),
        }
    });
    lines.collect()
}

fn of<'a>(runs: &'a [Value], contestant: &str, load: &str) -> Vec<&'a Value> {
    let ours = |run: &&Value| run["contestant"] == contestant && run["load"] == load;
    runs.iter().filter(ours).collect()
}

fn finished(run: &Value) -> bool {
    run["status"] == "finished"
}

fn number(run: &Value, key: &str) -> Option<f64> {
    run[key].as_f64().filter(|value| value.is_finite())
}

/// Everything that is not as it should be, each with how often it happened.
fn troubles(runs: &[&Value]) -> Vec<String> {
    let mut found: Vec<(String, usize)> = Vec::new();
    let mut note = |what: String| match found.iter_mut().find(|(known, _)| *known == what) {
        Some((_, times)) => *times += 1,
        None => found.push((what, 1)),
    };
    for run in runs {
        let count = |value: &Value| value.as_u64().unwrap_or(0);
        let (jobs, done) = (count(&run["jobs"]), count(&run["done"]));
        match run["status"].as_str() {
            Some("finished") => {}
            Some("stalled") if done < jobs => {
                note(format!(
                    "stalled with {} of {jobs} jobs not done",
                    jobs - done
                ));
            }
            Some("stalled") => note(match run["left"].as_u64() {
                Some(left) => format!("all done, but {left} never shown as finished"),
                None => "all done, but it did not say in time what is finished".to_owned(),
            }),
            status => note(format!(
                "{}: {}",
                status.unwrap_or("no status"),
                run["reason"].as_str().unwrap_or("no reason given").trim()
            )),
        }
        if count(&run["again"]) > 0 {
            note(format!("{} jobs done twice", count(&run["again"])));
        }
        if count(&run["latency"]["refused"]) > 0 {
            note(format!(
                "{} jobs not accepted",
                count(&run["latency"]["refused"])
            ));
        }
        if run["unclean_stop"] == true {
            note("did not stop when asked".to_owned());
        }
    }
    let all = runs.len();
    let texts = found
        .into_iter()
        .map(|(what, times)| format!("{times} of {all}: {what}"));
    texts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(contestant: &str, seconds: f64) -> Value {
        json!({
            "contestant": contestant, "load": "burn-down", "status": "finished",
            "jobs": 1000, "done": 1000, "seconds": seconds, "log_bytes": 500_000.0,
        })
    }

    #[test]
    fn a_spread_has_its_middle_in_the_middle() {
        let spread = Spread::of([5.0, 1.0, 3.0]);
        let (median, least, greatest) = (3.0, 1.0, 5.0);
        let expected = Spread {
            median,
            least,
            greatest,
        };
        assert_eq!(spread, Some(expected));
        assert_eq!(Spread::of([1.0, 2.0]).map(|it| it.median), Some(1.5));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn the_best_peer_is_one_on_the_same_store() {
        let plan = Plan::full();
        let runs = [
            run("riverqueue 0.5.0", 2.0),
            run("graphile_worker 0.14.1", 1.0),
            run("bullmq-official 1.4.4", 0.1),
        ];
        let lines = burn_downs(&plan, &runs);
        let line = |name: &str| lines.iter().find(|line| line.name == name);
        assert_eq!(
            line("riverqueue 0.5.0").and_then(|it| it.of_best),
            Some(0.5)
        );
        assert_eq!(
            line("graphile_worker 0.14.1").and_then(|it| it.of_best),
            Some(1.0)
        );
        assert_eq!(
            line("bullmq-official 1.4.4").and_then(|it| it.of_best),
            Some(1.0)
        );
        let bytes = line("riverqueue 0.5.0").and_then(|it| it.log_bytes);
        assert_eq!(bytes.map(|it| it.median), Some(500.0));
    }

    #[test]
    fn a_run_that_did_not_finish_is_told_and_not_counted() {
        let plan = Plan::full();
        let mut stalled = run("riverqueue 0.5.0", 90.0);
        stalled["status"] = json!("stalled");
        stalled["done"] = json!(400);
        let runs = [stalled, run("riverqueue 0.5.0", 2.0)];
        let lines = burn_downs(&plan, &runs);
        let river = lines.iter().find(|line| line.name == "riverqueue 0.5.0");
        let river = river.expect("it takes part");
        assert_eq!(river.jobs_per_second.map(|it| it.least), Some(500.0));
        assert_eq!(
            river.troubles,
            ["1 of 2: stalled with 600 of 1000 jobs not done"]
        );
    }
}
