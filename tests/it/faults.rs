//! Actors are made to panic: what they did not serve is untouched, what they served is told, and
//! they are back at once. Only a Registry or Dispatcher that keeps failing ends the process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::census::processes_of;
use crate::load::{Held, Load};
use crate::program::{Gate, tool};
use crate::service::{Launch, PATIENCE, Service, eventually, request};
use crate::socket::{Socket, is_final};

/// How often an actor panics under a load: below the intensity that ends the process.
const PANICS: usize = 4;
/// How many sessions end between two panics.
const BETWEEN: usize = 100;
/// How many sessions are held at a time.
const WIDTH: usize = 8;
/// A bound that a busy machine keeps; the promise is a tenth of a second.
const RECOVERY_MS: f64 = 2_000.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_panics_under_load_is_felt_by_few() {
    under_load("registry").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatcher_that_panics_under_load_is_felt_by_few() {
    under_load("dispatcher").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_that_panic_under_load_are_felt_by_few() {
    under_load("pools").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_panics_under_load_is_felt_by_few() {
    under_load("pool:binary").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_panic_under_load_are_felt_by_few() {
    under_load("sessions").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_that_panics_under_load_is_felt_by_one() {
    let failed = under_load("executor:binary").await;
    assert!(failed <= PANICS, "{PANICS} panics were felt by {failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_panics_under_load_is_felt_by_one() {
    let failed = under_load("session").await;
    assert!(failed <= PANICS, "{PANICS} panics were felt by {failed}");
}

/// Lets an actor panic several times under a load: how many sessions failed.
async fn under_load(actor: &str) -> usize {
    let service = Launch::new().limits().start().await;
    let load = Load::new(&service, usize::MAX);
    let running = tokio::spawn(Arc::clone(&load).run(WIDTH));
    let mut recoveries = Vec::new();
    for panic in 1..=PANICS {
        load.finished(panic * BETWEEN).await;
        recoveries.push(service.panic(actor).await.unwrap());
    }
    load.end_at(load.count() + 2 * BETWEEN);
    let held = running.await.unwrap();
    let failed = assert_each_ended_once(&held);
    println!("{actor}: back after {recoveries:?} ms, felt by {failed} of {}", held.len());
    assert!(recoveries.iter().all(|took| *took < RECOVERY_MS));
    assert!(failed * 10 <= held.len(), "{failed} of {}", held.len());
    failed
}

/// Each session heard exactly one final frame, last: how many heard an error.
fn assert_each_ended_once(held: &[Held]) -> usize {
    let mut codes: BTreeMap<&str, usize> = BTreeMap::new();
    for held in held.iter().filter(|held| !held.succeeded()) {
        let talk = held.talk.as_ref().expect("a connection");
        let finals = talk.frames.iter().filter(|frame| is_final(frame)).count();
        assert_eq!(finals, 1, "{talk:?}");
        let last = talk.last();
        assert_eq!(last["success"], false, "{talk:?}");
        let code = last["code"].as_str().unwrap_or_default();
        assert!(!code.is_empty(), "an error without a code: {talk:?}");
        *codes.entry(code).or_default() += 1;
    }
    println!("errors: {codes:?}");
    codes.values().sum()
}

/// One execution that is running while a test goes on.
struct Running {
    service: Service,
    gate: Gate,
    socket: Socket,
    uuid: String,
}

impl Running {
    async fn start(change: impl FnOnce(&mut Value)) -> Self {
        let (service, gate) = (Launch::new().limits().start().await, Gate::new());
        let mut metadata = gate.program(r#"printf '{"ok":1}'"#);
        change(&mut metadata);
        service.create(&tool("waiting", metadata)).await;
        let mut socket = service.socket("/tool").await;
        socket.send(&request("tool", "waiting", json!({}))).await;
        let accepted = socket.frame().await.unwrap();
        let uuid = accepted["uuid"].as_str().unwrap().to_owned();
        gate.arrived(1).await;
        Self { service, gate, socket, uuid }
    }

    /// Makes an actor panic: the frame that the session then hears.
    async fn told_of(self, actor: &str) -> (Value, Service, Gate) {
        let took = self.service.panic(actor).await.unwrap();
        let talk = self.socket.rest().await;
        println!("{actor}: back after {took} ms, told {talk:?}");
        assert_eq!(talk.frames.len(), 1, "{talk:?}");
        (talk.last().clone(), self.service, self.gate)
    }
}

/// What was running when this actor died ends `interrupted`, and its program with it.
async fn interrupts(actor: &str) {
    let running = Running::start(|_| {}).await;
    let uuid = running.uuid.clone();
    let (told, service, _gate) = running.told_of(actor).await;
    assert_eq!(told["success"], false, "{told}");
    assert_eq!(told["code"], "interrupted", "{told}");
    let gone = || processes_of(&uuid).is_empty();
    eventually("the program has ended", Duration::from_secs(5), gone).await;
    assert_serves(&service).await;
}

async fn assert_serves(service: &Service) {
    let input = json!({ "value": 5 });
    let talk = service.run("tool", "binary-increment-tool", input).await;
    assert_eq!(*talk.output(), json!({ "result": 6 }));
}

#[tokio::test]
async fn an_execution_whose_dispatcher_dies_is_interrupted() {
    interrupts("dispatcher").await;
}

#[tokio::test]
async fn an_execution_whose_pools_die_is_interrupted() {
    interrupts("pools").await;
}

#[tokio::test]
async fn an_execution_whose_pool_dies_is_interrupted() {
    interrupts("pool:binary").await;
}

#[tokio::test]
async fn an_execution_whose_executor_dies_is_interrupted() {
    interrupts("executor:binary").await;
}

#[tokio::test]
async fn an_idempotent_execution_whose_executor_dies_is_tried_again() {
    let running = Running::start(|metadata| metadata["idempotent"] = json!(true)).await;
    running.service.panic("executor:binary").await.unwrap();
    running.gate.arrived(2).await;
    running.gate.open();
    let talk = running.socket.rest().await;
    assert_eq!(talk.last()["output"], json!({ "ok": 1 }), "{talk:?}");
    assert_eq!(talk.close, Some(1000));
}

#[tokio::test]
async fn an_execution_that_was_resolved_outlives_the_registry() {
    let running = Running::start(|_| {}).await;
    running.service.panic("registry").await.unwrap();
    running.gate.open();
    let talk = running.socket.rest().await;
    assert_eq!(talk.last()["output"], json!({ "ok": 1 }), "{talk:?}");
    let (status, _) = running.service.rest("GET", "/tool/waiting", "").await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_client_whose_session_dies_gets_an_error_frame() {
    for actor in ["session", "sessions"] {
        let running = Running::start(|_| {}).await;
        let (told, service, _gate) = running.told_of(actor).await;
        assert_eq!(told["success"], false, "{told}");
        assert_serves(&service).await;
    }
}

/// Five failures are borne, the sixth within ten seconds ends the process and says why.
async fn sixth_failure_ends(actor: &str) {
    let mut service = Launch::new().limits().memory().start().await;
    let start = Instant::now();
    for _ in 0..5 {
        service.panic(actor).await.unwrap();
    }
    assert_serves(&service).await;
    assert!(start.elapsed() < Duration::from_secs(10), "too slow a test");
    let _ = service.panic(actor).await;
    let status = service.exit().await;
    assert!(!status.success(), "{status}");
    let log = service.log();
    assert!(log.lines().any(|line| says_why(line, actor)), "{actor}");
}

/// Whether a line of the log tells that this actor failed too often.
fn says_why(line: &str, actor: &str) -> bool {
    let said = match serde_json::from_str::<Value>(line) {
        Ok(line) if line["level"] != "ERROR" => return false,
        Ok(line) => line["fields"].to_string(),
        Err(_) => line.to_owned(),
    };
    let said = said.to_lowercase();
    let counts = [" 6 ", "sixth", "six ", "10 s", "10s", "ten s", "too often", "intensity"];
    said.contains(actor) && counts.iter().any(|count| said.contains(count))
}

#[tokio::test]
async fn the_sixth_failure_of_the_dispatcher_ends_the_process() {
    sixth_failure_ends("dispatcher").await;
}

#[tokio::test]
async fn the_sixth_failure_of_the_registry_ends_the_process() {
    sixth_failure_ends("registry").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_failures_of_executors_never_end_the_process() {
    let service = Launch::new().limits().start().await;
    let load = Load::new(&service, usize::MAX);
    let running = tokio::spawn(Arc::clone(&load).run(4));
    let start = Instant::now();
    for _ in 0..30 {
        service.panic("executor:binary").await.unwrap();
        let next = load.count() + 1;
        tokio::time::timeout(PATIENCE, load.finished(next)).await.expect("an execution is served");
    }
    println!("30 executors died and were replaced in {:?}", start.elapsed());
    load.end_at(0);
    assert_each_ended_once(&running.await.unwrap());
    assert_serves(&service).await;
}
