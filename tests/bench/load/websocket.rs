//! WebSocket clients: one-shot sessions, and connections that stay.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::process::PATIENCE;

/// The library would take 128 KiB for each connection at once.
const BUFFER_BYTES: usize = 4 * 1024;

/// How many connections are opened at a time.
const OPENED: usize = 64;

/// In how many bytes a frame tells what it is.
const HEAD: usize = 160;

pub type Socket = WebSocketStream<TcpStream>;

pub fn config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(BUFFER_BYTES).write_buffer_size(BUFFER_BYTES)
}

pub async fn open(address: SocketAddr, path: &str) -> Result<Socket> {
    let opening = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let url = format!("ws://{address}{path}");
        anyhow::Ok(tokio_tungstenite::client_async_with_config(url, stream, Some(config())).await?.0)
    };
    tokio::time::timeout(PATIENCE, opening).await.context("no handshake in time")?
}

/// Connects, sends one text, hears it to the close. One of the frames has to be the output.
pub async fn one_shot(address: SocketAddr, path: &str, text: &str) -> Result<()> {
    let mut socket = open(address, path).await?;
    socket.send(Message::text(text)).await?;
    let mut has_output = false;
    let hearing = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Text(text) = message {
                has_output |= is_output(&text)?;
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, hearing).await.context("no outcome in time")??;
    ensure!(has_output, "a session ended without an outcome");
    Ok(())
}

/// Whether a frame has the output; an error is one here too.
pub fn is_output(text: &str) -> Result<bool> {
    let head = &text.as_bytes()[..text.len().min(HEAD)];
    let has = |part: &[u8]| head.windows(part.len()).any(|window| window == part);
    ensure!(!has(br#""success":false"#), "{text:.300}");
    Ok(has(br#""output":"#))
}

/// So many connections that ask for nothing.
pub async fn idle(address: SocketAddr, path: &'static str, count: usize) -> Result<Vec<Socket>> {
    let mut sockets = Vec::with_capacity(count);
    while sockets.len() < count {
        let mut tasks = JoinSet::new();
        for _ in sockets.len()..count.min(sockets.len() + OPENED) {
            tasks.spawn(open(address, path));
        }
        sockets.extend(super::all(tasks).await?);
    }
    Ok(sockets)
}
