//! A place: the fresh part of the world that one check has for itself.

use std::sync::{Arc, Mutex, PoisonError};

use shared::services::Schema;

use crate::{
    app::Env,
    fakes::PaymentProvider,
    grounds::Grounds,
    history::History,
    kata::Given,
    proxy::Front,
    verdict::{Judged, Stop},
};

/// A schema with its role, and the fakes that the kata names.
pub(crate) struct Place {
    pub(crate) grounds: Arc<Grounds>,
    pub(crate) access: Access,
    /// Taken when the place is given back.
    schema: Mutex<Option<Schema>>,
    pub(crate) provider: Option<PaymentProvider>,
    /// The front of the one instance that somebody else runs (`env` and `--url`).
    pub(crate) standing_front: Option<Arc<Front>>,
}

/// How an instance gets at its schema. The role, the schema and its search path share a name.
pub(crate) struct Access {
    pub(crate) role: String,
    password: String,
    database: String,
}

impl Place {
    pub(crate) async fn open(
        grounds: &Arc<Grounds>,
        given: &Given,
        history: &History,
    ) -> Judged<Self> {
        let schema = match grounds.fresh_schema().await {
            Ok(schema) => schema,
            Err(error) => return Stop::inconclusive(format!("no fresh schema: {error}")),
        };
        let provider = match given.payment_provider {
            false => None,
            true => match PaymentProvider::open(history.clone()) {
                Ok(provider) => Some(provider),
                Err(error) => return Stop::inconclusive(format!("no payment provider: {error}")),
            },
        };
        Ok(Self {
            grounds: grounds.clone(),
            access: Access {
                role: schema.role().to_owned(),
                password: schema.password().to_owned(),
                database: schema.database().to_owned(),
            },
            schema: Mutex::new(Some(schema)),
            provider,
            standing_front: None,
        })
    }

    /// What every instance in this place is given, with the database behind `front`.
    pub(crate) fn env(&self, front: &Front) -> Env {
        let Access {
            role,
            password,
            database,
        } = &self.access;
        let port = front.port();
        let mut env = Env::new();
        env.set(
            "DATABASE_URL",
            format!("postgres://{role}:{password}@127.0.0.1:{port}/{database}?sslmode=disable"),
        )
        .set("PGHOST", "127.0.0.1")
        .set("PGPORT", port)
        .set("PGUSER", role)
        .set("PGPASSWORD", password)
        .set("PGDATABASE", database)
        .set("PGSSLMODE", "disable");
        if let Some(provider) = &self.provider {
            env.set("PAYMENT_PROVIDER_URL", provider.url());
        }
        env
    }

    /// Drops the schema and its role.
    pub(crate) async fn give_back(&self) {
        let schema = self
            .schema
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(schema) = schema {
            // What cannot be dropped now goes with the server, or is swept by the next run.
            let _ = schema.drop().await;
        }
    }
}
