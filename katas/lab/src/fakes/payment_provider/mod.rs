//! The payment provider: `POST /charges`, with keys that it remembers for ever.

mod ledger;
#[cfg(test)]
mod tests;

use std::{io, ops::Deref, sync::Arc};

use http::{Method, StatusCode};
use serde_json::Value;

use super::{Answer, CallRecord, Fake, Request, Service, Trap};
use crate::History;
use ledger::Ledger;

pub use ledger::Charge;

/// A card that is charged.
pub const GOOD_CARD: &str = "4242-4242";

/// A card that is declined, as is every card that starts like this.
pub const DECLINED_CARD: &str = "declined";

/// A fake payment provider. It is a [`Fake`] that answers a few more questions, so traps, weather
/// and records are to be found there.
pub struct PaymentProvider {
    fake: Fake,
    till: Arc<Till>,
}

impl Deref for PaymentProvider {
    type Target = Fake;

    fn deref(&self) -> &Fake {
        &self.fake
    }
}

impl PaymentProvider {
    /// Starts serving on a free loopback port.
    ///
    /// # Errors
    /// If there is no port to be had, or no Tokio runtime here.
    pub fn open(history: History) -> io::Result<Self> {
        let till = Arc::new(Till::default());
        let fake = Fake::open(Arc::clone(&till) as Arc<dyn Service>, history)?;
        Ok(Self { fake, till })
    }

    /// Every capture so far, in the order in which they happened. No reset forgets one.
    pub fn charges(&self) -> Vec<Charge> {
        self.till.ledger.charges()
    }

    /// The captures for one payment. More than one is a customer who paid twice.
    pub fn charges_for(&self, payment_id: &str) -> Vec<Charge> {
        let mut charges = self.charges();
        charges.retain(|charge| charge.payment_id == payment_id);
        charges
    }

    /// The calls that ask for a charge for one payment, whatever became of them.
    pub fn calls_for(&self, payment_id: &str) -> Vec<CallRecord> {
        let mut calls = self.calls();
        calls.retain(|call| call.body["reference"] == payment_id);
        calls
    }

    /// Catches every call for one payment, until the trap is dropped.
    pub fn trap_payment(&self, payment_id: &str) -> Trap {
        let payment_id = payment_id.to_owned();
        self.trap(move |request| request.body()["reference"] == payment_id.as_str())
    }

    /// Catches the next call for any payment.
    pub fn trap_next(&self) -> Trap {
        self.trap_times(1, is_charge)
    }
}

fn is_charge(request: &Request) -> bool {
    request.method() == Method::POST && request.path() == "/charges"
}

/// The service itself: routes on top of a ledger.
#[derive(Default)]
struct Till {
    ledger: Ledger,
}

impl Service for Till {
    fn actor(&self) -> &'static str {
        "provider"
    }

    fn knows_keys(&self) -> bool {
        true
    }

    fn describe(&self, request: &Request) -> String {
        let body = request.body();
        match (
            body["amount_cents"].as_u64(),
            body["currency"].as_str(),
            body["reference"].as_str(),
        ) {
            (Some(cents), Some(currency), Some(payment_id)) if is_charge(request) => {
                let (whole, rest) = (cents / 100, cents % 100);
                format!("charge {whole}.{rest:02} {currency} for {payment_id}")
            }
            _ if is_charge(request) => format!("charge {}", shortened(body)),
            _ => format!("{} {}", request.method(), request.path()),
        }
    }

    fn act(&self, request: &Request) -> Answer {
        match (request.method(), request.path()) {
            (&Method::POST, "/charges") => self.ledger.charge(request),
            (_, "/charges") => Answer::error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
                .with_header("allow", "POST"),
            _ => Answer::error(StatusCode::NOT_FOUND, "not_found"),
        }
    }
}

fn shortened(body: &Value) -> String {
    const SHOWN: usize = 80;
    let text = body.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
