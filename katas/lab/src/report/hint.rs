//! A hint: one of the three stages of a step.

use super::{strong, text};
use crate::kata::Step;

/// What each stage is.
const STAGES: [&str; 3] = ["a question", "a pointer", "nearly the answer"];

/// One stage (from 0) of a step's hints, and how to get the next one.
pub fn hint(step: &Step, number: usize, stage: usize, again: &str, columns: usize) -> String {
    let stage = stage.min(STAGES.len() - 1);
    let mut out = text::hang(&format!("step {number}  "), step.title, 8, columns);
    out.push_str(&format!(
        "{}\n\n",
        strong(&format!("hint {} of 3, {}", stage + 1, STAGES[stage]))
    ));
    out.push_str(&text::hang("", step.hints[stage], 2, columns));
    if stage + 1 < STAGES.len() {
        out.push_str(&format!("\nmore    {again}\n"));
    }
    out
}
