//! Which requests go through a proxy, as the environment says it.
//!
//! `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, each in lower case too, which wins. Requests to
//! this host itself never go through one.

use std::net::IpAddr;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;

/// A proxy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Proxy {
    /// Whether it is spoken to over TLS.
    pub(super) secure: bool,
    pub(super) host: String,
    pub(super) port: u16,
    /// `Proxy-Authorization`; marked sensitive, so that `Debug` hides it.
    pub(super) authorization: Option<HeaderValue>,
}

/// The proxies of a process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Proxies {
    for_https: Option<Proxy>,
    for_http: Option<Proxy>,
    exceptions: Vec<Exception>,
}

/// One entry of `NO_PROXY`.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Exception {
    All,
    Network {
        address: IpAddr,
        bits: u8,
        port: Option<u16>,
    },
    /// A domain and what lies below it, or with a leading dot only the latter.
    Domain {
        name: String,
        port: Option<u16>,
    },
}

impl Proxies {
    /// Reads the environment.
    ///
    /// # Errors
    /// Names the variable that cannot be understood, without its value, which may hold a password.
    pub(super) fn from_env(var: impl Fn(&str) -> Option<String>) -> Result<Proxies, String> {
        let either = |name: &str| {
            let lower = name.to_ascii_lowercase();
            [lower.as_str(), name].into_iter().find_map(|name| {
                let value = var(name).filter(|value| !value.trim().is_empty())?;
                Some((name.to_string(), value))
            })
        };
        let proxy = |name: &str| {
            either(name)
                .map(|(name, value)| {
                    parse(&value).ok_or_else(|| format!("{name} does not name a proxy as http://host:port"))
                })
                .transpose()
        };
        let exceptions = either("NO_PROXY").map(|(_, value)| value).unwrap_or_default();
        Ok(Proxies {
            for_https: proxy("HTTPS_PROXY")?,
            for_http: proxy("HTTP_PROXY")?,
            exceptions: exceptions.split(',').filter_map(|entry| exception(entry.trim())).collect(),
        })
    }

    /// The proxy for a server, if it is reached through one.
    pub(super) fn of(&self, secure: bool, host: &str, port: u16) -> Option<&Proxy> {
        let proxy = if secure { self.for_https.as_ref() } else { self.for_http.as_ref() }?;
        let address = host.parse::<IpAddr>().ok();
        let local = host.eq_ignore_ascii_case("localhost") || address.is_some_and(|ip| ip.is_loopback());
        let excepted = self.exceptions.iter().any(|exception| exception.covers(host, address, port));
        (!local && !excepted).then_some(proxy)
    }
}

impl Exception {
    fn covers(&self, host: &str, address: Option<IpAddr>, at: u16) -> bool {
        match self {
            Exception::All => true,
            Exception::Network { address: network, bits, port } => {
                port.is_none_or(|port| port == at)
                    && address.is_some_and(|address| same_network(address, *network, *bits))
            }
            Exception::Domain { name, port } => {
                let host = host.trim_end_matches('.').to_ascii_lowercase();
                let below = host.ends_with(name.as_str()) && name.starts_with('.')
                    || host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                port.is_none_or(|port| port == at) && (below || host == *name)
            }
        }
    }
}

