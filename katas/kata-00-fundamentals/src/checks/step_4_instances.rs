//! Step 4: the process is stateless. Any instance answers for all, and none is missed.

use std::{pin::pin, time::Duration};

use http::StatusCode;
use kata_lab::{
    CrashPoint, FakePoint, Instance, Judged, Lab, Promise, Reply, at_every_crash_point,
    proxy::{Point, RoundTrip},
};

use super::customer::{CANCELLED_AT, Order, caught_from, listed, settled, sorted};

/// A program that makes more round trips than this for one request is in a loop of its own.
const MOST_ROUND_TRIPS: u64 = 200;

/// What one instance has done, the other one knows.
pub async fn shares_its_state_between_instances(lab: Lab) -> Judged {
    let a = lab.start_as("instance A").await?;
    let b = lab.start_as("instance B").await?;
    let order = Order::new(&lab);
    order.is_placed(&a).await?;
    let promise = Promise::new("POST /orders to A, then GET /orders/{id} from B", "200");
    let shown = order.look_up(&b).send().await?;
    promise.holds(shown.status == StatusCode::OK, shown.to_string())?;

    let promise = Promise::new(
        "GET from A; POST /orders/{id}/cancel to B; GET from A again",
        "status \"cancelled\"",
    );
    order.look_up(&a).send().await?;
    order.cancel(&b, CANCELLED_AT).send().await?;
    let shown = order.look_up(&a).send().await?;
    let body = shown.json().unwrap_or_default();
    promise.holds(
        body["status"] == "cancelled",
        format!("status {}", body["status"]),
    )?;

    let promise = Promise::new(
        "POST /orders to A, cancel at B, then GET /orders from both",
        "it is in both lists",
    );
    for instance in [&a, &b] {
        let reply = instance.get("/orders").send().await?;
        let body = reply.json().unwrap_or_default();
        let mut orders = body["orders"].as_array().into_iter().flatten();
        let is_there = orders.any(|listed| listed["order_id"] == order.order_id.as_str());
        promise.holds(is_there, format!("{} does not list it", instance.name()))?;
    }
    Ok(())
}

const SURVIVED: &str = "no order, or the whole order; the same request again is answered 200 or 201, and the whole order is there, after one more restart as well";

/// A crash at every round trip to the database and at every moment of a call to the warehouse.
pub async fn survives_a_crash_at_every_point(lab: Lab) -> Judged<String> {
    let scene = |stage: Lab, program: Instance, point: CrashPoint| async move {
        let order = Order::new(&stage);
        let promise = Promise::new(
            format!("POST /orders; crashed {point}; started again; GET, POST once more, GET"),
            SURVIVED,
        );
        if !crash(&stage, &program, &order, point).await? {
            return Ok(None);
        }
        let shown = order.look_up(&program).send().await?;
        if shown.status != StatusCode::NOT_FOUND {
            whole(&order, &shown, &promise)?;
        }
        let again = order.place(&program).actor("again").send().await?;
        promise.holds(
            again.status.is_success(),
            format!("the second time: {again}"),
        )?;
        whole(&order, &order.look_up(&program).send().await?, &promise)?;
        Ok(Some((point, order)))
    };
    let still = |_: Lab, program: Instance, (point, order): (CrashPoint, Order)| async move {
        let promise = Promise::new(
            format!(
                "POST /orders; crashed {point}; started again; POST once more; one more restart, and GET"
            ),
            SURVIVED,
        );
        whole(&order, &order.look_up(&program).send().await?, &promise)
    };
    at_every_crash_point(&lab, scene, still).await
}

fn whole(order: &Order, shown: &Reply, promise: &Promise) -> Judged {
    let sent = order.lines.len();
    let body = shown.json().unwrap_or_default();
    let there = body["lines"].as_array().map_or(0, Vec::len);
    let is_whole = shown.status == StatusCode::OK && there == sent;
    promise.holds(is_whole, format!("{there} of {sent} lines: {shown}"))
}

/// Sends an order, crashes the program at the point given, and starts it again. `false` if the
/// point never came.
async fn crash(stage: &Lab, program: &Instance, order: &Order, point: CrashPoint) -> Judged<bool> {
    // Both are kept to the end: a client that hangs up first is another story.
    let mut story = pin!(async { order.place(program).attempt().await.map(drop) });
    let mut pending;
    match point {
        CrashPoint::Database { round_trip, point } => {
            let at = (round_trip, point);
            let Some(_held) = stage.hold(program, at, story.as_mut()).await? else {
                return Ok(false);
            };
            program.crash().await?;
        }
        CrashPoint::Fake(moment) => {
            let trap = stage.warehouse().trap_order(&order.order_id);
            pending = order.place(program).spawn();
            let Some(held) = caught_from(trap.caught(), &mut pending).await? else {
                return Ok(false);
            };
            if moment == FakePoint::Acted {
                held.act();
            }
            program.crash().await?;
            if moment == FakePoint::ActedLater {
                held.act();
            }
            held.break_connection();
        }
    }
    program.restart().await?;
    Ok(true)
}

const ONE_WINS: &str = "the same order: 200 or 201 from both, and its calls once each; two orders: one is placed, the other is answered 409";

