//! What a client hears while its execution runs. One that reads slowly slows neither the tool nor anybody else.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::program::{Gate, accepted, lines, shell, streamed, tool};
use crate::service::{Launch, PATIENCE, Service, eventually};
use crate::socket::is_final;

/// How long a quick run may take on a busy machine.
const NOISE: Duration = Duration::from_secs(3);

const LINES: u64 = 200_000;

/// The memory that the service holds, in MiB.
fn resident_mib(service: &Service) -> u64 {
    service.resident_kib() / 1_024
}

/// A program that prints many lines, marks that it has, and gives 1.
fn talkative(gate: &Gate) -> Value {
    let marks = gate.path().join("marks").display().to_string();
    let line =
        "a line of a length that is not unusual for logs, with some more words so that buffers fill up soon";
    shell(&format!("yes '{line}' | head -n {LINES} >&2; echo done >> {marks}; printf 1"))
}

#[tokio::test]
async fn a_client_that_does_not_read_slows_neither_its_tool_nor_others() {
    let (service, gate) = (Launch::new().limits().executors(2).start().await, Gate::new());
    service.create(&tool("talkative", talkative(&gate))).await;
    service.create(&tool("quick", shell("printf 2"))).await;
    let quick = async || {
        let start = Instant::now();
        assert_eq!(*service.run("tool", "quick", json!({})).await.output(), json!(2));
        assert!(start.elapsed() < NOISE, "{:?}", start.elapsed());
    };
    quick().await;
    let before = resident_mib(&service);
    let (slow, _) = accepted(&service, "talkative", json!({}), json!({ "stream": true })).await;
    // Nobody reads, and yet it gets to its end.
    let done = || gate.read("marks").lines().count() == 1;
    eventually("the tool prints all of it", PATIENCE, done).await;
    for _ in 0..20 {
        quick().await;
    }
    let held = resident_mib(&service).saturating_sub(before);
    println!("beside {LINES} lines that nobody reads: {held} MiB more");
    assert!(held < 64, "{held} MiB");
    let talk = slow.rest().await;
    assert_eq!(talk.last()["output"], json!(1), "{:?}", talk.last());
    assert_eq!(talk.close, Some(1000));
    let lost = talk.frames.iter().filter(|frame| frame["event"] == "dropped");
    let lost: u64 = lost.map(|frame| frame["lines"].as_u64().unwrap()).sum();
    let heard = lines(&talk).len() as u64;
    println!("{heard} lines heard, {lost} lost");
    assert!(lost > 0, "nothing was lost");
    assert_eq!(heard + lost, LINES, "each line is heard, or told as lost");
}

#[tokio::test]
async fn a_client_that_leaves_while_its_tool_prints_is_felt_by_nobody() {
    let (service, gate) = (Launch::new().limits().executors(1).start().await, Gate::new());
    service.create(&tool("talkative", talkative(&gate))).await;
    service.create(&tool("quick", shell("printf 2"))).await;
    let (mut socket, _) = accepted(&service, "talkative", json!({}), json!({ "stream": true })).await;
    assert_eq!(socket.frame().await.unwrap()["event"], "started");
    drop(socket);
    // On the only executor, so after the other one's end.
    assert_eq!(*service.run("tool", "quick", json!({})).await.output(), json!(2));
    assert_eq!(gate.read("marks").lines().count(), 1);
}

#[tokio::test]
async fn a_line_is_heard_while_its_program_still_runs() {
    let (service, gate) = (Launch::new().limits().start().await, Gate::new());
    let metadata = gate.program("echo after >&2; printf 1");
    let script = metadata["args"][1].as_str().unwrap();
    service.create(&tool("talking", shell(&format!("echo before >&2; {script}")))).await;
    let (mut socket, uuid) = accepted(&service, "talking", json!({}), json!({ "stream": true })).await;
    assert_eq!(socket.frame().await.unwrap()["event"], "started");
    let frame = socket.frame().await.unwrap();
    assert_eq!(
        (&frame["event"], &frame["line"], &frame["uuid"]),
        (&json!("log"), &json!("before"), &json!(uuid))
    );
    gate.open();
    let talk = socket.rest().await;
    assert_eq!(talk.last()["output"], json!(1), "{talk:?}");
    assert_eq!(lines(&talk), ["after"]);
}

#[tokio::test]
async fn two_that_run_at_once_hear_only_their_own() {
    let (service, gate) = (Launch::new().limits().executors(2).start().await, Gate::new());
    service.create(&tool("talking", gate.program("cat >&2; printf 1"))).await;
    let one = streamed(&service, "talking", json!({ "who": "one" }));
    let other = streamed(&service, "talking", json!({ "who": "other" }));
    let both = async {
        gate.arrived(2).await;
        gate.open();
    };
    let (one, other, ()) = tokio::join!(one, other, both);
    for (talk, who) in [(one, "one"), (other, "other")] {
        assert_eq!(lines(&talk), [json!({ "who": who }).to_string()]);
        let uuid = json!(talk.uuid());
        let is_own = |frame: &Value| is_final(frame) || frame["uuid"] == uuid;
        assert!(talk.frames.iter().all(is_own), "{talk:?}");
    }
}
