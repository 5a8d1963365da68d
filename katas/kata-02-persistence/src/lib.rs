//! Kata 02, persistence: money that does not disappear.
//!
//! This page is the map: the steps with their hints and checks. The contract is in the README, the
//! variants are listed in [`variants`], and `exercise.rs` is the file to edit.

mod cap;
pub mod checks;
mod commands;
mod contention;
pub mod contract;
pub mod exercise;
mod experiment;
pub mod isolation;
pub mod variants;

use checks::{
    step_1_loss, step_2_transactions, step_3_concurrency, step_4_payments, step_5_profiles,
    step_6_shifts, step_7_consistency, step_7_outages, step_8_index,
};
use kata_lab::{Given, Kata, Step, check};

/// The kata.
pub fn kata() -> Kata {
    Kata {
        name: env!("CARGO_PKG_NAME"),
        title: "persistence",
        promise: "money that does not disappear",
        readme: include_str!("../README.md"),
        readme_es: include_str!("../README.es.md"),
        exercise_file: "katas/kata-02-persistence/src/exercise.rs",
        given: Given {
            database: true,
            replica: true,
            tables: contract::TABLES,
            ..Given::default()
        },
        labs_per_core: 4,
        steps: steps(),
        variants: variants::all(),
        curl: &[
            "curl -i $URL/accounts -H 'Content-Type: application/json' -d '{\"account_id\":\"ada\",\"balance_cents\":100000}'",
            "curl -i $URL/accounts -H 'Content-Type: application/json' -d '{\"account_id\":\"bob\",\"balance_cents\":0}'",
            "curl -i $URL/transfers -H 'Content-Type: application/json' -d '{\"transfer_id\":\"t-1\",\"from\":\"ada\",\"to\":\"bob\",\"amount_cents\":2500}'",
            "curl -i $URL/accounts/ada",
            "curl -i -X PUT $URL/profiles/ada -H 'If-None-Match: *' -H 'Content-Type: application/json' -d '{\"name\":\"Ada\"}'",
        ],
        experiment: experiment::run,
        commands: commands::COMMANDS,
    }
}

