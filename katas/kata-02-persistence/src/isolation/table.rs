//! What was measured, as text: the matrix of all anomalies, and one cell as columns of sessions.

use kata_lab::report::text;

use super::{
    anomalies::ANOMALIES,
    cell::{Cell, Verdict},
    engine::Seen,
    script::{Anomaly, Script},
    server::{LabError, Level, Server},
    session::Answer,
};

/// Between two columns.
const GAP: usize = 2;

/// Every anomaly at every level.
#[derive(Debug)]
pub struct Matrix {
    /// The levels, in the order of the columns.
    pub levels: Vec<Level>,
    /// For each anomaly the words of its cells.
    pub rows: Vec<(&'static Anomaly, Vec<String>)>,
}

impl Matrix {
    /// Measures all cells; `done` is called after each.
    ///
    /// # Errors
    /// [`LabError`].
    pub async fn measure(server: &Server, done: impl Fn()) -> Result<Self, LabError> {
        let levels = server.levels().to_vec();
        let mut rows = Vec::new();
        for anomaly in ANOMALIES {
            let mut cells = Vec::new();
            for level in &levels {
                cells.push(Cell::measure(server, anomaly, *level).await?.word());
                done();
            }
            rows.push((anomaly, cells));
        }
        Ok(Self { levels, rows })
    }

    /// The cell of an anomaly, by its id.
    pub fn word(&self, anomaly: &str, level: Level) -> Option<&str> {
        let column = self.levels.iter().position(|known| *known == level)?;
        let row = self.rows.iter().find(|(known, _)| known.id == anomaly)?;
        row.1.get(column).map(String::as_str)
    }

    /// As text, with a legend of the words that occur.
    pub fn render(&self, columns: usize) -> String {
        let headings: Vec<[&str; 2]> = self
            .levels
            .iter()
            .map(|level| match level.name().split_once(' ') {
                Some((first, second)) => [first, second],
                None => ["", level.name()],
            })
            .collect();
        let widths: Vec<usize> = headings
            .iter()
            .enumerate()
            .map(|(column, heading)| {
                let cells = self.rows.iter().filter_map(|(_, cells)| cells.get(column));
                let words = cells.map(String::as_str).chain(*heading);
                words.map(text::width).max().unwrap_or_default()
            })
            .collect();
        // Where there is no room for both, the name that one types stays.
        let needed = |names: usize| 2 + names + widths.iter().map(|w| GAP + w).sum::<usize>();
        let named = |coded: bool| {
            let name = move |anomaly: &Anomaly| match coded {
                true => format!("{:<10}{}", anomaly.code, anomaly.id),
                false => anomaly.id.to_owned(),
            };
            let names = self.rows.iter().map(|(anomaly, _)| name(anomaly));
            names.collect::<Vec<_>>()
        };
        let widest = |names: &[String]| names.iter().map(|name| text::width(name)).max();
        let with_codes = named(true);
        let fits = needed(widest(&with_codes).unwrap_or_default()) <= columns;
        let names = if fits { with_codes } else { named(false) };
        let first_width = widest(&names).unwrap_or_default();
        let indent = if needed(first_width) <= columns {
            "  "
        } else {
            " "
        };
        let line = |first: &str, words: &[&str]| {
            let mut line = format!("{indent}{}", text::pad(first, first_width));
            for (word, width) in words.iter().zip(&widths) {
                line.push_str(&format!("{}{}", " ".repeat(GAP), text::pad(word, *width)));
            }
            format!("{}\n", line.trim_end())
        };
        let mut out = String::new();
        for half in 0..2 {
            let words: Vec<_> = headings.iter().map(|heading| heading[half]).collect();
            out.push_str(&line("", &words));
        }
        for (name, (_, cells)) in names.iter().zip(&self.rows) {
            let cells: Vec<_> = cells.iter().map(String::as_str).collect();
            out.push_str(&line(name, &cells));
        }
        out.push('\n');
        for (word, meaning) in self.legend() {
            out.push_str(&text::hang(&format!("  {word}"), meaning, 14, columns));
        }
        out
    }

