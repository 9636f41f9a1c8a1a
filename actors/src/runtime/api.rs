//! Functions behind an API: one HTTP request, or one message to a WebSocket service and one back.

use std::sync::LazyLock;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, Response, redirect};
use serde_json::Value;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::{self, Message, protocol::WebSocketConfig};

use super::Bounds;
use super::output::Produced;
use crate::egress::reason;
use crate::execution::{Job, Outcome};
use crate::json;
use crate::spec::{ApiSpec, OutputMode, Spec};

mod request;

use request::Request;

/// How many redirects of an HTTP function are followed.
const MAX_REDIRECTS: usize = 5;

/// How long a connection may take to come about, within the execution's own timeout.
const CONNECT: Duration = Duration::from_secs(10);

/// How much of an answer that is no success an outcome repeats, in characters.
const MAX_ANSWER_CHARS: usize = 500;

/// The client that all HTTP functions share, so that connections are reused.
///
/// # Errors
/// When this machine's certificates cannot be read.
pub fn client() -> reqwest::Result<Client> {
    Client::builder()
        .no_proxy()
        .connect_timeout(CONNECT)
        .redirect(redirect::Policy::limited(MAX_REDIRECTS))
        .user_agent(concat!("org-executor/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Sends the input to an HTTP service; its answer's body is the output.
///
/// # Errors
/// The outcome: no url, not reachable, a status that is no success, too large an answer, too late.
pub async fn http(job: &Job, client: &Client, bounds: Bounds) -> Result<Produced, Outcome> {
    let exchange = async {
        let response = send(job, client).await?;
        let status = response.status();
        let body = read(response, bounds.output_bytes).await?;
        if !status.is_success() {
            let text: String = String::from_utf8_lossy(&body).chars().take(MAX_ANSWER_CHARS).collect();
            return Err(Outcome::failed(
                "http_status",
                format!("the service answered {status}: {}", text.trim()),
            ));
        }
        produced(body, &job.definition.spec)
    };
    tokio::time::timeout(bounds.timeout, exchange)
        .await
        .unwrap_or_else(|_| Err(Outcome::timed_out(bounds.timeout)))
}

/// What an answer that is a success gives. With `parameters`, an empty one is null, and `output` tells how any other
/// is read.
fn produced(body: Vec<u8>, spec: &Spec) -> Result<Produced, Outcome> {
    match (&spec.api.parameters, &spec.mode) {
        (Some(_), _) if body.iter().all(u8::is_ascii_whitespace) => Ok(Produced::Json(b"null".to_vec())),
        (None, _) | (Some(_), OutputMode::Json) => unwrapped(body, &spec.api),
        (Some(_), _) => Ok(Produced::Bytes(body)),
    }
}

async fn send(job: &Job, client: &Client) -> Result<Response, Outcome> {
    let spec = &job.definition.spec.api;
    let method = spec.method.as_deref().map_or(Ok(Method::POST), |name| Method::from_bytes(name.as_bytes()));
    let method = method.map_err(|_| unreachable("the method is not valid"))?;
    let parts = match &spec.parameters {
        Some(parameters) => request::of(spec, url(spec)?, parameters, &job.input.text)?,
        None => whole(job, &method)?,
    };
    let mut request = client.request(method, parts.url).headers(parts.headers);
    request = request.header("x-org-execution", job.uuid.to_string());
    let is_typed = spec.headers.keys().any(|name| is_content_type(name));
    // With parameters the content type is told of the body, and there may be none this time.
    let is_bare = spec.parameters.is_some() && parts.body.is_none();
    for (name, value) in spec.headers.iter().filter(|(name, _)| !is_bare || !is_content_type(name)) {
        request = request.header(name, value);
    }
    if let Some(body) = parts.body {
        request = request.body(body);
        if !is_typed {
            request = request.header("content-type", "application/json");
        }
    }
    request.send().await.map_err(|error| unreachable(&reason(&error)))
}

fn is_content_type(name: &str) -> bool {
    name.eq_ignore_ascii_case("content-type")
}

/// The input as a whole: in the query with GET and HEAD, else in the body.
fn whole(job: &Job, method: &Method) -> Result<Request, Outcome> {
    let mut url = reqwest::Url::parse(url(&job.definition.spec.api)?)
        .map_err(|error| unreachable(&format!("the url is not valid: {error}")))?;
    let has_body = !matches!(*method, Method::GET | Method::HEAD);
    if !has_body && let Some(input) = job.input.value().as_object().filter(|input| !input.is_empty()) {
        let mut query = url.query_pairs_mut();
        for (name, value) in input {
            query.append_pair(name, &parameter(value));
        }
    }
    Ok(Request { url, headers: HeaderMap::new(), body: has_body.then(|| job.input.text.clone()) })
}

/// A string as it is, anything else as JSON.
fn parameter(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

async fn read(mut response: Response, max_bytes: usize) -> Result<Vec<u8>, Outcome> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&reason(&error)))? {
        body.extend_from_slice(&chunk);
        if body.len() > max_bytes {
            return Err(too_large(max_bytes));
        }
    }
    Ok(body)
}

/// With `unwrap`, the `data` of an answer `{"success":true,"data":…}`; one that says `false` is a failure.
fn unwrapped(body: Vec<u8>, spec: &ApiSpec) -> Result<Produced, Outcome> {
    let envelope = if spec.unwrap { serde_json::from_slice::<Value>(&body).ok() } else { None };
    let Some(envelope) = envelope.filter(|envelope| envelope.get("success").is_some()) else {
        return Ok(Produced::Json(body));
    };
    if envelope["success"] != Value::Bool(true) {
        let error = envelope.get("error").map_or_else(|| "it did not say why".to_owned(), parameter);
        return Err(Outcome::failed(
            "service_failed",
            format!("the service answered that it failed: {error}"),
        ));
    }
    let text = std::str::from_utf8(&body).unwrap_or_default();
    let data = json::members(text).ok().and_then(|mut members| members.remove("data"));
    let missing = || Outcome::failed("invalid_output", "the service's answer has no `data`");
    data.map(|raw| Produced::Json(raw.get().into())).ok_or_else(missing)
}

/// Sends the input to a WebSocket service; the first message that comes back is the output.
///
/// # Errors
/// The outcome, as for [`http`]; also where the connection is closed before a message.
pub async fn websocket(job: &Job, bounds: Bounds) -> Result<Produced, Outcome> {
    let exchange = async {
        let request = handshake(&job.definition.spec.api)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(4 * 1024)
            .write_buffer_size(4 * 1024)
            .max_message_size(Some(bounds.output_bytes))
            .max_frame_size(Some(bounds.output_bytes));
        let connect = tokio_tungstenite::connect_async_with_config(request, Some(config), true);
        let (mut socket, _) = tokio::time::timeout(CONNECT, connect)
            .await
            .map_err(|_| unreachable("the service took too long to connect"))?
            .map_err(|error| unreachable(&error.to_string()))?;
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
        unwrapped(answer, &job.definition.spec.api)
    };
    tokio::time::timeout(bounds.timeout, exchange)
        .await
        .unwrap_or_else(|_| Err(Outcome::timed_out(bounds.timeout)))
}

fn handshake(spec: &ApiSpec) -> Result<tungstenite::handshake::client::Request, Outcome> {
    tls();
    let mut request = url(spec)?.into_client_request().map_err(|error| unreachable(&error.to_string()))?;
    for (name, value) in &spec.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            request.headers_mut().insert(name, value);
        }
    }
    Ok(request)
}

/// Two libraries bring a provider of cryptography each, so rustls must be told which one to take.
fn tls() {
    static CHOSEN: LazyLock<()> = LazyLock::new(|| {
        // An error means that somebody has chosen already.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    });
    LazyLock::force(&CHOSEN);
}

fn url(spec: &ApiSpec) -> Result<&str, Outcome> {
    spec.url.as_deref().ok_or_else(|| Outcome::failed("not_startable", "the definition has no `url`"))
}

fn unreachable(reason: &str) -> Outcome {
    Outcome::failed("service_unavailable", format!("the service cannot be reached: {reason}"))
}

fn too_large(max_bytes: usize) -> Outcome {
    Outcome::failed("output_too_large", format!("the answer is larger than {max_bytes} bytes"))
}
