//! How the service starts, drains and ends, and what a streaming client hears.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::census::processes_of;
use crate::program::{Gate, shell, tool};
use crate::service::{Launch, PATIENCE, Service, eventually, request, request_with};
use crate::socket::{Socket, Talk, is_final};

/// A service with an execution that waits at the gate.
async fn waiting(launch: Launch) -> (Service, Gate, Socket, String) {
    let (service, gate) = (launch.start().await, Gate::new());
    let metadata = gate.program(r#"printf '{"ok":1}'"#);
    service.create(&tool("waiting", metadata)).await;
    let (socket, uuid) = accepted(&service).await;
    gate.arrived(1).await;
    (service, gate, socket, uuid)
}

async fn accepted(service: &Service) -> (Socket, String) {
    let mut socket = service.socket("/tool").await;
    socket.send(&request("tool", "waiting", json!({}))).await;
    let frame = socket.frame().await.unwrap();
    let uuid = frame["uuid"].as_str().unwrap().to_owned();
    (socket, uuid)
}

/// Waits until the service says that it is not ready, or does not answer any more.
async fn is_draining(service: &Service) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match service.client().get(service.url("/readyz")).send().await {
            Ok(answer) if answer.status() == 200 => {}
            _ => return,
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the service does not drain");
}

#[tokio::test]
async fn a_running_execution_finishes_within_the_grace() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (mut service, gate, socket, _) = waiting(Launch::new().limits()).await;
        service.signal(signal);
        is_draining(&service).await;
        gate.open();
        let talk = socket.rest().await;
        assert_eq!(talk.last()["output"], json!({ "ok": 1 }), "{talk:?}");
        assert_eq!(talk.close, Some(1000), "{talk:?}");
        assert_eq!(service.exit().await.code(), Some(0));
    }
}

#[tokio::test]
async fn new_work_is_refused_while_it_drains() {
    let (mut service, gate, socket, _) = waiting(Launch::new().limits()).await;
    let mut open_before = service.socket("/tool").await;
    service.signal(Signal::SIGTERM);
    is_draining(&service).await;
    let text = request("tool", "waiting", json!({}));
    open_before.send(&text).await;
    let refused = open_before.rest().await;
    // It may have been closed as idle before it asked.
    match refused.frames.as_slice() {
        [] => assert_eq!(refused.close, Some(1001), "{refused:?}"),
        frames => assert_eq!(frames[0]["code"], "draining", "{refused:?}"),
    }
    if let Ok(talk) = Talk::hold(service.websocket, "/tool", &text).await {
        assert_eq!(talk.last()["code"], "draining", "{talk:?}");
    }
    gate.open();
    assert_eq!(socket.rest().await.last()["output"], json!({ "ok": 1 }));
    assert_eq!(service.exit().await.code(), Some(0));
}

