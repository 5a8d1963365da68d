//! Services that take whatever they are sent, and answer 202: mail, and a warehouse.
//!
//! They decide nothing, so that what a program sends, and in which order, is the program's alone.
//! Each stands below a path of its own, as many a real service does: a program that joins addresses
//! by replacing the path does not find it.

use std::{io, ops::Deref, sync::Arc};

use http::{Method, StatusCode};
use serde_json::Value;

use super::{Answer, CallRecord, Fake, Request, Service, Trap};
use crate::History;

/// A fake that takes calls about orders. It is a [`Fake`] that answers a few more questions, so
/// traps, weather and records are to be found there.
pub struct Intake {
    fake: Fake,
    base: &'static str,
}

impl Deref for Intake {
    type Target = Fake;

    fn deref(&self) -> &Fake {
        &self.fake
    }
}

impl Intake {
    /// A mail service: `POST /messages`.
    ///
    /// # Errors
    /// If there is no port to be had, or no Tokio runtime here.
    pub fn mail(history: History) -> io::Result<Self> {
        Self::open(MAIL, history)
    }

    /// A warehouse: `POST /reservations` and `POST /releases`.
    ///
    /// # Errors
    /// As [`Intake::mail`].
    pub fn warehouse(history: History) -> io::Result<Self> {
        Self::open(WAREHOUSE, history)
    }

    fn open(desk: Desk, history: History) -> io::Result<Self> {
        let base = desk.base;
        let fake = Fake::open(Arc::new(desk), history)?;
        Ok(Self { fake, base })
    }

    /// Its base address, which has a path, without a trailing slash.
    pub fn url(&self) -> String {
        format!("{}{}", self.fake.url(), self.base)
    }

    /// The calls about one order, whatever became of them, with paths below the base address.
    pub fn calls_for(&self, order_id: &str) -> Vec<CallRecord> {
        let mut calls = self.calls();
        calls.retain(|call| call.body["order_id"] == order_id);
        for call in &mut calls {
            if let Some(below) = call.path.strip_prefix(self.base) {
                call.path = below.to_owned();
            }
        }
        calls
    }

    /// Catches every call about one order, until the trap is dropped.
    pub fn trap_order(&self, order_id: &str) -> Trap {
        let order_id = order_id.to_owned();
        self.trap(move |request| request.body()["order_id"] == order_id.as_str())
    }
}

/// What a service takes: the path and what a right body has, with words for the history.
struct Route {
    path: &'static str,
    accepts: fn(&Value) -> bool,
    says: fn(&Value) -> String,
}

/// The service itself.
struct Desk {
    actor: &'static str,
    base: &'static str,
    routes: &'static [Route],
}

const MAIL: Desk = Desk {
    actor: "mail",
    base: "/post/v2",
    routes: &[Route {
        path: "/messages",
        accepts: |body| {
            ["to", "template", "order_id"]
                .iter()
                .all(|m| body[*m].is_string())
        },
        says: |body| format!("{} to {}", text(&body["template"]), text(&body["to"])),
    }],
};

const WAREHOUSE: Desk = Desk {
    actor: "warehouse",
    base: "/stock",
    routes: &[
        Route {
            path: "/reservations",
            accepts: |body| body["order_id"].is_string() && body["lines"].is_array(),
            says: |body| {
                let lines = body["lines"].as_array().map_or(0, Vec::len);
                format!("reserve {}", crate::report::text::plural(lines, "line"))
            },
        },
        Route {
            path: "/releases",
            accepts: |body| body["order_id"].is_string(),
            says: |_| "release".to_owned(),
        },
    ],
};

impl Desk {
    fn route(&self, request: &Request) -> Option<&Route> {
        let below = request.path().strip_prefix(self.base)?;
        self.routes.iter().find(|route| route.path == below)
    }
}