    fn legend(&self) -> Vec<(&str, &'static str)> {
        let mut words: Vec<_> = self.rows.iter().flat_map(|(_, cells)| cells).collect();
        words.sort();
        words.dedup();
        let known = words.into_iter().map(|word| (word.as_str(), meaning(word)));
        known.collect()
    }
}

fn meaning(word: &str) -> &'static str {
    match word {
        "happens" => "it happened, before our eyes",
        "by a write" => {
            "plain reads show one state and are safe; a write finds its rows in a newer one"
        }
        "by a read" => "only a read shows it",
        "waits" => "a statement had to wait for the other transaction, and then all was well",
        "hidden" => "nobody waited and nobody was refused: the reads showed an older state",
        "40001" => "a transaction was refused as not serializable; the program has to try again",
        "40P01" | "40001/1213" => "a deadlock: one transaction was refused and has to try again",
        "HY000/1020" => "refused: the row has changed since the snapshot; try again",
        _ => "a transaction was refused with this code",
    }
}

/// One cell: for each script who did what, and what came of it.
pub fn cell(anomaly: &Anomaly, level: Level, cell: &Cell, columns: usize) -> String {
    let mut out = String::new();
    for (script, run, verdict) in &cell.runs {
        let way = match script.way {
            "" => String::new(),
            way => format!(", {way}"),
        };
        let head = format!(
            "{} {}{way}, under {}",
            anomaly.code,
            anomaly.id,
            level.name()
        );
        out.push_str(&format!("{head}\n\n"));
        out.push_str(&script_columns(script, &run.events, columns));
        out.push_str(&format!("\n  in the end  {}\n", run.ends));
        let said = match verdict {
            Verdict::Happens => "It happens.".to_owned(),
            Verdict::Refused(code) => {
                format!("Prevented: one was refused with {code}, and has to try again.")
            }
            Verdict::Waits => {
                "Prevented: a statement had to wait for the other transaction.".to_owned()
            }
            Verdict::Hidden => {
                "Prevented: nobody waited, and the reads showed an older state.".to_owned()
            }
        };
        out.push_str(&format!("  {said}\n\n"));
    }
    out
}

fn script_columns(script: &Script, events: &[super::engine::Event], columns: usize) -> String {
    let sessions = script.sessions();
    let width = (columns.saturating_sub(2) / sessions.max(1)).saturating_sub(GAP);
    let column = |by: usize, line: &str| format!("  {}{line}", " ".repeat(by * (width + GAP)));
    let mut heads = String::from("  ");
    for by in 0..sessions {
        heads.push_str(&text::pad(&format!("T{}", by + 1), width + GAP));
    }
    let mut out = format!("{}\n", heads.trim_end());
    for event in events {
        let step = &script.steps[event.step];
        let (sql, saw) = match &event.seen {
            Seen::Answered(answer) => (Some(step.sql), shown(answer)),
            Seen::Waits => (Some(step.sql), "waits …".to_owned()),
            Seen::GoesOn(answer) => (None, format!("goes on: {}", shown(answer))),
        };
        let quiet = saw == "done" && sql.is_some();
        for line in sql.iter().flat_map(|sql| text::wrap(sql, width)) {
            out.push_str(&format!("{}\n", column(step.by, &line)));
        }
        if quiet {
            continue;
        }
        for (index, line) in text::wrap(&saw, width.saturating_sub(4)).iter().enumerate() {
            let mark = if index == 0 { "  → " } else { "    " };
            out.push_str(&format!("{}\n", column(step.by, &format!("{mark}{line}"))));
        }
    }
    out
}

fn shown(answer: &Answer) -> String {
    match answer {
        Answer::Rows(rows) if rows == "none" => "no row".to_owned(),
        other => other.text(),
    }
}
