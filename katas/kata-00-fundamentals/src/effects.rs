//! Effects as values, and the one place that carries them out. Yours to use in `exercise.rs`.
//!
//! An [`Effect`] says what would be done, and does nothing. So it can be listed, compared, logged
//! and thrown away; only [`Outside::carry_out`] touches the world. Which effects an order has, in
//! which order, and when they are carried out is the exercise.

use std::time::Duration;

use kata_lab::BoxError;
use serde::Serialize;
use serde_json::{Value, json};

use crate::contract::{Config, Line, Order};

/// Whom an effect reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The mail service.
    Mail,
    /// The warehouse.
    Warehouse,
}

/// A call that changes something outside, not made yet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Effect {
    /// Whom it reaches.
    pub target: Target,
    /// `POST`.
    pub method: &'static str,
    /// Below the target's base address.
    pub path: &'static str,
    /// JSON.
    pub body: Value,
}

/// What a customer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Template {
    /// The order was placed.
    OrderPlaced,
    /// The order was cancelled.
    OrderCancelled,
}

impl Effect {
    /// The goods of an order are set aside.
    pub fn reservation(order: &Order) -> Self {
        let line = |line: &Line| json!({ "sku": line.sku, "quantity": line.quantity });
        let lines: Vec<_> = order.lines.iter().map(line).collect();
        let body = json!({ "order_id": order.order_id, "lines": lines });
        Self::post(Target::Warehouse, "/reservations", body)
    }

    /// The goods of an order are set free.
    pub fn release(order: &Order) -> Self {
        let body = json!({ "order_id": order.order_id });
        Self::post(Target::Warehouse, "/releases", body)
    }

    /// The customer is told.
    pub fn mail(order: &Order, template: Template) -> Self {
        let body = json!({
            "to": order.customer,
            "template": template,
            "order_id": order.order_id,
        });
        Self::post(Target::Mail, "/messages", body)
    }

    fn post(target: Target, path: &'static str, body: Value) -> Self {
        Self {
            target,
            method: "POST",
            path,
            body,
        }
    }
}

/// The world outside, as this program reaches it.
#[derive(Debug, Clone)]
pub struct Outside {
    http: reqwest::Client,
    mail_url: String,
    warehouse_url: String,
}

/// An effect that was refused, or of which nothing was heard: it may have happened all the same.
#[derive(Debug, thiserror::Error)]
pub enum Unsure {
    /// No answer.
    #[error("no answer")]
    NoAnswer(#[from] reqwest::Error),
    /// Another answer than 2xx.
    #[error("answered {0}")]
    Refused(http::StatusCode),
}

impl Outside {
    /// Longer than anybody should need; the contract asks for 5 s at least.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A client for the services that the environment names.
    ///
    /// # Errors
    /// If the HTTP client cannot be built.
    pub fn new(config: &Config) -> Result<Self, BoxError> {
        let http = reqwest::Client::builder()
            .no_proxy()
            // What is not safe to repeat must not be repeated by a library.
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            // A kept connection may turn out to be dead at the moment of the call.
            .pool_max_idle_per_host(0)
            .timeout(Self::PATIENCE)
            .build()?;
        Ok(Self {
            http,
            mail_url: config.mail_url.clone(),
            warehouse_url: config.warehouse_url.clone(),
        })
    }

    /// Makes the call, once.
    ///
    /// # Errors
    /// [`Unsure`] if it was not answered 2xx.
    pub async fn carry_out(&self, effect: &Effect) -> Result<(), Unsure> {
        let base = match effect.target {
            Target::Mail => &self.mail_url,
            Target::Warehouse => &self.warehouse_url,
        };
        let url = format!("{base}{}", effect.path);
        let answer = self.http.post(url).json(&effect.body).send().await?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(Unsure::Refused(status)),
        }
    }
}
