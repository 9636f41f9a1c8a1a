//! A measurement: thousands of handshakes that do not go on and thousands of idle sockets, beside one healthy client.
//! `SLOW=5000 IDLE=18000 cargo test --test it slow::crowd -- --ignored --nocapture`

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::connect_from;
use crate::service::{Launch, PATIENCE, Service, eventually};

/// How many clients have one address of loopback.
const PER_ADDRESS: usize = 200;

/// How many requests of each kind the healthy client makes for one row.
const ASKED: usize = 400;

fn sized(name: &str, count: usize) -> usize {
    std::env::var(name).map_or(count, |text| text.parse().expect(name))
}

/// The address of loopback that this client has: never the one of the healthy client.
fn address_of(client: usize) -> Ipv4Addr {
    let [.., high, low] = u32::try_from(client / PER_ADDRESS + 1).unwrap().to_be_bytes();
    Ipv4Addr::new(127, 1, high, low)
}

/// The times below which half of the requests stayed, and 99 of 100.
fn quantiles(mut took: Vec<Duration>) -> (Duration, Duration) {
    took.sort();
    (took[took.len() / 2], took[took.len() * 99 / 100])
}

/// What the healthy client sees.
async fn row(service: &Service, when: &str) {
    let (mut gets, mut runs) = (Vec::new(), Vec::new());
    for _ in 0..ASKED {
        let start = Instant::now();
        let (status, _) = service.rest_text("GET", "/tool/binary-increment-tool", "").await;
        gets.push(start.elapsed());
        assert_eq!(status, 200);
        let start = Instant::now();
        let talk = service.run("tool", "binary-increment-tool", json!({ "value": 1 })).await;
        runs.push(start.elapsed());
        assert_eq!(talk.output(), &json!({ "result": 2 }));
    }
    let ((get, get_most), (run, run_most)) = (quantiles(gets), quantiles(runs));
    println!("{when}: GET p50 {get:.2?} p99 {get_most:.2?}; execution p50 {run:.2?} p99 {run_most:.2?}");
}

/// One client whose handshakes never go on: each time it is dropped it comes again.
async fn never_done(source: Ipv4Addr, to: SocketAddr, open: Arc<AtomicUsize>, dropped: Arc<AtomicUsize>) {
    loop {
        let mut stream = connect_from(source, to).await;
        open.fetch_add(1, Ordering::Relaxed);
        let _ = stream.write_all(b"GET /session HTTP/1.1\r\nhost: localhost\r\nx: ").await;
        let mut pace = tokio::time::interval(Duration::from_secs(1));
        let mut buffer = [0; 512];
        loop {
            tokio::select! {
                read = stream.read(&mut buffer) => if !matches!(read, Ok(1..)) { break },
                _ = pace.tick() => if stream.write_all(b"y").await.is_err() { break },
            }
        }
        open.fetch_sub(1, Ordering::Relaxed);
        dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// A `/session` that says nothing further.
async fn idle(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let mut stream = connect_from(source, to).await;
    let ask = "GET /session HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
               sec-websocket-version: 13\r\nsec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let (mut heard, mut buffer) = (Vec::new(), [0; 512]);
    while !heard.ends_with(b"\r\n\r\n") {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&buffer[..read]);
    }
    assert!(heard.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&heard));
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn thousands_of_slow_handshakes_and_idle_sockets_beside_a_healthy_client() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    // Both processes hold one end of each, and need a few more.
    let most = usize::try_from(most).unwrap() - 500;
    let (slow, quiet) = (sized("SLOW", 5_000).min(most), sized("IDLE", 18_000).min(most));
    let service = Launch::new()
        .through(&["sh", "-c", "ulimit -n $(ulimit -H -n); exec \"$@\"", "sh"])
        .set("WEBSOCKET__MAX_CONNECTIONS", 50_000)
        .set("REST__MAX_CONNECTIONS", 50_000)
        // Nobody answers the pings.
        .set("WEBSOCKET__PING_INTERVAL_MS", 3_600_000)
        .set("WEBSOCKET__IDLE_TIMEOUT_MS", 7_200_000)
        .start()
        .await;
    row(&service, "warming up").await;
    row(&service, "before").await;

    let (open, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let before = service.resident_kib();
    let mut clients = JoinSet::new();
    for client in 0..slow {
        let to = if client % 2 == 0 { service.rest } else { service.websocket };
        clients.spawn(never_done(address_of(client), to, open.clone(), dropped.clone()));
    }
    eventually("all are there", PATIENCE, || open.load(Ordering::Relaxed) >= slow * 9 / 10).await;
    row(&service, &format!("beside {slow} slow handshakes")).await;
    let (open, dropped) = (open.load(Ordering::Relaxed), dropped.load(Ordering::Relaxed));
    println!(
        "{open} of them open now, {dropped} dropped until now, {} KiB more",
        service.resident_kib() - before
    );
    clients.shutdown().await;
    row(&service, "after them").await;

    let before = service.resident_kib();
    let mut opening = JoinSet::new();
    let mut held = Vec::new();
    for client in 0..quiet {
        opening.spawn(idle(address_of(client), service.websocket));
        if opening.len() >= 64 {
            held.push(opening.join_next().await.unwrap().unwrap());
        }
    }
    held.extend(opening.join_all().await);
    let more = service.resident_kib().saturating_sub(before);
    let sessions = service.rest("GET", "/system", "").await.1["data"]["tree"]["sessions"].clone();
    println!(
        "{} idle sockets, {sessions} sessions: {:.1} KiB each",
        held.len(),
        more as f64 / held.len() as f64
    );
    row(&service, &format!("beside {} idle sockets", held.len())).await;
    drop(held);
}
