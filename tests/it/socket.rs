//! A WebSocket client that keeps everything that it heard.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

use crate::service::PATIENCE;

/// The library would take 128 KiB for each connection at once, for which the machine under measurement pays.
const BUFFER_BYTES: usize = 4 * 1024;

/// An open connection.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    close: Option<u16>,
}

/// What was heard on one connection, from the first frame to the close.
#[derive(Debug)]
pub struct Talk {
    pub frames: Vec<Value>,
    /// The code of the close frame, if there was one.
    pub close: Option<u16>,
}

impl Socket {
    pub async fn open(address: SocketAddr, path: &str) -> tungstenite::Result<Self> {
        Self::open_with(address, path, &[]).await
    }

    /// With additional headers in the handshake.
    pub async fn open_with(
        address: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> tungstenite::Result<Self> {
        Self::open_over(address, path, headers, None).await
    }

    /// As `open_with`, over TLS where there is a connector.
    pub async fn open_over(
        address: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
        tls: Option<Connector>,
    ) -> tungstenite::Result<Self> {
        let scheme = if tls.is_some() { "wss" } else { "ws" };
        let mut request = format!("{scheme}://{address}{path}").into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse()?);
        }
        let config =
            WebSocketConfig::default().read_buffer_size(BUFFER_BYTES).write_buffer_size(BUFFER_BYTES);
        let connecting = connect_async_tls_with_config(request, Some(config), true, tls);
        let connected = tokio::time::timeout(PATIENCE, connecting).await;
        let (stream, _) = connected.expect("a handshake in time")?;
        Ok(Self { stream, close: None })
    }

    pub async fn send(&mut self, text: &str) {
        self.send_message(Message::text(text)).await;
    }

    /// The service may have refused and closed while this is still being written.
    pub async fn send_message(&mut self, message: Message) {
        let sent = tokio::time::timeout(PATIENCE, self.stream.send(message));
        let _ = sent.await.expect("a message written in time");
    }

    /// The next text frame, or none when the connection is closed.
    pub async fn frame(&mut self) -> Option<Value> {
        let next = tokio::time::timeout(PATIENCE, self.text()).await;
        let text = next.expect("a frame or the close in time")?;
        Some(serde_json::from_str(&text).expect(&text))
    }

    /// Writes several messages in one go.
    pub async fn send_all(&mut self, texts: impl IntoIterator<Item = String>) {
        for text in texts {
            self.stream.feed(Message::text(text)).await.expect("an open connection");
        }
        self.stream.flush().await.expect("an open connection");
    }

    /// The next text frame as it came, or none when the connection is closed.
    pub async fn text(&mut self) -> Option<String> {
        loop {
            match self.stream.next().await?.ok()? {
                Message::Text(text) => return Some(text.as_str().to_owned()),
                Message::Close(frame) => self.close = frame.map(|frame| frame.code.into()),
                _ => {}
            }
        }
    }

    /// All that comes from here on.
    pub async fn rest(mut self) -> Talk {
        let mut frames = Vec::new();
        while let Some(frame) = self.frame().await {
            frames.push(frame);
        }
        Talk { frames, close: self.close }
    }

    /// Writes a message that may be refused before it is whole, and hears what comes meanwhile.
    pub async fn send_and_hear(self, message: Message) -> Talk {
        let (mut writer, mut reader) = self.stream.split();
        let writing = tokio::spawn(async move {
            let _ = writer.send(message).await;
            writer
        });
        let (mut frames, mut close) = (Vec::new(), None);
        while let Some(Ok(message)) =
            tokio::time::timeout(PATIENCE, reader.next()).await.expect("an answer in time")
        {
            match message {
                Message::Text(text) => frames.push(serde_json::from_str(&text).unwrap()),
                Message::Close(frame) => close = frame.map(|frame| frame.code.into()),
                _ => {}
            }
        }
        writing.abort();
        Talk { frames, close }
    }
}

impl Talk {
    /// Opens a connection, sends one text and hears it to the end.
    pub async fn hold(address: SocketAddr, path: &str, text: &str) -> tungstenite::Result<Self> {
        let mut socket = Socket::open(address, path).await?;
        socket.send(text).await;
        Ok(socket.rest().await)
    }

    /// The acceptance's uuid, if the first frame is one.
    pub fn uuid(&self) -> Option<&str> {
        self.frames.first()?.get("uuid")?.as_str()
    }

    /// The last frame, which is the result or the error.
    pub fn last(&self) -> &Value {
        self.frames.last().expect("a final frame")
    }

    /// The output of a talk that went as the seed tells: acceptance, result, close.
    #[track_caller]
    pub fn output(&self) -> &Value {
        let last = self.last();
        assert_eq!(last["success"], true, "{self:?}");
        assert!(self.uuid().is_some(), "{self:?}");
        assert_eq!(self.close, Some(1000), "{self:?}");
        &last["output"]
    }

    /// The sentence and the code of a talk that ended in an error frame and a clean close.
    #[track_caller]
    pub fn error(&self) -> (&str, &str) {
        let last = self.last();
        assert_eq!(last["success"], false, "{self:?}");
        assert_eq!(self.close, Some(1000), "{self:?}");
        let error = last["error"].as_str().expect("a sentence");
        assert!(!error.is_empty(), "{self:?}");
        (error, last["code"].as_str().unwrap_or_default())
    }

    /// As `error`, of a request that was refused before a uuid was given.
    #[track_caller]
    pub fn refusal(&self) -> (&str, &str) {
        assert_eq!(self.frames.len(), 1, "{self:?}");
        self.error()
    }
}

/// Whether a frame ends a one-shot session, by the rule of the seed's clients.
pub fn is_final(frame: &Value) -> bool {
    frame.get("output").is_some() || frame.get("error").is_some()
}
