//! The fronts of one instance: one before the database, one before its replica.

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;

use crate::{
    proxy::Front,
    verdict::{Judged, Stop},
};

/// A front, and a way past it to the server behind.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) front: Arc<Front>,
    admin: PgPool,
}

/// The fronts of one instance, as far as its place has servers.
#[derive(Clone, Default)]
pub(crate) struct Fronts {
    pub(crate) database: Option<Door>,
    pub(crate) replica: Option<Door>,
}

/// Sessions of an instance that have to end, each with the door that it came through.
pub(crate) type Sessions<'a> = Vec<(&'a Door, Vec<i32>)>;

impl Door {
    pub(crate) fn new(front: Front, admin: PgPool) -> Self {
        Self {
            front: Arc::new(front),
            admin,
        }
    }

    /// Waits until the server has ended these sessions, but for those that are kept.
    async fn sessions_gone(&self, pids: Vec<i32>, limit: Duration, whose: &str) -> Judged {
        let pids = self.front.not_kept(pids).await;
        if pids.is_empty() {
            return Ok(());
        }
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let sql = "select count(*) from pg_stat_activity where pid = any($1)";
            let asked = sqlx::query_scalar(sql).bind(&pids).fetch_one(&self.admin);
            let alive: i64 = match asked.await {
                Ok(alive) => alive,
                Err(error) => {
                    return Stop::inconclusive(format!(
                        "the server does not say who is connected: {error}"
                    ));
                }
            };
            if alive == 0 {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Stop::inconclusive(format!("{alive} sessions of {whose} did not end"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Fronts {
    fn doors(&self) -> impl Iterator<Item = &Door> {
        self.database.iter().chain(&self.replica)
    }

    /// See [`Front::silence`].
    pub(crate) fn silence(&self) {
        self.doors().for_each(|door| door.front.silence());
    }

    /// See [`Front::cut`].
    pub(crate) fn cut(&self) -> Sessions<'_> {
        self.doors().map(|door| (door, door.front.cut())).collect()
    }

    /// The sessions that are open.
    pub(crate) fn sessions(&self) -> Sessions<'_> {
        let open = |door: &Door| door.front.backend_pids();
        self.doors().map(|door| (door, open(door))).collect()
    }

    /// As they were at first, but for traps that are armed.
    pub(crate) fn heal(&self) {
        for door in self.doors() {
            door.front.heal();
            door.front.speak();
            door.front.delay(Duration::ZERO);
        }
    }

    /// Waits until the servers have ended these sessions.
    pub(crate) async fn sessions_gone(
        sessions: Sessions<'_>,
        limit: Duration,
        whose: &str,
    ) -> Judged {
        for (door, pids) in sessions {
            door.sessions_gone(pids, limit, whose).await?;
        }
        Ok(())
    }
}
