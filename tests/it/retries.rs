//! An execution that failed is tried again where its definition says so, and not otherwise.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::census::processes_of;
use crate::durable::ended;
use crate::program::{Gate, accepted, put_source, python, shell, streamed, tool};
use crate::service::{Launch, PATIENCE, Service};

/// A program that counts its runs beside the gate, fails before its run of this number, and then says it.
fn succeeding_at(gate: &Gate, run: u32) -> Value {
    let runs = gate.path().join("runs").display().to_string();
    shell(&format!(
        "echo run >> {runs}; n=$(wc -l < {runs}); [ $n -ge {run} ] || {{ echo not yet >&2; exit 7; }}; printf $n"
    ))
}

/// With so many retries, after pauses that begin with this one.
fn retried(mut metadata: Value, max: u32, backoff_ms: u64) -> Value {
    metadata["idempotent"] = json!(true);
    metadata["retries"] = json!({ "max": max, "backoff_ms": backoff_ms });
    metadata
}

fn runs(gate: &Gate) -> usize {
    gate.read("runs").lines().count()
}

/// Waits until one execution pauses before its next attempt.
async fn is_pausing(service: &Service) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, answer) = service.rest("GET", "/system", "").await;
        let queue = &answer["data"]["tree"]["queues"]["binary"];
        if queue["retrying"] == 1 {
            return;
        }
        assert!(Instant::now() < deadline, "{queue}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_program_that_fails_twice_and_then_succeeds_succeeds() {
    let (service, gate) = (Launch::new().limits().start().await, Gate::new());
    service.create(&tool("flaky", retried(succeeding_at(&gate, 3), 3, 10))).await;
    let talk = streamed(&service, "flaky", json!({})).await;
    assert_eq!(*talk.output(), json!(3));
    assert_eq!(runs(&gate), 3, "and not once more");
    let starts = talk.frames.iter().filter(|frame| frame["event"] == "started").count();
    assert_eq!(starts, 1, "{talk:?}");
}

#[tokio::test]
async fn after_as_many_retries_as_there_may_be_the_last_failure_counts() {
    let (service, gate) = (Launch::new().limits().start().await, Gate::new());
    service.create(&tool("failing", retried(succeeding_at(&gate, 100), 2, 10))).await;
    let talk = service.run("tool", "failing", json!({})).await;
    let (error, code) = talk.error();
    assert_eq!(code, "exit_status", "{error}");
    assert!(error.contains("not yet"), "{error}");
    assert_eq!((talk.frames.len(), runs(&gate)), (2, 3));
}

#[tokio::test]
async fn starts_of_the_service_in_between_are_neither_new_counts_nor_lost_executors() {
    let (mut service, gate) = (Launch::new().limits().executors(1).start().await, Gate::new());
    service.create(&tool("failing", retried(succeeding_at(&gate, 100), 6, 60_000))).await;
    let (_, uuid) = accepted(&service, "failing", json!({}), json!({})).await;
    for run in 1..=6 {
        is_pausing(&service).await;
        assert_eq!(runs(&gate), run);
        let folder = service.folder();
        assert!(service.stop().await.success());
        service = Launch::on(folder).limits().executors(1).start().await;
    }
    let record = ended(&service, &uuid).await;
    assert_eq!((&record["code"], &record["attempts"]), (&json!("exit_status"), &json!(7)), "{record}");
    assert_eq!(runs(&gate), 7);
}

#[tokio::test]
async fn each_pause_is_twice_as_long_as_the_one_before() {
    let (service, gate) = (Launch::new().limits().start().await, Gate::new());
    service.create(&tool("failing", retried(succeeding_at(&gate, 100), 3, 50))).await;
    let start = Instant::now();
    service.run("tool", "failing", json!({})).await.error();
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(50 + 100 + 200), "{took:?}");
}

#[tokio::test]
async fn without_retries_a_failure_is_final() {
    let (service, gate) = (Launch::new().limits().start().await, Gate::new());
    let mut idempotent = succeeding_at(&gate, 2);
    idempotent["idempotent"] = json!(true);
    service.create(&tool("failing", idempotent)).await;
    assert_eq!(service.run("tool", "failing", json!({})).await.error().1, "exit_status");
    assert_eq!(runs(&gate), 1);
}

