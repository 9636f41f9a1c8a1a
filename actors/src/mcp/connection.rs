//! A connection to an MCP server, over HTTP or over two pipes, and what went wrong with one in plain words.
//!
//! What a server tells beside its answers, its progress and its log, goes to a ring of lines on the way in: there it is
//! still in its order, and before the answer that it belongs to. The library would hand each to a task of its own.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, ClientConfig, ClientRequest, Implementation, JsonObject,
    JsonRpcMessage, PaginatedRequestParams, ProgressNotificationParam, ProtocolVersion, Request,
    ServerNotification, Tool,
};
use rmcp::service::{
    ClientInitializeError, PeerRequestOptions, RequestHandle, RunningService, RxJsonRpcMessage, ServiceError,
    TxJsonRpcMessage,
};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::common::client_side_sse::ExponentialBackoff;
use rmcp::transport::streamable_http_client::{StreamableHttpClientTransportConfig, StreamableHttpError};
use rmcp::transport::{DynamicTransportError, StreamableHttpClientTransport, Transport};
use rmcp::{RoleClient, ServiceExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use super::bounded::{self, Bound, Way};
use crate::egress::Failure;
use crate::log::LogRing;

/// How often, and after which first pause, a stream that broke off is taken up again where the server can do that.
const RESUMED: usize = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// How much is kept of what a server says about an error, in bytes.
const MAX_SAID: usize = 500;

/// What is said of a server that ended, whether reading or writing shows it.
const CLOSED: &str = "it closed the connection";

/// What hears of a connection besides its caller.
#[derive(Clone, Debug)]
pub struct Ears {
    /// Where lines of log and of progress go.
    pub said: Arc<LogRing>,
    /// How much of one line is kept.
    pub line_bytes: usize,
    /// How large a message may be.
    pub bound: Arc<Bound>,
}

/// A connection whose handshake is over; it ends when this is dropped.
#[derive(Debug)]
pub struct Connection {
    service: RunningService<RoleClient, ClientConfig>,
    /// What hears of it.
    pub ears: Ears,
}

impl Connection {
    /// To a server over streamable HTTP, with these headers in each request.
    ///
    /// # Errors
    /// What went wrong, to read on after "it cannot be reached: ".
    pub async fn over_http(
        way: Way,
        url: &str,
        headers: &BTreeMap<String, String>,
        ears: Ears,
    ) -> Result<Self, String> {
        reqwest::Url::parse(url).map_err(|error| format!("its url is not valid: {error}"))?;
        let mut config = StreamableHttpClientTransportConfig::with_uri(url)
            .custom_headers(in_library_form(headers)?)
            .max_error_response_size(MAX_SAID);
        let mut retry = ExponentialBackoff::default();
        (retry.max_times, retry.base_duration) = (Some(RESUMED), PAUSE);
        config.retry_config = Arc::new(retry);
        let client = bounded::Client::new(way, ears.bound.clone());
        Self::over(StreamableHttpClientTransport::with_client(client, config), ears).await
    }

    /// To a server that reads and writes one line a message.
    ///
    /// # Errors
    /// As for [`Connection::over_http`].
    pub async fn over_pipes<R, W>(read: R, write: W, ears: Ears) -> Result<Self, String>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let read = bounded::Lines::new(read, ears.bound.clone());
        // The bound is kept below, where it ends the connection; here a long line would only be left out.
        let transport = AsyncRwTransport::new_client(read, write).with_max_line_length(usize::MAX);
        Self::over(transport, ears).await
    }

    async fn over<T: Transport<RoleClient> + 'static>(transport: T, ears: Ears) -> Result<Self, String> {
        let me = Implementation::new("org-executor", env!("CARGO_PKG_VERSION"));
        let mut config = ClientConfig::new(ClientCapabilities::default(), me);
        // The newest one, which the library would ask for, is spoken without a handshake.
        config.protocol_version = ProtocolVersion::LATEST_WITH_INITIALIZE;
        let heard = Heard { inner: transport, ears: ears.clone() };
        let service = config.serve(heard).await.map_err(|error| not_begun(&error))?;
        Ok(Self { service, ears })
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.service.is_transport_closed()
    }

    /// Asks for a call of a tool; the handle gives the answer.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn call(
        &self,
        tool: String,
        arguments: JsonObject,
    ) -> Result<RequestHandle<RoleClient>, ServiceError> {
        let params = CallToolRequestParams::new(tool).with_arguments(arguments);
        let request = ClientRequest::CallToolRequest(Request::new(params));
        self.service.send_cancellable_request(request, PeerRequestOptions::no_options()).await
    }

    /// One page of its tools, and where the next one begins.
    ///
    /// # Errors
    /// What went wrong, to read on after the server's name.
    pub async fn page(&self, cursor: Option<String>) -> Result<(Vec<Tool>, Option<String>), String> {
        let params = PaginatedRequestParams::default().with_cursor(cursor);
        let page = self.service.list_tools(Some(params)).await.map_err(|error| in_words(&error))?;
        Ok((page.tools, page.next_cursor))
    }

    /// Ends it, and waits until the server was told, for a moment.
    pub async fn close(mut self) {
        // How it goes does not matter any more.
        let _ = self.service.close_with_timeout(Duration::from_secs(1)).await;
    }
}

