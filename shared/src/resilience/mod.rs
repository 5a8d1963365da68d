//! What a service does so that somebody else's failure stays somebody else's.
//!
//! Thin on `tower`, `backon` and `governor`; own code where no crate does it, or not rightly. Each
//! file says first how the obvious design fails.
//!
//! | against | use |
//! | --- | --- |
//! | more work than we can do | `LoadLimits`, `RateLimit` |
//! | work that nobody waits for any more | `deadline` |
//! | one slow dependency that takes all with it | `Bulkhead` |
//! | a dependency that fails, and fails slowly | `Breaker` |
//! | a passing failure | `retry` |
//! | a storm of repeats | `RetryBudget` |
//!
//! # In which order
//!
//! From the outside in: `retry`, then `Breaker`, then `Bulkhead`, then the call with its deadline. A
//! breaker around the retries would see one failure where three happened; a bulkhead around them
//! would hold its turn while they wait.
//!
//! ```no_run
//! # async fn charge() -> Result<(), std::io::Error> { Ok(()) }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use shared::resilience::{
//!     Again, Breaker, Bulkhead, CallError, Deadline, Refused, RetryBudget, RetrySettings, retry,
//! };
//!
//! let budget = RetryBudget::new(Default::default())?;
//! let breaker = Breaker::new("payments", Default::default())?;
//! let bulkhead = Bulkhead::new("payments", Default::default())?;
//! let judge = |error: &CallError<CallError<std::io::Error>>| match error {
//!     CallError::Refused(Refused::BreakerOpen { .. }) => Again::Never,
//!     _ => Again::Maybe,
//! };
//! let call = || {
//!     breaker.run(
//!         |error| !matches!(error, CallError::Refused(Refused::BulkheadFull { .. })),
//!         async { bulkhead.run(charge()).await?.map_err(CallError::Failed) },
//!     )
//! };
//! let paid = Deadline::after(Duration::from_secs(2))
//!     .run(retry(RetrySettings::default(), &budget, judge, call))
//!     .await??;
//! # Ok(paid)
//! # }
//! ```

mod breaker;
mod budget;
mod bulkhead;
mod client_address;
pub mod deadline;
mod error;
mod load;
mod rate_limit;
mod retry;

pub use breaker::{Breaker, BreakerSettings, BreakerState, Permit};
pub use budget::{BudgetSettings, RetryBudget};
pub use bulkhead::{Bulkhead, BulkheadSettings};
pub use client_address::{TrustedProxies, address_to_count_by};
pub use deadline::Deadline;
pub use error::{CallError, Refused};
pub use load::LoadLimits;
pub use rate_limit::{Quota, RATELIMIT, RATELIMIT_POLICY, RateLimit};
pub use retry::{Again, FullJitter, RetrySettings, retry};
