//! Transactions commit in another order than they draw numbers in.

use std::sync::Arc;

use async_trait::async_trait;
use shared::db::{TxOptions, begin};
use shared::outbox::{Relay, stage};
use sqlx::{PgPool, Row};

use super::support::{Outbox, Recorder, drain, event};
use crate::support::{Outcome, tests};

tests![
    an_event_that_commits_late_is_published,
    a_reader_that_goes_on_after_the_last_id_loses_what_commits_late,
];

/// Whatever takes events out of the outbox.
#[async_trait]
trait Reader {
    /// What is new, as `key:payload`.
    async fn read(&mut self) -> Vec<String>;
}

/// Holds one transaction open while others stage and commit, has the reader read after each step,
/// and tells what it saw in the end.
async fn seen_by(outbox: &Outbox, reader: &mut dyn Reader) -> Vec<String> {
    let mut seen = Vec::new();
    outbox.stage(&[event("a", 1)]).await;
    seen.extend(reader.read().await);
    let mut late = begin(&outbox.pool, &TxOptions::default()).await.unwrap();
    stage(&mut late, &event("b", 1)).await.unwrap();
    for n in 2..=4 {
        outbox.stage(&[event("a", n)]).await;
        seen.extend(reader.read().await);
    }
    late.commit().await.unwrap();
    seen.extend(reader.read().await);
    outbox.stage(&[event("a", 5)]).await;
    seen.extend(reader.read().await);
    seen
}

/// The relay as it is.
struct Ours {
    relay: Relay,
    queue: Arc<Recorder>,
    known: usize,
}

#[async_trait]
impl Reader for Ours {
    async fn read(&mut self) -> Vec<String> {
        drain(&mut self.relay).await;
        let texts = self.queue.texts().split_off(self.known);
        self.known += texts.len();
        texts
    }
}

/// The classic mistake: a position, and what lies behind it.
struct AfterTheLastId {
    pool: PgPool,
    last: i64,
}

#[async_trait]
impl Reader for AfterTheLastId {
    async fn read(&mut self) -> Vec<String> {
        let sql = "select id, key || ':' || convert_from(payload, 'utf8') from outbox_events
                   where id > $1 order by id";
        let rows = sqlx::query(sql)
            .bind(self.last)
            .fetch_all(&self.pool)
            .await
            .unwrap();
        self.last = rows.last().map_or(self.last, |row| row.get(0));
        rows.iter().map(|row| row.get(1)).collect()
    }
}

async fn an_event_that_commits_late_is_published() -> Outcome {
    let outbox = Outbox::start().await?;
    let queue = Recorder::new();
    let mut ours = Ours {
        relay: outbox.relay(&queue),
        queue,
        known: 0,
    };
    let seen = seen_by(&outbox, &mut ours).await;
    assert_eq!(seen, ["a:1", "a:2", "a:3", "a:4", "b:1", "a:5"]);
    Ok(())
}

/// Shows that the scene above can tell: this reader must lose the event.
async fn a_reader_that_goes_on_after_the_last_id_loses_what_commits_late() -> Outcome {
    let outbox = Outbox::start().await?;
    let mut broken = AfterTheLastId {
        pool: outbox.pool.clone(),
        last: 0,
    };
    let seen = seen_by(&outbox, &mut broken).await;
    assert_eq!(seen, ["a:1", "a:2", "a:3", "a:4", "a:5"]);
    Ok(())
}
