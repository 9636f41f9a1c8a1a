//! HTTP/1.1 over connections that stay: a request is bytes that are ready, an answer is read by its length.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::process::PATIENCE;

/// An open connection, and what was read of it.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 * 1024) })
    }

    /// Sends a request: the status and the body of its answer.
    pub async fn call(&mut self, request: &[u8]) -> Result<(u16, &[u8])> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let head = loop {
            self.read().await?;
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = std::str::from_utf8(&self.buffer[..head])?;
        let status = text.split(' ').nth(1).context("no status")?.parse()?;
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
        });
        let Some(length) = length else { bail!("an answer without a length: {text}") };
        let end = head + length?;
        while self.buffer.len() < end {
            self.read().await?;
        }
        Ok((status, &self.buffer[head..end]))
    }

    async fn read(&mut self) -> Result<()> {
        let reading = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.buffer));
        ensure!(reading.await.context("no answer in time")?? > 0, "the connection was closed");
        Ok(())
    }
}

/// A request with nothing in its header that need not be there.
pub fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let content = match body {
        "" => String::new(),
        body => format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()),
    };
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{content}\r\n{body}").into_bytes()
}

/// Repeats requests on so many connections for a turn: how many were answered in a second. All have to succeed.
pub async fn rate(
    address: SocketAddr,
    connections: usize,
    turn: Duration,
    next: impl Fn() -> Arc<[u8]> + Send + Sync + 'static,
) -> Result<f64> {
    let (next, mut opened) = (Arc::new(next), Vec::new());
    for _ in 0..connections {
        opened.push(Connection::open(address).await?);
    }
    let (mut tasks, start) = (JoinSet::new(), Instant::now());
    for mut connection in opened {
        let next = next.clone();
        tasks.spawn(async move {
            let mut done = 0_u64;
            while start.elapsed() < turn {
                let (status, body) = connection.call(&next()).await?;
                ensure!((200..300).contains(&status), "{status}: {:.300}", String::from_utf8_lossy(body));
                done += 1;
            }
            Ok(done)
        });
    }
    let done: u64 = super::all(tasks).await?.iter().sum();
    Ok(done as f64 / start.elapsed().as_secs_f64())
}
