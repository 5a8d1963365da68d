//! Step 6: computing beside serving, and computing on two cores.

mod timed;
mod watched;

use std::time::{Duration, Instant};

use http::StatusCode;
use kata_lab::{Instance, Judged, Lab, Pending, Promise, Reply, Request, Stop};
use serde_json::json;
use sha2::{Digest, Sha256};

use self::watched::Seen;
use super::shop::answers;

fn request(lab: &Lab, at: &Instance, rounds: u64) -> Request {
    let seed = lab.id("seed");
    let body = json!({ "seed": seed, "rounds": rounds });
    let request = at.post("/digests").json(&body);
    request.shown(format!("{rounds} rounds"))
}

fn digest_of(reply: &Reply) -> Option<String> {
    let there = (reply.status == StatusCode::OK).then(|| reply.text("digest"))?;
    there.filter(|digest| digest.len() == 64)
}

/// How long one digest takes.
async fn time(lab: &Lab, at: &Instance, rounds: u64) -> Judged<Duration> {
    let began = Instant::now();
    let reply = request(lab, at, rounds).send().await?;
    let took = began.elapsed();
    Promise::new(format!("POST /digests with {rounds} rounds"), "a digest")
        .holds(digest_of(&reply).is_some(), reply.to_string())?;
    Ok(took)
}

/// The fastest of a few: whatever disturbs one makes it slower, never faster.
async fn fastest(lab: &Lab, at: &Instance, rounds: u64) -> Judged<Duration> {
    const TRIES: usize = 3;
    let mut fastest = Duration::MAX;
    for _ in 0..TRIES {
        fastest = fastest.min(time(lab, at, rounds).await?);
    }
    Ok(fastest)
}

/// So many rounds that a digest is computed for about so long, or longer: what is not computing, from
/// the request to a process that is started for it, has to be little beside it.
async fn rounds_for(lab: &Lab, at: &Instance, wanted: Duration) -> Judged<u64> {
    const CALLS: u32 = 4;
    let call = fastest(lab, at, 1).await?;
    let wanted = wanted.max(CALLS * call);
    let mut rounds = 500;
    loop {
        let computing = fastest(lab, at, rounds).await?.saturating_sub(call);
        if computing >= wanted / 8 {
            let factor = (wanted.as_secs_f64() / computing.as_secs_f64()).max(1.0);
            return Ok((rounds as f64 * factor).ceil() as u64);
        }
        rounds *= 4;
    }
}

/// SHA-256 of SHA-256 of …, of the bytes, as the contract's example shows it.
pub async fn computes_the_right_digest(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let seeds = ["a".to_owned(), "ñandú".to_owned(), lab.id("seed")];
    for (seed, rounds) in seeds.into_iter().zip([2, 1, lab.pick(3..=999)]) {
        let promise = Promise::new(
            format!("POST /digests {{seed: {seed:?}, rounds: {rounds}}}"),
            format!("digest: {}", digest(&seed, rounds)),
        );
        let body = json!({ "seed": seed, "rounds": rounds });
        let reply = program.post("/digests").json(&body).send().await?;
        let right = digest_of(&reply) == Some(digest(&seed, rounds));
        promise.holds(right, reply.to_string())?;
    }
    Ok(())
}

