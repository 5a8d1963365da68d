//! The experiment: impatient clients and a slow provider, against four implementations.
//!
//! Nothing is arranged here, unlike in the checks: the clients lose patience by themselves, and
//! every number is a count of what happened.

use std::time::{Duration, Instant};

use kata_lab::{
    BoxError, BoxFuture, Event, Implementation, Instance, Judged, Lab, Stop,
    experiment::Stage,
    fakes::{Weather, payment_provider::GOOD_CARD},
    report::{Progress, Table},
};
use serde_json::json;

const CLIENTS: usize = 200;
const RETRIES: usize = 3;

/// The times of a run, in proportion to each other and to what this machine needs for a payment:
/// on a slow one the clients would otherwise lose patience with the machine and not with the
/// provider.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// How long a client waits for an answer.
    patience: Duration,
    /// The provider's shortest and longest answer: about every other one outlasts the patience.
    provider: (Duration, Duration),
    /// Between two arrivals. All at once would measure the machine and not the code.
    arrivals: Duration,
}

impl Pace {
    const LEAST_PATIENCE: Duration = Duration::from_millis(60);

    fn for_payments_of(quick: Duration) -> Self {
        let patience = (quick * 6).max(Self::LEAST_PATIENCE);
        // In tens of milliseconds, since the story names it.
        let patience = Duration::from_millis(patience.as_millis().div_ceil(10) as u64 * 10);
        Self {
            patience,
            provider: (patience / 12, patience * 11 / 6),
            arrivals: patience * 2 / 15,
        }
    }
}

/// What is run, and how the table calls it.
const RUNS: [(&str, &str); 3] = [
    ("no-key", "no key"),
    ("check-then-act", "check, then act"),
    ("reference", "reference"),
];

/// The run whose worst moment is shown.
const SHOWN: &str = "check-then-act";

pub(crate) fn run(stage: Stage) -> BoxFuture<Result<(), BoxError>> {
    Box::pin(narrate(stage))
}

