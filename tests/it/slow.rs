//! Clients that take their time, and too many of one address: headers, bodies and handshakes that do not go on, connections that
//! say nothing, and a service without a descriptor left. None of them keeps a healthy client out. The measurement at the
//! end has thousands of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::service::{Launch, PATIENCE, Service, eventually};

mod crowd;

/// A timeout of the service that a test waits for.
const SHORT_MS: u64 = 1_000;

/// How soon after it a client must be gone, on a machine with much to do.
const SOON: Duration = Duration::from_secs(20);

/// A connection from this address of loopback.
async fn connect_from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Sends this, then the bytes of `more` one by one and again from its start until the service has closed the connection or answered:
/// what it said, and how long that took.
async fn dribble(mut stream: TcpStream, first: &str, more: &str) -> (String, Duration) {
    let start = Instant::now();
    stream.write_all(first.as_bytes()).await.unwrap();
    let (mut pace, mut bytes) =
        (tokio::time::interval(Duration::from_millis(20)), more.bytes().cycle().map(|byte| [byte]));
    let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return (String::from_utf8_lossy(&heard).into_owned(), start.elapsed()),
                Ok(read) => heard.extend_from_slice(&buffer[..read]),
            },
            _ = pace.tick() => {
                if let Some(byte) = bytes.next() {
                    // Once the service has closed, reading tells.
                    let _ = stream.write_all(&byte).await;
                }
                assert!(start.elapsed() < PATIENCE, "it is let go on: {}", String::from_utf8_lossy(&heard));
            }
        }
    }
}

async fn is_served(service: &Service) {
    assert_eq!(service.rest("GET", "/healthz", "").await.0, 200);
    let output = service.run("tool", "binary-increment-tool", json!({ "value": 1 })).await;
    assert_eq!(output.output(), &json!({ "result": 2 }));
}

#[tokio::test]
async fn a_header_that_dribbles_and_a_client_that_says_nothing_are_dropped() {
    let service = Launch::new()
        .memory()
        .set("REST__HEADER_TIMEOUT_MS", SHORT_MS)
        .set("WEBSOCKET__HANDSHAKE_TIMEOUT_MS", SHORT_MS)
        .start()
        .await;
    let healthy = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for (address, first, more, answers) in [
        (service.rest, "", "", 0),
        (service.rest, "GET /healthz HTTP/1.1\r\n", "x-y: z\r\n", 0),
        (service.rest, "PRI * HTTP/2.0\r\n", "", 0),
        // A later request of the same connection.
        (
            service.rest,
            healthy,
            "GET /healthz HTTP/1.1\r\nx-y: zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
            1,
        ),
        (service.websocket, "", "", 0),
        (service.websocket, "GET /tool HTTP/1.1\r\n", "x-y: z\r\n", 0),
    ] {
        let stream = TcpStream::connect(address).await.unwrap();
        let (heard, took) = dribble(stream, first, more).await;
        assert_eq!(heard.matches("HTTP/1.1 200").count(), answers, "{first:?}: {heard}");
        let least = Duration::from_millis(SHORT_MS) - Duration::from_millis(50);
        assert!(took >= least && took < SOON, "{first:?} after {took:?}");
    }
    is_served(&service).await;
}

/// Between two requests a connection may rest for longer than a header may take.
#[tokio::test]
async fn a_connection_that_rests_is_not_one_that_is_slow() {
    let service = Launch::new().memory().set("REST__HEADER_TIMEOUT_MS", SHORT_MS).start().await;
    let mut stream = TcpStream::connect(service.rest).await.unwrap();
    for _ in 0..2 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut buffer = vec![0; 4096];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(buffer[..read].starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&buffer));
        // Nothing comes for longer than that.
        let rest = Duration::from_millis(SHORT_MS * 2);
        assert!(tokio::time::timeout(rest, stream.read(&mut buffer)).await.is_err(), "it was closed");
    }
}

