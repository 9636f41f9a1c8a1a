//! A thousand executions, cancelled at random moments: each client hears one last frame, and nothing is left.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::census::Census;
use crate::program::{Gate, accepted, shell, tool};
use crate::service::{Launch, Service};

const EXECUTIONS: u64 = 1_000;
/// How many at a time.
const WIDTH: usize = 16;

/// The programs, and what each gives when it is let alone; the last would take a minute.
const PROGRAMS: [(&str, &str, Option<u64>); 3] = [
    ("quick", "printf 1", Some(1)),
    ("nap", "sleep 0.05; printf 2", Some(2)),
    ("long", "setsid sleep 60 & sleep 60", None),
];

/// A small generator, so that what fails can be had again by its number.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Runs one, and cancels it after up to 80 ms: its program, and whether it was cancelled.
async fn cancelled_at_random(service: &Service, number: u64) -> (&'static str, bool) {
    let mut dice = Dice(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let (id, _, usual) = PROGRAMS[dice.roll(3) as usize];
    let (mut socket, uuid) = accepted(service, id, json!({}), json!({})).await;
    // This is no waiting for something: the moment is what is tried.
    tokio::time::sleep(Duration::from_millis(dice.roll(80))).await;
    if dice.roll(2) == 0 {
        socket.send(&json!({ "cancel": uuid }).to_string()).await;
    } else {
        let (status, answer) = service.rest("DELETE", &format!("/execution/{uuid}"), "").await;
        assert!(matches!(status, 200 | 409), "{number} {id}: {answer}");
    }
    let talk = socket.rest().await;
    assert_eq!((talk.frames.len(), talk.close), (1, Some(1000)), "{number} {id}: {talk:?}");
    let last = talk.last();
    let is_cancelled = last["code"] == "cancelled";
    let as_usual = usual.is_some_and(|usual| *last == json!({ "success": true, "output": usual }));
    assert!(is_cancelled || as_usual, "{number} {id}: {last}");
    (id, is_cancelled)
}

/// A service whose four launchers are there.
async fn with_launchers() -> Service {
    let (service, gate) = (Launch::new().limits().executors(4).start().await, Gate::new());
    service.create(&tool("waiting", gate.program("printf 1"))).await;
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(accepted(&service, "waiting", json!({}), json!({})).await.0);
    }
    gate.arrived(4).await;
    gate.open();
    for socket in sockets {
        socket.rest().await;
    }
    service
}

#[tokio::test]
async fn of_1000_executions_cancelled_at_random_moments_each_ends_once() {
    let service = with_launchers().await;
    for (id, script, _) in PROGRAMS {
        service.create(&tool(id, shell(script))).await;
    }
    let run = service.path("data/run");
    let before = Census::settled(&service, &run).await;
    let executions = futures_util::stream::iter(0..EXECUTIONS);
    let ends: Vec<_> = executions
        .map(|number| cancelled_at_random(&service, number))
        .buffer_unordered(WIDTH)
        .collect()
        .await;
    let mut counts = BTreeMap::new();
    for end in ends {
        *counts.entry(end).or_insert(0_u64) += 1;
    }
    println!("program, was it cancelled, how many: {counts:?}");
    assert_eq!(counts.values().sum::<u64>(), EXECUTIONS);
    // Both ways to end were met, else this tried nothing.
    assert!(counts.keys().any(|end| end.1) && counts.keys().any(|end| !end.1), "{counts:?}");
    before.assert_restored(&service, &run, None).await;
    let (_, answer) = service.rest("GET", "/system", "").await;
    let queue = &answer["data"]["tree"]["queues"]["binary"];
    let counted = [&queue["queued"], &queue["running"], &queue["retrying"]];
    assert_eq!(counted, [&Value::from(0); 3], "{queue}");
}
