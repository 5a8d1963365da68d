//! Step 8: an index is the difference between reading one row and reading all of them.

use std::time::Duration;

use kata_lab::{Instance, Judged, Lab, Promise, Stop};
use serde_json::json;
use sqlx::AssertSqlSafe;

use super::bank::unreadable;

/// How many payments there are before the program is started for the first time.
const ROWS: i64 = 200_000;

/// How many of them are looked up.
const LOOK_UPS: i64 = 20;

/// How many rows those may read one after the other: none with an index, 4,000,000 without.
const READ_AT_MOST: i64 = 200_000;

/// What the server has counted in the program's tables.
#[derive(Debug, Clone, Copy)]
struct Counted {
    /// Rows that were read by going through a table.
    rows: i64,
    /// Times that a table was gone through or an index was used.
    scans: i64,
}

/// Twenty look-ups among 200,000 payments do not go through all of them.
pub async fn finds_payments_by_an_index(lab: Lab) -> Judged<String> {
    if !lab.can_start_instances() {
        return Stop::not_run(
            "it fills the table before the first start, which only the lab can do (--cmd)",
        );
    }
    fill(&lab).await?;
    // The first start may build an index, which reads the whole table.
    let program = lab.start().await?;
    stop(&lab, &program).await?;
    let before = counted(&lab).await?;
    program.restart().await?;
    stop(&lab, &program).await?;
    let started = counted(&lab).await?;
    program.restart().await?;
    for number in 0..LOOK_UPS {
        let id = format!("pay-{}", number * (ROWS / LOOK_UPS) + 1);
        let reply = program.get(format!("/payments/{id}")).send().await?;
        let expected = json!({ "payment_id": id, "account": ACCOUNT, "amount_cents": 1 });
        let body = reply.json().unwrap_or_default();
        let shows = expected
            .as_object()
            .is_some_and(|members| members.iter().all(|(name, value)| body[name] == *value));
        Promise::new(
            "GET /payments/{id} of a payment that was there before the first start",
            "200 with its members",
        )
        .holds(reply.status.is_success() && shows, reply.to_string())?;
    }
    stop(&lab, &program).await?;
    let looked_up = counted(&lab).await?;
    if looked_up.scans - started.scans < LOOK_UPS {
        return Stop::inconclusive(format!(
            "the server has counted {} scans for {LOOK_UPS} look-ups",
            looked_up.scans - started.scans
        ));
    }
    let read = (looked_up.rows - started.rows) - (started.rows - before.rows);
    Promise::new(
        format!("{LOOK_UPS} × GET /payments/{{id}} among {ROWS} payments; pg_stat_user_tables"),
        format!("at most {READ_AT_MOST} rows are read one after the other"),
    )
    .holds(read <= READ_AT_MOST, format!("{read} rows"))?;
    Ok(format!("{read} rows read one after the other"))
}

const ACCOUNT: &str = "filler";

/// Puts the payments into the table before the program sees it.
async fn fill(lab: &Lab) -> Judged {
    let schema = lab.schema();
    let fill = format!(
        "insert into {schema}.accounts (account_id, balance_cents) values ('{ACCOUNT}', 0);
         insert into {schema}.payments (payment_id, account_id, amount_cents)
         select 'pay-' || n, '{ACCOUNT}', 1 from generate_series(1, {ROWS}) as n;"
    );
    match sqlx::raw_sql(AssertSqlSafe(fill))
        .execute(lab.admin())
        .await
    {
        Ok(_) => Ok(()),
        Err(error) => unreadable(error),
    }
}

/// Stops the program and ends its sessions: a session tells what it has read when it ends.
async fn stop(lab: &Lab, program: &Instance) -> Judged {
    program.stop().await?;
    let gone = async || {
        let left: Result<i64, _> = sqlx::query_scalar(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = $1",
        )
        .bind(lab.schema())
        .fetch_one(lab.admin())
        .await;
        matches!(left, Ok(0))
    };
    match lab.until(Duration::from_secs(30), gone).await {
        true => Ok(()),
        false => Stop::inconclusive("the program's sessions did not end"),
    }
}

async fn counted(lab: &Lab) -> Judged<Counted> {
    let read = sqlx::query_as(
        "select coalesce(sum(seq_tup_read), 0)::bigint,
                coalesce(sum(seq_scan + coalesce(idx_scan, 0)), 0)::bigint
         from pg_stat_user_tables where schemaname = $1",
    )
    .bind(lab.schema())
    .fetch_one(lab.admin())
    .await;
    match read {
        Ok((rows, scans)) => Ok(Counted { rows, scans }),
        Err(error) => unreadable(error),
    }
}
