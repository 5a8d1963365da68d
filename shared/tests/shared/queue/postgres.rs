//! PostgreSQL's fixture.

use std::time::Duration;

use async_trait::async_trait;
use shared::services::{Postgres, Schema};
use tempfile::TempDir;

use super::conformance::{self, Fixture};
use crate::postgres::{folder, options};
use crate::support::End;

pub(crate) fn tests() -> Vec<libtest_mimic::Trial> {
    conformance::trials("postgres", || Box::pin(Private::start()))
}

/// A private server, restarted at will.
struct Private {
    postgres: Postgres,
    schema: Schema,
    _folder: TempDir,
}

impl Private {
    async fn start() -> Result<Box<dyn Fixture>, End> {
        let folder = folder();
        // A broker that may lose what it said it has stored would be judged by luck.
        let options = options(&folder).setting("synchronous_commit", "on");
        let postgres = Postgres::find_or_start(&options).await?;
        let schema = postgres.fresh_schema().await?;
        Ok(Box::new(Self {
            postgres,
            schema,
            _folder: folder,
        }))
    }
}

#[async_trait]
impl Fixture for Private {
    fn url(&self) -> String {
        self.schema.url(&self.postgres.upstream())
    }

    fn lease(&self) -> Duration {
        Duration::from_millis(400)
    }

    async fn restart(&self) -> Option<Result<(), End>> {
        let restart = async {
            self.postgres.kill().await?;
            self.postgres.restart().await?;
            Ok(())
        };
        Some(restart.await)
    }
}
