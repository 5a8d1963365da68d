//! A finding: the evidence for a failed check, and where to go from it.

use super::{LONG, bad, dim, strong, text, timeline};
use crate::verdict::Finding;

/// The width of the words at the margin: `did`, `expected`, `saw`.
const MARGIN: usize = 12;

/// A failed check with what leads on from it.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The check.
    pub name: &'a str,
    /// What was found.
    pub finding: &'a Finding,
    /// A question that leads towards the mistake.
    pub think: &'a str,
    /// The command that shows it again.
    pub again: &'a str,
}

/// A finding as a person reads it.
pub fn finding(evidence: Evidence<'_>, columns: usize) -> String {
    let Evidence {
        name,
        finding,
        think,
        again,
    } = evidence;
    let mut out = format!("{} {}\n", bad("✗"), strong(name));
    out.push_str(&story(finding, LONG, columns));
    if !finding.output.is_empty() {
        let gap = if finding.history.is_empty() { "\n" } else { "" };
        out.push_str(&format!("{gap}{}\n", written(&finding.output, columns)));
    }
    if !think.is_empty() {
        out.push_str(&item("think", think, columns));
    }
    // Whole, however long it is: a command broken into lines cannot be pasted.
    out.push_str(&format!("{}{again}\n", text::pad("  again", MARGIN)));
    out
}

/// One of the words at the margin, and what it says.
pub(crate) fn item(heading: &str, body: &str, columns: usize) -> String {
    text::hang(&format!("  {heading}"), body, MARGIN, columns)
}

/// What was done, expected and seen, with which settings, and the history with at most `most` events.
pub(crate) fn story(finding: &Finding, most: usize, columns: usize) -> String {
    let mut out = item("did", &finding.did, columns);
    out.push_str(&item("expected", &finding.expected, columns));
    out.push_str(&item("saw", &finding.saw, columns));
    if !finding.settings.is_empty() {
        out.push_str(&item("with", &finding.settings.join(" · "), columns));
    }
    if !finding.history.is_empty() {
        let history = timeline(&finding.history, most, columns);
        out.push_str(&format!("\n{history}\n"));
    }
    out
}

/// The last lines of a program, set apart from our own words.
pub(crate) fn written(output: &[String], columns: usize) -> String {
    let mut out = format!("  {}\n", dim("the program wrote:"));
    for line in output {
        for part in text::wrap(line, columns.saturating_sub(6)) {
            out.push_str(format!("    {} {part}", dim("│")).trim_end());
            out.push('\n');
        }
    }
    out
}
