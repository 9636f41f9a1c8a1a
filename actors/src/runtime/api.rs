//! Functions behind an API: one HTTP request, or one message to a WebSocket service and one back.

use std::collections::BTreeMap;

use futures_util::{SinkExt, StreamExt};
use reqwest::header::{CONTENT_TYPE, COOKIE, HeaderMap};
use reqwest::{Method, Response, Url};
use serde_json::Value;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::{self, Message, protocol::WebSocketConfig};

use super::Bounds;
use super::output::Produced;
use crate::cryptography;
use crate::egress::{self, Ask, Body, CONNECT, Egress, Failure, Reach, Unread};
use crate::execution::{EGRESS_DENIED, Job, Outcome};
use crate::json;
use crate::spec::{ApiSpec, OutputMode, Spec};

mod request;

use request::Request;

/// What a connection says of its messages and of itself.
const FRAMING: [&str; 6] = ["connection", "content-length", "expect", "te", "transfer-encoding", "upgrade"];

/// How much of an answer that is no success an outcome repeats, in characters.
const MAX_ANSWER_CHARS: usize = 500;

/// Sends the input to an HTTP service; its answer's body is the output.
///
/// # Errors
/// The outcome: no url, one that may not be asked, not reachable, a status that is no success, too large an answer, too
/// late.
pub async fn http(job: &Job, egress: &Egress, bounds: Bounds) -> Result<Produced, Outcome> {
    let exchange = async {
        let response = send(job, egress).await?;
        let status = response.status();
        if !status.is_success() {
            let said = egress::beginning(response, 4 * MAX_ANSWER_CHARS).await;
            let said = String::from_utf8_lossy(&said);
            let said = json::shortened(said.trim(), MAX_ANSWER_CHARS);
            return Err(Outcome::failed("http_status", format!("the service answered {status}: {said}")));
        }
        let body = egress::read(response, bounds.output_bytes).await.map_err(|unread| match unread {
            Unread::TooLarge => too_large(bounds.output_bytes),
            Unread::Broken(problem) => unreachable(&problem),
        })?;
        produced(body, &job.definition.spec)
    };
    tokio::time::timeout(bounds.timeout, exchange)
        .await
        .unwrap_or_else(|_| Err(Outcome::timed_out(bounds.timeout)))
}

/// What an answer that is a success gives. An empty one is null; with `parameters`, `output` tells how any other is read.
fn produced(body: Vec<u8>, spec: &Spec) -> Result<Produced, Outcome> {
    match (&spec.api.parameters, &spec.mode) {
        _ if body.iter().all(u8::is_ascii_whitespace) => Ok(Produced::Json(b"null".to_vec())),
        (None, _) | (Some(_), OutputMode::Json) => unwrapped(body, &spec.api).map(Produced::Json),
        (Some(_), _) => unwrapped(body, &spec.api).map(Produced::Bytes),
    }
}

