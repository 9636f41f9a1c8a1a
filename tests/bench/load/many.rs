//! Many requests on one connection.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use super::websocket::{self, Socket};
use super::{Took, closed_loop};
use crate::process::PATIENCE;

/// Keeps `open` requests open for a turn, on a connection of its own: how many ended in a second.
pub async fn rate(address: SocketAddr, text: &str, open: usize, turn: Duration) -> Result<f64> {
    let mut socket = websocket::open(address, "/session").await?;
    let start = Instant::now();
    let done = carry(&mut socket, text, open, |_| start.elapsed() < turn).await?;
    Ok(done as f64 / start.elapsed().as_secs_f64())
}

/// Has so many requests carried out.
pub async fn finish(address: SocketAddr, text: &str, count: usize) -> Result<()> {
    let mut socket = websocket::open(address, "/session").await?;
    carry(&mut socket, text, 256.min(count), |sent| sent < count).await?;
    Ok(())
}

/// One request after the other for a turn: how long each took. There is one at least.
pub async fn one_by_one(address: SocketAddr, text: &str, turn: Duration) -> Result<Took> {
    let mut socket = websocket::open(address, "/session").await?;
    let call = async || carry(&mut socket, text, 1, |_| false).await.map(drop);
    closed_loop(turn, call).await
}

/// Keeps `open` requests open for as long as `more` says, which is told how many were sent: how many ended.
async fn carry(socket: &mut Socket, text: &str, open: usize, more: impl Fn(usize) -> bool) -> Result<usize> {
    let message = Message::text(text);
    let (mut sent, mut done) = (0, 0);
    while sent < open {
        socket.feed(message.clone()).await?;
        sent += 1;
    }
    socket.flush().await?;
    while done < sent {
        let ended = ended(socket).await?;
        done += ended;
        for _ in 0..ended {
            if more(sent) {
                socket.feed(message.clone()).await?;
                sent += 1;
            }
        }
        socket.flush().await?;
    }
    Ok(done)
}

/// Waits for frames, and takes all that have come: how many of them are outcomes.
async fn ended(socket: &mut Socket) -> Result<usize> {
    let mut next = tokio::time::timeout(PATIENCE, socket.next()).await.context("no frame in time")?;
    let mut ended = 0;
    loop {
        if let Message::Text(text) = next.context("the connection was closed")?? {
            ended += usize::from(websocket::is_output(&text)?);
        }
        match socket.next().now_or_never() {
            Some(further) => next = further,
            None => return Ok(ended),
        }
    }
}
