//! Bad requests, over 500 of them: each gets a clear refusal, and none is more than that.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::bad_cases::{Request, frames, rest};
use crate::bad_tables::{FOREIGN_ORIGINS, WRONG_PATHS};
use crate::program::tool;
use crate::service::{PATIENCE, Service, request};
use crate::socket::{Socket, Talk};

/// A secret that must not be logged.
const CANARY: &str = "canary-8f2b71c0";
const HUGE: usize = 100 << 20;

/// The slowest of many.
struct Slowest {
    count: usize,
    took: Duration,
    name: String,
}

impl Slowest {
    fn new() -> Self {
        Self { count: 0, took: Duration::ZERO, name: String::new() }
    }

    fn note(&mut self, start: Instant, name: &str) {
        self.count += 1;
        if start.elapsed() > self.took {
            self.took = start.elapsed();
            self.name = name.chars().take(120).collect();
        }
    }

    fn print(&self, what: &str) {
        let Self { count, took, name } = self;
        println!("{count} {what}, the slowest {took:?}: {name}");
    }
}

async fn assert_works(service: &Service) {
    let input = json!({ "value": 5 });
    let talk = service.run("tool", "binary-increment-tool", input).await;
    assert_eq!(*talk.output(), json!({ "result": 6 }));
    let (status, tool) = service.rest("GET", "/tool/binary-increment-tool", "").await;
    assert_eq!(status, 200);
    assert_eq!(tool["data"]["tool_id"], "binary-increment-tool");
    let (status, _) = service.rest("GET", "/tool/refused", "").await;
    assert_eq!(status, 404, "a bad definition was stored");
}

/// The envelope of a refusal: one sentence and a code, nothing of the inside.
fn assert_envelope(name: &str, status: u16, text: &str) {
    assert!((400..500).contains(&status), "{name}: {status} {text}");
    let answer: Value = serde_json::from_str(text).unwrap_or_default();
    assert_eq!(answer["success"], false, "{name}: {status} {text}");
    assert_sentence(name, &answer);
    let code = answer["code"].as_str().unwrap_or_default();
    let is_snake = |c: char| c.is_ascii_lowercase() || c == '_';
    assert!(!code.is_empty(), "{name}: {text}");
    assert!(code.chars().all(is_snake), "{name}: {text}");
}

fn assert_sentence(name: &str, answer: &Value) {
    let error = answer["error"].as_str().unwrap_or_default();
    assert!(!error.is_empty(), "{name}: {answer}");
    assert!(error.len() < 2_000, "{name}: an endless error");
    for inside in ["panicked", ".rs:", "SELECT ", "surrealdb"] {
        assert!(!error.contains(inside), "{name}: {error}");
    }
}

async fn send(service: &Service, bad: &Request) -> (u16, String) {
    let method = reqwest::Method::from_bytes(bad.method.as_bytes()).unwrap();
    let mut request = service
        .client()
        .request(method, service.url(&bad.path))
        .header("authorization", format!("Bearer {CANARY}"))
        .body(bad.body.clone());
    for (name, value) in &bad.headers {
        request = request.header(*name, value);
    }
    let response = request.send().await;
    let response = response.unwrap_or_else(|error| panic!("{}: {error}", bad.name()));
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn bad_rest_requests_are_refused_in_the_envelope() {
    let service = Service::start().await;
    let mut slowest = Slowest::new();
    for bad in rest() {
        let (name, start) = (bad.name(), Instant::now());
        let (status, text) = send(&service, &bad).await;
        slowest.note(start, &name);
        assert_envelope(&name, status, &text);
    }
    slowest.print("bad REST requests");
    assert!(slowest.count >= 500, "only {}", slowest.count);
    assert_works(&service).await;
    assert!(!service.log().contains(CANARY), "a secret was logged");
}

#[tokio::test]
async fn bad_frames_get_an_error_frame_and_a_clean_close() {
    let service = Service::start().await;
    let mut slowest = Slowest::new();
    for (path, text) in frames() {
        let (name, start) = (format!("{path} {text:.120}"), Instant::now());
        let mut socket = open_with_canary(&service, &path).await;
        socket.send(&text).await;
        let talk = socket.rest().await;
        slowest.note(start, &name);
        assert_refused(&name, &talk);
    }
    slowest.print("bad frames");
    assert!(slowest.count >= 100, "only {}", slowest.count);
    assert_works(&service).await;
    assert!(!service.log().contains(CANARY), "a secret was logged");
}

async fn open_with_canary(service: &Service, path: &str) -> Socket {
    let headers = [("authorization", CANARY)];
    let socket = Socket::open_with(service.websocket, path, &headers).await;
    socket.expect(path)
}

fn assert_refused(name: &str, talk: &Talk) {
    let frames = &talk.frames;
    assert_eq!(frames.len(), 1, "{name}: {talk:?}");
    assert_eq!(frames[0]["success"], false, "{name}: {talk:?}");
    assert!(talk.close.is_some(), "{name}: no close, {talk:?}");
    assert_sentence(name, &frames[0]);
}

#[tokio::test]
async fn the_errors_of_the_seed_are_word_for_word() {
    let service = Service::start().await;
    let cases = [
        ("/tool", request("tool", "unknown", json!({})), "Tool not registered"),
        ("/function", request("function", "unknown", json!({})), "Function not registered"),
        ("/tool", json!({ "tool_id": "x" }).to_string(), "Missing required fields for tool task"),
        ("/tool", json!({ "input_data": {} }).to_string(), "Missing required fields for tool task"),
        ("/nope", "{}".to_owned(), "Invalid path"),
    ];
    for (path, text, error) in cases {
        let talk = service.talk(path, &text).await;
        assert_eq!(talk.refusal().0, error, "{path} {text}");
    }
}

#[tokio::test]
async fn wrong_paths_and_foreign_origins_of_sockets_are_refused() {
    let service = Service::start().await;
    for path in WRONG_PATHS {
        let mut socket = open_with_canary(&service, path).await;
        socket.send("{}").await;
        assert_refused(path, &socket.rest().await);
    }
    let foreign = FOREIGN_ORIGINS.map(|origin| ("origin", origin));
    for header in foreign.into_iter().chain([("host", "evil.example")]) {
        match Socket::open_with(service.websocket, "/tool", &[header]).await {
            Err(Error::Http(answer)) => assert_eq!(answer.status(), 403, "{header:?}"),
            Err(other) => panic!("{header:?}: {other}"),
            Ok(_) => panic!("{header:?} was let in"),
        }
    }
    assert_works(&service).await;
}

#[tokio::test]
async fn binary_and_oversized_messages_are_refused() {
    let service = Service::start().await;
    let socket = service.socket("/tool").await;
    let talk = socket.send_and_hear(Message::binary(vec![0_u8; 100])).await;
    assert_refused("a binary message", &talk);

    let socket = service.socket("/tool").await;
    let huge = Message::text("x".repeat(HUGE));
    let talk = socket.send_and_hear(huge).await;
    let told = talk.frames.last().is_some_and(|f| f["success"] == false);
    assert!(told || talk.close == Some(1009), "{talk:?}");
    assert_works(&service).await;
}

#[tokio::test]
async fn what_is_no_handshake_ends_the_connection() {
    let service = Service::start().await;
    for bytes in [&b"\x00\x01\x02\r\n\r\n"[..], b"GET /tool HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(service.websocket).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer));
        let _ = ended.await.expect("the connection ends");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.contains(" 101 "), "{answer}");
        assert!(!answer.contains(" 500 "), "{answer}");
    }
    assert_works(&service).await;
}

