//! The order of each list's values, and what single reads already give away.

use std::collections::{HashMap, HashSet};

use super::{Anomaly, End, Finding, Operation, Transaction};

/// Who wrote what, and in which order.
pub(super) struct Lists<'a> {
    /// Who appended a value to a list, and at which of its operations.
    pub(super) writers: HashMap<(&'a str, u64), (usize, usize)>,
    /// For each list the longest read, of which all others are a beginning.
    pub(super) orders: HashMap<&'a str, &'a [u64]>,
    /// Whether a transaction counts: committed, or of unknown end and seen by somebody.
    pub(super) counts: Vec<bool>,
    mistakes: Vec<Finding>,
}

/// All reads of transactions that are known to be committed.
pub(super) fn reads(
    transactions: &[Transaction],
) -> impl Iterator<Item = (usize, usize, &str, &[u64])> {
    let committed = |(_, t): &(usize, &Transaction)| t.end == End::Committed;
    let numbered = transactions.iter().enumerate().filter(committed);
    numbered.flat_map(|(index, transaction)| {
        let operations = transaction.operations.iter().enumerate();
        operations.filter_map(move |(at, operation)| match operation {
            Operation::Read { key, list } => Some((index, at, key.as_str(), list.as_slice())),
            Operation::Append { .. } => None,
        })
    })
}

/// Numbers with blanks between them, or a word for none.
pub(super) fn shown(list: &[u64]) -> String {
    match list {
        [] => "nothing".to_owned(),
        list => list
            .iter()
            .map(u64::to_string)
            .collect::<Vec<_>>()
            .join(" "),
    }
}

/// The same, but of a long list only its end: where it stops is what an edge is about.
pub(super) fn ending(list: &[u64]) -> String {
    const SHOWN: usize = 4;
    match list.len().checked_sub(SHOWN) {
        Some(left_out @ 2..) => format!("… {}", shown(&list[left_out..])),
        _ => shown(list),
    }
}

impl<'a> Lists<'a> {
    pub(super) fn of(transactions: &'a [Transaction]) -> Self {
        let mut lists = Self {
            writers: HashMap::new(),
            orders: HashMap::new(),
            counts: transactions
                .iter()
                .map(|t| t.end == End::Committed)
                .collect(),
            mistakes: Vec::new(),
        };
        lists.note_writers(transactions);
        lists.note_orders(transactions);
        for (key, order) in &lists.orders {
            for value in *order {
                if let Some((writer, _)) = lists.writers.get(&(*key, *value))
                    && transactions[*writer].end == End::Unknown
                {
                    lists.counts[*writer] = true;
                }
            }
        }
        lists
    }

    fn mistake(&mut self, anomaly: Anomaly, story: impl IntoIterator<Item = String>) {
        self.mistakes.push(Finding {
            anomaly,
            story: story.into_iter().collect(),
        });
    }

    fn note_writers(&mut self, transactions: &'a [Transaction]) {
        for (index, transaction) in transactions.iter().enumerate() {
            for (at, operation) in transaction.operations.iter().enumerate() {
                let Operation::Append { key, value } = operation else {
                    continue;
                };
                let before = self.writers.insert((key, *value), (index, at));
                if before.is_some() {
                    let said = format!("{value} was appended to {key} twice");
                    self.mistake(Anomaly::Impossible, [said]);
                }
            }
        }
    }

    fn note_orders(&mut self, transactions: &'a [Transaction]) {
        let mut longest: HashMap<&str, (usize, &[u64])> = HashMap::new();
        for (reader, at, key, list) in reads(transactions) {
            let name = &transactions[reader].name;
            let distinct: HashSet<_> = list.iter().collect();
            if distinct.len() < list.len() {
                let said = format!("{name} read {key} as {}: a value twice", shown(list));
                self.mistake(Anomaly::Impossible, [said]);
                continue;
            }
            let unknown = list
                .iter()
                .find(|v| !self.writers.contains_key(&(key, **v)));
            if let Some(value) = unknown {
                let said = format!("{name} read {value} in {key}, which nobody appended");
                self.mistake(Anomaly::Impossible, [said]);
                continue;
            }
            // A read that contradicts its own transaction says nothing about the others.
            if own_from(&transactions[reader], at, key, list).is_none() {
                continue;
            }
            match longest.get(key).copied() {
                Some((other, order)) if !agree(order, list) => {
                    let other = &transactions[other].name;
                    let story = [
                        format!("{other} read {key} as {}", shown(order)),
                        format!("{name} read {key} as {}", shown(list)),
                    ];
                    self.mistake(Anomaly::IncompatibleOrders, story);
                }
                Some((_, order)) if order.len() >= list.len() => {}
                _ => {
                    longest.insert(key, (reader, list));
                }
            }
        }
        self.orders = longest
            .into_iter()
            .map(|(key, (_, order))| (key, order))
            .collect();
    }

