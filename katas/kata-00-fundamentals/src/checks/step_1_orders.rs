//! Step 1: place, read and cancel an order.

use http::StatusCode;
use kata_lab::{Judged, Lab, Promise, Reply};
use serde_json::{Value, json};

use super::customer::{CANCELLED_AT, Order, PLACED_AT, is_refusal, line, settled};

/// An order is there as it was sent, line by line.
pub async fn shows_an_order(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let order = Order {
        // Sorted in no way.
        lines: vec![line("tea", 2, 350), line("cup", 12, 80), line("tea", 1, 0)],
        ..Order::new(&lab)
    };
    let promise = Promise::new("POST /orders with a new order", "201");
    let reply = order.place(&program).send().await?;
    promise.holds(reply.status == StatusCode::CREATED, reply.to_string())?;

    let promise = Promise::new(
        "GET /orders/{id} right after it was placed",
        "200 with order_id, customer, lines and placed_at as they were sent, status \"placed\", cancelled_at null",
    );
    let reply = order.look_up(&program).send().await?;
    if let Some(saw) = order.not_shown_by(&reply) {
        return promise.broken(saw);
    }
    let body = reply.json().unwrap_or_default();
    let is_placed = body["status"] == "placed" && body.get("cancelled_at") == Some(&Value::Null);
    promise.holds(is_placed, reply.to_string())?;

    let unknown = Order::new(&lab);
    let nobodys = format!("/orders/{}", unknown.order_id);
    for path in [nobodys, "/nowhere".to_owned()] {
        let promise = Promise::new("GET what is not there: an unknown order, /nowhere", "404");
        let reply = program.get(path).send().await?;
        promise.holds(reply.status == StatusCode::NOT_FOUND, reply.to_string())?;
    }
    Ok(())
}

/// The list is by time, then by the bytes of the ids.
pub async fn lists_orders_by_time_and_id(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let base = lab.id("o");
    // As they have to be listed: the earlier one first, then `-` before `.` before `B` before `_`
    // before `a`.
    let expected: Vec<_> = [
        ("z", "2026-03-04T10:14:59Z"),
        ("-", PLACED_AT),
        (".", PLACED_AT),
        ("B", PLACED_AT),
        ("_", PLACED_AT),
        ("a", PLACED_AT),
        ("A", "2026-03-04T10:15:01Z"),
    ]
    .map(|(end, placed_at)| Order {
        order_id: format!("{base}{end}"),
        placed_at: placed_at.to_owned(),
        ..Order::new(&lab)
    })
    .into();
    for index in [3, 6, 1, 5, 0, 4, 2] {
        expected[index].is_placed(&program).await?;
    }
    let ids: Vec<_> = expected
        .iter()
        .map(|order| order.order_id.as_str())
        .collect();
    let promise = Promise::new(
        "GET /orders after seven orders, five of them of the same second",
        "{orders: […]} by placed_at, then by the bytes of order_id",
    );
    let reply = program.get("/orders").send().await?;
    let body = reply.json().unwrap_or_default();
    let Some(orders) = body["orders"].as_array() else {
        return promise.broken(reply.to_string());
    };
    // Other orders may be there: a program that runs already has served other checks.
    let listed: Vec<_> = orders
        .iter()
        .filter_map(|order| order["order_id"].as_str())
        .filter(|id| ids.contains(id))
        .collect();
    let saw = format!("{}; in order: {}", listed.join(", "), ids.join(", "));
    promise.holds(listed == ids, saw)
}

/// Cancelling is done once; the first time stays.
pub async fn cancels_an_order(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let order = Order::new(&lab);
    order.is_placed(&program).await?;
    for (did, cancelled_at) in [
        ("POST /orders/{id}/cancel", CANCELLED_AT),
        (
            "POST /orders/{id}/cancel again, with a later time",
            "2026-03-06T09:00:00Z",
        ),
    ] {
        let promise = Promise::new(
            did,
            "200; then GET shows status \"cancelled\" and the first cancelled_at as it was sent",
        );
        let reply = order.cancel(&program, cancelled_at).send().await?;
        promise.holds(reply.status == StatusCode::OK, reply.to_string())?;
        let shown = order.look_up(&program).send().await?;
        let body = shown.json().unwrap_or_default();
        let right = body["status"] == "cancelled" && body["cancelled_at"] == CANCELLED_AT;
        let saw = format!(
            "status {}, cancelled_at {}",
            body["status"], body["cancelled_at"]
        );
        promise.holds(right, saw)?;
    }
    let promise = Promise::new("POST /orders/{id}/cancel of an unknown order", "404");
    let unknown = Order::new(&lab);
    let reply = unknown.cancel(&program, CANCELLED_AT).send().await?;
    promise.holds(reply.status == StatusCode::NOT_FOUND, reply.to_string())
}