#[tokio::test]
async fn retries_are_refused_to_what_may_run_once_only() {
    let service = Launch::new().limits().start().await;
    for (idempotent, retries, field) in [
        (json!(false), json!({ "max": 1 }), "tool_metadata.retries"),
        (Value::Null, json!({ "max": 1 }), "tool_metadata.retries"),
        (json!(true), json!({ "max": 101 }), "tool_metadata.retries.max"),
        (json!(true), json!({ "max": 1, "backoff_ms": 3_600_001 }), "tool_metadata.retries.backoff_ms"),
    ] {
        let mut metadata = shell("exit 1");
        metadata["retries"] = retries;
        if !idempotent.is_null() {
            metadata["idempotent"] = idempotent;
        }
        let body = tool("refused", metadata).to_string();
        let (status, answer) = service.rest("POST", "/tool", &body).await;
        assert_eq!((status, &answer["details"]["field"]), (400, &json!(field)), "{answer}");
    }
}

#[tokio::test]
async fn a_timeout_is_tried_again_too() {
    let (service, gate) = (Launch::new().limits().start().await, Gate::new());
    let runs = gate.path().join("runs").display().to_string();
    let script = format!("echo run >> {runs}; [ $(wc -l < {runs}) -ge 2 ] || sleep 60; printf 1");
    let mut metadata = retried(shell(&script), 1, 10);
    metadata["limits"] = json!({ "timeout_ms": 500 });
    service.create(&tool("slow", metadata)).await;
    let talk = service.run("tool", "slow", json!({})).await;
    assert_eq!(*talk.output(), json!(1));
}

const FLAKY: &str = r#"
def handler(input, context):
    if context.attempt < 3:
        raise ValueError("not yet")
    return context.attempt
"#;

#[tokio::test]
async fn a_handler_is_told_which_attempt_it_is() {
    let service = Launch::new().limits().start().await;
    put_source(&service, "flaky.py", FLAKY);
    service.create(&tool("flaky", retried(python("flaky.py"), 5, 10))).await;
    let talk = service.run("tool", "flaky", json!({})).await;
    assert_eq!(*talk.output(), json!(3));
}

#[tokio::test]
async fn what_pauses_before_a_retry_holds_nobody_up_and_can_be_cancelled() {
    let (service, gate) = (Launch::new().limits().executors(1).start().await, Gate::new());
    service.create(&tool("failing", retried(succeeding_at(&gate, 100), 3, 60_000))).await;
    service.create(&tool("quick", shell("printf 1"))).await;
    for by_rest in [false, true] {
        let (mut socket, uuid) = accepted(&service, "failing", json!({}), json!({})).await;
        is_pausing(&service).await;
        assert_eq!(*service.run("tool", "quick", json!({})).await.output(), json!(1));
        if by_rest {
            assert_eq!(service.rest("DELETE", &format!("/execution/{uuid}"), "").await.0, 200);
        } else {
            socket.send(&json!({ "cancel": uuid }).to_string()).await;
        }
        let talk = socket.rest().await;
        assert_eq!((talk.frames.len(), talk.error().1), (1, "cancelled"));
    }
    assert_eq!(runs(&gate), 2);
}

#[tokio::test]
async fn what_is_cancelled_while_it_runs_is_not_tried_again() {
    let (service, gate) = (Launch::new().limits().executors(1).start().await, Gate::new());
    service.create(&tool("waiting", retried(gate.program("exit 7"), 3, 10))).await;
    service.create(&tool("quick", shell("printf 1"))).await;
    let (mut socket, uuid) = accepted(&service, "waiting", json!({}), json!({})).await;
    gate.arrived(1).await;
    socket.send(&json!({ "cancel": uuid }).to_string()).await;
    assert_eq!(socket.rest().await.error().1, "cancelled");
    assert!(processes_of(&uuid).is_empty());
    gate.open();
    // On the only executor it would have come first.
    assert_eq!(*service.run("tool", "quick", json!({})).await.output(), json!(1));
    assert_eq!(gate.read("arrived").lines().count(), 1);
}
