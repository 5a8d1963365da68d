//! What the program's threads are seen to do while it computes.

use std::{ops::Range, time::Duration};

use kata_lab::{Instance, Judged, Lab, Pending, Promise, Threads};

use super::{digests_of, request};

/// How long a digest is computed that is watched.
pub(super) const LOOK: Duration = Duration::from_millis(150);

/// How a program was seen to compute two digests.
pub(super) enum Seen {
    /// Two threads did nothing else, or had more than one core. Not even on a busy machine can
    /// threads that take turns do that: each of them sleeps, again and again, until it is its turn.
    Parallel,
    /// Much of the time there was nothing to run on a second core. Not even on a busy machine can
    /// that be so if two threads compute: one that waits for a core has something to run.
    Serial,
    /// As from threads that take turns on a very busy machine.
    Neither,
}

/// Whether its threads can be looked at, and do nothing when they have nothing to do.
pub(super) async fn can_be(at: &Instance) -> bool {
    const IDLE: f64 = 0.2;
    let Some(before) = at.threads().await else {
        return false;
    };
    tokio::time::sleep(LOOK / 2).await;
    let after = at.threads().await;
    after.is_some_and(|after| after.work_since(&before).ran < IDLE)
}

/// Looks at the threads, again and again, until the first of two digests is answered.
pub(super) async fn digests(
    lab: &Lab,
    at: &Instance,
    rounds: u64,
    promise: &Promise,
) -> Judged<Seen> {
    const MORE_THAN_ONE_CORE: f64 = 1.5;
    const BETWEEN: Duration = Duration::from_millis(5);
    const ENOUGH_LOOKS: usize = 5;
    const AT_MOST_ONE: Range<f64> = 0.9..1.6;
    let mut pair = [0, 1].map(|_| request(lab, at, rounds).spawn());
    let mut looks = Vec::new();
    while !pair.iter().any(Pending::is_answered) {
        looks.extend(at.threads().await);
        tokio::time::sleep(BETWEEN).await;
    }
    // The last look may have come after the answer.
    looks.pop();
    digests_of(&mut pair, promise).await?;
    // At first the requests are on their way, and at last the answers.
    let way = looks.len() / 4;
    let looks = &looks[way..looks.len() - way];
    let [first, .., last] = looks else {
        return Ok(Seen::Neither);
    };
    if looks.len() < ENOUGH_LOOKS {
        return Ok(Seen::Neither);
    }
    let work = last.work_since(first);
    if work.without_pause >= 2 || work.ran >= MORE_THAN_ONE_CORE {
        return Ok(Seen::Parallel);
    }
    // A thread that computes wants a core in every look. Threads that take turns want one now and
    // then; on a busy machine, where they wait for it in vain, more often, and still not always.
    let shares = Threads::wanting_a_core(looks);
    let both: f64 = shares.iter().take(2).sum();
    Ok(match AT_MOST_ONE.contains(&both) {
        true => Seen::Serial,
        false => Seen::Neither,
    })
}
