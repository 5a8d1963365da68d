//! Where each broker comes from, and how it is made to fail.
//!
//! Another broker is a line in each `match` here.

use shared::services::{Keyspace, Options, Postgres, Redis, RedisOptions, Schema};
use tempfile::TempDir;

use super::proxy::Proxy;
use super::scene::Fault;
use crate::postgres::{folder, options};
use crate::rabbitmq::Address;
use crate::rabbitmq_node::Node;
use crate::support::End;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    Redis,
    RabbitMq,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::RabbitMq => "rabbitmq",
        }
    }
}

/// A broker, and the PostgreSQL in which the workers keep their ledger. Dropped, both are gone.
pub(crate) struct Broker {
    postgres: Postgres,
    ledger: Schema,
    queue: Server,
    proxy: Proxy,
    _folder: TempDir,
}

enum Server {
    /// In the same server as the ledger, in a schema of its own.
    Postgres(Schema),
    Redis(Redis, Keyspace),
    /// A node if it is ours to crash.
    RabbitMq(Address, Option<Node>),
}

impl Broker {
    pub(crate) async fn start(kind: Kind, fault: Fault) -> Result<Self, End> {
        let folder = folder();
        // It is killed, and what was committed must be there afterwards. What the machine loses
        // when the power fails is another matter: `fsync` stays off.
        let options: Options = options(&folder).setting("synchronous_commit", "on");
        let postgres = Postgres::find_or_start(&options).await?;
        let ledger = postgres.fresh_schema().await?;
        let (queue, upstream) = match kind {
            Kind::Postgres => {
                let schema = postgres.fresh_schema().await?;
                (Server::Postgres(schema), postgres.upstream())
            }
            Kind::Redis => {
                let options = RedisOptions::from_env()
                    .url(None)
                    .folder(folder.path().join("services"))
                    .append_only();
                let redis = Redis::find_or_start(&options).await?;
                let upstream = redis.upstream();
                let keyspace = redis.fresh_keyspace().await?;
                (Server::Redis(redis, keyspace), upstream)
            }
            Kind::RabbitMq => {
                let (address, node) = if fault == Fault::Restart {
                    let node = Node::start().await?;
                    (Address::parse(&node.url()), Some(node))
                } else {
                    (Address::named().await?, None)
                };
                let upstream = address.upstream().clone();
                (Server::RabbitMq(address, node), upstream)
            }
        };
        Ok(Self {
            postgres,
            ledger,
            queue,
            proxy: Proxy::start(upstream).await,
            _folder: folder,
        })
    }

    /// The broker's address, through the proxy.
    pub(crate) fn url(&self) -> String {
        let through = self.proxy.upstream();
        match &self.queue {
            Server::Postgres(schema) => schema.url(&through),
            Server::Redis(_, keyspace) => keyspace.url_through(&through),
            Server::RabbitMq(address, _) => address.url_through(&through),
        }
    }

    /// The ledger's address, which no cut reaches.
    pub(crate) fn ledger_url(&self) -> String {
        self.ledger.url(&self.postgres.upstream())
    }

    /// Kills the broker's processes and starts it again with what it had written.
    pub(crate) async fn crash_and_restart(&self) -> Result<(), End> {
        match &self.queue {
            Server::Postgres(_) => {
                self.postgres.kill().await?;
                self.postgres.restart().await?;
            }
            Server::Redis(redis, _) => {
                redis.kill().await?;
                redis.restart().await?;
            }
            Server::RabbitMq(_, node) => {
                let node = node.as_ref().expect("the scene's fault asks for one");
                node.crash_and_restart().await;
            }
        }
        Ok(())
    }

    /// Cuts every connection to the broker. How many there were.
    pub(crate) fn cut(&self) -> usize {
        self.proxy.cut()
    }
}