fn same_network(one: IpAddr, other: IpAddr, bits: u8) -> bool {
    let leading = |a: u128, b: u128, width: u32| {
        let rest = width.saturating_sub(u32::from(bits));
        a.checked_shr(rest).unwrap_or(0) == b.checked_shr(rest).unwrap_or(0)
    };
    match (one, other) {
        (IpAddr::V4(a), IpAddr::V4(b)) => leading(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => leading(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

fn exception(entry: &str) -> Option<Exception> {
    if entry == "*" {
        return Some(Exception::All);
    }
    let network = |text: &str, port| {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.trim_matches(['[', ']']).parse().ok()?;
        let bits = bits.unwrap_or(if address.is_ipv4() { 32 } else { 128 });
        Some(Exception::Network { address, bits, port })
    };
    // An address first: the colons of IPv6 are no port.
    if let Some(network) = network(entry, None) {
        return Some(network);
    }
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) => (name, Some(port.parse().ok()?)),
        None => (entry, None),
    };
    if let Some(network) = network(name, port) {
        return Some(network);
    }
    let name = name.trim_start_matches('*').to_ascii_lowercase();
    (!name.is_empty()).then_some(Exception::Domain { name, port })
}

fn parse(value: &str) -> Option<Proxy> {
    let value = value.trim();
    let with_scheme = if value.contains("://") { value.to_string() } else { format!("http://{value}") };
    let uri: Uri = with_scheme.parse().ok()?;
    let secure = match uri.scheme_str()? {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    let authority = uri.authority()?;
    let authorization = match authority.as_str().rsplit_once('@') {
        Some((user, _)) => {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let plain = percent_decode_str(name).chain(*b":").chain(percent_decode_str(password));
            let encoded = BASE64_STANDARD.encode(plain.collect::<Vec<u8>>());
            let mut header = HeaderValue::from_str(&format!("Basic {encoded}")).ok()?;
            header.set_sensitive(true);
            Some(header)
        }
        None => None,
    };
    let host = authority.host().trim_matches(['[', ']']).to_string();
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    (!host.is_empty()).then_some(Proxy { secure, host, port, authorization })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(vars: &[(&str, &str)]) -> Result<Proxies, String> {
        Proxies::from_env(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))
    }

    #[test]
    fn lower_case_wins_and_each_scheme_has_its_own() {
        let proxies =
            from(&[("HTTPS_PROXY", "big:1"), ("https_proxy", "small:2"), ("HTTP_PROXY", "http://plain")]);
        let proxies = proxies.unwrap();
        assert_eq!(proxies.of(true, "s3.example", 443).unwrap().host, "small");
        assert_eq!(proxies.of(false, "s3.example", 80).unwrap().port, 80);
        assert_eq!(from(&[]).unwrap().of(true, "s3.example", 443), None);
    }

    #[test]
    fn names_and_passwords_are_sent_and_not_shown() {
        let proxies = from(&[("HTTPS_PROXY", "http://us%65r:p%40ss@proxy.example:3128")]).unwrap();
        let proxy = proxies.of(true, "s3.example", 443).unwrap();
        let sent = proxy.authorization.as_ref().unwrap();
        assert_eq!(sent.to_str().unwrap(), format!("Basic {}", BASE64_STANDARD.encode("user:p@ss")));
        let shown = format!("{proxies:?}");
        assert!(!shown.contains("Basic") && !shown.contains("ss@"), "{shown}");
        let refused = from(&[("HTTPS_PROXY", "socks5://u:secret@h:1")]).unwrap_err();
        assert!(refused.starts_with("HTTPS_PROXY") && !refused.contains("secret"), "{refused}");
    }

    #[test]
    fn exceptions() {
        let check = |no_proxy: &str, host: &str, port: u16, excepted: bool| {
            let proxies = from(&[("HTTPS_PROXY", "p:1"), ("NO_PROXY", no_proxy)]).unwrap();
            assert_eq!(proxies.of(true, host, port).is_none(), excepted, "{no_proxy}: {host}:{port}");
        };
        check("", "s3.example", 443, false);
        check("", "localhost", 9000, true);
        check("", "127.0.0.1", 9000, true);
        check("*", "s3.example", 443, true);
        check("example", "s3.example", 443, true);
        check("example", "example", 443, true);
        check("example", "counterexample", 443, false);
        check(".example", "s3.example", 443, true);
        check(".example", "example", 443, false);
        check("other, S3.Example:443", "s3.example", 443, true);
        check("s3.example:9000", "s3.example", 443, false);
        check("10.0.0.0/8", "10.1.2.3", 443, true);
        check("10.0.0.0/8", "11.1.2.3", 443, false);
        check("fd00::/8,::2", "fd12::1", 443, true);
        check("[::2]:443", "::2", 443, true);
        check("0.0.0.0/0", "9.9.9.9", 443, true);
    }
}
