//! Many executions on one connection.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::program::{Gate, accepted, shell, tool};
use crate::service::{Launch, PATIENCE};
use crate::socket::{Socket, is_final};

fn run(id: impl Into<Value>, tool: &str, input: Value) -> String {
    json!({ "id": id.into(), "tool_id": tool, "input_data": input }).to_string()
}

/// The next frame that ends a request.
async fn last(socket: &mut Socket) -> Value {
    loop {
        let frame = socket.frame().await.expect("an open connection");
        if is_final(&frame) {
            return frame;
        }
    }
}

#[tokio::test]
async fn each_request_is_accepted_and_answered_under_its_name() {
    let service = Launch::new().limits().start().await;
    service.create(&tool("add", shell("read text; printf '%s' \"$text\""))).await;
    let mut socket = service.socket("/session").await;
    for number in 0..50 {
        socket.send(&run(number, "binary-increment-tool", json!({ "value": number }))).await;
    }
    socket
        .send(
            &json!({ "id": "f", "function_id": "weather_lookup", "input_data": { "city": "Delhi" } })
                .to_string(),
        )
        .await;
    let (mut uuids, mut outputs) = (BTreeMap::new(), BTreeMap::new());
    while outputs.len() < 51 {
        let frame = socket.frame().await.expect("an open connection");
        assert_eq!(frame["success"], true, "{frame}");
        let (id, uuid) = (frame["id"].to_string(), frame["uuid"].clone());
        match frame.get("output") {
            None => assert!(uuids.insert(id, uuid).is_none(), "{frame}"),
            Some(output) => {
                assert_eq!(uuids.get(&id), Some(&uuid), "{frame}");
                outputs.insert(id, output.clone());
            }
        }
    }
    for number in 0..50 {
        assert_eq!(outputs[&number.to_string()], json!({ "result": number + 1 }));
    }
    assert_eq!(outputs["\"f\""], json!({ "temperature": 25, "unit": "C" }));
    assert_eq!(uuids.values().map(Value::to_string).collect::<BTreeSet<_>>().len(), 51);
}

