//! What happens at a point: the program ends, or only its connections do, or two requests wait for
//! the lab.

use std::{future::Future, time::Duration};

use kata_lab::{
    CrashPoint, Instance, Judged, Lab, NoAnswer, Pending, Reply, Request,
    proxy::{Held, Point, RoundTrip, Trap},
};
use sqlx::AssertSqlSafe;

use super::bank::unreadable;

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
    let Some(trap) = held(stage, program, point, story.as_mut()).await? else {
        return Ok(false);
    };
    program.crash().await?;
    drop(trap);
    program.restart().await?;
    Ok(true)
}

/// Plays a story and cuts the program's database connections at the point given; the program lives
/// on, and answers what it will. `false` if the story ended first.
pub(super) async fn cut(
    stage: &Lab,
    program: &Instance,
    point: CrashPoint,
    story: impl Future<Output = Judged>,
) -> Judged<bool> {
    let mut story = std::pin::pin!(story);
    let Some(trap) = held(stage, program, point, story.as_mut()).await? else {
        return Ok(false);
    };
    stage.note("cuts the connections");
    program.front().reset();
    drop(trap);
    story.await?;
    Ok(true)
}

/// Waits until the program is held at the point; `None` if the story ended first.
async fn held(
    stage: &Lab,
    program: &Instance,
    point: CrashPoint,
    story: impl Future<Output = Judged>,
) -> Judged<Option<Trap>> {
    // This kata gives no fakes, so there are no other points.
    let CrashPoint::Database(at) = point else {
        return Ok(None);
    };
    stage.hold(program, at, story).await
}

/// A request on its way, held at one point after the other: to look at the tables at each. Once it
/// is dropped nothing is held any more.
pub(super) struct Walk {
    request: Pending,
    held: Option<Trap>,
    ahead: std::vec::IntoIter<Trap>,
}

impl Walk {
    /// Sends a request, to be held at these points of each of its round trips.
    pub(super) async fn begin(program: &Instance, points: &[Point], request: Request) -> Self {
        /// More than one request needs, whatever the driver.
        const ROUND_TRIPS: u64 = 40;
        program.front().quiet().await;
        // All at once: a request that is let go must not come past its next point.
        let traps: Vec<_> = (1..=ROUND_TRIPS)
            .flat_map(|number| points.iter().map(move |point| (RoundTrip(number), *point)))
            .map(|(number, point)| program.front().arm(number, point))
            .collect();
        Self {
            request: request.spawn(),
            held: None,
            ahead: traps.into_iter(),
        }
    }

    /// Lets it go on to its next point; `None` when it is answered.
    pub(super) async fn next(&mut self) -> Judged<Option<Held>> {
        self.held = None;
        for trap in self.ahead.by_ref() {
            let held = tokio::select! {
                biased;
                held = trap.sprung() => held,
                answer = self.request.attempted() => { answer?.ok(); return Ok(None); }
            };
            if let Ok(held) = held {
                self.held = Some(trap);
                return Ok(Some(held));
            }
        }
        Ok(None)
    }

    /// Lets it go on to its end.
    pub(super) async fn end(mut self) -> Judged<Result<Reply, NoAnswer>> {
        self.held = None;
        drop(self.ahead);
        self.request.attempted().await
    }
}

/// Two requests behind a lock of the lab's own: it locks the rows of `table`, lets both queue, and
/// rolls back, so that both go on with what they had seen before. A request of a single simple
/// statement has no point at which it could be held within, and this takes its place.
///
/// It waits until each is answered or waits in the server, but no longer than a second: what is
/// still under way then goes on by itself, which costs the scene and proves nothing wrong.
pub(super) async fn behind_a_lock(
    lab: &Lab,
    table: &str,
    requests: [(&Instance, Request); 2],
) -> Judged<[Result<Reply, NoAnswer>; 2]> {
    let mut lock = match lab.admin().begin().await {
        Ok(lock) => lock,
        Err(error) => return unreadable(error),
    };
    let sql = format!("select from {}.{table} for update", lab.schema());
    if let Err(error) = sqlx::query(AssertSqlSafe(sql)).execute(&mut *lock).await {
        return unreadable(error);
    }
    lab.note(format!("locks the rows of {table}"));
    let at = [requests[0].0.clone(), requests[1].0.clone()];
    let mut both = requests.map(|(_, request)| request.spawn());
    lab.until(Duration::from_secs(1), || queued(lab, &at, &both))
        .await;
    lab.note("lets go of them");
    if let Err(error) = lock.rollback().await {
        return unreadable(error);
    }
    let [first, second] = &mut both;
    Ok([first.attempted().await?, second.attempted().await?])
}

/// Whether each request is answered or waits in the server: for the lab, or for who waits for it.
async fn queued(lab: &Lab, at: &[Instance; 2], both: &[Pending; 2]) -> bool {
    for (instance, request) in at.iter().zip(both) {
        if request.is_answered() {
            continue;
        }
        let waits = sqlx::query_scalar(
            "select exists (select from unnest($1::int[]) as waiting (pid)
             where cardinality(pg_blocking_pids(waiting.pid)) > 0)",
        )
        .bind(instance.front().backend_pids())
        .fetch_one(lab.admin())
        .await;
        if !waits.unwrap_or(false) {
            return false;
        }
    }
    true
}
