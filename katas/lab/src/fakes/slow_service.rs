//! A slow service: `POST /jobs {job_id}` → 200, `GET /things/{id}` → 200 `{id}`.
//!
//! It is as slow as a check makes it, by a trap or by the weather.

use std::{io, ops::Deref, sync::Arc};

use http::{Method, StatusCode};
use serde_json::json;

use super::{Answer, CallRecord, Fake, Request, Service};
use crate::History;

/// A fake for work that takes its time.
pub struct SlowService {
    fake: Fake,
}

impl Deref for SlowService {
    type Target = Fake;

    fn deref(&self) -> &Fake {
        &self.fake
    }
}

impl SlowService {
    /// Starts serving on a free loopback port.
    ///
    /// # Errors
    /// If there is no port to be had, or no Tokio runtime here.
    pub fn open(history: History) -> io::Result<Self> {
        let fake = Fake::open(Arc::new(Worker), history)?;
        Ok(Self { fake })
    }

    /// The calls that bring one job, whatever became of them.
    pub fn calls_for_job(&self, job_id: &str) -> Vec<CallRecord> {
        let mut calls = self.calls();
        calls.retain(|call| call.body["job_id"] == job_id);
        calls
    }
}

/// The id of the thing that is asked for.
fn thing(request: &Request) -> Option<&str> {
    let id = request.path().strip_prefix("/things/")?;
    (request.method() == Method::GET && !id.is_empty()).then_some(id)
}

/// The id of the job that is brought.
fn job(request: &Request) -> Option<&str> {
    let is_job = request.method() == Method::POST && request.path() == "/jobs";
    is_job.then(|| request.body()["job_id"].as_str()).flatten()
}

struct Worker;

impl Service for Worker {
    fn actor(&self) -> &'static str {
        "slow service"
    }

    fn describe(&self, request: &Request) -> String {
        match (job(request), thing(request)) {
            (Some(job), _) => format!("do {job}"),
            (_, Some(thing)) => format!("fetch {thing}"),
            _ => format!("{} {}", request.method(), request.path()),
        }
    }

    fn act(&self, request: &Request) -> Answer {
        match (job(request), thing(request)) {
            (Some(job), _) => Answer::json(StatusCode::OK, json!({ "job_id": job })),
            (_, Some(thing)) => Answer::json(StatusCode::OK, json!({ "id": thing })),
            _ if request.path() == "/jobs" => {
                Answer::error(StatusCode::BAD_REQUEST, "job_id_missing")
            }
            _ => Answer::error(StatusCode::NOT_FOUND, "not_found"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::tests::{get, post, within};

    #[tokio::test]
    async fn a_job_is_done_and_a_thing_is_fetched() {
        let slow = SlowService::open(History::new()).unwrap();
        let done = within(post(&slow, "/jobs", json!({ "job_id": "j-1" }))).await;
        assert_eq!(done.status(), StatusCode::OK);
        let fetched = within(get(&slow, "/things/t-1")).await;
        let body: serde_json::Value = within(fetched.json()).await.unwrap();
        assert_eq!(body, json!({ "id": "t-1" }));
        assert_eq!(slow.calls_for_job("j-1").len(), 1);
    }

    #[tokio::test]
    async fn what_it_does_not_know_is_refused() {
        let slow = SlowService::open(History::new()).unwrap();
        let no_id = within(post(&slow, "/jobs", json!({}))).await;
        assert_eq!(no_id.status(), StatusCode::BAD_REQUEST);
        for path in ["/things/", "/jobs/j-1", "/"] {
            let unknown = within(get(&slow, path)).await;
            assert_eq!(unknown.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
