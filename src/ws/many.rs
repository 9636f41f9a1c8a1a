//! A connection for many executions: requests come in, each with a name of the client's own, and frames that bear it go
//! out as they come.
//!
//! So many requests may be open at the same time; while there are more, nothing is read, and the client feels it. Nor is
//! anything read while a frame waits to be taken: a client that does not read is given up after a while.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use actors::log::LogRing;
use actors::session::{self, Frame, News};
use actors::system::Connection;
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use uuid::Uuid;

use super::connection::lost;
use super::socket::{Close, Socket, binary};
use super::{Edge, frame};
use crate::config::OnDisconnect;

/// How many frames are written in one go, and about how many bytes of them.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 64 * 1024;

/// How long a client that is given up may still be told what it asked for before.
const PARTING: Duration = Duration::from_millis(500);

/// What a client sent; nothing where it is gone.
type Received = Option<Result<Message, WsError>>;

/// Serves it to its end.
pub async fn serve(socket: &mut Socket, connection: Connection, edge: &Edge) -> Close {
    let cancels = edge.config.on_disconnect == OnDisconnect::Cancel;
    let _leaving = Leaving { session: connection.session.clone(), cancels };
    Many { connection, open: 0, logs: HashMap::new() }.serve(socket, edge).await
}

async fn closed(closing: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and the service with it.
    drop(closing.wait_for(|closing| *closing).await);
}

/// The session learns that its client is gone, however that came.
struct Leaving {
    session: session::Ref,
    cancels: bool,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        // One that is gone knows.
        drop(self.session.cast(session::Msg::Leave(self.cancels)));
    }
}

struct Many {
    connection: Connection,
    /// How many requests have no last frame yet.
    open: usize,
    logs: HashMap<Uuid, (Option<Arc<str>>, Arc<LogRing>)>,
}

impl Many {
    async fn serve(&mut self, socket: &mut Socket, edge: &Edge) -> Close {
        let ping_every = Duration::from_millis(edge.config.ping_interval_ms);
        let idle = Duration::from_millis(edge.config.idle_timeout_ms);
        let mut ping = tokio::time::interval_at(Instant::now() + ping_every, ping_every);
        let mut closing = edge.closing.clone();
        let mut is_closing = false;
        let mut frames = Vec::new();
        // One timer that is put off when it goes, not one for each message.
        let mut silence = pin!(tokio::time::sleep_until(socket.heard + idle));
        loop {
            if is_closing && self.open == 0 {
                return Some(CloseCode::Away);
            }
            if self.open >= edge.config.window {
                // Nothing is read, so nothing can be heard.
                socket.heard = Instant::now();
            }
            tokio::select! {
                received = self.connection.frames.recv_many(&mut frames, BATCH) => {
                    if received == 0 {
                        return socket.refuse(&lost()).await;
                    }
                    self.write(socket, &mut frames).await?;
                }
                () = self.connection.log.written() => self.log(socket).await?,
                message = socket.next(), if self.open < edge.config.window => {
                    let (requests, other) = self.read(socket, message, edge.config.window);
                    if !requests.is_empty() {
                        let requests = session::Msg::Requests(requests);
                        if self.connection.session.cast(requests).is_err() {
                            return socket.refuse(&lost()).await;
                        }
                    }
                    match other {
                        Some(Some(Ok(Message::Binary(_)))) => {
                            self.part(socket).await?;
                            return socket.refuse(&binary()).await.map(|_| CloseCode::Unsupported);
                        }
                        Some(Some(Ok(Message::Close(_)))) => return socket.answer_close().await,
                        Some(Some(Err(error))) => {
                            self.part(socket).await?;
                            return socket.refuse_unreadable(&error, edge.config.message_bytes).await;
                        }
                        Some(None) => return None,
                        Some(Some(Ok(_))) | None => {}
                    }
                }
                () = &mut silence => {
                    let silent_at = socket.heard + idle;
                    if silent_at <= Instant::now() {
                        return None;
                    }
                    silence.as_mut().reset(silent_at);
                }
                _ = ping.tick() => socket.ping().await?,
                () = closed(&mut closing), if !is_closing => is_closing = true,
            }
        }
    }

    /// Before a connection is given up for what its client sent: tells what comes of the requests before that within a moment,
    /// their uuids above all.
    async fn part(&mut self, socket: &mut Socket) -> Option<()> {
        let mut frames = Vec::new();
        let until = Instant::now() + PARTING;
        while self.open > 0
            && let Ok(received) =
                tokio::time::timeout_at(until, self.connection.frames.recv_many(&mut frames, BATCH)).await
            && received > 0
        {
            self.write(socket, &mut frames).await?;
        }
        Some(())
    }

    /// Takes the requests that came together, up to the window, and what came after them that is none.
    fn read(
        &mut self,
        socket: &mut Socket,
        first: Received,
        window: usize,
    ) -> (Vec<String>, Option<Received>) {
        let (mut requests, mut received) = (Vec::new(), Some(first));
        while let Some(message) = received {
            match message {
                Some(Ok(Message::Text(text))) => {
                    requests.push(text.as_str().to_owned());
                    self.open += 1;
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                other => return (requests, Some(other)),
            }
            received = if self.open < window { socket.next().now_or_never() } else { None };
        }
        (requests, None)
    }

    /// Writes what came from the session, in one go.
    #[expect(
        clippy::vec_box,
        reason = "a channel makes room for 32 frames at once, and gives them as they are in it"
    )]
    async fn write(&mut self, socket: &mut Socket, frames: &mut Vec<Box<Frame>>) -> Option<()> {
        let (mut texts, mut bytes) = (Vec::with_capacity(frames.len()), 0);
        for frame in frames.drain(..) {
            let Frame { id, uuid, news } = *frame;
            bytes += news.bytes();
            if news.is_last() {
                self.open = self.open.saturating_sub(1);
                if let Some((id, log)) = uuid.and_then(|uuid| self.logs.remove(&uuid)) {
                    texts.extend(frame::lines(id.as_deref(), uuid, &log.take()));
                }
            }
            if let (News::Accepted { log: Some(log), .. }, Some(uuid)) = (&news, uuid) {
                self.logs.insert(uuid, (id.clone(), log.clone()));
            }
            texts.push(frame::one_of_many(id.as_deref(), uuid, &news));
            if bytes > BATCH_BYTES {
                socket.send_all(std::mem::take(&mut texts)).await?;
                self.connection.backlog.taken(std::mem::take(&mut bytes));
            }
        }
        socket.send_all(texts).await?;
        self.connection.backlog.taken(bytes);
        Some(())
    }

    /// Writes all log lines that wait, in one go.
    async fn log(&mut self, socket: &mut Socket) -> Option<()> {
        let texts = self
            .logs
            .iter()
            .flat_map(|(uuid, (id, log))| frame::lines(id.as_deref(), Some(*uuid), &log.take()));
        let texts: Vec<String> = texts.collect();
        socket.send_all(texts).await
    }
}
