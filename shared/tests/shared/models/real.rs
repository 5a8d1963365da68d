//! The queue in PostgreSQL in the model's place: the statements themselves, in every order.
//!
//! Only the clock is ours: that a lease runs out, or that a refused message is due, is written into
//! the table instead of waited for.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shared::db::{PoolSettings, connect_lazy};
use shared::queue::{
    self, ConnectOptions, Consumer, ConsumerOptions, Message, Nack, Queue, connect,
};
use shared::services::{Options, Postgres, Schema};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::broker::{Broker, Id, MESSAGES, Receipt, Verdict, key};
use super::world::WORKERS;
use crate::support::End;

const GROUP: &str = "model";

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3_600);

/// Where queues for one case each are made.
#[derive(Clone)]
pub(super) struct Server {
    /// In the order in which they go.
    _postgres: Arc<(Schema, Postgres)>,
    broker: Arc<dyn queue::Broker>,
    pool: PgPool,
    handle: Handle,
}

impl Server {
    pub(super) async fn start() -> Result<Self, End> {
        let services = Path::new(env!("CARGO_TARGET_TMPDIR")).join("services");
        let options = Options::from_env().url(None).folder(services);
        let postgres = Postgres::find_or_start(&options).await?;
        let schema = postgres.fresh_schema().await?;
        let url = schema.url(&postgres.upstream());
        Ok(Self {
            broker: connect(&url, &ConnectOptions::default()).await.unwrap(),
            pool: connect_lazy(schema.options(), &PoolSettings::default()),
            _postgres: Arc::new((schema, postgres)),
            handle: Handle::current(),
        })
    }

    /// A queue with the model's messages. `with_keys`: whether it knows that they have keys.
    ///
    /// Not to be called on the runtime, since it waits.
    pub(super) fn fresh(&self, with_keys: bool) -> Real {
        let server = self.clone();
        self.handle.block_on(async move {
            let name = format!("model-{}", Uuid::new_v4().simple());
            let queue = server.broker.queue(&name, &[GROUP]).await.unwrap();
            let mut consumers = Vec::new();
            for _ in 0..WORKERS {
                let options = ConsumerOptions::default();
                consumers.push(queue.consumer(GROUP, &options).await.unwrap());
            }
            let message = |id: Id| {
                let message = Message::new(id.to_string()).id(uuid(id));
                message.key(format!("key-{}", key(id)))
            };
            let messages: Vec<Message> = (0..MESSAGES).map(message).collect();
            queue.publish(&messages).await.unwrap();
            let real = Real {
                server,
                queue,
                consumers,
                receipts: HashMap::new(),
                last_token: 0,
            };
            if !with_keys {
                // As if each were the first of its key.
                let set = "blocked = false, position = nextval('queue_positions')";
                real.update(set, "blocked").await;
            }
            real
        })
    }
}

fn uuid(id: Id) -> Uuid {
    Uuid::from_u128(id as u128)
}

pub(super) struct Real {
    server: Server,
    queue: Arc<dyn Queue>,
    consumers: Vec<Arc<dyn Consumer>>,
    /// By token: who has it, and what he settles it with.
    receipts: HashMap<u64, (usize, queue::Receipt)>,
    last_token: u64,
}

impl Real {
    /// How many rows of this queue it changed.
    async fn update(&self, set: &str, condition: &str) -> u64 {
        let sql = format!(
            "update queue_messages set {set} where {condition}
             and group_id = (select id from queue_groups where queue = $1)"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(self.queue.name());
        query
            .execute(&self.server.pool)
            .await
            .unwrap()
            .rows_affected()
    }
}

impl Broker for Real {
    fn claim(&mut self, worker: usize, max: usize) -> Vec<Receipt> {
        let receive = self.consumers[worker].receive(max, LONG, Duration::ZERO);
        let deliveries = self.server.handle.block_on(receive).unwrap();
        let mut claimed = Vec::new();
        for delivery in deliveries {
            self.last_token += 1;
            let token = self.last_token;
            self.receipts.insert(token, (worker, delivery.receipt));
            let id = std::str::from_utf8(&delivery.message.payload).unwrap();
            let id = id.parse().unwrap();
            claimed.push(Receipt { id, token });
        }
        claimed
    }

    fn settle(&mut self, receipt: Receipt, verdict: Verdict) -> bool {
        let (worker, receipt) = self.receipts[&receipt.token].clone();
        let consumer = &self.consumers[worker];
        let settled = self.server.handle.block_on(async {
            match verdict {
                Verdict::Ack => consumer.ack(&[receipt]).await,
                Verdict::Release => consumer.release(&[receipt]).await,
                Verdict::Nack => {
                    let nack = Nack {
                        receipt,
                        delay: LONG,
                        error: "a model".to_owned(),
                    };
                    consumer.nack(&[nack]).await
                }
            }
        });
        settled.unwrap().lost.is_empty()
    }

    fn is_valid(&mut self, receipt: Receipt) -> bool {
        let (worker, receipt) = self.receipts[&receipt.token].clone();
        let receipts = [receipt];
        let extend = self.consumers[worker].extend(&receipts, LONG);
        let settled = self.server.handle.block_on(extend).unwrap();
        settled.lost.is_empty()
    }

    fn expire(&mut self, id: Id) -> bool {
        let set = "until = clock_timestamp() - interval '1 s'";
        let held = format!(
            "id = '{}' and lease <> 0 and until > clock_timestamp()",
            uuid(id)
        );
        self.server.handle.block_on(self.update(set, &held)) > 0
    }

    fn wake(&mut self, id: Id) {
        // What the queue does by itself when it looks; but it looks by the clock, which is not ours.
        let set = "position = nextval('queue_positions'), due = null";
        let waits = format!("id = '{}' and position is null and not blocked", uuid(id));
        self.server.handle.block_on(self.update(set, &waits));
    }

    fn is_empty(&mut self) -> bool {
        let sql = "select count(*) from queue_messages
                   where group_id = (select id from queue_groups where queue = $1)";
        let count = sqlx::query_scalar::<_, i64>(sql).bind(self.queue.name());
        let count = self
            .server
            .handle
            .block_on(count.fetch_one(&self.server.pool));
        count.unwrap() == 0
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        // The schema goes as a whole; this keeps the table as small as one case.
        let _ = self.server.handle.block_on(self.queue.delete());
    }
}
