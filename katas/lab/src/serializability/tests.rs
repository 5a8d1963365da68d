//! Every anomaly by hand; and random histories against a judge that tries all orders.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{Anomaly, End, Operation, Touch, Transaction, Transfer, findings, from_versions};

fn append(key: &str, value: u64) -> Operation {
    Operation::append(key, value)
}

fn read(key: &str, list: &[u64]) -> Operation {
    Operation::read(key, list)
}

fn t<const N: usize>(name: &str, operations: [Operation; N]) -> Transaction {
    Transaction::committed(name, operations)
}

fn found(transactions: &[Transaction]) -> Vec<Anomaly> {
    let found = findings(transactions);
    found.into_iter().map(|finding| finding.anomaly).collect()
}

#[test]
fn transactions_one_after_the_other_are_no_finding() {
    let history = [
        t("t1", [append("x", 1), read("x", &[1]), append("y", 1)]),
        t("t2", [read("x", &[1]), append("x", 2), read("y", &[1])]),
        t("t3", [append("x", 3)]).ending(End::Aborted),
        t("t4", [read("x", &[1, 2]), read("y", &[1]), read("z", &[])]),
    ];
    assert_eq!(findings(&history), []);
    assert_eq!(findings(&[]), []);
}

#[test]
fn each_over_the_other_is_a_dirty_write() {
    let history = [
        t("t1", [append("x", 1), append("y", 1)]),
        t("t2", [append("x", 2), append("y", 2)]),
        t("end", [read("x", &[1, 2]), read("y", &[2, 1])]),
    ];
    assert_eq!(found(&history), [Anomaly::DirtyWrite]);
}

#[test]
fn what_was_rolled_back_and_read_is_an_aborted_read() {
    let history = [
        t("t1", [append("x", 1)]).ending(End::Aborted),
        t("t2", [read("x", &[1])]),
    ];
    assert_eq!(found(&history), [Anomaly::AbortedRead]);
}

#[test]
fn half_of_what_one_wrote_to_a_list_is_an_intermediate_read() {
    let history = [
        t("t1", [append("x", 1), append("x", 2)]),
        t("t2", [read("x", &[1])]),
        t("end", [read("x", &[1, 2])]),
    ];
    assert!(found(&history).contains(&Anomaly::IntermediateRead));
    // Nobody read on: the writer alone says that more was to come.
    assert!(found(&history[..2]).contains(&Anomaly::IntermediateRead));
}

#[test]
fn each_seeing_the_other_is_a_circular_information_flow() {
    let history = [
        t("t1", [append("x", 1), read("y", &[2])]),
        t("t2", [append("y", 2), read("x", &[1])]),
    ];
    assert_eq!(found(&history), [Anomaly::CircularInformationFlow]);
}

#[test]
fn two_on_top_of_the_same_are_a_lost_update() {
    let history = [
        t("t1", [read("x", &[]), append("x", 1)]),
        t("t2", [read("x", &[]), append("x", 2)]),
        t("end", [read("x", &[1, 2])]),
    ];
    assert_eq!(found(&history), [Anomaly::LostUpdate]);
}

#[test]
fn the_old_of_one_and_the_new_of_the_other_are_a_read_skew() {
    let history = [
        t("t1", [append("x", 1), append("y", 1)]),
        t("t2", [read("x", &[]), read("y", &[1])]),
        t("end", [read("x", &[1]), read("y", &[1])]),
    ];
    let findings = findings(&history);
    assert_eq!(findings.len(), 1);
    assert_eq!(
        findings[0].to_string(),
        "read skew (G-single)\n  \
         t2 before t1: t2 read x as nothing, before t1 appended 1\n  \
         t1 before t2: t2 read y as 1, with what t1 had appended\n  \
         so t2 would come before itself"
    );
}

#[test]
fn each_reading_what_the_other_then_changes_is_a_write_skew() {
    let history = [
        t("t1", [read("x", &[]), read("y", &[]), append("x", 1)]),
        t("t2", [read("x", &[]), read("y", &[]), append("y", 2)]),
        t("end", [read("x", &[1]), read("y", &[2])]),
    ];
    assert_eq!(found(&history), [Anomaly::WriteSkew]);
    // Two lists that nobody reads again grew all the same: an empty list comes first.
    assert_eq!(found(&history[..2]), [Anomaly::WriteSkew]);
}