fn digest(seed: &str, rounds: u64) -> String {
    let mut bytes = Sha256::digest(seed.as_bytes());
    for _ in 1..rounds {
        bytes = Sha256::digest(bytes);
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Twice as many digests as cores; ten requests, one after the other, are answered meanwhile.
///
/// Only what is sent while digests must be under way counts: in the second half of the time until
/// the first of them is answered. How long they have to be for ten answers, nobody knows who does not
/// know the program's scheduler and what else the machine does; so each try has digests four times as
/// long. A program that blocks answers nothing in any of them.
pub async fn answers_while_it_computes(lab: Lab) -> Judged {
    const REQUESTS: usize = 10;
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60);
    // One may overtake the answer of the digest that kept it waiting.
    const NONE_TO_SPEAK_OF: usize = 1;
    const ENOUGH_TO_FAIL: usize = 2;
    let program = lab.start().await?;
    let crowd = (2 * cores()).max(4);
    let promise = Promise::new(
        format!("{crowd} × POST /digests at once, then GET /health, one after the other"),
        format!(
            "{REQUESTS} and more are answered before the first digest is, if the digests are long enough"
        ),
    );
    let mut rounds = rounds_for(&lab, &program, SHORTEST).await?;
    let mut blocked = 0;
    loop {
        let served = serves_beside(&lab, &program, crowd, rounds, &promise).await?;
        if served.requests >= REQUESTS {
            return Ok(());
        }
        let none = served.requests <= NONE_TO_SPEAK_OF;
        blocked += usize::from(none && served.until >= LONG);
        if blocked == ENOUGH_TO_FAIL || served.until >= LONGEST {
            return promise.broken(format!(
                "{} × GET /health sent and answered in the {:.1} s before the first digest was",
                served.requests,
                served.until.as_secs_f64() / 2.0
            ));
        }
        if blocked == 0 {
            // No longer than it takes to be sure.
            let missing = 1.25 * LONG.as_secs_f64() / served.until.as_secs_f64();
            let factor = if none { missing.clamp(1.0, 4.0) } else { 4.0 };
            rounds = (rounds as f64 * factor).ceil() as u64;
        }
    }
}

/// What was answered beside a crowd of digests.
#[derive(Debug)]
struct Served {
    /// How many requests were sent and answered in the second half of that time.
    requests: usize,
    /// When the first digest was answered.
    until: Duration,
}

/// Asks for its health, again and again, until the first digest is answered.
async fn serves_beside(
    lab: &Lab,
    at: &Instance,
    crowd: usize,
    rounds: u64,
    promise: &Promise,
) -> Judged<Served> {
    // Requests per doubling of the time that has passed: about thirty-five, if the program keeps up.
    const PACE: u32 = 50;
    let began = Instant::now();
    let mut digests: Vec<_> = (0..crowd)
        .map(|_| request(lab, at, rounds).spawn())
        .collect();
    let mut sent = Vec::new();
    loop {
        let this = began.elapsed();
        at.get("/health").send().await?;
        let until = began.elapsed();
        // Answered too late is not answered.
        if digests.iter().any(Pending::is_answered) {
            answers(&mut digests, promise).await?;
            let requests = sent.iter().filter(|sent| **sent >= until / 2).count();
            return Ok(Served { requests, until });
        }
        sent.push(this);
        tokio::time::sleep(until / PACE).await;
    }
}

/// While two digests are under way, two threads of the program want a core, all the time.
///
/// That is so on a busy machine, too. Where it cannot be seen, or is neither so nor not so, the
/// digests are timed.
pub async fn computes_in_parallel(lab: Lab) -> Judged<String> {
    const TO_PASS: usize = 2;
    const TO_FAIL: usize = 3;
    const LOOKS: usize = 16;
    const LONGEST: u64 = 4;
    if cores() < 2 {
        return Stop::not_run("it needs two cores");
    }
    let program = lab.start().await?;
    let promise = Promise::new(
        "2 × POST /digests at once",
        "two threads compute all the time, since each has a core",
    );
    if !watched::can_be(&program).await {
        return timed::judged(&lab, &program).await;
    }
    let shortest = rounds_for(&lab, &program, watched::LOOK).await?;
    let mut rounds = shortest;
    let (mut parallel, mut serial) = (0, 0);
    for _ in 0..LOOKS {
        match watched::digests(&lab, &program, rounds, &promise).await? {
            Seen::Parallel => (parallel, serial) = (parallel + 1, 0),
            Seen::Serial => (parallel, serial) = (0, serial + 1),
            Seen::Neither => parallel = 0,
        }
        if parallel == TO_PASS {
            return Ok("two threads computed at the same time, all the time".to_owned());
        }
        if serial == TO_FAIL {
            return promise.broken("one thread at a time had something to do");
        }
        if parallel == 0 {
            // What computes the second may have to be started first, and what comes before and
            // after the computing may take long.
            rounds = (2 * rounds).min(LONGEST * shortest);
        }
    }
    timed::judged(&lab, &program).await
}

async fn digests_of(pair: &mut [Pending], promise: &Promise) -> Judged {
    let replies = answers(pair, promise).await?;
    match replies.iter().find(|reply| digest_of(reply).is_none()) {
        None => Ok(()),
        Some(reply) => promise.broken(reply.to_string()),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
