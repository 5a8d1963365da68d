//! Flaw: a lease, and no token; a late handler writes over its successor, and frees its key.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::variants::{
    keys::{Job, Settled},
    protocol::Protocol,
    reference::Reference,
    release_not_fenced::ReleaseNotFenced,
    serving::{self, Service},
};

/// Writes by name.
#[derive(Debug)]
pub struct LeaseWithoutFencing;

#[async_trait]
impl Protocol for LeaseWithoutFencing {
    async fn finish(
        &self,
        service: &Service,
        job: &Job,
        token: i64,
        settled: &Settled,
    ) -> Result<bool, sqlx::Error> {
        // Whatever token the row has by now, which is to have none.
        let mut db = service.db.acquire().await?;
        let row = self.look(&mut db, job).await?;
        // Back before the next is asked for: to hold one and wait for another is a deadlock.
        drop(db);
        let token = row.map_or(token, |row| row.token);
        Reference.finish(service, job, token, settled).await
    }

    async fn release(&self, service: &Service, job: &Job, token: i64) -> Result<(), sqlx::Error> {
        ReleaseNotFenced.release(service, job, token).await
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, LeaseWithoutFencing).await
}
