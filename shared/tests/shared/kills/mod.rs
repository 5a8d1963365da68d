//! Worker *processes* that are killed with SIGKILL, brokers that crash and connections that are cut,
//! all under load: accepted = done + dead, no effect twice, every key in order.
//!
//! | file | what it is |
//! | --- | --- |
//! | `broker.rs` | where to get each broker, and how to make it fail |
//! | `worker.rs` | the process that is killed: the worker runtime, with an idempotent handler |
//! | `ledger.rs` | what the handlers did, in PostgreSQL, in the same transaction as their effect |
//! | `scene.rs` | load, faults, and the wait for the end |
//! | `judge.rs` | what the ledger must show, and what makes a run worthless |
//! | `proxy.rs` | connections that can be cut |
//!
//! `scripts/kills` runs them for longer. `KATA_SEED` repeats the faults of a run; when the system
//! schedules what is beyond any seed.

mod broker;
mod judge;
mod ledger;
mod proxy;
mod scene;
pub(crate) mod worker;

use libtest_mimic::Trial;

use self::broker::Kind;
use self::scene::{Fault, Scene};
use crate::support::{Outcome, test};

pub(crate) fn tests() -> Vec<Trial> {
    let mut trials = judge::tests();
    for kind in [Kind::Postgres, Kind::Redis, Kind::RabbitMq] {
        for fault in Fault::ALL {
            let name = format!("kills::{}::{}", kind.name(), fault.promise());
            trials.push(test(&name, move || survives(kind, fault)));
        }
    }
    trials.push(test(
        "kills::postgres::an_effect_without_an_inbox_happens_twice",
        an_effect_without_an_inbox_happens_twice,
    ));
    trials
}

async fn survives(kind: Kind, fault: Fault) -> Outcome {
    let report = Scene::from_env(fault).play(kind).await?;
    report.publish();
    if let Some(reason) = report.inconclusive() {
        panic!("inconclusive: {reason}\n{report}");
    }
    assert!(report.is_right(), "{report}");
    Ok(())
}

/// Shows that the scene can tell: the same workers, but for the inbox.
async fn an_effect_without_an_inbox_happens_twice() -> Outcome {
    let mut scene = Scene::from_env(Fault::Kill);
    scene.naive = true;
    let report = scene.play(Kind::Postgres).await?;
    assert!(
        report.twice() > 0,
        "no kill came between an effect and its ack\n{report}"
    );
    assert!(!report.is_right(), "{report}");
    Ok(())
}
