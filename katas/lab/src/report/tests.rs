//! What people read, held still by files: `tests/golden/*.txt`. `UPDATE_GOLDEN=1` rewrites them.

use std::{path::PathBuf, time::Duration};

use super::*;
use crate::{
    history::Event,
    kata::Step,
    matrix::{Cell, Matrix, Row},
    verdict::{Finding, Verdict, VerdictKind},
};

/// Compares with a file, without colour.
fn golden(name: &str, text: &str) {
    let plain = anstream::adapter::strip_str(text).to_string();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.txt"));
    for line in plain.lines().filter(|line| !line.contains("cargo run")) {
        assert!(text::width(line) <= text::WIDEST, "too wide: {line}");
        assert_eq!(line, line.trim_end(), "spaces at the end");
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &plain).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        plain == expected,
        "{} differs.\n\n--- in the file\n{expected}\n--- now\n{plain}\n--- UPDATE_GOLDEN=1 accepts it",
        path.display()
    );
}

fn event(micros: u64, actor: &str, what: &str) -> Event {
    Event {
        at: Duration::from_micros(micros),
        actor: actor.to_owned(),
        what: what.to_owned(),
    }
}

fn a_finding() -> Finding {
    Finding {
        did: "50 × POST /pay with the same key at once; the provider held the first call until a second one came".to_owned(),
        expected: "1 charge, and 50 answers that agree".to_owned(),
        saw: "2 charges (ch_0, ch_1)".to_owned(),
        settings: vec!["KEY_LEASE_MS=30000".to_owned(), "KEY_TTL_MS=60000".to_owned()],
        history: vec![
            event(20, "request 1", "POST /pay                   key 7f3a"),
            event(110, "request 2", "POST /pay                   key 7f3a"),
            event(2_240, "request 1", "  → provider charge 12.50   held"),
            event(2_900, "request 2", "  → provider charge 12.50   ← the second call for the same key"),
            event(58_000, "request 1", "← 201 {\"charge\":\"ch_0\",\"payment_id\":\"pay-4f1c09\",\"amount_cents\":1250,\"currency\":\"EUR\",\"status\":\"captured\"}"),
        ],
        output: Vec::new(),
    }
}

fn evidence(finding: &Finding) -> Evidence<'_> {
    Evidence {
        name: "charges_once_under_concurrency",
        finding,
        think: "what stops request 2 between looking for the key and writing it?",
        again: "cargo run -p kata-04-idempotency -- check --step 2 --seed 4821",
    }
}

#[test]
fn a_finding_shows_what_was_done_expected_and_seen() {
    golden("finding", &finding(evidence(&a_finding()), 100));
}

#[test]
fn a_finding_fits_a_narrow_terminal() {
    let text = finding(evidence(&a_finding()), 80);
    let plain = anstream::adapter::strip_str(&text).to_string();
    assert!(plain.lines().all(|line| text::width(line) <= 80), "{plain}");
    golden("finding_narrow", &text);
}

#[test]
fn a_long_timeline_is_shortened_in_the_middle() {
    let mut found = a_finding();
    found.history = (0..120_u64)
        .map(|n| {
            event(
                n * 130_000,
                &format!("request {n}"),
                &format!("POST /pay  key {n}"),
            )
        })
        .chain((b'a'..=b'z').map(|letter| {
            let table = char::from(letter);
            event(
                15_600_000,
                "database",
                &format!("select balance from {table}"),
            )
        }))
        .collect();
    found.output = vec![
        "listening on 20481".to_owned(),
        "\u{1b}[31mTypeError\u{1b}[0m: x is undefined".to_owned(),
    ];
    golden("finding_long", &finding(evidence(&found), 100));
}

fn record(step: usize, name: &str, verdict: Verdict) -> Record {
    Record::new(step, name, verdict, Duration::from_millis(137))
}

#[test]
fn a_list_groups_checks_by_step() {
    let why = "it needs a crash, which only the lab can cause (--cmd)";
    let records = [
        record(1, "requires_a_key", Verdict::Passed(None)),
        record(
            1,
            "replays_the_first_answer",
            Verdict::Passed(Some("3 replays".to_owned())),
        ),
        record(
            2,
            "charges_once_under_concurrency",
            Verdict::Failed(Box::new(a_finding())),
        ),
        record(
            3,
            "rejects_a_reused_key",
            Verdict::NotStarted("step 3".to_owned()),
        ),
        record(
            4,
            "survives_a_crash_at_every_point",
            Verdict::Passed(Some(
                "41 crash points: 19 before and 19 after a round trip, 3 at a call".to_owned(),
            )),
        ),
        record(5, "restarts", Verdict::NotRun(why.to_owned())),
        record(5, "restarts_twice", Verdict::NotRun(why.to_owned())),
        record(
            5,
            "hears_nothing",
            Verdict::Inconclusive("the call that it should hold never came".to_owned()),
        ),
    ];
    let titles = [
        "A key is required, the first answer is replayed",
        "Fifty at once make one charge",
        "Another body under the same key",
        "A crash at any point leaves neither a lost nor a second charge, also when it comes while the provider is still busy",
        "Restarts",
    ];
    let names = records.iter().map(|record| record.name.as_str());
    let mut list = CheckList::new(titles, names, 100);
    let mut out: String = records.iter().map(|record| list.line(record)).collect();
    out.push_str(&summary(&Summary::of(
        &records,
        Duration::from_millis(3_420),
    )));
    out.push('\n');
    out.push_str(&reasons(&records, 100));
    golden("check_list", &out);
}

