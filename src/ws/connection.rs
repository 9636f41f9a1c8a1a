//! One connection: a request comes in, frames go out, and it is closed. The seed's one-shot lifecycle.
//!
//! The session in the engine decides what the frames say. Should it fail before its last frame, this end tells the
//! client. A client may cancel its execution. One that leaves early leaves its execution running, unless
//! `websocket.on_disconnect` says that it ends; its outcome is not sent anywhere.

use std::net::SocketAddr;
use std::time::Duration;

use actors::error::{Code, Error};
use actors::session::{self, Door, Frame, News};
use actors::system::{Acting, Connection};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use uuid::Uuid;

use super::socket::{BUFFERED, Close, Request, Socket};
use super::{Edge, frame, handshake, many};
use crate::config::OnDisconnect;
use crate::tls::Stream;

/// How long a client at a wrong path may take to send what it would have asked for.
const FIRST: Duration = Duration::from_millis(500);

/// Serves one connection to its end, which comes at once when its principal may do nothing any more.
pub async fn serve(stream: Stream, peer: SocketAddr, edge: &Edge) {
    let Some(opened) = handshake::open(stream, peer.ip(), edge).await else { return };
    let (acting, mut socket) = (opened.acting, Socket::new(opened.socket));
    let code = match opened.door {
        None => {
            // A client that sends its request first finds the connection closed if it was not waited for, and not why.
            drop(tokio::time::timeout(FIRST, socket.next()).await);
            socket.refuse(&Error::invalid("Invalid path")).await
        }
        Some(door) => tokio::select! {
            code = session(&mut socket, door, &acting, opened.traceparent, edge) => code,
            () = acting.ended() => {
                let ended = Error::new(Code::Unauthorized, "the key of this connection is not good any more");
                socket.refuse(&ended).await.map(|_| CloseCode::Policy)
            }
        },
    };
    if let Some(code) = code {
        socket.close(code).await;
    }
}

async fn session(
    socket: &mut Socket,
    door: Door,
    acting: &Acting,
    traceparent: Option<String>,
    edge: &Edge,
) -> Close {
    let window = if door == Door::Many { edge.config.window } else { 1 };
    match acting.open_session(door, traceparent, window).await {
        Ok(connection) => {
            socket.backlog = Some(connection.backlog.clone());
            match door {
                Door::Many => many::serve(socket, connection, edge).await,
                Door::Once(_) => one_shot(socket, connection, edge).await,
            }
        }
        Err(error) => socket.refuse(&error).await,
    }
}

async fn one_shot(socket: &mut Socket, connection: Connection, edge: &Edge) -> Close {
    // A session without a request would wait for ever.
    let mut waiting = Waiting(Some(connection.session.clone()));
    match socket.request(edge).await {
        Request::Text(text) => {
            waiting.0 = None;
            if connection.session.cast(session::Msg::Requests(vec![text])).is_err() {
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
    let (mut next, mut has_logged) = (None, false);
    let (mut has_ignored, mut has_told) = (false, false);
    loop {
        let silent_at = socket.heard + idle;
        tokio::select! {
            frame = next_of(&mut next, &mut connection.frames) => match frame {
                Some(frame) => match frame.news {
                    News::Accepted { warning, .. } => {
                        accepted = frame.uuid;
                        let text = frame::accepted(accepted.unwrap_or_default(), warning.as_deref());
                        // What has ended already is told in one go with it.
                        next = connection.frames.try_recv().ok();
                        if next.is_some() { socket.put(text).await? } else { socket.send(text).await? }
                    }
                    News::Started => socket.send(frame::started(accepted.unwrap_or_default())).await?,
                    News::Finished(outcome) => {
                        leaving.is_over = true;
                        let log = connection.log.take();
                        if !log.is_empty() {
                            has_logged = true;
                            socket.log(accepted, log).await?;
                        }
                        let text = frame::finished(&outcome);
                        // The close that follows takes it along where the client surely has room for it.
                        if has_logged || text.len() > BUFFERED {
                            socket.send(text).await?;
                        } else {
                            socket.put(text).await?;
                        }
                        return Some(CloseCode::Normal);
                    }
                    News::Refused(error) => {
                        leaving.is_over = true;
                        return socket.refuse(&error).await;
                    }
                    // It is on record: whoever asks for it later gets its outcome.
                    News::Postponed | News::Cancelling => {
                        leaving.is_over = true;
                        return Some(CloseCode::Away);
                    }
                },
                None if accepted.is_some() => return socket.refuse(&left_alone()).await,
                None => return socket.refuse(&lost()).await,
            },
            () = connection.log.written(), if accepted.is_some() => {
                has_logged = true;
                socket.log(accepted, connection.log.take()).await?;
            }
            () = std::future::ready(()), if has_ignored && !has_told && accepted.is_some() => {
                has_told = true;
                socket.send(frame::ignored()).await?;
            }
            // A second request on a one-shot connection is not read as one.
            message = socket.next() => match message {
                Some(Ok(Message::Close(_))) => return socket.answer_close().await,
                Some(Ok(Message::Text(text))) if frame::is_cancel(&text, accepted) => leaving.cancel(),
                Some(Ok(Message::Text(_) | Message::Binary(_))) => has_ignored = true,
                Some(Ok(_)) => {}
                Some(Err(error)) => return socket.refuse_unreadable(&error, edge.config.message_bytes).await,
                None => return None,
            },
            () = tokio::time::sleep_until(silent_at) => return None,
            _ = ping.tick() => socket.ping().await?,
        }
    }
}

/// The frame that was taken out already, or the next; may be dropped and called again.
async fn next_of(
    taken: &mut Option<Box<Frame>>,
    frames: &mut mpsc::Receiver<Box<Frame>>,
) -> Option<Box<Frame>> {
    match taken.take() {
        Some(frame) => Some(frame),
        None => frames.recv().await,
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
            // A session that is gone has nothing to leave.
            drop(self.session.cast(session::Msg::Leave(true)));
        }
    }
}

/// What a client is told whose session failed after its execution was accepted.
fn left_alone() -> Error {
    Error::unavailable(
        "a part of the service failed while it followed this execution, which goes on; its uuid tells its outcome",
    )
}

/// What a client is told of a session that failed.
pub fn lost() -> Error {
    Error::unavailable("a part of the service failed while it held this request")
}
