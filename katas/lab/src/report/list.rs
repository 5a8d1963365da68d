//! The list of checks by step, printed line by line as they finish, and its summary.

use super::{Record, Summary, bad, dim, good, strong, text, warn};
use crate::verdict::VerdictKind;

/// The names' column, so that times stand below each other.
const NAMES: usize = 44;

/// A list that is printed as it grows: each line comes with the heading of its step if that has
/// not been shown.
#[derive(Debug, Clone)]
pub struct CheckList {
    titles: Vec<String>,
    names: usize,
    columns: usize,
    step: usize,
}

impl CheckList {
    /// A list for steps with these titles and checks with these names.
    pub fn new<'a>(
        titles: impl IntoIterator<Item = &'a str>,
        names: impl IntoIterator<Item = &'a str>,
        columns: usize,
    ) -> Self {
        let names = names.into_iter().map(text::width).max().unwrap_or_default();
        Self {
            titles: titles.into_iter().map(str::to_owned).collect(),
            names: names.max(NAMES),
            columns,
            step: 0,
        }
    }

    /// The next line.
    pub fn line(&mut self, record: &Record) -> String {
        let mut out = String::new();
        if record.step != self.step {
            self.step = record.step;
            let title = self
                .titles
                .get(record.step.wrapping_sub(1))
                .map(String::as_str);
            out.push_str(&text::hang(
                &format!(" {:>2}", record.step),
                title.unwrap_or_default(),
                5,
                self.columns,
            ));
        }
        let name = text::pad(&record.name, self.names);
        let mark = mark(record.verdict);
        match record.verdict {
            VerdictKind::Passed | VerdictKind::Failed => {
                let took = text::pad_left(&text::seconds(record.seconds), 7);
                let mut line = format!("     {mark} {name} {took}");
                if let Some(note) = &record.note {
                    let room = self.columns.saturating_sub(5 + 2 + self.names + 1 + 7 + 3);
                    let note = text::harmless(note);
                    match text::width(&note) <= room {
                        true => line.push_str(&format!("   {}", dim(&note))),
                        false => line.push_str(&format!("\n       {}", dim(&note))),
                    }
                }
                out.push_str(&line);
            }
            kind => out.push_str(&format!("     {mark} {name} {}", dim(&kind.to_string()))),
        }
        out.push('\n');
        out
    }
}

/// The mark of a verdict, coloured.
pub(super) fn mark(kind: VerdictKind) -> String {
    let mark = kind.mark().to_string();
    match kind {
        VerdictKind::Passed => good(&mark),
        VerdictKind::Failed => bad(&mark),
        VerdictKind::NotStarted => dim(&mark),
        VerdictKind::Inconclusive | VerdictKind::NotRun => warn(&mark),
    }
}

/// `2 passed, 1 failed, 10 not started · 3.4 s`
pub fn summary(summary: &Summary) -> String {
    let kinds = [
        (summary.passed, VerdictKind::Passed),
        (summary.failed, VerdictKind::Failed),
        (summary.not_started, VerdictKind::NotStarted),
        (summary.inconclusive, VerdictKind::Inconclusive),
        (summary.not_run, VerdictKind::NotRun),
    ];
    let said: Vec<_> = kinds
        .into_iter()
        .filter(|(number, kind)| *number > 0 || *kind == VerdictKind::Passed)
        .map(|(number, kind)| {
            let words = format!("{number} {kind}");
            match kind {
                VerdictKind::Failed => bad(&words),
                VerdictKind::Passed if number > 0 => good(&words),
                VerdictKind::Inconclusive => warn(&words),
                _ => words,
            }
        })
        .collect();
    format!(
        "{} {}\n",
        said.join(", "),
        dim(&format!("· {}", text::seconds(summary.seconds)))
    )
}

/// Why checks were inconclusive or not run, each reason once with the checks that gave it.
pub fn reasons(records: &[Record], columns: usize) -> String {
    let mut out = String::new();
    for kind in [VerdictKind::Inconclusive, VerdictKind::NotRun] {
        let mut said: Vec<(&str, Vec<&str>)> = Vec::new();
        for record in records.iter().filter(|record| record.verdict == kind) {
            let reason = record.reason.as_deref().unwrap_or("no reason was given");
            match said.iter_mut().find(|(other, _)| *other == reason) {
                Some((_, names)) => names.push(&record.name),
                None => said.push((reason, vec![&record.name])),
            }
        }
        for (reason, names) in said {
            out.push_str(&format!(
                "{} {}\n",
                mark(kind),
                strong(&format!("{kind}: {}", names.join(", ")))
            ));
            out.push_str(&text::hang("", reason, 2, columns));
            out.push('\n');
        }
    }
    out
}
