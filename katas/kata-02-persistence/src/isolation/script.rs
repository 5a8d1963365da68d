//! What a script is made of: steps that sessions take in turn, and what shows that it happened.

/// A named way in which transactions that run at the same time go wrong.
#[derive(Debug)]
pub struct Anomaly {
    /// How it is named on the command line: `write-skew`.
    pub id: &'static str,
    /// Its name in the literature: `G2-item`.
    pub code: &'static str,
    /// What it is, in one sentence.
    pub about: &'static str,
    /// One way to bring it about, or two: by a plain read, and by a write that looks for its rows.
    pub scripts: &'static [Script],
}

/// Who does what, in which order.
#[derive(Debug)]
pub struct Script {
    /// How the ways differ, if there is more than one.
    pub way: &'static str,
    /// The steps. A session that waits takes its next one when it goes on.
    pub steps: &'static [Step],
    /// It happened if all of one of these hold.
    pub happened: &'static [&'static [Evidence]],
}

/// One statement of one session.
#[derive(Debug)]
pub struct Step {
    /// The session, from 0.
    pub by: usize,
    /// The same in both dialects.
    pub sql: &'static str,
}

/// Something that was seen.
#[derive(Debug)]
pub enum Evidence {
    /// The step with this index showed these rows.
    Saw(usize, &'static str),
    /// This session was committed.
    Committed(usize),
    /// These are the rows in the end.
    Ends(&'static str),
}

/// A step of the first session.
pub(super) const fn t1(sql: &'static str) -> Step {
    Step { by: 0, sql }
}

/// A step of the second session.
pub(super) const fn t2(sql: &'static str) -> Step {
    Step { by: 1, sql }
}

/// A step of the third session.
pub(super) const fn t3(sql: &'static str) -> Step {
    Step { by: 2, sql }
}

impl Script {
    /// How many sessions it takes.
    pub fn sessions(&self) -> usize {
        self.steps.iter().map(|step| step.by + 1).max().unwrap_or(0)
    }
}
