//! PostgreSQL as an application should use it: pools that never wait for ever, migrations that are
//! part of the program, transactions that survive a hung-up client and a lost race.

mod migrate;
mod pool;
mod transaction;

pub use migrate::{MigrateError, Migration, Migrations, migrate};
pub use pool::{PoolSettings, acquire, connect, connect_lazy};
pub use transaction::{Isolation, SqlFailure, TxOptions, begin, transaction};
