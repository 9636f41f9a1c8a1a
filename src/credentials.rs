//! What a client shows to be let in, as it stands in the head of its request. Who it is, the engine tells.

use actors::error::{Code, Error, Result};
use poem::http::HeaderMap;
use poem::http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};

/// The subprotocol that a WebSocket client names beside its key, and that it is answered with.
pub const SUBPROTOCOL: &str = "org-executor";

/// What stands before a key in the list of subprotocols.
const IN_SUBPROTOCOL: &str = "bearer.";

/// The key or token of `Authorization: Bearer …`; none without the header (RFC 6750, 2.1).
///
/// # Errors
/// `unauthorized`: the header is there twice, or with something else in it.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let Some(first) = given.next() else { return Ok(None) };
    let parts = first.to_str().ok().and_then(|text| text.split_once(' '));
    match parts.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) {
        Some((_, token)) if given.next().is_none() => Ok(Some(token.trim())),
        _ => Err(Error::new(Code::Unauthorized, "the header `Authorization` is not once `Bearer KEY`")),
    }
}

/// The same of a WebSocket's handshake. A web page cannot set that header: it names the key among its subprotocols, as
/// `new WebSocket(url, ["org-executor", "bearer.KEY"])`.
///
/// # Errors
/// `unauthorized`, as above.
pub fn of_handshake(headers: &HeaderMap) -> Result<Option<&str>> {
    match bearer(headers)? {
        None => Ok(subprotocols(headers).find_map(|name| name.strip_prefix(IN_SUBPROTOCOL))),
        token => Ok(token),
    }
}

/// Whether a handshake names this service's subprotocol, which then has to stand in the answer.
pub fn names_subprotocol(headers: &HeaderMap) -> bool {
    subprotocols(headers).any(|name| name == SUBPROTOCOL)
}

fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lists = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse::<poem::http::HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_key_is_read_from_its_header() {
        assert_eq!(bearer(&headers(&[])), Ok(None));
        for text in ["Bearer k", "bearer k", "BEARER  k "] {
            assert_eq!(bearer(&headers(&[("authorization", text)])), Ok(Some("k")), "{text}");
        }
        for bad in [vec!["k"], vec!["Basic k"], vec![""], vec!["Bearer a", "Bearer b"], vec!["Bearer"]] {
            let lines: Vec<_> = bad.iter().map(|value| ("authorization", *value)).collect();
            assert_eq!(bearer(&headers(&lines)).unwrap_err().code(), Code::Unauthorized, "{bad:?}");
        }
    }

    #[test]
    fn a_web_page_names_its_key_among_the_subprotocols() {
        let page = headers(&[("sec-websocket-protocol", "org-executor, bearer.oe_1_2")]);
        assert_eq!(of_handshake(&page), Ok(Some("oe_1_2")));
        assert!(names_subprotocol(&page));
        let both = headers(&[("sec-websocket-protocol", "bearer.a"), ("authorization", "Bearer b")]);
        assert_eq!(of_handshake(&both), Ok(Some("b")));
        assert!(!names_subprotocol(&both));
        assert_eq!(of_handshake(&headers(&[("sec-websocket-protocol", "chat")])), Ok(None));
    }
}
