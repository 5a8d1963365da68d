//! Pairs of a primary and its standby, apart from the database that other labs share.
//!
//! A check that cuts the two apart, or that waits until nothing is written, must not meet the
//! writes of others. So a pair belongs to one check at a time; and since starting one takes a
//! second and 45 MB of disk, it is used again.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use shared::services::{ServiceError, Standby};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{grounds::Database, proxy::Front};

/// How many checks with a replica run at once: they wait most of their time, and a pair is two
/// servers.
const PAIRS: usize = 6;

/// Enough for the looks that one lab takes at a replica.
const READERS: u32 = 4;

/// The pairs of this run.
pub(crate) struct Pairs {
    turns: Arc<Semaphore>,
    idle: Mutex<Vec<Pair>>,
}

/// A primary of its own with a standby.
pub(crate) struct Pair {
    pub(crate) database: Arc<Database>,
    pub(crate) standby: Standby,
    pub(crate) reader: PgPool,
}

/// A pair while it belongs to one lab and its scenes. The last one to let go of it hands it on.
pub(crate) struct Lease {
    // An option only because it is taken when the lease is dropped.
    pair: Option<Pair>,
    /// Something was done to it that has not been undone. It goes to nobody else then.
    is_disturbed: AtomicBool,
    pairs: Arc<Pairs>,
    _turn: OwnedSemaphorePermit,
}

impl Pairs {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            turns: Arc::new(Semaphore::new(PAIRS)),
            idle: Mutex::default(),
        })
    }

    /// Waits for a turn; then an idle pair, or a new one.
    pub(crate) async fn lease(self: &Arc<Self>) -> Result<Arc<Lease>, ServiceError> {
        let turn = self.turns.clone().acquire_owned().await;
        let turn = turn.expect("nobody closes the semaphore");
        let idle = self.idle().pop();
        let pair = match idle {
            Some(pair) => pair,
            None => Pair::open().await?,
        };
        Ok(Arc::new(Lease {
            pair: Some(pair),
            is_disturbed: AtomicBool::new(false),
            pairs: self.clone(),
            _turn: turn,
        }))
    }

    /// Stops those that nobody has.
    pub(crate) async fn close(&self) -> Result<(), ServiceError> {
        let idle = std::mem::take(&mut *self.idle());
        for pair in idle {
            pair.reader.close().await;
            pair.standby.server().close().await?;
            pair.database.close().await?;
        }
        Ok(())
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Pair>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pair {
    async fn open() -> Result<Self, ServiceError> {
        let database = Arc::new(Database::replicated().await?);
        let standby = Standby::start(database.postgres()).await?;
        let reader = PgPoolOptions::new()
            .max_connections(READERS)
            .connect_lazy_with(standby.server().admin_options());
        Ok(Self {
            database,
            standby,
            reader,
        })
    }

    pub(crate) fn open_front(&self) -> std::io::Result<Front> {
        Front::open(crate::grounds::upstream(self.standby.server()))
    }
}

impl Lease {
    pub(crate) fn pair(&self) -> &Pair {
        let pair = self.pair.as_ref();
        pair.expect("only dropping the lease takes it")
    }

    /// Says that something is about to be done to the pair.
    pub(crate) fn disturb(&self) {
        self.is_disturbed.store(true, Ordering::Relaxed);
    }

    /// Undoes whatever was done to it.
    pub(crate) async fn settle(&self) -> Result<(), ServiceError> {
        if !self.is_disturbed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let standby = &self.pair().standby;
        standby.synchronous(false).await?;
        standby.delay(std::time::Duration::ZERO).await?;
        standby.release_replay().await?;
        standby.heal().await?;
        self.is_disturbed.store(false, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // One that is as new waits for the next lab; another one is stopped by being dropped.
        if let Some(pair) = self.pair.take()
            && !*self.is_disturbed.get_mut()
        {
            self.pairs.idle().push(pair);
        }
    }
}
