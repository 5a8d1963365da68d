//! The grounds on which labs are set up: the services that one run of the tool shares.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::services::{self, Options, Postgres, Schema, ServiceError};
use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};
use tokio::sync::Semaphore;

use crate::{
    kata::Given,
    proxy::{Front, Reserve, Upstream},
    replica::{Lease, Pairs},
    verdict::{Judged, Stop},
};

/// The services of this run; every lab takes a fresh place on them.
pub struct Grounds {
    /// Only if the kata's map gives a database: the others run on a machine that has none.
    database: Option<Arc<Database>>,
    /// Nothing is started before a check asks for a replica.
    pairs: Arc<Pairs>,
}

impl Grounds {
    /// Finds or starts what the kata gives: PostgreSQL, or nothing.
    ///
    /// # Errors
    /// [`ServiceError`] says which program is missing and how to install it.
    pub async fn open(given: &Given) -> Result<Arc<Self>, ServiceError> {
        let database = match given.database {
            false => None,
            true => Some(Arc::new(Database::open().await?)),
        };
        Ok(Arc::new(Self {
            database,
            pairs: Pairs::new(),
        }))
    }

    /// Which services these are, in one line.
    pub fn describe(&self) -> String {
        match &self.database {
            Some(database) => database.postgres.describe(),
            None => "no service needed".to_owned(),
        }
    }

    /// The server, for what only a private one allows (pause, kill).
    ///
    /// # Panics
    /// If the kata's map gives no database.
    pub fn postgres(&self) -> &Postgres {
        &self.given().postgres
    }

    /// A database with a replica, for one lab alone. Waits until one is free.
    pub(crate) async fn pair(&self) -> Judged<Arc<Lease>> {
        self.pairs.lease().await.or_else(|error| match error {
            error if error.is_missing() => Stop::not_run(format!(
                "it needs a replica, which the lab makes with PostgreSQL's own programs: {error}"
            )),
            error => Stop::inconclusive(format!("no replica: {error}")),
        })
    }

    pub(crate) fn database(&self) -> Option<&Arc<Database>> {
        self.database.as_ref()
    }

    fn given(&self) -> &Database {
        self.database().expect("the kata's map gives a database")
    }

    /// Ends what this run started, and takes back what it made in a server that it was given.
    ///
    /// # Errors
    /// If a schema cannot be dropped.
    pub async fn close(&self) -> Result<(), ServiceError> {
        self.pairs.close().await?;
        match &self.database {
            Some(database) => database.close().await,
            None => Ok(()),
        }
    }
}

/// Enough for the looks that dozens of labs take at the server, few enough for any server.
const ADMIN_CONNECTIONS: u32 = 8;

/// How many idle sessions are kept for later instances, of the 500 that a private server allows.
const KEPT_SESSIONS: usize = 96;

/// The database of this run, and what labs are done with and the next ones begin with.
pub(crate) struct Database {
    postgres: Postgres,
    admin: PgPool,
    spares: Mutex<Vec<Spare>>,
    room: Arc<Semaphore>,
}

/// A schema with nothing in it, and idle sessions of its role.
pub(crate) struct Spare {
    pub(crate) schema: Schema,
    pub(crate) reserve: Arc<Reserve>,
}

impl Database {
    async fn open() -> Result<Self, ServiceError> {
        Self::with(&options()).await
    }

    /// A private one that a standby can follow: of a server that the user named we make none.
    pub(crate) async fn replicated() -> Result<Self, ServiceError> {
        Self::with(&Options::from_env().url(None).replicated()).await
    }

    async fn with(options: &Options) -> Result<Self, ServiceError> {
        let postgres = Postgres::find_or_start(options).await?;
        // A server that we were given has no room to spare.
        let room = match postgres.is_private() {
            true => KEPT_SESSIONS,
            false => 0,
        };
        let admin = PgPoolOptions::new()
            .max_connections(ADMIN_CONNECTIONS)
            .connect_lazy_with(postgres.admin_options());
        Ok(Self {
            postgres,
            admin,
            spares: Mutex::default(),
            room: Arc::new(Semaphore::new(room)),
        })
    }

