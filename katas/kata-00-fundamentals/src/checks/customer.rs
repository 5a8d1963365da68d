//! What a check does as a customer: orders with ids from the seed, requests, and what the fakes saw
//! of them.
//!
//! "Placed" is any 2xx here, and an order is known by its id: a check insists on a detail only if its
//! name promises that detail. Otherwise one small flaw would fail half of the matrix.

use std::{
    future::{Future, ready},
    time::Duration,
};

use http::StatusCode;
use kata_lab::{
    Instance, Judged, Lab, Pending, Promise, Reply, Request,
    fakes::{CallRecord, Caught, Fate, Intake},
};
use serde_json::{Value, json};

/// How long the effects of a request may take: what the contract allows, and the lab's slack. Before
/// anything is concluded from their absence, a later order has to have its own: see [`settled`].
const EFFECTS: Duration = Duration::from_secs(15);

/// The last resort of a wait whose condition a right implementation always meets.
pub(super) const LAST_RESORT: Duration = Duration::from_secs(60);

/// How long a program waits at least for a service outside. A call that was held for longer may
/// have been given up, which is right.
pub(super) const PROGRAMS_PATIENCE: Duration = Duration::from_secs(5);

/// A Wednesday.
pub(super) const PLACED_AT: &str = "2026-03-04T10:15:00Z";
pub(super) const CANCELLED_AT: &str = "2026-03-05T08:00:00Z";

/// An order that a customer wants to place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    pub(super) order_id: String,
    pub(super) customer: String,
    pub(super) lines: Vec<Value>,
    pub(super) placed_at: String,
}

/// A line of a cart.
pub(super) fn line(sku: &str, quantity: u64, unit_price_cents: u64) -> Value {
    json!({ "sku": sku, "quantity": quantity, "unit_price_cents": unit_price_cents })
}

impl Order {
    /// An order that nobody has placed before, with two lines.
    pub(super) fn new(lab: &Lab) -> Self {
        let sku = || lab.id("sku");
        Self {
            order_id: lab.id("order"),
            customer: lab.id("customer"),
            lines: vec![
                line(&sku(), lab.pick(1..=9), lab.pick(1..=9_999)),
                line(&sku(), lab.pick(10..=99), lab.pick(1..=9_999)),
            ],
            placed_at: PLACED_AT.to_owned(),
        }
    }

    /// Another order with the same id.
    pub(super) fn under_the_same_id(&self, lab: &Lab) -> Self {
        Self {
            order_id: self.order_id.clone(),
            ..Self::new(lab)
        }
    }

    pub(super) fn body(&self) -> Value {
        json!({
            "order_id": self.order_id,
            "customer": self.customer,
            "lines": self.lines,
            "placed_at": self.placed_at,
        })
    }

    /// `POST /orders`.
    pub(super) fn place(&self, at: &Instance) -> Request {
        at.post("/orders")
            .json(&self.body())
            .shown(self.order_id.clone())
    }

    /// `POST /orders?dry_run=true`.
    pub(super) fn rehearse(&self, at: &Instance) -> Request {
        at.post("/orders?dry_run=true")
            .json(&self.body())
            .shown(self.order_id.clone())
    }

    /// `POST /orders/{id}/cancel`.
    pub(super) fn cancel(&self, at: &Instance, cancelled_at: &str) -> Request {
        at.post(format!("/orders/{}/cancel", self.order_id))
            .json(&json!({ "cancelled_at": cancelled_at }))
    }

    /// `GET /orders/{id}`.
    pub(super) fn look_up(&self, at: &Instance) -> Request {
        at.get(format!("/orders/{}", self.order_id))
    }

    /// Places it and insists on a 2xx.
    pub(super) async fn is_placed(&self, at: &Instance) -> Judged<Reply> {
        let promise = Promise::new("POST /orders with a new order", "it is placed: 201");
        let reply = self.place(at).send().await?;
        promise.holds(reply.status.is_success(), reply.to_string())?;
        Ok(reply)
    }

    /// What is wrong with an answer as this order, line by line, if anything.
    pub(super) fn not_shown_by(&self, reply: &Reply) -> Option<String> {
        let body = reply.json().unwrap_or_default();
        let sent = self.body();
        let members = ["order_id", "customer", "lines", "placed_at"];
        let is_same = |member: &&str| body[*member] == sent[*member];
        match members.iter().find(|member| !is_same(member)) {
            _ if reply.status != StatusCode::OK => Some(reply.to_string()),
            Some(member) => Some(format!("{reply}, with other {member}")),
            None => None,
        }
    }

    /// The calls that placing it causes, in order, as a dry run lists them.
    pub(super) fn placing(&self) -> Vec<Value> {
        let goods = |line: &Value| json!({ "sku": line["sku"], "quantity": line["quantity"] });
        let lines: Vec<_> = self.lines.iter().map(goods).collect();
        let body = json!({ "order_id": self.order_id, "lines": lines });
        vec![
            call("warehouse", "/reservations", body),
            self.letter("order_placed"),
        ]
    }

