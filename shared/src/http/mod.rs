//! HTTP manners: errors as `application/problem+json`, request ids, a polite shutdown.

mod problem;

pub use problem::Problem;
