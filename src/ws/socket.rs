//! The client's end of one connection: what it sends, what is written to it, how it is closed. All with deadlines.

use std::sync::Arc;
use std::time::Duration;

use actors::error::{Code, Error};
use actors::log::Lines;
use actors::session::Backlog;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use uuid::Uuid;

use super::wire::{Taken, Wire};
use super::{Edge, frame};
use crate::envelope::refusal;

/// How long a client may take to take something small.
const WRITE: Duration = Duration::from_secs(30);

/// How large a frame may be that goes through the library's buffer.
pub const BUFFERED: usize = 4 * 1024;

/// How often it is looked at whether a client takes anything, and how long it may take nothing where no session says so.
const LOOK: Duration = Duration::from_millis(100);
const STILL: Duration = Duration::from_secs(10);

/// How fast a client must at least take something large, in bytes a second.
const SLOWEST: u64 = 64 * 1024;

/// How long a client may take to answer a close.
const CLOSE: Duration = Duration::from_secs(2);

/// How much of a request that is too large is read away, so that the client gets to the answer.
const READ_AWAY_BYTES: usize = 256 * 1024 * 1024;

/// How a connection is to be closed; nothing where the client is gone.
pub type Close = Option<CloseCode>;

/// What a client that was let in sent.
pub enum Request {
    Text(String),
    Refused(Error, CloseCode),
    Closing,
    Gone,
}

/// The client's end.
pub struct Socket {
    socket: WebSocketStream<Wire>,
    taken: Taken,
    /// What waits for this client, once it has a session.
    pub backlog: Option<Arc<Backlog>>,
    /// When the client last sent anything.
    pub heard: Instant,
    /// The client sent what is no WebSocket message; nothing more can be read as one.
    is_broken: bool,
}

impl Socket {
    /// Of a connection that came in.
    pub fn new(socket: WebSocketStream<Wire>) -> Self {
        Self {
            taken: socket.get_ref().taken(),
            socket,
            backlog: None,
            heard: Instant::now(),
            is_broken: false,
        }
    }

    /// Waits for the request; pings meanwhile are answered by the library.
    pub async fn request(&mut self, edge: &Edge) -> Request {
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
                    return Request::Refused(binary(), CloseCode::Unsupported);
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

    pub async fn next(&mut self) -> Option<Result<Message, WsError>> {
        let message = self.socket.next().await;
        self.heard = Instant::now();
        message
    }

    /// Writes one frame; nothing where the client does not take it.
    pub async fn send(&mut self, text: String) -> Option<()> {
        self.send_all(vec![text]).await
    }

    /// Takes a frame that goes out with what is written next.
    pub async fn put(&mut self, text: String) -> Option<()> {
        patiently(&self.taken, self.backlog.as_deref(), WRITE, put(&mut self.socket, text)).await
    }

    pub async fn ping(&mut self) -> Option<()> {
        let ping = self.socket.send(Message::Ping(Vec::new().into()));
        patiently(&self.taken, self.backlog.as_deref(), WRITE, ping).await
    }

    /// Writes frames in one go.
    pub async fn send_all(&mut self, frames: Vec<String>) -> Option<()> {
        let bytes: usize = frames.iter().map(String::len).sum();
        let most = WRITE + Duration::from_secs(bytes as u64 / SLOWEST);
        let all = async {
            for text in frames {
                put(&mut self.socket, text).await?;
            }
            self.socket.flush().await
        };
        patiently(&self.taken, self.backlog.as_deref(), most, all).await
    }

    /// Writes all lines that wait, in one go.
    pub async fn log(&mut self, uuid: Option<Uuid>, waiting: Lines) -> Option<()> {
        self.send_all(frame::lines(None, uuid, &waiting)).await
    }

    /// The client closes: the library has the answer ready, and reading on sends it.
    pub async fn answer_close(&mut self) -> Close {
        let rest = async { while let Some(Ok(_)) = self.socket.next().await {} };
        // A client that is gone needs no answer.
        let _ = timeout(CLOSE, rest).await;
        None
    }

    /// Tells why a message could not be read, where the client is still there.
    pub async fn refuse_unreadable(&mut self, error: &WsError, max_bytes: usize) -> Close {
        match self.unreadable(error, max_bytes) {
            Request::Refused(error, code) => self.refuse(&error).await.map(|_| code),
            _ => None,
        }
    }

    /// Writes an error frame.
    pub async fn refuse(&mut self, error: &Error) -> Close {
        self.send(refusal(error)).await.map(|()| CloseCode::Normal)
    }

    /// Closes, and reads until the client has closed too: a reset could overtake the last frame.
    pub async fn close(mut self, code: CloseCode) {
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
        let _ = stream.shutdown().await;
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

/// Writes a frame. A large one goes past the library's buffer, which would keep its room for as long as the connection
/// stays.
async fn put(socket: &mut WebSocketStream<Wire>, text: String) -> Result<(), WsError> {
    if text.len() <= BUFFERED {
        return socket.feed(Message::text(text)).await;
    }
    socket.flush().await?;
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    let mut head = Vec::new();
    header.format(text.len() as u64, &mut head)?;
    let wire = socket.get_mut();
    wire.write_all(&head).await?;
    Ok(wire.write_all(text.as_bytes()).await?)
}

/// Writes for as long as the client takes something now and then; the less room there is for what waits for clients, the
/// sooner. One that gets no more is left at once.
async fn patiently(
    taken: &Taken,
    backlog: Option<&Backlog>,
    most: Duration,
    write: impl Future<Output = Result<(), WsError>>,
) -> Option<()> {
    let mut write = std::pin::pin!(write);
    let begun = Instant::now();
    let (mut bytes, mut since) = (taken.bytes(), begun);
    loop {
        let given_up = async {
            match backlog {
                Some(backlog) => backlog.given_up().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            written = &mut write => return written.ok(),
            () = given_up => return None,
            () = tokio::time::sleep(LOOK) => {}
        }
        let (now, patience) = (Instant::now(), backlog.map_or(STILL, Backlog::patience));
        if taken.bytes() != bytes {
            (bytes, since) = (taken.bytes(), now);
        }
        if now - since >= patience || now - begun >= most {
            tracing::debug!("a client does not read what is written to it, and is given up");
            return None;
        }
    }
}

/// What a client is told whose message is no text.
pub fn binary() -> Error {
    Error::invalid("the request is a binary message, not a text")
}
