//! What the rows of `accounts` went through, write by write, and what it is called if no order of
//! the transfers explains it.
//!
//! A trigger of the lab writes down each balance that replaces another one. As long as no two sets
//! of transfers move the same sum, a balance tells which transfers are in it: it is a list that
//! transfers append to, and [`serializability`] finds in such lists what went wrong. The program
//! under test takes no part in it, whatever it is written in.

use std::collections::BTreeSet;

use kata_lab::{
    Judged, Lab,
    serializability::{self, Touch},
};
use sqlx::AssertSqlSafe;

use super::bank::{Transfer, unreadable};

/// Sets of so many transfers are tried one by one.
const MOST_TRANSFERS: usize = 16;

/// Transfers by their number.
type Set = BTreeSet<usize>;

/// Writes down every change of a balance from now on. The trigger goes with the lab's schema.
pub(super) async fn record(lab: &Lab) -> Judged {
    let schema = lab.schema();
    // The program's role may neither read the table nor change the function.
    let sql = format!(
        "create table {schema}.kata_lab_writes
             (number bigserial, account_id text, balance_cents bigint);
         revoke all on {schema}.kata_lab_writes from public;
         create function {schema}.kata_lab_write() returns trigger language plpgsql
             security definer set search_path = {schema} as $$ begin
                 insert into kata_lab_writes (account_id, balance_cents)
                     values (new.account_id, new.balance_cents);
                 return null;
             end $$;
         create trigger kata_lab_write after update of balance_cents on {schema}.accounts
             for each row execute function {schema}.kata_lab_write();"
    );
    match sqlx::raw_sql(AssertSqlSafe(sql)).execute(lab.admin()).await {
        Ok(_) => Ok(()),
        Err(error) => unreadable(error),
    }
}

/// What is wrong with the order of these transfers, by its name in the literature; `None` if nothing
/// is, or if the writes do not tell which transfer made them. Each account was opened with the
/// balance beside it.
pub(super) async fn anomaly(
    lab: &Lab,
    accounts: &[(&str, i64)],
    transfers: &[&Transfer],
) -> Judged<Option<String>> {
    let mut seen = Vec::new();
    for (account, opened) in accounts {
        let sql = format!(
            "select balance_cents from {}.kata_lab_writes where account_id = $1 order by number",
            lab.schema()
        );
        let written = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(*account)
            .fetch_all(lab.admin())
            .await;
        let written: Vec<i64> = written.or_else(unreadable)?;
        seen.push((*account, *opened, written));
    }
    Ok(named(&seen, transfers))
}

fn named(accounts: &[(&str, i64, Vec<i64>)], transfers: &[&Transfer]) -> Option<String> {
    let mut touches: Vec<Vec<Touch>> = vec![Vec::new(); transfers.len()];
    let mut stale = None;
    for (account, opened, written) in accounts {
        for write in writes(account, *opened, written, transfers)? {
            touches[write.transfer].push(Touch {
                account: (*account).to_owned(),
                version_read: write.version_read,
            });
            if write.read != write.replaced {
                stale.get_or_insert(write);
            }
        }
    }
    let made: Vec<_> = transfers
        .iter()
        .zip(touches)
        .filter(|(_, touches)| !touches.is_empty())
        .map(|(transfer, touches)| serializability::Transfer {
            transfer_id: transfer.transfer_id.clone(),
            touches,
        })
        .collect();
    let found = serializability::findings(&serializability::from_versions(&made));
    let first = found.into_iter().next()?;
    // In the words of accounts where they tell it all, and not in those of lists.
    let story = match stale {
        Some(write) => write.told(transfers),
        None => first.story.join("; "),
    };
    Some(format!("{}: {story}", first.anomaly.name()))
}

/// One change of a balance.
struct Write {
    transfer: usize,
    /// The balance that it was computed from, and how many transfers were in it.
    read: i64,
    version_read: u64,
    /// The balance that it was put in the place of.
    replaced: i64,
    written: i64,
}

impl Write {
    fn told(&self, transfers: &[&Transfer]) -> String {
        let Self {
            read,
            replaced,
            written,
            ..
        } = self;
        let transfer = &transfers[self.transfer].transfer_id;
        format!("{transfer} had read {read}, and wrote {written} over {replaced}")
    }
}

