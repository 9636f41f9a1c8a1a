//! The way out, for addresses that somebody else chose: the host is resolved once, here, and the client is tied to
//! what was found, so that the address that was checked is the one that is reached.

use std::net::{IpAddr, SocketAddr};

use reqwest::{ClientBuilder, Url, redirect};

/// Why an address is not asked; each reads on after "the source".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("has an address without a host")]
    NoHost,
    #[error("has an address without a port")]
    NoPort,
    #[error("has a host that does not resolve")]
    Unresolved,
    #[error("resolves to a private address, and `allow_private` is not set")]
    Private,
}

/// A client that reaches the host of this address and follows no redirect; to be configured further and built.
pub async fn client(url: &Url, allow_private: bool) -> Result<ClientBuilder, Denied> {
    let host = url.host_str().ok_or(Denied::NoHost)?;
    let port = url.port_or_known_default().ok_or(Denied::NoPort)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found = tokio::net::lookup_host((bare, port)).await.map_err(|_| Denied::Unresolved)?;
    let addresses: Vec<SocketAddr> = found.collect();
    if addresses.is_empty() {
        return Err(Denied::Unresolved);
    }
    if !allow_private && addresses.iter().any(|address| is_private(address.ip())) {
        return Err(Denied::Private);
    }
    let builder = reqwest::Client::builder().no_proxy().redirect(redirect::Policy::none());
    Ok(builder.resolve_to_addrs(bare, &addresses))
}

/// The whole chain of causes, without the address, which may hold a credential.
pub fn reason(error: &reqwest::Error) -> String {
    if let Some(status) = error.status() {
        return format!("it answered {status}");
    }
    let mut cause = std::error::Error::source(error);
    let mut text = match cause {
        None if error.is_redirect() => "it redirects too often".to_owned(),
        None => "the request failed".to_owned(),
        Some(_) => String::new(),
    };
    while let Some(inner) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// A text as one segment of a path, or as a part of a query: what RFC 3986 leaves unreserved stays, and `:`, which both
/// may hold.
pub fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Loopback, private, link-local, shared and unspecified addresses, in both families.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let shared = v4.octets()[0] == 100 && (64..128).contains(&v4.octets()[1]);
            v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || shared
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_private(IpAddr::V4(v4)),
            None => {
                v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local()
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_known_in_both_families() {
        for private in [
            "127.0.0.1",
            "10.1.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(is_private(private.parse().expect("an address")), "{private}");
        }
        for public in ["8.8.8.8", "2606:4700::1"] {
            assert!(!is_private(public.parse().expect("an address")), "{public}");
        }
    }
}
