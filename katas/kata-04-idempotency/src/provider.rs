//! A client of the payment provider. Yours to use in `exercise.rs`.
//!
//! It makes one call and says what is known afterwards, no more: whether to call again, and with
//! which key, is the exercise. So it never repeats a call by itself: no retries, no redirects, and
//! no kept connections, since a kept one may turn out to be dead at the moment of the call and
//! would look like an outage.

use kata_lab::BoxError;
use serde::Deserialize;
use serde_json::json;

use crate::contract::{Config, IDEMPOTENCY_KEY, PayBody};

/// What the provider decided. It remembers this for the provider key, for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The card was charged.
    Captured {
        /// The provider's name for the charge.
        charge_id: String,
    },
    /// The card was refused; asking again changes nothing.
    Declined,
}

/// No decision has arrived. The card may have been charged all the same, unless the provider said
/// that it was not, and it is safest not to rely on the difference.
#[derive(Debug, thiserror::Error)]
pub enum Outage {
    /// Refused, cut off or too slow.
    #[error("no answer from the payment provider")]
    NoAnswer(#[source] reqwest::Error),
    /// An answer that is no decision: 5xx, 429, a key it knows from another charge.
    #[error("the payment provider answered {0}")]
    NoDecision(http::StatusCode),
}

/// The payment provider, as this program sees it.
#[derive(Debug, Clone)]
pub struct Provider {
    http: reqwest::Client,
    charges: String,
}

impl Provider {
    /// A client for the provider that the environment names.
    ///
    /// # Errors
    /// If the HTTP client cannot be built.
    pub fn new(config: &Config) -> Result<Self, BoxError> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .timeout(config.provider_timeout)
            .build()?;
        Ok(Self {
            http,
            charges: format!("{}/charges", config.provider_url),
        })
    }

    /// Asks once for a charge. The same `provider_key` with the same body gives the first outcome
    /// again instead of another charge; it is 1 to 255 visible ASCII characters.
    ///
    /// # Errors
    /// [`Outage`] if no decision has arrived.
    pub async fn charge(&self, provider_key: &str, body: &PayBody) -> Result<Outcome, Outage> {
        let response = self
            .http
            .post(&self.charges)
            .header(IDEMPOTENCY_KEY, provider_key)
            .json(&json!({
                "amount_cents": body.amount_cents,
                "currency": body.currency,
                "card": body.card,
                "reference": body.payment_id,
            }))
            .send()
            .await
            .map_err(Outage::NoAnswer)?;
        match response.status() {
            http::StatusCode::CREATED => {
                let charge: Charge = response.json().await.map_err(Outage::NoAnswer)?;
                Ok(Outcome::Captured {
                    charge_id: charge.charge_id,
                })
            }
            http::StatusCode::PAYMENT_REQUIRED => {
                let Refusal::CardDeclined = response.json().await.map_err(Outage::NoAnswer)?;
                Ok(Outcome::Declined)
            }
            other => Err(Outage::NoDecision(other)),
        }
    }
}

#[derive(Deserialize)]
struct Charge {
    charge_id: String,
}

#[derive(Deserialize)]
#[serde(tag = "error", rename_all = "snake_case")]
enum Refusal {
    CardDeclined,
}
