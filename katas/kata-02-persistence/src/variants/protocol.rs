//! The protocol: each method is one decision, with its reason. All that is decided here is the
//! reference's; a flawed variant decides one thing differently.
//!
//! What belongs together is one transaction. Whoever reads in order to write locks first, in an
//! order that is the same for all. An id is remembered by a unique constraint, in the transaction
//! whose effect it stands for. Where no row can be locked, because what matters is which rows there
//! are, the transaction is serializable and repeated.

use std::time::Duration;

use async_trait::async_trait;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use shared::{
    db::{Isolation, TxOptions},
    http::Problem,
};
use sqlx::{PgConnection, types::Json};

use crate::{
    contract::{self, Account, Answered, Data, Payment, Transfer},
    variants::{
        attempts::Attempts,
        ledger::{self, Balances},
        profiles,
        reads::{self, Replayed},
        serving::Service,
        unsafe_transfer,
    },
};

/// Made at start, beside the tables that the lab has made.
///
/// Both ids are unique by constraint: a look before the write sees only what is committed, a
/// unique index knows also of those who are under way.
pub const SCHEMA: &str = "
create unique index if not exists payments_payment_id on payments (payment_id);
create table if not exists transfers (
    transfer_id  text primary key,
    from_account text not null,
    to_account   text not null,
    amount_cents bigint not null
);
";

