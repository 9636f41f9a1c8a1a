//! Programs that misbehave: each ends with the outcome that is its own, in time, and leaves nothing.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::census::Census;
use crate::program::{shell, shell_within, tool};
use crate::service::{Launch, Service, request_with};
use crate::socket::Talk;

/// The promise is half a second beyond the timeout; the rest is for a busy machine.
const NOISE: Duration = Duration::from_secs(3);

/// A service with one executor, and one hostile program.
struct Bench {
    service: Service,
    /// Where executions get their working folders.
    run: PathBuf,
    before: Census,
}

impl Bench {
    async fn new(metadata: Value) -> Self {
        let launch = Launch::new().executors(1).set("WEBSOCKET__MESSAGE_BYTES", 16_777_216);
        let service = launch.start().await;
        service.create(&tool("quick", shell("printf 1"))).await;
        service.create(&tool("hostile", metadata)).await;
        // The working folder is there from here on.
        service.run("tool", "quick", json!({})).await.output();
        let run = service.path("data/run");
        let before = Census::settled(&service, &run).await;
        Self { service, run, before }
    }

    /// Runs it: what was heard, when nothing is left of it.
    async fn run(&self, input: Value, limit: Duration) -> Talk {
        let start = Instant::now();
        let talk = self.service.run("tool", "hostile", input).await;
        let took = start.elapsed();
        let heard: String = talk.last().to_string().chars().take(200).collect();
        println!("ended after {took:?} of {limit:?} allowed: {heard}");
        assert!(took < limit + NOISE, "took {took:?}");
        self.before.assert_restored(&self.service, &self.run, talk.uuid()).await;
        talk
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// The output of a program that succeeds.
async fn output_of(metadata: Value, input: Value) -> Value {
    let bench = Bench::new(metadata).await;
    bench.run(input, SECOND).await.output().clone()
}

/// The sentence and the code of a program that fails within this time.
async fn error_within(limit: Duration, metadata: Value) -> (String, String) {
    let talk = Bench::new(metadata).await.run(json!({}), limit).await;
    let (error, code) = talk.error();
    (error.to_owned(), code.to_owned())
}

async fn error_of(metadata: Value) -> (String, String) {
    error_within(SECOND, metadata).await
}

#[tokio::test]
async fn a_program_that_exits_3_is_told_with_the_end_of_its_stderr() {
    let script = "head -c 300000 /dev/zero | tr '\\0' x >&2; echo 'disk is full' >&2; exit 3";
    let (error, code) = error_of(shell(script)).await;
    assert_eq!(code, "exit_status");
    assert!(error.contains('3'), "{error}");
    assert!(error.contains("disk is full"), "{error}");
    assert!(error.len() < 100_000, "{} bytes", error.len());
}

#[tokio::test]
async fn a_program_that_ends_by_a_signal_fails() {
    let (error, _) = error_of(shell("printf '{}'; kill -9 $$")).await;
    assert!(error.contains('9') || error.contains("KILL"), "{error}");
}

#[tokio::test]
async fn a_program_that_ignores_ten_mebibytes_of_input_succeeds() {
    let input = json!({ "text": "x".repeat(10 << 20) });
    let output = output_of(shell(r#"sleep 0.2; printf '{"ok":1}'"#), input).await;
    assert_eq!(output, json!({ "ok": 1 }));
}

#[tokio::test]
async fn a_program_that_echoes_ten_mebibytes_does_not_lock_up() {
    let mut metadata = shell("cat");
    metadata["limits"] = json!({ "output_bytes": 64 << 20, "timeout_ms": 20_000 });
    let bench = Bench::new(metadata).await;
    let input = json!({ "text": "x".repeat(10 << 20) });
    let talk = bench.run(input.clone(), 20 * SECOND).await;
    // An output of this size may be refused by a lower cap, but never hangs.
    match &talk.last()["code"] {
        Value::Null => assert!(*talk.output() == input),
        code => assert_eq!(*code, "output_too_large"),
    }
}

#[tokio::test]
async fn a_program_that_floods_stderr_in_one_line_succeeds() {
    let script = r#"head -c 50000000 /dev/zero | tr '\0' x >&2; printf '{"ok":1}'"#;
    let output = output_of(shell_within(20_000, script), json!({})).await;
    assert_eq!(output, json!({ "ok": 1 }));
}

#[tokio::test]
async fn a_program_that_floods_stderr_in_many_lines_succeeds() {
    let script = r#"yes line | head -n 500000 >&2; printf '{"ok":1}'"#;
    let output = output_of(shell_within(20_000, script), json!({})).await;
    assert_eq!(output, json!({ "ok": 1 }));
}

#[tokio::test]
async fn a_program_that_floods_stdout_is_ended() {
    let mut metadata = shell_within(20_000, "yes");
    metadata["limits"]["output_bytes"] = json!(65_536);
    let (_, code) = error_of(metadata).await;
    assert_eq!(code, "output_too_large");
}

#[tokio::test]
async fn a_program_that_sleeps_past_its_timeout_is_ended() {
    let limit = Duration::from_millis(300);
    let (_, code) = error_within(limit, shell_within(300, "sleep 60; printf '{}'")).await;
    assert_eq!(code, "timed_out");
}

#[tokio::test]
async fn a_program_that_ignores_sigterm_is_ended() {
    let script = "trap '' TERM INT HUP; while :; do sleep 0.05; done";
    let limit = Duration::from_millis(300);
    let (_, code) = error_within(limit, shell_within(300, script)).await;
    assert_eq!(code, "timed_out");
}

/// A program that waits for a child which left its process group.
const GROUP_LEAVER: &str = "
import os, time
if os.fork() == 0:
    os.setpgid(0, 0)
time.sleep(60)
";

#[tokio::test]
async fn a_program_that_leaves_its_group_is_ended() {
    let metadata = json!({
        "runtime": "binary", "entrypoint": "python3", "args": ["-c", GROUP_LEAVER],
        "limits": { "timeout_ms": 500 }
    });
    let (_, code) = error_within(Duration::from_millis(500), metadata).await;
    assert_eq!(code, "timed_out");
}

#[tokio::test]
async fn a_request_may_shorten_the_timeout() {
    let bench = Bench::new(shell_within(60_000, "sleep 60")).await;
    let options = json!({ "timeout_ms": 300 });
    let text = request_with("tool", "hostile", json!({}), options);
    let start = Instant::now();
    let talk = bench.service.talk("/tool", &text).await;
    assert_eq!(talk.error().1, "timed_out");
    assert!(start.elapsed() < NOISE, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_grandchild_that_holds_stdout_delays_nothing_and_is_ended() {
    let script = r#"setsid sleep 60 & printf '{"ok":1}'"#;
    let output = output_of(shell_within(30_000, script), json!({})).await;
    assert_eq!(output, json!({ "ok": 1 }));
}

#[tokio::test]
async fn a_grandchild_that_closed_all_descriptors_is_ended() {
    let script = r#"(setsid sh -c 'sleep 60' <&- >&- 2>&- &); printf '{"ok":1}'"#;
    let output = output_of(shell_within(30_000, script), json!({})).await;
    assert_eq!(output, json!({ "ok": 1 }));
}

#[tokio::test]
async fn a_grandchild_of_a_program_that_times_out_is_ended() {
    let script = "setsid sleep 60 & (setsid sleep 60 <&- >&- 2>&- &); sleep 60";
    let limit = Duration::from_millis(300);
    let (_, code) = error_within(limit, shell_within(300, script)).await;
    assert_eq!(code, "timed_out");
}

#[tokio::test]
async fn files_that_a_program_leaves_are_gone() {
    let script = r#"mkdir -p a/b; echo x > a/b/c; chmod 0 a/b; printf '{"ok":1}'"#;
    let output = output_of(shell(script), json!({})).await;
    assert_eq!(output, json!({ "ok": 1 }));
}

#[tokio::test]
async fn output_that_is_not_one_json_document_is_invalid() {
    let scripts = [
        ("nothing", ":"),
        ("two documents", r#"printf '{"a":1}{"b":2}'"#),
        ("two lines", r#"printf '{"a":1}\n{"b":2}\n'"#),
        ("no UTF-8", r#"printf '"\377\376"'"#),
        ("no JSON", "echo hello"),
        ("half a document", r#"printf '{"a":'"#),
        ("a key twice", r#"printf '{"a":1,"a":2}'"#),
        ("half a surrogate pair", r#"printf '%s' '{"a":"\ud800"}'"#),
        ("a number beyond all", r#"printf '{"a":1e400}'"#),
    ];
    for (what, script) in scripts {
        let (_, code) = error_of(shell(script)).await;
        assert_eq!(code, "invalid_output", "{what}");
    }
}

#[tokio::test]
async fn a_program_that_is_missing_is_named() {
    for entrypoint in ["no-such-program-here", "/nowhere/no-such-program-here"] {
        let metadata = json!({ "runtime": "binary", "entrypoint": entrypoint });
        let (error, _) = error_of(metadata).await;
        assert!(error.contains("no-such-program-here"), "{error}");
    }
}

#[tokio::test]
async fn a_program_that_is_a_folder_fails() {
    let metadata = json!({ "runtime": "binary", "entrypoint": "/usr" });
    let (error, _) = error_of(metadata).await;
    assert!(!error.contains("panicked"), "{error}");
}

#[tokio::test]
async fn a_definition_without_a_runtime_registers_and_says_so_when_run() {
    let (error, _) = error_of(json!({ "anything": ["at", "all"] })).await;
    assert!(error.to_lowercase().contains("runtime"), "{error}");
}
