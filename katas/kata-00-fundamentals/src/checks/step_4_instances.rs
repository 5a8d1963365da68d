//! Step 4: the process is stateless. Any instance answers for all, and none is missed.

use http::StatusCode;
use kata_lab::{
    CrashPoint, Instance, Interleaving, Judged, Lab, Promise, Reached, Reply, at_every_crash_point,
    at_every_hold_point, told,
};

use super::{
    customer::{CANCELLED_AT, Order},
    points::strike,
};

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
        let crash = async || program.crash().await;
        let Some(_placing) = strike(&stage, &program, &order, point, crash).await? else {
            return Ok(None);
        };
        program.restart().await?;
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

const ONE_WINS: &str = "the same order: 200 or 201 from both, and its calls once each; two orders: one is placed, the other is answered 409";

/// Two instances get orders under one id at the same time; one of them is held at each of its round
/// trips in turn, while the other one goes as far as it can.
pub async fn places_once_across_instances(lab: Lab) -> Judged<String> {
    let warm = |stage: Lab, program: Instance| async move {
        Order::new(&stage).is_placed(&program).await.map(drop)
    };
    let same = |stage: Lab, both: Interleaving| async move {
        let order = Order::new(&stage);
        race(&stage, &both, "the same POST /orders", [&order, &order]).await
    };
    let note = at_every_hold_point(&lab, warm, same).await?;
    let different = |stage: Lab, both: Interleaving| async move {
        let one = Order::new(&stage);
        let other = one.under_the_same_id(&stage);
        race(
            &stage,
            &both,
            "two POST /orders under one id",
            [&one, &other],
        )
        .await
    };
    at_every_hold_point(&lab, warm, different).await?;
    crowd(&lab).await?;
    Ok(note)
}

/// Twenty who send the same order to both instances at once. A race that is left to luck proves
/// little; that nobody is turned away because of the crowd, it does.
async fn crowd(lab: &Lab) -> Judged {
    const EACH: usize = 10;
    let at = [
        lab.start_as("instance A").await?,
        lab.start_as("instance B").await?,
    ];
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
    order.causes(lab, &at, &order.placing(), &promise).await
}

/// Sends two orders under one id, the first one held on its way, and judges the answers and the
/// calls.
async fn race(
    stage: &Lab,
    both: &Interleaving,
    what: &str,
    orders: [&Order; 2],
) -> Judged<Reached> {
    let [one, other] = orders;
    let promise = Promise::new(
        format!(
            "{what} to A and B at once; A was held at one of its round trips until B had come as far as it could"
        ),
        ONE_WINS,
    );
    let played = both
        .play(
            one.place(&both.first).actor("to A"),
            other.place(&both.second).actor("to B"),
        )
        .await?;
    let answers = [&played.first, &played.second];
    let [a, b] = answers.map(|answer| answer.as_ref().map(|reply| reply.status).ok());
    let [a_won, b_won] = [a, b].map(|status| status.is_some_and(|status| status.is_success()));
    let is_right = match one == other {
        true => a_won && b_won,
        false => {
            (a_won && b == Some(StatusCode::CONFLICT)) || (b_won && a == Some(StatusCode::CONFLICT))
        }
    };
    let [of_a, of_b] = answers.map(told);
    promise.holds(is_right, format!("A: {of_a}; B: {of_b}"))?;
    let placed = if a_won { one } else { other };
    let at = [both.first.clone(), both.second.clone()];
    placed
        .causes(stage, &at, &placed.placing(), &promise)
        .await?;
    Ok(played.reached)
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
