//! Alternative: what happened is stored, and the state is computed from it.
//!
//! A log of commands that were accepted, and a pure function that folds them into orders: replaying
//! the log *is* reading the state. The primary key says that each thing happens to an order once.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::{PgConnection, types::Json};

use crate::{
    contract::{Cancellation, Order, Placed},
    moment::Moment,
    variants::{
        orders::{Cancelled, Stored},
        pricing, serving,
        shop::Shop,
    },
};

const TABLES: &str = "
create table if not exists events (
    order_id text  not null,
    -- 'placed' or 'cancelled'.
    what     text  not null,
    -- The order as it was sent, or the time of its cancellation.
    content  jsonb not null,
    primary key (order_id, what)
);
";

/// Keeps what happened.
#[derive(Debug)]
pub struct EventLog;

#[async_trait]
impl Shop for EventLog {
    async fn store(&self, db: &mut PgConnection, order: &Placed) -> Result<Stored, sqlx::Error> {
        let inserted = sqlx::query(
            "insert into events (order_id, what, content) values ($1, 'placed', $2)
             on conflict do nothing",
        )
        .bind(&order.order.order_id)
        .bind(Json(&order.order))
        .execute(&mut *db)
        .await?;
        if inserted.rows_affected() > 0 {
            return Ok(Stored::New);
        }
        let there = self.find(db, &order.order.order_id).await?;
        Ok(Stored::compared(there, &order.order))
    }

    async fn find(&self, db: &mut PgConnection, id: &str) -> Result<Option<Placed>, sqlx::Error> {
        Ok(replay(db, Some(id)).await?.pop())
    }

    async fn list(&self, db: &mut PgConnection) -> Result<Vec<Placed>, sqlx::Error> {
        let mut orders = replay(db, None).await?;
        orders.sort_by(|one, other| {
            let key = |placed: &Placed| {
                (
                    placed.order.placed_at.clone(),
                    placed.order.order_id.clone(),
                )
            };
            key(one).cmp(&key(other))
        });
        Ok(orders)
    }

    async fn cancel(
        &self,
        db: &mut PgConnection,
        id: &str,
        by: &Cancellation,
    ) -> Result<Cancelled, sqlx::Error> {
        let inserted = sqlx::query(
            "insert into events (order_id, what, content)
             select order_id, 'cancelled', $2 from events where order_id = $1 and what = 'placed'
             on conflict do nothing",
        )
        .bind(id)
        .bind(Json(&by.cancelled_at))
        .execute(&mut *db)
        .await?;
        let is_first = inserted.rows_affected() > 0;
        Ok(match self.find(db, id).await? {
            None => Cancelled::Unknown,
            Some(order) if is_first => Cancelled::Now(order),
            Some(order) => Cancelled::Before(order),
        })
    }

    fn tables(&self) -> String {
        TABLES.to_owned()
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, EventLog).await
}

/// Each order's events side by side, folded into the order that they make.
async fn replay(db: &mut PgConnection, id: Option<&str>) -> Result<Vec<Placed>, sqlx::Error> {
    let events: Vec<(Json<Order>, Option<Json<Moment>>)> = sqlx::query_as(
        "select placed.content, cancelled.content
         from events placed
         left join events cancelled
             on cancelled.order_id = placed.order_id and cancelled.what = 'cancelled'
         where placed.what = 'placed' and ($1::text is null or placed.order_id = $1)",
    )
    .bind(id)
    .fetch_all(db)
    .await?;
    let fold = |(Json(order), cancelled): (Json<Order>, Option<Json<Moment>>)| Placed {
        total_cents: pricing::quote(&order.lines, &order.placed_at).total_cents,
        order,
        cancelled_at: cancelled.map(|Json(at)| at),
    };
    Ok(events.into_iter().map(fold).collect())
}
