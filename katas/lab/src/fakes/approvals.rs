//! Whoever has to approve a sale: `POST /approvals {sku, quantity}` → 204.

use std::{io, ops::Deref, sync::Arc};

use http::{Method, StatusCode};

use super::{Answer, CallRecord, Fake, Request, Service, Trap};
use crate::History;

/// A fake that approves whatever it is asked, as soon as a check lets it.
pub struct Approvals {
    fake: Fake,
}

impl Deref for Approvals {
    type Target = Fake;

    fn deref(&self) -> &Fake {
        &self.fake
    }
}

impl Approvals {
    /// Starts serving on a free loopback port.
    ///
    /// # Errors
    /// If there is no port to be had, or no Tokio runtime here.
    pub fn open(history: History) -> io::Result<Self> {
        let fake = Fake::open(Arc::new(Yes), history)?;
        Ok(Self { fake })
    }

    /// Holds every call for one article, until the trap is dropped.
    pub fn trap_sku(&self, sku: &str) -> Trap {
        let sku = sku.to_owned();
        self.trap(move |request| request.body()["sku"] == sku.as_str())
    }

    /// The calls for one article, whatever became of them.
    pub fn calls_for(&self, sku: &str) -> Vec<CallRecord> {
        let mut calls = self.calls();
        calls.retain(|call| call.body["sku"] == sku);
        calls
    }
}

struct Yes;

impl Service for Yes {
    fn actor(&self) -> &'static str {
        "approvals"
    }

    fn describe(&self, request: &Request) -> String {
        let body = request.body();
        match (body["sku"].as_str(), body["quantity"].as_u64()) {
            (Some(sku), Some(quantity)) => format!("approve {quantity} of {sku}"),
            _ => format!("{} {}", request.method(), request.path()),
        }
    }

    fn act(&self, request: &Request) -> Answer {
        let body = request.body();
        match (request.method(), request.path()) {
            (&Method::POST, "/approvals") => {
                match body["sku"].is_string() && body["quantity"].as_u64() > Some(0) {
                    true => Answer::no_content(),
                    false => Answer::error(StatusCode::BAD_REQUEST, "sku_or_quantity_missing"),
                }
            }
            _ => Answer::error(StatusCode::NOT_FOUND, "not_found"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fakes::tests::{post, within};

    #[tokio::test]
    async fn a_sale_is_approved_and_what_is_no_sale_is_not() {
        let approvals = Approvals::open(History::new()).unwrap();
        let ask = |path: &str, body: Value| post(&approvals, path, body);
        let sale = json!({ "sku": "lamp", "quantity": 2 });
        let approved = within(ask("/approvals", sale.clone())).await;
        assert_eq!(approved.status(), StatusCode::NO_CONTENT);
        assert!(within(approved.bytes()).await.unwrap().is_empty());
        for wrong in [json!({ "sku": "lamp", "quantity": 0 }), json!([])] {
            let refused = within(ask("/approvals", wrong)).await;
            assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
        }
        assert_eq!(within(ask("/", sale)).await.status(), StatusCode::NOT_FOUND);
        assert_eq!(approvals.calls_for("lamp").len(), 3);
    }

    #[tokio::test]
    async fn calls_for_one_article_are_held_and_those_for_another_are_not() {
        let approvals = Approvals::open(History::new()).unwrap();
        let ask = |sku: &str| {
            let body = json!({ "sku": sku, "quantity": 1 });
            post(&approvals, "/approvals", body)
        };
        let trap = approvals.trap_sku("lamp");
        let held = tokio::spawn(ask("lamp"));
        let caught = within(trap.caught()).await;
        assert_eq!(within(ask("desk")).await.status(), StatusCode::NO_CONTENT);
        assert!(caught.is_open());
        drop(caught);
        let answer = within(held).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    }
}