    pub(crate) fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    pub(crate) fn admin(&self) -> &PgPool {
        &self.admin
    }

    pub(crate) async fn close(&self) -> Result<(), ServiceError> {
        self.spares().clear();
        self.admin.close().await;
        self.postgres.close().await
    }

    /// An empty schema with its role. To make them, and the sessions that come with them, is a
    /// good part of what a lab costs, so one that another lab is done with comes first.
    pub(crate) async fn fresh_schema(&self) -> Result<Spare, ServiceError> {
        let spare = self.spares().pop();
        match spare {
            Some(spare) => Ok(spare),
            None => Ok(Spare {
                schema: self.postgres.fresh_schema().await?,
                reserve: Arc::new(Reserve::within(self.room.clone())),
            }),
        }
    }

    /// Makes the tables that a contract promises, owned by the schema's role.
    pub(crate) async fn furnish(&self, spare: &Spare, tables: &str) -> Result<(), sqlx::Error> {
        if tables.is_empty() {
            return Ok(());
        }
        // The role's name is one of ours, made of letters, digits and `_`. One batch is one
        // transaction, so that the session is its own again whatever happens.
        let role = spare.schema.role();
        let batch = format!("set local role {role}; set local search_path = {role}; {tables}");
        sqlx::raw_sql(AssertSqlSafe(batch))
            .execute(&self.admin)
            .await
            .map(drop)
    }

    /// Empties what a lab is done with.
    pub(crate) async fn recycle(self: Arc<Self>, spare: Spare) {
        match spare.schema.empty().await {
            Ok(()) => self.spares().push(spare),
            // What cannot be dropped now goes with the server, or is swept by the next run.
            Err(_) => drop(spare.schema.drop().await),
        }
    }

    pub(crate) fn open_front(&self, reserve: Option<Arc<Reserve>>) -> std::io::Result<Front> {
        let upstream = upstream(&self.postgres);
        match reserve {
            Some(reserve) => Front::open_with(upstream, reserve),
            None => Front::open(upstream),
        }
    }

    fn spares(&self) -> MutexGuard<'_, Vec<Spare>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a front finds a server.
pub(crate) fn upstream(postgres: &Postgres) -> Upstream {
    match postgres.upstream() {
        services::Upstream::Tcp(host, port) => Upstream::Tcp(format!("{host}:{port}")),
        services::Upstream::Unix(socket) => Upstream::Unix(socket),
    }
}

/// What the environment says, except where that is our own word: in a shell that took over what
/// `env` printed, `DATABASE_URL` is a place on a server and not a server to make places on.
fn options() -> Options {
    let options = Options::from_env();
    match std::env::var("DATABASE_URL") {
        Ok(url) if is_place(&url) => options.url(None),
        _ => options,
    }
}

/// Whether the role is one that was made for a check: `kata_1f6e20c3_7`.
fn is_place(url: &str) -> bool {
    let role = || {
        let rest = url.split_once("://")?.1;
        let (user, _) = rest.split_once('@')?;
        let role = user.split(':').next()?.strip_prefix("kata_")?;
        role.split_once('_')
    };
    role().is_some_and(|(run, number)| {
        run.len() == 8
            && run.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_env_printed_is_not_taken_for_a_server() {
        assert!(is_place(
            "postgres://kata_f1847dc4_0:9cda@127.0.0.1:38557/postgres?sslmode=disable"
        ));
        assert!(!is_place(
            "postgres://kata_owner:x@127.0.0.1/kata_f1847dc4_0"
        ));
        assert!(!is_place(
            "postgres://postgres:kata_f1847dc4_0@127.0.0.1/db"
        ));
        assert!(!is_place("postgres:///db"));
    }
}
