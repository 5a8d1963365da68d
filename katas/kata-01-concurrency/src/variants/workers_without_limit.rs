//! Flaw: a worker starts each job in a task of its own and takes the next one at once.
//!
//! So many jobs are accepted as should be, and all of them run at the same time.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use kata_lab::{App, BoxError, Env};

use crate::variants::{
    protocol::Protocol,
    serving::{self, Service},
};

/// Delegates.
#[derive(Debug, Default)]
pub struct WorkersWithoutLimit {
    turn: Mutex<()>,
}

#[async_trait]
impl Protocol for WorkersWithoutLimit {
    async fn accept(&self, service: &Service, job: String) -> bool {
        let _turn = self.turn.lock();
        let stats = service.line.stats();
        let most = service.config.queue_limit + service.config.queue_workers;
        if stats.queued + stats.running >= most as u64 {
            service.line.refuse();
            return false;
        }
        service.line.try_push(job)
    }

    async fn run_worker(self: Arc<Self>, service: Service) {
        loop {
            let job = service.line.next().await;
            let (this, service) = (Arc::clone(&self), service.clone());
            tokio::spawn(async move {
                this.work(&service, &job).await;
                service.line.done();
            });
        }
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, WorkersWithoutLimit::default()).await
}
