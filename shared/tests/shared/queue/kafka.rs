//! Kafka's fixture: the cluster that `KAFKA_URL` names, or else librdkafka's mock cluster, which runs
//! in this process. Which one it was stands in `Capabilities::emulation`.
//!
//! Why no other stand-in: what a broker must have for us is the text that is committed with an
//! offset. Tansu 0.6, the one that can be installed as a package, takes it and never gives it back.

use std::time::Duration;

use async_trait::async_trait;
use shared::queue::kafka::Mock;
use tokio::sync::OnceCell;

use super::conformance::{self, Fixture};
use super::failing;
use crate::support::End;

pub(crate) fn tests() -> Vec<libtest_mimic::Trial> {
    let mut all = conformance::trials("kafka", || Box::pin(start()));
    all.extend(failing::tests("kafka", || Box::pin(start())));
    all
}

/// Shared by all trials: their queues have names of their own.
struct Kafka {
    url: String,
}

async fn start() -> Result<Box<dyn Fixture>, End> {
    static MOCK: OnceCell<Mock> = OnceCell::const_new();
    let named = std::env::var("KAFKA_URL").ok();
    let url = match named.filter(|url| !url.trim().is_empty()) {
        Some(url) => url,
        None => {
            let mock = MOCK.get_or_init(async || Mock::start().unwrap()).await;
            // It lets a member in after the session of one that might still come back.
            format!("{}?session_ms=3000", mock.url())
        }
    };
    Ok(Box::new(Kafka { url }))
}

#[async_trait]
impl Fixture for Kafka {
    fn url(&self) -> String {
        self.url.clone()
    }

    fn lease(&self) -> Duration {
        Duration::from_millis(400)
    }
}