fn steps() -> Vec<Step> {
    vec![
        Step {
            title: "Without a transaction, money disappears",
            hints: [
                "A transfer writes two rows. What is in the table if the process ends between the two writes?",
                "`unsafe_transfer`: two `select`, two `update`, each on its own (autocommit), on one connection, and the new balances computed in code. It is wrong on purpose; the checks pass when they have seen how.",
                "`let mut db = bank.db.acquire().await?;` then `select balance_cents from accounts where account_id = $1` for `from`, the same for `to`, `update accounts set balance_cents = $2 where account_id = $1` for `from`, the same for `to`, all on `&mut *db`. `open` is `insert … on conflict do nothing`, and no row means 409.",
            ],
            checks: vec![
                check!(
                    step_1_loss::opens_accounts,
                    "what happens to the balance when the same account is opened again?"
                ),
                check!(
                    step_1_loss::rejects_wrong_input,
                    "which of your routes reaches the database with a body that nobody has checked?"
                ),
                check!(
                    step_1_loss::shows_the_loss_of_a_crash,
                    "is something of yours holding the four statements together?"
                ),
                check!(
                    step_1_loss::shows_a_lost_update,
                    "are the new balances computed in your code, from what was read before?"
                ),
            ],
        },
        Step {
            title: "With a transaction, all of it or nothing",
            hints: [
                "Which statements have to be true together, and which of them is the note that this transfer was made?",
                "One transaction: write the transfer's id into a table of your own, debit, credit, commit. A refusal rolls back, and takes the note with it.",
                "`let mut tx = shared::db::begin(&bank.db, &TxOptions::default()).await?;` `insert into transfers (…) values (…) on conflict do nothing`: no row means that it was made, so compare its content and answer it again. Then debit and credit on `&mut *tx`, and `tx.commit().await?`; every early return drops `tx`, which rolls back.",
            ],
            checks: vec![
                check!(
                    step_2_transactions::moves_money,
                    "do you look whether both accounts are there, and whether the money is?"
                ),
                check!(
                    step_2_transactions::moves_it_once,
                    "where does the second request find out that the first one was done?"
                ),
                check!(
                    step_2_transactions::forgets_a_refusal,
                    "what stays in your tables when a transfer is refused?"
                ),
                check!(
                    step_2_transactions::keeps_the_total_in_every_crash,
                    "which statement of the transfer is committed without the others?"
                ),
            ],
        },
        Step {
            title: "Two at once are as good as one after the other",
            hints: [
                "Two transfers read the same balance before either has written. What would make the second wait?",
                "`select … for update` locks what you read until the transaction ends. Two transfers that lock two rows in different orders wait for each other for ever, which PostgreSQL ends with an error for one of them.",
                "`select account_id, balance_cents from accounts where account_id in ($1, $2) order by account_id for update`: one order for everybody. Judge the balances that this returns, and write `balance_cents = balance_cents + …`.",
            ],
            checks: vec![
                check!(
                    step_3_concurrency::loses_no_update,
                    "what may happen to a balance between your `select` and your `update`?"
                ),
                check!(
                    step_3_concurrency::never_overdraws,
                    "is the balance that you judge still the balance when you write?"
                ),
                check!(
                    step_3_concurrency::hides_deadlocks,
                    "in which order do you lock the two accounts, and in which does the opposite transfer?"
                ),
                check!(
                    step_3_concurrency::moves_it_once_under_concurrency,
                    "what does the second request find when the first has not committed yet?"
                ),
                check!(
                    step_3_concurrency::survives_two_hundred_transfers,
                    "how many connections does one request need, and what if all of them are taken?"
                ),
            ],
        },
        Step {
            title: "A payment is unique by constraint",
            hints: [
                "Two requests both look for the payment, and both find nothing. Who can know of a row that is not committed yet?",
                "A unique index on `payment_id`. `insert … on conflict do nothing` waits for the one who is writing the same id, and then says who was first.",
                "`create unique index if not exists payments_payment_id on payments (payment_id)` at start. In one transaction: insert the row, no row means known: compare amount and account, answer it again or 422; then `update accounts set balance_cents = balance_cents - $2 where account_id = $1 and balance_cents >= $2`.",
            ],
            checks: vec![
                check!(
                    step_4_payments::pays_and_shows_the_payment,
                    "does the answer come from what was stored?"
                ),
                check!(
                    step_4_payments::forgets_a_refused_payment,
                    "what of a refused payment is still in your tables?"
                ),
                check!(
                    step_4_payments::pays_once_under_concurrency,
                    "which statement makes one of two requests with the same id lose?"
                ),
                check!(
                    step_4_payments::refuses_other_content,
                    "do you compare amount and account with what was paid under this id?"
                ),
                check!(
                    step_4_payments::keeps_debit_and_payment_together,
                    "can the debit be committed without the row, or the row without the debit?"
                ),
                check!(
                    step_4_payments::pays_once_when_connections_break,
                    "the answer to your commit did not come: was it done, and what does your retry do then?"
                ),
            ],
        },
        Step {
            title: "Optimistic or pessimistic, nobody writes over another",
            hints: [
                "Somebody read version 3 and writes. What has to be true at the moment of the write, and who can check it at that moment?",
                "Optimistic: compare the version in the `where` of the update itself; no row means 412. Pessimistic: `select … for update`, compute, write; the others wait.",
                "`update profiles set data = $2, version = version + 1 where profile_id = $1 and version = $3 returning version`, with `\"<version>\"` as `ETag`. Increment: begin, `select data from profiles where profile_id = $1 for update`, add one, `update … version = version + 1`, commit.",
            ],
            checks: vec![
                check!(
                    step_5_profiles::guards_profiles_with_etags,
                    "which content does your ETag name, and who compares it?"
                ),
                check!(
                    step_5_profiles::refuses_one_of_two_writers,
                    "what may happen between your comparison and your write?"
                ),
                check!(
                    step_5_profiles::increments_change_the_etag,
                    "does every write change the tag, also one that is no `PUT`?"
                ),
                check!(
                    step_5_profiles::increments_count_every_time,
                    "from which value do you count, and can it be an old one?"
                ),
                check!(
                    step_5_profiles::increments_refuse_nobody,
                    "how often do you try, and what do you say then?"
                ),
            ],
        },
        Step {
            title: "Write skew: the rule about rows that you do not write",
            hints: [
                "Each doctor sees the other one on call, and leaves. Both wrote different rows, so no lock stood between them. What did each read that was no longer true?",
                "Serializable notices that what you read was changed by somebody who read what you changed, and refuses one with 40001. That is no answer for a client: begin again.",
                "`shared::db::transaction(&bank.db, &TxOptions { attempts: 100, ..TxOptions::serializable() }, async move |tx| …)` repeats on 40001: count the others on call, 409 if there is none, else update. Or lock all rows of the team first: `select doctor from doctors order by doctor for update`.",
            ],
            checks: vec![
                check!(
                    step_6_shifts::keeps_the_rota,
                    "by which order does your database sort texts?"
                ),
                check!(
                    step_6_shifts::keeps_one_doctor_on_call,
                    "what you have read about the other doctor: what makes it stay true until you commit?"
                ),
                check!(
                    step_6_shifts::hides_serialization_failures,
                    "what does your program do with the error 40001?"
                ),
            ],
        },
        Step {
            title: "Strong or eventual: say how far behind",
            hints: [
                "A replica answers with what it has. How does the reader learn what it may lack?",
                "`read=eventual` goes to the replica, if there is one, and says `staleness_ms`; everything else goes to the primary. The replica cannot know what it was not sent: compare what it has replayed with what the primary has written. What cannot be reached is not waited for: 503, or `null` for a staleness that nobody can tell.",
                "Without a replica: the same row, and `contract::stale(&account, Some(0))`. With one: its `pg_last_wal_replay_lsn()` before the row, the primary's `pg_current_wal_flush_lsn()` after it; the first is not smaller: 0. Else the time since `pg_last_xact_replay_timestamp()`, which is too much and never too little. sqlx tries for 30 s to connect: a `tokio::time::timeout` of 4 s around each read, and of 1 s around the question to the primary.",
            ],
            checks: vec![
                check!(
                    step_7_consistency::reads_the_primary_without_a_replica,
                    "where does an eventual read come from when there is no replica?"
                ),
                check!(
                    step_7_consistency::strong_sees_what_was_written,
                    "which of the two servers is sure to have the caller's last write?"
                )
                .with_replica(),
                check!(
                    step_7_consistency::says_how_far_behind,
                    "what is the oldest change that this answer may lack, and since when is it committed?"
                )
                .with_replica(),
                check!(
                    step_7_consistency::is_not_fooled_by_a_replica_that_is_cut_off,
                    "who knows what the replica has not even received?"
                )
                .with_replica(),
                check!(
                    step_7_consistency::does_not_find_what_the_replica_lacks,
                    "from which moment is an answer that mixes two servers?"
                )
                .with_replica(),
                check!(
                    step_7_consistency::is_zero_again_when_nothing_is_written,
                    "how old is the last commit on an idle server, and what does that say?"
                )
                .with_replica(),
                check!(
                    step_7_outages::eventual_survives_the_primary,
                    "which of your questions needs the primary, and what do you say without its answer?"
                )
                .with_replica(),
                check!(
                    step_7_outages::strong_is_refused_without_the_primary,
                    "what does a caller do with a 500, and what with a 503?"
                )
                .with_replica(),
                check!(
                    step_7_outages::strong_survives_the_replica,
                    "what does a strong read want from the replica?"
                )
                .with_replica(),
                check!(
                    step_7_outages::works_again_when_healed,
                    "who replaces a connection that has died?"
                )
                .with_replica(),
            ],
        },
        Step {
            title: "An index finds one row among many",
            hints: [
                "How does PostgreSQL find a payment by its id, if nobody has told it where to look?",
                "`explain select … where payment_id = '…'`: `Seq Scan` reads every row, `Index Scan` a few pages. The unique index of step 4 is an index.",
                "Compare the column itself: `where payment_id = $1`. A function or a cast around the column (`lower(payment_id)`) is another expression, for which there is no index.",
            ],
            checks: vec![check!(
                step_8_index::finds_payments_by_an_index,
                "what does `explain` say about your look-up?"
            )],
        },
    ]
}
