//! Many one-shot sessions at a time: none is lost, each hears acceptance, result and close in that order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::service::{Service, request};
use crate::socket::Talk;

/// Sessions of the catalog's `binary-increment-tool`, some at a time.
pub struct Load {
    address: SocketAddr,
    numbers: AtomicUsize,
    finished: watch::Sender<usize>,
    enough: watch::Sender<usize>,
}

/// One session that was held.
pub struct Held {
    number: usize,
    /// None where there was not even a connection.
    pub talk: Option<Talk>,
    took: Duration,
}

impl Load {
    /// That many sessions, unless it is told to go on.
    pub fn new(service: &Service, sessions: usize) -> Arc<Self> {
        Arc::new(Self {
            address: service.websocket,
            numbers: AtomicUsize::new(0),
            finished: watch::Sender::new(0),
            enough: watch::Sender::new(sessions),
        })
    }

    /// Holds sessions, `width` at a time, until there were enough.
    pub async fn run(self: Arc<Self>, width: usize) -> Vec<Held> {
        let mut workers = JoinSet::new();
        for _ in 0..width {
            workers.spawn(Arc::clone(&self).work());
        }
        workers.join_all().await.into_iter().flatten().collect()
    }

    /// Waits until that many sessions have ended.
    pub async fn finished(&self, sessions: usize) {
        let mut finished = self.finished.subscribe();
        finished.wait_for(|count| *count >= sessions).await.unwrap();
    }

    /// How many sessions have ended.
    pub fn count(&self) -> usize {
        *self.finished.borrow()
    }

    /// Ends it once that many sessions were held.
    pub fn end_at(&self, sessions: usize) {
        self.enough.send_replace(sessions);
    }

    async fn work(self: Arc<Self>) -> Vec<Held> {
        let mut held = Vec::new();
        loop {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            if number >= *self.enough.borrow() {
                return held;
            }
            held.push(self.hold(number).await);
            self.finished.send_modify(|count| *count += 1);
        }
    }

    async fn hold(&self, number: usize) -> Held {
        let text = request("tool", "binary-increment-tool", json!({ "value": number }));
        let start = Instant::now();
        let talk = Talk::hold(self.address, "/tool", &text).await.ok();
        Held { number, talk, took: start.elapsed() }
    }
}

impl Held {
    /// Whether it went as the seed tells: acceptance, then the result, then close 1000.
    pub fn succeeded(&self) -> bool {
        let result = json!({ "success": true, "output": { "result": self.number + 1 } });
        self.talk.as_ref().is_some_and(|talk| {
            let uuid = talk.uuid().and_then(|uuid| uuid::Uuid::parse_str(uuid).ok());
            uuid.is_some_and(|uuid| uuid.get_version_num() == 7)
                && talk.frames.len() == 2
                && talk.frames[0]["success"] == true
                && talk.frames[1] == result
                && talk.close == Some(1000)
        })
    }
}

/// The time that this part of the sessions stayed below.
fn quantile(held: &mut [Held], part: f64) -> Duration {
    held.sort_by_key(|held| held.took);
    let last = held.len() - 1;
    held[(last as f64 * part).round() as usize].took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_2000_sessions_64_at_a_time_none_is_lost() {
    let service = Service::start().await;
    let start = Instant::now();
    let mut held = Load::new(&service, 2_000).run(64).await;
    let rate = 2_000.0 / start.elapsed().as_secs_f64();
    for held in &held {
        let (number, talk) = (held.number, &held.talk);
        assert!(held.succeeded(), "session {number}: {talk:?}");
    }
    assert_eq!(held.len(), 2_000);
    let (half, most) = (quantile(&mut held, 0.5), quantile(&mut held, 0.99));
    println!("2,000 sessions, 64 at a time: {rate:.0}/s, p50 {half:?}, p99 {most:?}");
}
