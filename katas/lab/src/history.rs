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

/// A place in a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(usize);

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

    /// The present end of the history.
    pub fn mark(&self) -> Mark {
        Mark(self.lock().events.len())
    }

    /// Forgets what came before a mark, which becomes the beginning of time: another scene.
    pub fn forget_before(&self, mark: Mark) {
        let mut story = self.lock();
        let from = mark.0.min(story.events.len());
        let kept = story.events.split_off(from);
        let began = kept.first().map(|event| event.at).unwrap_or_default();
        story.began += began;
        story.events = kept;
        for event in &mut story.events {
            event.at = event.at.saturating_sub(began);
        }
    }

    /// All events so far, in order.
    pub fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Story> {
        self.story.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
