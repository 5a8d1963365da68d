//! The history of one check: who did what, when. It is the evidence that a finding carries.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// One line of a history.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Event {
    /// Time since the check began; milliseconds with one decimal place in JSON.
    #[serde(serialize_with = "as_millis", deserialize_with = "from_millis")]
    pub at: Duration,
    /// Who acted: `request 17`, `provider`, `lab`.
    pub actor: String,
    /// What happened, in one line.
    pub what: String,
}

fn as_millis<S: serde::Serializer>(at: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64((at.as_secs_f64() * 10_000.0).round() / 10.0)
}

fn from_millis<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let millis: f64 = serde::Deserialize::deserialize(from)?;
    Duration::try_from_secs_f64(millis / 1_000.0).map_err(serde::de::Error::custom)
}

/// An append-only list of events, shared by everything that acts in a lab.
///
/// Cloning gives another handle to the same list.
#[derive(Debug, Clone)]
pub struct History {
    // A blocking mutex is right: it is held for one push or one clone, never across an await.
    story: Arc<Mutex<Story>>,
}

#[derive(Debug)]
struct Story {
    began: Instant,
    events: Vec<Event>,
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

impl History {
    /// An empty history whose clock starts now.
    pub fn new() -> Self {
        Self {
            story: Arc::new(Mutex::new(Story {
                began: Instant::now(),
                events: Vec::new(),
            })),
        }
    }

    /// Adds a line at the present time.
    pub fn note(&self, actor: impl Into<String>, what: impl Into<String>) {
        let mut story = self.lock();
        let at = story.began.elapsed();
        story.events.push(Event {
            at,
            actor: actor.into(),
            what: what.into(),
        });
    }

    /// Forgets all events, and starts the clock again: another scene begins.
    pub fn clear(&self) {
        let mut story = self.lock();
        story.began = Instant::now();
        story.events.clear();
    }

    /// All events so far, in order.
    pub fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Story> {
        self.story.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