async fn send(job: &Job, egress: &Egress) -> Result<Response, Outcome> {
    let spec = &job.definition.spec.api;
    let method = spec.method.as_deref().map_or(Ok(Method::POST), |name| Method::from_bytes(name.as_bytes()));
    let method = method.map_err(|_| unreachable("the method is not valid"))?;
    let parts = match &spec.parameters {
        Some(parameters) => request::of(spec, url(spec)?, parameters, &job.input.text)?,
        None => whole(job, &method)?,
    };
    let mut headers = parts.headers;
    check_headers(&spec.headers)?;
    for (name, value) in &*job.secrets.headers(&spec.headers)? {
        let (name, value) = header(name, value)?;
        // A request has one line of cookies (RFC 6265, 5.4).
        match headers.get(&name).filter(|_| name == COOKIE) {
            Some(given) => drop(headers.insert(name, request::cookies(&[value, given.clone()]))),
            None => drop(headers.append(name, value)),
        }
    }
    if let Ok(uuid) = HeaderValue::from_str(&job.uuid.to_string()) {
        headers.append("x-org-execution", uuid);
    }
    let body = parts.body.map(|text| {
        let kind = headers.remove(CONTENT_TYPE);
        let kind = kind.unwrap_or_else(|| HeaderValue::from_static("application/json"));
        Body { bytes: text.into(), kind }
    });
    if spec.parameters.is_some() && body.is_none() {
        // The content type is told of the body, and there is none this time.
        headers.remove(CONTENT_TYPE);
    }
    let ask = Ask { method, url: parts.url, headers, body };
    egress.send(ask, Reach::Listed).await.map_err(|failure| failed(&failure))
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Outcome> {
    let wrong = || unreachable(&format!("the header {name:?} is not valid"));
    let mut value = HeaderValue::from_str(value).map_err(|_| wrong())?;
    value.set_sensitive(true);
    Ok((HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?, value))
}

/// The input as a whole: in the query with GET and HEAD, else in the body.
fn whole(job: &Job, method: &Method) -> Result<Request, Outcome> {
    let mut url = parsed(&job.definition.spec.api)?;
    let has_body = !matches!(*method, Method::GET | Method::HEAD);
    if !has_body {
        let input = job.input.members();
        if !input.is_empty() {
            let mut query = url.query_pairs_mut();
            for (name, value) in &input {
                query.append_pair(name, &json::plain(value));
            }
        }
        request::check_length(&url)?;
    }
    Ok(Request { url, headers: HeaderMap::new(), body: has_body.then(|| job.input.text.clone()) })
}

/// With `unwrap`, the `data` of an answer `{"success":true,"data":…}`; one that says `false` is a failure.
fn unwrapped(body: Vec<u8>, spec: &ApiSpec) -> Result<Vec<u8>, Outcome> {
    let envelope = if spec.unwrap { serde_json::from_slice::<Value>(&body).ok() } else { None };
    let Some(envelope) = envelope.filter(|envelope| envelope.get("success").is_some()) else {
        return Ok(body);
    };
    if envelope["success"] != Value::Bool(true) {
        let error = match envelope.get("error") {
            None => "it did not say why".to_owned(),
            Some(Value::String(error)) => error.clone(),
            Some(error) => error.to_string(),
        };
        let error = json::shortened(&error, MAX_ANSWER_CHARS);
        return Err(Outcome::failed(
            "service_failed",
            format!("the service answered that it failed: {error}"),
        ));
    }
    let text = std::str::from_utf8(&body).unwrap_or_default();
    let data = json::members(text).ok().and_then(|mut members| members.remove("data"));
    let missing = || Outcome::failed("invalid_output", "the service's answer has no `data`");
    data.map(|raw| raw.get().into()).ok_or_else(missing)
}

/// Sends the input to a WebSocket service; the first message that comes back is the output.
///
/// # Errors
/// The outcome, as for [`http`]; also where the connection is closed before a message.
pub async fn websocket(job: &Job, egress: &Egress, bounds: Bounds) -> Result<Produced, Outcome> {
    let exchange = async {
        let spec = &job.definition.spec.api;
        let url = parsed(spec)?;
        check_headers(&spec.headers)?;
        let request = handshake(&*job.secrets.headers(&spec.headers)?, &url)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(4 * 1024)
            .write_buffer_size(4 * 1024)
            .max_message_size(Some(bounds.output_bytes))
            .max_frame_size(Some(bounds.output_bytes));
        let connect = async {
            let stream = egress.connect(&url, Reach::Listed).await.map_err(|failure| failed(&failure))?;
            let opened =
                tokio_tungstenite::client_async_tls_with_config(request, stream, Some(config), None).await;
            opened.map_err(|error| unreachable(&error.to_string()))
        };
        let (mut socket, _) = tokio::time::timeout(CONNECT, connect)
            .await
            .map_err(|_| unreachable("the service took too long to connect"))??;
        let sent = socket.send(Message::text(job.input.text.clone())).await;
        sent.map_err(|error| unreachable(&error.to_string()))?;
        let answer = loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => break text.as_bytes().to_vec(),
                Some(Ok(Message::Binary(bytes))) => break bytes.to_vec(),
                Some(Ok(Message::Close(_))) | None => {
                    return Err(Outcome::failed(
                        "invalid_output",
                        "the service closed the connection without an answer",
                    ));
                }
                Some(Ok(_)) => {}
                Some(Err(tungstenite::Error::Capacity(_))) => return Err(too_large(bounds.output_bytes)),
                Some(Err(error)) => return Err(unreachable(&error.to_string())),
            }
        };
        // The answer is there; how the closing goes does not matter.
        let _ = socket.close(None).await;
        unwrapped(answer, &job.definition.spec.api).map(Produced::Json)
    };
    tokio::time::timeout(bounds.timeout, exchange)
        .await
        .unwrap_or_else(|_| Err(Outcome::timed_out(bounds.timeout)))
}

