//! The REST API as the client sees it: one call, its envelope opened.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Body, Client, Method, RequestBuilder, Response, Url};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::lines::Lines;
use super::{Failure, Refusal, table, unreachable};
use crate::cli::key;

/// The media type of lines of JSON.
const LINES: &str = "application/x-ndjson";

/// A service at an address; nothing is sent before the first call.
pub struct Service {
    base: String,
    http: Client,
}

/// What a successful call brings.
#[derive(Debug, Default, Deserialize)]
pub struct Answer {
    /// The JSON text of `data`.
    pub data: Option<Box<RawValue>>,
    /// The cursor of the next page.
    pub next: Option<String>,
    /// What was done, in words.
    pub message: Option<String>,
}

impl Answer {
    /// The JSON text of `data`, `null` without.
    pub fn data(&self) -> &str {
        self.data.as_deref().map_or("null", RawValue::get)
    }

    /// What was done: `message`, beside `data` or inside of it.
    pub fn message(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Data {
            message: Option<String>,
        }
        let inner = || serde_json::from_str::<Data>(self.data()).ok()?.message;
        self.message.clone().or_else(inner)
    }
}

impl Service {
    /// Checks the address.
    pub fn new(base: String) -> Result<Self> {
        let base = address(base, &["http", "https"])?;
        let mut headers = HeaderMap::new();
        if let Some(key) = key() {
            headers.insert(AUTHORIZATION, credential(&key)?);
        }
        // A proxy of the environment is for the world outside; the WebSocket does not use it either.
        let http = Client::builder()
            .no_proxy()
            // What is redirected becomes another question, and would be taken for the answer to this one.
            .redirect(Policy::none())
            .default_headers(headers)
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(120))
            // Before the service gives the connection up, which it does after a minute unless told.
            .pool_idle_timeout(Duration::from_secs(30))
            .build()
            .context("cannot set up HTTP")?;
        Ok(Self { base, http })
    }

    /// One call. `path` is encoded already; `body` is JSON text.
    pub async fn call(&self, method: Method, path: &str, body: Option<String>) -> Result<Answer, Failure> {
        let body = body.map(|text| ("application/json", text.into()));
        let response = self.send(self.request(method, path, body)).await?;
        self.read(response).await
    }

    /// One call that is answered in lines of JSON. `path` is encoded already; `body` is lines of JSON too.
    pub async fn lines(&self, method: Method, path: &str, body: Option<Body>) -> Result<Lines, Failure> {
        let body = body.map(|lines| (LINES, lines));
        let response = self.send(self.request(method, path, body)).await?;
        let declared = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if response.status().is_success() && declared.is_some_and(|declared| declared.starts_with(LINES)) {
            return Ok(Lines::new(response, self.base.clone()));
        }
        self.read(response).await?;
        Err(anyhow::anyhow!("the service at {} answered with something else than lines", self.base).into())
    }

    fn request(&self, method: Method, path: &str, body: Option<(&str, Body)>) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        // An absent body says so: some servers ask for its length (411) all the same.
        match body {
            Some((media_type, body)) => request.header(CONTENT_TYPE, media_type).body(body),
            None => request.header(CONTENT_LENGTH, 0),
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        Ok(request.send().await.map_err(|error| unreachable(&self.base, &error))?)
    }

    /// Opens an answer that is an envelope.
    async fn read(&self, response: Response) -> Result<Answer, Failure> {
        let (status, url) = (response.status(), response.url().clone());
        let place = response.headers().get(LOCATION).and_then(|place| place.to_str().ok()).map(table::plain);
        let text = response.text().await.map_err(|error| unreachable(&self.base, &error))?;
        match open(&text) {
            Some(answer) => answer.map_err(Failure::Refused),
            None if status.is_redirection() => {
                let place = place.unwrap_or_else(|| "elsewhere".to_owned());
                Err(anyhow::anyhow!("{url} sends to {place}: ask there").into())
            }
            None => {
                Err(anyhow::anyhow!("what answers at {url} is not Org Executor: it said {status}").into())
            }
        }
    }
}

/// Opens an envelope; `None` if it is none.
fn open(text: &str) -> Option<Result<Answer, Refusal>> {
    #[derive(Deserialize)]
    struct Verdict {
        success: bool,
    }
    let verdict: Verdict = serde_json::from_str(text).ok()?;
    if verdict.success { serde_json::from_str(text).ok().map(Ok) } else { Some(Err(Refusal::parse(text))) }
}

/// The header's value that shows a key.
pub fn credential(key: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
        .ok()
        .context("ORG_EXECUTOR_KEY has characters that no key has")?;
    value.set_sensitive(true);
    Ok(value)
}

/// Checks a base address; a slash at its end is dropped, since paths begin with one.
pub fn address(base: String, schemes: &[&str]) -> Result<String> {
    let trimmed = base.trim_end_matches('/');
    match Url::parse(trimmed) {
        Ok(url) if schemes.contains(&url.scheme()) && url.has_host() => Ok(trimmed.to_owned()),
        _ => bail!("{base:?} is not an address: it begins with {}://", schemes[0]),
    }
}

/// The path of a definition, or of what stands below `folder`.
pub fn definition_path(folder: &str, id: &str) -> Result<String> {
    // Encoding cannot save these: a URL drops them, however they are written.
    if matches!(id, "" | "." | "..") {
        bail!("{id:?} cannot be an id");
    }
    Ok(format!("/{folder}/{}", encode(id)))
}

/// Percent-encodes one path segment or query value: RFC 3986's unreserved characters stay, and `:`,
/// which parts name and version in an id.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_one_path_segment() {
        assert_eq!(encode("weather_lookup:v1.0.0-stable"), "weather_lookup:v1.0.0-stable");
        assert_eq!(encode("a/b c?d#e%f+é~"), "a%2Fb%20c%3Fd%23e%25f%2B%C3%A9~");
        assert_eq!(definition_path("tool/register", "x y").unwrap(), "/tool/register/x%20y");
        assert!(definition_path("tool", "..").is_err());
    }

    #[test]
    fn an_address_needs_its_scheme() {
        let http = ["http", "https"];
        assert_eq!(address("http://h:1//".to_owned(), &http).unwrap(), "http://h:1");
        for wrong in ["localhost:8000", "ws://h", "", "http://"] {
            assert!(address(wrong.to_owned(), &http).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_envelope_is_told_from_any_other_answer() {
        let answer = open(r#"{"success":true,"data":[1e400],"next":"c"}"#).unwrap().unwrap();
        assert_eq!((answer.data(), answer.next.as_deref()), ("[1e400]", Some("c")));
        assert!(open(r#"{"success":false,"error":"no"}"#).unwrap().is_err());
        for foreign in ["", "not found", "{}", "[true]", r#"{"detail":"Not Found"}"#] {
            assert!(!matches!(open(foreign), Some(Ok(_))), "{foreign}");
        }
    }

    #[test]
    fn the_words_of_an_answer_are_beside_or_inside_its_data() {
        for text in [
            r#"{"success":true,"data":{"message":"Tool deleted"}}"#,
            r#"{"success":true,"message":"Tool deleted","data":{}}"#,
        ] {
            let answer = open(text).unwrap().unwrap();
            assert_eq!(answer.message().as_deref(), Some("Tool deleted"));
        }
    }
}
