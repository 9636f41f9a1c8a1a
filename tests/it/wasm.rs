//! WebAssembly through the whole service: commands and components, what they may reach, and their bounds.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::program::{accepted, lines, put_source, streamed, tool};
use crate::service::{Launch, Service};
use crate::socket::{Socket, is_final};

#[path = "../../actors/src/runtime/wasm/tests/guests.rs"]
#[allow(dead_code, reason = "the tests of the engine run the other ones")]
pub mod guests;

use guests::{command, function};

/// How much longer than its own time anything may take on a busy machine.
const NOISE: Duration = Duration::from_secs(3);

/// A service with this code as the tool `guest`.
async fn with_guest(text: &str, metadata: Value) -> Service {
    with_guest_on(Launch::new(), text, metadata).await
}

async fn with_guest_on(launch: Launch, text: &str, mut metadata: Value) -> Service {
    let service = launch.start().await;
    put_source(&service, "guest.wat", text);
    metadata["runtime"] = json!("wasm");
    metadata["source_url"] = json!("guest.wat");
    service.create(&tool("guest", metadata)).await;
    service
}

/// Hears frames until the guest has said on its stderr that it runs.
async fn has_said(socket: &mut Socket) {
    while let Some(frame) = socket.frame().await {
        assert!(!is_final(&frame), "{frame}");
        if frame["line"] == "said on stderr" {
            return;
        }
    }
    panic!("it said nothing");
}

#[tokio::test]
async fn a_command_reads_json_and_prints_json() {
    let service = with_guest(&command(guests::ECHO), json!({})).await;
    let input = json!({ "text": "ü".repeat(50_000), "list": [1, null] });
    for _ in 0..2 {
        let talk = service.run("tool", "guest", input.clone()).await;
        assert_eq!(*talk.output(), input);
    }
}

#[tokio::test]
async fn a_command_gets_arguments_and_environment_and_nothing_of_the_services() {
    let metadata = json!({ "args": ["--n={{n}}"], "env": { "OWN": "1" }, "output": "text" });
    let service = with_guest(&command(guests::TELL), metadata).await;
    let talk = service.run("tool", "guest", json!({ "n": 1 })).await;
    let told: Vec<_> = talk.output()["stdout"].as_str().unwrap().split_terminator('\0').collect();
    let execution = format!("ORG_EXECUTION={}", talk.uuid().unwrap());
    assert_eq!(told, ["guest", "--n=1", "ORG_DEFINITION=guest", &execution, "OWN=1"]);
}

#[tokio::test]
async fn the_catalogs_component_measures_its_input() {
    let service = Service::start().await;
    let talk = service.run("tool", "measure-json", json!({ "text": "über" })).await;
    assert_eq!(*talk.output(), json!({ "bytes": 16, "characters": 15 }));
}

#[tokio::test]
async fn a_component_is_kept_warm_and_replaced_when_it_traps() {
    let launch = Launch::new().set("POOLS__WASM__MIN", 1).set("POOLS__WASM__MAX", 1);
    let service = with_guest_on(launch, &function(guests::COUNT_OR_TRAP), json!({})).await;
    for runs in [1, 2, 3] {
        assert_eq!(*service.run("tool", "guest", json!({})).await.output(), json!(runs));
    }
    let talk = service.run("tool", "guest", json!({ "trap": true })).await;
    let (error, code) = talk.error();
    assert_eq!(code, "trap", "{error}");
    for runs in [1, 2] {
        assert_eq!(*service.run("tool", "guest", json!({})).await.output(), json!(runs));
    }
    // With new metadata comes a new instance.
    let metadata = json!({ "runtime": "wasm", "source_url": "guest.wat", "env": { "A": "1" } });
    let update = json!({ "tool_metadata": metadata }).to_string();
    assert_eq!(service.rest("PUT", "/tool/guest", &update).await.0, 200);
    assert_eq!(*service.run("tool", "guest", json!({})).await.output(), json!(1));
}

#[tokio::test]
async fn what_never_ends_is_ended_at_its_timeout() {
    for guest in
        [command(guests::SPIN), command(guests::SLEEP), function("(loop $on (br $on)) (unreachable)")]
    {
        let service = with_guest(&guest, json!({ "limits": { "timeout_ms": 300 } })).await;
        let start = Instant::now();
        let talk = service.run("tool", "guest", json!({})).await;
        let took = start.elapsed();
        assert_eq!(talk.error().1, "timed_out");
        assert!(took < Duration::from_millis(300) + NOISE, "{took:?}");
    }
}

