//! What is admitted, in which order it runs, and how many at once.

use serde_json::{Value, json};

use crate::program::{Gate, shell, tool};
use crate::service::{Launch, PATIENCE, Service, eventually, request_with};
use crate::socket::Socket;

/// A session whose request was accepted.
async fn accepted(service: &Service, id: &str, options: Value) -> Socket {
    let mut socket = service.socket("/tool").await;
    let text = request_with("tool", id, json!({}), options);
    socket.send(&text).await;
    let frame = socket.frame().await.unwrap();
    assert!(frame["uuid"].is_string(), "{frame}");
    socket
}

/// A program that marks its start and its end in a file beside the gate.
fn marking(gate: &Gate) -> Value {
    let marks = gate.path().join("marks").display().to_string();
    shell(&format!("printf s >> {marks}; sleep 0.05; printf e >> {marks}; printf '{{}}'"))
}

/// Runs that many at once and lets all of them succeed.
async fn run_at_once(service: &Service, id: &str, runs: usize) {
    let mut sockets = Vec::new();
    for _ in 0..runs {
        sockets.push(accepted(service, id, json!({})).await);
    }
    for socket in sockets {
        let talk = socket.rest().await;
        assert_eq!(talk.last()["output"], json!({}), "{talk:?}");
    }
}

#[tokio::test]
async fn max_concurrency_of_one_lets_no_two_run_at_once() {
    let (service, gate) = (Launch::new().limits().executors(4).start().await, Gate::new());
    let mut metadata = marking(&gate);
    metadata["max_concurrency"] = json!(1);
    service.create(&tool("alone", metadata)).await;
    run_at_once(&service, "alone", 10).await;
    assert_eq!(gate.read("marks"), "se".repeat(10));
}

#[tokio::test]
async fn max_concurrency_of_one_holds_nobody_else_up() {
    let (service, gate) = (Launch::new().limits().executors(2).start().await, Gate::new());
    let mut metadata = gate.program("printf '{}'");
    metadata["max_concurrency"] = json!(1);
    service.create(&tool("alone", metadata)).await;
    service.create(&tool("other", shell("printf 1"))).await;
    let first = accepted(&service, "alone", json!({})).await;
    gate.arrived(1).await;
    let second = accepted(&service, "alone", json!({})).await;
    let talk = service.run("tool", "other", json!({})).await;
    assert_eq!(*talk.output(), json!(1));
    gate.open();
    for socket in [first, second] {
        assert_eq!(socket.rest().await.last()["output"], json!({}));
    }
}

#[tokio::test]
async fn without_a_bound_executions_run_side_by_side() {
    let (service, gate) = (Launch::new().limits().executors(4).start().await, Gate::new());
    let metadata = gate.program("printf '{}'");
    service.create(&tool("together", metadata)).await;
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(accepted(&service, "together", json!({})).await);
    }
    gate.arrived(4).await;
    gate.open();
    for socket in sockets {
        assert_eq!(socket.rest().await.last()["output"], json!({}));
    }
}

#[tokio::test]
async fn a_full_queue_refuses_with_overloaded() {
    let launch = Launch::new().limits().executors(1).set("POOLS__BINARY__QUEUE", 2);
    let (service, gate) = (launch.start().await, Gate::new());
    let metadata = gate.program("printf '{}'");
    service.create(&tool("waiting", metadata)).await;
    let mut sockets = vec![accepted(&service, "waiting", json!({})).await];
    gate.arrived(1).await;
    for _ in 0..2 {
        sockets.push(accepted(&service, "waiting", json!({})).await);
    }
    for _ in 0..3 {
        let talk = service.run("tool", "waiting", json!({})).await;
        assert_eq!(talk.refusal().1, "overloaded", "{talk:?}");
    }
    gate.open();
    for socket in sockets {
        assert_eq!(socket.rest().await.last()["output"], json!({}));
    }
    let talk = service.run("tool", "waiting", json!({})).await;
    assert_eq!(*talk.output(), json!({}));
}

#[tokio::test]
async fn a_higher_priority_goes_first_and_age_decides_among_equals() {
    let (service, gate) = (Launch::new().limits().executors(1).start().await, Gate::new());
    let metadata = gate.program("printf '{}'");
    service.create(&tool("waiting", metadata)).await;
    let order = gate.path().join("order").display().to_string();
    for id in ["a", "b", "c", "d", "e"] {
        let metadata = shell(&format!("printf {id} >> {order}; printf '{{}}'"));
        service.create(&tool(id, metadata)).await;
    }
    let mut sockets = vec![accepted(&service, "waiting", json!({})).await];
    gate.arrived(1).await;
    let priority = |priority| json!({ "priority": priority });
    for (id, options) in
        [("a", priority(0)), ("b", json!({})), ("c", priority(9)), ("d", priority(9)), ("e", priority(5))]
    {
        sockets.push(accepted(&service, id, options).await);
    }
    gate.open();
    for socket in sockets {
        assert_eq!(socket.rest().await.last()["output"], json!({}));
    }
    assert_eq!(gate.read("order"), "cdbea");
}

#[tokio::test]
async fn a_queued_execution_keeps_the_definition_it_was_accepted_with() {
    let (service, gate) = (Launch::new().limits().executors(1).start().await, Gate::new());
    let metadata = gate.program("printf '{}'");
    service.create(&tool("waiting", metadata)).await;
    service.create(&tool("old", shell("printf 1"))).await;
    let waiting = accepted(&service, "waiting", json!({})).await;
    gate.arrived(1).await;
    let queued = accepted(&service, "old", json!({})).await;
    let new = json!({ "tool_metadata": shell("printf 2") }).to_string();
    assert_eq!(service.rest("PUT", "/tool/old", &new).await.0, 200);
    let renewed = accepted(&service, "old", json!({})).await;
    assert_eq!(service.rest("DELETE", "/tool/old", "").await.0, 200);
    let gone = service.run("tool", "old", json!({})).await;
    assert_eq!(gone.refusal().0, "Tool not registered");
    gate.open();
    assert_eq!(waiting.rest().await.last()["output"], json!({}));
    assert_eq!(queued.rest().await.last()["output"], json!(1));
    assert_eq!(renewed.rest().await.last()["output"], json!(2));
}

#[tokio::test]
async fn an_execution_whose_client_left_goes_on() {
    let (service, gate) = (Launch::new().limits().start().await, Gate::new());
    let done = gate.path().join("done").display().to_string();
    let metadata = gate.program(&format!("echo done >> {done}; printf '{{}}'"));
    service.create(&tool("waiting", metadata)).await;
    let socket = accepted(&service, "waiting", json!({})).await;
    gate.arrived(1).await;
    drop(socket);
    gate.open();
    let ended = || gate.read("done") == "done\n";
    eventually("it went on", PATIENCE, ended).await;
}
