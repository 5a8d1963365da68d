//! Kata 04, idempotency: charge once, whatever happens.
