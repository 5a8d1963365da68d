//! Step 7: who reads from a replica says how far behind it may be.
//!
//! A replica that replays nothing, or is cut off from its primary, lags for as long as a check
//! likes, so nothing here depends on how fast it is.

use std::time::{Duration, Instant};

use http::StatusCode;
use kata_lab::{Judged, Lab, Promise, Stop, told};
use serde_json::json;

use super::{
    bank::{Transfer, open},
    reader::{OPENED_WITH, Read, Scene, Staleness, shows},
};

/// Long enough to be told from clocks that differ and numbers that are rounded.
const A_WHILE: Duration = Duration::from_millis(400);

/// A read that is strong, or says nothing, sees the caller's own write, whatever the replica has.
pub async fn strong_sees_what_was_written(lab: Lab) -> Judged {
    let scene = Scene::open(lab).await?;
    let mut instances = vec![scene.program.clone()];
    if scene.lab.can_start_instances() {
        instances.push(scene.lab.start_as("second program").await?);
    }
    scene.replica.caught_up().await?;
    scene.replica.hold().await?;
    let mut balance = OPENED_WITH;
    for _ in 0..2 {
        balance = scene.change(balance).await?.balance_cents;
        scene.is_parted(balance, OPENED_WITH).await?;
        for instance in &instances {
            for read in [Read::Strong, Read::Plain] {
                let promise = Promise::new(
                    format!(
                        "moved money while the replica replayed nothing, then GET {} of {}",
                        read.path("…"),
                        instance.name()
                    ),
                    format!("200 with the new balance, {balance}"),
                );
                let answer = instance.get(read.path(&scene.account)).attempt().await?;
                promise.holds(shows(&answer, balance), told(&answer))?;
            }
        }
    }
    Ok(())
}

/// An eventual read that lacks a change says for how long that has been committed, or more.
pub async fn says_how_far_behind(lab: Lab) -> Judged<String> {
    let scene = Scene::open(lab).await?;
    scene.replica.hold().await?;
    let oldest = scene.change(OPENED_WITH).await?;
    // Nobody waits for anything here: what has to be said grows with it.
    tokio::time::sleep(A_WHILE).await;
    let newest = scene.change(oldest.balance_cents).await?;
    scene.is_parted(newest.balance_cents, OPENED_WITH).await?;
    // Else it is as if the two were cut apart, which is for another check.
    scene.replica.received().await?;
    let promise = Promise::new(
        "moved money twice while the replica replayed nothing, then GET …?read=eventual",
        "200 with the newest balance, or with the old one and staleness_ms: the milliseconds since the first of the two was committed, or more",
    );
    let balance = scene.eventual(&promise).await?;
    if balance.cents == newest.balance_cents {
        return Ok("it looked elsewhere than in the replica".to_owned());
    }
    promise.holds(balance.cents == OPENED_WITH, balance.told())?;
    let lacking = format!(
        "{}, {} ms after the first was answered",
        balance.told(),
        balance.lacks_for(oldest).as_millis()
    );
    match balance.staleness {
        Staleness::Ms(said_ms) if !balance.says_too_little(oldest) => {
            Ok(format!("{said_ms:.0} ms behind"))
        }
        _ => promise.broken(lacking),
    }
}

/// A replica that is cut off from its primary has replayed all that it received, and is behind all
/// the same.
pub async fn is_not_fooled_by_a_replica_that_is_cut_off(lab: Lab) -> Judged {
    let scene = Scene::open(lab).await?;
    scene.replica.cut().await?;
    let oldest = scene.change(OPENED_WITH).await?;
    scene.is_parted(oldest.balance_cents, OPENED_WITH).await?;
    let promise = Promise::new(
        "cut primary and replica apart, moved money, then GET …?read=eventual, while the program reached both",
        "200 with the new balance, or with the old one and staleness_ms: the milliseconds since the change was committed, or more, or null; never 0",
    );
    for pause in [Duration::ZERO, A_WHILE] {
        tokio::time::sleep(pause).await;
        let balance = scene.eventual(&promise).await?;
        if balance.cents == oldest.balance_cents {
            continue;
        }
        let lacking = format!(
            "{}, {} ms after the change was answered",
            balance.told(),
            balance.lacks_for(oldest).as_millis()
        );
        let is_said = balance.staleness != Staleness::Unsaid;
        let is_right = balance.cents == OPENED_WITH && is_said && !balance.says_too_little(oldest);
        promise.holds(is_right, lacking)?;
    }
    Ok(())
}

