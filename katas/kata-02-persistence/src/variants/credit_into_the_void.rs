//! Flaw: nobody looks whether the account that gets the money exists.
//!
//! An update that finds no row is no error.

use kata_lab::{App, BoxError, Env};
use shared::http::Problem;

use crate::{
    contract::{self, Transfer},
    variants::{ledger::Balances, protocol::Protocol, serving},
};

/// Looks at one side.
#[derive(Debug)]
pub struct CreditIntoTheVoid;

impl Protocol for CreditIntoTheVoid {
    fn allows(&self, balances: &Balances, transfer: &Transfer) -> Result<(), Problem> {
        match balances.from {
            None => Err(contract::not_found("account")),
            Some(from) if from < transfer.amount_cents => Err(contract::not_enough_money()),
            Some(_) => Ok(()),
        }
    }
}

/// Starts it.
///
/// # Errors
/// If a variable is missing, or the schema cannot be made.
pub async fn app(env: Env) -> Result<App, BoxError> {
    serving::start(env, CreditIntoTheVoid).await
}