#[test]
fn a_write_skew_of_three_is_found_as_one_circle() {
    let history = [
        t("t1", [read("x", &[]), append("y", 1)]),
        t("t2", [read("y", &[]), append("z", 2)]),
        t("t3", [read("z", &[]), append("x", 3)]),
        t("end", [read("x", &[3]), read("y", &[1]), read("z", &[2])]),
    ];
    let findings = findings(&history);
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].anomaly, Anomaly::WriteSkew);
    assert_eq!(findings[0].story.len(), 4);
}

#[test]
fn a_transaction_that_forgets_itself_is_inconsistent() {
    let forgets = [t("t1", [append("x", 1), read("x", &[])])];
    assert_eq!(found(&forgets), [Anomaly::InternalInconsistency]);
    let changes = [
        t("t1", [append("x", 1)]),
        t("t2", [read("x", &[]), read("x", &[1])]),
    ];
    assert!(found(&changes).contains(&Anomaly::InternalInconsistency));
}

#[test]
fn lists_that_do_not_agree_are_incompatible() {
    let history = [
        t("t1", [append("x", 1)]),
        t("t2", [append("x", 2)]),
        t("t3", [read("x", &[1, 2])]),
        t("t4", [read("x", &[2, 1])]),
    ];
    assert!(found(&history).contains(&Anomaly::IncompatibleOrders));
}

#[test]
fn values_from_nowhere_and_values_twice_are_impossible() {
    assert_eq!(found(&[t("t1", [read("x", &[7])])]), [Anomaly::Impossible]);
    let twice = [t("t1", [append("x", 1)]), t("t2", [read("x", &[1, 1])])];
    assert!(found(&twice).contains(&Anomaly::Impossible));
    let again = [t("t1", [append("x", 1)]), t("t2", [append("x", 1)])];
    assert!(found(&again).contains(&Anomaly::Impossible));
}

#[test]
fn a_commit_without_an_answer_counts_if_it_was_seen() {
    let unknown = t("t1", [append("x", 1), append("y", 1)]).ending(End::Unknown);
    let unseen = [
        unknown.clone(),
        t("t2", [read("x", &[])]),
        t("t3", [read("y", &[])]),
    ];
    assert_eq!(found(&unseen), []);
    let half = [unknown, t("t2", [read("x", &[]), read("y", &[1])])];
    assert_eq!(found(&half), [Anomaly::ReadSkew]);
}

#[test]
fn transfers_on_the_same_version_lose_one() {
    let transfer = |id: &str, touches: [(&str, u64); 2]| Transfer {
        transfer_id: id.to_owned(),
        touches: touches
            .map(|(account, version_read)| Touch {
                account: account.to_owned(),
                version_read,
            })
            .to_vec(),
    };
    let right = [
        transfer("t-1", [("ada", 0), ("bob", 0)]),
        transfer("t-2", [("ada", 1), ("bob", 1)]),
        transfer("t-3", [("bob", 2), ("eve", 0)]),
    ];
    assert_eq!(findings(&from_versions(&right)), []);
    let lost = [
        transfer("t-1", [("ada", 0), ("bob", 0)]),
        transfer("t-2", [("ada", 0), ("eve", 0)]),
    ];
    assert_eq!(found(&from_versions(&lost)), [Anomaly::LostUpdate]);
}

// ------------------------------------------------------------------------------- random histories

const KEYS: [&str; 3] = ["x", "y", "z"];

type Lists = BTreeMap<&'static str, Vec<u64>>;

/// Random transactions of one to four operations; each sees `seen` and its own appends.
fn random_transaction(
    rng: &mut StdRng,
    name: String,
    next: &mut u64,
    seen: &Lists,
) -> (Transaction, Vec<(&'static str, u64)>) {
    let mut now = seen.clone();
    let mut appended = Vec::new();
    let mut operations = Vec::new();
    for _ in 0..rng.random_range(1..=4) {
        let key = KEYS[rng.random_range(0..KEYS.len())];
        let list = now.entry(key).or_default();
        if rng.random_bool(0.5) {
            operations.push(Operation::read(key, list.clone()));
        } else {
            *next += 1;
            list.push(*next);
            appended.push((key, *next));
            operations.push(Operation::append(key, *next));
        }
    }
    (Transaction::committed(name, operations), appended)
}

fn final_read(lists: &Lists) -> Transaction {
    let reads = lists
        .iter()
        .map(|(key, list)| Operation::read(*key, list.clone()));
    Transaction::committed("end", reads)
}

/// Transactions one after the other, some of them rolled back, in a random order in the history.
fn serial(rng: &mut StdRng, count: usize) -> (Vec<Transaction>, Lists) {
    let mut lists = Lists::new();
    let mut next = 0;
    let mut history = Vec::new();
    for number in 0..count {
        let (mut transaction, appended) =
            random_transaction(rng, format!("t{number}"), &mut next, &lists);
        if rng.random_bool(0.1) {
            transaction.end = End::Aborted;
        } else {
            for (key, value) in appended {
                lists.entry(key).or_default().push(value);
            }
        }
        history.push(transaction);
    }
    history.push(final_read(&lists));
    for index in (1..history.len()).rev() {
        history.swap(index, rng.random_range(0..=index));
    }
    (history, lists)
}

#[test]
fn nothing_is_found_in_what_ran_one_after_the_other() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = rng.random_range(1..60);
        let (history, _) = serial(&mut rng, count);
        assert_eq!(findings(&history), [], "seed {seed}");
    }
}