#[tokio::test]
async fn bad_requests_are_refused_and_the_connection_stays() {
    let service = Launch::new().limits().start().await;
    let mut socket = service.socket("/session").await;
    for (text, id, code) in [
        ("nonsense", Value::Null, "invalid"),
        (r#"{"tool_id":"t","input_data":{}}"#, Value::Null, "invalid"),
        (r#"{"id":1,"tool_id":"none","input_data":{}}"#, json!(1), "not_found"),
        (
            r#"{"id":"2","tool_id":"binary-increment-tool","input_data":{"value":"x"}}"#,
            json!("2"),
            "unprocessable",
        ),
        (r#"{"id":3,"cancel":"00000000-0000-0000-0000-000000000000"}"#, json!(3), "not_found"),
        (r#"{"id":4,"attach":"00000000-0000-0000-0000-000000000000"}"#, json!(4), "not_found"),
        (r#"{"id":5,"attach":"x"}"#, json!(5), "invalid"),
    ] {
        socket.send(text).await;
        let frame = socket.frame().await.expect("an open connection");
        assert_eq!((&frame["success"], &frame["code"]), (&json!(false), &json!(code)), "{text}: {frame}");
        assert_eq!(frame["id"], id, "{text}: {frame}");
    }
    socket.send(&run("last", "binary-increment-tool", json!({ "value": 1 }))).await;
    assert_eq!(last(&mut socket).await["output"], json!({ "result": 2 }));
}

#[tokio::test]
async fn what_was_asked_for_before_a_message_that_is_no_request_is_told_before_the_end() {
    let service = Launch::new().limits().start().await;
    let gate = Gate::new();
    service.create(&tool("gated", gate.program("printf 1"))).await;
    let mut socket = service.socket("/session").await;
    socket.send_all((0..3).map(|number| run(number, "gated", json!({})))).await;
    let talk = socket.send_and_hear(Message::binary(vec![0_u8; 10])).await;
    let (told, refused) = talk.frames.split_at(3);
    let ids: BTreeSet<i64> = told.iter().map(|frame| frame["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, BTreeSet::from([0, 1, 2]), "{talk:?}");
    assert!(told.iter().all(|frame| frame["uuid"].is_string()), "{talk:?}");
    assert_eq!(
        (refused.len(), &refused[0]["code"], talk.close),
        (1, &json!("invalid"), Some(1003)),
        "{talk:?}"
    );
    gate.open();
}

#[tokio::test]
async fn an_execution_is_cancelled_and_others_go_on() {
    let service = Launch::new().limits().executors(4).start().await;
    let gate = Gate::new();
    service.create(&tool("gated", gate.program(r#"printf '{"ok":1}'"#))).await;
    let mut socket = service.socket("/session").await;
    socket.send(&run("a", "gated", json!({}))).await;
    let first = socket.frame().await.unwrap();
    socket.send(&run("b", "gated", json!({}))).await;
    socket.frame().await.unwrap();
    gate.arrived(2).await;
    socket.send(&json!({ "id": "c", "cancel": first["uuid"] }).to_string()).await;
    let frames = [socket.frame().await.unwrap(), socket.frame().await.unwrap()];
    let named =
        |id: &str| frames.iter().find(|frame| frame["id"] == id).unwrap_or_else(|| panic!("{frames:?}"));
    assert_eq!(named("c")["event"], "cancelling", "{frames:?}");
    assert_eq!(named("a")["code"], "cancelled", "{frames:?}");
    gate.open();
    let frame = last(&mut socket).await;
    assert_eq!((&frame["id"], &frame["output"]), (&json!("b"), &json!({ "ok": 1 })));
    // What has ended cannot be cancelled, and says so.
    socket.send(&json!({ "id": "d", "cancel": first["uuid"] }).to_string()).await;
    assert_eq!(last(&mut socket).await["code"], "conflict");
}

#[tokio::test]
async fn an_outcome_is_had_by_whoever_attaches() {
    let service = Launch::new().limits().executors(2).start().await;
    let gate = Gate::new();
    service.create(&tool("gated", gate.program(r#"printf '{"ok":1}'"#))).await;
    let (elsewhere, uuid) = accepted(&service, "gated", json!({}), json!({})).await;
    let mut socket = service.socket("/session").await;
    socket.send(&json!({ "id": 1, "attach": uuid }).to_string()).await;
    let told = socket.frame().await.unwrap();
    assert_eq!((&told["id"], &told["uuid"], told.get("output")), (&json!(1), &json!(uuid), None), "{told}");
    gate.open();
    let frame = last(&mut socket).await;
    assert_eq!((&frame["id"], &frame["output"]), (&json!(1), &json!({ "ok": 1 })));
    assert_eq!(elsewhere.rest().await.last()["output"], json!({ "ok": 1 }));
    // Also long after, from the record.
    let folder = service.folder();
    assert_eq!(service.stop().await.code(), Some(0));
    let service = Launch::on(folder).limits().start().await;
    let mut socket = service.socket("/session").await;
    socket.send(&json!({ "id": 2, "attach": uuid }).to_string()).await;
    let frame = last(&mut socket).await;
    assert_eq!((&frame["id"], &frame["output"]), (&json!(2), &json!({ "ok": 1 })));
}

#[tokio::test]
async fn what_a_client_began_goes_on_when_it_leaves_unless_it_is_to_end() {
    for (mode, state) in [("keep", "succeeded"), ("cancel", "cancelled")] {
        let service = Launch::new().limits().executors(1).set("WEBSOCKET__ON_DISCONNECT", mode).start().await;
        let gate = Gate::new();
        service.create(&tool("gated", gate.program(r#"printf '{"ok":1}'"#))).await;
        let mut socket = service.socket("/session").await;
        let mut uuids = Vec::new();
        for number in 0..3 {
            socket.send(&run(number, "gated", json!({}))).await;
            uuids.push(socket.frame().await.unwrap()["uuid"].as_str().unwrap().to_owned());
        }
        gate.arrived(1).await;
        drop(socket);
        if mode == "keep" {
            while service.rest("GET", "/system", "").await.1["data"]["tree"]["sessions"] != 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            gate.open();
        }
        for uuid in uuids {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let (_, answer) = service.rest("GET", &format!("/execution/{uuid}"), "").await;
                if answer["data"]["state"] == state {
                    break;
                }
                assert!(Instant::now() < deadline, "{mode}: {answer}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

#[tokio::test]
async fn log_lines_come_under_the_name_of_their_request() {
    let service = Launch::new().limits().start().await;
    service.create(&tool("talks", shell("echo one >&2; echo '{\"progress\":0.5}' >&2; printf 1"))).await;
    let mut socket = service.socket("/session").await;
    for id in ["a", "b"] {
        let mut request: Value = serde_json::from_str(&run(id, "talks", json!({}))).unwrap();
        request["options"] = json!({ "stream": true });
        socket.send(&request.to_string()).await;
    }
    let mut events = BTreeMap::<String, Vec<String>>::new();
    let mut ended = 0;
    while ended < 2 {
        let frame = socket.frame().await.unwrap();
        let of = events.entry(frame["id"].as_str().unwrap().to_owned()).or_default();
        match frame["event"].as_str() {
            Some(event) => of.push(event.to_owned()),
            None => ended += usize::from(is_final(&frame)),
        }
    }
    for id in ["a", "b"] {
        assert_eq!(events[id], ["started", "log", "progress"], "{events:?}");
    }
}

#[tokio::test]
async fn more_requests_than_the_window_are_read_when_there_is_room() {
    let service = Launch::new().limits().executors(1).set("WEBSOCKET__WINDOW", 2).start().await;
    let gate = Gate::new();
    service.create(&tool("gated", gate.program(r#"printf '{"ok":1}'"#))).await;
    let mut socket = service.socket("/session").await;
    for number in 0..5 {
        socket.send(&run(number, "gated", json!({}))).await;
    }
    let accepted = [socket.frame().await.unwrap(), socket.frame().await.unwrap()];
    assert!(accepted.iter().all(|frame| frame.get("output").is_none()), "{accepted:?}");
    gate.arrived(1).await;
    // The third was not even read.
    let (_, answer) = service.rest("GET", "/executions", "").await;
    assert_eq!(answer["data"].as_array().unwrap().len(), 2, "{answer}");
    gate.open();
    for _ in 0..5 {
        assert_eq!(last(&mut socket).await["output"], json!({ "ok": 1 }));
    }
}

#[tokio::test]
async fn who_only_waits_for_an_execution_does_not_end_it_by_leaving() {
    let launch = Launch::new().limits().executors(1).set("WEBSOCKET__ON_DISCONNECT", "cancel");
    let (service, gate) = (launch.start().await, Gate::new());
    service.create(&tool("gated", gate.program(r#"printf '{"ok":1}'"#))).await;
    let with_key = json!({ "idempotency_key": "k" });
    let (owner, uuid) = accepted(&service, "gated", json!({}), with_key.clone()).await;
    gate.arrived(1).await;
    let (known, same) = accepted(&service, "gated", json!({}), with_key).await;
    assert_eq!(uuid, same);
    let mut attached = service.socket("/session").await;
    attached.send(&json!({ "id": 1, "attach": uuid }).to_string()).await;
    assert_eq!(attached.frame().await.unwrap()["success"], true);
    drop((known, attached));
    while service.rest("GET", "/system", "").await.1["data"]["tree"]["sessions"] != 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    gate.open();
    assert_eq!(owner.rest().await.last()["output"], json!({ "ok": 1 }));
}