/// The decisions. All that is written here is the reference's.
#[async_trait]
pub trait Protocol: Send + Sync + 'static {
    /// Made at start, in one round trip.
    fn schema(&self) -> String {
        SCHEMA.to_owned()
    }

    /// How transactions that move money begin, and how often. Each statement sees what is committed
    /// when it begins, which is enough for whoever locks what they read.
    fn money(&self) -> TxOptions {
        patient(Isolation::ReadCommitted)
    }

    /// A transfer's body, checked before anything happens.
    fn read(&self, headers: &HeaderMap, bytes: &[u8]) -> Result<Transfer, Problem> {
        Transfer::read(headers, bytes)
    }

    /// An account is opened once: the primary key decides, not a look before.
    async fn open(&self, service: &Service, account: &Account) -> Answered {
        let sql = "insert into accounts (account_id, balance_cents) values ($1, $2)
             on conflict do nothing";
        let opened = sqlx::query(sql)
            .bind(&account.account_id)
            .bind(account.balance_cents)
            .execute(&service.db)
            .await?;
        match opened.rows_affected() {
            0 => Err(contract::account_exists().into()),
            _ => Ok(contract::shown(StatusCode::CREATED, account)),
        }
    }

    /// What a transfer was before there were transactions: step 1 shows what it costs.
    async fn unsafe_transfer(&self, service: &Service, transfer: &Transfer) -> Answered {
        unsafe_transfer::run(service, transfer).await
    }

    /// A transfer is one transaction: all of it, or nothing.
    async fn transfer(&self, service: &Service, transfer: &Transfer) -> Answered {
        let mut attempts = Attempts::new(self.money());
        loop {
            let mut tx = attempts.begin(&service.db).await?;
            let outcome = self.transfer_in(&mut tx, transfer).await;
            if let Some(answer) = attempts.end(tx, outcome).await {
                return answer;
            }
        }
    }

    /// What happens in that transaction. A refusal rolls it back, so that it is not remembered: the
    /// same transfer succeeds when the money has come.
    async fn transfer_in(&self, tx: &mut PgConnection, transfer: &Transfer) -> Answered {
        if !self.remember(tx, transfer).await? {
            let known = ledger::transfer(tx, &transfer.transfer_id).await?;
            return same_again(known.as_ref() == Some(transfer), transfer);
        }
        let balances = self.lock(tx, transfer).await?;
        self.allows(&balances, transfer)?;
        self.move_money(tx, transfer, &balances).await?;
        Ok(contract::shown(StatusCode::CREATED, transfer))
    }

    /// Notes the id; false if it is known. Whoever comes second waits here until the first is
    /// through: then the id is known, or free again.
    async fn remember(&self, tx: &mut PgConnection, transfer: &Transfer) -> Answered<bool> {
        Ok(ledger::remember(tx, transfer).await?)
    }

    /// Locks both accounts and reads them, always in the order of their ids: two transfers in
    /// opposite directions meet at the same row, and one waits for the other, not each for each.
    async fn lock(&self, tx: &mut PgConnection, transfer: &Transfer) -> Answered<Balances> {
        Ok(ledger::lock_in_order(tx, transfer).await?)
    }

    /// The rules, on balances that nobody else can change any more.
    fn allows(&self, balances: &Balances, transfer: &Transfer) -> Result<(), Problem> {
        match (balances.from, balances.to) {
            (Some(from), Some(_)) if from < transfer.amount_cents => {
                Err(contract::not_enough_money())
            }
            (Some(_), Some(_)) => Ok(()),
            _ => Err(contract::not_found("account")),
        }
    }

    /// Debit and credit.
    async fn move_money(
        &self,
        tx: &mut PgConnection,
        transfer: &Transfer,
        _balances: &Balances,
    ) -> Answered<()> {
        Ok(ledger::move_money(tx, transfer).await?)
    }

    /// A payment is one transaction, as a transfer is.
    async fn pay(&self, service: &Service, payment: &Payment) -> Answered {
        let mut attempts = Attempts::new(self.money());
        loop {
            let mut tx = attempts.begin(&service.db).await?;
            let outcome = self.pay_in(&mut tx, payment).await;
            if let Some(answer) = attempts.end(tx, outcome).await {
                return answer;
            }
        }
    }

    /// What happens in that transaction: the row first, so that a duplicate never comes to the
    /// debit.
    async fn pay_in(&self, tx: &mut PgConnection, payment: &Payment) -> Answered {
        if !self.record(tx, payment).await? {
            let known = ledger::payment(tx, &payment.payment_id).await?;
            return same_again(self.is_same(known.as_ref(), payment), payment);
        }
        self.debit(tx, payment).await?;
        Ok(contract::shown(StatusCode::CREATED, payment))
    }

    /// Writes the payment; false if the id is known. One of fifty wins.
    async fn record(&self, tx: &mut PgConnection, payment: &Payment) -> Answered<bool> {
        Ok(ledger::record(tx, payment).await?)
    }

    /// Whether a known payment is this one: an id cannot pay one thing and answer for another.
    fn is_same(&self, known: Option<&Payment>, payment: &Payment) -> bool {
        known == Some(payment)
    }

    /// Takes the money, if it is there. Question and write are one statement, so nothing can come
    /// in between.
    async fn debit(&self, tx: &mut PgConnection, payment: &Payment) -> Answered<()> {
        if ledger::debit(tx, payment).await? {
            return Ok(());
        }
        match ledger::balance(tx, &payment.account).await? {
            Some(_) => Err(contract::not_enough_money().into()),
            None => Err(contract::not_found("account").into()),
        }
    }

    /// A payment by its id, found by the index that makes the id unique.
    async fn find_payment(&self, service: &Service, id: &str) -> Answered<Option<Payment>> {
        let mut db = service.db.acquire().await?;
        Ok(ledger::payment(&mut db, id).await?)
    }

    /// The first content of a profile: `None` if there is one.
    async fn create(&self, service: &Service, id: &str, data: &Data) -> Answered<Option<String>> {
        Ok(profiles::create(service, id, data).await?)
    }

    /// New content over the one that the caller has seen; `None` if that has changed. Comparing and
    /// writing are one statement: between two there is always room for somebody else.
    async fn replace(
        &self,
        service: &Service,
        id: &str,
        data: &Data,
        seen: &str,
    ) -> Answered<Option<String>> {
        let Some(version) = profiles::version(seen) else {
            return Ok(None);
        };
        let sql = "update profiles set data = $2, version = version + 1
             where profile_id = $1 and version = $3 returning version";
        let written = sqlx::query_scalar(sql)
            .bind(id)
            .bind(Json(data))
            .bind(version)
            .fetch_optional(&service.db)
            .await?;
        Ok(written.map(profiles::etag))
    }

    /// Adds one to a member, under a lock on the row: nobody has to try again, they wait.
    async fn increment(
        &self,
        service: &Service,
        id: &str,
        field: &str,
    ) -> Answered<(Data, String)> {
        let mut attempts = Attempts::new(patient(Isolation::ReadCommitted));
        loop {
            let mut tx = attempts.begin(&service.db).await?;
            let outcome = self.increment_in(&mut tx, id, field).await;
            if let Some(answer) = attempts.end(tx, outcome).await {
                return answer;
            }
        }
    }

    /// What happens in that transaction.
    async fn increment_in(
        &self,
        tx: &mut PgConnection,
        id: &str,
        field: &str,
    ) -> Answered<(Data, String)> {
        let Some((mut data, _)) = profiles::lock(tx, id).await? else {
            return Err(contract::not_found("profile").into());
        };
        profiles::add_one(&mut data, field)?;
        let version = profiles::write(tx, id, &data).await?;
        Ok((data, profiles::etag(version)))
    }

    /// Who is on call, by code point, whatever collation the database has.
    async fn on_call(&self, service: &Service) -> Answered<Vec<String>> {
        let sql = "select doctor from doctors where on_call order by doctor collate \"C\"";
        Ok(sqlx::query_scalar(sql).fetch_all(&service.db).await?)
    }

    /// How the shift rule is kept. It is about rows that the transaction does not write, so locking
    /// what it writes is not enough. Serializable notices that somebody wrote what was read here;
    /// one of the two is refused by PostgreSQL, and repeated.
    fn shifts(&self) -> TxOptions {
        patient(Isolation::Serializable)
    }

    /// A doctor leaves, if another one stays.
    async fn leave(&self, service: &Service, doctor: &str) -> Answered {
        let mut attempts = Attempts::new(self.shifts());
        loop {
            let mut tx = attempts.begin(&service.db).await?;
            let outcome = self.leave_in(&mut tx, doctor).await;
            if let Some(answer) = attempts.end(tx, outcome).await {
                return answer;
            }
        }
    }

    /// What happens in that transaction.
    async fn leave_in(&self, tx: &mut PgConnection, doctor: &str) -> Answered {
        let on_call: Option<bool> =
            sqlx::query_scalar("select on_call from doctors where doctor = $1")
                .bind(doctor)
                .fetch_optional(&mut *tx)
                .await?;
        match on_call {
            None => return Err(contract::not_found("doctor").into()),
            Some(false) => return Ok(StatusCode::NO_CONTENT.into_response()),
            Some(true) => {}
        }
        let sql = "select count(*) from doctors where on_call and doctor <> $1";
        let others: i64 = sqlx::query_scalar(sql)
            .bind(doctor)
            .fetch_one(&mut *tx)
            .await?;
        if others == 0 {
            return Err(contract::nobody_left().into());
        }
        sqlx::query("update doctors set on_call = false where doctor = $1")
            .bind(doctor)
            .execute(&mut *tx)
            .await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    /// A balance as it is: only the primary knows it.
    async fn strong(&self, service: &Service, id: &str) -> Answered {
        reads::strong(&service.db, id).await
    }

    /// A balance that may be behind, and by how much: from the replica. Without one, from the
    /// primary, and not behind.
    async fn eventual(&self, service: &Service, id: &str) -> Answered {
        let Some(replica) = &service.replica else {
            return reads::current(&service.db, id).await;
        };
        let (replayed, balance) = reads::look(replica, id).await?;
        let staleness_ms = self.staleness_ms(service, &replayed).await?;
        reads::behind(id, balance, staleness_ms)
    }

    /// How far behind that is. The replica alone cannot tell: one that is cut off has replayed all
    /// that it knows of, and one whose primary is idle has replayed nothing for long. So the
    /// primary is asked where it is, and if it cannot be asked, the answer is not known to be
    /// complete.
    async fn staleness_ms(&self, service: &Service, replayed: &Replayed) -> Answered<Option<i64>> {
        let has_all = reads::has_all(&service.db, replayed).await.unwrap_or(false);
        Ok(Some(match has_all {
            true => 0,
            false => replayed.behind_ms(),
        }))
    }
}

/// As often as it takes: whoever loses a race is not to blame, and must not hear of it. The pauses
/// are short, because those who collide here hold nothing while they wait.
pub fn patient(isolation: Isolation) -> TxOptions {
    TxOptions {
        isolation,
        attempts: 200,
        backoff: Duration::from_millis(2),
        backoff_limit: Duration::from_millis(50),
        ..TxOptions::default()
    }
}

/// The answer to an id that is known: the first one again, or a refusal if it stood for something
/// else.
pub fn same_again(is_same: bool, body: &impl serde::Serialize) -> Answered<Response> {
    match is_same {
        true => Ok(contract::shown(StatusCode::OK, body)),
        false => Err(contract::reused_id().into()),
    }
}
