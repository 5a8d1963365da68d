//! Two ways to write what others write too, compared: notice that it has changed and begin again, or
//! wait for a lock. Once each client has a profile of its own, once all have the same.
//!
//! Optimistic is what a client does with `If-Match`; pessimistic is the program's own increment,
//! which locks the row. Everything that is shown is counted or timed while it happens, and only what
//! was timed in one run may be compared.

use std::time::{Duration, Instant};

use http::StatusCode;
use kata_lab::{BoxError, Instance, Judged, Lab, Promise, experiment::Stage, report::Table};
use serde_json::json;

use crate::experiment::sentence;

const CLIENTS: usize = 12;
const EACH: usize = 10;

/// Added to each round trip to the database: as far as another zone of one region. On loopback
/// nobody would be seen to wait.
const FURTHER_AWAY: Duration = Duration::from_millis(2);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Optimistic,
    Pessimistic,
}

/// What was counted and timed in one scene.
struct Tally {
    /// Requests that were to write.
    tries: usize,
    /// How long each increment took, from the first try to the answer.
    waits: Vec<Duration>,
    took: Duration,
    /// What the profiles say in the end.
    counted: u64,
}

/// Plays the four scenes and shows the table.
///
/// # Errors
/// If the services or the reference do not play along.
pub(crate) async fn narrate(stage: &Stage) -> Result<(), BoxError> {
    let increments = CLIENTS * EACH;
    stage.say(format!(
        "Two ways not to write over what others wrote. {CLIENTS} clients of the reference add one {EACH} times each, with the database {} ms further away: once each to a profile of its own, once all to the same. Optimistic reads, computes and writes with If-Match, and begins again when it hears 412; pessimistic asks for an increment, which waits for the row's lock.",
        FURTHER_AWAY.as_millis()
    ));
    let progress = stage.progress(4, "scenes of contention");
    let mut table = Table::new([
        "contention",
        "counted",
        "tries",
        "median",
        "slowest",
        "per second",
    ]);
    let mut wasted = 0;
    for (contention, profiles) in [("low", CLIENTS), ("high", 1)] {
        for way in [Way::Optimistic, Way::Pessimistic] {
            let tally = play(stage, way, profiles)
                .await
                .map_err(|stop| sentence(*stop))?;
            progress.step();
            if (way, profiles) == (Way::Optimistic, 1) {
                wasted = tally.tries - increments;
            }
            tally.row(&mut table, contention, way);
        }
    }
    drop(progress);
    stage.table(&table);
    stage.say(format!(
        "None was lost, either way. Where nobody meets, all got through at their first try, and what differs is that one way takes two requests and the other one. Where all meet, {wasted} of {} tries were thrown away, and who is unlucky begins again and again; in the queue at the lock each waits for its turn, and holds a connection while it does.",
        increments + wasted
    ));
    Ok(())
}

async fn play(stage: &Stage, way: Way, profiles: usize) -> Judged<Tally> {
    let session = stage.session();
    let lab = session
        .lab(&stage.variant("reference"), "contention")
        .await?;
    let tally = scene(&lab, way, profiles).await;
    lab.close().await;
    tally
}

async fn scene(lab: &Lab, way: Way, profiles: usize) -> Judged<Tally> {
    let program = lab.start().await?;
    let paths: Vec<_> = (0..profiles).map(|n| format!("/profiles/p-{n}")).collect();
    for path in &paths {
        let first = program.put(path).header("if-none-match", "*");
        first.json(&json!({ "n": 0 })).quietly().send().await?;
    }
    // Each has a connection before anything is timed.
    futures::future::try_join_all(
        (0..CLIENTS).map(|client| program.get(&paths[client % profiles]).quietly().send()),
    )
    .await?;
    program.front().delay(FURTHER_AWAY);
    let began = Instant::now();
    let clients = (0..CLIENTS).map(|client| add(&program, &paths[client % profiles], way));
    let clients = futures::future::try_join_all(clients).await?;
    let took = began.elapsed();
    program.front().delay(Duration::ZERO);
    let mut counted = 0;
    for path in &paths {
        let shown = program.get(path).quietly().send().await?;
        counted += shown.json().unwrap_or_default()["n"]
            .as_u64()
            .unwrap_or_default();
    }
    Ok(Tally {
        tries: clients.iter().map(|(tries, _)| tries).sum(),
        waits: clients.into_iter().flat_map(|(_, waits)| waits).collect(),
        took,
        counted,
    })
}

/// One client's increments: how many tries they took, and how long each had to wait.
async fn add(program: &Instance, path: &str, way: Way) -> Judged<(usize, Vec<Duration>)> {
    let mut tries = 0;
    let mut waits = Vec::new();
    for _ in 0..EACH {
        let began = Instant::now();
        loop {
            tries += 1;
            let is_written = match way {
                Way::Optimistic => compare_and_write(program, path).await?,
                Way::Pessimistic => {
                    let increment = program.post(format!("{path}/increment"));
                    let request = increment.json(&json!({ "field": "n" })).quietly();
                    insisted(&request.send().await?.status, StatusCode::OK)?
                }
            };
            if is_written {
                break;
            }
        }
        waits.push(began.elapsed());
    }
    Ok((tries, waits))
}

/// Reads, computes, and writes if nobody else has written meanwhile.
async fn compare_and_write(program: &Instance, path: &str) -> Judged<bool> {
    let seen = program.get(path).quietly().send().await?;
    let n = seen.json().unwrap_or_default()["n"]
        .as_u64()
        .unwrap_or_default();
    let tag = seen.header("etag").unwrap_or_default();
    let write = program.put(path).header("if-match", tag);
    let reply = write.json(&json!({ "n": n + 1 })).quietly().send().await?;
    match reply.status {
        StatusCode::PRECONDITION_FAILED => Ok(false),
        status => insisted(&status, StatusCode::OK),
    }
}

/// Anything else would make the numbers mean something else.
fn insisted(status: &StatusCode, expected: StatusCode) -> Judged<bool> {
    let promise = Promise::new("an increment of the reference", expected.to_string());
    promise.holds(*status == expected, status.to_string())?;
    Ok(true)
}

impl Tally {
    fn row(&self, table: &mut Table, contention: &str, way: Way) {
        let mut waits = self.waits.clone();
        waits.sort_unstable();
        let millis = |wait: Option<&Duration>| {
            format!("{} ms", wait.copied().unwrap_or_default().as_millis())
        };
        let per_second = self.waits.len() as f64 / self.took.as_secs_f64();
        table
            .row([
                match way {
                    Way::Optimistic => format!("{contention}, optimistic"),
                    Way::Pessimistic => format!("{contention}, pessimistic"),
                },
                self.counted.to_string(),
                self.tries.to_string(),
                millis(waits.get(waits.len() / 2)),
                millis(waits.last()),
                format!("{per_second:.0}"),
            ])
            .bar(per_second);
    }
}
