//! Step 6: crashes, leases, and handlers that come back from the dead.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use http::StatusCode;
use kata_lab::{
    CrashPoint, FakePoint, Instance, Judged, Lab, Pending, Promise, Reply, at_every_crash_point,
    fakes::{Caught, Trap},
};

use super::{
    step_1_replay::is_marked,
    till::{
        LAST_RESORT, Payment, SLACK, caught, caught_from, lease_and_slack, pause, short_lease,
        until_final,
    },
};

const SURVIVED: &str = "1 charge; the client gets it when the lease is over at the latest, and a replay of it after one more restart";

/// A crash at every round trip to the database and at every moment of the call to the provider.
pub async fn survives_a_crash_at_every_point(lab: Lab) -> Judged<String> {
    short_lease(&lab);
    let scene = |stage: Lab, program: Instance, point: CrashPoint| async move {
        let payment = Payment::new(&stage);
        let promise = Promise::new(
            format!(
                "POST /pay; crashed {point}; started again; the client tried until it got an answer"
            ),
            SURVIVED,
        );
        let story = async { payment.request(&program).attempt().await.map(drop) };
        if !crash(&stage, &program, point, story).await? {
            return Ok(None);
        }
        let within = lease_and_slack(&stage);
        let first = until_final(&stage, within, &promise, || payment.request(&program)).await?;
        if let Some(saw) = payment.not_paid_by(&stage, &first) {
            return promise.broken(saw);
        }
        Ok(Some((point, payment, first)))
    };
    let still = |stage: Lab, program: Instance, (point, payment, first): (_, Payment, Reply)| async move {
        let promise = Promise::new(
            format!(
                "POST /pay; crashed {point}; started again; tried until it was paid; one more restart, and once more"
            ),
            SURVIVED,
        );
        let within = lease_and_slack(&stage);
        let again = until_final(&stage, within, &promise, || payment.request(&program)).await?;
        let same =
            again.status == first.status && again.json() == first.json() && is_marked(&again);
        promise.holds(
            same,
            format!("{first}, and after a restart {again}{}", mark(&again)),
        )?;
        let (captures, saw) = payment.captures(&stage);
        promise.holds(captures == 1, saw)
    };
    at_every_crash_point(&lab, scene, still).await
}

fn mark(reply: &Reply) -> &'static str {
    if is_marked(reply) {
        ""
    } else {
        ", not marked as a replay"
    }
}

/// Plays a story, crashes the program at the point given in the middle of it, and starts it again.
/// `false` if the story ended first, with nothing crashed.
pub(super) async fn crash(
    stage: &Lab,
    program: &Instance,
    point: CrashPoint,
    story: impl Future<Output = Judged>,
) -> Judged<bool> {
    // Pinned here and not dropped before the crash: a client that hangs up first is another story.
    let mut story = std::pin::pin!(story);
    match point {
        CrashPoint::Database(at) => {
            let Some(_held) = stage.hold(program, at, story.as_mut()).await? else {
                return Ok(false);
            };
            program.crash().await?;
        }
        CrashPoint::Fake(moment) => {
            let trap = stage.provider().trap_next();
            let held = tokio::select! {
                biased;
                held = trap.caught() => held,
                ended = &mut story => { ended?; return Ok(false); }
            };
            if moment == FakePoint::Acted {
                held.act();
            }
            program.crash().await?;
            if moment == FakePoint::ActedLater {
                held.act();
            }
            held.break_connection();
        }
    }
    program.restart().await?;
    Ok(true)
}

/// A key whose handler died is free when its lease is over.
pub async fn frees_the_key_when_the_lease_is_over(lab: Lab) -> Judged {
    short_lease(&lab);
    let program = lab.start().await?;
    let payment = Payment::new(&lab);
    let promise = Promise::new(
        "POST /pay; crashed while the provider held the call, which was never acted on; started again; the client went on trying",
        "the payment is made when the lease is over: 1 charge",
    );
    let trap = lab.provider().trap_payment(&payment.payment_id);
    let mut first = payment.request(&program).actor("first try").spawn();
    let held = caught_from(&trap, &mut first, &promise).await?;
    drop(trap);
    program.crash().await?;
    held.break_connection();
    program.restart().await?;
    let last = until_final(&lab, lease_and_slack(&lab), &promise, || {
        payment.request(&program)
    })
    .await?;
    if let Some(saw) = payment.not_paid_by(&lab, &last) {
        return promise.broken(saw);
    }
    let (captures, saw) = payment.captures(&lab);
    promise.holds(captures == 1, saw)
}