    /// The calls that cancelling it causes, in order.
    pub(super) fn cancelling(&self) -> Vec<Value> {
        let body = json!({ "order_id": self.order_id });
        vec![
            call("warehouse", "/releases", body),
            self.letter("order_cancelled"),
        ]
    }

    fn letter(&self, template: &str) -> Value {
        let body = json!({
            "to": self.customer,
            "template": template,
            "order_id": self.order_id,
        });
        call("mail", "/messages", body)
    }

    /// The calls about it that the fakes have seen, whatever became of them.
    pub(super) fn seen(&self, lab: &Lab) -> Vec<Value> {
        let of = |target: &str, fake: &Intake| -> Vec<Value> {
            let calls = fake.calls_for(&self.order_id).into_iter();
            let as_listed = |seen: CallRecord| {
                let mut listed = call(target, &seen.path, seen.body);
                listed["method"] = json!(seen.method.as_str());
                listed
            };
            calls.map(as_listed).collect()
        };
        let warehouse = of("warehouse", lab.warehouse());
        warehouse
            .into_iter()
            .chain(of("mail", lab.mail()))
            .collect()
    }

    /// Waits until so many calls about it have come and are over, if they come in time.
    pub(super) async fn effects_are_over(&self, lab: &Lab, calls: usize) {
        self.calls_are_over(lab, calls, EFFECTS).await;
    }

    async fn calls_are_over(&self, lab: &Lab, calls: usize, within: Duration) {
        lab.until(within, || {
            let all = [lab.warehouse(), lab.mail()].map(|fake| fake.calls_for(&self.order_id));
            let over = |fate: Fate| !matches!(fate, Fate::Running | Fate::Held);
            let over = all.iter().flatten().filter(|call| over(call.fate)).count();
            ready(over >= calls)
        })
        .await;
    }

    /// Waits for these calls, and insists that there are no others: as a set, since their order is
    /// another promise.
    pub(super) async fn causes(
        &self,
        lab: &Lab,
        at: &[Instance],
        expected: &[Value],
        promise: &Promise,
    ) -> Judged {
        self.effects_are_over(lab, expected.len()).await;
        settled(lab, at).await?;
        let seen = self.seen(lab);
        promise.holds(sorted(&seen) == sorted(expected), listed(&seen))
    }
}

fn call(target: &str, path: &str, body: Value) -> Value {
    json!({ "target": target, "method": "POST", "path": path, "body": body })
}

/// Waits for the call that a request causes, before its answer or after it; `None` if none comes.
pub(super) async fn caught_from(
    call: impl Future<Output = Caught>,
    cause: &mut Pending,
) -> Judged<Option<Caught>> {
    let mut call = std::pin::pin!(tokio::time::timeout(LAST_RESORT, call));
    tokio::select! {
        biased;
        call = &mut call => return Ok(call.ok()),
        // A program that says it is not started ends the check here.
        ended = cause.attempted() => ended?.ok(),
    };
    Ok(call.await.ok())
}

/// Waits for the end of a request, whatever it is.
pub(super) async fn over(request: &mut Pending) -> Judged {
    request.attempted().await?.ok();
    Ok(())
}

/// Gives a program every chance to do what it has put off: each instance places one more order, and
/// its effects come, however slow the machine is. Whatever was put off before is out by then, in all
/// designs that keep the order of their work; a right program has put off nothing that it should not
/// do.
pub(super) async fn settled(lab: &Lab, at: &[Instance]) -> Judged {
    for instance in at {
        let witness = Order::new(lab);
        let placed = witness.place(instance).quietly().attempt().await?;
        if placed.is_ok_and(|reply| reply.status.is_success()) {
            let calls = witness.placing().len();
            witness.calls_are_over(lab, calls, LAST_RESORT).await;
        }
    }
    Ok(())
}

/// In an order that does not depend on when they came.
pub(super) fn sorted(calls: &[Value]) -> Vec<String> {
    let mut texts: Vec<_> = calls.iter().map(Value::to_string).collect();
    texts.sort();
    texts
}

/// Calls in a sentence: `warehouse /reservations, mail /messages (order_placed)`.
pub(super) fn listed(calls: &[Value]) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let one = |call: &Value| {
        let template = match call["body"]["template"].as_str() {
            Some(template) => format!(" ({template})"),
            None => String::new(),
        };
        format!(
            "{} {}{template}",
            text(&call["target"]),
            text(&call["path"])
        )
    };
    match calls {
        [] => "no call".to_owned(),
        calls => calls.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

/// Whether a status says that the request is at fault, as the contract wants it for wrong input.
pub(super) fn is_refusal(status: StatusCode) -> bool {
    [StatusCode::BAD_REQUEST, StatusCode::UNPROCESSABLE_ENTITY].contains(&status)
}