/// Two instances get orders under one id at the same time; one of them is held before each of its
/// round trips in turn, while the other one goes as far as it can.
pub async fn places_once_across_instances(lab: Lab) -> Judged<String> {
    let a = lab.start_as("instance A").await?;
    let b = lab.start_as("instance B").await?;
    let promise = |what: &str| {
        let did = format!(
            "{what} to A and B at once; A was held before one of its round trips until B had come as far as it could"
        );
        Promise::new(did, ONE_WINS)
    };
    let (same, different) = (
        promise("the same POST /orders"),
        promise("two POST /orders under one id"),
    );
    let mut placed = Vec::new();
    for round_trip in 1..=MOST_ROUND_TRIPS {
        let order = Order::new(&lab);
        let (was_held, answers) = race(&lab, (&a, &order), (&b, &order), round_trip).await?;
        let [of_a, of_b] = &answers;
        let both = of_a.status.is_success() && of_b.status.is_success();
        same.holds(both, format!("A: {of_a}; B: {of_b}"))?;
        placed.push(order);

        let one = Order::new(&lab);
        let other = one.under_the_same_id(&lab);
        let (_, answers) = race(&lab, (&a, &one), (&b, &other), round_trip).await?;
        let [of_a, of_b] = &answers;
        let one_wins = match (of_a.status, of_b.status) {
            (won, StatusCode::CONFLICT) | (StatusCode::CONFLICT, won) => won.is_success(),
            _ => false,
        };
        different.holds(one_wins, format!("A: {of_a}; B: {of_b}"))?;
        placed.push(if of_a.status.is_success() { one } else { other });
        if !was_held {
            break;
        }
    }
    let places = placed.len() / 2;
    placed.push(crowd(&lab, &[&a, &b]).await?);
    for order in &placed {
        order.effects_are_over(&lab, order.placing().len()).await;
    }
    settled(&lab, &[a, b]).await?;
    for order in &placed {
        let seen = order.seen(&lab);
        same.holds(sorted(&seen) == sorted(&order.placing()), listed(&seen))?;
    }
    Ok(format!("{places} places to meet"))
}

/// Twenty who send the same order to both instances at once. A race that is left to luck proves
/// little; that nobody is turned away because of the crowd, it does.
async fn crowd(lab: &Lab, at: &[&Instance]) -> Judged<Order> {
    const EACH: usize = 10;
    let order = Order::new(lab);
    let promise = Promise::new(
        "20 × POST /orders with the same order through two instances at once",
        ONE_WINS,
    );
    let requests = at.iter().cycle().take(EACH * at.len());
    let answers = requests.enumerate().map(|(number, instance)| {
        let request = order.place(instance);
        request.actor(format!("request {}", number + 1)).send()
    });
    for reply in futures::future::join_all(answers).await {
        let reply = reply?;
        promise.holds(reply.status.is_success(), reply.to_string())?;
    }
    Ok(order)
}

/// Sends one order to the first instance, holds it before a round trip, and sends the other order to
/// the second instance meanwhile. Says whether there was such a round trip, and both answers.
async fn race(
    lab: &Lab,
    (a, one): (&Instance, &Order),
    (b, other): (&Instance, &Order),
    round_trip: u64,
) -> Judged<(bool, [Reply; 2])> {
    /// The last resort, for a design whose second request waits in a way that nobody can see.
    const MEETING: Duration = Duration::from_secs(10);
    a.front().quiet().await;
    let trap = a.front().arm(RoundTrip(round_trip), Point::Early);
    let mut first = one.place(a).actor("to A").spawn();
    let was_held = tokio::select! {
        biased;
        held = trap.sprung() => held.is_ok(),
        ended = first.attempted() => { ended?.ok(); false }
    };
    let mut second = other.place(b).actor("to B").spawn();
    if was_held {
        lab.note(format!("A is held before round trip {round_trip}"));
        lab.until(MEETING, || async {
            second.is_answered() || waits_for_a_lock(lab, b).await
        })
        .await;
        lab.note("A goes on");
    }
    trap.let_go();
    let promise = Promise::new("POST /orders to A and B at once", ONE_WINS);
    let mut answers = Vec::new();
    for pending in [&mut first, &mut second] {
        match pending.attempted().await? {
            Ok(reply) => answers.push(reply),
            Err(silence) => return promise.broken(silence.to_string()),
        }
    }
    match <[Reply; 2]>::try_from(answers) {
        Ok(answers) => Ok((was_held, answers)),
        Err(_) => promise.broken("not two answers"),
    }
}

/// Whether the server says that one of the instance's sessions waits for another session.
async fn waits_for_a_lock(lab: &Lab, instance: &Instance) -> bool {
    let blocked = sqlx::query_scalar(
        "select exists (select from unnest($1::int[]) pid where cardinality(pg_blocking_pids(pid)) > 0)",
    )
    .bind(instance.front().backend_pids())
    .fetch_one(lab.admin());
    // A server that does not say is asked again.
    blocked.await.unwrap_or_default()
}

/// The connections to the database are cut once, and the program comes back by itself.
pub async fn comes_back_after_a_cut(lab: Lab) -> Judged {
    const TRIES: usize = 3;
    let program = lab.start().await?;
    let order = Order::new(&lab);
    order.is_placed(&program).await?;
    order.effects_are_over(&lab, order.placing().len()).await;
    let promise = Promise::new(
        "POST /orders; all connections to the database were cut, new ones were let through; GET /orders/{id}",
        "200 at the third try at the latest",
    );
    lab.note("cuts all connections to the database");
    program.front().reset();
    let mut last = String::new();
    for _ in 0..TRIES {
        last = match order.look_up(&program).attempt().await? {
            Ok(reply) if reply.status == StatusCode::OK => return Ok(()),
            Ok(reply) => reply.to_string(),
            Err(silence) => silence.to_string(),
        };
    }
    promise.broken(format!("at the third try: {last}"))
}
