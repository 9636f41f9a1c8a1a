//! The opening handshake: who may come in, for which path, with which buffers.

use std::time::Duration;

use actors::definition::Kind;
use actors::execution::trace_context;
use actors::session::Door;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::Edge;
use super::wire::Wire;
use crate::envelope::refusal;

/// The library would take 128 KiB for each connection at once, and let the write buffer grow without end.
const BUFFER_BYTES: usize = 4 * 1024;

/// What may wait in it to be written to a client that reads slowly; large frames go past it.
const WRITE_BUFFER_BYTES: usize = 64 * 1024;

/// A connection that came in, and what its path asks for; nothing where there is no such path.
pub struct Opened {
    /// The connection.
    pub socket: WebSocketStream<Wire>,
    /// What it is for.
    pub door: Option<Door>,
    /// The client's trace context, where it is one (W3C Trace Context, `traceparent`).
    pub traceparent: Option<String>,
}

/// Answers the handshake. A client that is too slow, or speaks no WebSocket, is gone.
pub async fn open(stream: TcpStream, edge: &Edge) -> Option<Opened> {
    let (mut door, mut traceparent) = (None, None);
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(Some(edge.config.message_bytes))
        .max_frame_size(Some(edge.config.message_bytes));
    #[expect(clippy::result_large_err, reason = "the library's callback has this type")]
    let check = |request: &Request, response: Response| {
        door = match request.uri().path() {
            "/tool" => Some(Door::Once(Kind::Tool)),
            "/function" => Some(Door::Once(Kind::Function)),
            "/session" => Some(Door::Many),
            _ => None,
        };
        let given = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
        traceparent = given.and_then(trace_context);
        let text = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
        edge.doors
            .check(text(header::HOST), text(header::ORIGIN))
            .map(|()| response)
            .map_err(|error| refused(&error))
    };
    let accept = tokio_tungstenite::accept_hdr_async_with_config(Wire::new(stream), check, Some(config));
    match tokio::time::timeout(Duration::from_millis(edge.config.handshake_timeout_ms), accept).await {
        Ok(Ok(socket)) => Some(Opened { socket, door, traceparent }),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("a handshake took too long");
            None
        }
    }
}

fn refused(error: &actors::error::Error) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(refusal(error)));
    *response.status_mut() = StatusCode::FORBIDDEN;
    let json =
        tokio_tungstenite::tungstenite::http::HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
