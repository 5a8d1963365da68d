//! Alternative: an order and its lines are rows of two tables, written in one transaction.
//!
//! What is read in one statement is whole, too: a second statement could see another moment.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};
use sqlx::{Connection, PgConnection, types::Json};

use crate::{
    contract::{Cancellation, Order, Placed},
    variants::{
        orders::{Cancelled, Columns, Stored, placed},
        serving,
        shop::Shop,
    },
};

/// Its tables.
pub const TABLES: &str = "
create table if not exists orders (
    order_id     text primary key,
    customer     text   not null,
    total_cents  bigint not null,
    placed_at    text   not null,
    cancelled_at text
);
create table if not exists order_lines (
    order_id         text   not null references orders,
    -- The order in which they were sent: rows have none of their own.
    position         bigint not null,
    sku              text   not null,
    quantity         bigint not null,
    unit_price_cents bigint not null,
    primary key (order_id, position)
);
";

/// Two tables.
#[derive(Debug)]
pub struct LinesInOwnTable;

#[async_trait]
impl Shop for LinesInOwnTable {
    async fn store(&self, db: &mut PgConnection, order: &Placed) -> Result<Stored, sqlx::Error> {
        let mut transaction = db.begin().await?;
        let is_new = insert_head(&mut transaction, order).await?;
        if is_new {
            insert_lines(&mut transaction, &order.order).await?;
        }
        transaction.commit().await?;
        if is_new {
            return Ok(Stored::New);
        }
        let there = self.find(db, &order.order.order_id).await?;
        Ok(Stored::compared(there, &order.order))
    }

    async fn find(&self, db: &mut PgConnection, id: &str) -> Result<Option<Placed>, sqlx::Error> {
        find(db, id).await
    }

    async fn list(&self, db: &mut PgConnection) -> Result<Vec<Placed>, sqlx::Error> {
        list(db).await
    }

    async fn cancel(
        &self,
        db: &mut PgConnection,
        id: &str,
        by: &Cancellation,
    ) -> Result<Cancelled, sqlx::Error> {
        cancel(db, id, by).await
    }

    fn tables(&self) -> String {
        TABLES.to_owned()
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, LinesInOwnTable).await
}

/// Writes an order without its lines, unless its id is there.
pub async fn insert_head(db: &mut PgConnection, placed: &Placed) -> Result<bool, sqlx::Error> {
    let inserted = sqlx::query(
        "insert into orders (order_id, customer, total_cents, placed_at)
         values ($1, $2, $3, $4) on conflict do nothing",
    )
    .bind(&placed.order.order_id)
    .bind(&placed.order.customer)
    .bind(placed.total_cents)
    .bind(placed.order.placed_at.as_str())
    .execute(db)
    .await?;
    Ok(inserted.rows_affected() > 0)
}

/// Writes the lines of an order.
pub async fn insert_lines(db: &mut PgConnection, order: &Order) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into order_lines (order_id, position, sku, quantity, unit_price_cents)
         select $1, position, line ->> 'sku', (line ->> 'quantity')::bigint,
                (line ->> 'unit_price_cents')::bigint
         from jsonb_array_elements($2) with ordinality as sent (line, position)",
    )
    .bind(&order.order_id)
    .bind(Json(&order.lines))
    .execute(db)
    .await?;
    Ok(())
}

/// An order with its lines, as far as they are there.
pub async fn find(db: &mut PgConnection, id: &str) -> Result<Option<Placed>, sqlx::Error> {
    Ok(select(db, Some(id)).await?.pop())
}

/// All orders.
pub async fn list(db: &mut PgConnection) -> Result<Vec<Placed>, sqlx::Error> {
    select(db, None).await
}

/// Cancels an order that is placed.
pub async fn cancel(
    db: &mut PgConnection,
    id: &str,
    by: &Cancellation,
) -> Result<Cancelled, sqlx::Error> {
    let updated = sqlx::query(
        "update orders set cancelled_at = $2 where order_id = $1 and cancelled_at is null",
    )
    .bind(id)
    .bind(by.cancelled_at.as_str())
    .execute(&mut *db)
    .await?;
    let is_first = updated.rows_affected() > 0;
    Ok(match find(db, id).await? {
        None => Cancelled::Unknown,
        Some(order) if is_first => Cancelled::Now(order),
        Some(order) => Cancelled::Before(order),
    })
}

async fn select(db: &mut PgConnection, id: Option<&str>) -> Result<Vec<Placed>, sqlx::Error> {
    let rows: Vec<Columns> = sqlx::query_as(
        r#"select order_id, customer,
                  coalesce(
                      (select jsonb_agg(
                          jsonb_build_object(
                              'sku', sku, 'quantity', quantity, 'unit_price_cents', unit_price_cents)
                          order by position)
                       from order_lines where order_lines.order_id = orders.order_id),
                      '[]') as lines,
                  total_cents, placed_at, cancelled_at
           from orders where $1::text is null or order_id = $1
           order by placed_at collate "C", order_id collate "C""#,
    )
    .bind(id)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(placed).collect()
}
