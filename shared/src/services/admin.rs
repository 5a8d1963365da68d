//! Our own connections to PostgreSQL, on a thread and a runtime of their own.
//!
//! A handle to a server is shared by tests that each run on their own runtime, and by labs that
//! crash a runtime by dropping it. A connection is bound to the runtime that opened it, so these
//! live where nobody drops anything.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, PgPool};
use tokio::sync::{mpsc, oneshot};

use super::ServiceError;

/// Longer than any statement of ours takes, unless the server is paused.
const LIMIT: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce(PgPool) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// A way to run SQL as the administrator. Cheap to clone; the connections close with the last one.
#[derive(Debug, Clone)]
pub(super) struct Admin {
    jobs: mpsc::UnboundedSender<Job>,
}

impl Admin {
    /// Starts the thread. Connects only when there is something to do.
    pub(super) fn start(options: PgConnectOptions) -> Result<Self, ServiceError> {
        let (jobs, mut inbox) = mpsc::unbounded_channel::<Job>();
        let options = options
            .application_name("kata admin")
            .disable_statement_logging();
        let failed =
            |error| ServiceError::io("start", "the administrator's thread".as_ref(), error);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        std::thread::Builder::new()
            .name("postgres-admin".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    let pool = PgPoolOptions::new()
                        .max_connections(4)
                        .acquire_timeout(LIMIT)
                        .connect_lazy_with(options);
                    while let Some(job) = inbox.recv().await {
                        tokio::spawn(job(pool.clone()));
                    }
                    // Ask the server to end the sessions; it may be gone or paused by now.
                    let _ = tokio::time::timeout(Duration::from_millis(200), pool.close()).await;
                });
            })
            .map_err(failed)?;
        Ok(Self { jobs })
    }

    /// Runs a function on the pool. If the caller stops waiting, it still runs to its end.
    pub(super) async fn run<T, F, Fut>(&self, job: F) -> Result<T, ServiceError>
    where
        T: Send + 'static,
        F: FnOnce(PgPool) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, sqlx::Error>> + Send + 'static,
    {
        let no_answer = || ServiceError::NoAnswer {
            what: "PostgreSQL",
            limit: LIMIT,
        };
        let (tell, answer) = oneshot::channel();
        let job: Job = Box::new(move |pool| {
            Box::pin(async move {
                // Nobody may be listening any more, which is fine.
                let _ = tell.send(tokio::time::timeout(LIMIT, job(pool)).await);
            })
        });
        self.jobs.send(job).map_err(|_| no_answer())?;
        let answer = answer.await.map_err(|_| no_answer())?;
        answer.map_err(|_| no_answer())?.map_err(ServiceError::Sql)
    }

    /// Runs statements as one transaction in one round trip; the rows of all of them, as text.
    pub(super) async fn batch(&self, sql: String) -> Result<Vec<PgRow>, ServiceError> {
        self.run(move |pool| async move {
            let mut connection = pool.acquire().await?;
            batch(&mut connection, sql).await
        })
        .await
    }
}

/// As `Admin::batch`, on a given connection.
pub(super) async fn batch(
    connection: &mut PgConnection,
    sql: String,
) -> Result<Vec<PgRow>, sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .fetch_all(connection)
        .await
}

/// Quotes an identifier.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
