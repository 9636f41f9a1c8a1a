//! One connection: a request comes in, frames go out, and it is closed. The seed's one-shot lifecycle.
//!
//! The session in the engine decides what the frames say. Should it fail before its last frame, this end tells the
//! client. A client may cancel its execution. One that leaves early leaves its execution running, unless
//! `websocket.on_disconnect` says that it ends; its outcome is not sent anywhere.

use std::net::SocketAddr;
use std::time::Duration;

use actors::error::{Code, Error};
use actors::execution::Client;
use actors::log::Lines;
use actors::session::{self, Frame};
use actors::system::Connection;
use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use uuid::Uuid;

use super::{Edge, frame, handshake};
use crate::config::OnDisconnect;
use crate::envelope::refusal;

/// How long a client may take to take something small.
const WRITE: Duration = Duration::from_secs(30);

/// How fast a client must at least take something large, in bytes a second.
const SLOWEST: u64 = 64 * 1024;

/// How long a client may take to answer a close.
const CLOSE: Duration = Duration::from_secs(2);

/// How much of a request that is too large is read away, so that the client gets to the answer.
const READ_AWAY_BYTES: usize = 256 * 1024 * 1024;

/// Serves one connection to its end.
pub async fn serve(stream: TcpStream, peer: SocketAddr, edge: &Edge) {
    let Some(opened) = handshake::open(stream, edge).await else { return };
    let mut socket = Socket { socket: opened.socket, heard: Instant::now(), is_broken: false };
    let code = match opened.kind {
        None => socket.refuse(&Error::invalid("Invalid path")).await,
        Some(kind) => {
            let client = Client(peer.ip().to_canonical());
            match edge.system.open_session(kind, client, opened.traceparent).await {
                Ok(connection) => one_shot(&mut socket, connection, edge).await,
                Err(error) => socket.refuse(&error).await,
            }
        }
    };
    if let Some(code) = code {
        socket.close(code).await;
    }
}

/// How the connection is to be closed; nothing where the client is gone.
type Close = Option<CloseCode>;

async fn one_shot(socket: &mut Socket, connection: Connection, edge: &Edge) -> Close {
    // A session without a request would wait for ever.
    let mut waiting = Waiting(Some(connection.session.clone()));
    match socket.request(edge).await {
        Request::Text(text) => {
            waiting.0 = None;
            if connection.session.cast(session::Msg::Request(text)).is_err() {
                return socket.refuse(&lost()).await;
            }
            follow(socket, connection, edge).await
        }
        Request::Refused(error, code) => socket.refuse(&error).await.map(|_| code),
        Request::Closing => Some(CloseCode::Away),
        Request::Gone => None,
    }
}

/// A session that has not got its request; it ends with its connection.
struct Waiting(Option<session::Ref>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(session) = &self.0 {
            session.stop(None);
        }
    }
}

/// Writes what the session and the log give, until the last frame.
async fn follow(socket: &mut Socket, mut connection: Connection, edge: &Edge) -> Close {
    let mut accepted: Option<Uuid> = None;
    let mut leaving = Leaving::new(&connection, edge);
    let ping_every = Duration::from_millis(edge.config.ping_interval_ms);
    let idle = Duration::from_millis(edge.config.idle_timeout_ms);
    let mut ping = tokio::time::interval_at(Instant::now() + ping_every, ping_every);
    loop {
        tokio::select! {
            frame = connection.frames.recv() => match frame {
                Some(Frame::Accepted(uuid)) => {
                    accepted = Some(uuid);
                    socket.send(frame::accepted(uuid)).await?;
                }
                Some(Frame::Started(uuid)) => socket.send(frame::started(uuid)).await?,
                Some(Frame::Finished(_, outcome)) => {
                    leaving.is_over = true;
                    socket.log(accepted, connection.log.take()).await?;
                    socket.send(frame::finished(&outcome)).await?;
                    return Some(CloseCode::Normal);
                }
                Some(Frame::Refused(error)) => {
                    leaving.is_over = true;
                    return socket.refuse(&error).await;
                }
                None => return socket.refuse(&lost()).await,
            },
            () = connection.log.written(), if accepted.is_some() => {
                socket.log(accepted, connection.log.take()).await?;
            }
            // A second request on a one-shot connection is not read as one.
            message = socket.next() => match message {
                Some(Ok(Message::Close(_))) => return socket.answer_close().await,
                Some(Ok(Message::Text(text))) if frame::is_cancel(&text, accepted) => leaving.cancel(),
                Some(Ok(_)) => {}
                Some(Err(error)) => return match socket.unreadable(&error, edge.config.message_bytes) {
                    Request::Refused(error, code) => socket.refuse(&error).await.map(|_| code),
                    _ => None,
                },
                None => return None,
            },
            _ = ping.tick() => {
                if socket.heard.elapsed() >= idle {
                    return None;
                }
                socket.ping().await?;
            }
        }
    }
}

/// What becomes of an execution whose client leaves before its end.
struct Leaving {
    session: session::Ref,
    cancels: bool,
    is_over: bool,
}

impl Leaving {
    fn new(connection: &Connection, edge: &Edge) -> Self {
        let cancels = edge.config.on_disconnect == OnDisconnect::Cancel;
        Self { session: connection.session.clone(), cancels, is_over: false }
    }