#[test]
fn one_lie_in_a_long_serial_history_is_found() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut history, lists) = serial(&mut rng, 40);
        let (key, list) = lists.iter().next().expect("forty transactions append");
        let (a, b) = (u64::MAX - 1, u64::MAX);
        // Two more at the end, who both read what was there before them.
        let (on_top, expected) = match seed % 2 {
            0 => ([(*key, a), (*key, b)], Anomaly::LostUpdate),
            _ => ([(*key, a), ("w", b)], Anomaly::WriteSkew),
        };
        for (index, (to, value)) in on_top.into_iter().enumerate() {
            let operations = [
                Operation::read(*key, list.clone()),
                Operation::read("w", []),
                Operation::append(to, value),
            ];
            history.push(Transaction::committed(format!("liar {index}"), operations));
        }
        let mut after = lists.clone();
        for (to, value) in on_top {
            after.entry(to).or_default().push(value);
        }
        for transaction in &mut history {
            if transaction.name == "end" {
                *transaction = final_read(&after);
            }
        }
        assert_eq!(found(&history), [expected], "seed {seed}");
    }
}

#[test]
fn rolling_back_what_was_read_is_found() {
    let mut tried = 0;
    for seed in 0..100 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut history, _) = serial(&mut rng, 20);
        let writes = |t: &Transaction| {
            t.operations
                .iter()
                .any(|o| matches!(o, Operation::Append { .. }))
        };
        let writer = history
            .iter_mut()
            .find(|t| t.end == End::Committed && writes(t));
        let Some(writer) = writer else { continue };
        writer.end = End::Aborted;
        tried += 1;
        assert!(
            found(&history).contains(&Anomaly::AbortedRead),
            "seed {seed}"
        );
    }
    assert!(tried > 50);
}

/// Whether some order of these transactions, one after the other, shows what was read.
fn some_order_explains(transactions: &[&Transaction], lists: &Lists) -> bool {
    if transactions.is_empty() {
        return true;
    }
    (0..transactions.len()).any(|index| {
        let mut rest = transactions.to_vec();
        let first = rest.remove(index);
        let mut after = lists.clone();
        let explained = first.operations.iter().all(|operation| match operation {
            Operation::Append { key, value } => {
                let key = KEYS.iter().find(|k| *k == key).expect("one of three");
                after.entry(key).or_default().push(*value);
                true
            }
            Operation::Read { key, list } => {
                let nothing = Vec::new();
                after.get(key.as_str()).unwrap_or(&nothing) == list
            }
        });
        explained && some_order_explains(&rest, &after)
    })
}

#[test]
fn the_verdict_is_that_of_trying_all_orders() {
    let (mut good, mut bad) = (0, 0);
    for seed in 0..4_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut lists = Lists::new();
        let mut next = 0;
        let mut history = Vec::new();
        for number in 0..rng.random_range(2..=5) {
            // What it sees is of some moment in the past, for each list its own.
            let mut seen = lists.clone();
            for list in seen.values_mut() {
                if rng.random_bool(0.4) {
                    list.truncate(rng.random_range(0..=list.len()));
                }
            }
            let (transaction, appended) =
                random_transaction(&mut rng, format!("t{number}"), &mut next, &seen);
            for (key, value) in appended {
                lists.entry(key).or_default().push(value);
            }
            history.push(transaction);
        }
        history.push(final_read(&lists));
        let explained = some_order_explains(&history.iter().collect::<Vec<_>>(), &Lists::new());
        let findings = findings(&history);
        assert_eq!(
            explained,
            findings.is_empty(),
            "seed {seed}: {history:#?} {findings:#?}"
        );
        match explained {
            true => good += 1,
            false => bad += 1,
        }
    }
    assert!(good > 500 && bad > 500, "{good} serializable, {bad} not");
}