/// What a pass says when no second handler ever took over, which is another right design.
const NO_SUCCESSOR: &str = "no successor: the first handler kept the key";

/// How long a scene holds a handler for.
#[derive(Clone, Copy)]
struct Times {
    lease_ms: u64,
    ttl_ms: u64,
}

impl Times {
    /// A key that outlives every handler.
    const fn of_a_lease(lease_ms: u64) -> Self {
        let ttl_ms = 120_000;
        Self { lease_ms, ttl_ms }
    }

    fn prefer(self, lab: &Lab) {
        lab.prefer("KEY_LEASE_MS", self.lease_ms);
        lab.prefer("KEY_TTL_MS", self.ttl_ms);
    }
}

/// Long enough that a handler which renews its lease does so in time, and longer.
const HELD: [Times; 2] = [Times::of_a_lease(2_000), Times::of_a_lease(8_000)];

/// How far a scene is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    /// Until the first handler has a successor.
    UntilSucceeded,
}

/// Plays a scene in which a handler is held until its lease is over.
///
/// On a machine that is busy enough, a handler that renews its lease comes too late for that: it has a
/// successor then, which its design excludes, and the scene judges another design than the one that
/// was written. So a promise counts as broken only if there is a successor with the longer times too.
async fn held<Scene, Played>(
    lab: &Lab,
    [times, longer]: [Times; 2],
    scene: Scene,
) -> Judged<Option<String>>
where
    Scene: Fn(Lab, Part) -> Played,
    Played: Future<Output = Judged<Option<String>>>,
{
    /// Who holds the promise has done so by then, but on a slow machine.
    const USUALLY: Duration = Duration::from_secs(6);
    times.prefer(lab);
    let mut whole = pin!(scene(lab.clone(), Part::Whole));
    if !lab.can_start_instances() {
        return whole.await;
    }
    let succeeded = async {
        let stage = lab.scene(2).await?;
        longer.prefer(&stage);
        let played = scene(stage.clone(), Part::UntilSucceeded).await;
        stage.close().await;
        played
    };
    let is_broken = |judged: &Judged<_>| judged.as_ref().is_err_and(|stop| stop.is_failed());
    let (judged, succeeded) = match tokio::time::timeout(USUALLY, whole.as_mut()).await {
        Ok(judged) if is_broken(&judged) => (judged, succeeded.await),
        Ok(judged) => return judged,
        // It may well be broken in the end, and that question takes long.
        Err(_) => futures::join!(whole, succeeded),
    };
    match succeeded {
        // What was broken even before there could be a successor is broken without one.
        Ok(None) => judged,
        Err(stop) if stop.is_failed() => judged,
        kept_or_unclear if is_broken(&judged) => kept_or_unclear,
        _ => judged,
    }
}

/// Scene one: the first handler's call is held until its lease is over; its successor is paid; then
/// the provider tells the first handler that it was away.
pub async fn fences_a_late_failure(lab: Lab) -> Judged<Option<String>> {
    held(&lab, HELD, late_failure).await
}

async fn late_failure(lab: Lab, part: Part) -> Judged<Option<String>> {
    let program = lab.start().await?;
    let payment = Payment::new(&lab);
    let promise = Promise::new(
        "POST /pay; the provider held its call until the lease was over and a second request was paid; then it answered the first call 503",
        "the second request's answer stands: it is replayed, the provider is not called again, another body is refused as before",
    );
    let trap = lab.provider().trap_payment(&payment.payment_id);
    let mut first = payment.request(&program).actor("first").spawn();
    let late = caught_from(&trap, &mut first, &promise).await?;
    let ask = || payment.request(&program);
    let Some((second, call)) =
        successor(&lab, &trap, &promise, lab.millis("KEY_LEASE_MS"), &ask).await?
    else {
        late.answer();
        return Ok(Some(NO_SUCCESSOR.to_owned()));
    };
    if part == Part::UntilSucceeded {
        return Ok(None);
    }
    let answer = finish(second, call, &payment, &lab, &promise).await?;
    drop(trap);
    let before = other_body(&program, &payment).await?;
    late.refuse(StatusCode::SERVICE_UNAVAILABLE);
    lab.note("the first handler hears 503");
    over(&mut first).await?;
    stands(&lab, &program, &payment, &answer, &before, &promise).await?;
    Ok(None)
}

