//! The table of all katas: one line each, with what comes next.

use kata_lab::{
    VerdictKind,
    report::{Record, text},
};

use crate::{
    judged::Judged,
    katas::{number, title},
};

/// Between two columns.
const GAP: &str = "   ";

/// One line of the table. `marks` carries colour, which has no width.
struct Row {
    phase: String,
    marks: String,
    marks_width: usize,
    done: String,
    next: String,
}

/// The table, and a line that says how far it is and where to go on.
pub(crate) fn overview(judged: &[Judged], columns: usize) -> String {
    let mut rows = vec![Row {
        phase: "phase".to_owned(),
        marks: "steps".to_owned(),
        marks_width: 5,
        done: String::new(),
        next: "next".to_owned(),
    }];
    rows.extend(judged.iter().map(row));
    let widest = |width: fn(&Row) -> usize| rows.iter().map(width).max().unwrap_or_default();
    let phase = widest(|row| text::width(&row.phase));
    let marks = widest(|row| row.marks_width);
    let done = widest(|row| text::width(&row.done));
    let used = 2 + phase + marks + done + 3 * GAP.len();
    let mut out = String::new();
    for row in &rows {
        let line = [
            text::pad(&row.phase, phase),
            format!("{}{}", row.marks, " ".repeat(marks - row.marks_width)),
            text::pad(&row.done, done),
            text::cut(&row.next, columns.saturating_sub(used).max(20)),
        ];
        out.push_str(&format!("  {}\n", line.join(GAP).trim_end()));
    }
    let standings: Vec<_> = judged.iter().map(Judged::standing).collect();
    let done: usize = standings.iter().map(|standing| standing.done()).sum();
    let steps: usize = standings.iter().map(|standing| standing.steps.len()).sum();
    let first = judged.iter().find(|one| one.next().is_some());
    let on = first
        .and_then(|one| number(&one.kata))
        .map(|number| format!(" · cargo kata {number} · cargo kata {number} check --watch"));
    out.push_str(&format!(
        "\n  {done} of {}{}\n",
        text::plural(steps, "step"),
        on.unwrap_or_default()
    ));
    out
}

fn row(judged: &Judged) -> Row {
    let phase = match number(&judged.kata) {
        Some(number) => format!("{number} {}", title(&judged.kata)),
        None => judged.kata.clone(),
    };
    if let Err(why) = &judged.said {
        let why = why.lines().next().unwrap_or_default();
        return Row {
            phase,
            marks: "?".to_owned(),
            marks_width: 1,
            done: String::new(),
            next: text::harmless(why),
        };
    }
    let standing = judged.standing();
    let count = format!("{} of {}", standing.done(), standing.steps.len());
    let (done, next) = match judged.next() {
        None => ("done".to_owned(), String::new()),
        Some(_) if standing.untouched() => ("not started".to_owned(), String::new()),
        Some(record) => (count, next(record)),
    };
    Row {
        phase,
        marks: standing.marks(),
        marks_width: standing.steps.len(),
        done,
        next,
    }
}

/// The step, its check, and what it saw.
fn next(record: &Record) -> String {
    let saw = match (record.verdict, &record.finding, &record.reason) {
        (VerdictKind::Failed, Some(finding), _) => finding.saw.as_str(),
        (VerdictKind::Inconclusive | VerdictKind::NotRun, _, Some(why)) => why.as_str(),
        _ => "not started",
    };
    let saw = saw.lines().next().unwrap_or_default();
    format!(
        "step {}, {}: {}",
        record.step,
        record.name,
        text::harmless(saw)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judged::tests::{judged, refused};

    fn plain(text: &str) -> String {
        let screen = kata_lab::report::Screen::memory(100);
        screen.print(text);
        screen.printed()
    }

    #[test]
    fn the_table_shows_where_each_kata_stands_and_what_is_next() {
        let all = [
            judged(
                "kata-00-fundamentals",
                &[(1, "a", "passed"), (2, "b", "passed")],
            ),
            judged(
                "kata-01-concurrency",
                &[
                    (1, "a", "passed"),
                    (2, "sells_what_there_is", "failed"),
                    (3, "c", "not_started"),
                ],
            ),
            judged(
                "kata-02-persistence",
                &[(1, "a", "not_started"), (2, "b", "not_started")],
            ),
            judged("kata-03-messaging", &[(1, "keeps_order", "inconclusive")]),
            refused(
                "kata-04-idempotency",
                "no PostgreSQL server on this machine\nInstall one: …",
            ),
        ];
        assert_eq!(
            plain(&overview(&all, 100)),
            "  phase            steps                 next
  0 fundamentals   ●●      done
  1 concurrency    ●✗○     1 of 3        step 2, sells_what_there_is: 2 charges (ch_1, ch_2)
  2 persistence    ○○      not started
  3 messaging      ?       0 of 1        step 1, keeps_order: the fault never happened
  4 idempotency    ?                     no PostgreSQL server on this machine

  3 of 8 steps · cargo kata 1 · cargo kata 1 check --watch
"
        );
    }

    #[test]
    fn a_narrow_window_cuts_the_last_column() {
        let all = [judged(
            "kata-01-concurrency",
            &[(1, "sells_what_there_is", "failed")],
        )];
        let shown = plain(&overview(&all, 60));
        assert!(shown.lines().all(|line| text::width(line) <= 60), "{shown}");
        assert!(shown.contains('…'), "{shown}");
    }

    #[test]
    fn without_a_kata_there_is_an_empty_table() {
        assert!(plain(&overview(&[], 80)).contains("0 of 0 steps"));
    }
}
