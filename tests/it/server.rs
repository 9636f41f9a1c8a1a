//! A small HTTP server that tests play registries and APIs with: one answer a connection.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What a client asked.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub method: String,
    /// Percent-decoded, without the query.
    pub path: String,
    pub query: String,
    /// Lines as they came, in lower case.
    pub headers: String,
    pub body: String,
}

/// What it is answered.
pub enum Answer {
    Json(u16, Value),
    Text(u16, String),
    /// With headers of its own, one a line.
    With(u16, String, Value),
    /// Status 307 to this place.
    Redirect(String),
    /// Nothing, ever.
    Silence,
}

/// A server that ends with the test.
pub struct Server {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

type Handler = dyn Fn(&Asked) -> Answer + Send + Sync;

impl Server {
    pub async fn start(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::on("127.0.0.1:0", handler).await
    }

    /// At this address.
    pub async fn on(address: &str, handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (handler, log): (Arc<Handler>, _) = (Arc::new(handler), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&handler), Arc::clone(&log)));
            }
        });
        Self { address, asked, task }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All that was asked until now.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, handler: Arc<Handler>, log: Arc<Mutex<Vec<Asked>>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let asked = read(&mut stream).await?;
    log.lock().unwrap().push(asked.clone());
    let (status, headers, body) = match handler(&asked) {
        Answer::Json(status, body) => (status, json_type(), body.to_string()),
        Answer::Text(status, body) => (status, "content-type: text/plain\r\n".to_owned(), body),
        Answer::With(status, headers, body) => (status, json_type() + &headers, body.to_string()),
        Answer::Redirect(to) => (307, format!("location: {to}\r\n"), String::new()),
        Answer::Silence => {
            // Until the client gives up.
            let _ = stream.read_u8().await;
            return None;
        }
    };
    let head = format!(
        "HTTP/1.1 {status} Said\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(body.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut asked = Asked::default();
    let mut first = String::new();
    stream.read_line(&mut first).await.ok()?;
    let mut words = first.split_whitespace();
    asked.method = words.next()?.to_owned();
    let (path, query) = words.next().map(|w| w.split_once('?').unwrap_or((w, "")))?;
    (asked.path, asked.query) = (decoded(path), query.to_owned());
    while !asked.headers.ends_with("\r\n\r\n") && asked.headers != "\r\n" {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        asked.headers.push_str(&line.to_lowercase());
    }
    let mut body = vec![0; content_length(&asked.headers)];
    stream.read_exact(&mut body).await.ok()?;
    asked.body = String::from_utf8(body).ok()?;
    Some(asked)
}

fn content_length(headers: &str) -> usize {
    let value = |line: &str| line.strip_prefix("content-length:")?.trim().parse().ok();
    headers.lines().find_map(value).unwrap_or(0)
}

fn json_type() -> String {
    "content-type: application/json\r\n".to_owned()
}

/// Undoes percent-encoding; `+` is a space, as in queries.
pub fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let hex = after
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        (bytes, rest) = match (byte, hex) {
            (b'%', Some(hex)) => ([bytes, vec![hex]].concat(), &after[2..]),
            (b'+', _) => ([bytes, vec![b' ']].concat(), after),
            _ => ([bytes, vec![*byte]].concat(), after),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
