//! Transfers whose accounts carry versions, as transactions on lists.

use super::{Operation, Transaction};

/// What a transfer did to one account: it read the row at one version and wrote the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touch {
    /// The account.
    pub account: String,
    /// The version that it read; a new account has version 0.
    pub version_read: u64,
}

/// A transfer that was committed: its own id, and the rows that it touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// What it is called in the findings.
    pub transfer_id: String,
    /// Both accounts.
    pub touches: Vec<Touch>,
}

/// The history of transfers that each raised the version of every row they touched, and of what the
/// rows' versions were in the end.
///
/// Sound because a version names the one that it replaced. Two transfers that read the same version
/// of an account wrote on top of the same: a lost update, whatever the balances say. The list of an
/// account is, for each reader, the transfers up to the version that it read; of two with the same
/// version the first in `transfers` counts as the one that was there.
pub fn from_versions(transfers: &[Transfer]) -> Vec<Transaction> {
    let number = |index: usize| index as u64 + 1;
    let list = |account: &str, version: u64| -> Vec<u64> {
        let at = |read: u64| {
            transfers.iter().position(|transfer| {
                transfer
                    .touches
                    .iter()
                    .any(|touch| touch.account == account && touch.version_read == read)
            })
        };
        (0..version).filter_map(at).map(number).collect()
    };
    let mut transactions: Vec<Transaction> = Vec::new();
    for (index, transfer) in transfers.iter().enumerate() {
        let reads = transfer
            .touches
            .iter()
            .map(|touch| Operation::read(&touch.account, list(&touch.account, touch.version_read)));
        let appends = transfer
            .touches
            .iter()
            .map(|touch| Operation::append(&touch.account, number(index)));
        let operations: Vec<_> = reads.chain(appends).collect();
        transactions.push(Transaction::committed(&transfer.transfer_id, operations));
    }
    // What the rows say in the end: of each version the one that was there, then those it lost.
    let mut accounts: Vec<&str> = transfers
        .iter()
        .flat_map(|transfer| transfer.touches.iter().map(|touch| touch.account.as_str()))
        .collect();
    accounts.sort_unstable();
    accounts.dedup();
    let last_reads = accounts.iter().map(|account| {
        let mut writes: Vec<(u64, usize)> = transfers
            .iter()
            .enumerate()
            .flat_map(|(index, transfer)| {
                let on_it = transfer.touches.iter().filter(|t| t.account == *account);
                on_it.map(move |touch| (touch.version_read, index))
            })
            .collect();
        writes.sort_unstable();
        let list: Vec<_> = writes.into_iter().map(|(_, index)| number(index)).collect();
        Operation::read(*account, list)
    });
    transactions.push(Transaction::committed(
        "the accounts in the end",
        last_reads,
    ));
    transactions
}
