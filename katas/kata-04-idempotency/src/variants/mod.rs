//! Implementations of the contract.

pub mod keys;
pub mod protocol;
pub mod serving;

pub mod reference;