    /// What single reads give away.
    pub(super) fn findings(&self, transactions: &[Transaction]) -> Vec<Finding> {
        let mut findings = self.mistakes.clone();
        for (reader, at, key, list) in reads(transactions) {
            let transaction = &transactions[reader];
            let read = format!("{} read {key} as {}", transaction.name, shown(list));
            if let Some(expected) = inconsistent(transaction, at, key, list) {
                findings.push(Finding {
                    anomaly: Anomaly::InternalInconsistency,
                    story: vec![read.clone(), expected],
                });
            }
            for value in list {
                let Some((writer, _)) = self.writers.get(&(key, *value)) else {
                    continue;
                };
                if *writer != reader && transactions[*writer].end == End::Aborted {
                    let of = &transactions[*writer].name;
                    findings.push(Finding {
                        anomaly: Anomaly::AbortedRead,
                        story: vec![
                            read.clone(),
                            format!("{value} is of {of}, which was rolled back"),
                        ],
                    });
                }
            }
            findings.extend(self.intermediate(transactions, reader, at, key, list, &read));
        }
        findings
    }

    /// Whether the last value by somebody else is one that they appended to again.
    fn intermediate(
        &self,
        transactions: &[Transaction],
        reader: usize,
        at: usize,
        key: &str,
        list: &[u64],
        read: &str,
    ) -> Option<Finding> {
        let last = *external(&transactions[reader], at, key, list).last()?;
        let (writer, wrote_at) = *self.writers.get(&(key, last))?;
        if writer == reader || transactions[writer].end == End::Aborted {
            return None;
        }
        let later = transactions[writer].operations[wrote_at + 1..].iter();
        let mut later = later.filter_map(|operation| match operation {
            Operation::Append { key: k, value } if k == key => Some(*value),
            _ => None,
        });
        let next = later.next()?;
        let of = &transactions[writer].name;
        Some(Finding {
            anomaly: Anomaly::IntermediateRead,
            story: vec![
                read.to_owned(),
                format!("{of} appended {last} and, in the same transaction, {next}"),
            ],
        })
    }
}

/// Whether one is the beginning of the other.
pub(super) fn agree(a: &[u64], b: &[u64]) -> bool {
    let common = a.len().min(b.len());
    a[..common] == b[..common]
}

/// What a transaction had appended to a list before one of its operations.
fn own(transaction: &Transaction, before: usize, key: &str) -> Vec<u64> {
    let operations = transaction.operations[..before].iter();
    let appended = operations.filter_map(|operation| match operation {
        Operation::Append { key: k, value } if k == key => Some(*value),
        _ => None,
    });
    appended.collect()
}

/// Where in the list its own values begin, if they are at its end as they must be.
fn own_from(transaction: &Transaction, at: usize, key: &str, list: &[u64]) -> Option<usize> {
    let own = own(transaction, at, key);
    list.ends_with(&own).then(|| list.len() - own.len())
}

/// What a read saw of others: the list without the values of its own at the end.
pub(super) fn external<'a>(
    transaction: &Transaction,
    at: usize,
    key: &str,
    list: &'a [u64],
) -> &'a [u64] {
    own_from(transaction, at, key, list).map_or(list, |from| &list[..from])
}

/// What a read should have shown by what its own transaction knew, if it did not.
fn inconsistent(transaction: &Transaction, at: usize, key: &str, list: &[u64]) -> Option<String> {
    let mut known: Option<Vec<u64>> = None;
    let mut appended = Vec::new();
    for operation in &transaction.operations[..at] {
        match operation {
            Operation::Append { key: k, value } if k == key => {
                appended.push(*value);
                if let Some(known) = &mut known {
                    known.push(*value);
                }
            }
            Operation::Read { key: k, list } if k == key => known = Some(list.clone()),
            Operation::Append { .. } | Operation::Read { .. } => {}
        }
    }
    match known {
        Some(known) if known != list => Some(format!(
            "by what it had read and appended it is {}",
            shown(&known)
        )),
        None if !list.ends_with(&appended) => {
            Some(format!("it had itself appended {}", shown(&appended)))
        }
        _ => None,
    }
}
