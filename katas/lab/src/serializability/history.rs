//! What was seen: transactions that append to lists and read them.

/// One thing that a transaction did to one list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Added a value at the end. No two appends to one list add the same value.
    Append {
        /// The list.
        key: String,
        /// What was added.
        value: u64,
    },
    /// Read all of a list.
    Read {
        /// The list.
        key: String,
        /// What was in it, in order.
        list: Vec<u64>,
    },
}

impl Operation {
    /// `append x 3`.
    pub fn append(key: impl Into<String>, value: u64) -> Self {
        Self::Append {
            key: key.into(),
            value,
        }
    }

    /// `read x → 1 2 3`.
    pub fn read(key: impl Into<String>, list: impl Into<Vec<u64>>) -> Self {
        Self::Read {
            key: key.into(),
            list: list.into(),
        }
    }
}

/// How a transaction ended, as its client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The server said so.
    Committed,
    /// The server refused it or it was rolled back: nobody may ever see what it wrote.
    Aborted,
    /// The answer to the commit was lost. Whether it counts is read off what others saw: if one of
    /// its values was read, it was committed.
    Unknown,
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// What it is called in the findings.
    pub name: String,
    /// What it did, in its own order. A read that was never answered is left out.
    pub operations: Vec<Operation>,
    /// How it ended.
    pub end: End,
}

impl Transaction {
    /// A transaction that was committed.
    pub fn committed(
        name: impl Into<String>,
        operations: impl IntoIterator<Item = Operation>,
    ) -> Self {
        Self {
            name: name.into(),
            operations: operations.into_iter().collect(),
            end: End::Committed,
        }
    }

    /// The same, with another end.
    #[must_use]
    pub fn ending(mut self, end: End) -> Self {
        self.end = end;
        self
    }
}
