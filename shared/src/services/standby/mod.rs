//! A streaming standby of a private PostgreSQL: what a read replica is made of.
//!
//! ```text
//!   primary ──→ link ──→ standby          the link is a loopback port in our own process
//!
//! following → cut          (cut: neither server is killed, and no byte passes)
//! cut → following          (heal)
//! following, cut → the same, replaying nothing   (hold_replay), and back (release_replay)
//! ```
//!
//! It begins as a copy of the same template as the primary and replays the primary's log from its
//! first byte: no `pg_basebackup`, and nothing that depends on when it is started. So the primary
//! has to be one that keeps its log: [`Options::replicated`](super::Options::replicated).

mod link;
mod lsn;

use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection, Row};

use self::link::Link;
pub use self::lsn::{Lsn, Positions};
use super::admin::identifier;
use super::{Postgres, ServiceError};

/// How long a state of the two servers may take to come about: a machine may be very busy.
const LIMIT: Duration = Duration::from_secs(60);

/// The servers notify nobody of these states.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A standby and the link to its primary. Dropping it stops the standby and removes its data; as
/// with the primary, that happens in any case when our process ends.
#[derive(Debug)]
pub struct Standby {
    // Before the link: the server goes first.
    server: Postgres,
    primary: Postgres,
    link: Link,
    /// Its name in `pg_stat_replication` and `synchronous_standby_names`.
    name: String,
}

impl Standby {
    /// Starts a standby of a private server that was started with `Options::replicated`, and
    /// returns when it streams and has replayed all that was there: in about a second.
    ///
    /// # Errors
    /// `NotPrivate` for a server that the user named; `KeepsNoLog`; `DidNotStart` and the like;
    /// `NoAnswer` if it does not stream within a minute.
    ///
    /// # Cancel safety
    /// Safe: a standby that is being started when the future is dropped is stopped and removed.
    pub async fn start(primary: &Postgres) -> Result<Self, ServiceError> {
        let level = scalar(primary, "show wal_level").await?;
        if primary.is_private() && level.as_deref() == Some("minimal") {
            return Err(ServiceError::KeepsNoLog);
        }
        let link = Link::open(primary.upstream())?;
        let name = format!("standby_{:08x}", rand::random::<u32>());
        let server = primary.follow(link.port(), &name).await?;
        let standby = Self {
            server,
            primary: primary.clone(),
            link,
            name,
        };
        standby.wait_until_streaming().await?;
        match standby.caught_up(LIMIT).await? {
            true => Ok(standby),
            false => Err(late("the standby")),
        }
    }

    /// The standby as a server: to connect to it, to pause, kill, stop and restart it. It is read
    /// only, so schemas are made on the primary and come by themselves.
    pub fn server(&self) -> &Postgres {
        &self.server
    }

    /// The server that it follows.
    pub fn primary(&self) -> &Postgres {
        &self.primary
    }

    /// Parts the two: both go on running, and not one more byte passes between them. Returns when
    /// both have noticed. What the standby has received by then it still replays.
    ///
    /// # Errors
    /// `NoAnswer` if a server is paused or stopped; the link is cut all the same.
    pub async fn cut(&self) -> Result<(), ServiceError> {
        self.link.cut().await;
        let patience = Patience::with("a standby that is cut off");
        while self.state().await?.is_some() || self.is_receiving().await? {
            patience.a_moment().await?;
        }
        Ok(())
    }

    /// Joins them again, and returns when the standby streams; it may have much to catch up with.
    /// It is the process that replays that asks for the stream, so a replay that is held has to be
    /// released first.
    ///
    /// # Errors
    /// `NoAnswer` if it does not stream within a minute, as while a server is paused or stopped, or
    /// the replay is held.
    pub async fn heal(&self) -> Result<(), ServiceError> {
        self.link.heal().await;
        self.wait_until_streaming().await
    }

    /// Has the standby replay nothing more, until `release_replay`; it goes on receiving. When it
    /// returns, its readers see nothing of what the primary commits from now on.
    ///
    /// # Errors
    /// `NoAnswer` while it is paused or stopped; `Sql`.
    pub async fn hold_replay(&self) -> Result<(), ServiceError> {
        self.ask("select pg_wal_replay_pause()::text").await?;
        let patience = Patience::with("a standby that replays nothing");
        let state = "select pg_get_wal_replay_pause_state()";
        while self.ask(state).await?.as_deref() != Some("paused") {
            patience.a_moment().await?;
        }
        Ok(())
    }

    /// Lets the standby replay again.
    ///
    /// # Errors
    /// As `hold_replay`.
    pub async fn release_replay(&self) -> Result<(), ServiceError> {
        self.ask("select pg_wal_replay_resume()::text")
            .await
            .map(drop)
    }

    /// Has the standby replay each commit so long after it was made, as if it were far away. Zero
    /// ends that.
    ///
    /// # Errors
    /// `NoAnswer` while it is paused or stopped; `Sql`.
    pub async fn delay(&self, delay: Duration) -> Result<(), ServiceError> {
        // In the setting's own unit, so that it reads back as it was written.
        let value_ms = delay.as_millis().to_string();
        set(&self.server, "recovery_min_apply_delay", &value_ms).await
    }

