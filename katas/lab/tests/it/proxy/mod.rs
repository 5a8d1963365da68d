//! The database proxy in front of a real PostgreSQL, with a driver and by hand.

mod counting;
mod faults;
mod reserve;
mod scripted;
mod traps;
mod wire;

use std::{
    io::{self, Write},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use kata_lab::proxy::{Front, Reserve, Upstream};
use shared::services::{Options, Postgres, ServiceError};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};

use tokio::sync::Semaphore;

use self::wire::Wire;

/// Longer than anything here takes on a busy machine; reaching it is a failure.
const DEADLINE: Duration = Duration::from_secs(20);

/// The private server that the tests run against, one for all of them; `None` if none can be
/// started here.
fn server() -> Option<&'static Postgres> {
    static SERVER: OnceLock<Result<Postgres, ServiceError>> = OnceLock::new();
    let server = SERVER.get_or_init(|| {
        // In a thread of its own: we are on a runtime, which must not be blocked on. The server
        // outlives each test, and so does the runtime that started it.
        let start = || {
            let runtime = Box::leak(Box::new(tokio::runtime::Runtime::new().unwrap()));
            runtime.block_on(Postgres::find_or_start(
                &Options::from_env().url(None).tcp(),
            ))
        };
        std::thread::spawn(start).join().unwrap()
    });
    match server {
        Ok(server) => Some(server),
        Err(error) if error.is_missing() && !is_required() => {
            not_run(&error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn is_required() -> bool {
    std::env::var_os("KATA_REQUIRE_SERVICES").is_some()
}

/// What every role of a test says when it is asked.
const PASSWORD: &str = "sesame";

/// Says why the present test shows nothing.
fn not_run(reason: &str) {
    // Not `eprintln!`: the test harness swallows that of a test that passes.
    let _ = writeln!(
        std::io::stderr(),
        "NOT RUN: {}: {reason}",
        std::thread::current().name().unwrap_or("a test")
    );
}

/// A front before the server, a schema of its own with one table, and a way past the front.
struct Scene {
    front: Front,
    schema: String,
    server: PgConnectOptions,
    direct: PgConnection,
}

impl Scene {
    async fn open() -> Option<Self> {
        Self::behind(Front::open).await
    }

    /// The same with a front that keeps so many sessions.
    async fn keeping(sessions: usize) -> Option<Self> {
        let reserve = Reserve::within(Arc::new(Semaphore::new(sessions)));
        Self::behind(|upstream| Front::open_with(upstream, Arc::new(reserve))).await
    }

    async fn behind(front: impl FnOnce(Upstream) -> io::Result<Front>) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let server = server()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let schema = format!("proxy_{}_{number}", std::process::id());
        let mut admin = PgConnection::connect_with(&server.admin_options())
            .await
            .unwrap();
        // The server ends with the tests, and the role with it.
        let role = format!("create role {schema} superuser login password '{PASSWORD}'");
        admin.execute(AssertSqlSafe(role)).await.unwrap();
        let server = server
            .admin_options()
            .username(&schema)
            .password(PASSWORD)
            .options([("search_path", schema.as_str())]);
        let upstream = format!("{}:{}", server.get_host(), server.get_port());
        let front = front(Upstream::Tcp(upstream)).unwrap();
        let mut direct = PgConnection::connect_with(&server).await.unwrap();
        for statement in [
            format!("create schema {schema}"),
            "create table notes(note text primary key, n bigint not null default 0)".to_owned(),
        ] {
            sqlx::raw_sql(AssertSqlSafe(statement))
                .execute(&mut direct)
                .await
                .unwrap();
        }
        Some(Self {
            front,
            schema,
            server,
            direct,
        })
    }

    /// How to reach the server through the front.
    fn through(&self) -> PgConnectOptions {
        self.server
            .clone()
            .host("127.0.0.1")
            .port(self.front.port())
    }

    fn pool(&self, connections: u32) -> PgPool {
        PgPoolOptions::new()
            .max_connections(connections)
            .connect_lazy_with(self.through())
    }

    /// A session by hand, through the front.
    async fn wire(&self) -> Wire {
        let mut wire = Wire::connect(self.front.port()).await;
        wire.start(
            self.server.get_username(),
            self.server.get_database().unwrap_or("postgres"),
            &self.schema,
        )
        .await;
        within(wire.until_ready()).await;
        wire
    }

    /// The notes that are committed, in order.
    async fn notes(&mut self) -> Vec<String> {
        sqlx::query_scalar("select note from notes order by note")
            .fetch_all(&mut self.direct)
            .await
            .unwrap()
    }

    /// Whether one of these server processes is still there.
    async fn are_alive(&mut self, pids: &[i32]) -> bool {
        are_alive(&mut self.direct, pids).await
    }

    /// Waits until none of these server processes is left.
    async fn until_gone(&mut self, pids: &[i32]) {
        until_gone(&mut self.direct, pids).await;
    }

    async fn close(self) {
        let Self {
            front,
            schema,
            mut direct,
            ..
        } = self;
        let pids = front.cut();
        // What it kept goes with it.
        drop(front);
        until_gone(&mut direct, &pids).await;
        let statement = format!("drop schema {schema} cascade");
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut direct)
            .await
            .unwrap();
    }
}

async fn are_alive(direct: &mut PgConnection, pids: &[i32]) -> bool {
    sqlx::query_scalar("select exists(select from pg_stat_activity where pid = any($1))")
        .bind(pids)
        .fetch_one(direct)
        .await
        .unwrap()
}

async fn until_gone(direct: &mut PgConnection, pids: &[i32]) {
    let began = Instant::now();
    while are_alive(direct, pids).await {
        assert!(began.elapsed() < DEADLINE, "{pids:?} are still there");
    }
}

/// The outcome of something that must not hang.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("it is done before the deadline")
}