impl Service for Desk {
    fn actor(&self) -> &'static str {
        self.actor
    }

    fn describe(&self, request: &Request) -> String {
        let body = request.body();
        match self.route(request) {
            Some(route) => format!("{} for {}", (route.says)(body), text(&body["order_id"])),
            None => format!("{} {}", request.method(), request.path()),
        }
    }

    fn act(&self, request: &Request) -> Answer {
        match self.route(request) {
            None => Answer::error(StatusCode::NOT_FOUND, "not_found"),
            Some(_) if request.method() != Method::POST => {
                Answer::error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
                    .with_header("allow", "POST")
            }
            Some(route) if !(route.accepts)(request.body()) => {
                Answer::error(StatusCode::BAD_REQUEST, "invalid_request")
            }
            Some(_) => Answer::json(
                StatusCode::ACCEPTED,
                serde_json::json!({ "accepted": true }),
            ),
        }
    }
}

/// A text of any length and kind, fit for one line of a history.
fn text(value: &Value) -> String {
    const SHOWN: usize = 40;
    let text = value.as_str().unwrap_or("?");
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fakes::{Fate, tests::within};

    async fn post(url: String, body: Value) -> StatusCode {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let sent = within(client.post(url).json(&body).send()).await;
        sent.unwrap().status()
    }

    #[tokio::test]
    async fn what_is_taken_is_recorded_by_order_below_the_base_address() {
        let (mail, warehouse) = (
            Intake::mail(History::new()).unwrap(),
            Intake::warehouse(History::new()).unwrap(),
        );
        let letter = json!({ "to": "ada", "template": "order_placed", "order_id": "o-1" });
        let goods = json!({ "order_id": "o-1", "lines": [] });
        for (url, body) in [
            (format!("{}/messages", mail.url()), letter.clone()),
            (format!("{}/reservations", warehouse.url()), goods.clone()),
            (
                format!("{}/releases", warehouse.url()),
                json!({ "order_id": "o-1" }),
            ),
        ] {
            assert_eq!(post(url, body).await, StatusCode::ACCEPTED);
        }
        let letters = mail.calls_for("o-1");
        assert_eq!(
            (letters[0].path.as_str(), &letters[0].body),
            ("/messages", &letter)
        );
        let paths: Vec<_> = warehouse
            .calls_for("o-1")
            .into_iter()
            .map(|c| c.path)
            .collect();
        assert_eq!(paths, ["/reservations", "/releases"]);
        assert!(mail.calls_for("o-2").is_empty());
    }

    #[tokio::test]
    async fn beside_the_base_address_there_is_nothing_and_half_a_body_is_refused() {
        let history = History::new();
        let mail = Intake::mail(history.clone()).unwrap();
        let beside = format!("{}/messages", mail.fake.url());
        assert_eq!(
            post(beside, json!({ "order_id": "o-1" })).await,
            StatusCode::NOT_FOUND
        );
        let url = || format!("{}/messages", mail.url());
        for body in [json!({ "order_id": "o-1" }), json!(7), json!({ "to": 7 })] {
            assert_eq!(post(url(), body).await, StatusCode::BAD_REQUEST);
        }
        let first = history.events().remove(0);
        assert_eq!(first.what, "call 1, POST /messages → 404 not_found");
    }

    #[tokio::test]
    async fn a_trap_for_one_order_lets_others_pass() {
        let warehouse = Intake::warehouse(History::new()).unwrap();
        let trap = warehouse.trap_order("o-1");
        let url = format!("{}/releases", warehouse.url());
        let held = tokio::spawn(post(url.clone(), json!({ "order_id": "o-1" })));
        let caught = within(trap.caught()).await;
        assert_eq!(
            post(url, json!({ "order_id": "o-2" })).await,
            StatusCode::ACCEPTED
        );
        assert_eq!(warehouse.calls_for("o-1")[0].fate, Fate::Held);
        caught.answer();
        assert_eq!(held.await.unwrap(), StatusCode::ACCEPTED);
    }
}
