//! Step 3: effects have names, and stay at the edge.

use std::time::Instant;

use http::StatusCode;
use kata_lab::{Instance, Judged, Lab, Promise, Stop};
use serde_json::Value;

use super::customer::{
    CANCELLED_AT, LAST_RESORT, Order, PROGRAMS_PATIENCE, caught_from, is_refusal, listed, over,
    settled, sorted,
};

/// Placing and cancelling cause their calls, once, however often they are asked for.
pub async fn causes_each_effect_once(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let at = std::slice::from_ref(&program);
    let order = Order::new(&lab);
    order.is_placed(&program).await?;
    let promise = Promise::new(
        "POST /orders, and the same once more",
        format!("these calls, once each: {}", listed(&order.placing())),
    );
    order.effects_are_over(&lab, order.placing().len()).await;
    order.place(&program).send().await?;
    order.causes(&lab, at, &order.placing(), &promise).await?;

    let all = [order.placing(), order.cancelling()].concat();
    order.cancel(&program, CANCELLED_AT).send().await?;
    order.effects_are_over(&lab, all.len()).await;
    order
        .cancel(&program, "2026-03-06T09:00:00Z")
        .send()
        .await?;
    order.place(&program).send().await?;
    let promise = Promise::new(
        "POST /orders, then cancel, cancel again, and POST /orders once more",
        format!("these calls, once each: {}", listed(&all)),
    );
    order.causes(&lab, at, &all, &promise).await
}

/// Goods first, then the letter, one after the other.
pub async fn causes_effects_in_order(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let order = Order::new(&lab);
    let promise = Promise::new(
        "POST /orders, while the warehouse holds the reservation",
        "the mail is sent when the warehouse has answered, and not before",
    );
    let request = order.place(&program);
    held_first(&lab, &program, &order, request, 0, &promise).await?;
    // Only then may the order of two requests be told apart.
    order.effects_are_over(&lab, 2).await;
    let promise = Promise::new(
        "POST /orders/{id}/cancel, while the warehouse holds the release",
        "the mail is sent when the warehouse has answered, and not before",
    );
    let request = order.cancel(&program, CANCELLED_AT);
    held_first(&lab, &program, &order, request, 1, &promise).await?;

    let promise = Promise::new(
        "POST /orders?dry_run=true",
        "the calls in the order in which they would be made: the warehouse, then the mail",
    );
    let other = Order::new(&lab);
    let calls = rehearsed(&other, &program).await?;
    let targets: Vec<_> = calls
        .iter()
        .filter_map(|call| call["target"].as_str())
        .collect();
    promise.holds(targets != ["mail", "warehouse"], listed(&calls))
}

/// Sends a request, holds its call to the warehouse, and looks whether a letter is sent meanwhile.
async fn held_first(
    lab: &Lab,
    program: &Instance,
    order: &Order,
    request: kata_lab::Request,
    letters_before: usize,
    promise: &Promise,
) -> Judged {
    const QUESTIONS: usize = 10;
    let letters = || {
        lab.mail()
            .calls_for(&order.order_id)
            .len()
            .saturating_sub(letters_before)
    };
    let trap = lab.warehouse().trap_order(&order.order_id);
    let mut pending = request.spawn();
    let Some(held) = caught_from(trap.caught(), &mut pending).await? else {
        return promise.broken("the warehouse was never called");
    };
    let since = Instant::now();
    promise.holds(
        letters() == 0,
        "the mail was sent before the warehouse was asked",
    )?;
    // The program gets the processor as often as it takes to answer these.
    for _ in 0..QUESTIONS {
        order.look_up(program).quietly().attempt().await?.ok();
    }
    if letters() > 0 {
        if since.elapsed() >= PROGRAMS_PATIENCE {
            return Stop::inconclusive(
                "the machine was too slow: a call was held for longer than a program waits",
            );
        }
        return promise.broken("the mail was sent while the warehouse was still being asked");
    }
    held.answer();
    over(&mut pending).await?;
    let came = lab
        .until(LAST_RESORT, || std::future::ready(letters() > 0))
        .await;
    promise.holds(came, "no mail")
}

/// The calls that a dry run lists.
async fn rehearsed(order: &Order, at: &Instance) -> Judged<Vec<Value>> {
    let promise = Promise::new("POST /orders?dry_run=true", "200 {effects: […]}");
    let reply = order.rehearse(at).send().await?;
    let body = reply.json().unwrap_or_default();
    let Some(effects) = body["effects"]
        .as_array()
        .filter(|_| reply.status == StatusCode::OK)
    else {
        return promise.broken(reply.to_string());
    };
    let is_call = |effect: &&Value| effect["target"] != "database";
    Ok(effects.iter().filter(is_call).cloned().collect())
}

/// A dry run lists exactly the calls that the real request then makes.
pub async fn lists_the_effects_in_a_dry_run(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let order = Order::new(&lab);
    let promise = Promise::new(
        "POST /orders?dry_run=true, then POST /orders",
        format!(
            "the calls that are listed are the calls that are made: {}",
            listed(&order.placing())
        ),
    );
    let calls = rehearsed(&order, &program).await?;
    let saw = format!("listed: {}", listed(&calls));
    promise.holds(sorted(&calls) == sorted(&order.placing()), saw)?;
    order.is_placed(&program).await?;
    let at = std::slice::from_ref(&program);
    order.causes(&lab, at, &order.placing(), &promise).await
}

/// A dry run leaves no trace: no call, no order, and the real request is as new as before.
pub async fn causes_nothing_in_a_dry_run(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let order = Order::new(&lab);
    let promise = Promise::new(
        "POST /orders?dry_run=true, then GET /orders/{id}",
        "404, and no call",
    );
    order.rehearse(&program).send().await?;
    let shown = order.look_up(&program).send().await?;
    promise.holds(shown.status == StatusCode::NOT_FOUND, shown.to_string())?;
    settled(&lab, std::slice::from_ref(&program)).await?;
    let seen = order.seen(&lab);
    promise.holds(seen.is_empty(), listed(&seen))?;

    let promise = Promise::new("POST /orders?dry_run=true, then POST /orders", "201");
    let reply = order.place(&program).send().await?;
    promise.holds(reply.status == StatusCode::CREATED, reply.to_string())
}

/// A dry run is refused when the real request would be, and lists nothing where that would do
/// nothing.
pub async fn refuses_in_a_dry_run_as_in_earnest(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let order = Order::new(&lab);
    order.is_placed(&program).await?;

    let promise = Promise::new(
        "POST /orders?dry_run=true with an order that is there",
        "200, and no call is listed",
    );
    let calls = rehearsed(&order, &program).await?;
    promise.holds(calls.is_empty(), listed(&calls))?;

    let promise = Promise::new(
        "POST /orders?dry_run=true with another order under a taken id",
        "409",
    );
    let other = order.under_the_same_id(&lab);
    let reply = other.rehearse(&program).send().await?;
    promise.holds(reply.status == StatusCode::CONFLICT, reply.to_string())?;

    let promise = Promise::new("POST /orders?dry_run=true with no lines", "400 or 422");
    let empty = Order {
        lines: Vec::new(),
        ..Order::new(&lab)
    };
    let reply = empty.rehearse(&program).send().await?;
    promise.holds(is_refusal(reply.status), reply.to_string())
}