fn cell(must_fail: Option<bool>, verdicts: &[(u64, Record)]) -> Cell {
    let mut cell = Cell::new(must_fail);
    for (seed, record) in verdicts {
        cell.add(*seed, record.clone());
    }
    cell
}

fn again(row: &Row, step: usize, seed: u64) -> String {
    format!(
        "cargo run -p kata-04-idempotency -- check --variant {} --step {step} --seed {seed}",
        row.id
    )
}

#[test]
fn a_small_matrix_has_words_over_its_columns() {
    let checks = vec![
        (1, "requires_a_key"),
        (1, "replays_the_first_answer"),
        (2, "charges_once_under_concurrency"),
    ];
    let outcomes = |kinds: [bool; 3], must: [bool; 3]| {
        let cells =
            checks
                .iter()
                .zip(kinds)
                .zip(must)
                .map(|(((step, name), passes), must_fail)| {
                    let verdict = match passes {
                        true => Verdict::Passed(None),
                        false => Verdict::Failed(Box::new(a_finding())),
                    };
                    cell(Some(must_fail), &[(4821, record(*step, name, verdict))])
                });
        cells.collect::<Vec<_>>()
    };
    let row = |id, label: &str, cells| Row {
        id,
        label: label.to_owned(),
        cells,
    };
    let rows = vec![
        row(
            "reference",
            "reference",
            outcomes([true, true, true], [false, false, false]),
        ),
        row(
            "waits",
            "alternative: waits, no 409",
            outcomes([true, true, true], [false, false, false]),
        ),
        row(
            "check-then-act",
            "flawed: check then act",
            outcomes([true, true, false], [false, false, true]),
        ),
    ];
    let as_declared = Matrix {
        checks: checks.clone(),
        rows,
        repeats: 1,
    };
    golden("matrix", &matrix(&as_declared, again, 100));

    let mut surprising = as_declared;
    surprising.rows.push(row(
        "no-key",
        "flawed: no key",
        outcomes([true, false, false], [true, false, true]),
    ));
    golden("matrix_surprises", &matrix(&surprising, again, 100));
}

#[test]
fn a_wide_matrix_has_numbers_over_its_columns() {
    let names: Vec<&'static str> = (1..=24)
        .map(|n| &*Box::leak(format!("promise_number_{n}_that_has_a_long_name").into_boxed_str()))
        .collect();
    let checks: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(i, name)| (i / 3 + 1, *name))
        .collect();
    let row = |id: &'static str, label: &str, wrong: usize| Row {
        id,
        label: label.to_owned(),
        cells: checks
            .iter()
            .enumerate()
            .map(|(column, (step, name))| {
                let runs: Vec<_> = (0..3_u64)
                    .map(|n| {
                        let verdict = match column == wrong && n > 0 {
                            true => Verdict::Inconclusive(
                                "the call that it should hold never came".to_owned(),
                            ),
                            false => Verdict::Passed(None),
                        };
                        (7 + n, record(*step, name, verdict))
                    })
                    .collect();
                cell(Some(false), &runs)
            })
            .collect(),
    };
    let rows = vec![
        row("reference", "reference", 99),
        row("waits", "alternative: waits, no 409", 11),
    ];
    golden(
        "matrix_numbers",
        &matrix(
            &Matrix {
                checks: checks.clone(),
                rows,
                repeats: 3,
            },
            again,
            100,
        ),
    );
}

#[test]
fn a_hint_says_how_to_get_the_next() {
    let step = Step {
        title: "A key is required, the first answer is replayed",
        hints: [
            "Where is the first answer kept?",
            "A table with the key as its primary key.",
            "Insert first, act afterwards:\n\n    insert into keys … on conflict do nothing",
        ],
        checks: Vec::new(),
    };
    let again = "cargo run -p kata-04-idempotency -- hint 1";
    let all: Vec<_> = (0..3)
        .map(|stage| hint(&step, 1, stage, again, 100))
        .collect();
    golden("hint", &all.join("\n"));
}

#[test]
fn a_table_aligns_its_numbers() {
    let mut table = Table::new(["variant", "charges", "charged twice", "no answer", "p95"]);
    table.row(["no key", "583", "161", "0", "58 ms"]).bar(583.0);
    table
        .row(["check, then act", "214", "14", "0", "61 ms"])
        .bar(214.0);
    table
        .row(["reference", "200", "0", "0", "49 ms"])
        .bar(200.0);
    table.row(["nothing", "0"]).bar(0.0);
    table.remark("yours", "not started (step 1 of 9)");
    golden("table", &table.render(100));
}

#[test]
fn a_record_comes_back_as_it_was() {
    let verdicts = [
        Verdict::Passed(None),
        Verdict::Passed(Some("27 crash points".to_owned())),
        Verdict::Failed(Box::new(a_finding())),
        Verdict::NotStarted("step 3".to_owned()),
        Verdict::Inconclusive("why".to_owned()),
        Verdict::NotRun("why".to_owned()),
    ];
    for verdict in verdicts {
        let there = record(2, "charges_once_under_concurrency", verdict);
        let back: Record = serde_json::from_str(&serde_json::to_string(&there).unwrap()).unwrap();
        // Times have one decimal place on the way.
        let rounded = |mut record: Record| {
            for event in record
                .finding
                .iter_mut()
                .flat_map(|finding| &mut finding.history)
            {
                event.at =
                    Duration::from_micros((event.at.as_secs_f64() * 10_000.0).round() as u64 * 100);
            }
            record
        };
        assert_eq!(rounded(back), rounded(there));
    }
    assert_eq!(
        serde_json::to_string(&VerdictKind::NotStarted).unwrap(),
        "\"not_started\""
    );
}
