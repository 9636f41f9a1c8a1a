//! What was accepted outlives the process: killed, restarted, drained.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::ledger::Ledger;
use crate::program::{Gate, accepted, shell, tool};
use crate::service::{Launch, PATIENCE, Service, request_with};

/// How many clients there are at a time.
const WIDTH: usize = 16;

/// How often the service is killed; `KILLS` says otherwise.
const KILLS: usize = 100;

/// The record of an execution that has ended.
pub async fn ended(service: &Service, uuid: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, answer) = service.rest("GET", &format!("/execution/{uuid}"), "").await;
        assert_eq!(status, 200, "{answer}");
        let data = &answer["data"];
        if data.get("ended_ms").is_some() {
            return data.clone();
        }
        assert!(Instant::now() < deadline, "{answer}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Ends it at once, and starts it again on the same folder.
pub async fn killed(service: Service) -> (Service, Duration) {
    killed_with(service, |launch| launch).await
}

async fn killed_with(mut service: Service, change: impl FnOnce(Launch) -> Launch) -> (Service, Duration) {
    service.signal(Signal::SIGKILL);
    service.exit().await;
    let folder = service.folder();
    drop(service);
    let start = Instant::now();
    let service = change(Launch::on(folder).limits().executors(4)).start().await;
    ready(&service).await;
    (service, start.elapsed())
}

/// Waits until it takes work.
pub async fn ready(service: &Service) {
    let start = Instant::now();
    while service.rest("GET", "/readyz", "").await.0 != 200 {
        assert!(start.elapsed() < PATIENCE, "not ready");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// How long a life lasts until it is ended at any moment of it.
pub fn moment(seed: u64, round: usize) -> Duration {
    // SplitMix64.
    let mixed = seed.wrapping_add((round as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Duration::from_millis(50 + (mixed ^ (mixed >> 31)) % 400)
}

#[tokio::test]
async fn what_waits_runs_after_a_kill_in_its_old_order_with_the_revision_that_was_accepted() {
    let service = Launch::new().limits().executors(1).start().await;
    let gate = Gate::new();
    let blocking = json!({ "idempotent": false });
    let mut metadata = gate.program(r#"printf '{"ok":1}'"#);
    metadata["idempotent"] = blocking["idempotent"].clone();
    service.create(&tool("blocking", metadata)).await;
    let file = gate.path().join("order");
    let script = format!("cat >> {}; printf '\"first\"'", file.display());
    let mut waiting = shell(&script);
    waiting["stdin"] = json!("{{number}}\n");
    waiting["output"] = json!({ "result": "json" });
    service.create(&tool("waiting", waiting)).await;

    let (_blocked, blocked) = accepted(&service, "blocking", json!({}), json!({})).await;
    gate.arrived(1).await;
    let mut uuids = Vec::new();
    for number in 0..20 {
        let (_, uuid) = accepted(&service, "waiting", json!({ "number": number }), json!({})).await;
        uuids.push(uuid);
    }
    // Neither a new revision nor the end of the definition changes what was accepted.
    let changed = json!({ "tool_metadata": shell("printf '{\"changed\":1}'") });
    assert_eq!(service.rest("PUT", "/tool/waiting", &changed.to_string()).await.0, 200);
    assert_eq!(service.rest("DELETE", "/tool/waiting", "").await.0, 200);

    service.signal(Signal::SIGKILL);
    let folder = service.folder();
    drop(service);
    let service = Launch::on(folder).limits().executors(1).start().await;
    for uuid in &uuids {
        let record = ended(&service, uuid).await;
        assert_eq!(
            (&record["state"], &record["output"]),
            (&json!("succeeded"), &json!({ "result": "first" }))
        );
        assert_eq!((&record["tool_id"], &record["attempts"]), (&json!("waiting"), &json!(1)), "{record}");
    }
    let order: Vec<usize> = gate.read("order").lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(order, (0..20).collect::<Vec<_>>());
    // What was running and may run once only has ended.
    let record = ended(&service, &blocked).await;
    assert_eq!(
        (&record["state"], &record["code"]),
        (&json!("interrupted"), &json!("interrupted")),
        "{record}"
    );
}

#[tokio::test]
async fn what_was_running_runs_again_after_a_kill_where_it_may() {
    let service = Launch::new().limits().executors(1).start().await;
    let gate = Gate::new();
    let mut metadata = gate.program(r#"printf '{"ok":1}'"#);
    metadata["idempotent"] = json!(true);
    service.create(&tool("again", metadata)).await;
    let (_socket, uuid) = accepted(&service, "again", json!({}), json!({})).await;
    gate.arrived(1).await;
    let (service, _) = killed(service).await;
    gate.arrived(2).await;
    gate.open();
    let record = ended(&service, &uuid).await;
    assert_eq!((&record["state"], &record["output"]), (&json!("succeeded"), &json!({ "ok": 1 })), "{record}");
}

#[tokio::test]
async fn an_execution_that_kills_the_service_each_time_ends_in_a_crash_loop() {
    let mut service = Launch::new().limits().executors(1).start().await;
    let gate = Gate::new();
    let mut metadata = gate.program(r#"printf '{"ok":1}'"#);
    metadata["idempotent"] = json!(true);
    service.create(&tool("again", metadata)).await;
    service.create(&tool("first", shell("printf 1"))).await;
    service.run_tool("first", json!({})).await;
    // An executor is free: that it begins is on record with its acceptance.
    let (_socket, uuid) = accepted(&service, "again", json!({}), json!({})).await;
    for begun in 1..=5 {
        gate.arrived(begun).await;
        service = killed(service).await.0;
    }
    let record = ended(&service, &uuid).await;
    assert_eq!(
        (&record["state"], &record["code"]),
        (&json!("interrupted"), &json!("crash_loop")),
        "{record}"
    );
    assert_eq!(record["attempts"], 5, "{record}");
}

#[tokio::test]
async fn what_waits_at_a_shutdown_runs_at_the_next_start() {
    let service = Launch::new().limits().executors(1).set("DISPATCHER__GRACE_MS", 10_000).start().await;
    let gate = Gate::new();
    service.create(&tool("gated", gate.program(r#"printf '{"ok":1}'"#))).await;
    let (running, _) = accepted(&service, "gated", json!({}), json!({})).await;
    gate.arrived(1).await;
    let (waiting, uuid) = accepted(&service, "gated", json!({}), json!({})).await;
    let folder = service.folder();
    service.signal(Signal::SIGTERM);
    // Its client is told that the service goes, and nothing of an outcome.
    let told = waiting.rest().await;
    assert_eq!((told.frames.len(), told.close), (0, Some(1001)), "{told:?}");
    gate.open();
    assert_eq!(running.rest().await.last()["output"], json!({ "ok": 1 }));
    let mut service = service;
    assert_eq!(service.exit().await.code(), Some(0));
    drop(service);
    let service = Launch::on(folder).limits().start().await;
    let record = ended(&service, &uuid).await;
    assert_eq!((&record["state"], &record["output"]), (&json!("succeeded"), &json!({ "ok": 1 })), "{record}");
}

#[tokio::test]
async fn the_same_idempotency_key_is_the_same_execution() {
    let mut service = Launch::new().limits().executors(2).start().await;
    let gate = Gate::new();
    service.create(&tool("gated", gate.program(r#"printf '{"ok":1}'"#))).await;
    let with_key = json!({ "idempotency_key": "k" });
    let (first, uuid) = accepted(&service, "gated", json!({ "n": 1 }), with_key.clone()).await;
    gate.arrived(1).await;
    let (second, same) = accepted(&service, "gated", json!({ "n": 1 }), with_key.clone()).await;
    assert_eq!(same, uuid);
    let other = request_with("tool", "gated", json!({ "n": 2 }), with_key.clone());
    assert_eq!(service.talk("/tool", &other).await.refusal().1, "conflict");
    gate.open();
    for socket in [first, second] {
        assert_eq!(socket.rest().await.last()["output"], json!({ "ok": 1 }));
    }
    // Remembered, and after a kill recorded.
    for _ in 0..2 {
        let again = request_with("tool", "gated", json!({ "n": 1 }), with_key.clone());
        let talk = service.talk("/tool", &again).await;
        assert_eq!((talk.uuid(), talk.output()), (Some(uuid.as_str()), &json!({ "ok": 1 })));
        let execute = |input: &'static str| {
            let url = service.url("/tool/gated/execute?wait=10");
            let request = service.client().post(url).header("Idempotency-Key", "k");
            request.header("content-type", "application/json").body(input).send()
        };
        let answer = execute(r#"{"n":1}"#).await.unwrap();
        assert_eq!(answer.status(), 200);
        let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!((&answer["data"]["uuid"], &answer["data"]["output"]), (&json!(uuid), &json!({ "ok": 1 })));
        assert_eq!(execute(r#"{"n":2}"#).await.unwrap().status(), 409);
        service = killed(service).await.0;
    }
    assert_eq!(gate.read("arrived").lines().count(), 1, "it ran once");
}

#[tokio::test]
async fn old_executions_are_forgotten_by_number() {
    let service =
        Launch::new().limits().set("JOURNAL__KEEP_COUNT", 10).set("JOURNAL__SWEEP_MS", 50).start().await;
    service.create(&tool("quick", shell("printf 1"))).await;
    let mut uuids = Vec::new();
    for _ in 0..30 {
        let (status, answer) = service.rest("POST", "/tool/quick/execute?wait=10", "{}").await;
        assert_eq!((status, &answer["data"]["output"]), (200, &json!(1)), "{answer}");
        uuids.push(answer["data"]["uuid"].as_str().unwrap().to_owned());
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, answer) = service.rest("GET", "/executions?limit=100", "").await;
        let left: Vec<&str> =
            answer["data"].as_array().unwrap().iter().map(|one| one["uuid"].as_str().unwrap()).collect();
        if left.len() <= 10 {
            let newest: Vec<&str> = uuids.iter().rev().take(10).map(String::as_str).collect();
            assert_eq!(left, newest);
            break;
        }
        assert!(Instant::now() < deadline, "{} are left", left.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(service.rest("GET", &format!("/execution/{}", uuids[0]), "").await.0, 404);
}

#[tokio::test]
async fn executions_are_listed_by_state_definition_and_time_page_by_page() {
    let service = Launch::new().limits().executors(1).start().await;
    let gate = Gate::new();
    service.create(&tool("good", shell("printf 1"))).await;
    service.create(&tool("bad", shell("exit 3"))).await;
    service.create(&tool("gated", gate.program("printf 1"))).await;
    let mut uuids = Vec::new();
    for number in 0..10 {
        let tool = if number % 2 == 0 { "good" } else { "bad" };
        let (status, answer) = service.rest("POST", &format!("/tool/{tool}/execute?wait=10"), "{}").await;
        assert_eq!(status, 200, "{answer}");
        let state = if number % 2 == 0 { "succeeded" } else { "failed" };
        assert_eq!(answer["data"]["state"], state, "{answer}");
        uuids.push(answer["data"]["uuid"].as_str().unwrap().to_owned());
    }
    for _ in 0..2 {
        let (status, answer) = service.rest("POST", "/tool/gated/execute?wait=0", "{}").await;
        assert_eq!(status, 202, "{answer}");
        uuids.push(answer["data"]["uuid"].as_str().unwrap().to_owned());
    }
    gate.arrived(1).await;
    uuids.reverse();
    let list = async |query: &str| {
        let (status, answer) = service.rest("GET", &format!("/executions?{query}"), "").await;
        assert_eq!(status, 200, "{answer}");
        let data = answer["data"].as_array().unwrap().clone();
        let found: Vec<String> = data.iter().map(|one| one["uuid"].as_str().unwrap().to_owned()).collect();
        (found, answer["next"].as_str().map(str::to_owned), data)
    };
    assert_eq!(list("").await.0, uuids);
    // Page by page, across what is open and what has ended.
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let (found, next, _) = list(&format!("limit=5{cursor}")).await;
        assert!(found.len() <= 5);
        pages.extend(found);
        let Some(next) = next else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(pages, uuids);
    for (query, expected) in [
        ("state=running", 1),
        ("state=queued", 1),
        ("state=succeeded", 5),
        ("state=failed&tool_id=bad", 5),
        ("state=failed&tool_id=good", 0),
        ("tool_id=gated", 2),
        ("function_id=good", 0),
        ("to_ms=1", 0),
        ("from_ms=1", 12),
    ] {
        assert_eq!(list(query).await.0.len(), expected, "{query}");
    }
    let (_, _, data) = list("state=failed&limit=1").await;
    assert_eq!((&data[0]["code"], &data[0]["input"]), (&json!("exit_status"), &json!({})), "{data:?}");
    for (query, field) in [
        ("state=happy", "state"),
        ("limit=0", "limit"),
        ("cursor=x", "cursor"),
        ("from_ms=x", "from_ms"),
        ("tool_id=a&function_id=b", "function_id"),
    ] {
        let (status, answer) = service.rest("GET", &format!("/executions?{query}"), "").await;
        assert_eq!((status, &answer["details"]["field"]), (400, &json!(field)), "{query}: {answer}");
    }
    let (status, answer) = service.rest("POST", "/tool/good/execute?wait=x", "{}").await;
    assert_eq!((status, &answer["details"]["field"]), (400, &json!("wait")), "{answer}");
    gate.open();
}

#[tokio::test]
async fn the_end_of_a_log_is_kept() {
    let service = Launch::new().limits().executors(1).start().await;
    let gate = Gate::new();
    service.create(&tool("talks", gate.program("echo two >&2; printf 1"))).await;
    let (socket, uuid) = accepted(&service, "talks", json!({}), json!({})).await;
    gate.arrived(1).await;
    let log = async |service: &Service| {
        let (status, answer) = service.rest("GET", &format!("/execution/{uuid}/log"), "").await;
        assert_eq!(status, 200, "{answer}");
        answer["data"]["lines"].clone()
    };
    assert_eq!(log(&service).await, json!([]));
    gate.open();
    assert_eq!(socket.rest().await.last()["output"], json!(1));
    assert_eq!(log(&service).await, json!(["two"]));
    let (service, _) = killed(service).await;
    assert_eq!(log(&service).await, json!(["two"]));
    let unknown = format!("/execution/{}/log", uuid::Uuid::nil());
    assert_eq!(service.rest("GET", &unknown, "").await.0, 404);
}

/// Every actor in turn; of registry and dispatcher no more than the root bears.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_actor_fails_nothing_is_lost_and_nothing_runs_twice() {
    const ACTORS: [&str; 8] = [
        "journal",
        "dispatcher",
        "pool:binary",
        "executor:binary",
        "registry",
        "session",
        "pools",
        "sessions",
    ];
    let rounds = std::env::var("FAULTS").map_or(40, |rounds| rounds.parse().unwrap());
    let service = Launch::new().limits().executors(4).start().await;
    let ledger = Ledger::new();
    ledger.register(&service).await;
    ledger.serve(&service);
    let clients = ledger.clients(WIDTH);
    let mut failed = 0;
    for round in 0..rounds {
        tokio::time::sleep(Duration::from_millis(320)).await;
        // There may be no session at that moment.
        failed += usize::from(service.panic(ACTORS[round % ACTORS.len()]).await.is_ok());
    }
    ledger.end(clients).await;
    let account = ledger.account(&service).await;
    println!("{failed} faults, {} uuids seen, {} told: {:?}", account.seen, account.told, account.states);
    account.assert_good();
    assert_eq!(service.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_the_service_is_killed_nothing_is_lost_and_nothing_runs_twice() {
    let kills = std::env::var("KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let seed = uuid::Uuid::now_v7().as_u128() as u64;
    println!("seed {seed}");
    let mut service = Launch::new().limits().executors(4).start().await;
    let ledger = Ledger::new();
    ledger.register(&service).await;
    ledger.serve(&service);
    let clients = ledger.clients(WIDTH);
    let (begin, mut starts, mut up) = (Instant::now(), Vec::new(), Duration::ZERO);
    for kill in 0..kills {
        let life = moment(seed, kill);
        tokio::time::sleep(life).await;
        up += life;
        let (next, took) = killed(service).await;
        service = next;
        starts.push(took);
        ledger.serve(&service);
    }
    ledger.end(clients).await;
    starts.sort();
    let requests = ledger.requests();
    println!(
        "{kills} kills in {:.1?}: {requests} requests, {:.0}/s while it was up; ready after {:.0?}, at worst {:.0?}",
        begin.elapsed(),
        requests as f64 / up.as_secs_f64(),
        starts[starts.len() / 2],
        starts[starts.len() - 1],
    );
    let account = ledger.account(&service).await;
    println!(
        "{} uuids seen, {} told their outcome at once: {:?}",
        account.seen, account.told, account.states
    );
    account.assert_good();
}

/// More than the store is asked for at a time, and more than one page has.
#[tokio::test]
async fn of_a_long_list_of_executions_none_is_left_out() {
    const COUNT: usize = 1_300;
    let service = Launch::new().limits().start().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = service.url("/tool/binary-increment-tool/execute?wait=30");
    let runs = futures_util::stream::iter(0..COUNT).map(|number| {
        let request = client.post(&url).header("content-type", "application/json");
        let request = request.body(json!({ "value": number }).to_string());
        async move {
            let answer = request.send().await.unwrap().bytes().await.unwrap();
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            assert_eq!(answer["data"]["state"], "succeeded", "{answer}");
            answer["data"]["uuid"].as_str().unwrap().to_owned()
        }
    });
    let mut uuids: Vec<String> = runs.buffer_unordered(16).collect().await;
    // Those that the dispatcher remembers are not all of them; another process has only the record.
    let folder = service.folder();
    assert!(service.stop().await.success());
    let service = Launch::on(folder).limits().start().await;
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let (status, page) = service.rest("GET", &format!("/executions?limit=600{cursor}"), "").await;
        assert_eq!(status, 200, "{page}");
        let items = page["data"].as_array().unwrap();
        found.extend(items.iter().map(|one| one["uuid"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    uuids.sort_unstable();
    uuids.reverse();
    assert_eq!(found.len(), COUNT);
    assert_eq!(found, uuids);
}

#[tokio::test]
async fn what_was_answered_as_cancelled_does_not_run_after_a_kill() {
    let service = Launch::new().limits().executors(1).start().await;
    let gate = Gate::new();
    service.create(&tool("gated", gate.program("printf 1"))).await;
    let mut again = gate.program("printf 1");
    again["idempotent"] = json!(true);
    service.create(&tool("again", again)).await;
    let (_socket, running) = accepted(&service, "again", json!({}), json!({})).await;
    gate.arrived(1).await;
    let mut uuids = vec![running];
    for _ in 0..8 {
        uuids.push(accepted(&service, "gated", json!({}), json!({})).await.1);
    }
    let cancels =
        uuids.iter().map(async |uuid| service.rest("DELETE", &format!("/execution/{uuid}"), "").await);
    for (status, answer) in join_all(cancels).await {
        assert_eq!(status, 200, "{answer}");
    }
    let (service, _) = killed(service).await;
    for uuid in uuids {
        let record = ended(&service, &uuid).await;
        assert_eq!(record["state"], "cancelled", "{record}");
    }
}

#[tokio::test]
async fn an_idempotency_key_over_rest_is_any_text_and_nothing_else() {
    let service = Launch::new().limits().memory().start().await;
    service.create(&tool("one", shell("printf 1"))).await;
    let asked = async |key: &[u8]| {
        let request = service.client().post(service.url("/tool/one/execute"));
        let request = request.header("content-type", "application/json").body("{}");
        let key = reqwest::header::HeaderValue::from_bytes(key).unwrap();
        let response = request.header("Idempotency-Key", key).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let (first, second) = (asked("für-17".as_bytes()).await, asked("für-17".as_bytes()).await);
    assert_eq!(first.0, 202, "{first:?}");
    assert_eq!(first, second);
    let (status, answer) = asked(b"f\xfcr-17").await;
    assert_eq!((status, &answer["details"]["field"]), (400, &json!("Idempotency-Key")), "{answer}");
}
