//! Flaw: the lock is a map in this process; another instance has a map of its own.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use axum::response::Response;
use kata_lab::{App, BoxError, Env};

use crate::variants::{
    check_then_act::CheckThenAct,
    keys::{Claim, Job, Settled},
    protocol::Protocol,
    serving::{self, Service, in_own_task},
};

/// Remembers who runs, by scope and key, with the fingerprint.
#[derive(Debug, Default)]
pub struct LockInMemory {
    // A blocking mutex is right: it is held for one look, never across an await.
    running: Mutex<HashMap<(String, String), String>>,
}

#[async_trait]
impl Protocol for LockInMemory {
    async fn claim(&self, service: &Service, job: &Job) -> Result<Claim, sqlx::Error> {
        CheckThenAct.claim(service, job).await
    }

    async fn finish(
        &self,
        service: &Service,
        job: &Job,
        token: i64,
        settled: &Settled,
    ) -> Result<bool, sqlx::Error> {
        CheckThenAct.finish(service, job, token, settled).await
    }

    async fn release(&self, _: &Service, _: &Job, _token: i64) -> Result<(), sqlx::Error> {
        Ok(())
    }

    async fn run(self: Arc<Self>, service: Service, job: Job) -> Response {
        let id = (job.scope.clone(), job.key.clone());
        match self.map().entry(id.clone()) {
            Entry::Vacant(free) => free.insert(job.fingerprint.clone()),
            Entry::Occupied(running) if *running.get() == job.fingerprint => {
                return Claim::Running.refusal();
            }
            Entry::Occupied(_) => return Claim::OtherBody.refusal(),
        };
        in_own_task(async move {
            let response = self.settle(&service, &job).await;
            self.map().remove(&id);
            response
        })
        .await
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, LockInMemory::default()).await
}

impl LockInMemory {
    fn map(&self) -> MutexGuard<'_, HashMap<(String, String), String>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
