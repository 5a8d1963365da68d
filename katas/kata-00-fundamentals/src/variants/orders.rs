//! Orders in the database: the statements that the variants share.

use sqlx::{PgConnection, types::Json};

use crate::{
    contract::{Cancellation, Line, Order, Placed},
    moment::Moment,
};

/// Made at start, if they are not there yet.
pub const TABLES: &str = "
create table if not exists orders (
    order_id     text primary key,
    customer     text   not null,
    -- The whole order is one row: half of one cannot exist, whatever dies when.
    lines        jsonb  not null,
    total_cents  bigint not null,
    -- Times are what was sent, as it was sent. They have one form, so their texts sort like times.
    placed_at    text   not null,
    cancelled_at text
);
";

/// What came of storing an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is there now, and was not before.
    New,
    /// The same was there.
    Same,
    /// Another one has its id.
    Other,
}

impl Stored {
    /// What it means that this order is in the way. A cancelled one counts as it was placed.
    pub fn compared(there: Option<Placed>, order: &Order) -> Self {
        match there {
            Some(there) if there.order == *order => Stored::Same,
            _ => Stored::Other,
        }
    }
}

/// What came of cancelling one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelled {
    /// It was placed and is cancelled now.
    Now(Placed),
    /// It was cancelled before.
    Before(Placed),
    /// There is none.
    Unknown,
}

/// The columns of an order.
pub type Columns = (String, String, Json<Vec<Line>>, i64, String, Option<String>);

/// Stores an order unless its id is there, and says whether it did. One statement: nothing can come
/// between looking and writing, and of many at once one wins, whichever instances they go through.
///
/// # Errors
/// The database's.
pub async fn insert(db: &mut PgConnection, placed: &Placed) -> Result<bool, sqlx::Error> {
    let inserted = sqlx::query(
        "insert into orders (order_id, customer, lines, total_cents, placed_at)
         values ($1, $2, $3, $4, $5) on conflict do nothing",
    )
    .bind(&placed.order.order_id)
    .bind(&placed.order.customer)
    .bind(Json(&placed.order.lines))
    .bind(placed.total_cents)
    .bind(placed.order.placed_at.as_str())
    .execute(db)
    .await?;
    Ok(inserted.rows_affected() > 0)
}

/// An order.
///
/// # Errors
/// The database's.
pub async fn find(db: &mut PgConnection, id: &str) -> Result<Option<Placed>, sqlx::Error> {
    let columns: Option<Columns> = sqlx::query_as(
        "select order_id, customer, lines, total_cents, placed_at, cancelled_at
         from orders where order_id = $1",
    )
    .bind(id)
    .fetch_optional(db)
    .await?;
    columns.map(placed).transpose()
}

/// All orders. `collate "C"` compares bytes; without it the order is that of the language that the
/// database was made with, and another server gives another list.
///
/// # Errors
/// The database's.
pub async fn list(db: &mut PgConnection) -> Result<Vec<Placed>, sqlx::Error> {
    let rows: Vec<Columns> = sqlx::query_as(
        r#"select order_id, customer, lines, total_cents, placed_at, cancelled_at
           from orders order by placed_at collate "C", order_id collate "C""#,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(placed).collect()
}

/// Cancels an order that is placed; `None` if there is none.
///
/// # Errors
/// The database's.
pub async fn cancel(
    db: &mut PgConnection,
    id: &str,
    by: &Cancellation,
) -> Result<Option<Placed>, sqlx::Error> {
    let columns: Option<Columns> = sqlx::query_as(
        "update orders set cancelled_at = $2
         where order_id = $1 and cancelled_at is null
         returning order_id, customer, lines, total_cents, placed_at, cancelled_at",
    )
    .bind(id)
    .bind(by.cancelled_at.as_str())
    .fetch_optional(db)
    .await?;
    columns.map(placed).transpose()
}

/// A row as the order that it is.
///
/// # Errors
/// [`sqlx::Error::Decode`] if there is a time in it that we did not write.
pub fn placed(columns: Columns) -> Result<Placed, sqlx::Error> {
    let (order_id, customer, Json(lines), total_cents, placed_at, cancelled_at) = columns;
    let moment =
        |text: String| Moment::try_from(text).map_err(|error| sqlx::Error::Decode(Box::new(error)));
    Ok(Placed {
        order: Order {
            order_id,
            customer,
            lines,
            placed_at: moment(placed_at)?,
        },
        total_cents,
        cancelled_at: cancelled_at.map(moment).transpose()?,
    })
}
