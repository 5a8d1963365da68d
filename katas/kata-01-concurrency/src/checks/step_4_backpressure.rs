//! Step 4: a queue with a bound, and an answer at once for whoever finds it full.

use http::{Method, StatusCode};
use kata_lab::{
    Instance, Judged, Lab, Pending, Promise, Reply,
    fakes::{Fate, Trap},
};
use serde_json::json;

use super::shop::{LAST_RESORT, all_quiet, answers, arrived, idle};
use crate::contract::JobStats;

/// How many jobs come at once.
const FLOOD: usize = 50;

/// How far a limit may be missed: a worker may have taken a job and not begun with it.
const SLACK: usize = 1;

/// The jobs of one check, as the lab knows them.
struct Jobs<'a> {
    lab: &'a Lab,
    program: Instance,
    /// Holds every job at the slow service.
    trap: Option<Trap>,
    limit: usize,
    workers: usize,
    accepted: Vec<String>,
    refused: Vec<String>,
}

impl<'a> Jobs<'a> {
    /// A program whose workers all have something to do: a burst against idle workers would say
    /// nothing about its queue.
    async fn with_busy_workers(lab: &'a Lab) -> Judged<Self> {
        let program = lab.start().await?;
        idle(lab).await?;
        let is_job = |request: &kata_lab::fakes::Request| {
            request.method() == Method::POST && request.path() == "/jobs"
        };
        let mut jobs = Self {
            lab,
            program,
            trap: Some(lab.slow_service().trap(is_job)),
            limit: lab.number("QUEUE_LIMIT") as usize,
            workers: lab.number("QUEUE_WORKERS") as usize,
            accepted: Vec::new(),
            refused: Vec::new(),
        };
        let promise = Promise::new(
            format!(
                "POST /jobs {} times, each when the slow service had the job before; it held them all",
                jobs.workers
            ),
            "202 for each, and each is sent to the slow service",
        );
        for number in 1..=jobs.workers {
            let job = lab.id("job");
            let mut post = [jobs.post(&job)];
            let reply = answers(&mut post, &promise).await?.remove(0);
            promise.holds(reply.status == StatusCode::ACCEPTED, reply.to_string())?;
            jobs.accepted.push(job);
            let waiting = || jobs.waiting();
            let seen = arrived(lab, &jobs.program, number, waiting).await?;
            promise.holds(seen >= number, format!("{seen} of {number} were sent"))?;
        }
        Ok(jobs)
    }

    fn post(&self, job: &str) -> Pending {
        let body = json!({ "job_id": job });
        let request = self.program.post("/jobs").json(&body).shown(job);
        request.spawn()
    }

    /// How many jobs the slow service holds.
    fn waiting(&self) -> usize {
        self.trap.as_ref().map_or(0, Trap::waiting)
    }

    /// So many at once. Whoever gets no answer hangs up; how many those are.
    async fn flood(&mut self, size: usize, promise: &Promise) -> Judged<usize> {
        let mut posts: Vec<_> = (0..size)
            .map(|_| {
                let job = self.lab.id("job");
                (self.post(&job), job)
            })
            .collect();
        let answered = || posts.iter().filter(|(post, _)| post.is_answered()).count();
        arrived(self.lab, &self.program, size, answered).await?;
        let mut silent = 0;
        for (post, job) in &mut posts {
            match post.is_answered() {
                false => silent += 1,
                true => {
                    let reply = answers(std::slice::from_mut(post), promise)
                        .await?
                        .remove(0);
                    self.note(job.clone(), &reply, promise)?;
                }
            }
        }
        Ok(silent)
    }

    fn note(&mut self, job: String, reply: &Reply, promise: &Promise) -> Judged {
        match reply.status {
            StatusCode::ACCEPTED => self.accepted.push(job),
            StatusCode::SERVICE_UNAVAILABLE => self.refused.push(job),
            _ => return promise.broken(reply.to_string()),
        }
        Ok(())
    }