    fn cancel(&self) {
        // A session that is gone has nothing to cancel.
        drop(self.session.cast(session::Msg::Cancel));
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if self.cancels && !self.is_over {
            self.cancel();
        }
    }
}

/// What a client that was let in sent.
enum Request {
    Text(String),
    Refused(Error, CloseCode),
    Closing,
    Gone,
}

/// The client's end.
struct Socket {
    socket: WebSocketStream<TcpStream>,
    heard: Instant,
    /// The client sent what is no WebSocket message; nothing more can be read as one.
    is_broken: bool,
}

impl Socket {
    /// Waits for the request; pings meanwhile are answered by the library.
    async fn request(&mut self, edge: &Edge) -> Request {
        let mut closing = edge.closing.clone();
        let patience = Duration::from_millis(edge.config.request_timeout_ms);
        let deadline = Instant::now() + patience;
        loop {
            let message = tokio::select! {
                _ = closing.wait_for(|closing| *closing) => return Request::Closing,
                () = tokio::time::sleep_until(deadline) => {
                    let error = format!("no request came within {} ms", patience.as_millis());
                    return Request::Refused(Error::invalid(error), CloseCode::Policy);
                }
                message = self.next() => message,
            };
            match message {
                Some(Ok(Message::Text(text))) => return Request::Text(text.as_str().to_owned()),
                Some(Ok(Message::Binary(_))) => {
                    let error = Error::invalid("the request is a binary message, not a text");
                    return Request::Refused(error, CloseCode::Unsupported);
                }
                Some(Ok(Message::Close(_))) => {
                    self.answer_close().await;
                    return Request::Gone;
                }
                None => return Request::Gone,
                Some(Ok(_)) => {}
                Some(Err(error)) => return self.unreadable(&error, edge.config.message_bytes),
            }
        }
    }

    fn unreadable(&mut self, error: &WsError, max_bytes: usize) -> Request {
        self.is_broken = true;
        match error {
            WsError::Capacity(_) => {
                let error =
                    Error::new(Code::TooLarge, format!("the request is larger than {max_bytes} bytes"));
                Request::Refused(error, CloseCode::Size)
            }
            WsError::Utf8(_) => {
                Request::Refused(Error::invalid("the request is not UTF-8"), CloseCode::Invalid)
            }
            WsError::Protocol(problem) => Request::Refused(
                Error::invalid(format!("not a WebSocket message: {problem}")),
                CloseCode::Protocol,
            ),
            _ => Request::Gone,
        }
    }

    async fn next(&mut self) -> Option<Result<Message, WsError>> {
        let message = self.socket.next().await;
        self.heard = Instant::now();
        message
    }

    /// Writes one frame; nothing where the client does not take it.
    async fn send(&mut self, text: String) -> Option<()> {
        self.write(Message::text(text)).await
    }

    async fn ping(&mut self) -> Option<()> {
        self.write(Message::Ping(Vec::new().into())).await
    }

    async fn write(&mut self, message: Message) -> Option<()> {
        let patience = WRITE + Duration::from_secs(message.len() as u64 / SLOWEST);
        timeout(patience, self.socket.send(message)).await.ok()?.ok()
    }

    /// Writes all lines that wait, in one go.
    async fn log(&mut self, uuid: Option<Uuid>, waiting: Lines) -> Option<()> {
        let dropped = (waiting.dropped > 0).then(|| frame::dropped(uuid, waiting.dropped));
        let frames = dropped.into_iter().chain(waiting.lines.iter().map(|line| frame::log(uuid, line)));
        let all = async {
            for text in frames {
                self.socket.feed(Message::text(text)).await?;
            }
            self.socket.flush().await
        };
        timeout(WRITE, all).await.ok()?.ok()
    }

    /// The client closes: the library has the answer ready, and reading on sends it.
    async fn answer_close(&mut self) -> Close {
        let rest = async { while let Some(Ok(_)) = self.socket.next().await {} };
        // A client that is gone needs no answer.
        let _ = timeout(CLOSE, rest).await;
        None
    }

    /// Writes an error frame.
    async fn refuse(&mut self, error: &Error) -> Close {
        self.send(refusal(error)).await.map(|()| CloseCode::Normal)
    }

    /// Closes, and reads until the client has closed too: a reset could overtake the last frame.
    async fn close(mut self, code: CloseCode) {
        let farewell = CloseFrame { code, reason: "".into() };
        let goodbye = async {
            if self.socket.close(Some(farewell)).await.is_err() || self.is_broken {
                return self.read_away().await;
            }
            while let Some(Ok(_)) = self.socket.next().await {}
        };
        let _ = timeout(CLOSE, goodbye).await;
    }

    async fn read_away(&mut self) {
        let stream = self.socket.get_mut();
        let _ = tokio::io::AsyncWriteExt::shutdown(stream).await;
        let mut buffer = vec![0; 64 * 1024];
        let mut left = READ_AWAY_BYTES;
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            left = left.saturating_sub(read);
            if left == 0 {
                return;
            }
        }
    }
}

fn lost() -> Error {
    Error::unavailable("a part of the service failed while it held this request")
}
