//! The capability table in the README: what the suite measured, kept as golden files.
//!
//! Each broker has a file in `measured/`, which a full run of its trials is compared with; numbers
//! of milliseconds vary, so that digits before `ms` are not compared. `UPDATE_GOLDEN=1` rewrites the
//! files of the brokers that ran, and the table from the files of all.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::conformance::measured;

/// The rows, in the order of the table.
const ROWS: &[&str] = &[
    "measured against",
    "durability of a publication",
    "after a crash of the consumer",
    "redelivery after the consumer took it",
    "lease",
    "a late acknowledgement",
    "attempts survive a crash of the consumer",
    "what kills its worker",
    "what always fails",
    "dead letters",
    "a retry with a delay",
    "a release burns no attempt",
    "a polite stop",
    "order by key, four consumers",
    "order by key, over a retry",
    "groups",
    "a new group sees the past",
    "delay",
    "published twice",
    "largest message",
    "a restart of the broker (killed)",
    "wake-up of a waiting consumer",
    "a wake-up that got lost",
    "purge",
    "depth: ready, delayed, leased, dead, age",
];

/// The columns, in the order of the table.
const BROKERS: &[(&str, &str)] = &[
    ("postgres", "PostgreSQL"),
    ("redis", "Redis Streams"),
    ("rabbitmq", "RabbitMQ"),
    ("kafka", "Kafka"),
    ("sqs", "SQS"),
];

const BEGIN: &str = "<!-- measured: written by UPDATE_GOLDEN=1 cargo test -p shared queue -->\n";
const END: &str = "<!-- /measured -->\n";

type Column = BTreeMap<String, String>;

/// Compares, or updates. To be called when all trials have ended; what differs.
pub(crate) fn settle() -> Result<(), String> {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut differences = String::new();
    for (broker, column) in measured() {
        let unknown = column.keys().find(|row| !ROWS.contains(&row.as_str()));
        if let Some(row) = unknown {
            return Err(format!("{broker}: no row of the table is called {row:?}"));
        }
        let kept = read(&broker);
        if update {
            // A run of some trials changes their rows and no others.
            let all: Column = kept.into_iter().chain(column).collect();
            write(&broker, &all);
            continue;
        }
        for (row, value) in &column {
            let kept = kept.get(row).map_or("nothing", String::as_str);
            if masked(kept) != masked(value) {
                let _ = writeln!(
                    differences,
                    "{broker}: {row}: {kept:?} is kept, now {value:?}"
                );
            }
        }
    }
    let readme = root().join("README.md");
    let text = std::fs::read_to_string(&readme).unwrap();
    let table = table();
    let (before, rest) = text
        .split_once(BEGIN)
        .expect("the README has the table's begin");
    let (kept, after) = rest
        .split_once(END)
        .expect("the README has the table's end");
    if update {
        std::fs::write(&readme, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else if kept != table {
        differences.push_str("the table in shared/README.md is not that of the measured files\n");
    }
    match differences.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "{differences}If that is right: UPDATE_GOLDEN=1 cargo test -p shared queue"
        )),
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn file(broker: &str) -> PathBuf {
    root().join(format!("tests/shared/queue/measured/{broker}.txt"))
}

fn read(broker: &str) -> Column {
    let text = std::fs::read_to_string(file(broker)).unwrap_or_default();
    let row = |line: &str| {
        let name = ROWS
            .iter()
            .find(|row| line.starts_with(&format!("{row} = ")))?;
        Some(((*name).to_owned(), line[name.len() + 3..].to_owned()))
    };
    text.lines().filter_map(row).collect()
}

fn write(broker: &str, column: &Column) {
    let rows = ROWS.iter().filter_map(|row| column.get_key_value(*row));
    let lines: String = rows
        .map(|(row, value)| format!("{row} = {value}\n"))
        .collect();
    std::fs::create_dir_all(file(broker).parent().unwrap()).unwrap();
    std::fs::write(file(broker), lines).unwrap();
}

/// Without numbers of milliseconds.
fn masked(value: &str) -> String {
    let mut words: Vec<_> = value.split(' ').collect();
    for at in 1..words.len() {
        if words[at] == "ms" && words[at - 1].bytes().all(|byte| byte.is_ascii_digit()) {
            words[at - 1] = "#";
        }
    }
    words.join(" ")
}

fn table() -> String {
    let columns = BROKERS.iter().map(|(broker, title)| (*title, read(broker)));
    let columns: Vec<_> = columns.filter(|(_, column)| !column.is_empty()).collect();
    let mut table = String::from("\n| ");
    for (title, _) in &columns {
        let _ = write!(table, "| {title} ");
    }
    table.push_str("|\n| ---");
    table.push_str(&" | ---".repeat(columns.len()));
    table.push_str(" |\n");
    for row in ROWS {
        let _ = write!(table, "| {row}");
        for (_, column) in &columns {
            let value = column.get(*row).map_or("not measured", String::as_str);
            let _ = write!(table, " | {value}");
        }
        table.push_str(" |\n");
    }
    table.push('\n');
    table
}
