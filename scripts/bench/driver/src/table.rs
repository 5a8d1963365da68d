//! The tables, in Markdown that can be read as it is.

use crate::plan::Plan;
use crate::results::{BurnDown, Latency, Spread};

/// Both tables, with what went wrong below them.
pub(crate) fn render(plan: &Plan, burn_downs: &[BurnDown], latencies: &[Latency]) -> String {
    let mut text = format!(
        "Burn-down of {} jobs, {} handlers; per job from enqueueing to done. Median of {} rounds, \
         least and greatest in brackets.\n\n",
        thousands(plan.jobs as f64),
        plan.concurrency,
        plan.rounds
    );
    text.push_str(&throughput(burn_downs));
    if !latencies.is_empty() {
        text.push_str(&format!(
            "\nFrom the moment at which a job was due to be sent to the end of its handler, ms; \
             {} s at each rate.\n\n",
            plan.seconds
        ));
        text.push_str(&lateness(latencies));
    }
    let troubles = burn_downs
        .iter()
        .map(|it| (&it.name, "burn-down".to_owned(), &it.troubles));
    let more = latencies
        .iter()
        .map(|it| (&it.name, format!("{}/s", it.rate), &it.troubles));
    let troubles: Vec<String> = troubles
        .chain(more)
        .flat_map(|(name, load, list)| {
            list.iter()
                .map(move |trouble| format!("- {name}, {load}: {trouble}\n"))
        })
        .collect();
    if !troubles.is_empty() {
        text.push_str("\nNot as it should be (rounds in which it happened):\n\n");
        text.extend(troubles);
    }
    text
}

fn throughput(lines: &[BurnDown]) -> String {
    let head = [
        "queue",
        "durability",
        "jobs/s",
        "× best peer",
        "enqueued/s",
        "CPU µs, client + server",
        "log bytes",
        "dead tuples",
    ];
    let mut lines: Vec<&BurnDown> = lines.iter().collect();
    lines.sort_by(|a, b| order(b).total_cmp(&order(a)));
    let rows = lines.into_iter().map(|line| {
        let durability = match line.store {
            Some(store) => store.durability(),
            None => "PostgreSQL, fsync at each commit",
        };
        let cpu = match (line.client_cpu_us, line.server_cpu_us) {
            (Some(client), Some(server)) => format!("{:.0} + {:.0}", client.median, server.median),
            (None, Some(server)) => format!("{:.0}", server.median),
            _ => "–".to_owned(),
        };
        vec![
            name(&line.name, line.ours),
            durability.to_owned(),
            line.jobs_per_second
                .map_or("–".to_owned(), |it| spread(it, thousands)),
            line.of_best
                .map_or("–".to_owned(), |ratio| format!("{ratio:.2}")),
            median(line.enqueued_per_second, thousands),
            cpu,
            median(line.log_bytes, thousands),
            median(line.dead_tuples, |value| format!("{value:.1}")),
        ]
    });
    markdown(&head.map(str::to_owned), &rows.collect::<Vec<_>>())
}

/// Stores apart, the fastest first, the bare statements last.
fn order(line: &BurnDown) -> f64 {
    let store = match line.store {
        Some(crate::plan::Store::Postgres) => 2.0,
        Some(crate::plan::Store::Redis) => 1.0,
        None => 0.0,
    };
    store * 1e12 + line.jobs_per_second.map_or(0.0, |it| it.median)
}

fn lateness(lines: &[Latency]) -> String {
    let head = ["offered", "queue", "durability", "p50", "p95", "p99"];
    let rows = lines.iter().map(|line| {
        let at =
            |value: Option<Spread>| value.map_or("–".to_owned(), |it| spread(it, milliseconds));
        vec![
            format!("{}/s", thousands(line.rate as f64)),
            name(&line.name, line.ours),
            line.store.durability().to_owned(),
            at(line.p50),
            at(line.p95),
            at(line.p99),
        ]
    });
    markdown(&head.map(str::to_owned), &rows.collect::<Vec<_>>())
}

fn name(name: &str, ours: bool) -> String {
    if ours {
        format!("**{name}**")
    } else {
        name.to_owned()
    }
}

fn median(value: Option<Spread>, format: impl Fn(f64) -> String) -> String {
    value.map_or("–".to_owned(), |spread| format(spread.median))
}

fn spread(it: Spread, format: impl Fn(f64) -> String) -> String {
    format!(
        "{} ({}–{})",
        format(it.median),
        format(it.least),
        format(it.greatest)
    )
}

pub(crate) fn milliseconds(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.1}"),
        value => thousands(value),
    }
}

/// `12,345`.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = if value <= -0.5 {
        "-".to_owned()
    } else {
        String::new()
    };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Columns are as wide as their widest cell, so that it is a table without being rendered, too.
fn markdown(head: &[String], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let cells = cells.chain(head.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let line = |cells: &[String]| {
        let cells = cells.iter().enumerate();
        let cells = cells.map(|(column, cell)| {
            let missing = width(column).saturating_sub(cell.chars().count());
            format!(" {cell}{} |", " ".repeat(missing))
        });
        format!("|{}\n", cells.collect::<String>())
    };
    let rule: Vec<String> = (0..head.len())
        .map(|column| "-".repeat(width(column)))
        .collect();
    let mut text = line(head) + &line(&rule);
    text.extend(rows.iter().map(|row| line(row)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        let texts = [0.4, 999.0, 1000.0, 1_234_567.0, -1500.0].map(thousands);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567", "-1,500"]);
    }

    #[test]
    fn columns_line_up() {
        let head = ["a", "µs"].map(str::to_owned);
        let rows = [vec!["long".to_owned(), "1".to_owned()]];
        let text = markdown(&head, &rows);
        assert_eq!(text, "| a    | µs |\n| ---- | -- |\n| long | 1  |\n");
    }
}
