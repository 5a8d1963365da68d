//! Where RabbitMQ is. The one found here is others' as well, and never paused or restarted; one to
//! crash is in `rabbitmq_node`.

use shared::queue::{ConnectOptions, QueueError, connect};
use shared::services::Upstream;

use crate::support::End;

const USUAL: &str = "amqp://guest:guest@127.0.0.1:5672";

/// A broker's address in its parts, since it is reached through something else at times.
pub(crate) struct Address {
    /// With the `@` behind it: `guest:guest@`.
    login: String,
    upstream: Upstream,
    /// Its virtual host: `/%2f`.
    path: String,
}

impl Address {
    /// The one that `AMQP_URL` names, or that of this machine. Something answers there.
    pub(crate) async fn named() -> Result<Self, End> {
        let variable = std::env::var("AMQP_URL").ok();
        let url = variable.filter(|url| !url.is_empty());
        let address = Self::parse(url.as_deref().unwrap_or(USUAL));
        match connect(&address.url(), &ConnectOptions::default()).await {
            Ok(broker) => broker.close().await,
            Err(error @ QueueError::Unavailable { .. }) => {
                return Err(End::NoService(format!(
                    "{error}\nStart RabbitMQ, or name one in AMQP_URL."
                )));
            }
            Err(error) => panic!("{error}"),
        }
        Ok(address)
    }

    pub(crate) fn parse(url: &str) -> Self {
        // Not repeated, since a password may be in it.
        Self::parts(url).expect("AMQP_URL is amqp://login@host:port/vhost")
    }

    fn parts(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("amqp://")?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (login, server) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        let (host, port) = server.rsplit_once(':').unwrap_or((server, "5672"));
        Some(Self {
            login: login.to_owned(),
            upstream: Upstream::Tcp(host.to_owned(), port.parse().ok()?),
            path: path.to_owned(),
        })
    }

    pub(crate) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    pub(crate) fn url(&self) -> String {
        self.url_through(&self.upstream)
    }

    /// With another host and port.
    pub(crate) fn url_through(&self, upstream: &Upstream) -> String {
        format!("amqp://{}{upstream}{}", self.login, self.path)
    }
}
