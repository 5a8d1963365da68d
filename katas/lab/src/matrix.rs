//! The matrix: variants × checks, as measured. It is the proof that the checks can tell right from
//! wrong.

use std::sync::Arc;

use futures::{StreamExt, stream};

use crate::{
    implementation::Implementation,
    kata::{Check, Variant},
    report::Record,
    runner::Session,
    verdict::VerdictKind,
};

/// How many cells are under way at once. The session lets fewer of them work; the others wait for
/// their turn.
const UNDER_WAY: usize = 64;

/// A measured matrix.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// The checks with their steps, in the order of the columns.
    pub checks: Vec<(usize, &'static str)>,
    /// One for each variant.
    pub rows: Vec<Row>,
    /// How often each cell was measured.
    pub repeats: usize,
}

/// One variant.
#[derive(Debug, Clone)]
pub struct Row {
    /// The variant's id.
    pub id: &'static str,
    /// Its name with its kind.
    pub label: String,
    /// One for each check.
    pub cells: Vec<Cell>,
}

/// One check of one variant.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Whether it must fail; `None` for the exercise, which may do anything.
    pub must_fail: Option<bool>,
    /// The verdicts, in the order in which they came.
    pub verdicts: Vec<VerdictKind>,
    /// The one with the lowest seed that was not as declared, with that seed.
    pub surprise: Option<(u64, Record)>,
}

impl Cell {
    /// How many verdicts were not as declared.
    pub fn surprises(&self) -> usize {
        let surprising = |kind: &&VerdictKind| is_surprise(self.must_fail, **kind);
        self.verdicts.iter().filter(surprising).count()
    }
}

/// Whether a verdict is not what the variant's map declares. A check that could not judge, or was
/// not run, is a surprise too: it proves nothing.
pub fn is_surprise(must_fail: Option<bool>, verdict: VerdictKind) -> bool {
    match must_fail {
        None => false,
        Some(true) => verdict != VerdictKind::Failed,
        Some(false) => verdict != VerdictKind::Passed,
    }
}

impl Matrix {
    /// Measures these variants by these checks, `repeats` times with the seeds that follow the
    /// session's. `measured` is called for each cell as it is done.
    pub async fn measure(
        session: &Arc<Session>,
        variants: &[&Variant],
        checks: Vec<(usize, Check)>,
        repeats: usize,
        mut measured: impl FnMut(),
    ) -> Self {
        let mut matrix = Self::empty(&checks, variants, repeats);
        // Checks that measure time have the machine for themselves; last, they interrupt nobody.
        let (alone, others): (Vec<_>, Vec<_>) =
            (0..checks.len()).partition(|column| checks[*column].1.alone);
        let mut jobs = Vec::with_capacity(variants.len() * checks.len() * repeats);
        for columns in [others, alone] {
            for seed in (0..repeats as u64).map(|repeat| session.seed().wrapping_add(repeat)) {
                for row in 0..variants.len() {
                    jobs.extend(columns.iter().map(|column| (seed, row, *column)));
                }
            }
        }
        let implementations: Vec<_> = variants
            .iter()
            .map(|v| Implementation::in_process(v))
            .collect();
        let mut done = stream::iter(jobs)
            .map(|(seed, row, column)| {
                let (step, check) = checks[column].clone();
                let session = session.with_seed(seed);
                let implementation = implementations[row].clone();
                async move {
                    let outcome = session.check(&implementation, step, check).await;
                    (seed, row, column, Record::from(outcome))
                }
            })
            .buffer_unordered(UNDER_WAY);
        while let Some((seed, row, column, record)) = done.next().await {
            matrix.rows[row].cells[column].add(seed, record);
            measured();
        }
        drop(done);
        matrix
    }

    fn empty(checks: &[(usize, Check)], variants: &[&Variant], repeats: usize) -> Self {
        let checks: Vec<_> = checks
            .iter()
            .map(|(step, check)| (*step, check.name))
            .collect();
        let rows = variants.iter().map(|variant| Row {
            id: variant.id,
            label: variant.label(),
            cells: checks
                .iter()
                .map(|(_, check)| Cell::new(variant.must_fail(check)))
                .collect(),
        });
        Self {
            rows: rows.collect(),
            checks,
            repeats,
        }
    }

    /// How many cells are not as declared.
    pub fn surprises(&self) -> usize {
        let cells = self.rows.iter().flat_map(|row| &row.cells);
        cells.filter(|cell| cell.surprises() > 0).count()
    }

    /// How many verdicts there are, over all repeats.
    pub fn verdicts(&self) -> usize {
        let cells = self.rows.iter().flat_map(|row| &row.cells);
        cells.map(|cell| cell.verdicts.len()).sum()
    }
}

impl Cell {
    /// A cell that was not measured yet.
    pub fn new(must_fail: Option<bool>) -> Self {
        Self {
            must_fail,
            verdicts: Vec::new(),
            surprise: None,
        }
    }

    /// Adds one measurement.
    pub fn add(&mut self, seed: u64, record: Record) {
        self.verdicts.push(record.verdict);
        // They come in any order; the first seed is shown, so that the same run shows the same.
        let is_first = self
            .surprise
            .as_ref()
            .is_none_or(|(other, _)| seed < *other);
        if is_first && is_surprise(self.must_fail, record.verdict) {
            self.surprise = Some((seed, record));
        }
    }
}

/// What a surprise is, in one line: what was declared, and what came.
pub fn explain(must_fail: Option<bool>, record: &Record) -> String {
    let declared = match must_fail {
        Some(true) => "must fail",
        Some(false) => "must pass",
        None => "may do anything",
    };
    format!(
        "{} {declared}, and {}",
        record.name,
        match record.verdict {
            VerdictKind::Passed => "passed",
            VerdictKind::Failed => "failed",
            VerdictKind::NotStarted => "was not started",
            VerdictKind::Inconclusive => "was inconclusive",
            VerdictKind::NotRun => "was not run",
        }
    )
}
