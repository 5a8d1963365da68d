//! Your exercise: an order is never announced, and then not there. This is the only file to edit.
//!
//! | step | what to build | where | checks |
//! | --- | --- | --- | --- |
//! | 1 | place, read and cancel an order | `TABLES`, `store`, `find`, `list`, `cancel` | `shows_an_order`, `lists_orders_by_time_and_id`, `cancels_an_order`, `refuses_wrong_input`, `keeps_an_id_for_one_order` |
//! | 2 | the price is a pure function | `price`, `place` | `prices_by_the_rules`, `prices_without_effect_or_memory`, `charges_what_was_quoted` |
//! | 3 | effects have names, and stay at the edge | `on_placing`, `on_cancelling`, `carry_out`, `rehearse`, `place`, `post_cancel` | `causes_each_effect_once`, `causes_effects_in_order`, `lists_the_effects_in_a_dry_run`, `causes_nothing_in_a_dry_run`, `refuses_in_a_dry_run_as_in_earnest` |
//! | 4 | the process is stateless | `store`, `app` | `shares_its_state_between_instances`, `survives_a_crash_at_every_point`, `places_once_across_instances`, `comes_back_after_a_cut` |
//! | 5 | the same commands make the same state | `list`, `cancel` | `replays_to_the_same_state` |
//! | 6 | first the state, then the effects | `place`, `carry_out` | `stores_before_it_sends`, `sends_nothing_for_what_was_not_stored`, `goes_on_after_a_refused_call` |
//!
//! `crate::contract` has the bodies and the answers, `crate::moment` the times, `crate::effects` the
//! effects as values and the client that carries one out. What is here already runs, and answers 501
//! on every route until you replace the `todo!()`s. Change whatever you like: the checks know the
//! routes, and nothing of this file.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, RawQuery, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode};
use kata_lab::{App, BoxError, Env};
use serde_json::{Value, json};
use shared::http::Problem;
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::{
    contract::{self, Cancellation, Cart, Config, Line, Order, Placed, Quote},
    effects::{Effect, Outside},
    moment::Moment,
};

/// Made at start, in one round trip, if they are not there yet.
///
/// Step 1: what does an order need, so that it can be shown as it was sent?
pub const TABLES: &str = "
create table if not exists orders (
    order_id text primary key
);
";

/// What the handlers work with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shop {
    /// Connections to the database.
    pub db: PgPool,
    /// Mail and warehouse.
    pub outside: Outside,
}

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

/// What came of cancelling one.
#[derive(Debug, Clone)]
pub enum Cancelled {
    /// It was placed and is cancelled now.
    Now(Placed),
    /// It was cancelled before.
    Before(Placed),
    /// There is none.
    Unknown,
}

/// The application.
pub async fn app(env: Env) -> Result<App, BoxError> {
    let config = Config::from_env(&env)?;
    let db = PgPoolOptions::new()
        .max_connections(10)
        .connect_lazy(&config.database_url)?;
    sqlx::raw_sql(TABLES).execute(&db).await?;
    let shop = Shop {
        db,
        outside: Outside::new(&config)?,
    };
    let router = Router::new()
        .route(contract::ORDERS, post(post_order).get(get_orders))
        .route(contract::ORDER, get(get_order))
        .route(contract::CANCEL, post(post_cancel))
        .route(contract::QUOTES, post(post_quote))
        .with_state(shop);
    Ok(App::new(router))
}

// ------------------------------------------------------------ the core: values in, values out

/// What a cart costs. It gets no database, no clock and no `async`: it cannot ask anybody.
pub fn price(lines: &[Line], at: &Moment) -> Quote {
    let _ = (lines, at);
    todo!("step 2: bulk, then weekend, each rounded down where its rule says")
}

/// What placing an order does outside, in order.
pub fn on_placing(order: &Order) -> Vec<Effect> {
    let _ = order;
    todo!("step 3: name the effects; do none of them here")
}

/// What cancelling an order does outside, in order.
pub fn on_cancelling(order: &Order) -> Vec<Effect> {
    let _ = order;
    todo!("step 3: the goods are free again, and the customer should know")
}

