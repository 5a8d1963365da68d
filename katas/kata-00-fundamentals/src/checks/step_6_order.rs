//! Step 6: first the state, then the effects.

use http::StatusCode;
use kata_lab::{
    Instance, Judged, Lab, Promise, Reply, Request, Stop,
    proxy::{Point, RoundTrip},
};

use super::customer::{CANCELLED_AT, Order, caught_from, listed, over, settled, sorted};

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

/// The database is cut at every round trip of placing an order. Whatever a service outside has seen
/// belongs to an order that is there.
pub async fn sends_nothing_for_what_was_not_stored(lab: Lab) -> Judged<String> {
    const MOST_ROUND_TRIPS: u64 = 200;
    let program = lab.start().await?;
    let mut cuts = 0;
    for (point, word) in [(Point::Early, "before"), (Point::Late, "after")] {
        for round_trip in 1..=MOST_ROUND_TRIPS {
            let order = Order::new(&lab);
            program.front().quiet().await;
            let trap = program.front().arm(RoundTrip(round_trip), point);
            let mut pending = order.place(&program).spawn();
            let was_cut = tokio::select! {
                biased;
                held = trap.sprung() => held.is_ok(),
                ended = pending.attempted() => { ended?.ok(); false }
            };
            let what = match was_cut {
                true => format!("the database was cut {word} round trip {round_trip}"),
                false => "nothing was cut".to_owned(),
            };
            if was_cut {
                cuts += 1;
                lab.note(&what);
                // New connections are let through: what is asked is what is sent outside, and not
                // how long somebody waits.
                program.front().reset();
            }
            over(&mut pending).await?;
            drop(trap);
            let promise = Promise::new(
                format!("POST /orders; {what}; the program was restarted; GET /orders/{{id}}"),
                "200 if the warehouse or the mail has seen the order",
            );
            if !was_cut {
                order.effects_are_over(&lab, order.placing().len()).await;
            }
            // A fresh process: what is remembered is no answer, and no broken connection is left.
            program.stop().await?;
            program.restart().await?;
            let seen = order.seen(&lab);
            let shown = order.look_up(&program).send().await?;
            let is_backed = seen.is_empty() || shown.status == StatusCode::OK;
            promise.holds(
                is_backed,
                format!("{} was seen, and then {shown}", listed(&seen)),
            )?;
            if !was_cut {
                break;
            }
        }
    }
    match cuts {
        0 => Stop::inconclusive("placing an order made no round trip, so nothing was cut"),
        cuts => Ok(format!("{cuts} cuts")),
    }
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
