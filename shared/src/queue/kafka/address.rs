//! `kafka://host:port[,host:port…][?partitions=8&replication=1&session_ms=10000]`.

use std::time::Duration;

use crate::queue::QueueError;

/// What the address of a cluster says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// As Kafka writes it: `host:port,host:port`.
    pub(super) brokers: String,
    /// Of a topic that we make. No more consumers of one group work at the same time.
    pub(super) partitions: i32,
    /// Of a topic that we make; -1 leaves it to the broker.
    pub(super) replication: i32,
    /// A consumer that is silent for so long is dead.
    pub(super) session: Duration,
}

const DEFAULT_PORT: u16 = 9092;

impl Address {
    /// # Errors
    /// `Address`.
    pub(super) fn parse(url: &str) -> Result<Self, QueueError> {
        let refuse = |reason: String| QueueError::Address {
            address: crate::queue::connect::without_password(url),
            reason,
        };
        let rest = url.strip_prefix("kafka://").unwrap_or(url);
        let (brokers, query) = rest.split_once('?').unwrap_or((rest, ""));
        let brokers = brokers.strip_suffix('/').unwrap_or(brokers);
        if brokers.contains('@') {
            let reason = "there is a login in it, and this client was built without SASL and TLS: \
                          use a listener of the cluster that asks for none";
            return Err(refuse(reason.to_owned()));
        }
        let brokers = brokers.split(',').map(|broker| with_port(broker.trim()));
        let brokers: Option<Vec<String>> = brokers.collect();
        let brokers =
            brokers.ok_or_else(|| refuse("the brokers are not host:port,host:port".to_owned()))?;
        let mut address = Self {
            brokers: brokers.join(","),
            partitions: 8,
            replication: -1,
            session: Duration::from_secs(10),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number = |low: i32, high: i32| {
                let number = value.parse().ok().filter(|n| (low..=high).contains(n));
                number.ok_or_else(|| {
                    refuse(format!(
                        "{name} takes a number from {low} to {high}, not {value:?}"
                    ))
                })
            };
            match name {
                "partitions" => address.partitions = number(1, 10_000)?,
                "replication" => address.replication = number(1, 100)?,
                "session_ms" => {
                    let ms = number(1_000, 1_800_000)?;
                    address.session = Duration::from_millis(u64::from(ms.unsigned_abs()));
                }
                _ => {
                    return Err(refuse(format!(
                        "there is no setting {name:?}; there are partitions, replication, session_ms"
                    )));
                }
            }
        }
        Ok(address)
    }
}

fn with_port(broker: &str) -> Option<String> {
    // An IPv6 address has colons of its own, and stands in brackets.
    let (host, port) = match broker.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().ok()?),
        _ => (broker, DEFAULT_PORT),
    };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let fine = !host.is_empty() && (bracketed || !host.contains([':', '/', ' ']));
    fine.then(|| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_brokers_and_settings() {
        let plain = Address::parse("kafka://a").unwrap();
        assert_eq!((plain.brokers.as_str(), plain.partitions), ("a:9092", 8));
        let url = "kafka://a:1,[::1]:2,b/?partitions=3&session_ms=6000&replication=2";
        let full = Address::parse(url).unwrap();
        assert_eq!(full.brokers, "a:1,[::1]:2,b:9092");
        assert_eq!((full.partitions, full.replication), (3, 2));
        assert_eq!(full.session, Duration::from_secs(6));
    }

    #[test]
    fn what_it_cannot_use_it_names() {
        for (url, says) in [
            ("kafka://", "host:port"),
            ("kafka://a:b", "host:port"),
            ("kafka://a,,b", "host:port"),
            ("kafka://a/b", "host:port"),
            ("kafka://user:secret@a", "without SASL"),
            ("kafka://a?partitions=0", "from 1 to 10000"),
            ("kafka://a?session_ms=x", "from 1000"),
            ("kafka://a?colour=red", "there are partitions"),
        ] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(
                error.contains(says) && !error.contains("secret"),
                "{url}: {error}"
            );
        }
    }
}
