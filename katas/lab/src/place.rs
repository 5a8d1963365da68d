//! A place: the fresh part of the world that one check has for itself.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    app::Env,
    fakes::{Approvals, Fake, Intake, PaymentProvider, SlowService},
    fronts::{Door, Fronts},
    grounds::{Database, Grounds, Spare},
    history::History,
    kata::Given,
    proxy::Reserve,
    replica::{Lease, Replica},
    verdict::{Judged, Stop},
};

/// A schema with its role, and the fakes: as far as the kata gives them.
pub(crate) struct Place {
    pub(crate) grounds: Arc<Grounds>,
    pub(crate) access: Option<Access>,
    pub(crate) provider: Option<PaymentProvider>,
    pub(crate) mail: Option<Intake>,
    pub(crate) warehouse: Option<Intake>,
    pub(crate) approvals: Option<Approvals>,
    pub(crate) slow_service: Option<SlowService>,
    texts: &'static [(&'static str, &'static str)],
    /// Only for a check that asks for it: the database has a replica then.
    pub(crate) lease: Option<Arc<Lease>>,
    /// The fronts of the one instance that somebody else runs (`env` and `--url`).
    pub(crate) standing: Option<Fronts>,
}

/// How an instance gets at its schema. The role, the schema and its search path share a name.
pub(crate) struct Access {
    pub(crate) role: String,
    password: String,
    name: String,
    pub(crate) database: Arc<Database>,
    /// Sessions of the role that wait for the next instance.
    reserve: Arc<Reserve>,
    /// Taken when the place is given back.
    spare: Mutex<Option<Spare>>,
}

impl Place {
    pub(crate) async fn open(
        grounds: &Arc<Grounds>,
        given: &Given,
        lease: Option<Arc<Lease>>,
        history: &History,
    ) -> Judged<Self> {
        let database = match &lease {
            Some(lease) => Some(&lease.pair().database),
            None => grounds.database(),
        };
        let access = match database {
            Some(database) => Some(Access::open(database, given.tables).await?),
            None => None,
        };
        if let Some(lease) = &lease {
            // The role and its tables come to the replica as all else does.
            Replica::new(lease.clone(), history.clone())
                .caught_up()
                .await?;
        }
        Ok(Self {
            grounds: grounds.clone(),
            access,
            provider: opened(given.payment_provider, PaymentProvider::open, history)?,
            mail: opened(given.mail, Intake::mail, history)?,
            warehouse: opened(given.warehouse, Intake::warehouse, history)?,
            approvals: opened(given.approvals, Approvals::open, history)?,
            slow_service: opened(given.slow_service, SlowService::open, history)?,
            texts: given.texts,
            lease,
            standing: None,
        })
    }

    /// The fakes that there are.
    pub(crate) fn fakes(&self) -> impl Iterator<Item = &Fake> {
        let fakes: [Option<&Fake>; 5] = [
            self.provider.as_deref(),
            self.mail.as_deref(),
            self.warehouse.as_deref(),
            self.approvals.as_deref(),
            self.slow_service.as_deref(),
        ];
        fakes.into_iter().flatten()
    }

    /// What every instance in this place is given, with the database and its replica, if any,
    /// behind these fronts.
    pub(crate) fn env(&self, fronts: &Fronts) -> Env {
        let mut env = Env::new();
        if let (Some(access), Some(door)) = (&self.access, &fronts.replica) {
            env.set("REPLICA_URL", access.url(door.front.port()));
        }
        if let (Some(access), Some(door)) = (&self.access, &fronts.database) {
            let port = door.front.port();
            let Access {
                role,
                password,
                name,
                ..
            } = access;
            env.set("DATABASE_URL", access.url(port))
                .set("PGHOST", "127.0.0.1")
                .set("PGPORT", port)
                .set("PGUSER", role)
                .set("PGPASSWORD", password)
                .set("PGDATABASE", name)
                .set("PGSSLMODE", "disable");
        }
        let urls = [
            (
                "PAYMENT_PROVIDER_URL",
                self.provider.as_ref().map(|fake| fake.url()),
            ),
            ("MAIL_URL", self.mail.as_ref().map(|fake| fake.url())),
            (
                "WAREHOUSE_URL",
                self.warehouse.as_ref().map(|fake| fake.url()),
            ),
            (
                "APPROVAL_URL",
                self.approvals.as_ref().map(|fake| fake.url()),
            ),
            (
                "SLOW_URL",
                self.slow_service.as_ref().map(|fake| fake.url()),
            ),
        ];
        for (name, url) in urls {
            if let Some(url) = url {
                env.set(name, url);
            }
        }
        for (name, text) in self.texts {
            env.set(*name, text);
        }
        env
    }

