//! The experiment: the same customers at five shops, then two customers in slow motion, then the
//! same computing in three places.
//!
//! Nothing is arranged in the first and in the third, unlike in the checks: every number is a count
//! of what happened, or a ratio within this run.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use http::StatusCode;
use kata_lab::{
    BoxError, BoxFuture, Implementation, Instance, Judged, Lab, Stop,
    experiment::Stage,
    fakes::Weather,
    report::{Progress, Table},
};
use serde_json::json;

/// How many digests are computed at once: enough to keep every thread that serves.
const CROWD: usize = 4;

const ORDERS: usize = 400;
const CLIENTS: usize = 40;
const STOCK: u64 = 200;

/// An approval takes this long: about as long as an order would take without one.
const APPROVAL: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(10));

/// What is run: the variant, its style, and how the table calls it.
const SHOPS: [(&str, &str, &str); 5] = [
    ("reference", "naive", "naive"),
    ("lock-across-await", "lock", "lock, held while asking"),
    ("reference", "lock", "lock"),
    ("alternative-compare-and-swap", "lock", "compare and swap"),
    ("reference", "worker", "worker"),
];

/// Where a digest is computed.
const PLACES: [(&str, &str); 3] = [
    ("blocks-the-runtime", "on the threads that serve"),
    ("one-digest-at-a-time", "on one other thread"),
    ("reference", "on a thread each"),
];

pub(crate) fn run(stage: Stage) -> BoxFuture<Result<(), BoxError>> {
    Box::pin(async move {
        sell(&stage).await?;
        slow_motion(&stage).await.map_err(|stop| sentence(*stop))?;
        compute(&stage).await.map_err(|stop| sentence(*stop))?;
        Ok(())
    })
}

fn sentence(stop: Stop) -> String {
    match stop {
        Stop::Failed { did, saw, .. } => format!("{did}: {saw}"),
        Stop::NotStarted(why) | Stop::Inconclusive(why) | Stop::NotRun(why) => why,
    }
}

// ------------------------------------------------------------------------------------- the shops

async fn sell(stage: &Stage) -> Result<(), BoxError> {
    let (shortest, longest) = APPROVAL;
    stage.say(format!(
        "{CLIENTS} clients order {ORDERS} lamps, one at a time; there are {STOCK}. Somebody has to approve each sale, which takes {} to {} ms.",
        shortest.as_millis(),
        longest.as_millis(),
    ));
    let progress = stage.progress((SHOPS.len() + 1) * ORDERS, "orders");
    let mut table = Table::new(["shop", "sold", "oversold", "left", "orders/s"]);
    for (id, style, title) in SHOPS {
        progress.say(title);
        let day = a_day(stage, &stage.variant(id), style, &progress).await;
        day.map_err(|stop| sentence(*stop))?.row(&mut table, title);
    }
    progress.say("yours");
    let exercise = stage.variant(stage.session().kata().exercise().id);
    match a_day(stage, &exercise, "lock", &progress).await {
        Ok(day) => day.row(&mut table, "yours, lock"),
        Err(stop) => match *stop {
            // All routes of the stock wait for step 1.
            Stop::NotStarted(_) => {
                let steps = stage.session().kata().steps.len();
                table.remark("yours", format!("not started (step 1 of {steps})"));
            }
            other => table.remark("yours", sentence(other)),
        },
    }
    drop(progress);
    stage.table(&table);
    stage.say("A lock that is held while somebody else thinks sells right and slowly. The three below it sell right without that queue: each order still waits for its own approval, and for nobody else's.");
    Ok(())
}

/// What one shop did.
struct Day {
    sold: u64,
    left: u64,
    per_second: f64,
}

impl Day {
    fn row(&self, table: &mut Table, title: &str) {
        let oversold = self.sold.saturating_sub(STOCK);
        table
            .row([
                title.to_owned(),
                self.sold.to_string(),
                oversold.to_string(),
                self.left.to_string(),
                format!("{:.0}", self.per_second),
            ])
            .bar(self.per_second);
    }
}

async fn a_day(
    stage: &Stage,
    implementation: &Implementation,
    style: &str,
    progress: &Progress,
) -> Judged<Day> {
    let lab = stage.session().lab(implementation, "experiment").await?;
    let day = orders(stage, &lab, style, progress).await;
    lab.close().await;
    day
}

async fn orders(stage: &Stage, lab: &Lab, style: &str, progress: &Progress) -> Judged<Day> {
    let shop = lab.start().await?;
    let path = format!("/{style}/stock/lamp");
    put(&shop, &path, STOCK).await?;
    lab.approvals().set_weather(Weather::Delay {
        at_least: APPROVAL.0,
        at_most: APPROVAL.1,
        seed: stage.session().seed(),
    });
    let began = Instant::now();
    let order = async |_| {
        let reply = reserve(&shop, &path, "client").await;
        progress.step();
        reply.map(|status| u64::from(status == StatusCode::OK))
    };
    let sold: Vec<Judged<u64>> = stream::iter(0..ORDERS)
        .map(order)
        .buffer_unordered(CLIENTS)
        .collect()
        .await;
    let took = began.elapsed();
    let sold = sold.into_iter().sum::<Judged<u64>>()?;
    let left = shop.get(&path).send().await?;
    Ok(Day {
        sold,
        left: left
            .json()
            .and_then(|body| body["quantity"].as_u64())
            .unwrap_or_default(),
        per_second: ORDERS as f64 / took.as_secs_f64(),
    })
}

