//! Who takes part, and what is measured.

use std::time::Duration;

/// Where a contestant keeps its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// The private PostgreSQL.
    Postgres,
    /// The private Redis.
    Redis,
}

impl Store {
    /// What the server promises for every acknowledged write, in the words of the table.
    pub(crate) fn durability(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL, fsync at each commit",
            Self::Redis => "Redis, log fsynced each second",
        }
    }
}

/// One program under measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contestant {
    /// In the table and for `--only`.
    pub(crate) name: &'static str,
    /// The file below `release/`.
    pub(crate) program: &'static str,
    pub(crate) store: Store,
    /// Ours, and so not among "the best peer".
    pub(crate) ours: bool,
}

/// All of them, in the order in which a round runs them.
pub(crate) const CONTESTANTS: &[Contestant] = &[
    ours("shared::queue on PostgreSQL", Store::Postgres),
    peer("riverqueue 0.5.0", "bench-riverqueue", Store::Postgres),
    peer(
        "graphile_worker 0.14.1",
        "bench-graphile-worker",
        Store::Postgres,
    ),
    peer(
        "apalis-postgres 1.0.0",
        "bench-apalis-postgres",
        Store::Postgres,
    ),
    peer("awa 0.6.9", "bench-awa", Store::Postgres),
    ours("shared::queue on Redis", Store::Redis),
    peer("bullmq-official 1.4.4", "bench-bullmq", Store::Redis),
    peer("apalis-redis 1.0.0", "bench-apalis-redis", Store::Redis),
];

const fn ours(name: &'static str, store: Store) -> Contestant {
    Contestant {
        name,
        program: "bench-ours",
        store,
        ours: true,
    }
}

const fn peer(name: &'static str, program: &'static str, store: Store) -> Contestant {
    Contestant {
        name,
        program,
        store,
        ours: false,
    }
}

/// What `pgbench` runs: the statements alone, without a queue around them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raw {
    pub(crate) name: &'static str,
    /// The script.
    pub(crate) sql: &'static str,
    /// Jobs that one run of the script takes.
    pub(crate) batch: usize,
    pub(crate) clients: usize,
    /// What part of the jobs it is given: one at a time is slow.
    pub(crate) share: usize,
}

/// The tables that the scripts work on.
pub(crate) const RAW_SETUP: &str = include_str!("../../raw/setup.sql");

/// The scripts.
pub(crate) const RAW: &[Raw] = &[
    Raw {
        name: "raw SQL: claim 500, delete 500",
        sql: "claim_500_delete.sql",
        batch: 500,
        clients: 4,
        share: 1,
    },
    Raw {
        name: "raw SQL: claim 500, mark 500 done",
        sql: "claim_500_done.sql",
        batch: 500,
        clients: 4,
        share: 1,
    },
    Raw {
        name: "raw SQL: claim 1, delete 1",
        sql: "claim_1_delete.sql",
        batch: 1,
        clients: 32,
        share: 10,
    },
];

/// How much is measured.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) jobs: usize,
    pub(crate) concurrency: usize,
    /// Offered rates, jobs a second.
    pub(crate) rates: Vec<usize>,
    /// Seconds for which each rate is measured.
    pub(crate) seconds: usize,
    /// After this long without an end a burn-down counts as stalled.
    pub(crate) limit: Duration,
    /// So long after the last job was offered a queue may go on working them off.
    pub(crate) drain: Duration,
    pub(crate) contestants: Vec<Contestant>,
    pub(crate) raw: Vec<Raw>,
}

impl Plan {
    /// Everything that the issue asks for.
    pub(crate) fn full() -> Self {
        Self {
            rounds: 3,
            jobs: 100_000,
            concurrency: 64,
            rates: vec![200, 1_000],
            seconds: 8,
            limit: Duration::from_secs(90),
            drain: Duration::from_secs(10),
            contestants: CONTESTANTS.to_vec(),
            raw: RAW.to_vec(),
        }
    }

    /// The same in a third of the time: fewer jobs, and the higher rate alone, for a shorter time.
    pub(crate) fn quick() -> Self {
        Self {
            jobs: 20_000,
            rates: vec![1_000],
            seconds: 4,
            limit: Duration::from_secs(30),
            ..Self::full()
        }
    }
}
