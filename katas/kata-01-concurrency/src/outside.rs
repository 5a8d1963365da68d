//! Clients of the two services that the program is given. Yours to use in `exercise.rs`.

use std::time::Duration;

use http::StatusCode;
use kata_lab::BoxError;
use serde_json::json;

use crate::contract::{Config, Order};

/// Longer than the contract asks for: a check may hold a call for a while.
const PATIENCE: Duration = Duration::from_secs(60);

/// A call that did not end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallFailed;

/// The two services, as this program sees them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outside {
    http: reqwest::Client,
    approval_url: String,
    slow_url: String,
}

impl Outside {
    /// Clients for the services that the environment names.
    ///
    /// # Errors
    /// If the HTTP client cannot be built.
    pub fn new(config: &Config) -> Result<Self, BoxError> {
        let http = reqwest::Client::builder()
            .no_proxy()
            // Nothing is sent twice: a job that was sent may have been done.
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .timeout(PATIENCE)
            .build()?;
        Ok(Self {
            http,
            approval_url: format!("{}/approvals", config.approval_url),
            slow_url: config.slow_url.clone(),
        })
    }

    /// Asks once whether an order may be sold. Slow: somebody has to look at it.
    ///
    /// # Errors
    /// [`CallFailed`] if the answer is anything but 204, or none.
    pub async fn approve(&self, order: &Order) -> Result<(), CallFailed> {
        let body = json!({ "sku": order.sku, "quantity": order.quantity });
        let request = self.http.post(&self.approval_url).json(&body);
        match request.send().await {
            Ok(answer) if answer.status() == StatusCode::NO_CONTENT => Ok(()),
            _ => Err(CallFailed),
        }
    }

    /// Has a job done, once.
    ///
    /// # Errors
    /// [`CallFailed`] if the answer is no 2xx, or none.
    pub async fn do_job(&self, job_id: &str) -> Result<(), CallFailed> {
        let url = format!("{}/jobs", self.slow_url);
        let request = self.http.post(url).json(&json!({ "job_id": job_id }));
        succeeded(request).await
    }

    /// Fetches a thing, once.
    ///
    /// # Errors
    /// As [`Outside::do_job`].
    pub async fn fetch(&self, id: &str) -> Result<(), CallFailed> {
        succeeded(self.http.get(format!("{}/things/{id}", self.slow_url))).await
    }
}

async fn succeeded(request: reqwest::RequestBuilder) -> Result<(), CallFailed> {
    match request.send().await {
        Ok(answer) if answer.status().is_success() => Ok(()),
        _ => Err(CallFailed),
    }
}
