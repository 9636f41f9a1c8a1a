//! Who may come in before there are keys: a request whose `Host` names this machine, and no web page of another
//! origin. A page that a browser shows could otherwise reach a service on loopback, by a form or by a name that it
//! lets resolve to 127.0.0.1 (DNS rebinding).

use std::net::{IpAddr, SocketAddr};

use actors::error::{Code, Error, Result};
use poem::http::{HeaderMap, HeaderValue, header};

/// The one `Host` of a request (RFC 9112, 3.2).
///
/// # Errors
/// `invalid` where there are more.
fn host(headers: &HeaderMap) -> Result<Option<&str>> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().map(text);
    if hosts.next().is_some() {
        return Err(Error::invalid("this request has more than one `Host`"));
    }
    Ok(host)
}

fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("?")
}

/// The hosts and origins that one port lets in.
#[derive(Clone, Debug)]
pub struct Doors {
    bind: SocketAddr,
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Doors {
    /// The machine's own names, and what the configuration allows besides.
    pub fn new(bind: SocketAddr, hosts: &[String], origins: &[String]) -> Self {
        let lower = |list: &[String]| list.iter().map(|item| item.to_ascii_lowercase()).collect();
        Self { bind, hosts: lower(hosts), origins: lower(origins) }
    }

    /// Checks a request by its headers; `authority` is the host in its target, where it has one there.
    ///
    /// # Errors
    /// `invalid` where it has more than one `Host`; `forbidden`.
    pub fn check_headers(&self, headers: &HeaderMap, authority: Option<&str>) -> Result<()> {
        self.check(host(headers)?.or(authority), headers.get(header::ORIGIN).map(text))
    }

    /// Checks a request's `Host` and, where there is one, its `Origin`.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn check(&self, host: Option<&str>, origin: Option<&str>) -> Result<()> {
        let host = host.unwrap_or_default().to_ascii_lowercase();
        if !self.is_own(without_port(&host)) {
            return Err(Error::new(Code::Forbidden, "the `Host` of this request is not one of this service"));
        }
        let Some(origin) = origin.map(str::to_ascii_lowercase) else { return Ok(()) };
        let is_same = ["http://", "https://"].iter().any(|scheme| origin.strip_prefix(scheme) == Some(&host));
        if is_same || self.origins.contains(&origin) {
            return Ok(());
        }
        Err(Error::new(Code::Forbidden, "web pages of this `Origin` may not use this service"))
    }

    fn is_own(&self, name: &str) -> bool {
        if name == "localhost" || self.hosts.iter().any(|host| host == name) {
            return true;
        }
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            // An address cannot be rebound, so a service that listens on all of them answers to all of them.
            Ok(address) => {
                address.is_loopback() || address == self.bind.ip() || self.bind.ip().is_unspecified()
            }
            Err(_) => false,
        }
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if !name.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') =>
        {
            // `[::1]:8000` and `name:8000`, but not the bare `::1`.
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors(bind: &str) -> Doors {
        let bind = bind.parse().expect("an address");
        Doors::new(bind, &["Tools.Example".into()], &["https://console.example".into()])
    }

    #[test]
    fn a_request_has_one_host() {
        let mut headers = HeaderMap::new();
        assert_eq!(host(&headers), Ok(None));
        headers.append(header::HOST, "localhost".parse().expect("a value"));
        assert_eq!(host(&headers), Ok(Some("localhost")));
        headers.append(header::HOST, "evil.example".parse().expect("a value"));
        assert_eq!(host(&headers).expect_err("two").code(), Code::Invalid);
    }

    #[test]
    fn only_the_machines_own_names_and_the_allowed_ones_come_in() {
        let doors = doors("127.0.0.1:8000");
        for host in [
            "localhost",
            "localhost:8000",
            "127.0.0.1:8000",
            "[::1]:8000",
            "::1",
            "TOOLS.example:1",
            "127.9.9.9",
        ] {
            assert!(doors.check(Some(host), None).is_ok(), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1:8000",
            "",
            "localhost:8000:9",
            "localhost@evil",
        ] {
            assert!(doors.check(Some(host), None).is_err(), "{host}");
        }
        assert!(doors.check(None, None).is_err());
    }

    #[test]
    fn a_page_of_another_origin_stays_out() {
        let doors = doors("0.0.0.0:8000");
        let host = Some("192.0.2.1:8000");
        assert!(doors.check(host, None).is_ok());
        assert!(doors.check(host, Some("http://192.0.2.1:8000")).is_ok());
        assert!(doors.check(host, Some("https://Console.example")).is_ok());
        for origin in ["null", "http://evil.example", "http://192.0.2.1:8001", "http://localhost:8000", ""] {
            assert!(doors.check(host, Some(origin)).is_err(), "{origin}");
        }
    }
}
