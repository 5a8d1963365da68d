//! From an address to a broker.

use std::sync::Arc;
use std::time::Duration;

use super::{Broker, QueueError, postgres, redis};

/// How to connect. What a broker has no use for it ignores.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// What the connections are called in the broker, for people.
    pub client_name: String,
    /// At most so many connections, where a broker takes several; default 8.
    pub max_connections: u32,
    /// How long to wait for a connection, and for an answer; default 5 s.
    pub timeout: Duration,
    /// Whether tables and the like are made if they are missing; default true.
    pub create: bool,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            client_name: "shared-queue".to_owned(),
            max_connections: 8,
            timeout: Duration::from_secs(5),
            create: true,
        }
    }
}

impl ConnectOptions {
    /// Called so in the broker.
    #[must_use]
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = name.into();
        self
    }

    /// At most so many connections.
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// Waits so long at most.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Makes what is missing, or not.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }
}

/// Connects to the broker that the address names: `postgres://` (`postgresql://`), `redis://`,
/// `amqp://` (feature `rabbitmq`), `kafka://` (feature `kafka`), `sqs+http://` or `sqs+https://`
/// (feature `sqs`).
///
/// # Errors
/// `Address`; `NotCompiledIn`, which names the feature; `Unavailable` if it does not answer within
/// `timeout`; `Refused`.
///
/// # Cancel safety
/// Safe.
pub async fn connect(url: &str, options: &ConnectOptions) -> Result<Arc<dyn Broker>, QueueError> {
    let Some((scheme, _)) = url.split_once("://") else {
        return Err(QueueError::Address {
            address: without_password(url),
            reason: "there is no scheme in it".to_owned(),
        });
    };
    match scheme {
        "postgres" | "postgresql" => postgres::connect(url, options).await,
        "redis" => redis::connect(url, options).await,
        #[cfg(feature = "rabbitmq")]
        "amqp" => super::rabbitmq::connect(url, options).await,
        #[cfg(feature = "kafka")]
        "kafka" => super::kafka::connect(url, options).await,
        #[cfg(feature = "sqs")]
        "sqs+http" | "sqs+https" => super::sqs::connect(url, options).await,
        other => Err(unknown(other, url)),
    }
}

fn unknown(scheme: &str, url: &str) -> QueueError {
    let feature = match scheme {
        "amqp" => "rabbitmq",
        "kafka" => "kafka",
        "sqs+http" | "sqs+https" => "sqs",
        _ => {
            return QueueError::Address {
                address: without_password(url),
                reason: format!("no broker has the scheme {scheme:?}"),
            };
        }
    };
    QueueError::NotCompiledIn {
        scheme: scheme.to_owned(),
        feature,
    }
}

/// For messages: an address whose password nobody reads in a log.
pub(super) fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // The last one: a password may hold an @ that nobody encoded.
    let authority = match authority.rsplit_once('@') {
        Some((login, host)) => {
            let user = login.split_once(':').map_or(login, |(user, _)| user);
            format!("{user}@{host}")
        }
        None => authority.to_owned(),
    };
    match scheme {
        "" => format!("{authority}{path}"),
        scheme => format!("{scheme}://{authority}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        for (url, shown) in [
            ("postgres://u:p@h:1/d?x=y", "postgres://u@h:1/d?x=y"),
            ("redis://:p@h", "redis://@h"),
            ("amqp://u:p@q@h/v", "amqp://u@h/v"),
            ("nonsense", "nonsense"),
            ("kafka://h1:1,h2:2", "kafka://h1:1,h2:2"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[tokio::test]
    async fn an_address_of_no_broker_says_which_there_are() {
        for url in ["", "orders", "mysql://h/d", "postgres:h"] {
            let error = connect(url, &ConnectOptions::default())
                .await
                .err()
                .unwrap();
            assert!(
                error.to_string().contains("postgres://, redis://"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_broker_that_was_not_compiled_in_names_its_feature() {
        for (scheme, feature) in [
            ("amqp", "rabbitmq"),
            ("kafka", "kafka"),
            ("sqs+https", "sqs"),
        ] {
            let error = unknown(scheme, "").to_string();
            assert!(
                error.contains(&format!("`--features shared/{feature}`")),
                "{error}"
            );
        }
    }
}
