//! Step 5: the same commands make the same state.

use std::time::{Duration, Instant};

use http::Method;
use kata_lab::{Instance, Judged, Lab, Promise};
use serde_json::{Value, json};

use super::customer::Order;

/// Between two replays: long enough for a clock of whole seconds to show another time.
const APART: Duration = Duration::from_millis(1_100);

/// A command as it was recorded.
struct Command {
    path: String,
    body: Value,
}

/// Recorded commands, sent to two programs that know nothing of each other, make the same state:
/// whatever the program shows comes from its input.
pub async fn replays_to_the_same_state(lab: Lab) -> Judged {
    let commands = recorded(&lab);
    let first = state_after(&lab, &commands, 1).await?;
    let ended = Instant::now();
    // The two must not see the same second.
    lab.until(APART + APART, || {
        std::future::ready(ended.elapsed() >= APART)
    })
    .await;
    let second = state_after(&lab, &commands, 2).await?;
    let promise = Promise::new(
        format!(
            "{} commands to a fresh program, and 1.1 s later to another fresh one; GET /orders from both",
            commands.len()
        ),
        "the same JSON",
    );
    promise.holds(first == second, difference(&first, &second))
}

fn recorded(lab: &Lab) -> Vec<Command> {
    const ORDERS: usize = 12;
    let mut commands = Vec::new();
    for number in 0..ORDERS {
        let order = Order {
            // Some of them in the same second, and none in the order of the list.
            placed_at: format!("2026-03-{:02}T10:00:00Z", 9 - number % 5),
            ..Order::new(lab)
        };
        let mut send = |path: String, body: Value| commands.push(Command { path, body });
        send("/orders".to_owned(), order.body());
        match number % 4 {
            0 => send(
                format!("/orders/{}/cancel", order.order_id),
                json!({ "cancelled_at": format!("2026-03-10T08:00:{number:02}Z") }),
            ),
            1 => send("/orders".to_owned(), order.body()),
            2 => send("/orders".to_owned(), order.under_the_same_id(lab).body()),
            _ => send(
                "/quotes".to_owned(),
                json!({ "lines": order.lines, "at": order.placed_at }),
            ),
        }
    }
    commands
}

async fn state_after(lab: &Lab, commands: &[Command], number: usize) -> Judged<Value> {
    let stage = lab.scene(number).await?;
    let played = play(&stage, commands).await;
    if played.is_err() {
        lab.adopt(&stage);
    }
    stage.close().await;
    played
}

async fn play(stage: &Lab, commands: &[Command]) -> Judged<Value> {
    let program: Instance = stage.start().await?;
    for Command { path, body } in commands {
        program.post(path.clone()).json(body).send().await?;
    }
    let promise = Promise::new(format!("{} /orders", Method::GET), "200 {orders: […]}");
    let reply = program.get("/orders").send().await?;
    match reply.json().filter(|body| body["orders"].is_array()) {
        Some(state) => Ok(state),
        None => promise.broken(reply.to_string()),
    }
}

/// Where two states differ first.
fn difference(first: &Value, second: &Value) -> String {
    let orders = |state: &Value| state["orders"].as_array().cloned().unwrap_or_default();
    let (first, second) = (orders(first), orders(second));
    let mut pairs = first.iter().zip(&second);
    let Some((one, other)) = pairs.find(|(one, other)| one != other) else {
        return format!("{} orders, and then {}", first.len(), second.len());
    };
    let mut members = one.as_object().into_iter().flatten();
    match members.find(|(member, value)| other[*member] != **value) {
        Some((member, value)) => format!("{member}: {value}, and then {}", other[member]),
        None => format!("{one}, and then {other}"),
    }
}