/// Wrong input is a problem, and changes nothing.
pub async fn refuses_wrong_input(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let order = Order::new(&lab);
    let cart = json!({ "lines": order.lines, "at": PLACED_AT });
    let placed = Order::new(&lab);
    placed.is_placed(&program).await?;
    let cancel = format!("/orders/{}/cancel", placed.order_id);
    let cancellation = json!({ "cancelled_at": CANCELLED_AT });

    let mut wrong = wrong_bodies("/orders", &order.body(), order_members());
    wrong.extend(wrong_bodies("/quotes", &cart, cart_members()));
    wrong.extend(wrong_bodies(&cancel, &cancellation, cancellation_members()));
    for (path, what, body) in wrong {
        let route = path.replace(&placed.order_id, "{id}");
        let promise = Promise::new(
            format!("POST {route} with {what}"),
            "400 or 422 as application/problem+json",
        );
        let request = program
            .post(path)
            .bytes("application/json", body.into_bytes());
        refused(&promise, &request.shown(what).send().await?)?;
    }
    let promise = Promise::new(
        "POST /orders with Content-Type: text/plain",
        "400, 415 or 422",
    );
    let text = order.body().to_string().into_bytes();
    let reply = program
        .post("/orders")
        .bytes("text/plain", text)
        .send()
        .await?;
    let is_other_type = reply.status == StatusCode::UNSUPPORTED_MEDIA_TYPE;
    promise.holds(is_other_type || is_refusal(reply.status), reply.to_string())?;

    let promise = Promise::new(
        "wrong orders and cancellations, then GET",
        "no order of theirs, none cancelled, and no call",
    );
    let shown = order.look_up(&program).send().await?;
    promise.holds(shown.status == StatusCode::NOT_FOUND, shown.to_string())?;
    let body = placed
        .look_up(&program)
        .send()
        .await?
        .json()
        .unwrap_or_default();
    promise.holds(body["status"] == "placed", body.to_string())?;
    settled(&lab, std::slice::from_ref(&program)).await?;
    let calls = order.seen(&lab).len();
    promise.holds(calls == 0, format!("{calls} calls"))?;
    order.is_placed(&program).await?;
    Ok(())
}

fn refused(promise: &Promise, reply: &Reply) -> Judged {
    promise.holds(is_refusal(reply.status), reply.to_string())?;
    match reply.not_a_problem() {
        None => Ok(()),
        Some(why) => promise.broken(format!("{reply}, with {why}")),
    }
}

