//! Waking those who wait: one task that listens, one that notifies.
//!
//! `notify` takes a lock on the whole database from before its commit until after it, so that
//! notifying transactions commit one after the other. Ours is a transaction of its own that writes
//! nothing else and does not wait for the disk: the lock is held for microseconds, and what is
//! published never waits for it.
//!
//! Consumers of the same connection are woken without that detour, and do not listen to ourselves.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener};
use sqlx::{Connection, PgConnection};
use tokio::sync::{Notify, watch};

use super::sql;

/// Between two notifications. What is published meanwhile goes into the next one.
const DISTANCE: Duration = Duration::from_millis(4);

/// Between two attempts to connect. Consumers poll meanwhile.
const PAUSE: Duration = Duration::from_millis(500);

/// What happened to a group: counts that only grow, so that nothing that happens between two looks
/// is missed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Signs {
    /// Something is there.
    pub(super) news: u64,
    /// Something was put back where it was before, behind the cursors.
    pub(super) put_back: u64,
}

/// Both directions, for all groups of one connection.
pub(super) struct Wake {
    state: Arc<State>,
    tasks: [tokio::task::AbortHandle; 2],
}

#[derive(Default)]
struct State {
    groups: Mutex<HashMap<i32, watch::Sender<Signs>>>,
    /// What is to be told: the groups, and whether something was put back.
    outgoing: Mutex<BTreeSet<(i32, bool)>>,
    has_outgoing: Notify,
    /// Marks what we said ourselves.
    tag: u32,
}

impl Wake {
    pub(super) fn start(address: PgConnectOptions, timeout: Duration, channel: String) -> Self {
        let state = Arc::new(State {
            tag: rand::random(),
            ..State::default()
        });
        let listen = listen(Arc::clone(&state), address.clone(), channel.clone());
        let notify = notify(Arc::clone(&state), address, timeout, channel);
        Self {
            tasks: [
                tokio::spawn(listen).abort_handle(),
                tokio::spawn(notify).abort_handle(),
            ],
            state,
        }
    }

    /// To be taken before one looks, and asked after it.
    pub(super) fn watch(&self, group: i32) -> watch::Receiver<Signs> {
        let mut groups = lock(&self.state.groups);
        groups.entry(group).or_default().subscribe()
    }

    /// Tells whoever waits, in any process, soon.
    pub(super) fn tell(&self, groups: &[i32], put_back: bool) {
        for group in groups {
            self.state.wake(*group, put_back);
        }
        let mut outgoing = lock(&self.state.outgoing);
        outgoing.extend(groups.iter().map(|group| (*group, put_back)));
        drop(outgoing);
        self.state.has_outgoing.notify_one();
    }

    pub(super) fn stop(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        self.stop();
    }
}

impl State {
    fn wake(&self, group: i32, put_back: bool) {
        if let Some(sender) = lock(&self.groups).get(&group) {
            sender.send_modify(|signs| {
                signs.news += 1;
                signs.put_back += u64::from(put_back);
            });
        }
    }

    /// After a time without ears: anything may have happened.
    fn wake_all(&self) {
        for sender in lock(&self.groups).values() {
            sender.send_modify(|signs| {
                signs.news += 1;
                signs.put_back += 1;
            });
        }
    }
}

async fn listen(state: Arc<State>, address: PgConnectOptions, channel: String) {
    loop {
        if let Err(error) = listen_once(&state, &address, &channel).await {
            tracing::debug!(%error, "cannot listen for new messages, polling meanwhile");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn listen_once(
    state: &State,
    address: &PgConnectOptions,
    channel: &str,
) -> Result<(), sqlx::Error> {
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(1)
        .connect_lazy_with(address.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(channel).await?;
    state.wake_all();
    // `None`: the connection broke, and what was said meanwhile was not heard.
    while let Some(notification) = listener.try_recv().await? {
        let mut words = notification.payload().split(',');
        if words.next() == Some(state.tag.to_string().as_str()) {
            continue;
        }
        for word in words {
            let (group, put_back) = match word.strip_suffix('!') {
                Some(group) => (group, true),
                None => (word, false),
            };
            if let Ok(group) = group.parse() {
                state.wake(group, put_back);
            }
        }
    }
    Ok(())
}

async fn notify(state: Arc<State>, address: PgConnectOptions, limit: Duration, channel: String) {
    let mut connection: Option<PgConnection> = None;
    // Its commit waits for no disk: what is lost with the server has nobody left to wake.
    let address = address.options([("synchronous_commit", "off")]);
    loop {
        state.has_outgoing.notified().await;
        let groups = std::mem::take(&mut *lock(&state.outgoing));
        let words = groups.iter().map(|(group, put_back)| match put_back {
            true => format!("{group}!"),
            false => group.to_string(),
        });
        let words: Vec<_> = words.collect();
        // A notification takes 8,000 bytes; a word at most 12.
        for words in words.chunks(500) {
            let words = format!("{},{}", state.tag, words.join(","));
            let send = say(&mut connection, &address, &channel, words);
            let sent = tokio::time::timeout(limit, send).await;
            if !matches!(sent, Ok(Ok(()))) {
                tracing::debug!(?sent, "cannot notify consumers, who poll instead");
                connection = None;
            }
        }
        tokio::time::sleep(DISTANCE).await;
    }
}

async fn say(
    connection: &mut Option<PgConnection>,
    address: &PgConnectOptions,
    channel: &str,
    words: String,
) -> Result<(), sqlx::Error> {
    let open = match connection.take() {
        Some(open) => open,
        None => PgConnection::connect_with(address).await?,
    };
    let open = connection.insert(open);
    sqlx::query(sql::NOTIFY)
        .bind(channel)
        .bind(words)
        .execute(open)
        .await?;
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
