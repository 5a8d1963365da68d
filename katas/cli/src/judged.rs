//! What a kata said about its exercise when it was asked for JSON.

use std::process::{Command, Stdio};

use kata_lab::{
    VerdictKind,
    report::{Record, Report, Standing},
};
use serde::Deserialize;

/// One kata's answer.
#[derive(Debug)]
pub(crate) struct Judged {
    /// The package.
    pub(crate) kata: String,
    /// The verdicts, or why there are none.
    pub(crate) said: Result<Report, String>,
}

/// What a kata prints instead of a report.
#[derive(Debug, Deserialize)]
struct Refusal {
    error: String,
}

impl Judged {
    /// Asks it. What the compiler says goes to our standard error.
    pub(crate) fn from_run(kata: &str, command: &mut Command) -> Self {
        let ran = command
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output();
        let said = match ran {
            Ok(output) => read(&output.stdout).map_err(|why| match output.status.code() {
                // Cargo's own code: it has said on standard error what is wrong.
                Some(101) => "does not build".to_owned(),
                _ => why,
            }),
            Err(error) => Err(format!("cannot be started: {error}")),
        };
        Self {
            kata: kata.to_owned(),
            said,
        }
    }

    /// The state of each step; none if it could not be judged.
    pub(crate) fn standing(&self) -> Standing {
        match &self.said {
            Ok(report) => {
                let steps = report.checks.iter().map(|check| check.step).max();
                Standing::of(&report.checks, steps.unwrap_or_default())
            }
            Err(_) => Standing::default(),
        }
    }

    /// The first check of the first step that is not done, the telling one first.
    pub(crate) fn next(&self) -> Option<&Record> {
        let report = self.said.as_ref().ok()?;
        let step = self.standing().next()?;
        let of = |kind| {
            let mut checks = report.checks.iter();
            checks.find(move |check| check.step == step && check.verdict == kind)
        };
        of(VerdictKind::Failed)
            .or_else(|| of(VerdictKind::NotStarted))
            .or_else(|| of(VerdictKind::Inconclusive))
            .or_else(|| of(VerdictKind::NotRun))
    }
}

fn read(stdout: &[u8]) -> Result<Report, String> {
    serde_json::from_slice(stdout).map_err(|error| {
        match serde_json::from_slice::<Refusal>(stdout) {
            Ok(refusal) => refusal.error,
            Err(_) => format!("its answer cannot be read: {error}"),
        }
    })
}

/// The code for all of them together, by the same order as for one: a failure is certain, what
/// could not be judged may hide one, and only then does it count that something is not started.
pub(crate) fn exit_code(judged: &[Judged]) -> u8 {
    let codes: Vec<_> = judged
        .iter()
        .map(|one| {
            one.said
                .as_ref()
                .map_or(2, |report| report.summary.exit_code())
        })
        .collect();
    let first = [1, 2, 3].into_iter().find(|code| codes.contains(code));
    // Nothing judged is no success.
    first.unwrap_or(if codes.is_empty() { 2 } else { 0 })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report as a kata prints it; `verdicts` are the step, the name and the verdict.
    pub(crate) fn judged(kata: &str, verdicts: &[(usize, &str, &str)]) -> Judged {
        let count = |wanted: &str| verdicts.iter().filter(|(.., kind)| *kind == wanted).count();
        let checks: Vec<_> = verdicts
            .iter()
            .map(|(step, name, kind)| {
                let mut check = serde_json::json!({
                    "step": step, "name": name, "verdict": kind, "seconds": 0.1,
                });
                match *kind {
                    "failed" => {
                        check["finding"] = serde_json::json!({
                            "did": "50 × POST /pay", "expected": "1 charge",
                            "saw": "2 charges (ch_1, ch_2)",
                            "settings": [], "history": [], "output": [],
                        });
                    }
                    "not_started" => check["reason"] = "step 1: claim".into(),
                    "inconclusive" => check["reason"] = "the fault never happened".into(),
                    _ => {}
                }
                check
            })
            .collect();
        let report = serde_json::json!({
            "kata": kata,
            "variant": { "id": "exercise" },
            "seed": 7,
            "checks": checks,
            "summary": {
                "passed": count("passed"), "failed": count("failed"),
                "not_started": count("not_started"), "inconclusive": count("inconclusive"),
                "not_run": count("not_run"), "seconds": 1.5,
            },
        });
        Judged {
            kata: kata.to_owned(),
            said: read(report.to_string().as_bytes()),
        }
    }

    pub(crate) fn refused(kata: &str, why: &str) -> Judged {
        let said = serde_json::json!({ "kata": kata, "error": why });
        Judged {
            kata: kata.to_owned(),
            said: read(said.to_string().as_bytes()),
        }
    }

    #[test]
    fn the_code_for_all_says_the_most_certain_thing() {
        let done = || judged("kata-00-a", &[(1, "a", "passed")]);
        let failed = || judged("kata-01-b", &[(1, "a", "failed")]);
        let open = || judged("kata-02-c", &[(1, "a", "not_started")]);
        let unclear = || refused("kata-03-d", "no PostgreSQL");
        assert_eq!(exit_code(&[done(), done()]), 0);
        assert_eq!(exit_code(&[done(), open()]), 3);
        assert_eq!(exit_code(&[open(), unclear()]), 2);
        assert_eq!(exit_code(&[unclear(), open(), failed()]), 1);
        assert_eq!(exit_code(&[]), 2);
    }

    #[test]
    fn what_cannot_be_read_says_so() {
        assert_eq!(
            read(br#"{"error": "no PostgreSQL"}"#).unwrap_err(),
            "no PostgreSQL"
        );
        assert!(
            read(b"")
                .unwrap_err()
                .starts_with("its answer cannot be read")
        );
    }

    #[test]
    fn next_is_the_failure_of_the_first_step_that_is_not_done() {
        let judged = judged(
            "kata-04-idempotency",
            &[
                (1, "a", "passed"),
                (2, "b", "not_started"),
                (2, "c", "failed"),
                (3, "d", "failed"),
            ],
        );
        assert_eq!(judged.next().unwrap().name, "c");
        assert_eq!(judged.standing().done(), 1);
    }
}
