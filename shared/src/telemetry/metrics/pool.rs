//! How full a pool of connections is, and how long requests wait for one.
//!
//! The wait is the first thing that grows when a database is slow, long before anything fails.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use sqlx::PgPool;

use super::TraceLabel;

/// Seconds: an idle connection is had in microseconds, and three seconds are the usual limit.
const BUCKETS: [f64; 11] = [
    0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 3.0, 10.0,
];

/// All pools that somebody watches. sqlx keeps no data of ours with a pool, so a pool is known by
/// the address of its options, which lie in what all its handles share. The handle that is kept
/// here is why that address cannot come to mean another pool.
static WATCHED: RwLock<Vec<Watched>> = RwLock::new(Vec::new());

#[derive(Clone)]
struct Watched {
    name: String,
    pool: PgPool,
    waits: Waits,
    owner: usize,
}

type Waits =
    Family<Waited, HistogramWithExemplars<TraceLabel>, fn() -> HistogramWithExemplars<TraceLabel>>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Waited {
    pool: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    pool: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPool {
    pool: String,
}

/// The pools of one `Metrics`.
pub(super) struct Pools {
    waits: Waits,
}

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pools").finish_non_exhaustive()
    }
}

impl Pools {
    pub(super) fn register(registry: &mut Registry) -> Arc<Self> {
        let waits: Waits =
            Family::new_with_constructor(|| HistogramWithExemplars::new(BUCKETS.into_iter()));
        registry.register_with_unit(
            "db_pool_wait",
            "What a request waited for a connection",
            Unit::Seconds,
            waits.clone(),
        );
        let pools = Arc::new(Self { waits });
        registry.register_collector(Box::new(Arc::clone(&pools)));
        pools
    }

    pub(super) fn watch(self: &Arc<Self>, name: &str, pool: &PgPool) {
        let mut watched = WATCHED.write().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|known| !known.pool.is_closed());
        watched.push(Watched {
            name: name.to_owned(),
            pool: pool.clone(),
            waits: self.waits.clone(),
            owner: self.id(),
        });
    }

    /// Its address: nothing else has it while it lives, and it takes its entries along.
    fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn open(&self) -> Vec<Watched> {
        let watched = WATCHED.read().unwrap_or_else(PoisonError::into_inner);
        let ours = watched
            .iter()
            .filter(|known| known.owner == self.id() && !known.pool.is_closed());
        ours.cloned().collect()
    }
}

impl Drop for Pools {
    fn drop(&mut self) {
        let id = self.id();
        let mut watched = WATCHED.write().unwrap_or_else(PoisonError::into_inner);
        let (gone, kept) = watched.drain(..).partition(|known| known.owner == id);
        *watched = kept;
        drop(watched);
        // The last handle to a pool may go with them, and that is no work for under a lock.
        drop::<Vec<Watched>>(gone);
    }
}

impl Collector for Pools {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let pools = self.open();
        let name = "db_pool_connections";
        let mut family =
            encoder.encode_descriptor(name, "Open connections.", None, MetricType::Gauge)?;
        for Watched { name, pool, .. } in &pools {
            // Two reads, and not one moment: a connection may have been taken in between.
            let idle = pool.num_idle();
            let used = (pool.size() as usize).saturating_sub(idle);
            for (state, count) in [("used", used), ("idle", idle)] {
                let labels = InState {
                    pool: name.clone(),
                    state,
                };
                gauge(count).encode(family.encode_family(&labels)?)?;
            }
        }
        let name = "db_pool_max_connections";
        let help = "How many connections a pool may open.";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for Watched { name, pool, .. } in &pools {
            let labels = OfPool { pool: name.clone() };
            let limit = pool.options().get_max_connections() as usize;
            gauge(limit).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn gauge(count: usize) -> ConstGauge {
    ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX))
}

/// To be held while waiting for a connection of this pool. Dropped without an outcome, it counts
/// as `cancelled`: whoever waited gave up.
pub(crate) fn waiting(pool: &PgPool) -> Waiting {
    let watched = WATCHED.read().unwrap_or_else(PoisonError::into_inner);
    let same = |known: &&Watched| std::ptr::eq(known.pool.options(), pool.options());
    let watchers = watched
        .iter()
        .filter(same)
        .map(|known| (known.name.clone(), known.waits.clone()));
    Waiting {
        watchers: watchers.collect(),
        began: Instant::now(),
        outcome: "cancelled",
    }
}

pub(crate) struct Waiting {
    watchers: Vec<(String, Waits)>,
    began: Instant,
    outcome: &'static str,
}

impl Waiting {
    /// The end of the wait.
    pub(crate) fn ended<T>(mut self, result: &Result<T, sqlx::Error>) {
        self.outcome = match result {
            Ok(_) => "acquired",
            Err(sqlx::Error::PoolTimedOut) => "timed_out",
            Err(_) => "failed",
        };
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let took = self.began.elapsed().as_secs_f64();
        for (pool, waits) in self.watchers.drain(..) {
            let waited = Waited {
                pool,
                outcome: self.outcome,
            };
            let histogram = waits.get_or_create_owned(&waited);
            histogram.observe(took, TraceLabel::current(), None);
        }
    }
}
