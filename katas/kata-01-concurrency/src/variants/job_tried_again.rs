//! Flaw: a job that failed is sent again, although nobody knows whether it was done.

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::variants::{
    protocol::Protocol,
    serving::{self, Service},
};

/// Does not take no for an answer.
#[derive(Debug)]
pub struct JobTriedAgain;

#[async_trait]
impl Protocol for JobTriedAgain {
    async fn work(&self, service: &Service, job: &str) {
        if service.outside.do_job(job).await.is_err() {
            let _ = service.outside.do_job(job).await;
        }
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, JobTriedAgain).await
}