fn handshake(
    headers: &BTreeMap<String, String>,
    url: &Url,
) -> Result<tungstenite::handshake::client::Request, Outcome> {
    cryptography::provider();
    // As it was checked: the other parser is not to find another host in it.
    let mut request = url.as_str().into_client_request().map_err(|error| unreachable(&error.to_string()))?;
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            request.headers_mut().insert(name, value);
        }
    }
    Ok(request)
}

fn url(spec: &ApiSpec) -> Result<&str, Outcome> {
    spec.url.as_deref().ok_or_else(|| Outcome::failed("not_startable", "the definition has no `url`"))
}

fn parsed(spec: &ApiSpec) -> Result<Url, Outcome> {
    let parsed = Url::parse(url(spec)?);
    parsed.map_err(|error| Outcome::failed("not_startable", format!("the url is not valid: {error}")))
}

/// Refuses headers that tell where a message ends: what another length leaves of a body would be taken for the beginning of
/// the next request on that connection (RFC 9112, 6), which may be another definition's.
///
/// # Errors
/// The outcome, which names the header.
pub fn check_headers(headers: &BTreeMap<String, String>) -> Result<(), Outcome> {
    let is_framing = |name: &&String| {
        let name = name.to_ascii_lowercase();
        FRAMING.contains(&name.as_str()) || name.starts_with("sec-websocket-")
    };
    match headers.keys().find(is_framing) {
        None => Ok(()),
        Some(name) => {
            let message = format!("the header {name:?} is the connection's, and no definition may set it");
            Err(Outcome::failed("not_startable", message))
        }
    }
}

fn failed(failure: &Failure) -> Outcome {
    match failure {
        Failure::Denied(denied) => {
            Outcome::failed(EGRESS_DENIED, format!("the service is not called: {denied}"))
        }
        Failure::Astray(problem) | Failure::Unreachable(problem) => unreachable(problem),
    }
}

fn unreachable(reason: &str) -> Outcome {
    Outcome::failed("service_unavailable", format!("the service cannot be reached: {reason}"))
}

fn too_large(max_bytes: usize) -> Outcome {
    Outcome::failed("output_too_large", format!("the answer is larger than {max_bytes} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_definition_says_where_a_message_ends() {
        let checked = |name: &str| check_headers(&BTreeMap::from([(name.to_owned(), "5".to_owned())]));
        for name in ["Content-Length", "transfer-encoding", "TE", "Connection", "Sec-WebSocket-Key", "Expect"]
        {
            let outcome = checked(name).expect_err(name);
            let Err(failure) = outcome.result else { panic!("{name}") };
            assert!(failure.code == "not_startable" && failure.message.contains(name), "{failure:?}");
        }
        for name in ["content-type", "Authorization", "host", "x-content-length"] {
            assert_eq!(checked(name), Ok(()), "{name}");
        }
    }
}
