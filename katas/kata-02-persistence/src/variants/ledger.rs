//! Statements about money: accounts, transfers, payments. Nothing is decided here but how a
//! question
//!
//! is put to PostgreSQL.

use sqlx::PgConnection;

use crate::contract::{Payment, Transfer};

/// The two balances of a transfer; `None` where there is no such account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balances {
    /// Of the account that is debited.
    pub from: Option<i64>,
    /// Of the account that is credited.
    pub to: Option<i64>,
}

/// Notes a transfer's id with its content; false if it is known.
pub async fn remember(db: &mut PgConnection, transfer: &Transfer) -> Result<bool, sqlx::Error> {
    let sql = "insert into transfers (transfer_id, from_account, to_account, amount_cents)
         values ($1, $2, $3, $4) on conflict do nothing";
    let noted = sqlx::query(sql)
        .bind(&transfer.transfer_id)
        .bind(&transfer.from)
        .bind(&transfer.to)
        .bind(transfer.amount_cents)
        .execute(db)
        .await?;
    Ok(noted.rows_affected() == 1)
}

/// The transfer with this id.
pub async fn transfer(db: &mut PgConnection, id: &str) -> Result<Option<Transfer>, sqlx::Error> {
    let sql = "select from_account, to_account, amount_cents from transfers where transfer_id = $1";
    let row: Option<(String, String, i64)> =
        sqlx::query_as(sql).bind(id).fetch_optional(db).await?;
    Ok(row.map(|(from, to, amount_cents)| Transfer {
        transfer_id: id.to_owned(),
        from,
        to,
        amount_cents,
    }))
}

/// Locks both accounts in the order of their ids. PostgreSQL locks rows in the order in which it
/// returns them, so the order by is what orders the locks.
pub async fn lock_in_order(
    db: &mut PgConnection,
    transfer: &Transfer,
) -> Result<Balances, sqlx::Error> {
    let sql = "select account_id, balance_cents from accounts
         where account_id = $1 or account_id = $2 order by account_id for update";
    let rows = sqlx::query_as(sql).bind(&transfer.from).bind(&transfer.to);
    Ok(balances(rows.fetch_all(db).await?, transfer))
}

/// Both balances, without a lock.
pub async fn look(db: &mut PgConnection, transfer: &Transfer) -> Result<Balances, sqlx::Error> {
    let sql = "select account_id, balance_cents from accounts
         where account_id = $1 or account_id = $2";
    let rows = sqlx::query_as(sql).bind(&transfer.from).bind(&transfer.to);
    Ok(balances(rows.fetch_all(db).await?, transfer))
}

fn balances(rows: Vec<(String, i64)>, transfer: &Transfer) -> Balances {
    let of = |id: &String| {
        let row = rows.iter().find(|(account, _)| account == id);
        row.map(|(_, balance)| *balance)
    };
    Balances {
        from: of(&transfer.from),
        to: of(&transfer.to),
    }
}

/// Debit and credit in one statement, relative to what is there.
pub async fn move_money(db: &mut PgConnection, transfer: &Transfer) -> Result<(), sqlx::Error> {
    let sql = "update accounts set balance_cents = balance_cents
             + case account_id when $1 then - $3::bigint else $3::bigint end
         where account_id = $1 or account_id = $2";
    sqlx::query(sql)
        .bind(&transfer.from)
        .bind(&transfer.to)
        .bind(transfer.amount_cents)
        .execute(db)
        .await?;
    Ok(())
}

/// Adds to a balance, or takes from it, relative to what is there.
pub async fn add(db: &mut PgConnection, id: &str, cents: i64) -> Result<(), sqlx::Error> {
    sqlx::query("update accounts set balance_cents = balance_cents + $2 where account_id = $1")
        .bind(id)
        .bind(cents)
        .execute(db)
        .await?;
    Ok(())
}

/// Writes a balance as it was computed in code.
pub async fn set(db: &mut PgConnection, id: &str, balance: i64) -> Result<(), sqlx::Error> {
    sqlx::query("update accounts set balance_cents = $2 where account_id = $1")
        .bind(id)
        .bind(balance)
        .execute(db)
        .await?;
    Ok(())
}

/// The balance of an account.
pub async fn balance(db: &mut PgConnection, id: &str) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar("select balance_cents from accounts where account_id = $1")
        .bind(id)
        .fetch_optional(db)
        .await
}

/// Writes a payment; false if its id is known.
pub async fn record(db: &mut PgConnection, payment: &Payment) -> Result<bool, sqlx::Error> {
    let sql = "insert into payments (payment_id, account_id, amount_cents)
         values ($1, $2, $3) on conflict (payment_id) do nothing";
    let written = sqlx::query(sql)
        .bind(&payment.payment_id)
        .bind(&payment.account)
        .bind(payment.amount_cents)
        .execute(db)
        .await?;
    Ok(written.rows_affected() == 1)
}

/// The payment with this id.
pub async fn payment(db: &mut PgConnection, id: &str) -> Result<Option<Payment>, sqlx::Error> {
    let sql = "select account_id, amount_cents from payments where payment_id = $1 limit 1";
    let row: Option<(String, i64)> = sqlx::query_as(sql).bind(id).fetch_optional(db).await?;
    Ok(row.map(|(account, amount_cents)| Payment {
        payment_id: id.to_owned(),
        account,
        amount_cents,
    }))
}

/// Takes the money of a payment if it is there; false if it is not, or there is no such account.
pub async fn debit(db: &mut PgConnection, payment: &Payment) -> Result<bool, sqlx::Error> {
    let sql = "update accounts set balance_cents = balance_cents - $2
         where account_id = $1 and balance_cents >= $2";
    let taken = sqlx::query(sql)
        .bind(&payment.account)
        .bind(payment.amount_cents)
        .execute(db)
        .await?;
    Ok(taken.rows_affected() == 1)
}
