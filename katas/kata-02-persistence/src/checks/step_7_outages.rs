//! Step 7, continued: the primary or the replica cannot be reached.
//!
//! "Cut off" is a front whose open connections are reset, and which closes new ones at once.

use std::time::Instant;

use http::StatusCode;
use kata_lab::{Judged, Lab, Promise, proxy::Front, told};

use super::reader::{OPENED_WITH, PATIENCE, Read, Scene, shows};

/// Without the primary an eventual read is still answered, and does not claim what it cannot know.
pub async fn eventual_survives_the_primary(lab: Lab) -> Judged {
    let scene = Scene::open(lab).await?;
    scene.replica.hold().await?;
    let oldest = scene.change(OPENED_WITH).await?;
    scene.is_parted(oldest.balance_cents, OPENED_WITH).await?;
    // Else it is as if the two were cut apart, which is for another check.
    scene.replica.received().await?;
    let cut = Cut::primary(&scene);
    let promise = Promise::new(
        "moved money while the replica replayed nothing, cut the program off from the primary, then GET …?read=eventual",
        "200 within 5 s, with the old balance and staleness_ms: the milliseconds since the change was committed, or more, or null",
    );
    for _ in 0..3 {
        let balance = scene.eventual(&promise).await?;
        let is_right = match balance.cents {
            OPENED_WITH => !balance.says_too_little(oldest),
            // From a memory of its own: it is the newest.
            cents => cents == oldest.balance_cents,
        };
        promise.holds(is_right, balance.told())?;
    }
    cut.heal();
    Ok(())
}

/// Without the primary nobody can say what the newest balance is, and 503 says just that.
pub async fn strong_is_refused_without_the_primary(lab: Lab) -> Judged {
    let scene = Scene::open(lab).await?;
    let cut = Cut::primary(&scene);
    for read in [Read::Strong, Read::Plain] {
        let promise = Promise::new(
            format!(
                "cut the program off from the primary, then GET {}",
                read.path("…")
            ),
            "503 within 5 s: only the primary knows the newest balance",
        );
        let reply = scene.read_in_time(read, &promise).await?;
        let is_refused = reply.status == StatusCode::SERVICE_UNAVAILABLE;
        promise.holds(is_refused, reply.to_string())?;
    }
    cut.heal();
    Ok(())
}

/// Nothing but eventual reads needs the replica.
pub async fn strong_survives_the_replica(lab: Lab) -> Judged {
    let scene = Scene::open(lab).await?;
    let cut = Cut::replica(&scene);
    let change = scene.change(OPENED_WITH).await?;
    for read in [Read::Strong, Read::Plain] {
        let promise = Promise::new(
            format!(
                "cut the program off from the replica, moved money, then GET {}",
                read.path("…")
            ),
            format!(
                "200 within 5 s with the new balance, {}",
                change.balance_cents
            ),
        );
        let answer = Ok(scene.read_in_time(read, &promise).await?);
        promise.holds(shows(&answer, change.balance_cents), told(&answer))?;
    }
    let promise = Promise::new(
        "cut the program off from the replica, moved money, then GET …?read=eventual",
        format!(
            "within 5 s 503, or from the primary: 200 with the new balance, {}",
            change.balance_cents
        ),
    );
    let answer = Ok(scene.read_in_time(Read::Eventual, &promise).await?);
    let is_refused = answer
        .as_ref()
        .is_ok_and(|reply| reply.status == StatusCode::SERVICE_UNAVAILABLE);
    promise.holds(
        is_refused || shows(&answer, change.balance_cents),
        told(&answer),
    )?;
    cut.heal();
    Ok(())
}

/// How many reads are under way at once, so that a pool has more than one connection to lose.
const AT_ONCE: usize = 6;

/// What was cut off works again by itself.
pub async fn works_again_when_healed(lab: Lab) -> Judged {
    let scene = Scene::open(lab).await?;
    let ask = |read: Read| scene.program.get(read.path(&scene.account)).quietly();
    for read in [Read::Strong, Read::Eventual] {
        futures::future::try_join_all((0..AT_ONCE).map(|_| ask(read).attempt())).await?;
    }
    let cuts = [Cut::primary(&scene), Cut::replica(&scene)];
    // It notices, for both; what it answers is for other checks.
    let promise = Promise::new(
        "cut the program off from primary and replica, then read a balance",
        "an answer within 5 s",
    );
    scene.read_in_time(Read::Strong, &promise).await?;
    scene.read_in_time(Read::Eventual, &promise).await?;
    for cut in cuts {
        cut.heal();
    }
    for read in [Read::Strong, Read::Eventual] {
        let promise = Promise::new(
            format!(
                "cut the program off from primary and replica and healed both, then GET {} again and again",
                read.path("…")
            ),
            format!("200 with a balance of {OPENED_WITH}, within 5 s of healing"),
        );
        let healed = Instant::now();
        loop {
            let answer = Ok(scene.read_in_time(read, &promise).await?);
            if shows(&answer, OPENED_WITH) {
                break;
            }
            if healed.elapsed() > PATIENCE {
                let seconds = healed.elapsed().as_secs();
                return promise.broken(format!("after {seconds} s: {}", told(&answer)));
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

/// A front that is cut.
struct Cut<'a> {
    scene: &'a Scene,
    is_primary: bool,
}

impl<'a> Cut<'a> {
    fn primary(scene: &'a Scene) -> Self {
        Self::new(scene, true)
    }

    fn replica(scene: &'a Scene) -> Self {
        Self::new(scene, false)
    }

    fn new(scene: &'a Scene, is_primary: bool) -> Self {
        let cut = Self { scene, is_primary };
        cut.front().cut();
        cut.note("is cut off from");
        cut
    }

    fn heal(self) {
        self.front().heal();
        self.note("can reach again");
    }

    fn front(&self) -> &Front {
        match self.is_primary {
            true => self.scene.program.front(),
            false => self.scene.program.replica_front(),
        }
    }

    fn note(&self, what: &str) {
        let server = match self.is_primary {
            true => "the primary",
            false => "the replica",
        };
        self.scene.lab.note(format!("the program {what} {server}"));
    }
}