#[tokio::test]
async fn what_computes_is_heard_while_it_does_and_ended_when_it_is_cancelled() {
    let service = with_guest(&command(guests::SPIN), json!({})).await;
    let (mut socket, uuid) = accepted(&service, "guest", json!({}), json!({ "stream": true })).await;
    has_said(&mut socket).await;
    socket.send(&json!({ "cancel": uuid }).to_string()).await;
    let talk = socket.rest().await;
    assert_eq!(talk.error().1, "cancelled");
    assert_eq!(talk.frames.len(), 1, "{talk:?}");
}

#[tokio::test]
async fn eight_that_compute_hold_up_nobody_else() {
    let launch = Launch::new().set("POOLS__WASM__MAX", 8);
    let service = with_guest_on(launch, &command(guests::SPIN), json!({})).await;
    let increment = async || {
        let talk = service.run("tool", "binary-increment-tool", json!({ "value": 5 })).await;
        assert_eq!(*talk.output(), json!({ "result": 6 }));
    };
    // Its launcher takes its time, once.
    increment().await;
    let mut computing = Vec::new();
    for _ in 0..8 {
        computing.push(accepted(&service, "guest", json!({}), json!({ "stream": true })).await);
    }
    for (socket, _) in &mut computing {
        has_said(socket).await;
    }
    let start = Instant::now();
    increment().await;
    assert_eq!(service.rest("GET", "/healthz", "").await.0, 200);
    let took = start.elapsed();
    println!("beside eight that compute: {took:?}");
    assert!(took < NOISE, "{took:?}");
    for (mut socket, uuid) in computing {
        socket.send(&json!({ "cancel": uuid }).to_string()).await;
        assert_eq!(socket.rest().await.error().1, "cancelled");
    }
}

/// The sentence and the code of a guest's failure, which must come soon.
async fn failure(guest: &str, metadata: Value) -> (String, String) {
    let service = with_guest(guest, metadata).await;
    let start = Instant::now();
    let talk = service.run("tool", "guest", json!({})).await;
    assert!(start.elapsed() < NOISE, "{:?}", start.elapsed());
    let (error, code) = talk.error();
    (error.to_owned(), code.to_owned())
}

#[tokio::test]
async fn memory_output_and_processor_time_are_bounded() {
    for (guest, limits, expected) in [
        (command(guests::GROW), json!({ "memory_mb": 16 }), "memory_exceeded"),
        (command(guests::FLOOD), json!({ "output_bytes": 100_000 }), "output_too_large"),
        (command(guests::SPIN), json!({ "cpu_ms": 100 }), "cpu_exceeded"),
    ] {
        let (error, code) = failure(&guest, json!({ "limits": limits })).await;
        assert_eq!(code, expected, "{error}");
    }
}

#[tokio::test]
async fn an_exit_status_is_told_with_the_end_of_stderr() {
    let guest = command("(call $complain) (call $proc_exit (i32.const 3))");
    let (error, code) = failure(&guest, json!({})).await;
    assert_eq!(code, "exit_status");
    assert_eq!(error, "the module ended with exit status 3: said on stderr");
}

#[tokio::test]
async fn what_is_no_webassembly_is_told() {
    for guest in ["nonsense", "(module)"] {
        let (error, code) = failure(guest, json!({})).await;
        assert_eq!(code, "not_startable", "{error}");
    }
}

#[tokio::test]
async fn stderr_is_log_and_stdout_is_not() {
    let guest = command("(call $complain) (call $copy (i32.const 0) (i32.const 1)) (call $complain)");
    let service = with_guest(&guest, json!({})).await;
    let talk = streamed(&service, "guest", json!({ "a": 1 })).await;
    assert_eq!(*talk.output(), json!({ "a": 1 }));
    assert_eq!(lines(&talk), ["said on stderr"; 2]);
}

/// What a guest can read of its first folder, and a `0` where it could make no file there.
async fn read_by_guest(folders: Value) -> (Service, Result<String, String>) {
    let metadata = json!({ "output": "text", "folders": folders });
    let service = with_guest(&command(guests::READ_FOLDER), metadata).await;
    put_source(&service, "granted/greeting.txt", "hello");
    let talk = service.run("tool", "guest", json!({})).await;
    let told = match talk.last()["code"].as_str() {
        None => Ok(talk.output()["stdout"].as_str().unwrap().to_owned()),
        Some(_) => Err(talk.error().0.to_owned()),
    };
    (service, told)
}

