//! The experiment: one order, seen as input, process, state and output; then many orders while the
//! database fails, by a program that sends before it commits and by one that does not.
//!
//! The failures are arranged: each order's connection is cut at another round trip. What comes of it
//! is not, and every number is a count of what the fakes and the database have seen.

use std::time::Duration;

use kata_lab::{
    BoxError, BoxFuture, Event, Implementation, Instance, Judged, Lab, Stop,
    experiment::Stage,
    proxy::{Point, RoundTrip},
    report::{Progress, Table},
};
use serde_json::{Value, json};

use crate::{
    contract::Order,
    variants::{pricing, reference::Reference, shop::Shop},
};

/// What is run, and how the table calls it.
const RUNS: [(&str, &str); 3] = [
    ("storing-error-ignored", "error ignored"),
    ("mail-before-commit", "mail, then commit"),
    ("reference", "commit, then mail"),
];

/// The run whose worst moment is shown.
const SHOWN: &str = "mail-before-commit";

/// Orders of one run, and the round trips at which they are cut, in turn.
const ORDERS: usize = 48;
const ROUND_TRIPS: usize = 4;

/// How long effects behind an answer are waited for.
const EFFECTS: Duration = Duration::from_secs(5);

pub(crate) fn run(stage: Stage) -> BoxFuture<Result<(), BoxError>> {
    Box::pin(narrate(stage))
}

async fn narrate(stage: Stage) -> Result<(), BoxError> {
    stage.say("One order, as the reference handles it. Nothing outside shows its process, which touches nothing: that line is computed here a second time, by the same pure functions, and cannot differ.");
    let events = one_order(&stage).await.map_err(|stop| sentence(*stop))?;
    stage.timeline(&events);

    stage.say(format!(
        "Now {ORDERS} customers place one order each, and the connection to the database is cut while it is stored: before or after one of its first four round trips. Nobody tries again.",
    ));
    let progress = stage.progress((RUNS.len() + 1) * ORDERS, "orders");
    let mut table = Table::new([
        "variant",
        "stored",
        "mails",
        "lost mails",
        "mails about nothing",
    ]);
    let mut shown = None;
    for (id, title) in RUNS {
        progress.say(title);
        let tally = shift(&stage, &stage.variant(id), &progress).await;
        let tally = tally.map_err(|stop| sentence(*stop))?;
        tally.row(&mut table, title);
        if id == SHOWN {
            shown = Some(tally);
        }
    }
    progress.say("yours");
    let exercise = stage.variant(stage.session().kata().exercise().id);
    match shift(&stage, &exercise, &progress).await {
        Ok(tally) => tally.row(&mut table, "yours"),
        Err(stop) => match *stop {
            Stop::NotStarted(_) => {
                let steps = stage.session().kata().steps.len();
                table.remark("yours", format!("not started (step 1 of {steps})"));
            }
            other => table.remark("yours", sentence(other)),
        },
    }
    drop(progress);
    stage.table(&table);

    if let Some((about_nothing, events)) = shown.and_then(Tally::worst) {
        stage.line(format!("One of the {about_nothing}, as it happened:\n"));
        stage.timeline(&events);
        stage.say("The transaction was rolled back, and the letter was not. Whoever commits first loses a letter now and then, which somebody can send tomorrow; nobody can take one back.");
    }
    Ok(())
}

fn sentence(stop: Stop) -> String {
    match stop {
        Stop::Failed { did, saw, .. } => format!("{did}: {saw}"),
        Stop::NotStarted(why) | Stop::Inconclusive(why) | Stop::NotRun(why) => why,
    }
}

/// The life of one order, each event with the part that it belongs to.
async fn one_order(stage: &Stage) -> Judged<Vec<Event>> {
    let reference = stage.variant("reference");
    let lab = stage.session().lab(&reference, "one order").await?;
    let told = async {
        let shop = lab.start().await?;
        // Once before, unseen: the first order of a process opens a connection.
        place(&shop, &order("warm-up")).await?;
        let began = lab.history().mark();
        observe(&lab, &shop);
        place(&shop, &order("order-7")).await?;
        lab.history().forget_before(began);
        let mut events = lab.history().events();
        events.iter_mut().for_each(name_its_part);
        let input = events.first().map(|event| event.at).unwrap_or_default();
        events.insert(1.min(events.len()), process("order-7", input)?);
        Ok(events)
    };
    let told = told.await;
    lab.close().await;
    told
}

/// `customer` → `input`, `database` → `state` and so on.
fn name_its_part(event: &mut Event) {
    let part = match event.actor.as_str() {
        "database" => "state",
        "warehouse" | "mail" => "effect",
        _ if event.what.starts_with('←') => "output",
        _ => "input",
    };
    if part == "effect" {
        event.what = format!("{}: {}", event.actor, event.what);
    }
    event.actor = part.to_owned();
}

