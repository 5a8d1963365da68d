//! What the provider remembers, and how it decides.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::DECLINED_CARD;
use crate::fakes::{Answer, Request};

/// The largest integer that every language's JSON keeps exact.
const MAX_AMOUNT: u64 = (1 << 53) - 1;

/// Money that was taken from a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Chosen by the provider; nobody can derive it from the payment.
    pub charge_id: String,
    /// The `reference` of the order.
    pub payment_id: String,
    /// In minor units.
    pub amount_cents: u64,
    /// Three capital letters.
    pub currency: String,
    /// The card that was charged.
    pub card: String,
    /// The `Idempotency-Key` that it was ordered under.
    pub key: Option<String>,
    /// The number of the call that captured it.
    pub call: u64,
}

/// What a caller asks for. Two bodies are the same if these are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Order {
    amount_cents: u64,
    currency: String,
    card: String,
    reference: String,
}

/// How an order ended, the first time that it got through.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Captured { charge_id: String },
    Declined,
}

/// What to do about an order.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Capture,
    Decline,
    Repeat(Outcome),
    KeyReused,
}

/// The one place where outcomes are decided, given what its key was first used for.
fn decide(order: &Order, first: Option<&(Order, Outcome)>) -> Decision {
    match first {
        Some((same, outcome)) if same == order => Decision::Repeat(outcome.clone()),
        Some(_) => Decision::KeyReused,
        None if order.card.starts_with(DECLINED_CARD) => Decision::Decline,
        None => Decision::Capture,
    }
}

/// Keys and captures. Nothing is ever removed: a provider's memory outlives its customers' bugs.
#[derive(Default)]
pub(super) struct Ledger {
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    keys: HashMap<String, (Order, Outcome)>,
    charges: Vec<Charge>,
}

impl Ledger {
    pub(super) fn charges(&self) -> Vec<Charge> {
        self.books().charges.clone()
    }

    /// Reads, decides and captures. The lock makes that one step, so that of two calls with one
    /// key whichever gets here first captures and the other hears of the same charge.
    pub(super) fn charge(&self, request: &Request) -> Answer {
        let (key, order) = match read(request.headers(), request.body()) {
            Ok(read) => read,
            Err(why) => {
                let body = json!({ "error": "invalid_request", "message": why });
                return Answer::json(StatusCode::BAD_REQUEST, body).summarised(why);
            }
        };
        let mut books = self.books();
        let first = key.as_ref().and_then(|key| books.keys.get(key));
        let outcome = match decide(&order, first) {
            Decision::KeyReused => {
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                return Answer::error(status, "idempotency_key_reused");
            }
            Decision::Repeat(outcome) => {
                return answer(&order, &outcome).with_header("idempotent-replayed", "true");
            }
            Decision::Decline => Outcome::Declined,
            Decision::Capture => {
                let charge_id = new_charge_id(books.charges.len());
                books.charges.push(Charge {
                    charge_id: charge_id.clone(),
                    payment_id: order.reference.clone(),
                    amount_cents: order.amount_cents,
                    currency: order.currency.clone(),
                    card: order.card.clone(),
                    key: key.clone(),
                    call: request.number(),
                });
                Outcome::Captured { charge_id }
            }
        };
        let answer = answer(&order, &outcome);
        if let Some(key) = key {
            books.keys.insert(key, (order, outcome));
        }
        answer
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number for people who read a history, and a random part so that no program can get away with
/// making ids up. Not from the check's seed: it decides nothing, and a seed could be guessed.
fn new_charge_id(captured_before: usize) -> String {
    format!("ch_{}_{:08x}", captured_before + 1, rand::random::<u32>())
}

fn answer(order: &Order, outcome: &Outcome) -> Answer {
    match outcome {
        Outcome::Captured { charge_id } => {
            let body = json!({
                "charge_id": charge_id,
                "status": "captured",
                "amount_cents": order.amount_cents,
                "currency": order.currency,
                "reference": order.reference,
            });
            Answer::json(StatusCode::CREATED, body).summarised(charge_id)
        }
        Outcome::Declined => Answer::error(StatusCode::PAYMENT_REQUIRED, "card_declined"),
    }
}

fn read(headers: &HeaderMap, body: &Value) -> Result<(Option<String>, Order), &'static str> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let key = match (keys.next(), keys.next()) {
        (None, _) => None,
        (Some(key), None) => Some(read_key(key.as_bytes())?),
        (Some(_), Some(_)) => return Err("more than one Idempotency-Key"),
    };
    let amount_cents = body["amount_cents"]
        .as_u64()
        .filter(|cents| (1..=MAX_AMOUNT).contains(cents))
        .ok_or("amount_cents is no integer from 1 to 2^53-1")?;
    let currency = body["currency"]
        .as_str()
        .filter(|text| text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase()))
        .ok_or("currency is not three capital letters")?;
    let order = Order {
        amount_cents,
        currency: currency.to_owned(),
        card: read_text(&body["card"]).ok_or("card is no text of 1 to 64 characters")?,
        reference: read_text(&body["reference"])
            .ok_or("reference is no text of 1 to 64 characters")?,
    };
    Ok((key, order))
}

/// Taken literally: here quotes are part of a key, whatever they mean to the program's own callers.
fn read_key(key: &[u8]) -> Result<String, &'static str> {
    let visible = key.iter().all(u8::is_ascii_graphic);
    match str::from_utf8(key) {
        Ok(text) if visible && (1..=255).contains(&key.len()) => Ok(text.to_owned()),
        _ => Err("Idempotency-Key is not 1 to 255 visible ASCII characters"),
    }
}

fn read_text(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    (1..=64)
        .contains(&text.chars().count())
        .then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(card: &str, reference: &str) -> Order {
        Order {
            amount_cents: 100,
            currency: "EUR".to_owned(),
            card: card.to_owned(),
            reference: reference.to_owned(),
        }
    }

    #[test]
    fn every_outcome_follows_from_the_order_and_its_keys_first_use() {
        let good = order("4242", "pay-1");
        let bad = order("declined-1", "pay-1");
        let captured = Outcome::Captured {
            charge_id: "ch_1".to_owned(),
        };
        let paid = (good.clone(), captured.clone());
        let declined = (bad.clone(), Outcome::Declined);
        for (order, first, decision) in [
            (&good, None, Decision::Capture),
            (&bad, None, Decision::Decline),
            (&good, Some(&paid), Decision::Repeat(captured)),
            (&bad, Some(&declined), Decision::Repeat(Outcome::Declined)),
            (&bad, Some(&paid), Decision::KeyReused),
            (&good, Some(&declined), Decision::KeyReused),
            (&order("4242", "pay-2"), Some(&paid), Decision::KeyReused),
        ] {
            assert_eq!(decide(order, first), decision, "{order:?} after {first:?}");
        }
    }
}
