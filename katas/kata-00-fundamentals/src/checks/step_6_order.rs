//! Step 6: first the state, then the effects.

use http::StatusCode;
use kata_lab::{CrashPoint, Instance, Judged, Lab, Promise, Reply, Request, at_every_crash_point};

use super::{
    customer::{CANCELLED_AT, Order, caught_from, listed, over, settled, sorted},
    points::strike,
};

/// While a service outside holds a call, the other instance already sees what the call tells.
pub async fn stores_before_it_sends(lab: Lab) -> Judged {
    let a = lab.start_as("instance A").await?;
    let b = lab.start_as("instance B").await?;
    let order = Order::new(&lab);
    let promise = Promise::new(
        "POST /orders to A; while the warehouse and then the mail held its call, GET /orders/{id} from B",
        "200: what is told outside is stored",
    );
    let is_there = |reply: &Reply| reply.status == StatusCode::OK;
    let placing = order.place(&a);
    seen_while_held(&lab, &order, placing, &b, &promise, is_there).await?;

    // Another one, which B has not read before: what B remembers is another promise.
    let order = Order::new(&lab);
    order.is_placed(&a).await?;
    order.effects_are_over(&lab, order.placing().len()).await;
    let promise = Promise::new(
        "POST /orders/{id}/cancel to A; while the warehouse and then the mail held its call, GET /orders/{id} from B",
        "status \"cancelled\": what is told outside is stored",
    );
    let is_cancelled = |reply: &Reply| {
        reply
            .json()
            .is_some_and(|body| body["status"] == "cancelled")
    };
    let cancelling = order.cancel(&a, CANCELLED_AT);
    seen_while_held(&lab, &order, cancelling, &b, &promise, is_cancelled).await
}

/// Sends a request, holds both of its calls, whichever comes first, and asks the other instance
/// while each is held.
async fn seen_while_held(
    lab: &Lab,
    order: &Order,
    request: Request,
    other: &Instance,
    promise: &Promise,
    is_stored: impl Fn(&Reply) -> bool,
) -> Judged {
    const CALLS: usize = 2;
    let traps = [lab.warehouse(), lab.mail()].map(|fake| fake.trap_order(&order.order_id));
    let [warehouse, mail] = &traps;
    let mut pending = request.spawn();
    for _ in 0..CALLS {
        let next = async {
            tokio::select! {
                caught = warehouse.caught() => caught,
                caught = mail.caught() => caught,
            }
        };
        let Some(held) = caught_from(next, &mut pending).await? else {
            return promise.broken("a call was never made");
        };
        let reply = order.look_up(other).send().await?;
        promise.holds(is_stored(&reply), reply.to_string())?;
        held.answer();
    }
    over(&mut pending).await
}

/// The database is cut at every round trip of placing an order, and at every moment of its call to
/// the warehouse. Whatever a service outside has seen belongs to an order that is there.
pub async fn sends_nothing_for_what_was_not_stored(lab: Lab) -> Judged<String> {
    let scene = |stage: Lab, program: Instance, point: CrashPoint| async move {
        let order = Order::new(&stage);
        let promise = Promise::new(
            "POST /orders; the database was cut at one of its round trips or at its call to the warehouse; the program was restarted; GET /orders/{id}",
            "200 if the warehouse or the mail has seen the order",
        );
        let cut = async || {
            stage.note("cuts all connections to the database");
            // New ones are let through: what is asked is what is sent outside, and not how long
            // somebody waits.
            program.front().reset();
            Ok(())
        };
        let Some(mut placing) = strike(&stage, &program, &order, point, cut).await? else {
            return Ok(None);
        };
        over(&mut placing).await?;
        // A fresh process: what is remembered is no answer, and no broken connection is left.
        program.stop().await?;
        program.restart().await?;
        let seen = order.seen(&stage);
        let shown = order.look_up(&program).send().await?;
        let is_backed = seen.is_empty() || shown.status == StatusCode::OK;
        let saw = format!("{} was seen, and then {shown}", listed(&seen));
        promise.holds(is_backed, saw)?;
        Ok(Some(()))
    };
    let still = |_: Lab, _: Instance, (): ()| async { Ok(()) };
    at_every_crash_point(&lab, scene, still).await
}

/// A refused call costs the order nothing, is not repeated, and the next one is made all the same.
pub async fn goes_on_after_a_refused_call(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let order = Order::new(&lab);
    let promise = Promise::new(
        "POST /orders, while the warehouse answers 503; then POST /orders/{id}/cancel, likewise",
        "each call once, the mail too; the order is placed, and then cancelled",
    );
    let refuse = async |request: Request, calls: usize| -> Judged {
        let trap = lab.warehouse().trap_order(&order.order_id);
        let mut pending = request.spawn();
        // Each time that it comes, until the effects are over.
        let refuse = async {
            loop {
                trap.caught().await.refuse(StatusCode::SERVICE_UNAVAILABLE);
            }
        };
        let finish = async {
            over(&mut pending).await?;
            order.effects_are_over(&lab, calls).await;
            settled(&lab, std::slice::from_ref(&program)).await
        };
        tokio::select! {
            () = refuse => Ok(()),
            finished = finish => finished,
        }
    };
    for (request, expected, status) in [
        (order.place(&program), order.placing(), "placed"),
        (
            order.cancel(&program, CANCELLED_AT),
            [order.placing(), order.cancelling()].concat(),
            "cancelled",
        ),
    ] {
        refuse(request, expected.len()).await?;
        let seen = order.seen(&lab);
        promise.holds(sorted(&seen) == sorted(&expected), listed(&seen))?;
        let body = order
            .look_up(&program)
            .send()
            .await?
            .json()
            .unwrap_or_default();
        promise.holds(
            body["status"] == status,
            format!("status {}", body["status"]),
        )?;
    }
    Ok(())
}
