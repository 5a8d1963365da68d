//! Flaw: the currency is not part of the fingerprint; 100 yen answer for 100 euros.

use kata_lab::{App, BoxError, Env};
use serde_json::json;

use crate::{
    contract::PayBody,
    variants::{keys::sha256, protocol::Protocol, serving},
};

/// Sees no currency.
#[derive(Debug)]
pub struct FingerprintWithoutOneMember;

impl Protocol for FingerprintWithoutOneMember {
    fn fingerprint(&self, body: &PayBody, _bytes: &[u8]) -> String {
        sha256(json!([body.payment_id, body.amount_cents, body.card]).to_string())
    }
}

/// Starts it.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, FingerprintWithoutOneMember).await
}