    /// Fronts for one instance, as far as there are servers; they may keep the sessions of the one
    /// before.
    pub(crate) fn open_fronts(&self, keeps_sessions: bool) -> io::Result<Fronts> {
        let database = |access: &Access| {
            let reserve = keeps_sessions.then(|| access.reserve.clone());
            let front = access.database.open_front(reserve)?;
            Ok::<_, io::Error>(Door::new(front, access.database.admin().clone()))
        };
        let replica = |lease: &Arc<Lease>| {
            let pair = lease.pair();
            Ok::<_, io::Error>(Door::new(pair.open_front()?, pair.reader.clone()))
        };
        Ok(Fronts {
            database: self.access.as_ref().map(database).transpose()?,
            replica: self.lease.as_ref().map(replica).transpose()?,
        })
    }

    /// Undoes what a check did to what outlives it: fakes and fronts of a program that somebody
    /// else runs, and the replica.
    pub(crate) async fn reset(&self) {
        self.fakes().for_each(Fake::reset);
        if let Some(fronts) = &self.standing {
            fronts.heal();
        }
        self.settle().await;
    }

    async fn settle(&self) {
        // One that cannot be put back in order is handed on to nobody.
        if let Some(lease) = &self.lease
            && let Err(error) = lease.settle().await
        {
            tracing::debug!(%error, "a replica is given up");
        }
    }

    /// Drops the schema and its role.
    pub(crate) async fn give_back(&self) {
        self.settle().await;
        if let Some((_, spare)) = self.take() {
            // What cannot be dropped now goes with the server, or is swept by the next run.
            let _ = spare.schema.drop().await;
        }
    }

    /// Empties the schema for another lab. Nobody waits for that, unless it would be seen by who
    /// has the replica next.
    pub(crate) async fn recycle(&self) {
        self.settle().await;
        if let Some((database, spare)) = self.take() {
            let emptied = tokio::spawn(database.recycle(spare));
            if self.lease.is_some() {
                // A panic there leaves a schema behind, which goes with the server.
                let _ = emptied.await;
            }
        }
    }

    fn take(&self) -> Option<(Arc<Database>, Spare)> {
        let access = self.access.as_ref()?;
        let mut spare = access.spare.lock().unwrap_or_else(PoisonError::into_inner);
        Some((access.database.clone(), spare.take()?))
    }
}

impl Access {
    /// The address of the schema behind a front.
    fn url(&self, port: u16) -> String {
        let Self {
            role,
            password,
            name,
            ..
        } = self;
        format!("postgres://{role}:{password}@127.0.0.1:{port}/{name}?sslmode=disable")
    }

    async fn open(database: &Arc<Database>, tables: &str) -> Judged<Self> {
        let spare = match database.fresh_schema().await {
            Ok(spare) => spare,
            Err(error) => return Stop::inconclusive(format!("no fresh schema: {error}")),
        };
        if let Err(error) = database.furnish(&spare, tables).await {
            return Stop::inconclusive(format!("the tables of the contract: {error}"));
        }
        Ok(Self {
            role: spare.schema.role().to_owned(),
            password: spare.schema.password().to_owned(),
            name: spare.schema.database().to_owned(),
            database: database.clone(),
            reserve: spare.reserve.clone(),
            spare: Mutex::new(Some(spare)),
        })
    }
}

/// A fake, if the kata gives it.
fn opened<F>(
    given: bool,
    open: impl FnOnce(History) -> io::Result<F>,
    history: &History,
) -> Judged<Option<F>> {
    match given.then(|| open(history.clone())).transpose() {
        Ok(fake) => Ok(fake),
        Err(error) => Stop::inconclusive(format!("a fake cannot be started: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kata_without_a_database_is_given_the_address_of_none() {
        let given = Given {
            approvals: true,
            slow_service: true,
            ..Given::default()
        };
        let grounds = Grounds::open(&given).await.unwrap();
        assert_eq!(grounds.describe(), "no service needed");
        let place = Place::open(&grounds, &given, None, &History::new()).await;
        let place = place.unwrap();
        let fronts = place.open_fronts(true).unwrap();
        let env = place.env(&fronts);
        let names: Vec<_> = env.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["APPROVAL_URL", "SLOW_URL"]);
        assert_eq!(place.fakes().count(), 2);
        place.give_back().await;
        grounds.close().await.unwrap();
    }
}