    /// Whether a commit on the primary waits until the standby has it too. While it is cut off,
    /// such a commit waits until it is healed or this is taken back, and is in the primary's log
    /// all the same.
    ///
    /// # Errors
    /// `NoAnswer` while the primary is paused or stopped; `Sql`.
    pub async fn synchronous(&self, synchronous: bool) -> Result<(), ServiceError> {
        let names = match synchronous {
            true => identifier(&self.name),
            false => String::new(),
        };
        set(&self.primary, "synchronous_standby_names", &names).await?;
        // Commits ask the checkpointer's copy of the setting. It looks at a changed setting before
        // it does a checkpoint that was asked for later.
        let checkpoint = "checkpoint".to_owned();
        self.primary.inner().admin.batch(checkpoint).await.map(drop)
    }

    /// How far the two are.
    ///
    /// # Errors
    /// `NoAnswer` while one of them is paused or stopped; `Sql`.
    pub async fn positions(&self) -> Result<Positions, ServiceError> {
        let flushed = scalar(&self.primary, "select pg_current_wal_flush_lsn()::text").await?;
        let received = self.ask("select pg_last_wal_receive_lsn()::text").await?;
        let replayed = self.ask("select pg_last_wal_replay_lsn()::text").await?;
        let position = |text: Option<String>| {
            let text = text.unwrap_or_else(|| Lsn::default().to_string());
            let decode = |error| ServiceError::Sql(sqlx::Error::Decode(Box::new(error)));
            text.parse::<Lsn>().map_err(decode)
        };
        Ok(Positions {
            flushed: position(flushed)?,
            received: position(received)?,
            replayed: position(replayed)?,
        })
    }

    /// Waits until the standby has replayed all that the primary had written when this was called.
    /// False if `limit` passed first, as it does while the two are cut apart.
    ///
    /// # Errors
    /// As `positions`.
    pub async fn caught_up(&self, limit: Duration) -> Result<bool, ServiceError> {
        let deadline = Instant::now() + limit;
        let goal = self.positions().await?.flushed;
        while self.positions().await?.replayed < goal {
            if Instant::now() > deadline {
                return Ok(false);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(true)
    }

    async fn wait_until_streaming(&self) -> Result<(), ServiceError> {
        let patience = Patience::with("a standby that streams");
        while self.state().await?.as_deref() != Some("streaming") {
            patience.a_moment().await?;
        }
        Ok(())
    }

    /// What the primary says of it; `None` if they are apart.
    async fn state(&self) -> Result<Option<String>, ServiceError> {
        let name = &self.name;
        let sql =
            format!("select state from pg_stat_replication where application_name = '{name}'");
        scalar(&self.primary, &sql).await
    }

    async fn is_receiving(&self) -> Result<bool, ServiceError> {
        let receiver = self.ask("select status from pg_stat_wal_receiver").await?;
        Ok(receiver.is_some())
    }

    async fn ask(&self, sql: &str) -> Result<Option<String>, ServiceError> {
        scalar(&self.server, sql).await
    }
}

/// Waits for a state that the servers notify nobody of, and not for ever.
struct Patience {
    what: &'static str,
    deadline: Instant,
}

impl Patience {
    fn with(what: &'static str) -> Self {
        let deadline = Instant::now() + LIMIT;
        Self { what, deadline }
    }

    async fn a_moment(&self) -> Result<(), ServiceError> {
        if Instant::now() > self.deadline {
            return Err(late(self.what));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        Ok(())
    }
}

fn late(what: &'static str) -> ServiceError {
    ServiceError::NoAnswer { what, limit: LIMIT }
}

/// The first column of the first row, as text.
async fn scalar(server: &Postgres, sql: &str) -> Result<Option<String>, ServiceError> {
    let rows = server.inner().admin.batch(sql.to_owned()).await?;
    let value = rows.first().map(|row| row.try_get::<Option<String>, _>(0));
    Ok(value.transpose().map_err(ServiceError::Sql)?.flatten())
}

/// Changes a setting of a running server. When it returns, the server's processes have been told;
/// those that wait for something else act on it when they look next.
async fn set(server: &Postgres, name: &str, value: &str) -> Result<(), ServiceError> {
    let admin = &server.inner().admin;
    // Two messages: it may not be part of a transaction.
    let quoted = value.replace('\'', "''");
    admin
        .batch(format!("alter system set {name} = '{quoted}'"))
        .await?;
    admin.batch("select pg_reload_conf()".to_owned()).await?;
    let patience = Patience::with("a server that was given another setting");
    loop {
        let options = server.admin_options();
        let sql = format!("select setting from pg_settings where name = '{name}'");
        // A new session is as new as the setting of the process that starts it, and that process
        // tells all others before it starts one.
        let seen: String = admin
            .run(move |_| async move {
                let mut session = PgConnection::connect_with(&options).await?;
                let sql = sqlx::AssertSqlSafe(sql);
                let row = sqlx::raw_sql(sql).fetch_one(&mut session).await?;
                session.close().await?;
                row.try_get(0)
            })
            .await?;
        if seen == value {
            return Ok(());
        }
        patience.a_moment().await?;
    }
}
