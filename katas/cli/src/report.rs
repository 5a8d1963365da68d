//! Every check of every exercise, for whoever has to grade them or feed them to another program.

use kata_lab::{VerdictKind, report::text};
use serde_json::{Value, json};

use crate::judged::{Judged, exit_code};

/// One object: each kata's own report as `check --json` printed it, and the sums.
pub(crate) fn as_json(judged: &[Judged]) -> Value {
    let katas: Vec<_> = judged
        .iter()
        .map(|one| match &one.said {
            Ok(report) => {
                let standing = one.standing();
                let mut kata = json!(report);
                kata["steps_done"] = standing.done().into();
                kata["steps"] = json!(standing.steps);
                kata["exit_code"] = report.summary.exit_code().into();
                kata
            }
            Err(why) => json!({ "kata": one.kata, "error": why, "exit_code": 2 }),
        })
        .collect();
    json!({ "katas": katas, "exit_code": exit_code(judged) })
}

/// The same for people.
pub(crate) fn as_text(judged: &[Judged], columns: usize) -> String {
    let mut out = String::new();
    for one in judged {
        let report = match &one.said {
            Ok(report) => report,
            Err(why) => {
                out.push_str(&format!("{}   could not be judged\n", one.kata));
                for line in why.lines() {
                    out.push_str(&format!("  {}\n", text::harmless(line)));
                }
                out.push('\n');
                continue;
            }
        };
        let standing = one.standing();
        out.push_str(&format!(
            "{}   {}   {} of {}, {} of {}\n",
            one.kata,
            standing.marks(),
            standing.done(),
            text::plural(standing.steps.len(), "step"),
            report.summary.passed,
            text::plural(report.checks.len(), "check"),
        ));
        let mut step = 0;
        for check in &report.checks {
            let number = if check.step == step {
                String::new()
            } else {
                check.step.to_string()
            };
            step = check.step;
            let why = match (&check.finding, &check.reason) {
                (Some(finding), _) => finding.saw.as_str(),
                // The mark says it already.
                (None, Some(_)) if check.verdict == VerdictKind::NotStarted => "",
                (None, Some(reason)) => reason.as_str(),
                (None, None) => "",
            };
            let why = text::harmless(why.lines().next().unwrap_or_default());
            let line = format!(
                "  {number:>2}  {} {:<36}  {why}",
                check.verdict.mark(),
                check.name
            );
            out.push_str(&format!("{}\n", text::cut(line.trim_end(), columns)));
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judged::tests::{judged, refused};

    fn all() -> [Judged; 2] {
        [
            judged(
                "kata-04-idempotency",
                &[
                    (1, "requires_a_key", "passed"),
                    (1, "shows_the_payment", "passed"),
                    (2, "once", "failed"),
                    (3, "x", "not_started"),
                ],
            ),
            refused("kata-05-sagas", "no PostgreSQL"),
        ]
    }

    #[test]
    fn the_report_names_every_check() {
        let screen = kata_lab::report::Screen::memory(100);
        screen.print(&as_text(&all(), 100));
        assert_eq!(
            screen.printed(),
            "kata-04-idempotency   ●✗○   1 of 3 steps, 2 of 4 checks
   1  ✓ requires_a_key
      ✓ shows_the_payment
   2  ✗ once                                  2 charges (ch_1, ch_2)
   3  ○ x

kata-05-sagas   could not be judged
  no PostgreSQL

"
        );
    }

    #[test]
    fn the_report_as_json_holds_each_kata_as_it_was_said() {
        let said = as_json(&all());
        assert_eq!(said["exit_code"], 1);
        assert_eq!(said["katas"][0]["seed"], 7);
        assert_eq!(
            said["katas"][0]["steps"],
            json!(["done", "failed", "not_started"])
        );
        assert_eq!(
            said["katas"][0]["checks"][2]["finding"]["saw"],
            "2 charges (ch_1, ch_2)"
        );
        assert_eq!(said["katas"][1]["error"], "no PostgreSQL");
        assert_eq!(said["katas"][1]["exit_code"], 2);
    }
}