/// What the core makes of an order: its price, and the effects that it will have.
fn process(order_id: &str, at: Duration) -> Judged<Event> {
    let order: Order = match serde_json::from_value(order(order_id)) {
        Ok(order) => order,
        Err(error) => return Stop::inconclusive(format!("the story's order is wrong: {error}")),
    };
    let quote = pricing::quote(&order.lines, &order.placed_at);
    let effects = Reference.on_placing(&order);
    let effects: Vec<_> = effects.iter().map(|effect| effect.path).collect();
    Ok(Event {
        at,
        actor: "process".to_owned(),
        what: format!(
            "{} − {} ({}) = {} cents; effects to come: {}",
            quote.subtotal_cents,
            quote.discount_cents,
            quote.rules.join(", "),
            quote.total_cents,
            effects.join(", "),
        ),
    })
}

fn observe(lab: &Lab, shop: &Instance) {
    let history = lab.history().clone();
    shop.front()
        .observe(move |seen| history.note("database", &seen.text));
}

fn order(order_id: &str) -> Value {
    json!({
        "order_id": order_id,
        "customer": "ada",
        "lines": [{ "sku": "tea", "quantity": 12, "unit_price_cents": 350 }],
        "placed_at": "2026-03-07T10:00:00Z",
    })
}

/// Sends an order, whatever comes of it.
async fn place(shop: &Instance, order: &Value) -> Judged {
    let request = shop.post("/orders").json(order).actor("customer");
    request.attempt().await?.ok();
    Ok(())
}

/// What became of one run's orders.
struct Tally {
    stored: usize,
    mails: usize,
    /// Stored, and no mail.
    lost: usize,
    /// A mail, and nothing stored: the orders' stories.
    about_nothing: Vec<Vec<Event>>,
}

impl Tally {
    fn row(&self, table: &mut Table, title: &str) {
        let about_nothing = self.about_nothing.len();
        let counts = [self.stored, self.mails, self.lost, about_nothing].map(|n| n.to_string());
        let [stored, mails, lost, nothing] = counts;
        table
            .row([title.to_owned(), stored, mails, lost, nothing])
            .bar(about_nothing as f64);
    }

    /// How many letters were about nothing, and the shortest story of one.
    fn worst(self) -> Option<(usize, Vec<Event>)> {
        let count = self.about_nothing.len();
        let shortest = self.about_nothing.into_iter().min_by_key(Vec::len)?;
        Some((count, shortest))
    }
}

async fn shift(
    stage: &Stage,
    implementation: &Implementation,
    progress: &Progress,
) -> Judged<Tally> {
    let lab = stage.session().lab(implementation, "experiment").await?;
    let tally = place_all(&lab, progress).await;
    lab.close().await;
    tally
}

async fn place_all(lab: &Lab, progress: &Progress) -> Judged<Tally> {
    let shop = lab.start().await?;
    observe(lab, &shop);
    let mut tally = Tally {
        stored: 0,
        mails: 0,
        lost: 0,
        about_nothing: Vec::new(),
    };
    for number in 0..ORDERS {
        let order_id = lab.id("order");
        let (was_cut, mut story) = place_and_cut(lab, &shop, &order(&order_id), number).await?;
        let mails = mails_for(lab, &order_id, was_cut).await;
        let shown = shop.get(format!("/orders/{order_id}"));
        let shown = shown.quietly().send().await?.status;
        tally.stored += usize::from(shown.is_success());
        tally.mails += mails;
        tally.lost += usize::from(shown.is_success() && mails == 0);
        if mails > 0 && !shown.is_success() {
            let at = story.last().map(|event| event.at).unwrap_or_default();
            story.push(Event {
                at,
                actor: "customer".to_owned(),
                what: format!("GET /orders/{order_id} → {}", shown.as_u16()),
            });
            tally.about_nothing.push(story);
        }
        progress.step();
    }
    Ok(tally)
}

/// Places an order, and cuts its connection at one of its round trips. Says whether it came so far,
/// and what happened.
async fn place_and_cut(
    lab: &Lab,
    shop: &Instance,
    order: &Value,
    number: usize,
) -> Judged<(bool, Vec<Event>)> {
    let (point, word) = [(Point::Early, "before"), (Point::Late, "after")][number % 2];
    let round_trip = number / 2 % ROUND_TRIPS + 1;
    // A connection is there before it is cut: opening one takes round trips of its own.
    shop.get("/orders/nobodys").quietly().attempt().await?.ok();
    let told = lab.history().events().len();
    let trap = shop.front().arm(RoundTrip(round_trip as u64), point);
    let mut placing = shop.post("/orders").json(order).actor("customer").spawn();
    let was_cut = tokio::select! {
        biased;
        held = trap.sprung() => held.is_ok(),
        ended = placing.attempted() => { ended?.ok(); false }
    };
    if was_cut {
        lab.note(format!("cuts the connection {word} the database does it"));
        shop.front().reset();
    }
    placing.attempted().await?.ok();
    let mut story = lab.history().events().split_off(told);
    let began = story.first().map(|event| event.at).unwrap_or_default();
    for event in &mut story {
        event.at = event.at.saturating_sub(began);
    }
    Ok((was_cut, story))
}

/// How many mails there are about an order: they may come after the answer.
async fn mails_for(lab: &Lab, order_id: &str, was_cut: bool) -> usize {
    let mails = || lab.mail().calls_for(order_id).len();
    if !was_cut {
        lab.until(EFFECTS, || std::future::ready(mails() > 0)).await;
    }
    mails()
}
