//! The shop: each method is one decision, with its reason. All that is decided here is the
//! reference's; a flawed variant decides one thing differently.
//!
//! A functional core in an imperative shell. What an order costs and which effects it has are
//! values, computed from the input alone; the shell reads, stores, and then carries the effects out.
//!
//! ```text
//! input  → Order::read   process → pricing, on_placing   state → store   output → shown
//!                                                                 effects → carry_out, last
//! ```
//!
//! An order goes through these states, and no others:
//!
//! ```text
//! (none)    → placed      store: one insert, which one of many wins
//! placed    → cancelled   cancel: one update; the first time stays
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use shared::http::Problem;
use sqlx::PgConnection;

use crate::{
    contract::{self, Cancellation, Cart, Order, Placed},
    effects::{Effect, Template},
    variants::{
        orders::{self, Cancelled, Stored},
        pricing,
        serving::{Db, Refusal, Service, in_own_task},
    },
};

/// The decisions. All that is written here is the reference's.
#[async_trait]
pub trait Shop: Send + Sync + 'static {
    /// The input, checked before anything happens.
    fn read(&self, headers: &HeaderMap, bytes: &[u8]) -> Result<Order, Problem> {
        Order::read(headers, bytes)
    }

    /// The answer to a request for a price: a function of the cart, and of nothing else.
    async fn quote(&self, _service: &Service, cart: &Cart) -> Value {
        json!(pricing::quote(&cart.lines, &cart.at))
    }

    /// What an order costs: the price at the moment that the *order* names. Tomorrow it costs the
    /// same.
    fn total(&self, order: &Order) -> i64 {
        pricing::quote(&order.lines, &order.placed_at).total_cents
    }

    /// What placing an order does outside, as values, in order: goods first, since a customer must
    /// not be told of what cannot be had.
    fn on_placing(&self, order: &Order) -> Vec<Effect> {
        vec![
            Effect::reservation(order),
            Effect::mail(order, Template::OrderPlaced),
        ]
    }

    /// The same for cancelling.
    fn on_cancelling(&self, order: &Order) -> Vec<Effect> {
        vec![
            Effect::release(order),
            Effect::mail(order, Template::OrderCancelled),
        ]
    }

    /// The only place that touches the world outside. Each effect once: a call that was not answered
    /// may have done its work, and the services here do not know a repetition from a second wish.
    /// One that fails is noted and costs the order nothing: the order is a fact by now.
    async fn carry_out(&self, service: &Service, effects: &[Effect]) {
        for effect in effects {
            if let Err(error) = service.outside.carry_out(effect).await {
                tracing::warn!(%error, path = effect.path, "an effect is missing");
            }
        }
    }

    /// A connection. State is in the database and nowhere else, so that any instance can answer,
    /// and none is missed.
    async fn db(&self, service: &Service) -> Result<Db, sqlx::Error> {
        Ok(Box::new(service.db.acquire().await?))
    }

    /// Stores an order, or says what is there.
    async fn store(&self, db: &mut PgConnection, order: &Placed) -> Result<Stored, sqlx::Error> {
        if orders::insert(&mut *db, order).await? {
            return Ok(Stored::New);
        }
        // Nobody deletes orders: what was in the way is still there.
        let there = self.find(db, &order.order.order_id).await?;
        Ok(Stored::compared(there, &order.order))
    }

    /// An order.
    async fn find(&self, db: &mut PgConnection, id: &str) -> Result<Option<Placed>, sqlx::Error> {
        orders::find(db, id).await
    }

    /// All orders, by time and then by the bytes of their ids.
    async fn list(&self, db: &mut PgConnection) -> Result<Vec<Placed>, sqlx::Error> {
        orders::list(db).await
    }

    /// Cancels an order, if it is there and placed.
    async fn cancel(
        &self,
        db: &mut PgConnection,
        id: &str,
        by: &Cancellation,
    ) -> Result<Cancelled, sqlx::Error> {
        if let Some(order) = orders::cancel(&mut *db, id, by).await? {
            return Ok(Cancelled::Now(order));
        }
        Ok(match self.find(db, id).await? {
            Some(order) => Cancelled::Before(order),
            None => Cancelled::Unknown,
        })
    }

    /// The output.
    fn shown(&self, order: &Placed) -> Value {
        order.shown()
    }

    /// From the request to its answer: first the state, then the effects. The other way round there
    /// is a moment in which a customer has a letter about an order that does not exist.
    async fn place(&self, service: &Service, order: Order) -> Result<Response, Refusal> {
        let order = self.placed(order);
        let stored = {
            let mut db = self.db(service).await?;
            self.store(&mut db, &order).await?
        };
        match stored {
            Stored::New => {}
            Stored::Same => return Ok(Json(self.shown(&order)).into_response()),
            Stored::Other => return Err(contract::id_is_taken().into()),
        }
        // No connection is held meanwhile: a slow service outside must not use them up.
        self.carry_out(service, &self.on_placing(&order.order))
            .await;
        Ok((StatusCode::CREATED, Json(self.shown(&order))).into_response())
    }

    /// What [`Shop::place`] would do. It asks the same function for the effects, so that the two
    /// cannot differ, and the same state for refusals.
    async fn rehearse(&self, service: &Service, order: Order) -> Result<Value, Refusal> {
        let mut db = self.db(service).await?;
        Ok(match self.find(&mut db, &order.order_id).await? {
            None => contract::effects_shown(Some("order placed"), &self.on_placing(&order)),
            Some(there) if there.order == order => contract::effects_shown(None, &[]),
            Some(_) => return Err(contract::id_is_taken().into()),
        })
    }

    /// Cancels, and then tells the world, if it was this request that did it.
    async fn call_off(
        &self,
        service: &Service,
        id: &str,
        by: &Cancellation,
    ) -> Result<Response, Refusal> {
        let cancelled = {
            let mut db = self.db(service).await?;
            self.cancel(&mut db, id, by).await?
        };
        let order = match cancelled {
            Cancelled::Unknown => return Err(contract::not_found().into()),
            Cancelled::Before(order) => order,
            Cancelled::Now(order) => {
                self.carry_out(service, &self.on_cancelling(&order.order))
                    .await;
                order
            }
        };
        Ok(Json(self.shown(&order)).into_response())
    }

    /// In a task of its own: when a client hangs up, its handler is dropped at the next await, and
    /// an order that is stored would be left without its effects.
    async fn run_place(self: Arc<Self>, service: Service, order: Order) -> Response {
        in_own_task(async move { self.place(&service, order).await }).await
    }

    /// The same for cancelling.
    async fn run_cancel(
        self: Arc<Self>,
        service: Service,
        id: String,
        by: Cancellation,
    ) -> Response {
        in_own_task(async move { self.call_off(&service, &id, &by).await }).await
    }

    /// An order with all that follows from it.
    fn placed(&self, order: Order) -> Placed {
        Placed {
            total_cents: self.total(&order),
            order,
            cancelled_at: None,
        }
    }

    /// The tables of this variant.
    fn tables(&self) -> String {
        orders::TABLES.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::variants::reference::Reference;

    const CONTRACT: &str = include_str!("../../README.md");

    /// The JSON that the contract shows on a line that begins like this and has this in it.
    fn shown_in_the_contract(begins: &str, has: &str) -> Value {
        let line = CONTRACT
            .lines()
            .find(|line| line.starts_with(begins) && line.contains(has))
            .unwrap_or_else(|| panic!("the contract shows no {begins} … {has}"));
        serde_json::from_str(line).unwrap()
    }

    fn order() -> Order {
        let mut shown = shown_in_the_contract("{\"order_id\"", "\"placed_at\"");
        assert!(
            shown.get("total_cents").is_none(),
            "the request comes first"
        );
        serde_json::from_value(shown.take()).unwrap()
    }

    #[test]
    fn the_contract_shows_what_the_reference_answers() {
        let placed = Reference.placed(order());
        let shown = shown_in_the_contract("{\"order_id\"", "\"total_cents\"");
        assert_eq!(Reference.shown(&placed), shown);

        let cart = shown_in_the_contract("{\"lines\"", "\"at\"");
        let cart: Cart = serde_json::from_value(cart).unwrap();
        let shown = shown_in_the_contract("{\"subtotal_cents\"", "\"rules\"");
        assert_eq!(json!(pricing::quote(&cart.lines, &cart.at)), shown);

        let effects = Reference.on_placing(&order());
        let shown = shown_in_the_contract("{\"effects\"", "\"mail\"");
        assert_eq!(
            contract::effects_shown(Some("order placed"), &effects),
            shown
        );
    }

    #[test]
    fn cancelling_undoes_what_placing_did_in_the_warehouse_and_says_so() {
        let paths = |effects: Vec<Effect>| effects.iter().map(|e| e.path).collect::<Vec<_>>();
        assert_eq!(
            paths(Reference.on_placing(&order())),
            ["/reservations", "/messages"]
        );
        assert_eq!(
            paths(Reference.on_cancelling(&order())),
            ["/releases", "/messages"]
        );
    }
}