    /// Lets every held job fail, and all others go.
    fn let_go_with_failures(&mut self) {
        let Some(trap) = self.trap.take() else { return };
        let mut number = 0;
        while let Some(caught) = trap.try_caught() {
            number += 1;
            match number % 2 {
                0 => caught.break_connection(),
                _ => caught.refuse(StatusCode::INTERNAL_SERVER_ERROR),
            }
        }
    }

    /// How many of the accepted jobs were sent, and are over.
    fn over(&self) -> usize {
        let calls = self.lab.slow_service().calls();
        let is_over = |job: &&String| {
            calls.iter().any(|call| {
                let over = !matches!(call.fate, Fate::Running | Fate::Held);
                over && call.body["job_id"] == job.as_str()
            })
        };
        self.accepted.iter().filter(is_over).count()
    }

    async fn stats(&self, promise: &Promise) -> Judged<JobStats> {
        let reply = self.program.get("/jobs/stats").quietly().send().await?;
        let stats = serde_json::from_slice(&reply.body).ok();
        match stats.filter(|_| reply.status == StatusCode::OK) {
            Some(stats) => Ok(stats),
            None => promise.broken(format!("GET /jobs/stats: {reply}")),
        }
    }

    /// Waits until the program has nothing left to do for this check, so that the next one finds
    /// its queue empty.
    async fn end(mut self) -> Judged {
        self.trap = None;
        let all = self.accepted.len();
        arrived(self.lab, &self.program, all, || self.over()).await?;
        Ok(())
    }
}

/// While nothing gets done, so many are accepted as there are workers and places, and no more.
pub async fn bounds_the_queue(lab: Lab) -> Judged<String> {
    let mut jobs = Jobs::with_busy_workers(&lab).await?;
    let (limit, workers) = (jobs.limit, jobs.workers);
    let floods = (2 * limit).div_ceil(FLOOD) + 1;
    let promise = Promise::new(
        format!(
            "all {workers} workers were busy, the slow service held their jobs; {floods} × {FLOOD} POST /jobs at once"
        ),
        format!("{limit} ± {SLACK} more are accepted, and no others"),
    );
    for _ in 0..floods {
        if jobs.flood(FLOOD, &promise).await? > 0 {
            // They wait for an answer. Whether they may is another promise.
            break;
        }
    }
    let accepted = jobs.accepted.len() - workers;
    promise.holds(
        accepted.abs_diff(limit) <= SLACK,
        format!(
            "{accepted} more were accepted, {} refused",
            jobs.refused.len()
        ),
    )?;
    jobs.end().await?;
    Ok(format!("{accepted} accepted"))
}

/// Whoever finds the queue full hears so at once, with `Retry-After`.
pub async fn refuses_at_once_when_full(lab: Lab) -> Judged {
    let mut jobs = Jobs::with_busy_workers(&lab).await?;
    let (limit, workers) = (jobs.limit, jobs.workers);
    let promise = Promise::new(
        format!(
            "all {workers} workers were busy, the slow service held their jobs; POST /jobs, one after the other, until one was refused"
        ),
        format!("after {limit} ± {SLACK} a 503 with Retry-After, while nothing gets done"),
    );
    for _ in 0..=limit + SLACK {
        let job = jobs.lab.id("job");
        let post = jobs.post(&job);
        let answered = || usize::from(post.is_answered());
        if arrived(&lab, &jobs.program, 1, answered).await? == 0 {
            return promise.broken(format!(
                "{} accepted, and the next one had no answer while others were answered: it waits",
                jobs.accepted.len() - workers
            ));
        }
        let mut post = [post];
        let reply = answers(&mut post, &promise).await?.remove(0);
        jobs.note(job, &reply, &promise)?;
        if reply.status == StatusCode::SERVICE_UNAVAILABLE {
            promise.holds(
                reply.header("retry-after").is_some(),
                format!("{reply}, without Retry-After"),
            )?;
            return jobs.end().await;
        }
    }
    promise.broken(format!(
        "{} accepted and none refused",
        jobs.accepted.len() - workers
    ))
}

