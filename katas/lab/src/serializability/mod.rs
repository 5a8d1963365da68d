//! Judges what concurrent transactions saw: is there an order in which they could have run one
//! after the other?
//!
//! To find such an order is hard in general. It is easy if every write says what it was put on top
//! of, and appending to lists does: a list that reads `1 2 3` tells that 1 was written before 2, by
//! whom, and that its reader came before whoever wrote 4. This is the idea of Elle (Kingsbury and
//! Alvaro, 2020); the anomalies are those of Adya (1999).
//!
//! From the lists follow three kinds of edges between committed transactions, each of which says
//! "must come before":
//!
//! | edge | the first | the second |
//! | --- | --- | --- |
//! | write-write | wrote a value | wrote the next one |
//! | write-read | wrote a value | read the list that ends with it |
//! | read-write | read a list | wrote the value that comes next |
//!
//! A circle of them is a proof that no order exists. Which kinds are in it names the anomaly.
//!
//! **What a finding is worth.** A finding is certain: it follows from what was read. No finding
//! means "serializable" only if every list is read once at the end, by a transaction that runs
//! alone: without it, values that nobody read have no place in any order, and nothing is concluded
//! from them. Time is not looked at: an answer from the past is serializable.
//!
//! **Transfers between accounts.** A balance is not a list: two different orders can make the same
//! number. From transfers whose answers show nothing but "done", only this follows: the sum of all
//! balances, that none is negative at any moment, and that each account ends with what the
//! transfers that count make of it. To judge the order, each write has to name the one that it
//! replaced: a version beside the balance does, raised by every write, and a transfer that read
//! version 7 and wrote 8 reads the list `1 … 7` and appends 8. [`from_versions`] makes that history.

mod cycles;
mod edges;
mod history;
mod lists;
mod versions;

#[cfg(test)]
mod tests;

pub use history::{End, Operation, Transaction};
pub use versions::{Touch, Transfer, from_versions};

use std::fmt;

/// What a finding is called. The first five are told by single reads, the others by a circle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Anomaly {
    /// A value was read that nobody wrote, or that is in a list twice, or was appended twice.
    Impossible,
    /// A transaction did not see what itself had written or read before.
    InternalInconsistency,
    /// Two reads of a list, neither of which is the beginning of the other.
    IncompatibleOrders,
    /// G1a, aborted read: a value of a transaction that was rolled back.
    AbortedRead,
    /// G1b, intermediate read: a value that its transaction wrote over afterwards.
    IntermediateRead,
    /// G0, dirty write: each of two wrote over the other.
    DirtyWrite,
    /// G1c, circular information flow: each saw what the other did.
    CircularInformationFlow,
    /// P4, lost update: two read the same and both wrote on top of it.
    LostUpdate,
    /// G-single, read skew: one saw half of what another did.
    ReadSkew,
    /// G2, write skew: each read what the other changed afterwards.
    WriteSkew,
}

impl Anomaly {
    /// Its name and, in brackets, its number in the literature.
    pub fn name(self) -> &'static str {
        match self {
            Self::Impossible => "impossible value",
            Self::InternalInconsistency => "internal inconsistency",
            Self::IncompatibleOrders => "incompatible orders",
            Self::AbortedRead => "aborted read (G1a)",
            Self::IntermediateRead => "intermediate read (G1b)",
            Self::DirtyWrite => "dirty write (G0)",
            Self::CircularInformationFlow => "circular information flow (G1c)",
            Self::LostUpdate => "lost update (P4)",
            Self::ReadSkew => "read skew (G-single)",
            Self::WriteSkew => "write skew (G2-item)",
        }
    }
}

/// Something that no serial order explains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is called.
    pub anomaly: Anomaly,
    /// What was seen, a line for each read or each edge of the circle.
    pub story: Vec<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.anomaly.name())?;
        for line in &self.story {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}

/// Everything in these transactions that no serial order explains, in the order of [`Anomaly`].
///
/// Of the circles in one knot of transactions (a strongly connected component) the gravest is
/// named, and of those a shortest: the others are mostly the same story again.
pub fn findings(transactions: &[Transaction]) -> Vec<Finding> {
    let lists = lists::Lists::of(transactions);
    let mut findings = lists.findings(transactions);
    // Edges between lists that contradict themselves would say anything.
    let edges = edges::edges(transactions, &lists);
    findings.extend(cycles::findings(transactions, &edges));
    findings.sort_by_key(|finding| finding.anomaly);
    findings
}
