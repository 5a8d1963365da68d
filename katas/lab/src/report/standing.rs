//! Where an exercise stands: one state for each step, from the verdicts of its checks.

use serde::{Deserialize, Serialize};

use super::{Record, bad, dim, good, warn};
use crate::verdict::VerdictKind;

/// The state of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// All its checks passed.
    Done,
    /// One failed.
    Failed,
    /// One is not started, and none failed.
    NotStarted,
    /// Its checks could not judge.
    Unclear,
}

/// The state of every step, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// One for each step.
    pub steps: Vec<StepState>,
}

impl Standing {
    /// What these outcomes say about a kata with so many steps.
    pub fn of(records: &[Record], steps: usize) -> Self {
        let state = |step: usize| {
            let kinds: Vec<_> = records
                .iter()
                .filter(|record| record.step == step)
                .map(|r| r.verdict)
                .collect();
            if kinds.contains(&VerdictKind::Failed) {
                StepState::Failed
            } else if kinds.contains(&VerdictKind::NotStarted) {
                StepState::NotStarted
            } else if !kinds.is_empty() && kinds.iter().all(|kind| *kind == VerdictKind::Passed) {
                StepState::Done
            } else {
                StepState::Unclear
            }
        };
        Self {
            steps: (1..=steps).map(state).collect(),
        }
    }

    /// How many steps are done.
    pub fn done(&self) -> usize {
        self.steps
            .iter()
            .filter(|state| **state == StepState::Done)
            .count()
    }

    /// The first step that is not done, from 1.
    pub fn next(&self) -> Option<usize> {
        self.steps
            .iter()
            .position(|state| *state != StepState::Done)
            .map(|index| index + 1)
    }

    /// Whether nothing was begun yet.
    pub fn untouched(&self) -> bool {
        self.steps
            .iter()
            .all(|state| *state == StepState::NotStarted)
    }

    /// A mark for each step: `●●✗○○`.
    pub fn marks(&self) -> String {
        let mark = |state: &StepState| match state {
            StepState::Done => good("●"),
            StepState::Failed => bad("✗"),
            StepState::NotStarted => dim("○"),
            StepState::Unclear => warn("?"),
        };
        self.steps.iter().map(mark).collect()
    }

    /// In words, for a table: `not started (step 1 of 9)`, `step 4 of 9 fails`, `done`.
    pub fn words(&self) -> String {
        let of = self.steps.len();
        match self.next().map(|step| (step, self.steps[step - 1])) {
            None => "done".to_owned(),
            Some((step, StepState::Failed)) => format!("step {step} of {of} fails"),
            Some((step, StepState::NotStarted)) => format!("not started (step {step} of {of})"),
            Some((step, _)) => format!("step {step} of {of} could not be judged"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::verdict::Verdict;

    #[test]
    fn a_step_is_done_only_when_all_its_checks_passed() {
        let record = |step, verdict| Record::new(step, "x", verdict, Duration::ZERO);
        let todo = || Verdict::NotStarted("todo".to_owned());
        let records = [
            record(1, Verdict::Passed(None)),
            record(1, Verdict::Passed(None)),
            record(2, Verdict::Passed(None)),
            record(2, todo()),
            record(3, Verdict::Passed(None)),
            record(3, Verdict::Inconclusive("x".to_owned())),
        ];
        let standing = Standing::of(&records, 4);
        use StepState::*;
        assert_eq!(standing.steps, [Done, NotStarted, Unclear, Unclear]);
        assert_eq!(standing.next(), Some(2));
        assert_eq!(standing.words(), "not started (step 2 of 4)");
    }
}