async fn put(shop: &Instance, path: &str, quantity: u64) -> Judged {
    let body = json!({ "quantity": quantity });
    shop.put(path).json(&body).send().await.map(|_| ())
}

async fn reserve(shop: &Instance, path: &str, client: &str) -> Judged<StatusCode> {
    let request = shop.post(format!("{path}/reserve")).actor(client);
    let reply = request.json(&json!({ "quantity": 1 })).send().await?;
    Ok(reply.status)
}

// ---------------------------------------------------------------------------------- slow motion

/// Two clients and the last lamp, with the approvals held until both have asked.
async fn slow_motion(stage: &Stage) -> Judged {
    let lab = stage
        .session()
        .lab(&stage.variant("reference"), "slow motion")
        .await?;
    let shop = lab.start().await?;
    let path = "/naive/stock/lamp";
    put(&shop, path, 1).await?;
    let began = lab.history().mark();
    lab.history().forget_before(began);
    let trap = lab.approvals().trap_sku("lamp");
    let both_asked = async {
        lab.until(Duration::from_secs(10), || {
            std::future::ready(trap.waiting() == 2)
        })
        .await;
        for approval in [trap.caught().await, trap.caught().await] {
            drop(approval);
        }
    };
    let clients = futures::future::join(
        reserve(&shop, path, "client 1"),
        reserve(&shop, path, "client 2"),
    );
    let ((first, second), ()) = futures::future::join(clients, both_asked).await;
    first?;
    second?;
    shop.get(path).actor("lab").send().await?;
    stage.line("The last lamp at the naive shop, in slow motion; both approvals are held until both have asked:\n");
    stage.timeline(&lab.history().events());
    stage.say("Both read 1 before either wrote 0. The second write is the lost update: the stock says that one lamp was sold, and two customers have bought it. Every single read and write was behind a mutex; that took away the data race, and not the race.");
    lab.close().await;
    Ok(())
}

// ------------------------------------------------------------------------------------- computing

async fn compute(stage: &Stage) -> Judged {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    stage.say(format!(
        "{CROWD} digests at once, and GET /health again and again meanwhile. This machine has {cores} cores."
    ));
    let progress = stage.progress(PLACES.len(), "places");
    let mut table = Table::new([
        "digests are computed",
        "4 take as long as",
        "/health meanwhile",
    ]);
    for (id, title) in PLACES {
        progress.say(title);
        let lab = stage.session().lab(&stage.variant(id), "computing").await?;
        let measured = digests(&lab).await;
        lab.close().await;
        let (ratio, per_second) = measured?;
        table
            .row([
                title.to_owned(),
                format!("{ratio:.1} × one"),
                format!("{per_second:.0}/s"),
            ])
            .bar(ratio);
        progress.step();
    }
    drop(progress);
    stage.table(&table);
    stage.say("The second line is concurrency without parallelism: others are served while it computes, and computing is no faster. The third is both. The first is neither.");
    Ok(())
}

/// How many times as long as one digest a crowd of them takes, and how many requests were answered
/// in a second meanwhile.
async fn digests(lab: &Lab) -> Judged<(f64, f64)> {
    const DIGEST: Duration = Duration::from_millis(200);
    let program = lab.start().await?;
    let digest = async |rounds: u64| -> Judged<Duration> {
        let began = Instant::now();
        let body = json!({ "seed": lab.id("seed"), "rounds": rounds });
        program.post("/digests").json(&body).send().await?;
        Ok(began.elapsed())
    };
    let mut rounds = 2_000;
    let mut single = digest(rounds).await?;
    while single < DIGEST / 2 {
        rounds *= 2;
        single = digest(rounds).await?;
    }
    // The fastest of a few: whatever else the machine does makes it slower.
    for _ in 0..3 {
        single = single.min(digest(rounds).await?);
    }
    let busy = AtomicBool::new(true);
    let all = async {
        let began = Instant::now();
        let crowd = (0..CROWD).map(|_| digest(rounds));
        let outcome = futures::future::try_join_all(crowd).await;
        busy.store(false, Ordering::SeqCst);
        outcome.map(|_| began.elapsed())
    };
    let answered = async {
        let mut answered: u32 = 0;
        loop {
            program.get("/health").quietly().send().await?;
            if !busy.load(Ordering::SeqCst) {
                return Ok(answered);
            }
            answered += 1;
        }
    };
    let (all, answered) = futures::future::try_join(all, answered).await?;
    let (all, single) = (all.as_secs_f64(), single.as_secs_f64());
    Ok((all / single, f64::from(answered) / all))
}
