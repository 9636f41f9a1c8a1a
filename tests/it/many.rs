//! What one connection for many executions carries, how soon a service with a long history is back, and what clients cost
//! that never read. These are measurements: `cargo test --test it many:: -- --ignored --nocapture --test-threads 1`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::execution::{Ended, Outcome};
use actors::journal::Record;
use actors::registry::{Location, Memory, Store};
use futures_util::{SinkExt, StreamExt};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::durable::ready;
use crate::program::{Gate, tool};
use crate::rates::{NOOP, median, report};
use crate::service::{Launch, PATIENCE, Service, request};
use crate::socket::{Socket, Talk};

/// How long each turn is, and how many there are.
const TURN: Duration = Duration::from_secs(2);
const TURNS: usize = 5;

/// How many requests are open at a time.
const OPEN: usize = 256;

/// How many large outcomes each client of a crowd asks for.
const OUTCOMES: usize = 5;

/// A service whose tool `noop` stays loaded and does nothing.
async fn with_noop(durability: &str) -> Service {
    let root = tempfile::tempdir().unwrap().keep();
    std::fs::write(root.join("noop.wasm"), NOOP).unwrap();
    let launch =
        Launch::new().limits().set("JOURNAL__DURABILITY", durability).set("ARTIFACTS__ROOTS", json!([root]));
    let launch = launch
        .set("POOLS__WASM__MIN", 4)
        .set("POOLS__WASM__MAX", 4)
        .set("LOG__LEVEL", "warn,org_executor=info");
    // Room for what many clients ask for at once.
    let launch = launch
        .set("WEBSOCKET__UNLIMITED_ADDRESSES", r#"["127.0.0.1"]"#)
        .set("DISPATCHER__MAX_PENDING", 100_000)
        .set("POOLS__PYTHON__QUEUE", 100_000)
        .set("STORE__MAX_PENDING", 100_000);
    let service = launch.start().await;
    for (name, idempotent) in [("noop", true), ("noop-once", false)] {
        let metadata = json!({ "source_url": "noop.wasm", "idempotent": idempotent });
        service.create(&tool(name, metadata)).await;
        service.run("tool", name, json!({})).await.output();
    }
    service
}

/// Keeps that many requests open for so long: how many ended in a second.
async fn carry(socket: &mut Socket, text: &str, turn: Duration, open: usize) -> f64 {
    let start = Instant::now();
    socket.send_all((0..open).map(|_| text.to_owned())).await;
    let (mut waiting, mut done) = (open, 0);
    while waiting > 0 {
        let mut ended = 0;
        // What has come already is answered in one go.
        let first = socket.text().await.expect("an open connection");
        ended += usize::from(first.contains("\"output\""));
        while let Some(Some(next)) = futures_util::FutureExt::now_or_never(socket.text()) {
            ended += usize::from(next.contains("\"output\""));
        }
        done += ended;
        waiting -= ended;
        if start.elapsed() < turn {
            socket.send_all((0..ended).map(|_| text.to_owned())).await;
            waiting += ended;
        }
    }
    done as f64 / start.elapsed().as_secs_f64()
}

/// A server that answers each text with two, and does nothing else.
async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.set_nodelay(true).unwrap();
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                while let Some(Ok(Message::Text(_))) = socket.next().await {
                    socket.feed(Message::text(r#"{"id":1,"success":true}"#)).await.unwrap();
                    socket.feed(Message::text(r#"{"id":1,"success":true,"output":{}}"#)).await.unwrap();
                    socket.flush().await.unwrap();
                }
            });
        }
    });
    address
}

/// Outcomes written in a second, in batches of 2,000.
async fn insert() -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(Location::Folder(folder.path().into()), Memory(512)).await.unwrap();
    let outcome = Outcome::succeeded("{}".into());
    let ended =
        Arc::new(Ended { outcome, started_ms: Some(1), ended_ms: 2, attempts: 1, sandbox: None, log: None });
    let (start, mut written) = (Instant::now(), 0);
    while start.elapsed() < TURN {
        let records: Vec<Record> = (0..2_000).map(|_| Record::Ended(Uuid::now_v7(), ended.clone())).collect();
        store.append(&records, &[]).await.unwrap();
        written += records.len();
    }
    written as f64 / start.elapsed().as_secs_f64()
}

#[test]
#[ignore = "a measurement"]
fn no_ops_on_one_connection() {
    // The store wants large stacks.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(10 << 20)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(runtime.spawn(measure_no_ops())).unwrap();
}