/// What the replica lacks is not there for who reads from it.
pub async fn does_not_find_what_the_replica_lacks(lab: Lab) -> Judged {
    let scene = Scene::open(lab).await?;
    scene.replica.hold().await?;
    let account = open(&scene.lab, &scene.program, OPENED_WITH).await?;
    let path = Read::Eventual.path(&account);
    let promise = Promise::new(
        "opened an account while the replica replayed nothing, then GET …?read=eventual",
        "404: an eventual read comes from the replica, which lacks it",
    );
    let reply = scene.program.get(&path).send().await?;
    promise.holds(reply.status == StatusCode::NOT_FOUND, reply.to_string())?;
    scene.replica.release().await?;
    scene.replica.caught_up().await?;
    let promise = Promise::new(
        "let the replica replay it, then GET …?read=eventual",
        format!("200 with a balance of {OPENED_WITH}"),
    );
    let answer = scene.program.get(&path).attempt().await?;
    promise.holds(shows(&answer, OPENED_WITH), told(&answer))
}

/// The contract: after 2 s without a write, 0 within 2 s. A program that keeps to it is not failed
/// by a machine that is some times slower.
const QUIET: Duration = Duration::from_secs(8);

/// It is failed by answers, and not by the time alone.
const ANSWERS: usize = 20;

/// When all is replayed and nobody writes, nothing is stale.
pub async fn is_zero_again_when_nothing_is_written(lab: Lab) -> Judged {
    let scene = Scene::open(lab).await?;
    scene.replica.cut().await?;
    let change = scene.change(OPENED_WITH).await?;
    scene.is_parted(change.balance_cents, OPENED_WITH).await?;
    scene.replica.heal().await?;
    scene.replica.caught_up().await?;
    let quiet_since = Instant::now();
    let promise = Promise::new(
        "cut primary and replica apart, moved money, joined them again, and wrote nothing more; then GET …?read=eventual again and again",
        "200 with the new balance and staleness_ms, which is 0 when nothing has been written for 2 s, or within 2 s after that",
    );
    let mut answers = 0;
    loop {
        let balance = scene.eventual(&promise).await?;
        answers += 1;
        // The replica had it before this was asked.
        promise.holds(balance.cents == change.balance_cents, balance.told())?;
        match balance.staleness {
            Staleness::Ms(0.0) => return Ok(()),
            Staleness::Ms(_) => {}
            Staleness::Unknown | Staleness::Unsaid => {
                return promise.broken(format!(
                    "{}, while all three reach each other",
                    balance.told()
                ));
            }
        }
        if quiet_since.elapsed() > QUIET && answers >= ANSWERS {
            if !scene.replica.positions().await?.is_complete() {
                return Stop::inconclusive("somebody else writes to the primary");
            }
            return promise.broken(format!(
                "{answers} answers in {} s, none of them with 0; the last: {}",
                quiet_since.elapsed().as_secs(),
                balance.told()
            ));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Without a replica both kinds of reading see the last write, and nothing is behind.
pub async fn reads_the_primary_without_a_replica(lab: Lab) -> Judged {
    if lab.has_replica() {
        return Stop::not_run(
            "it needs a program without REPLICA_URL, and the running one has it (--cmd can)",
        );
    }
    let program = lab.start().await?;
    let from = open(&lab, &program, 1_000).await?;
    let to = open(&lab, &program, 0).await?;
    let transfer = Transfer::new(&lab, &from, &to, 400);
    let answer = transfer.request(&program).attempt().await?;
    if let Some(saw) = transfer.not_done_by(&answer) {
        return Promise::new("POST /transfers of 400", "a 2xx").broken(saw);
    }
    for read in ["", "?read=strong", "?read=eventual"] {
        let reply = program
            .get(format!("/accounts/{from}{read}"))
            .send()
            .await?;
        let body = reply.json().unwrap_or_default();
        let is_last = body["account_id"] == json!(from) && body["balance_cents"] == json!(600);
        let is_not_behind = read != "?read=eventual" || body["staleness_ms"].as_f64() == Some(0.0);
        let expected = match read {
            "?read=eventual" => "200 with a balance of 600 and staleness_ms 0",
            _ => "200 with a balance of 600",
        };
        Promise::new(
            format!("POST /transfers of 400 from an account with 1000; GET /accounts/{{id}}{read} without REPLICA_URL"),
            expected,
        )
        .holds(
            reply.status == StatusCode::OK && is_last && is_not_behind,
            reply.to_string(),
        )?;
    }
    let path = format!("/accounts/{}?read=eventual", lab.id("nobody"));
    let missing = program.get(path).send().await?;
    Promise::new("GET /accounts/{id}?read=eventual of no account", "404")
        .holds(missing.status == StatusCode::NOT_FOUND, missing.to_string())
}
