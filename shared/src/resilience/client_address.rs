//! Whose address a request comes from, as far as that can be known.
//!
//! # The obvious design, and how it fails
//!
//! The first address of `X-Forwarded-For`. The client writes that header too, and proxies append to
//! it: the first entry is whatever the client likes, so every request may come from somebody new,
//! or from a victim. Only the address of the connection is a fact. If that is a proxy of ours, what
//! it appended, the *last* entry, is true as well; and so on to the left, as long as the one who
//! says it is ours.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::ConnectInfo;
use http::request::Parts;
use http::{HeaderMap, HeaderName};

use super::Refused;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Proxies whose word is taken: none, unless they are named.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies {
    networks: Vec<(IpAddr, u8)>,
}

impl TrustedProxies {
    /// Nobody: the address of the connection is the client's.
    pub fn none() -> Self {
        Self::default()
    }

    /// Networks as `10.0.0.0/8`, `::1` and the like.
    ///
    /// # Errors
    /// `Unusable`: not an address, or a prefix that is longer than one.
    pub fn networks(networks: &[&str]) -> Result<Self, Refused> {
        const WRONG: Refused =
            Refused::Unusable("a trusted proxy is an address or a network, like 10.0.0.0/8");
        let network = |text: &&str| {
            let (address, prefix) = match text.split_once('/') {
                Some((address, prefix)) => (address, Some(prefix.parse().map_err(|_| WRONG)?)),
                None => (*text, None),
            };
            let address: IpAddr = address.parse().map_err(|_| WRONG)?;
            let longest = if address.is_ipv4() { 32 } else { 128 };
            let prefix: u8 = prefix.unwrap_or(longest);
            if prefix > longest {
                return Err(WRONG);
            }
            Ok((address, prefix))
        };
        let networks = networks.iter().map(network).collect::<Result<_, _>>()?;
        Ok(Self { networks })
    }

    /// The client's address. `None` if the server does not say where connections come from: serve
    /// with `into_make_service_with_connect_info::<SocketAddr>()`.
    ///
    /// An entry that is no address ends the search: what is left of it was said by nobody we know.
    pub fn client(&self, parts: &Parts) -> Option<IpAddr> {
        let ConnectInfo(peer) = parts.extensions.get::<ConnectInfo<SocketAddr>>()?;
        let mut client = peer.ip().to_canonical();
        for said in forwarded_for(&parts.headers).into_iter().rev() {
            if !self.contains(client) {
                break;
            }
            let Some(said) = said.and_then(|said| said.parse::<IpAddr>().ok()) else {
                break;
            };
            client = said.to_canonical();
        }
        Some(client)
    }

    fn contains(&self, address: IpAddr) -> bool {
        let is_in = |network: &(IpAddr, u8)| match (network.0, address) {
            (IpAddr::V4(network_bits), IpAddr::V4(bits)) => {
                let rest = 32 - u32::from(network.1);
                let (a, b) = (network_bits.to_bits(), bits.to_bits());
                a.checked_shr(rest) == b.checked_shr(rest)
            }
            (IpAddr::V6(network_bits), IpAddr::V6(bits)) => {
                let rest = 128 - u32::from(network.1);
                let (a, b) = (network_bits.to_bits(), bits.to_bits());
                a.checked_shr(rest) == b.checked_shr(rest)
            }
            _ => false,
        };
        self.networks.iter().any(is_in)
    }
}

/// The address as something to count by: of IPv6 the first 64 bits, for whoever has one address
/// there has 2⁶⁴ of them.
pub fn address_to_count_by(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            format!("{}/64", Ipv6Addr::from_bits(network))
        }
    }
}

/// All entries in order; `None` for one that is no text.
fn forwarded_for(headers: &HeaderMap) -> Vec<Option<&str>> {
    let mut entries = Vec::new();
    for line in headers.get_all(X_FORWARDED_FOR) {
        match line.to_str() {
            Ok(line) => entries.extend(line.split(',').map(|entry| Some(entry.trim()))),
            Err(_) => entries.push(None),
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn client(trusted: &[&str], peer: &str, said: &[&str]) -> String {
        let mut request = Request::builder();
        for line in said {
            request = request.header("x-forwarded-for", *line);
        }
        let mut parts = request.body(()).unwrap().into_parts().0;
        let peer = SocketAddr::new(peer.parse().unwrap(), 1234);
        parts.extensions.insert(ConnectInfo(peer));
        let trusted = TrustedProxies::networks(trusted).unwrap();
        trusted.client(&parts).unwrap().to_string()
    }

    #[test]
    fn a_client_cannot_choose_its_own_address() {
        assert_eq!(client(&[], "203.0.113.9", &["1.1.1.1"]), "203.0.113.9");
        let proxy = &["10.0.0.0/8"];
        assert_eq!(client(proxy, "203.0.113.9", &["1.1.1.1"]), "203.0.113.9");
        // The proxy appended the truth to the client's invention.
        assert_eq!(
            client(proxy, "10.0.0.1", &["1.1.1.1, 203.0.113.9"]),
            "203.0.113.9"
        );
        assert_eq!(
            client(proxy, "10.0.0.1", &["1.1.1.1", "203.0.113.9, 10.2.0.1"]),
            "203.0.113.9"
        );
        assert_eq!(
            client(proxy, "10.0.0.1", &["1.1.1.1, nonsense, 10.2.0.1"]),
            "10.2.0.1"
        );
        assert_eq!(client(proxy, "10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn a_network_is_its_prefix() {
        for (network, address, is_in) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::1", "::1", true),
        ] {
            let trusted = TrustedProxies::networks(&[network]).unwrap();
            let address = address.parse().unwrap();
            assert_eq!(trusted.contains(address), is_in, "{network} {address}");
        }
        for wrong in ["", "x", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0.0/"] {
            assert!(TrustedProxies::networks(&[wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_client_counts_once() {
        let count_by = |text: &str| address_to_count_by(text.parse().unwrap());
        assert_eq!(count_by("203.0.113.9"), "203.0.113.9");
        assert_eq!(count_by("::ffff:203.0.113.9"), "203.0.113.9");
        assert_eq!(
            count_by("2001:db8:1:2:3::9"),
            count_by("2001:db8:1:2:ffff::1")
        );
        assert_ne!(count_by("2001:db8:1:2::9"), count_by("2001:db8:1:3::9"));
    }
}
