//! What must come before what.

use super::{
    Operation, Transaction,
    lists::{Lists, agree, ending, external, reads},
};

/// Why one transaction comes before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dependency {
    WriteWrite,
    WriteRead,
    ReadWrite,
}

/// "`from` comes before `to`", and what was seen that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) dependency: Dependency,
    pub(super) key: String,
    pub(super) why: String,
}

/// The edges between transactions that count, each once for each list and kind.
pub(super) fn edges(transactions: &[Transaction], lists: &Lists) -> Vec<Edge> {
    let mut found = Found {
        lists,
        edges: Vec::new(),
    };
    let name = |index: usize| &transactions[index].name;
    for (key, order) in &lists.orders {
        for pair in order.windows(2) {
            found.write_write(transactions, key, pair[0], pair[1]);
        }
        // What was appended and is in no list comes after all that is: lists only grow.
        for value in unread(transactions, key, order) {
            if let Some(last) = order.last() {
                found.write_write(transactions, key, *last, value);
            }
        }
    }
    for (reader, at, key, list) in reads(transactions) {
        let Some(order) = lists.orders.get(key) else {
            continue;
        };
        let seen = external(&transactions[reader], at, key, list);
        if seen.len() > order.len() || !agree(order, seen) {
            continue;
        }
        let read = format!("{} read {key} as {}", name(reader), ending(seen));
        if let Some(writer) = seen.last().and_then(|last| found.writer(key, *last)) {
            let why = format!("{read}, with what {} had appended", name(writer));
            found.edge(writer, reader, Dependency::WriteRead, key, why);
        }
        let next = match order.get(seen.len()) {
            Some(next) => vec![*next],
            None => unread(transactions, key, order),
        };
        for value in next {
            if let Some(writer) = found.writer(key, value) {
                let why = format!("{read}, before {} appended {value}", name(writer));
                found.edge(reader, writer, Dependency::ReadWrite, key, why);
            }
        }
    }
    found.edges
}

/// Values appended to a list that are not in the longest read of it.
fn unread(transactions: &[Transaction], key: &str, order: &[u64]) -> Vec<u64> {
    let operations = transactions.iter().flat_map(|t| &t.operations);
    let appended = operations.filter_map(|operation| match operation {
        Operation::Append { key: k, value } if k == key => Some(*value),
        _ => None,
    });
    appended.filter(|value| !order.contains(value)).collect()
}

struct Found<'a> {
    lists: &'a Lists<'a>,
    edges: Vec<Edge>,
}

impl Found<'_> {
    /// Who appended it, if that transaction counts.
    fn writer(&self, key: &str, value: u64) -> Option<usize> {
        let (writer, _) = *self.lists.writers.get(&(key, value))?;
        self.lists.counts[writer].then_some(writer)
    }

    fn write_write(&mut self, transactions: &[Transaction], key: &str, before: u64, after: u64) {
        let (Some(from), Some(to)) = (self.writer(key, before), self.writer(key, after)) else {
            return;
        };
        let why = format!(
            "{} appended {after} to {key} after the {before} of {}",
            transactions[to].name, transactions[from].name
        );
        self.edge(from, to, Dependency::WriteWrite, key, why);
    }

    fn edge(&mut self, from: usize, to: usize, dependency: Dependency, key: &str, why: String) {
        let known = |edge: &Edge| {
            (edge.from, edge.to, edge.dependency) == (from, to, dependency) && edge.key == key
        };
        if from == to || self.edges.iter().any(known) {
            return;
        }
        self.edges.push(Edge {
            from,
            to,
            dependency,
            key: key.to_owned(),
            why,
        });
    }
}