#[tokio::test]
async fn a_body_that_dribbles_is_ended_and_an_import_that_goes_on_is_not() {
    let service = Launch::new().memory().set("REST__BODY_TIMEOUT_MS", SHORT_MS).start().await;
    let head = |path: &str, media: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {media}\r\ncontent-length: 100000\r\n\r\n"
        )
    };
    let stream = TcpStream::connect(service.rest).await.unwrap();
    let (heard, took) = dribble(stream, &head("/tool", "application/json"), " ").await;
    assert!(
        heard.starts_with("HTTP/1.1 400") && heard.contains("the body took longer than 1000 ms"),
        "{heard}"
    );
    assert!(took < SOON, "{took:?}");

    // It takes longer than that in all, but never without a byte, and is ended once nothing comes.
    let mut stream = TcpStream::connect(service.rest).await.unwrap();
    stream.write_all(head("/tools/import", "application/x-ndjson").as_bytes()).await.unwrap();
    let mut pace = tokio::time::interval(Duration::from_millis(SHORT_MS / 4));
    for number in 0..8 {
        pace.tick().await;
        let line = format!("{}\n", json!({ "tool_id": format!("tool-{number}") }));
        stream.write_all(line.as_bytes()).await.unwrap();
    }
    let mut heard = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut heard)).await;
    read.expect("it is ended").unwrap();
    assert_eq!(heard.matches(r#""result":"created""#).count(), 8, "{heard}");
    assert!(heard.contains("the body took longer than 1000 ms"), "{heard}");
    is_served(&service).await;
}

/// What is counted under this name for a port.
async fn counted(service: &Service, name: &str, port: &str) -> f64 {
    let text = service.rest_text("GET", "/metrics", "").await.1;
    let row = format!("{name}{{port=\"{port}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&row)).map_or(0.0, |value| value.parse().unwrap())
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_leaves_room_for_others() {
    let service = Launch::new()
        .memory()
        .set("REST__MAX_CONNECTIONS_PER_ADDRESS", 3)
        .set("WEBSOCKET__MAX_CONNECTIONS_PER_ADDRESS", 3)
        .set("REST__UNLIMITED_ADDRESSES", r#"["127.0.0.9", "10.0.0.0/8"]"#)
        .start()
        .await;
    let greedy = Ipv4Addr::new(127, 0, 0, 2);
    for (address, port) in [(service.rest, "rest"), (service.websocket, "websocket")] {
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(connect_from(greedy, address).await);
        }
        let mut one_more = connect_from(greedy, address).await;
        let mut heard = String::new();
        let read = tokio::time::timeout(SOON, one_more.read_to_string(&mut heard)).await;
        read.expect("it is closed at once").unwrap();
        assert!(heard.starts_with("HTTP/1.1 429") && heard.contains(r#""code":"overloaded""#), "{heard}");
        is_served(&service).await;
        assert_eq!(counted(&service, "connections_refused_total", port).await, 1.0);
        // A place that is free again is given to the next; when the service sees the close, nothing tells.
        drop(held);
        let ask = "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut next = connect_from(greedy, address).await;
            next.write_all(ask.as_bytes()).await.unwrap();
            let mut heard = Vec::new();
            let _ = tokio::time::timeout(SOON, next.read_to_end(&mut heard)).await.expect("an answer");
            // The WebSocket port tells what it speaks.
            if [&b"HTTP/1.1 200"[..], b"HTTP/1.1 426"].iter().any(|status| heard.starts_with(status)) {
                break;
            }
            assert!(Instant::now() < deadline, "{port}: no place was given back");
        }
    }
    let mut free = Vec::new();
    for _ in 0..9 {
        free.push(connect_from(Ipv4Addr::new(127, 0, 0, 9), service.rest).await);
    }
    let mut last = free.pop().unwrap();
    last.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut heard = String::new();
    last.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
}

/// The time that a process has computed, in ticks of which there are a hundred a second.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test]
async fn without_a_descriptor_left_it_waits_quietly_and_then_goes_on() {
    let limited = "ulimit -n 256; exec \"$@\"";
    // While it is looked at, none is dropped.
    let service = Launch::new()
        .memory()
        .through(&["sh", "-c", limited, "sh"])
        .set("REST__HEADER_TIMEOUT_MS", 600_000)
        .set("REST__IDLE_TIMEOUT_MS", 600_000)
        .set("WEBSOCKET__HANDSHAKE_TIMEOUT_MS", 600_000)
        .start()
        .await;
    is_served(&service).await;
    // More than there are descriptors for, on both ports; what is not accepted waits in the kernel's queue.
    let mut held = Vec::new();
    for number in 0..320 {
        let address = if number % 2 == 0 { service.rest } else { service.websocket };
        held.push(TcpStream::connect(address).await.unwrap());
    }
    let failed = || service.log().contains("connections could not be accepted");
    eventually("it runs out of descriptors", PATIENCE, failed).await;
    let before = ticks(service.pid());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let spent = ticks(service.pid()) - before;
    let told = service.log().matches("connections could not be accepted").count();
    println!("{spent} ticks in two seconds without a descriptor, told {told} times");
    assert!(spent < 100, "it spins: {spent} ticks in two seconds");
    assert!(told <= 4, "told {told} times");
    drop(held);
    is_served(&service).await;
}
