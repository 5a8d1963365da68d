//! Step 8: keys expire, and the table does not grow.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use kata_lab::{Judged, Lab, Promise, Stop};

use super::till::{Payment, SLACK, pause, until_final};

/// How late an expired key may be free.
const GRACE: Duration = Duration::from_secs(2);

/// An expired key serves another payment.
pub async fn frees_expired_keys(lab: Lab) -> Judged {
    // Short enough to wait for, and long enough that a busy machine ends a request before them.
    lab.prefer("KEY_LEASE_MS", 1_000);
    lab.prefer("KEY_TTL_MS", 3_000);
    let program = lab.start().await?;
    let payment = Payment::new(&lab);
    let made = Promise::new("POST /pay", "the payment is made");
    // With so short a lease and memory, a slow machine may cost it its first try.
    let first = until_final(&lab, SLACK, &made, || payment.request(&program)).await?;
    if let Some(saw) = payment.not_paid_by(&lab, &first) {
        return made.broken(saw);
    }
    let promise = Promise::new(
        "POST /pay with the same key for another payment, again and again until the key had expired",
        "the other payment is made, with a charge of its own",
    );
    let next = payment.under_the_same_key(&lab);
    let began = Instant::now();
    let within = lab.millis("KEY_TTL_MS") + GRACE + SLACK;
    loop {
        // 422 is not final here: the key is still remembered. What counts is when it was asked,
        // since an answer may be long under way.
        let asked = began.elapsed();
        let left = within.saturating_sub(asked).max(SLACK);
        let reply = until_final(&lab, left, &promise, || next.request(&program)).await?;
        match next.not_paid_by(&lab, &reply) {
            None => break,
            Some(saw) => promise.holds(asked < within, saw)?,
        }
        pause(&lab).await;
    }
    let (captures, saw) = next.captures(&lab);
    promise.holds(captures == 1, saw)
}

/// Expired keys leave: a hundred of them, under a request each 50 ms. (Two hundred would prove no
/// more: the keys that may be alive meanwhile, and the rows allowed, are fewer than a hundred.)
pub async fn keeps_the_table_small(lab: Lab) -> Judged<String> {
    const KEYS: usize = 100;
    const AT_ONCE: usize = 10;
    const ROWS_ALLOWED: usize = 20;
    const BETWEEN: Duration = Duration::from_millis(50);
    const LOOK_EVERY: u32 = 4;
    // A program that has answered so many requests has had its share of the processor.
    const ENOUGH: u32 = 100;
    lab.prefer("KEY_LEASE_MS", 500);
    lab.prefer("KEY_TTL_MS", 1_000);
    let program = lab.start().await?;
    let promise = Promise::new(
        format!(
            "{KEYS} × POST /pay with a key each; when they had expired, one more request each 50 ms"
        ),
        format!(
            "within 5 s no more than {ROWS_ALLOWED} rows besides the live keys' are left in all tables but `payments`"
        ),
    );
    let made = Promise::new("POST /pay", "the payment is made");
    let make = async |payment: Payment| -> Judged {
        let request = || payment.request(&program).quietly();
        let reply = until_final(&lab, SLACK, &made, request).await?;
        made.holds(reply.status.is_success(), reply.to_string())
    };
    let payments: Vec<_> = (0..KEYS).map(|_| make(Payment::new(&lab))).collect();
    let mut payments = stream::iter(payments).buffer_unordered(AT_ONCE);
    while let Some(paid) = payments.next().await {
        paid?;
    }
    lab.note(format!("{KEYS} payments with a key each"));

    let lifetime = lab.millis("KEY_TTL_MS") + GRACE;
    let began = Instant::now();
    // Longer than promised, so that a slow machine has its time.
    let within = lifetime + SLACK;
    let mut sent = VecDeque::new();
    let mut looks = 0;
    loop {
        let (paid, ()) = tokio::join!(make(Payment::new(&lab)), tokio::time::sleep(BETWEEN));
        paid?;
        sent.push_back(Instant::now());
        while sent.front().is_some_and(|at| at.elapsed() > lifetime) {
            sent.pop_front();
        }
        // Counting is dear, and before their time is over there is nothing to see.
        looks += 1;
        if looks % LOOK_EVERY != 0 || began.elapsed() < lab.millis("KEY_TTL_MS") {
            continue;
        }
        let rows = rows(&lab).await?;
        if rows <= sent.len() + ROWS_ALLOWED {
            let seconds = began.elapsed().as_secs_f64();
            return Ok(format!("{rows} rows left after {seconds:.1} s"));
        }
        if began.elapsed() > within && looks >= ENOUGH {
            return promise.broken(format!(
                "{rows} rows, with at most {} keys alive",
                sent.len()
            ));
        }
    }
}

/// The rows in all tables of the program's schema but `payments`.
async fn rows(lab: &Lab) -> Judged<usize> {
    let counted = sqlx::query_scalar::<_, i64>(
        "select coalesce(sum((xpath('/row/n/text()', query_to_xml(
             format('select count(*) as n from %I.%I', schemaname, tablename), false, true, ''
         )))[1]::text::bigint), 0)::bigint
         from pg_tables where schemaname = $1 and tablename <> 'payments'",
    )
    .bind(lab.schema())
    .fetch_one(lab.admin())
    .await;
    match counted {
        Ok(rows) => Ok(usize::try_from(rows).unwrap_or_default()),
        Err(error) => Stop::inconclusive(format!("the rows cannot be counted: {error}")),
    }
}