/// What was written to an account, in order. `None` if a balance does not tell who wrote it.
fn writes(
    account: &str,
    opened: i64,
    written: &[i64],
    transfers: &[&Transfer],
) -> Option<Vec<Write>> {
    let mut versions = vec![(opened, Set::new())];
    let mut writes = Vec::new();
    for balance in written {
        let (replaced, last) = versions.last()?;
        let now = contents(account, balance - opened, transfers)?;
        if now == *last {
            continue;
        }
        // It read what it wrote without itself; what it replaced may be something else.
        let (transfer, (read, base)) = now.difference(last).find_map(|transfer| {
            let mut base = now.clone();
            base.remove(transfer);
            let read = versions.iter().find(|(_, version)| *version == base)?;
            Some((*transfer, read))
        })?;
        writes.push(Write {
            transfer,
            read: *read,
            version_read: base.len() as u64,
            replaced: *replaced,
            written: *balance,
        });
        versions.push((*balance, now));
    }
    Some(writes)
}

/// The set of transfers that moves this sum into the account; `None` if there is none, or several.
fn contents(account: &str, sum: i64, transfers: &[&Transfer]) -> Option<Set> {
    if transfers.len() > MOST_TRANSFERS {
        return None;
    }
    let moves = |transfer: &Transfer| match account {
        _ if transfer.to == account => transfer.amount_cents,
        _ if transfer.from == account => -transfer.amount_cents,
        _ => 0,
    };
    let on_it: Vec<usize> = (0..transfers.len())
        .filter(|number| moves(transfers[*number]) != 0)
        .collect();
    let mut sets = (0..1_u32 << on_it.len()).map(|mask| -> Set {
        let chosen = on_it.iter().enumerate();
        chosen
            .filter(|(bit, _)| mask & (1 << bit) != 0)
            .map(|(_, number)| *number)
            .collect()
    });
    let makes = |set: &Set| {
        set.iter()
            .map(|number| moves(transfers[*number]))
            .sum::<i64>()
            == sum
    };
    let first = sets.find(makes)?;
    sets.find(makes).is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(id: &str, from: &str, to: &str, amount_cents: i64) -> Transfer {
        Transfer {
            transfer_id: id.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            amount_cents,
        }
    }

    fn of(ada: &[i64], bob: &[i64], eve: &[i64]) -> Option<String> {
        let transfers = [
            transfer("t-1", "ada", "bob", 100),
            transfer("t-2", "ada", "eve", 200),
        ];
        let seen = [
            ("ada", 1_000, ada.to_vec()),
            ("bob", 0, bob.to_vec()),
            ("eve", 0, eve.to_vec()),
        ];
        named(&seen, &transfers.each_ref())
    }

    #[test]
    fn either_order_is_an_order() {
        assert_eq!(of(&[900, 700], &[100], &[200]), None);
        assert_eq!(of(&[800, 700], &[100], &[200]), None);
        assert_eq!(of(&[900], &[100], &[]), None);
        assert_eq!(of(&[], &[], &[]), None);
    }

    #[test]
    fn a_balance_that_was_computed_from_an_old_one_is_a_lost_update() {
        assert_eq!(
            of(&[900, 800], &[100], &[200]).unwrap(),
            "lost update (P4): t-2 had read 1000, and wrote 800 over 900"
        );
    }

    #[test]
    fn what_no_set_of_transfers_makes_is_given_no_name() {
        assert_eq!(of(&[900, 850], &[100], &[150]), None);
        // Both at once: it does not tell which of them wrote.
        assert_eq!(of(&[700], &[100], &[200]), None);
    }

    #[test]
    fn a_sum_that_two_sets_make_is_given_no_name() {
        let transfers = [
            transfer("t-1", "ada", "bob", 100),
            transfer("t-2", "ada", "bob", 100),
        ];
        assert_eq!(contents("ada", -100, &transfers.each_ref()), None);
        assert_eq!(
            contents("ada", -200, &transfers.each_ref()),
            Some(Set::from([0, 1]))
        );
    }
}
