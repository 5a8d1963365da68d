//! Telling a relay that sleeps that there is work, without making every business transaction pay.
//!
//! The obvious design notifies in each transaction that stages an event. PostgreSQL takes a lock on
//! the whole database for a transaction that notifies, and holds it until its commit is on disk: all
//! who stage events then commit one after the other. So a relay that found nothing for a while says
//! in a table that it sleeps, and staging notifies only if somebody does. Under load nobody sleeps.
//!
//! A transaction that staged while the relay was awake and commits when it has fallen asleep
//! notifies nobody. A relay therefore looks at once when it has said that it sleeps, once more after
//! a moment, and then every `poll`, which also covers a server that has restarted and a pooler
//! between that does not pass notifications on.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use uuid::Uuid;

/// The channel of one outbox. Its table's number in the database tells it from outboxes in other
/// schemas; its own name might be too long for a channel. Part of two statements.
macro_rules! channel {
    () => {
        "'outbox_' || 'outbox_events'::regclass::oid::text"
    };
}
pub(super) use channel;

/// How long until a listener that lost its connection tries again.
const RECONNECT: Duration = Duration::from_secs(1);

/// Listens as long as it lives.
#[derive(Debug)]
pub(super) struct Bell {
    relay: Uuid,
    rung: Arc<Notify>,
    listening: AbortHandle,
    /// Until when the database says that we sleep, at least.
    announced_until: Option<Instant>,
}

impl Bell {
    /// Begins to listen, in a task of its own. Without a connection it goes on trying: the relay
    /// then finds its work by looking.
    pub(super) fn hang(pool: PgPool) -> Self {
        let rung = Arc::new(Notify::new());
        let task = tokio::spawn({
            let rung = Arc::clone(&rung);
            async move {
                loop {
                    if let Err(error) = listen(&pool, &rung).await {
                        tracing::debug!(%error, "the outbox's listener lost its connection");
                    }
                    tokio::time::sleep(RECONNECT).await;
                }
            }
        });
        Self {
            relay: Uuid::new_v4(),
            rung,
            listening: task.abort_handle(),
            announced_until: None,
        }
    }

    /// Says that we sleep for so long, and want to be woken. Says nothing if that is known.
    pub(super) async fn announce(
        &mut self,
        pool: &PgPool,
        sleep: Duration,
    ) -> Result<(), sqlx::Error> {
        let now = Instant::now();
        if self
            .announced_until
            .is_some_and(|until| until > now + sleep)
        {
            return Ok(());
        }
        // For longer than we sleep, so that there is no gap before we say it again.
        let until = sleep * 2 + Duration::from_secs(1);
        sqlx::query(
            "insert into outbox_sleepers (relay, until)
             values ($1, clock_timestamp() + make_interval(secs => $2))
             on conflict (relay) do update set until = excluded.until",
        )
        .bind(self.relay)
        .bind(until.as_secs_f64())
        .execute(pool)
        .await?;
        self.announced_until = Some(now + until);
        Ok(())
    }

    /// Says that we are awake. Relays that were killed in their sleep are forgotten with it.
    pub(super) async fn awake(&mut self, pool: &PgPool) -> Result<(), sqlx::Error> {
        if self.announced_until.is_none() {
            return Ok(());
        }
        sqlx::query(
            "delete from outbox_sleepers
             where relay = $1 or until < clock_timestamp() - interval '1 minute'",
        )
        .bind(self.relay)
        .execute(pool)
        .await?;
        self.announced_until = None;
        Ok(())
    }

    /// Completes when somebody rang since the last time, however often.
    pub(super) async fn rung(&self) {
        self.rung.notified().await;
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Returns only with an error.
async fn listen(pool: &PgPool, rung: &Notify) -> Result<(), sqlx::Error> {
    let channel: String = sqlx::query_scalar(concat!("select ", channel!()))
        .fetch_one(pool)
        .await?;
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(&channel).await?;
    loop {
        // Something may have been missed until now, and while the connection was lost.
        rung.notify_one();
        while listener.try_recv().await?.is_some() {
            rung.notify_one();
        }
    }
}