/// Scene three: the first instance is cut off from the database while its call is held; the second
/// takes over; then the first can speak again.
pub async fn fences_a_silenced_instance(lab: Lab) -> Judged<Option<String>> {
    let [times, _] = HELD;
    times.prefer(&lab);
    let a = lab.start_as("instance A").await?;
    let b = lab.start_as("instance B").await?;
    let payment = Payment::new(&lab);
    let promise = Promise::new(
        "POST /pay to A; while the provider held its call, A could not reach the database, its lease ended, and B was paid; then A heard 503 and reached the database again",
        "B's answer stands: it is replayed, the provider is not called again, another body is refused as before",
    );
    let trap = lab.provider().trap_payment(&payment.payment_id);
    let mut first = payment.request(&a).actor("first, at A").spawn();
    let late = caught_from(&trap, &mut first, &promise).await?;
    a.front().silence();
    lab.note("A cannot reach the database");
    let ask = || payment.request(&b);
    let found = successor(&lab, &trap, &promise, lab.millis("KEY_LEASE_MS"), &ask).await?;
    let Some((second, call)) = found else {
        a.front().speak();
        late.answer();
        return Ok(Some(NO_SUCCESSOR.to_owned()));
    };
    let answer = finish(second, call, &payment, &lab, &promise).await?;
    drop(trap);
    let before = other_body(&b, &payment).await?;
    late.refuse(StatusCode::SERVICE_UNAVAILABLE);
    a.front().speak();
    lab.note("A hears 503 and reaches the database again");
    over(&mut first).await?;
    stands(&lab, &b, &payment, &answer, &before, &promise).await?;
    Ok(None)
}

/// Scene two: the key expires under its held handler and serves another payment; both handlers end,
/// in either order.
pub async fn fences_across_expiry(lab: Lab) -> Judged<Option<String>> {
    const EXPIRING: [Times; 2] = [
        Times {
            lease_ms: 2_000,
            ttl_ms: 3_000,
        },
        Times {
            lease_ms: 8_000,
            ttl_ms: 9_000,
        },
    ];
    held(&lab, EXPIRING, expiry).await
}

async fn expiry(lab: Lab, part: Part) -> Judged<Option<String>> {
    let program = lab.start().await?;
    let orders: &[bool] = match part {
        Part::Whole => &[true, false],
        Part::UntilSucceeded => &[true],
    };
    let orders = orders
        .iter()
        .map(|&first_ends_first| across_expiry(&lab, &program, first_ends_first, part));
    let notes = futures::future::try_join_all(orders).await?;
    Ok(notes.into_iter().flatten().next())
}

async fn across_expiry(
    lab: &Lab,
    program: &Instance,
    first_ends_first: bool,
    part: Part,
) -> Judged<Option<String>> {
    let payment = Payment::new(lab);
    let next = payment.under_the_same_key(lab);
    let promise = Promise::new(
        "POST /pay; the provider held its call until the key had expired; the same key for another payment, held as well; then both went on, in both orders; the second request again",
        "the second payment's own answer",
    );
    let trap = lab.provider().trap_payment(&payment.payment_id);
    let next_trap = lab.provider().trap_payment(&next.payment_id);
    let mut first = payment.request(program).actor("first").spawn();
    let late = caught_from(&trap, &mut first, &promise).await?;
    let ask = || next.request(program);
    let found = successor(lab, &next_trap, &promise, lab.millis("KEY_TTL_MS"), &ask).await?;
    let Some((mut second, call)) = found else {
        late.answer();
        return Ok(Some(NO_SUCCESSOR.to_owned()));
    };
    if part == Part::UntilSucceeded {
        return Ok(None);
    }
    drop((trap, next_trap));
    lab.note(match first_ends_first {
        true => "both go on, the first one first",
        false => "both go on, the second one first",
    });
    if first_ends_first {
        late.answer();
        over(&mut first).await?;
        call.answer();
        over(&mut second).await?;
    } else {
        call.answer();
        over(&mut second).await?;
        late.answer();
        over(&mut first).await?;
    }
    // The key may have expired once more by now, on a slow machine; then the same payment is asked
    // for anew, and the answer is still its own.
    let again = until_final(lab, lease_and_slack(lab), &promise, || {
        next.request(program)
    })
    .await?;
    match next.not_paid_by(lab, &again) {
        None => Ok(None),
        Some(saw) => promise.broken(saw),
    }
}

