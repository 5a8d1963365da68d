//! `sqs+https://sqs.REGION.amazonaws.com`, or `sqs+http://KEY:SECRET@HOST:PORT?region=…` for what
//! speaks like it.

use crate::queue::QueueError;

/// What the address says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Where requests go.
    pub(super) endpoint: String,
    pub(super) region: String,
    /// Without them, AWS's usual places are searched: variables, profile, container, instance.
    pub(super) credentials: Option<(String, String)>,
    /// What answers, if it is not Amazon.
    pub(super) emulation: Option<String>,
    /// How many messages a request takes. See `fifo_batch` in `parse`.
    pub(super) batch: i32,
    /// How long SQS may hold a request that finds nothing, at most; 0 asks and sleeps instead.
    pub(super) long_poll_s: u64,
}

const REGION: &str = "us-east-1";

impl Address {
    /// Settings: `region`, where the host does not say it; `emulation`, a name for what answers;
    /// `fifo_batch` (1 to 10) and `long_poll_s` (0 to 20), for emulations that cannot do more:
    /// moto forgets the order of a key of which several were in flight, and a request that waits
    /// there does not see what another one frees.
    ///
    /// # Errors
    /// `Address`.
    pub(super) fn parse(url: &str) -> Result<Self, QueueError> {
        let refuse = |reason: String| QueueError::Address {
            address: crate::queue::connect::without_password(url),
            reason,
        };
        let rest = url.strip_prefix("sqs+").unwrap_or(url);
        let (scheme, rest) = rest.split_once("://").unwrap_or(("https", rest));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, host) = match rest.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, rest),
        };
        let host = host.strip_suffix('/').unwrap_or(host);
        if host.is_empty() || host.contains(['/', ' ', ',']) {
            return Err(refuse("it does not name one host".to_owned()));
        }
        let credentials = match login.map(|login| login.split_once(':')) {
            None => None,
            Some(Some((key, secret))) if !key.is_empty() && !secret.is_empty() => {
                Some((key.to_owned(), secret.to_owned()))
            }
            Some(_) => {
                return Err(refuse("before the @ stands no KEY:SECRET".to_owned()));
            }
        };
        let amazon = host.strip_prefix("sqs.").and_then(|host| {
            let (region, domain) = host.split_once('.')?;
            let known = matches!(domain, "amazonaws.com" | "amazonaws.com.cn");
            known.then(|| region.to_owned())
        });
        let emulation = amazon
            .is_none()
            .then(|| format!("what answers at {host}, which is not Amazon"));
        let mut address = Self {
            endpoint: format!("{scheme}://{host}"),
            region: amazon.unwrap_or_else(|| REGION.to_owned()),
            credentials,
            emulation,
            batch: 10,
            long_poll_s: 20,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number = |low: u8, high: u8| {
                let number = value.parse().ok().filter(|n| (low..=high).contains(n));
                number.ok_or_else(|| {
                    refuse(format!(
                        "{name} takes a number from {low} to {high}, not {value:?}"
                    ))
                })
            };
            match name {
                "region" if !value.is_empty() => address.region = value.to_owned(),
                "emulation" if !value.is_empty() => address.emulation = Some(value.to_owned()),
                "fifo_batch" => address.batch = i32::from(number(1, 10)?),
                "long_poll_s" => address.long_poll_s = u64::from(number(0, 20)?),
                _ => {
                    return Err(refuse(format!(
                        "there is no setting {pair:?}; there are region, emulation, fifo_batch, \
                         long_poll_s"
                    )));
                }
            }
        }
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amazons_host_says_the_region_and_is_no_emulation() {
        let address = Address::parse("sqs+https://sqs.eu-west-1.amazonaws.com").unwrap();
        assert_eq!(address.endpoint, "https://sqs.eu-west-1.amazonaws.com");
        assert_eq!(address.region, "eu-west-1");
        assert_eq!((address.emulation, address.credentials), (None, None));
    }

    #[test]
    fn another_host_is_said_to_be_an_emulation() {
        let url = "sqs+http://key:sec/ret@127.0.0.1:5000/?region=x-1&fifo_batch=1&long_poll_s=0";
        let address = Address::parse(url).unwrap();
        assert_eq!(address.endpoint, "http://127.0.0.1:5000");
        assert_eq!(address.region, "x-1");
        assert_eq!(address.credentials, Some(("key".into(), "sec/ret".into())));
        assert!(address.emulation.unwrap().contains("127.0.0.1:5000"));
        assert_eq!((address.batch, address.long_poll_s), (1, 0));
        let named = Address::parse("sqs+http://h?emulation=moto").unwrap();
        assert_eq!(named.emulation.as_deref(), Some("moto"));
    }

    #[test]
    fn what_it_cannot_use_it_names() {
        for (url, says) in [
            ("sqs+http://", "one host"),
            ("sqs+http://a/b", "one host"),
            ("sqs+http://secret@h", "KEY:SECRET"),
            ("sqs+http://k:@h", "KEY:SECRET"),
            ("sqs+http://h?fifo_batch=11", "from 1 to 10"),
            ("sqs+http://h?long_poll_s=x", "from 0 to 20"),
            ("sqs+http://h?colour=red", "there are region"),
        ] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains(says), "{url}: {error}");
        }
    }
}