#[tokio::test]
async fn there_is_no_file_system_but_what_is_granted_and_that_is_read_only() {
    let (_service, told) = read_by_guest(json!({})).await;
    assert_eq!(told.as_deref(), Ok("0"));
    let (service, told) = read_by_guest(json!({ "/data": "granted" })).await;
    assert_eq!(told.as_deref(), Ok("hello0"));
    let files = std::fs::read_dir(service.path("data/catalog/granted")).unwrap().count();
    assert_eq!(files, 1);
    for outside in ["/etc", "../store", "missing"] {
        let (_service, told) = read_by_guest(json!({ "/data": outside })).await;
        assert!(told.as_ref().is_err_and(|error| error.contains(outside)), "{outside}: {told:?}");
    }
}

/// A component of types in types, so deep: whoever reads it goes down as deep.
fn nested(depth: usize) -> Vec<u8> {
    let mut types = vec![1];
    types.extend([0x42, 1, 1].repeat(depth));
    types.extend([0x42, 0]);
    let mut length = Vec::new();
    let mut left = types.len();
    while left >= 0x80 {
        length.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    length.push(left as u8);
    [b"\0asm\x0d\0\x01\0\x07".as_slice(), &length, &types].concat()
}

#[tokio::test]
async fn what_a_compiler_dies_of_the_service_does_not() {
    let service = with_guest(&command(guests::ECHO), json!({})).await;
    put_source(&service, "deep.wasm", nested(10_000));
    service.create(&tool("deep", json!({ "source_url": "deep.wasm", "idempotent": true }))).await;
    let pid = service.pid();
    for _ in 0..2 {
        let talk = service.run("tool", "deep", json!({})).await;
        let (error, code) = talk.error();
        assert_eq!((code, error.contains("cannot be compiled")), ("not_startable", true), "{error}");
    }
    assert_eq!(*service.run("tool", "guest", json!({ "a": 1 })).await.output(), json!({ "a": 1 }));
    assert_eq!(service.pid(), pid);
}

#[tokio::test]
async fn compiling_has_bounds_of_its_own() {
    let branches = "(if (local.get 0) (then (local.set 0 (i32.const 1))))".repeat(20_000);
    let large = format!(r#"(module (func (export "_start") (local i32) {branches}))"#);
    for (key, value, told) in [
        ("WASM__COMPILE_MEMORY_MB", 1, "more than 1 MiB of memory, which is `wasm.compile_memory_mb`"),
        ("WASM__COMPILE_TIMEOUT_MS", 1, "longer than 1 ms, which is `wasm.compile_timeout_ms`"),
    ] {
        let service = with_guest_on(Launch::new().set(key, value), &large, json!({})).await;
        // The second time it is known.
        for _ in 0..2 {
            let talk = service.run("tool", "guest", json!({})).await;
            let (error, code) = talk.error();
            assert_eq!((code, error.contains(told)), ("not_startable", true), "{error}");
        }
        service.stop().await;
    }
}

#[tokio::test]
async fn a_module_with_a_network_reaches_what_functions_reach() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let guest = guests::connecting(port);
    let (granted, allowed) = (json!({ "network": true }), format!(r#"["127.0.0.1:{port}"]"#));
    // Not granted; granted, and no address of this machine among those that are allowed; both.
    for (metadata, allow, output) in [
        (json!({}), &*allowed, "no socket"),
        (granted.clone(), "[]", "denied"),
        (granted.clone(), &*allowed, "connected"),
    ] {
        let launch = Launch::new().set("SANDBOX__NETWORK", true).set("EGRESS__ALLOW", allow);
        let service = with_guest_on(launch, &guest, metadata).await;
        let talk = service.run("tool", "guest", json!({})).await;
        assert_eq!(*talk.output(), json!(output));
        if output == "connected" {
            tokio::time::timeout(NOISE, listener.accept()).await.expect("it came").unwrap();
        }
        service.stop().await;
    }
    let service = with_guest(&guest, granted).await;
    let talk = service.run("tool", "guest", json!({})).await;
    let (error, code) = talk.error();
    assert_eq!((code, error.contains("sandbox.network")), ("not_startable", true), "{error}");
}