#[tokio::test]
async fn an_idle_connection_is_closed_as_going_away() {
    let service = Launch::new().limits().start().await;
    let idle = service.socket("/tool").await;
    let (status, talk) = tokio::join!(service.stop(), idle.rest());
    assert_eq!(talk.close, Some(1001), "{talk:?}");
    assert!(talk.frames.is_empty(), "{talk:?}");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn what_outlasts_the_grace_is_told_and_ended() {
    let launch = Launch::new().limits().set("DISPATCHER__GRACE_MS", 300);
    let (mut service, _gate, socket, uuid) = waiting(launch).await;
    service.signal(Signal::SIGTERM);
    let talk = socket.rest().await;
    assert_eq!(talk.frames.len(), 1, "{talk:?}");
    assert_eq!(talk.last()["success"], false, "{talk:?}");
    assert_eq!(service.exit().await.code(), Some(0));
    let gone = || processes_of(&uuid).is_empty();
    eventually("its program has ended", Duration::from_secs(2), gone).await;
}

#[tokio::test]
async fn what_outlasts_the_grace_is_on_record_as_ended_where_nobody_listens() {
    let service = Launch::new().limits().set("DISPATCHER__GRACE_MS", 300).start().await;
    let mut metadata = shell("sleep 60");
    service.create(&tool("once", metadata.clone())).await;
    metadata["idempotent"] = json!(true);
    service.create(&tool("again", metadata)).await;
    let mut begun = Vec::new();
    for id in ["once", "again", "once", "again"] {
        let (status, told) = service.rest("POST", &format!("/tool/{id}/execute"), "{}").await;
        assert_eq!(status, 202, "{told}");
        begun.push(told["data"]["uuid"].as_str().unwrap().to_owned());
    }
    let deadline = Instant::now() + PATIENCE;
    while service.rest("GET", "/executions?state=running", "").await.1["data"].as_array().unwrap().len() < 4 {
        assert!(Instant::now() < deadline, "they do not run");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let folder = service.folder();
    assert!(service.stop().await.success());
    let service = Launch::on(folder).limits().start().await;
    for uuid in begun {
        let (_, told) = service.rest("GET", &format!("/execution/{uuid}"), "").await;
        assert_eq!(told["data"]["state"], "interrupted", "{told}");
        assert!(told["data"]["error"].as_str().unwrap().contains("shut down"), "{told}");
    }
}

#[tokio::test]
async fn what_is_kept_is_for_this_user_alone_and_what_is_not_the_services_stays() {
    let launch = Launch::new().limits();
    let theirs = launch.path("data/run/theirs");
    let left = launch.path("data/run/01a2058f-4d50-7178-ba6e-f4ea780dfaa8");
    for folder in [&theirs, &left] {
        std::fs::create_dir_all(folder.join("x")).unwrap();
    }
    let service = launch.start().await;
    assert!(theirs.join("x").is_dir());
    assert!(!left.exists());
    service
        .create(&tool("large", shell("printf '\"'; head -c 70000 /dev/zero | tr '\\0' a; printf '\"'")))
        .await;
    service.run("tool", "large", json!({})).await.output();
    for folder in ["store", "outputs"] {
        let mode = std::fs::metadata(service.path("data").join(folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{folder}: {mode:o}");
    }
}

#[tokio::test]
async fn what_is_queued_in_memory_when_it_drains_is_told_once() {
    let (mut service, gate, running, _) = waiting(Launch::new().limits().memory().executors(1)).await;
    let (queued, _) = accepted(&service).await;
    service.signal(Signal::SIGTERM);
    is_draining(&service).await;
    gate.open();
    let (running, queued) = tokio::join!(running.rest(), queued.rest());
    assert_eq!(running.last()["output"], json!({ "ok": 1 }));
    let finals = queued.frames.iter().filter(|frame| is_final(frame)).count();
    assert_eq!(finals, 1, "{queued:?}");
    assert_eq!(service.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let launch = Launch::new().limits().set("DISPATCHER__GRACE_MS", 60_000);
    let (mut service, _gate, _socket, _) = waiting(launch).await;
    service.signal(Signal::SIGTERM);
    is_draining(&service).await;
    let start = Instant::now();
    service.signal(Signal::SIGTERM);
    service.exit().await;
    let took = start.elapsed();
    println!("ended {took:?} after the second signal");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_is_refused() {
    let service = Launch::new().limits().start().await;
    let (status, log) = Launch::on(service.folder()).limits().refused().await;
    assert!(!status.success(), "{status}");
    let said = log.to_lowercase();
    let words = ["another", "already", "in use", "locked"];
    assert!(words.iter().any(|word| said.contains(word)), "{log}");
    assert!(!said.contains("panicked"), "{log}");
    let input = json!({ "value": 5 });
    let frames = service.run_tool("binary-increment-tool", input).await;
    assert_eq!(frames[1]["output"], json!({ "result": 6 }));
}

#[tokio::test]
async fn after_a_kill_it_starts_again_with_all_that_was_stored() {
    let service = Launch::new().limits().start().await;
    service.create(&tool("kept", shell("printf 1"))).await;
    let folder = service.folder();
    drop(service);
    let service = Launch::on(folder).limits().start().await;
    let talk = service.run("tool", "kept", json!({})).await;
    assert_eq!(*talk.output(), json!(1));
}

#[tokio::test]
async fn a_streaming_client_hears_start_and_log_before_the_result() {
    let service = Launch::new().limits().start().await;
    let script = r#"echo first >&2; echo second >&2; printf '{"ok":1}'"#;
    service.create(&tool("talking", shell(script))).await;
    let options = json!({ "stream": true });
    let text = request_with("tool", "talking", json!({}), options);
    let talk = service.talk("/tool", &text).await;
    assert_eq!(*talk.output(), json!({ "ok": 1 }));
    let between = &talk.frames[1..talk.frames.len() - 1];
    for frame in between {
        assert_eq!(frame["success"], true, "{frame}");
        assert!(!is_final(frame), "{frame}");
    }
    let told = |event: &str, text: &str| {
        let tells = |frame: &Value| frame["event"] == event && frame.to_string().contains(text);
        let at = between.iter().position(tells);
        at.unwrap_or_else(|| panic!("no {event} {text}: {between:?}"))
    };
    assert!(told("started", "") < told("log", "first"));
    assert!(told("log", "first") < told("log", "second"));

    let quiet = service.run_tool("talking", json!({})).await;
    assert_eq!(quiet.len(), 2, "{quiet:?}");
}

#[tokio::test]
async fn a_changed_configuration_resizes_a_pool_on_sighup() {
    let pool = |size| format!("[pools.binary]\nmin = {size}\nmax = {size}\n");
    let (service, gate, first, _) = waiting(Launch::new().limits().config(&pool(1))).await;
    let (second, _) = accepted(&service).await;
    assert_eq!(gate.read("arrived").lines().count(), 1);
    std::fs::write(service.path("config.toml"), pool(2)).unwrap();
    service.signal(Signal::SIGHUP);
    gate.arrived(2).await;
    gate.open();
    for socket in [first, second] {
        assert_eq!(socket.rest().await.last()["output"], json!({ "ok": 1 }));
    }
}

#[tokio::test]
async fn a_pool_that_is_too_large_after_a_sighup_shrinks_when_its_executors_end() {
    let pool = |size| format!("[pools.binary]\nmin = {size}\nmax = {size}\n");
    let (service, gate, first, _) = waiting(Launch::new().limits().config(&pool(2))).await;
    let (second, _) = accepted(&service).await;
    gate.arrived(2).await;
    std::fs::write(service.path("config.toml"), pool(1)).unwrap();
    service.signal(Signal::SIGHUP);
    eventually("the pools are resized", Duration::from_secs(10), || service.log().contains("resized")).await;
    gate.open();
    for socket in [first, second] {
        assert_eq!(socket.rest().await.last()["output"], json!({ "ok": 1 }));
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (_, answer) = service.rest("GET", "/system", "").await;
        let pool = &answer["data"]["tree"]["pools"]["binary"];
        if pool["executors"] == 1 {
            break;
        }
        assert!(Instant::now() < deadline, "{pool}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    let check = |launch: Launch| launch.output("check-config", &[]);
    let (status, said) = check(Launch::new().limits()).await;
    assert!(status.success(), "{said}");
    let misspelt = [
        (Launch::new().limits().set("WEBSOCKET__BNID", "x"), "bind"),
        (Launch::new().limits().set("WEBSOKET__BIND", "x"), "websocket"),
        (Launch::new().limits().config("[stroe]\nurl = \"mem://\"\n"), "store"),
        (Launch::new().limits().config("[pools.binary]\nmaks = 3\n"), "max"),
    ];
    for (launch, nearest) in misspelt {
        let (status, said) = check(launch).await;
        assert!(!status.success(), "{said}");
        assert!(said.contains(nearest), "{nearest}: {said}");
    }
    let (status, log) = Launch::new().limits().set("WEBSOCKET__BNID", "x").refused().await;
    assert!(!status.success(), "{log}");
}

#[tokio::test]
async fn an_address_beyond_loopback_needs_to_be_insisted_on() {
    for key in ["REST__BIND", "WEBSOCKET__BIND"] {
        let (status, log) = Launch::new().limits().set(key, "0.0.0.0:0").refused().await;
        assert!(!status.success(), "{log}");
        assert!(log.contains("--insecure"), "{log}");
    }
}

/// Passes the log on until the service is ready. From then on nobody reads it: its pipe fills, or is closed.
const READER: &str = r#"
import os, sys, time
service, mode = os.getpid(), sys.argv[1]
reading, writing = os.pipe()
if os.fork() == 0:
    if os.fork():
        os._exit(0)
    os.close(writing)
    for line in os.fdopen(reading, "rb", 0):
        os.write(2, line)
        if b'"ready"' in line:
            break
    os.close(2)
    while mode == "stalled" and os.path.exists(f"/proc/{service}"):
        time.sleep(0.05)
    os._exit(0)
os.wait()
os.close(reading)
os.dup2(writing, 2)
os.close(writing)
os.execv(sys.argv[2], sys.argv[2:])
"#;

#[tokio::test]
async fn executions_go_on_and_it_ends_in_order_where_nobody_takes_its_log() {
    for mode in ["stalled", "closed"] {
        let launch = Launch::new().limits().memory().through(&["python3", "-c", READER, mode]);
        let service = launch.start().await;
        service.create(&tool("one", shell("printf 1"))).await;
        // A pipe holds 64 KiB, which the lines of less than three hundred fill.
        for _ in 0..400 {
            assert_eq!(service.run("tool", "one", json!({})).await.output(), &json!(1), "{mode}");
        }
        assert_eq!(service.stop().await.code(), Some(0), "{mode}");
    }
}
