//! The last lines that an instance wrote: shown when something goes wrong.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// How many lines are kept.
const KEPT: usize = 20;

/// Longer lines are cut: a program that prints a megabyte without a line break must not fill the
/// lab's memory or the learner's screen.
const LONGEST: usize = 500;

/// A ring of the last lines, shared by the instance and whoever drains it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Output(Arc<Mutex<VecDeque<String>>>);

impl Output {
    pub(crate) fn push(&self, line: &str) {
        let mut cut: String = line.trim_end().chars().take(LONGEST).collect();
        cut.retain(|c| !c.is_control() || c == '\t');
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(cut);
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines_and_no_control_characters() {
        let output = Output::default();
        for number in 0..30 {
            output.push(&format!("\u{1b}[31mline {number}\n"));
        }
        let lines = output.lines();
        assert_eq!(lines.len(), KEPT);
        assert_eq!(lines[0], "[31mline 10");
        assert_eq!(lines[KEPT - 1], "[31mline 29");
    }
}
