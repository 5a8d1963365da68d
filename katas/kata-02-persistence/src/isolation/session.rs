//! One session: a connection in a task of its own, so that a statement that waits holds up nobody.

use futures::StreamExt;
use sqlx::{
    AssertSqlSafe, Column, ColumnIndex, Connection, Decode, Either, Row, Type,
    mysql::MySqlConnection, postgres::PgConnection,
};
use tokio::{sync::mpsc, sync::oneshot, task::JoinHandle};

/// A connection in either dialect.
pub(super) enum Link {
    Postgres(PgConnection),
    MySql(MySqlConnection),
}

/// What a statement came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Rows as text: `1:10 2:20`, one value of a row after the other with colons, or `none`.
    Rows(String),
    /// So many rows were written; nothing for `commit` and its like.
    Done(Option<u64>),
    /// The server refused, with this code and message.
    Refused {
        /// SQLSTATE in PostgreSQL; SQLSTATE and the server's own number in MariaDB.
        code: String,
        /// What it said.
        message: String,
    },
}

impl Answer {
    /// As it is shown and compared.
    pub fn text(&self) -> String {
        match self {
            Self::Rows(rows) => rows.clone(),
            Self::Done(Some(1)) => "1 row".to_owned(),
            Self::Done(Some(rows)) => format!("{rows} rows"),
            Self::Done(None) => "done".to_owned(),
            Self::Refused { code, message } => format!("refused, {code}: {message}"),
        }
    }
}

impl Link {
    /// Runs one statement. An error is one of the connection; a refusal is an answer.
    pub(super) async fn run(&mut self, sql: &str) -> Result<Answer, sqlx::Error> {
        let text = AssertSqlSafe(sql.to_owned());
        let outcome = match self {
            Self::Postgres(link) => {
                let results = sqlx::raw_sql(text).fetch_many(link);
                let mut results = results.map(|one| {
                    Ok::<_, sqlx::Error>(match one? {
                        Either::Left(done) => Either::Left(done.rows_affected()),
                        Either::Right(row) => Either::Right(values(&row)),
                    })
                });
                collect(&mut results).await
            }
            Self::MySql(link) => {
                let results = sqlx::raw_sql(text).fetch_many(link);
                let mut results = results.map(|one| {
                    Ok::<_, sqlx::Error>(match one? {
                        Either::Left(done) => Either::Left(done.rows_affected()),
                        Either::Right(row) => Either::Right(values(&row)),
                    })
                });
                collect(&mut results).await
            }
        };
        match outcome {
            Ok((rows, _)) if sql.starts_with("select") => Ok(Answer::Rows(match rows.len() {
                0 => "none".to_owned(),
                _ => rows.join(" "),
            })),
            Ok((_, written)) => {
                let writes = ["update", "insert", "delete"];
                let counted = writes.iter().any(|verb| sql.starts_with(verb));
                Ok(Answer::Done(counted.then_some(written)))
            }
            Err(sqlx::Error::Database(error)) => {
                let state = error.code().unwrap_or_default().into_owned();
                let own = error
                    .try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()
                    .map(|error| error.number());
                Ok(Answer::Refused {
                    code: match own {
                        Some(number) => format!("{state}/{number}"),
                        None => state,
                    },
                    message: error.message().to_owned(),
                })
            }
            Err(error) => Err(error),
        }
    }

    /// The number under which the server knows this session.
    pub(super) async fn number(&mut self) -> Result<i64, sqlx::Error> {
        let sql = match self {
            Self::Postgres(_) => "select pg_backend_pid()",
            Self::MySql(_) => "select connection_id()",
        };
        match self.run(sql).await? {
            Answer::Rows(text) => text
                .parse()
                .map_err(|_| sqlx::Error::Protocol(format!("no session number: {text}"))),
            other => Err(sqlx::Error::Protocol(other.text())),
        }
    }

    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Postgres(link) => link.close().await,
            Self::MySql(link) => link.close().await,
        }
    }
}

async fn collect(
    results: &mut (impl futures::Stream<Item = Result<Either<u64, String>, sqlx::Error>> + Unpin),
) -> Result<(Vec<String>, u64), sqlx::Error> {
    let (mut rows, mut written) = (Vec::new(), 0);
    while let Some(one) = results.next().await {
        match one? {
            Either::Left(count) => written += count,
            Either::Right(row) => rows.push(row),
        }
    }
    Ok((rows, written))
}

/// The values of a row with colons between them.
fn values<R: Row>(row: &R) -> String
where
    usize: ColumnIndex<R>,
    for<'r> i32: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
{
    let value = |index: usize| {
        let number = row
            .try_get::<i64, _>(index)
            .or_else(|_| row.try_get::<i32, _>(index).map(i64::from));
        match number {
            Ok(number) => number.to_string(),
            Err(_) => row
                .try_get_unchecked::<String, _>(index)
                .unwrap_or_default(),
        }
    };
    let all = row.columns().iter().map(|column| value(column.ordinal()));
    all.collect::<Vec<_>>().join(":")
}

type Reply = Result<Answer, sqlx::Error>;

/// A session that takes statements, one at a time.
pub(super) struct Session {
    /// The number under which the server knows it.
    pub(super) number: i64,
    statements: mpsc::UnboundedSender<(String, oneshot::Sender<Reply>)>,
    task: JoinHandle<()>,
}

impl Session {
    pub(super) async fn start(mut link: Link) -> Result<Self, sqlx::Error> {
        let number = link.number().await?;
        let (statements, mut inbox) = mpsc::unbounded_channel::<(String, oneshot::Sender<Reply>)>();
        let task = tokio::spawn(async move {
            while let Some((sql, answer)) = inbox.recv().await {
                // Nobody listens any more if the script was given up.
                let _ = answer.send(link.run(&sql).await);
            }
            let _ = link.close().await;
        });
        Ok(Self {
            number,
            statements,
            task,
        })
    }

    /// Sends a statement; the answer comes when the server gives it.
    pub(super) fn send(&self, sql: &str) -> oneshot::Receiver<Reply> {
        let (answer, reply) = oneshot::channel();
        // If the task has ended, the receiver says so.
        let _ = self.statements.send((sql.to_owned(), answer));
        reply
    }

    /// Sends a statement that waits for nobody.
    pub(super) async fn ask(&self, sql: &str) -> Reply {
        received(self.send(sql).await)
    }

    /// Says goodbye, and returns when the connection is closed.
    pub(super) async fn close(self) {
        drop(self.statements);
        let _ = self.task.await;
    }
}

/// An answer, or that there will be none.
pub(super) fn received(reply: Result<Reply, oneshot::error::RecvError>) -> Reply {
    reply.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}
