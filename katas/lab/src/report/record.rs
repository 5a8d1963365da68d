//! Outcomes in the form in which they leave the process: `--json`, and the way from `env` to
//! `check --url`. One form for both, so that everything is rendered from the same values.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    runner::Outcome,
    verdict::{Finding, Verdict, VerdictKind},
};

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The step that the check belongs to, from 1.
    pub step: usize,
    /// The check.
    pub name: String,
    /// What came of it.
    pub verdict: VerdictKind,
    /// How long it took.
    pub seconds: f64,
    /// Passed: what was seen on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Not started, inconclusive, not run: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Failed: the evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<Finding>,
}

impl Record {
    /// The outcome of one check as a record.
    pub fn new(step: usize, name: &str, verdict: Verdict, took: Duration) -> Self {
        let kind = verdict.kind();
        let (mut note, mut reason, mut finding) = (None, None, None);
        match verdict {
            Verdict::Passed(said) => note = said,
            Verdict::Failed(found) => finding = Some(*found),
            Verdict::NotStarted(why) | Verdict::Inconclusive(why) | Verdict::NotRun(why) => {
                reason = Some(why);
            }
        }
        Self {
            step,
            name: name.to_owned(),
            verdict: kind,
            seconds: (took.as_secs_f64() * 1_000.0).round() / 1_000.0,
            note,
            reason,
            finding,
        }
    }
}

impl From<Outcome> for Record {
    fn from(outcome: Outcome) -> Self {
        Self::new(
            outcome.step,
            outcome.check.name,
            outcome.verdict,
            outcome.took,
        )
    }
}

/// What was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A variant that comes with the kata.
    Id(String),
    /// A command line.
    Command(String),
    /// The address of something that runs already.
    Url(String),
}

/// How many checks had which verdict.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The promise held.
    pub passed: usize,
    /// The promise was broken.
    pub failed: usize,
    /// The code says that it is not there yet.
    pub not_started: usize,
    /// The check could not do its own work.
    pub inconclusive: usize,
    /// The check was not tried.
    pub not_run: usize,
    /// How long all of it took.
    pub seconds: f64,
}

impl Summary {
    /// Counts verdicts.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>, took: Duration) -> Self {
        let mut summary = Summary {
            seconds: (took.as_secs_f64() * 1_000.0).round() / 1_000.0,
            ..Summary::default()
        };
        for record in records {
            *summary.count_mut(record.verdict) += 1;
        }
        summary
    }

    fn count_mut(&mut self, kind: VerdictKind) -> &mut usize {
        match kind {
            VerdictKind::Passed => &mut self.passed,
            VerdictKind::Failed => &mut self.failed,
            VerdictKind::NotStarted => &mut self.not_started,
            VerdictKind::Inconclusive => &mut self.inconclusive,
            VerdictKind::NotRun => &mut self.not_run,
        }
    }

    /// The exit code of `check`: 0 all passed, 1 something failed, 2 could not judge all of it,
    /// 3 nothing failed and something is not started.
    ///
    /// A failure outranks a check that could not judge: it is certain, and acting on it helps. Not
    /// started comes last, since a run that could not judge has not seen all there is.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self { failed: 1.., .. } => 1,
            Self {
                inconclusive: 1.., ..
            }
            | Self { not_run: 1.., .. } => 2,
            Self {
                not_started: 1.., ..
            } => 3,
            Self { passed: 0, .. } => 2,
            _ => 0,
        }
    }
}

/// What `check --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The package's name.
    pub kata: String,
    /// What was judged: `{"id": …}`, `{"command": …}` or `{"url": …}`.
    pub variant: Subject,
    /// The seed, for `--seed`.
    pub seed: u64,
    /// One for each check, in the order of the steps.
    pub checks: Vec<Record>,
    /// The counts.
    pub summary: Summary,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(kinds: &[VerdictKind]) -> Summary {
        let records: Vec<_> = kinds
            .iter()
            .map(|kind| Record {
                step: 1,
                name: "x".to_owned(),
                verdict: *kind,
                seconds: 0.0,
                note: None,
                reason: None,
                finding: None,
            })
            .collect();
        Summary::of(&records, Duration::ZERO)
    }

    #[test]
    fn the_exit_code_says_the_most_certain_thing() {
        use VerdictKind::*;
        let cases: [(&[VerdictKind], u8); 9] = [
            (&[Passed, Passed], 0),
            (&[Passed, Failed], 1),
            (&[Failed, Inconclusive, NotRun, NotStarted], 1),
            (&[Passed, Inconclusive], 2),
            (&[Passed, NotRun], 2),
            (&[NotStarted, Inconclusive], 2),
            (&[Passed, NotStarted], 3),
            (&[NotStarted], 3),
            (&[], 2),
        ];
        for (kinds, code) in cases {
            assert_eq!(summary(kinds).exit_code(), code, "{kinds:?}");
        }
    }
}