/// Tries until a second handler has called the provider; its request and its call.
///
/// `None` if there is none within two seconds after `free_after` *and* three tries made after that
/// were answered: a design whose first handler keeps the key as long as it lives.
async fn successor(
    lab: &Lab,
    trap: &Trap,
    promise: &Promise,
    free_after: Duration,
    ask: &impl Fn() -> kata_lab::Request,
) -> Judged<Option<(Pending, Caught)>> {
    const ANSWERED: usize = 3;
    let began = Instant::now();
    let no_sooner = free_after + Duration::from_secs(2);
    let mut answered = 0;
    loop {
        let sent_at = began.elapsed();
        let mut second = ask().actor("second").spawn();
        let waits = no_sooner.saturating_sub(sent_at) + SLACK;
        tokio::select! {
            biased;
            call = caught(trap, promise) => return Ok(Some((second, call?))),
            reply = second.attempted() => {
                reply?.ok();
                // Its call may have come and gone to the trap in the same instant.
                if let Some(call) = trap.try_caught() {
                    return Ok(Some((second, call)));
                }
            }
            // It waits for the first one: another right design.
            _ = lab.until(waits, || std::future::ready(false)) => return Ok(None),
        }
        if sent_at >= free_after {
            answered += 1;
        }
        if began.elapsed() >= no_sooner && answered >= ANSWERED {
            return Ok(None);
        }
        pause(lab).await;
    }
}

/// Lets the successor's call go, and insists that its request is paid.
async fn finish(
    mut second: Pending,
    call: Caught,
    payment: &Payment,
    lab: &Lab,
    promise: &Promise,
) -> Judged<Reply> {
    call.answer();
    match second.attempted().await? {
        Ok(reply) => match payment.not_paid_by(lab, &reply) {
            None => Ok(reply),
            Some(saw) => promise.broken(format!("the second request: {saw}")),
        },
        Err(silence) => promise.broken(format!("the second request: {silence}")),
    }
}

/// Waits until a late handler's own client has its answer, whatever it is.
async fn over(request: &mut Pending) -> Judged {
    let answered = tokio::time::timeout(LAST_RESORT, request.attempted());
    if let Ok(answer) = answered.await {
        answer?.ok();
    }
    Ok(())
}

/// What stands after the successor's answer: how another body is received. It is asked before and
/// after the late handler's end, since only a change is that handler's doing.
async fn other_body(at: &Instance, payment: &Payment) -> Judged<Reply> {
    let mut other = payment.clone();
    other.amount_cents += 1;
    other.request(at).actor("another body").send().await
}

/// The successor's answer is replayed, the provider is left alone, another body fares as before.
async fn stands(
    lab: &Lab,
    at: &Instance,
    payment: &Payment,
    answer: &Reply,
    before: &Reply,
    promise: &Promise,
) -> Judged {
    let calls = payment.calls(lab);
    let again = payment.request(at).actor("afterwards").send().await?;
    let same = again.json() == answer.json() && is_marked(&again);
    promise.holds(same, format!("{again}{}", mark(&again)))?;
    let more = payment.calls(lab) - calls;
    promise.holds(
        more == 0,
        format!("{again}, and {more} more calls to the provider"),
    )?;
    let after = other_body(at, payment).await?;
    let saw = format!("another body: before {before}, afterwards {after}");
    promise.holds(after.status == before.status, saw)
}
