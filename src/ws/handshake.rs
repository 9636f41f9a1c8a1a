//! The opening handshake: who may come in, for which path, with which buffers.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use actors::access::Scope;
use actors::audit::{self, Action};
use actors::definition::Kind;
use actors::error::{Error, Result};
use actors::execution::trace_context;
use actors::session::Door;
use actors::system::Acting;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, error::ProtocolError};

use super::Edge;
use super::wire::Wire;
use crate::credentials::{self, SUBPROTOCOL};
use crate::envelope::{headers, refusal, status};
use crate::tls::Stream;

/// The library would take 128 KiB for each connection at once, and let the write buffer grow without end. What is read at a time
/// is kept for as long as the connection stays.
const READ_BUFFER_BYTES: usize = 2 * 1024;
const BUFFER_BYTES: usize = 4 * 1024;

/// What may wait in it to be written to a client that reads slowly; large frames go past it.
const WRITE_BUFFER_BYTES: usize = 64 * 1024;

/// How much is read of a client that speaks something else, until it leaves.
const LAST_BYTES: u64 = 64 * 1024;

const JSON: &str = "application/json; charset=utf-8";

/// A connection that came in, and what its path asks for; nothing where there is no such path.
pub struct Opened {
    /// The connection.
    pub socket: WebSocketStream<Wire>,
    /// What it is for.
    pub door: Option<Door>,
    /// On whose behalf.
    pub acting: Acting,
    /// The client's trace context, where it is one (W3C Trace Context, `traceparent`).
    pub traceparent: Option<String>,
}

/// Answers the handshake of a client at this address. One that is too slow, or speaks no WebSocket, is gone.
pub async fn open(stream: Stream, address: IpAddr, edge: &Edge) -> Option<Opened> {
    let (mut door, mut traceparent, mut acting) = (None, None, None);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(Some(edge.config.message_bytes))
        .max_frame_size(Some(edge.config.message_bytes));
    #[expect(clippy::result_large_err, reason = "the library's callback has this type")]
    let check = |request: &Request, mut response: Response| {
        door = match request.uri().path() {
            "/tool" => Some(Door::Once(Kind::Tool)),
            "/function" => Some(Door::Once(Kind::Function)),
            "/session" => Some(Door::Many),
            _ => None,
        };
        let given = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
        traceparent = given.and_then(trace_context);
        match admitted(request, address, edge) {
            Ok(admitted) => acting = Some(admitted),
            Err(error) => return Err(refused(&error)),
        }
        if credentials::names_subprotocol(request.headers()) {
            let chosen = HeaderValue::from_static(SUBPROTOCOL);
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, chosen);
        }
        Ok(response)
    };
    let mut wire = Wire::new(stream);
    let accept = async {
        let accepted =
            tokio_tungstenite::accept_hdr_async_with_config(&mut wire, check, Some(config)).await.map(drop);
        if let Err(tungstenite::Error::Protocol(problem)) = &accepted {
            turn_away(&mut wire, problem).await?;
        }
        accepted
    };
    match tokio::time::timeout(Duration::from_millis(edge.config.handshake_timeout_ms), accept).await {
        Ok(Ok(())) => {
            // The library takes a request that something follows for none: nothing that was read is lost.
            let socket = WebSocketStream::from_raw_socket(wire, Role::Server, Some(config)).await;
            // Nobody gets so far without having been let in.
            acting.map(|acting| Opened { socket, door, acting, traceparent })
        }
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

/// Tells a client that speaks something else what this port speaks.
async fn turn_away(wire: &mut Wire, problem: &ProtocolError) -> io::Result<()> {
    let (status, upgrade) = match problem {
        ProtocolError::HandshakeIncomplete => return Ok(()),
        ProtocolError::HttparseError(_) | ProtocolError::JunkAfterRequest => (StatusCode::BAD_REQUEST, ""),
        _ => (StatusCode::UPGRADE_REQUIRED, "upgrade: websocket\r\n"),
    };
    let message = format!(
        "this port speaks WebSocket, at /tool, /function and /session; REST has a port of its own ({problem})"
    );
    let body = refusal(&Error::invalid(message));
    let head = format!(
        "HTTP/1.1 {status}\r\n{upgrade}connection: {}close\r\ncontent-type: {JSON}\r\ncontent-length: {}\r\n\r\n",
        if upgrade.is_empty() { "" } else { "upgrade, " },
        body.len()
    );
    wire.write_all(format!("{head}{body}").as_bytes()).await?;
    wire.shutdown().await?;
    // What nobody reads would make the end a reset, which takes the answer with it.
    tokio::io::copy(&mut wire.take(LAST_BYTES), &mut tokio::io::sink()).await.map(drop)
}

/// On whose behalf a connection is made, where the doors let it in and the principal may run something.
fn admitted(request: &Request, address: IpAddr, edge: &Edge) -> Result<Acting> {
    let way = audit::Door::Websocket;
    let doors = edge.doors.check_headers(request.headers(), None);
    doors.inspect_err(|error| edge.system.record_shut(address, way, error))?;
    let acting = edge.system.acting_for(credentials::of_handshake(request.headers()), address, way)?;
    acting.may(Action::Enter, way.name(), &[Scope::Execute])?;
    acting.count_request()?;
    Ok(acting)
}

fn refused(error: &Error) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(refusal(error)));
    *response.status_mut() = status(error.code());
    response.headers_mut().extend(headers(error));
    let json = HeaderValue::from_static(JSON);
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