fn in_library_form(headers: &BTreeMap<String, String>) -> Result<HashMap<HeaderName, HeaderValue>, String> {
    let pair = |(name, value): (&String, &String)| {
        let wrong = || format!("{name:?} is no HTTP header");
        let mut value = HeaderValue::from_str(value).map_err(|_| wrong())?;
        value.set_sensitive(true);
        Ok((HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?, value))
    };
    headers.iter().map(pair).collect()
}

/// A transport whose notifications of progress and log go to a ring.
struct Heard<T> {
    inner: T,
    ears: Ears,
}

impl<T: Transport<RoleClient>> Transport<RoleClient> for Heard<T> {
    type Error = T::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        self.inner.send(item)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            let message = self.inner.receive().await?;
            let line = match &message {
                JsonRpcMessage::Notification(notification) => line(&notification.notification),
                _ => None,
            };
            match line {
                Some(line) => self.ears.said.push(shortened(&line, self.ears.line_bytes).into_owned()),
                None => return Some(message),
            }
        }
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.inner.close().await
    }
}

/// What a notification is as a line of the log.
#[expect(deprecated, reason = "servers of all earlier versions tell their log in this way")]
fn line(notification: &ServerNotification) -> Option<String> {
    match notification {
        ServerNotification::ProgressNotification(notification) => Some(progress(&notification.params)),
        ServerNotification::LoggingMessageNotification(notification) => Some(text(&notification.params.data)),
        _ => None,
    }
}

fn progress(params: &ProgressNotificationParam) -> String {
    let share = match params.total {
        Some(total) if total > 0.0 => params.progress / total,
        _ => params.progress,
    };
    let message = params.message.as_deref().unwrap_or_default();
    json!({ "progress": share, "message": shortened(message, MAX_SAID) }).to_string()
}

/// A text as it is, also where it stands alone in an object, as FastMCP has it; anything else as JSON.
fn text(data: &Value) -> String {
    let alone = |object: &serde_json::Map<String, Value>| {
        let mut known = object.iter().filter(|(_, value)| !value.is_null());
        let first = known.next().filter(|(name, _)| *name == "msg")?.1.as_str()?.to_owned();
        known.next().is_none().then_some(first)
    };
    match data {
        Value::String(text) => text.clone(),
        Value::Object(object) => alone(object).unwrap_or_else(|| data.to_string()),
        _ => data.to_string(),
    }
}

/// At most so many bytes of a text; an ellipsis tells that there are more.
pub fn shortened(text: &str, bytes: usize) -> Cow<'_, str> {
    let end = text.floor_char_boundary(bytes);
    if end < text.len() { Cow::Owned(format!("{}…", &text[..end])) } else { Cow::Borrowed(text) }
}

fn not_begun(error: &ClientInitializeError) -> String {
    match error {
        ClientInitializeError::TransportError { error, .. } => on_the_way(error),
        ClientInitializeError::JsonRpcError(error) => refusal(&error.message),
        ClientInitializeError::ConnectionClosed(_) => CLOSED.into(),
        // Others repeat what the server sent, whatever that was.
        _ => "it does not speak MCP".into(),
    }
}

/// What went wrong with a request, to read on after the server's name.
pub fn in_words(error: &ServiceError) -> String {
    match error {
        ServiceError::McpError(error) => refusal(&error.message),
        ServiceError::TransportSend(error) => on_the_way(error),
        ServiceError::TransportClosed => CLOSED.into(),
        _ => "it answered with what is no answer".into(),
    }
}

fn refusal(message: &str) -> String {
    format!("it refused: {}", shortened(message, MAX_SAID))
}

/// Without the address, which may hold a credential, and without the library's own types.
fn on_the_way(error: &DynamicTransportError) -> String {
    let inner: &(dyn std::error::Error + 'static) = error.error.as_ref();
    let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    if inner.downcast_ref::<io::Error>().is_some_and(broken) {
        return CLOSED.into();
    }
    match inner.downcast_ref::<StreamableHttpError<reqwest::Error>>() {
        Some(StreamableHttpError::Client(error)) => Failure::of(error).to_string(),
        _ => shortened(&inner.to_string(), MAX_SAID).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_message_is_its_text_or_its_json() {
        for (data, line) in [
            (json!("plain"), "plain"),
            (json!({ "msg": "alone", "extra": null }), "alone"),
            (json!({ "msg": "two", "extra": 1 }), r#"{"msg":"two","extra":1}"#),
            (json!({ "other": "x" }), r#"{"other":"x"}"#),
            (json!([1, 2]), "[1,2]"),
        ] {
            let told = text(&data);
            // The order of the members is not told.
            let same = serde_json::from_str::<Value>(&told).ok() == serde_json::from_str::<Value>(line).ok();
            assert!(told == line || (same && line.starts_with('{')), "{told}");
        }
    }

    #[test]
    fn progress_is_a_share_where_the_whole_is_known() {
        let params = |progress, total| {
            let mut params: ProgressNotificationParam =
                serde_json::from_value(json!({ "progressToken": 1, "progress": progress })).expect("valid");
            (params.total, params.message) = (total, Some("half".into()));
            serde_json::from_str::<Value>(&super::progress(&params)).expect("JSON")
        };
        assert_eq!(params(2.0, Some(4.0)), json!({ "progress": 0.5, "message": "half" }));
        assert_eq!(params(0.25, None)["progress"], 0.25);
        assert_eq!(params(0.25, Some(0.0))["progress"], 0.25);
    }
}
