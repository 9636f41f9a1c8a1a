//! The rule of a client, and the resolver that applies it: every address of a name is checked, and only what was checked
//! is handed out. A client does not ask its resolver for a host that is an address, so that is checked before.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::lookup_host;
use url::Host;

use super::address::is_refused;
use super::allow::Allow;
use super::{Denied, Failure};

/// How much of a host is repeated, in characters: as many as a name of the DNS may have.
const MAX_SHOWN: usize = 253;

/// Which of the refused addresses a client lets in. A resolver is not told the port, so that a port of which the list
/// speaks has a client of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All.
    Any,
    /// Those of the list for this port and for any; without one, those for any.
    Port(Option<u16>),
}

/// What may be reached.
#[derive(Clone, Debug)]
pub struct Rule {
    pub allow: Arc<Allow>,
    pub scope: Scope,
}

impl Rule {
    /// Checks a host that is an address. A name is checked when it is resolved.
    pub fn check(&self, url: &Url) -> Result<(), Denied> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        if self.lets_in(address) { Ok(()) } else { Err(Denied::Address(address.to_string())) }
    }

    /// The addresses of a name, where all of them may be reached: one that is public in part may be so for a moment.
    pub async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, Failure> {
        let unresolved = || Failure::Unreachable("its host does not resolve".into());
        let found: Vec<IpAddr> =
            lookup_host((name, 0)).await.map_err(|_| unresolved())?.map(|found| found.ip()).collect();
        if found.is_empty() {
            return Err(unresolved());
        }
        self.pass(name, &found)?;
        Ok(found)
    }

    fn pass(&self, name: &str, found: &[IpAddr]) -> Result<(), Denied> {
        let is_named = match self.scope {
            Scope::Any => true,
            Scope::Port(port) => self.allow.has_name(name, port),
        };
        if is_named || found.iter().all(|address| self.lets_in(*address)) {
            Ok(())
        } else {
            Err(Denied::Name(name.chars().take(MAX_SHOWN).collect()))
        }
    }

    /// Whether this address may be reached.
    pub fn lets_in(&self, address: IpAddr) -> bool {
        match self.scope {
            _ if !is_refused(address) => true,
            Scope::Any => true,
            Scope::Port(port) => self.allow.has_address(address, port),
        }
    }
}

/// Resolves names for a client.
#[derive(Debug)]
pub struct Resolver(pub Rule);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let rule = self.0.clone();
        Box::pin(async move {
            let found = rule.resolve(name.as_str()).await?;
            // The client puts the port in.
            let found: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(entries: &[&str], scope: Scope) -> Rule {
        let entries = entries.iter().map(|entry| entry.parse().expect(entry)).collect();
        Rule { allow: Arc::new(Allow::new(entries)), scope }
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().expect(text)).collect()
    }

    #[test]
    fn one_refused_address_among_those_of_a_name_refuses_it() {
        let default = rule(&[], Scope::Port(None));
        assert_eq!(default.pass("a", &ips(&["8.8.8.8", "2606:4700::1"])), Ok(()));
        for mixed in [["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"], ["2606:4700::1", "::ffff:10.0.0.1"]]
        {
            let denied = default.pass("a.example", &ips(&mixed)).expect_err("one is private");
            assert_eq!(
                denied.to_string(),
                "`a.example` resolves to a private address; `egress.allow` can name it"
            );
            assert_eq!(rule(&[], Scope::Any).pass("a.example", &ips(&mixed)), Ok(()));
            assert_eq!(rule(&["a.example"], Scope::Port(None)).pass("a.example", &ips(&mixed)), Ok(()));
            assert!(rule(&["a.example:9"], Scope::Port(None)).pass("a.example", &ips(&mixed)).is_err());
            assert!(rule(&["b.example"], Scope::Port(None)).pass("a.example", &ips(&mixed)).is_err());
        }
        let listed = rule(&["127.0.0.1:9"], Scope::Port(Some(9)));
        assert_eq!(listed.pass("a", &ips(&["127.0.0.1", "8.8.8.8"])), Ok(()));
        assert!(listed.pass("a", &ips(&["127.0.0.1", "::1"])).is_err());
        assert!(rule(&["127.0.0.1:9"], Scope::Port(None)).pass("a", &ips(&["127.0.0.1"])).is_err());
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_resolved_and_refused() {
        for name in ["localhost", "LOCALHOST"] {
            let denied = rule(&[], Scope::Port(None)).resolve(name).await;
            assert_eq!(denied, Err(Failure::Denied(Denied::Name(name.into()))));
        }
        let found = rule(&["localhost"], Scope::Port(None)).resolve("localhost").await.expect("it is named");
        assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
    }
}
