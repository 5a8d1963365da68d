//! What a check does to a replica, and what it knows of it.

mod pairs;

use std::{sync::Arc, time::Duration};

pub use shared::services::{Lsn, Positions};
use shared::services::{ServiceError, Standby};
use sqlx::PgPool;

pub(crate) use self::pairs::{Lease, Pairs};
use crate::{
    history::History,
    verdict::{Judged, Stop},
};

/// How long a replica may take to replay what is there: a machine may be very busy.
const CATCHING_UP: Duration = Duration::from_secs(60);

/// The replica of a lab: a streaming standby of its database.
///
/// Whatever a check does to it is undone when the lab is closed. What a program sees of it goes
/// through a front, which is cut and healed by itself:
/// [`Instance::replica_front`](crate::Instance::replica_front).
#[derive(Clone)]
pub struct Replica {
    lease: Arc<Lease>,
    history: History,
}

impl Replica {
    pub(crate) fn new(lease: Arc<Lease>, history: History) -> Self {
        Self { lease, history }
    }

    /// Has it replay nothing more: when this returns, nothing that is committed from now on can be
    /// read there. It goes on receiving.
    ///
    /// # Errors
    /// [`Stop::Inconclusive`] if the servers do not play along; so for all that follow.
    pub async fn hold(&self) -> Judged {
        self.disturb("the replica replays nothing from now on");
        judged(self.standby().hold_replay().await)
    }

    /// Lets it replay again.
    ///
    /// # Errors
    /// As [`Replica::hold`].
    pub async fn release(&self) -> Judged {
        self.note("the replica replays again");
        judged(self.standby().release_replay().await)
    }

    /// Parts it from its primary: both go on running, both can be reached by the program, and not
    /// one more byte passes between them. Both have noticed when this returns.
    ///
    /// # Errors
    /// As [`Replica::hold`].
    pub async fn cut(&self) -> Judged {
        self.disturb("primary and replica are cut apart");
        judged(self.standby().cut().await)
    }

    /// Joins the two again. The replica streams when this returns, and may have much to catch up
    /// with. One that is held does not ask for the stream: release it first.
    ///
    /// # Errors
    /// As [`Replica::hold`].
    pub async fn heal(&self) -> Judged {
        judged(self.standby().heal().await)?;
        self.note("primary and replica are joined again");
        Ok(())
    }

    /// Has it replay each commit so long after it was made. Zero ends that.
    ///
    /// # Errors
    /// As [`Replica::hold`].
    pub async fn delay(&self, delay: Duration) -> Judged {
        self.disturb(format!("the replica is {} ms behind", delay.as_millis()));
        judged(self.standby().delay(delay).await)
    }

    /// Whether a commit waits until the replica has it too.
    ///
    /// # Errors
    /// As [`Replica::hold`].
    pub async fn synchronous(&self, synchronous: bool) -> Judged {
        self.disturb(match synchronous {
            true => "a commit waits for the replica from now on",
            false => "a commit waits for the primary's log only",
        });
        judged(self.standby().synchronous(synchronous).await)
    }

    /// How far the two are: the primary's flush position, then the replica's.
    ///
    /// # Errors
    /// As [`Replica::hold`].
    pub async fn positions(&self) -> Judged<Positions> {
        judged(self.standby().positions().await)
    }

    /// Waits until it has replayed all that the primary had written when this was called.
    ///
    /// # Errors
    /// As [`Replica::hold`]; if it takes a minute, as while the two are apart.
    pub async fn caught_up(&self) -> Judged {
        match judged(self.standby().caught_up(CATCHING_UP).await)? {
            true => Ok(()),
            false => Stop::inconclusive(format!(
                "the replica did not catch up within {} s",
                CATCHING_UP.as_secs()
            )),
        }
    }

    /// Waits until it has received all that the primary had written when this was called. One that
    /// is held replays none of it, and knows how much that is.
    ///
    /// # Errors
    /// As [`Replica::hold`]; if it takes a minute, as while the two are apart.
    pub async fn received(&self) -> Judged {
        let deadline = tokio::time::Instant::now() + CATCHING_UP;
        let goal = self.positions().await?.flushed;
        while self.positions().await?.received < goal {
            if tokio::time::Instant::now() > deadline {
                return Stop::inconclusive("the replica does not receive what is written");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// A connection pool to it with the lab's own rights, past every front: for looking at what
    /// its readers see.
    pub fn reader(&self) -> &PgPool {
        &self.lease.pair().reader
    }

    fn standby(&self) -> &Standby {
        &self.lease.pair().standby
    }

    fn disturb(&self, what: impl Into<String>) {
        self.lease.disturb();
        self.note(what);
    }

    fn note(&self, what: impl Into<String>) {
        self.history.note("lab", what);
    }
}

fn judged<T>(done: Result<T, ServiceError>) -> Judged<T> {
    done.or_else(|error| Stop::inconclusive(format!("the replica does not play along: {error}")))
}