async fn measure_no_ops() {
    let bare = echo().await;
    for (durability, name) in [("memory", "noop"), ("journal", "noop"), ("journal", "noop-once")] {
        let text = json!({ "id": 1, "tool_id": name, "input_data": {} }).to_string();
        let service = with_noop(durability).await;
        let mut pairs = Vec::new();
        for _ in 0..TURNS {
            let mut socket = Socket::open(bare, "/").await.unwrap();
            let floor = carry(&mut socket, &text, TURN, OPEN).await;
            let mut socket = service.socket("/session").await;
            pairs.push((floor, carry(&mut socket, &text, TURN, OPEN).await));
        }
        report(
            &format!("/session, {OPEN} open {name}, {durability}, beside a bare echo of two frames"),
            &pairs,
        );
        let mut took = Vec::new();
        for _ in 0..1_000 {
            let start = Instant::now();
            Talk::hold(service.websocket, "/tool", &request("tool", name, json!({}))).await.unwrap().output();
            took.push(start.elapsed());
        }
        took.sort();
        println!("one-shot, 1 client, {name}, {durability}: p50 {:.2?}, p99 {:.2?}", took[500], took[990]);
    }
    let mut floors = Vec::new();
    for _ in 0..TURNS {
        floors.push(insert().await);
    }
    println!("outcomes inserted in batches of 2,000: median {:.0}/s of {floors:.0?}", median(floors.clone()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn ready_again_with_100_000_outcomes_and_10_000_queued() {
    let service = with_noop("journal").await;
    let text = json!({ "id": 1, "tool_id": "noop", "input_data": {} }).to_string();
    let (start, mut done) = (Instant::now(), 0.0);
    let mut socket = service.socket("/session").await;
    while done < 100_000.0 {
        done += carry(&mut socket, &text, TURN, OPEN).await * TURN.as_secs_f64();
    }
    println!("{done:.0} outcomes after {:.0?}", start.elapsed());
    let gate = Gate::new();
    service.create(&tool("gated", gate.program("printf 1"))).await;
    let mut queued = 0;
    while queued < 10_000 {
        let mut socket = service.socket("/session").await;
        let request = json!({ "id": 1, "tool_id": "gated", "input_data": {} }).to_string();
        socket.send_all((0..1_000).map(|_| request.clone())).await;
        for _ in 0..1_000 {
            socket.text().await.unwrap();
        }
        queued += 1_000;
    }
    let mut service = service;
    for _ in 0..TURNS {
        let folder = service.folder();
        service.signal(Signal::SIGKILL);
        service.exit().await;
        drop(service);
        let start = Instant::now();
        service = Launch::on(folder).limits().executors(1).start().await;
        ready(&service).await;
        let took = start.elapsed();
        let queues = service.rest("GET", "/system", "").await.1["data"]["tree"]["queues"]["binary"].clone();
        println!("ready after {took:.0?}: {queues}");
    }
    gate.open();
}

/// That many clients ask for large outcomes at once, and read them or never do: the time that 99 of 100 requests of
/// others stay below meanwhile, the memory in KiB that comes on top, and when all of them are gone.
async fn crowd(service: &Service, reads: bool) -> (Duration, u64, Duration) {
    const CLIENTS: usize = 2_000;
    let text = json!({ "id": 1, "tool_id": "large", "input_data": {} }).to_string();
    let mut sockets = Vec::new();
    for _ in 0..CLIENTS {
        sockets.push(service.socket("/session").await);
    }
    let before = service.resident_kib();
    let start = Instant::now();
    for socket in &mut sockets {
        socket.send_all((0..OUTCOMES).map(|_| text.clone())).await;
    }
    let mut readers = tokio::task::JoinSet::new();
    if reads {
        for mut socket in sockets.drain(..) {
            readers.spawn(async move {
                let mut ended = 0;
                while ended < OUTCOMES {
                    let text = socket.text().await.expect("an open connection");
                    ended += usize::from(text.contains("\"output\""));
                }
            });
        }
    }
    let (mut most, mut took, mut left) = (before, Vec::new(), u64::MAX);
    while left > 0 {
        took.extend(timed(service, 100).await);
        let system = service.rest("GET", "/system", "").await.1;
        left = system["data"]["tree"]["sessions"].as_u64().unwrap();
        most = most.max(service.resident_kib());
        println!("{:>6.1?}: {left} sessions, {} KiB more", start.elapsed(), most - before);
        assert!(start.elapsed() < PATIENCE * 5, "{left} clients are still there");
    }
    readers.join_all().await;
    took.sort();
    (took[took.len() * 99 / 100], most - before, start.elapsed())
}

/// How long harmless requests take.
async fn timed(service: &Service, count: usize) -> Vec<Duration> {
    let mut took = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        Talk::hold(service.websocket, "/tool", &request("tool", "noop", json!({}))).await.unwrap().output();
        took.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn clients_that_never_read_are_dropped_and_hurt_nobody() {
    let service = with_noop("memory").await;
    let large = "import json\ndef handler(input):\n    return 'x' * 240_000\n";
    crate::program::put_source(&service, "large.py", large);
    service.create(&tool("large", json!({ "source_url": "large.py" }))).await;
    for (reads, name) in [(false, "that never read"), (true, "that read")] {
        let (p99, kib, gone) = crowd(&service, reads).await;
        println!(
            "2,000 clients {name}: p99 of others {p99:.1?}, {kib} KiB more at most, gone after {gone:.1?}"
        );
    }
}