/// Sends a body of 100 MiB until an answer comes: the answer's status.
#[tokio::test]
async fn who_speaks_http_where_websockets_are_spoken_is_told_so() {
    let service = Service::start().await;
    let url = format!("http://{}/tool", service.websocket);
    let client = service.client();
    for request in [client.get(&url), client.post(&url).body("x".repeat(40_000))] {
        let answer = request.send().await.expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["upgrade"]),
            (426, &"websocket".parse().unwrap())
        );
        let told: Value = answer.json().await.expect("JSON");
        assert_eq!(told["code"], "invalid", "{told}");
        assert!(told["error"].as_str().unwrap().contains("speaks WebSocket"), "{told}");
    }
    assert_works(&service).await;
}

#[tokio::test]
async fn what_no_program_can_be_given_is_refused_by_its_place() {
    let service = Service::start().await;
    let metadata = json!({ "runtime": "binary", "entrypoint": "printf", "args": ["%s", "{{a}}"] });
    let mut bad = tool("nul", metadata.clone());
    bad["tool_metadata"]["env"] = json!({ "A": "a\0b" });
    let (status, told) = service.rest("POST", "/tool", &bad.to_string()).await;
    assert_eq!((status, &told["details"]["field"]), (400, &json!("tool_metadata.env.A")), "{told}");
    service.create(&tool("nul", metadata)).await;
    let (status, told) = service.rest("POST", "/tool/nul/execute", &json!({ "a": "a\0b" }).to_string()).await;
    assert_eq!((status, &told["details"]["field"]), (422, &json!("/a")), "{told}");
    let talk = service.run("tool", "nul", json!({ "a": "a\0b" })).await;
    assert_eq!(talk.error().1, "unprocessable", "{talk:?}");
}

async fn send_huge(service: &Service, path: &str, length: &str, chunk: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(service.rest).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n{length}\r\n\r\n",
        service.rest
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let body = async {
        for _ in 0..HUGE / (64 << 10) {
            if writer.write_all(chunk).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut answer = [0; 12];
    tokio::select! {
        read = tokio::time::timeout(PATIENCE, reader.read_exact(&mut answer)) => {
            read.expect("an answer in time").expect("an answer before the cut");
        }
        () = body => {}
    }
    let status = String::from_utf8_lossy(&answer[9..]).into_owned();
    status.parse().expect(&status)
}

#[tokio::test]
async fn bodies_of_100_mebibytes_are_refused_unread() {
    let service = Service::start().await;
    let plain = vec![b'x'; 64 << 10];
    let chunked = [b"10000\r\n", plain.as_slice(), b"\r\n"].concat();
    for path in ["/tool", "/tools", "/functions"] {
        let start = Instant::now();
        let told = format!("content-length: {HUGE}");
        assert_eq!(send_huge(&service, path, &told, &plain).await, 413);
        println!("100 MiB to {path}: refused after {:?}", start.elapsed());
        let status = send_huge(&service, path, "transfer-encoding: chunked", &chunked).await;
        assert!([411, 413].contains(&status), "{status}");
    }
    assert_works(&service).await;
}