/// Members with values that they must not have.
type WrongMembers = Vec<(&'static str, Value)>;

fn order_members() -> WrongMembers {
    let long = "x".repeat(65);
    let mut wrong = vec![
        ("order_id", json!("")),
        ("order_id", json!(long)),
        ("order_id", json!("a/b")),
        ("order_id", json!("ä")),
        ("order_id", json!(7)),
        ("customer", json!("")),
        ("customer", json!(long)),
        ("customer", json!("a\0b")),
        ("customer", Value::Null),
    ];
    wrong.extend(lines_members());
    wrong.extend(times("placed_at"));
    wrong
}

fn cart_members() -> WrongMembers {
    let mut wrong = lines_members();
    wrong.extend(times("at"));
    wrong
}

fn cancellation_members() -> WrongMembers {
    times("cancelled_at")
}

fn lines_members() -> WrongMembers {
    let with = |member: &str, value: Value| {
        let mut wrong = line("tea", 1, 100);
        wrong[member] = value;
        json!([line("cup", 1, 100), wrong])
    };
    let without = json!([{ "sku": "tea", "quantity": 1 }]);
    let wrong = [
        json!([]),
        json!("tea"),
        json!(vec![line("tea", 1, 100); 101]),
        json!([["tea", 1, 100]]),
        without,
        with("sku", json!("")),
        with("sku", json!("t e a")),
        with("quantity", json!(0)),
        with("quantity", json!(-3)),
        with("quantity", json!(1.5)),
        with("quantity", json!("1")),
        with("quantity", json!(1_000_001)),
        with("unit_price_cents", json!(-1)),
        with("unit_price_cents", json!(0.5)),
        with("unit_price_cents", json!(10_000_001)),
        with("unit_price_cents", Value::Null),
    ];
    wrong.into_iter().map(|value| ("lines", value)).collect()
}

fn times(member: &'static str) -> WrongMembers {
    let wrong = [
        json!("2026-02-29T00:00:00Z"),
        json!("2026-04-31T00:00:00Z"),
        json!("2026-13-01T00:00:00Z"),
        json!("2026-03-04T24:00:00Z"),
        json!("2026-03-04T10:60:00Z"),
        json!("1999-12-31T23:59:59Z"),
        json!("2100-01-01T00:00:00Z"),
        json!("2026-03-04"),
        json!("2026-03-04T10:15:00"),
        json!("2026-03-04T10:15:00+01:00"),
        json!(1_772_619_300),
    ];
    wrong.into_iter().map(|value| (member, value)).collect()
}

/// Each wrong body with its path and what is wrong about it.
fn wrong_bodies(path: &str, right: &Value, wrong: WrongMembers) -> Vec<(String, String, String)> {
    const SHOWN: usize = 60;
    let no_json =
        ["{\"lines\":", "[]", ""].map(|body| (format!("the body {body:?}"), body.to_owned()));
    let mut bodies = Vec::from(no_json);
    let members = right.as_object().into_iter().flatten();
    for (member, _) in members {
        let mut body = right.clone();
        body.as_object_mut().map(|object| object.remove(member));
        bodies.push((format!("no {member}"), body.to_string()));
    }
    for (member, value) in wrong {
        let text = value.to_string();
        let shown = match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
            None => text,
        };
        let mut body = right.clone();
        body[member] = value;
        bodies.push((format!("{member}: {shown}"), body.to_string()));
    }
    let with_path = |(what, body)| (path.to_owned(), what, body);
    bodies.into_iter().map(with_path).collect()
}

/// An id stands for one order: the same again is no mistake, another one is.
pub async fn keeps_an_id_for_one_order(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let order = Order::new(&lab);
    order.is_placed(&program).await?;
    let same = Promise::new("POST /orders with the same order again", "200 or 201");
    let reply = order.place(&program).send().await?;
    same.holds(is_answer(reply.status), reply.to_string())?;

    for (member, other) in with_one_member_changed(&lab, &order) {
        let promise = Promise::new(
            format!("POST /orders under a taken id, with other {member}"),
            "409 as application/problem+json, and the first order is still there",
        );
        let reply = other.place(&program).send().await?;
        promise.holds(reply.status == StatusCode::CONFLICT, reply.to_string())?;
        if let Some(why) = reply.not_a_problem() {
            return promise.broken(format!("{reply}, with {why}"));
        }
        let shown = order.look_up(&program).send().await?;
        let body = shown.json().unwrap_or_default();
        let stands = body["customer"] == json!(order.customer)
            && body["placed_at"] == json!(order.placed_at);
        promise.holds(stands, shown.to_string())?;
    }

    order.cancel(&program, CANCELLED_AT).send().await?;
    let promise = Promise::new(
        "POST /orders with the same order again, after it was cancelled",
        "200 or 201, and it stays cancelled",
    );
    let reply = order.place(&program).send().await?;
    promise.holds(is_answer(reply.status), reply.to_string())?;
    let body = order
        .look_up(&program)
        .send()
        .await?
        .json()
        .unwrap_or_default();
    promise.holds(
        body["status"] == "cancelled",
        format!("status {}", body["status"]),
    )
}

fn is_answer(status: StatusCode) -> bool {
    [StatusCode::OK, StatusCode::CREATED].contains(&status)
}

fn with_one_member_changed(lab: &Lab, order: &Order) -> Vec<(&'static str, Order)> {
    let changed = |change: &dyn Fn(&mut Order)| {
        let mut other = order.clone();
        change(&mut other);
        other
    };
    let customer = lab.id("customer");
    vec![
        ("customer", changed(&|o| o.customer.clone_from(&customer))),
        (
            "placed_at",
            changed(&|o| o.placed_at = "2026-03-04T10:15:01Z".to_owned()),
        ),
        ("order of lines", changed(&|o| o.lines.reverse())),
        ("quantity", changed(&|o| o.lines[0]["quantity"] = json!(10))),
        (
            "price",
            changed(&|o| o.lines[1]["unit_price_cents"] = json!(10_000)),
        ),
    ]
}
