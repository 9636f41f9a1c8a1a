//! One request and its answer, wherever redirects lead. Each of them is checked like the first address, and none takes
//! from https to http.
//!
//! All headers are for the origin that was asked for, and end with it: a redirect to another scheme, host or port takes
//! none of them along. A body goes along where the method stays (307, 308), with its content type: it is the input, which
//! the redirecting service has had already and may hand on by itself, and bears no credential of this service.

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};

use super::{Denied, Egress, Failure, MAX_REDIRECTS, Reach, Redirects, reason};

/// A request.
#[derive(Clone, Debug)]
pub struct Ask {
    pub method: Method,
    pub url: Url,
    /// What only the origin of `url` gets.
    pub headers: HeaderMap,
    pub body: Option<Body>,
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Body {
    pub bytes: Bytes,
    /// Its content type.
    pub kind: HeaderValue,
}

/// Why an answer's body is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is larger than it may be.
    TooLarge,
    /// It broke off; to read on after "it cannot be reached: ".
    Broken(String),
}

impl Ask {
    /// Asks for what is there.
    pub fn get(url: Url) -> Self {
        Self { method: Method::GET, url, headers: HeaderMap::new(), body: None }
    }

    /// Goes on to where a redirect leads.
    fn follow(&mut self, status: StatusCode, next: Url) -> Result<(), Denied> {
        if self.url.scheme() == "https" && next.scheme() == "http" {
            return Err(Denied::Downgrade);
        }
        // RFC 9110, 15.4: what other methods ask for is not turned into something else, except by a 303.
        let becomes_get = match status {
            StatusCode::SEE_OTHER => self.method != Method::HEAD,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == Method::POST,
            _ => false,
        };
        if becomes_get {
            self.method = Method::GET;
            self.body = None;
            self.headers.remove(CONTENT_TYPE);
        }
        if self.url.origin() != next.origin() {
            self.headers.clear();
        }
        self.url = next;
        Ok(())
    }
}

impl Egress {
    /// Sends a request, and again where its answer says that it belongs elsewhere.
    ///
    /// # Errors
    /// It, or where it is redirected, is denied or cannot be reached.
    pub async fn send(&self, mut ask: Ask, reach: Reach) -> Result<Response, Failure> {
        for _ in 0..=MAX_REDIRECTS {
            let current = self.current();
            let rule = current.rule(&ask.url, "http", reach)?;
            let client = current.client(rule.scope, Redirects::Ours)?;
            let mut request =
                client.request(ask.method.clone(), ask.url.clone()).headers(ask.headers.clone());
            if let Some(body) = &ask.body {
                request = request.header(CONTENT_TYPE, &body.kind).body(body.bytes.clone());
            }
            let response = request.send().await.map_err(|error| Failure::of(&error))?;
            match redirected(&response, &ask.url)? {
                Some(next) => ask.follow(response.status(), next)?,
                None => return Ok(response),
            }
        }
        Err(too_often())
    }
}

pub fn too_often() -> Failure {
    Failure::Astray(format!("it redirects more than {MAX_REDIRECTS} times"))
}

/// Where an answer leads, if it is a redirect. One that does not say where is an answer like any other.
fn redirected(response: &Response, url: &Url) -> Result<Option<Url>, Failure> {
    let leads = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    if !leads {
        return Ok(None);
    }
    let Some(location) = response.headers().get(LOCATION) else { return Ok(None) };
    let next = location.to_str().ok().and_then(|location| url.join(location).ok());
    next.map(Some).ok_or_else(|| Failure::Astray("it redirects to no valid address".into()))
}

/// The body of an answer.
///
/// # Errors
/// It is larger than `max_bytes`, or breaks off.
pub async fn read(mut response: Response, max_bytes: usize) -> Result<Vec<u8>, Unread> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Unread::Broken(reason(&error)))? {
        if body.len() + chunk.len() > max_bytes {
            return Err(Unread::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// As much of an answer's body as comes, up to so many bytes.
pub async fn beginning(mut response: Response, bytes: usize) -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() < bytes
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk[..chunk.len().min(bytes - body.len())]);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect(text)
    }

    fn ask(method: Method, address: &str) -> Ask {
        let headers = [("x-api-key", "secret"), ("authorization", "secret"), ("content-type", "a/b")];
        let mut ask = Ask { method, body: None, ..Ask::get(url(address)) };
        for (name, value) in headers {
            ask.headers.insert(name, HeaderValue::from_static(value));
        }
        ask.body = Some(Body { bytes: Bytes::from_static(b"{}"), kind: HeaderValue::from_static("a/b") });
        ask
    }

    #[test]
    fn the_method_stays_or_becomes_get_as_rfc_9110_says() {
        for (status, method, becomes) in [
            (301, Method::POST, Method::GET),
            (302, Method::POST, Method::GET),
            (303, Method::POST, Method::GET),
            (307, Method::POST, Method::POST),
            (308, Method::POST, Method::POST),
            (301, Method::DELETE, Method::DELETE),
            (302, Method::PUT, Method::PUT),
            (303, Method::PUT, Method::GET),
            (303, Method::HEAD, Method::HEAD),
            (308, Method::PATCH, Method::PATCH),
        ] {
            let mut ask = ask(method.clone(), "http://a.example/1");
            let status = StatusCode::from_u16(status).expect("a status");
            ask.follow(status, url("http://a.example/2")).expect("followed");
            assert_eq!(ask.method, becomes, "{status} {method}");
            assert_eq!(ask.body.is_some(), becomes != Method::GET, "{status} {method}");
            assert_eq!(ask.headers.contains_key(CONTENT_TYPE), becomes != Method::GET, "{status} {method}");
            assert!(ask.headers.contains_key("x-api-key"));
        }
    }

    #[test]
    fn no_header_leaves_its_origin_and_nothing_leaves_https() {
        for (from, to, stays) in [
            ("http://a.example/1", "http://a.example:80/2", true),
            ("http://a.example/1", "http://A.example/2", true),
            ("http://a.example/1", "https://a.example/1", false),
            ("http://a.example/1", "http://a.example:81/1", false),
            ("http://a.example/1", "http://b.a.example/1", false),
            ("https://a.example/1", "https://a.example./1", false),
            ("http://127.0.0.1/1", "http://127.1/2", true),
            ("http://127.0.0.1/1", "http://[::1]/1", false),
        ] {
            let mut ask = ask(Method::POST, from);
            ask.follow(StatusCode::TEMPORARY_REDIRECT, url(to)).expect("followed");
            assert_eq!(ask.headers.is_empty(), !stays, "{from} {to}");
            assert!(ask.body.is_some());
        }
        let mut ask = ask(Method::GET, "https://a.example/1");
        assert_eq!(ask.follow(StatusCode::FOUND, url("http://a.example/1")), Err(Denied::Downgrade));
    }
}