/// However many wait, the slow service is never called more often at once than there are workers.
pub async fn limits_its_workers(lab: Lab) -> Judged {
    let mut jobs = Jobs::with_busy_workers(&lab).await?;
    let workers = jobs.workers;
    let promise = Promise::new(
        format!(
            "all {workers} workers were busy, the slow service held their jobs; {FLOOD} × POST /jobs at once"
        ),
        format!("never more than {workers} calls to the slow service at once"),
    );
    jobs.flood(FLOOD, &promise).await?;
    all_quiet(&jobs.program).await?;
    let calls = jobs.waiting();
    promise.holds(calls <= workers, format!("{calls} calls at once"))?;
    jobs.end().await
}

/// What was accepted is sent once, although others failed before; what was refused is not sent.
pub async fn does_what_it_accepted(lab: Lab) -> Judged {
    let mut jobs = Jobs::with_busy_workers(&lab).await?;
    let promise = Promise::new(
        format!(
            "all {} workers were busy; {FLOOD} × POST /jobs at once; then the jobs that the workers had failed, half with 500 and half with a broken connection, and all others went well",
            jobs.workers
        ),
        "each accepted job is sent to the slow service once, no refused one is, and none twice",
    );
    jobs.flood(FLOOD, &promise).await?;
    jobs.let_go_with_failures();
    let all = jobs.accepted.len();
    let over = arrived(&lab, &jobs.program, all, || jobs.over()).await?;
    promise.holds(
        over == all,
        format!("{over} of {all} accepted jobs were sent"),
    )?;
    all_quiet(&jobs.program).await?;
    for job in &jobs.accepted {
        let sent = lab.slow_service().calls_for_job(job).len();
        promise.holds(sent == 1, format!("{job} was sent {sent} times"))?;
    }
    for job in &jobs.refused {
        let sent = lab.slow_service().calls_for_job(job).len();
        promise.holds(sent == 0, format!("{job} was refused, and sent"))?;
    }
    jobs.end().await
}

/// The numbers add up, whenever somebody looks.
pub async fn counts_its_jobs(lab: Lab) -> Judged {
    let mut jobs = Jobs::with_busy_workers(&lab).await?;
    let promise = Promise::new(
        format!(
            "all {} workers were busy; {FLOOD} × POST /jobs at once; then the jobs that the workers had failed, and all others went well; GET /jobs/stats before, meanwhile and afterwards",
            jobs.workers
        ),
        "queued + running + done = accepted, and refused = refused, at every look; whatever is over is counted as done",
    );
    let before = jobs.stats(&promise).await?;
    let busy = jobs.accepted.len() as u64;
    let Some(earlier) = before.accepted().checked_sub(busy) else {
        return promise.broken(format!("{busy} accepted, and {before:?}"));
    };
    let silent = jobs.flood(FLOOD, &promise).await? as u64;
    let accepted = earlier.saturating_add(jobs.accepted.len() as u64);
    let refused = before.refused.saturating_add(jobs.refused.len() as u64);
    let adds_up = |stats: &JobStats| {
        // A program may accept or refuse whom it has kept waiting, although nobody hears of it.
        let more_accepted = stats.accepted().checked_sub(accepted);
        let more_refused = stats.refused.checked_sub(refused);
        let unheard = more_accepted.zip(more_refused);
        promise.holds(
            unheard.is_some_and(|(a, r)| a.saturating_add(r) <= silent),
            format!(
                "{accepted} accepted, {refused} refused and {silent} without an answer, and {stats:?}"
            ),
        )
    };
    adds_up(&jobs.stats(&promise).await?)?;
    jobs.let_go_with_failures();
    // Whether all of them are sent is another promise.
    let all = jobs.accepted.len();
    arrived(&lab, &jobs.program, all, || jobs.over()).await?;
    // The last answer has left the slow service. Counting it takes the program a moment.
    let deadline = tokio::time::Instant::now() + LAST_RESORT / 6;
    loop {
        let over = before.done.saturating_add(jobs.over() as u64);
        let stats = jobs.stats(&promise).await?;
        adds_up(&stats)?;
        if stats.done >= over {
            return jobs.end().await;
        }
        if tokio::time::Instant::now() >= deadline {
            return promise.broken(format!("{over} are over, and {stats:?}"));
        }
        all_quiet(&jobs.program).await?;
    }
}