async fn narrate(stage: Stage) -> Result<(), BoxError> {
    let progress = stage.progress((RUNS.len() + 1) * CLIENTS, "payments");
    let pace = Pace::for_payments_of(
        quick_payment(&stage)
            .await
            .map_err(|stop| sentence(*stop))?,
    );
    let (quickest, slowest) = pace.provider;
    stage.say(format!(
        "{CLIENTS} clients pay {CLIENTS} invoices. Each waits {} ms for its answer, then hangs up and tries again with the same key, up to three times. The provider needs {} to {} ms for a charge.",
        pace.patience.as_millis(),
        quickest.as_millis(),
        slowest.as_millis(),
    ));
    let mut table = Table::new(["variant", "charges", "charged twice", "no answer", "p95"]);
    let mut shown = None;
    for (id, title) in RUNS {
        progress.say(title);
        let tally = crowd(&stage, &stage.variant(id), pace, &progress)
            .await
            .map_err(|stop| sentence(*stop))?;
        tally.row(&mut table, title);
        if id == SHOWN {
            shown = Some(tally);
        }
    }
    progress.say("yours");
    let exercise = stage.variant(stage.session().kata().exercise().id);
    match crowd(&stage, &exercise, pace, &progress).await {
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

    let Some(tally) = shown else { return Ok(()) };
    match tally.worst {
        Some(events) => {
            stage.line(format!("One of the {}, as it happened:\n", tally.charged_twice));
            stage.timeline(&events);
            stage.say("Both requests looked for the key before either had written it. A key that is looked up first and stored afterwards protects only clients who are never in a hurry.");
        }
        None => stage.say("This time nobody was charged twice by “check, then act”: the race is there, and luck hid it. Run it again."),
    }
    Ok(())
}

fn sentence(stop: Stop) -> String {
    match stop {
        Stop::Failed { did, saw, .. } => format!("{did}: {saw}"),
        Stop::NotStarted(why) | Stop::Inconclusive(why) | Stop::NotRun(why) => why,
    }
}

/// What a payment costs on this machine when nothing is slow: the median of a few.
async fn quick_payment(stage: &Stage) -> Judged<Duration> {
    const PAYMENTS: usize = 9;
    let lab = stage
        .session()
        .lab(&stage.variant("reference"), "pace")
        .await?;
    let measured = async {
        let shop = lab.start().await?;
        let mut times = Vec::new();
        for number in 0..PAYMENTS {
            let began = Instant::now();
            Client::new(&lab, number)
                .pay(&lab, &shop, Duration::from_secs(10))
                .await?;
            times.push(began.elapsed());
        }
        times.sort();
        Ok(times[PAYMENTS / 2])
    };
    let measured = measured.await;
    lab.close().await;
    measured
}

/// What one implementation did to its customers.
struct Tally {
    charges: usize,
    charged_twice: usize,
    no_answer: usize,
    p95: Option<Duration>,
    /// One customer who was charged twice: everything that concerned them.
    worst: Option<Vec<Event>>,
}

impl Tally {
    fn row(&self, table: &mut Table, title: &str) {
        let p95 = self
            .p95
            .map_or("–".to_owned(), |p95| format!("{} ms", p95.as_millis()));
        let counts = [self.charges, self.charged_twice, self.no_answer].map(|n| n.to_string());
        let [charges, twice, silent] = counts;
        table
            .row([title.to_owned(), charges, twice, silent, p95])
            .bar(self.charges as f64);
    }
}

/// One client and its invoice.
struct Client {
    name: String,
    key: String,
    payment_id: String,
    body: serde_json::Value,
}

impl Client {
    fn new(lab: &Lab, number: usize) -> Self {
        let payment_id = lab.id("pay");
        Self {
            name: format!("client {number}"),
            key: lab.id("key"),
            body: json!({
                "payment_id": payment_id,
                "amount_cents": lab.pick(100..=9_999),
                "currency": "EUR",
                "card": GOOD_CARD,
            }),
            payment_id,
        }
    }

    /// Tries, loses patience, tries again; how long it took to get a good answer, if it did.
    async fn pay(&self, lab: &Lab, at: &Instance, patience: Duration) -> Judged<Option<Duration>> {
        let began = Instant::now();
        for _ in 0..=RETRIES {
            let request = at
                .post("/pay")
                .bearer("shop")
                .header("idempotency-key", &self.key)
                .json(&self.body)
                .actor(&self.name)
                .shown(format!("key {}", self.key));
            let mut pending = request.spawn();
            match tokio::time::timeout(patience, pending.attempted()).await {
                Ok(answer) => match answer? {
                    Ok(reply) if reply.status.is_success() => return Ok(Some(began.elapsed())),
                    _ => tokio::time::sleep(patience).await,
                },
                Err(_) => {
                    pending.hang_up();
                    lab.history().note(&self.name, "gives up waiting");
                }
            }
        }
        Ok(None)
    }
}

/// A client arrives, and pays.
async fn visit(
    client: &Client,
    arrives_after: Duration,
    patience: Duration,
    (lab, shop): (&Lab, &Instance),
    progress: &Progress,
) -> Judged<Option<Duration>> {
    tokio::time::sleep(arrives_after).await;
    let answer = client.pay(lab, shop, patience).await;
    progress.step();
    answer
}

async fn crowd(
    stage: &Stage,
    implementation: &Implementation,
    pace: Pace,
    progress: &Progress,
) -> Judged<Tally> {
    let lab = stage.session().lab(implementation, "experiment").await?;
    let tally = pay_all(stage, &lab, pace, progress).await;
    lab.close().await;
    tally
}

async fn pay_all(stage: &Stage, lab: &Lab, pace: Pace, progress: &Progress) -> Judged<Tally> {
    lab.prefer("KEY_LEASE_MS", 30_000);
    lab.prefer("KEY_TTL_MS", 120_000);
    let shop = lab.start().await?;
    lab.provider().set_weather(Weather::Delay {
        at_least: pace.provider.0,
        at_most: pace.provider.1,
        seed: stage.session().seed(),
    });
    let history = lab.history().clone();
    shop.front()
        .observe(move |seen| history.note("database", &seen.text));

    let clients: Vec<_> = (1..=CLIENTS)
        .map(|number| Client::new(lab, number))
        .collect();
    let visits: Vec<_> = clients
        .iter()
        .enumerate()
        .map(|(index, client)| {
            let arrives_after = pace.arrivals * index as u32;
            visit(client, arrives_after, pace.patience, (lab, &shop), progress)
        })
        .collect();
    let answers = futures::future::join_all(visits).await;
    // Charges whose clients have given up are still under way.
    lab.until(Duration::from_secs(10), || {
        std::future::ready(lab.provider().open_calls() == 0)
    })
    .await;

    let mut waits = Vec::new();
    for answer in answers {
        waits.extend(answer?);
    }
    waits.sort();
    let charges_of = |client: &Client| lab.provider().charges_for(&client.payment_id).len();
    let charges: Vec<_> = clients.iter().map(charges_of).collect();
    let worst = clients
        .iter()
        .zip(&charges)
        .filter(|(_, charges)| **charges == 2)
        .map(|(client, _)| client);
    Ok(Tally {
        charges: charges.iter().sum(),
        charged_twice: charges.iter().filter(|charges| **charges > 1).count(),
        no_answer: CLIENTS - waits.len(),
        p95: waits
            .get((waits.len() * 95).div_ceil(100).saturating_sub(1))
            .copied(),
        worst: worst
            .min_by_key(|client| story(lab, client).len())
            .map(|client| story(lab, client)),
    })
}

/// What concerned one client, with its clock started at its first request.
fn story(lab: &Lab, client: &Client) -> Vec<Event> {
    let mut events = lab.history().events();
    let concerns = |event: &Event| {
        event.actor == client.name
            || event.what.contains(&client.key)
            || event.what.contains(&client.payment_id)
    };
    events.retain(concerns);
    let began = events.first().map(|event| event.at).unwrap_or_default();
    for event in &mut events {
        event.at = event.at.saturating_sub(began);
    }
    events
}
