//! What the server does with what it was told: its settings decide, and people should see them.

use redis::cmd;

use super::BROKER;
use super::link::{Failure, Link};
use crate::queue::QueueError;

/// One sentence for `Capabilities::durability`.
pub(super) async fn of(link: &Link) -> Result<String, QueueError> {
    let mut command = cmd("INFO");
    let information: String = link.ask(&command).await?;
    check_version(field(&information, "redis_version").unwrap_or_default())?;
    command = cmd("CONFIG");
    command.arg("GET").arg("append*");
    // A hosted server may not tell; then what INFO says has to do.
    let settings: Vec<String> = match link.ask(&command).await {
        Ok(settings) => settings,
        Err(Failure::Redis(error)) if !error.is_io_error() => Vec::new(),
        Err(failure) => return Err(failure.into()),
    };
    let setting = |name: &str| {
        let mut pairs = settings.chunks(2);
        pairs.find_map(|pair| (pair[0] == name).then(|| pair.get(1).map(String::as_str))?)
    };
    let logged = match setting("appendonly") {
        Some(value) => value == "yes",
        None => field(&information, "aof_enabled") == Some("1"),
    };
    let replicas = field(&information, "connected_slaves").unwrap_or("0");
    let evicts = !matches!(
        field(&information, "maxmemory_policy"),
        None | Some("noeviction")
    ) && field(&information, "maxmemory") != Some("0");
    Ok(sentence(logged, setting("appendfsync"), replicas, evicts))
}

fn sentence(logged: bool, sync: Option<&str>, replicas: &str, evicts: bool) -> String {
    let mut text = match (logged, sync) {
        (false, _) => "in memory (appendonly no): lost when the server ends".to_owned(),
        (true, Some("always")) => {
            "on disk (appendonly yes, appendfsync always): survives the server and the machine"
                .to_owned()
        }
        (true, sync) => {
            let sync = sync.unwrap_or("unknown");
            format!(
                "in the operating system's hands (appendonly yes, appendfsync {sync}): survives the \
                 server, but the last second or more is lost with the machine"
            )
        }
    };
    if replicas != "0" {
        text.push_str(&format!(
            "; {replicas} replicas are not waited for: a failover loses what they have not got yet \
             (WAIT would tell that they have it in memory, WAITAOF of 7.2 that they have it on disk)"
        ));
    }
    if evicts {
        text.push_str("; its maxmemory-policy may evict queues: use noeviction");
    }
    text
}

fn check_version(version: &str) -> Result<(), QueueError> {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < (6, 2) => {
            Err(QueueError::Unsupported {
                broker: BROKER,
                what: format!("be used in version {version}: it takes 6.2 or later"),
            })
        }
        _ => Ok(()),
    }
}

fn field<'a>(information: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = information.lines();
    lines
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_promised_follows_the_servers_settings() {
        let durable = sentence(true, Some("always"), "0", false);
        assert!(
            durable.contains("the machine") && !durable.contains("lost"),
            "{durable}"
        );
        for (text, part) in [
            (sentence(true, Some("everysec"), "0", false), "last second"),
            (sentence(true, None, "0", false), "appendfsync unknown"),
            (
                sentence(false, Some("always"), "0", false),
                "lost when the server ends",
            ),
            (
                sentence(true, Some("always"), "2", false),
                "2 replicas are not waited for",
            ),
            (sentence(true, Some("always"), "0", true), "use noeviction"),
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_server_that_is_too_old_is_named() {
        for fine in ["6.2.0", "7.0.15", "8.2", "", "unheard of"] {
            check_version(fine).unwrap();
        }
        let error = check_version("6.0.16").unwrap_err().to_string();
        assert!(error.contains("6.0.16") && error.contains("6.2"), "{error}");
    }
}
