//! The allow-list: which refused addresses the configuration lets in all the same. Pure.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::Deserialize;
use url::{Host, Url};

/// One of `egress.allow`: a network, an address or the name of a host, at one port or at any.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Allowed {
    place: Place,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Net(IpNet),
    /// In lower case, without a dot at its end. Whatever it resolves to is let in.
    Name(String),
}

/// Why a text is no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network, address or host")]
pub struct NoEntry(String);

impl FromStr for Allowed {
    type Err = NoEntry;

    fn from_str(text: &str) -> Result<Self, NoEntry> {
        let entry = if text.contains('/') { net(text) } else { host(text) };
        entry.ok_or_else(|| NoEntry(text.into()))
    }
}

impl TryFrom<String> for Allowed {
    type Error = NoEntry;

    fn try_from(text: String) -> Result<Self, NoEntry> {
        text.parse()
    }
}

/// A network, as `10.0.0.0/8`, `fd00::/8:9000`.
fn net(text: &str) -> Option<Allowed> {
    let (address, rest) = text.split_once('/')?;
    let (bits, port) = match rest.split_once(':') {
        Some((bits, port)) => (bits, Some(port.parse().ok()?)),
        None => (rest, None),
    };
    let address: IpAddr = address.parse().ok()?;
    // One of IPv4 in the clothes of IPv6 is compared as what it is, and so would never match.
    let is_plain = address.to_canonical() == address;
    let net = IpNet::new(address, bits.parse().ok()?).ok().filter(|_| is_plain)?;
    Some(Allowed { place: Place::Net(net), port })
}

/// An address or a name, as `10.0.0.1:80`, `[::1]:80`, `models.internal`; read as in an address of the web.
fn host(text: &str) -> Option<Allowed> {
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Some(Allowed { place: at(IpAddr::V6(address)), port: None });
    }
    // The port that is a scheme's own is not told, so it is read under two schemes.
    let [first, second] = ["http", "https"].map(|scheme| Url::parse(&format!("{scheme}://{text}")).ok());
    let (url, port) = first
        .zip(second)
        .map(|(one, two)| (one.port().or(two.port()), one))
        .map(|(port, url)| (url, port))?;
    let is_bare = url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && !text.contains(['/', '\\', '?', '#', '@'])
        && !text.contains(char::is_whitespace)
        && !text.ends_with(':');
    let place = match url.host().filter(|_| is_bare)? {
        Host::Ipv4(address) => at(IpAddr::V4(address)),
        Host::Ipv6(address) => at(IpAddr::V6(address)),
        Host::Domain(name) => Place::Name(plain(name).filter(|name| is_name(name))?.to_owned()),
    };
    Some(Allowed { place, port })
}

fn at(address: IpAddr) -> Place {
    Place::Net(IpNet::from(address.to_canonical()))
}

/// A name without the dot at its end.
fn plain(name: &str) -> Option<&str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    (!name.is_empty()).then_some(name)
}

fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    name.split('.').all(is_label)
}

/// All entries.
#[derive(Clone, Debug, Default)]
pub struct Allow(Vec<Allowed>);

impl Allow {
    /// These.
    pub fn new(entries: Vec<Allowed>) -> Self {
        Self(entries)
    }

    /// Whether some entry speaks of this port alone.
    pub fn names_port(&self, port: u16) -> bool {
        self.0.iter().any(|entry| entry.port == Some(port))
    }

    /// Whether this address is let in, at this port; with none, only by entries for any port.
    pub fn has_address(&self, address: IpAddr, port: Option<u16>) -> bool {
        let address = address.to_canonical();
        self.at(port).any(|entry| matches!(&entry.place, Place::Net(net) if net.contains(&address)))
    }

    /// Whether whatever this name resolves to is let in, at this port.
    pub fn has_name(&self, name: &str, port: Option<u16>) -> bool {
        let name = plain(name).unwrap_or_default().to_ascii_lowercase();
        self.at(port).any(|entry| matches!(&entry.place, Place::Name(known) if *known == name))
    }

    fn at(&self, port: Option<u16>) -> impl Iterator<Item = &Allowed> {
        self.0.iter().filter(move |entry| entry.port.is_none() || entry.port == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(entries: &[&str]) -> Allow {
        Allow::new(entries.iter().map(|entry| entry.parse().expect(entry)).collect())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn an_address_is_let_in_by_its_network_and_at_its_port_only() {
        let list =
            allow(&["10.0.0.0/8", "fd00::/8:9000", "127.0.0.1:9000", "[::1]:443", "fe80::1", "0x7f.2"]);
        for (address, port, has) in [
            ("10.255.0.1", None, true),
            ("10.255.0.1", Some(1), true),
            ("::ffff:10.255.0.1", None, true),
            ("11.0.0.0", Some(1), false),
            ("fd12::1", Some(9000), true),
            ("fd12::1", Some(9001), false),
            ("fd12::1", None, false),
            ("127.0.0.1", Some(9000), true),
            ("127.0.0.1", Some(80), false),
            ("127.0.0.1", None, false),
            ("::1", Some(443), true),
            ("::1", None, false),
            ("fe80::1", None, true),
            ("fe80::2", None, false),
            ("127.0.0.2", None, true),
            ("64:ff9b::a00:1", None, false),
        ] {
            assert_eq!(list.has_address(ip(address), port), has, "{address} {port:?}");
        }
        assert!(list.names_port(443) && list.names_port(9000) && !list.names_port(80));
        assert!(!Allow::default().has_address(ip("127.0.0.1"), None));
    }

    #[test]
    fn a_name_is_let_in_however_it_is_written_and_its_neighbours_are_not() {
        let list = allow(&["Models.Internal:8080", "localhost.", "ärger.example", "web:80"]);
        for (name, port, has) in [
            ("models.internal", Some(8080), true),
            ("models.internal.", Some(8080), true),
            ("MODELS.internal", Some(8080), true),
            ("models.internal", Some(80), false),
            ("models.internal", None, false),
            ("x.models.internal", Some(8080), false),
            ("localhost", None, true),
            ("localhost", Some(1), true),
            ("xn--rger-moa.example", None, false),
            ("xn--rger-koa.example", None, true),
            ("web", Some(80), true),
            ("web", Some(443), false),
            ("", None, false),
        ] {
            assert_eq!(list.has_name(name, port), has, "{name} {port:?}");
        }
    }

    #[test]
    fn what_is_no_entry_is_named() {
        for text in [
            "",
            " ",
            ".",
            "*",
            "*.internal",
            "a b",
            "a/b",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0/8",
            "::1/129",
            "::ffff:10.0.0.0/104",
            "[::1",
            "[::1]/128",
            "1.2.3.4:65536",
            "1.2.3.4:",
            "10.0.0.0/8:",
            "host:port",
            "http://models.internal",
            "user@host",
            "host?x",
            "host#x",
            "host\\x",
            "a..b",
            "1.2.3.4.5",
            "fe80::1%eth0",
            "\thost",
            "-/8",
            "10.0.0.0/8:80:80",
        ] {
            let refused = text.parse::<Allowed>().expect_err(text);
            assert!(refused.to_string().contains("no network, address or host"), "{refused}");
        }
    }
}