// ------------------------------------------------------------------- the state: the database

/// Stores an order unless its id is there, and says what it found.
pub async fn store(shop: &Shop, order: &Placed) -> Result<Stored, sqlx::Error> {
    let _ = (shop, order);
    todo!("step 1: which statement decides that it is new? (step 4 comes back here)")
}

/// An order.
pub async fn find(shop: &Shop, id: &str) -> Result<Option<Placed>, sqlx::Error> {
    let _ = (shop, id);
    todo!("step 1: as it was sent, line by line")
}

/// All orders.
pub async fn list(shop: &Shop) -> Result<Vec<Placed>, sqlx::Error> {
    let _ = shop;
    todo!("step 1: by placed_at, then by the bytes of order_id")
}

/// Cancels an order that is placed, and says what it found.
pub async fn cancel(shop: &Shop, id: &str, by: &Cancellation) -> Result<Cancelled, sqlx::Error> {
    let _ = (shop, id, by);
    todo!("step 1: once; the first time stays")
}

// ------------------------------------------------------- the edge: what the world sees of us

/// Does what the list says. Nothing else in this file may call out.
pub async fn carry_out(shop: &Shop, effects: &[Effect]) {
    let _ = (shop, effects);
    todo!("step 3: one after the other, each once; step 6: what if one is refused?")
}

/// From an order to its answer.
pub async fn place(shop: &Shop, order: Order) -> Result<Response, sqlx::Error> {
    let order = Placed {
        // Step 2: what a quote for its lines says, at its own moment.
        total_cents: 0,
        order,
        cancelled_at: None,
    };
    // Step 3: the effects of a new order are carried out here; step 6: before this line, or after?
    Ok(match store(shop, &order).await? {
        Stored::New => (StatusCode::CREATED, Json(order.shown())).into_response(),
        Stored::Same => Json(order.shown()).into_response(),
        Stored::Other => contract::id_is_taken().into_response(),
    })
}

/// What `place` would do: `contract::effects_shown`, or the refusal.
pub async fn rehearse(shop: &Shop, order: Order) -> Result<Result<Value, Problem>, sqlx::Error> {
    let _ = (shop, order);
    todo!("step 3: ask the same functions as `place`, and carry nothing out")
}

async fn post_order(
    State(shop): State<Shop>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let order = Order::read(&headers, &bytes)?;
    if contract::is_dry_run(query.as_deref()) {
        let shown = rehearse(&shop, order).await.map_err(database_failed)??;
        return Ok(Json(shown).into_response());
    }
    place(&shop, order).await.map_err(database_failed)
}

async fn get_orders(State(shop): State<Shop>) -> Result<Response, Problem> {
    let orders = list(&shop).await.map_err(database_failed)?;
    let shown: Vec<_> = orders.iter().map(Placed::shown).collect();
    Ok(Json(json!({ "orders": shown })).into_response())
}

async fn get_order(State(shop): State<Shop>, Path(id): Path<String>) -> Result<Response, Problem> {
    let order = find(&shop, &id).await.map_err(database_failed)?;
    let order = order.ok_or_else(contract::not_found)?;
    Ok(Json(order.shown()).into_response())
}

async fn post_cancel(
    State(shop): State<Shop>,
    Path(id): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let by = Cancellation::read(&headers, &bytes)?;
    let order = match cancel(&shop, &id, &by).await.map_err(database_failed)? {
        Cancelled::Unknown => return Err(contract::not_found()),
        // Step 3: one of these two has effects.
        Cancelled::Now(order) | Cancelled::Before(order) => order,
    };
    Ok(Json(order.shown()).into_response())
}

async fn post_quote(headers: HeaderMap, bytes: Bytes) -> Result<Response, Problem> {
    let cart = Cart::read(&headers, &bytes)?;
    Ok(Json(price(&cart.lines, &cart.at)).into_response())
}

/// A client never reads what a database says.
fn database_failed(error: sqlx::Error) -> Problem {
    tracing::warn!(%error, "the database failed");
    contract::unavailable()
}
