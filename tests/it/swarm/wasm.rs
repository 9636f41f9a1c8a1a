//! WebAssembly: commands, and functions of components. None of them succeeds.

use std::sync::atomic::AtomicUsize;

use serde_json::{Value, json};

use super::{Calm, FEW, LONG, MANY, Program, Swarm, launch};
use crate::program::Gate;

/// A command with this many pages of memory, and what its `_start` does.
fn command(pages: u32, start: &str) -> String {
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
            (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "sched_yield" (func $sched_yield (result i32)))
            (import "wasi_snapshot_preview1" "path_open"
                (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
            (memory (export "memory") {pages})
            (table $table 1 funcref)
            (data (i32.const 100) "file")
            (data (i32.const 200) "{{}}")
            ;; Prints bytes from an address to a descriptor.
            (func $print (param $fd i32) (param $at i32) (param $bytes i32)
                (i32.store (i32.const 0) (local.get $at))
                (i32.store (i32.const 4) (local.get $bytes))
                (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
            (func $recurse (param i32) (result i32)
                (i32.add (local.get 0) (call $recurse (i32.add (local.get 0) (i32.const 1)))))
            (func (export "_start") {start}))"#
    )
}

/// A component whose `run` leaves the address of its answer, and that makes room for its input in this way.
fn function(realloc: &str, run: &str) -> String {
    format!(
        r#"(component
            (core module $code
                (memory (export "memory") 1)
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) {realloc})
                (func $answer (param $at i32) (param $bytes i32) (result i32)
                    (i32.store (i32.const 20) (local.get $at))
                    (i32.store (i32.const 24) (local.get $bytes))
                    (i32.const 16))
                (func (export "run") (param i32 i32) (result i32) {run}))
            (core instance $made (instantiate $code))
            (func $run (param "input" string) (result (result string (error string)))
                (canon lift (core func $made "run")
                    (memory (core memory $made "memory")) (realloc (core func $made "realloc"))))
            (export "run" (func $run)))"#
    )
}

const ROOM: &str = "(i32.const 4096)";
const SPIN: &str = "(loop $on (br $on))";
const GROW: &str =
    "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)";

/// Waits for an hour.
const SLEEP: &str = "
    (i32.store (i32.const 1040) (i32.const 1))
    (i64.store (i32.const 1048) (i64.const 3600000000000))
    (drop (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 1) (i32.const 16)))";

const OPEN: &str = "
    (loop $on
        (drop (call $path_open (i32.const 3) (i32.const 0) (i32.const 100) (i32.const 4)
            (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 24)))
        (br $on))";

/// Closes its standard streams, prints all the same, and fails.
const CLOSE: &str = "
    (drop (call $fd_close (i32.const 1))) (drop (call $fd_close (i32.const 2)))
    (call $print (i32.const 1) (i32.const 200) (i32.const 2)) (call $proc_exit (i32.const 3))";

/// Does this again and again.
fn again(what: &str) -> String {
    format!("(loop $on {what} (br $on))")
}

fn made(
    name: &'static str,
    code: String,
    limits: &Value,
    right: &'static [&'static str],
) -> (Program, String) {
    let metadata = json!({
        "runtime": "wasm", "source_url": format!("{name}.wat"), "limits": limits,
        "folders": { "/granted": "granted" },
    });
    (Program { name, metadata, input: json!({}), right }, code)
}

/// Programs with their code.
fn programs() -> Vec<(Program, String)> {
    let long = &json!({ "timeout_ms": LONG, "memory_mb": 16, "files": 64 });
    let short = &json!({ "timeout_ms": 300, "memory_mb": 16 });
    let burning = &json!({ "timeout_ms": LONG, "cpu_ms": 100 });
    let flood =
        |fd: u32| again(&format!("(call $print (i32.const {fd}) (i32.const 1024) (i32.const 65536))"));
    let fill = again("(memory.fill (i32.const 2048) (i32.const 1) (i32.const 13000000))");
    let random = again("(drop (call $random_get (i32.const 1024) (i32.const 65536)))");
    let table = again(
        "(if (i32.eq (table.grow $table (ref.null func) (i32.const 1000)) (i32.const -1)) (then (unreachable)))",
    );
    let recurse = "(drop (call $recurse (i32.const 0)))";
    let elsewhere = "(drop (i32.load (i32.const 2000000000)))";
    let large = "(drop (memory.grow (i32.const 128))) (call $answer (i32.const 0) (i32.const 8388608))";
    let lie = "(call $answer (i32.const 65000) (i32.const 60000))";
    let spin = &format!("{SPIN} (unreachable)");
    vec![
        made("endless", command(2, SPIN), short, &["timed_out"]),
        made("sleeper", command(2, SLEEP), short, &["timed_out"]),
        made("yielder", command(2, &again("(drop (call $sched_yield))")), short, &["timed_out"]),
        made("filler-of-memory", command(200, &fill), short, &["timed_out"]),
        made("drawer-of-random-numbers", command(2, &random), short, &["timed_out"]),
        made("log-flood", command(2, &flood(2)), short, &["timed_out"]),
        made("output-flood", command(2, &flood(1)), long, &["output_too_large"]),
        made("burner", command(2, SPIN), burning, &["cpu_exceeded"]),
        made("memory-hog", command(2, GROW), long, &["memory_exceeded"]),
        made("too-large-from-the-start", command(600, "(nop)"), long, &["memory_exceeded"]),
        made("table-hog", command(2, &table), long, &["trap", "memory_exceeded"]),
        made("descriptor-hog", command(2, OPEN), long, &["files_exceeded"]),
        made("recursion", command(2, recurse), long, &["trap"]),
        made("out-of-bounds", command(2, elsewhere), long, &["trap"]),
        made("closer-of-streams", command(2, CLOSE), long, &["exit_status"]),
        made("endless-function", function(ROOM, spin), short, &["timed_out"]),
        made("function-without-room", function(spin, "(unreachable)"), short, &["timed_out"]),
        made("hungry-function", function(ROOM, GROW), long, &["memory_exceeded"]),
        made("talkative-function", function(ROOM, large), long, &["output_too_large"]),
        made("lying-function", function(ROOM, lie), long, &["trap"]),
    ]
}

/// An executor keeps nothing of the machine, so that none has to wait for the others.
fn calm(_: &Gate) -> Calm {
    let metadata = json!({ "runtime": "wasm", "source_url": "calm.wat" });
    Calm { metadata, input: json!({}), waits: false }
}

async fn attack(times: usize) {
    let (programs, codes): (Vec<_>, Vec<_>) = programs().into_iter().unzip();
    let files: Vec<String> = programs.iter().map(|program| format!("{}.wat", program.name)).collect();
    let mut sources: Vec<(&str, &str)> =
        files.iter().zip(&codes).map(|(file, code)| (file.as_str(), code.as_str())).collect();
    let calm_code = command(2, "(call $print (i32.const 1) (i32.const 200) (i32.const 2))");
    sources.extend([("calm.wat", calm_code.as_str()), ("granted/file", "")]);
    let swarm = Swarm::new(launch("WASM"), programs, &sources, calm).await;
    // The service keeps the code of each, with a descriptor.
    let once: Vec<usize> = (0..swarm.programs.len()).collect();
    swarm.work(&once, &AtomicUsize::new(0)).await;
    swarm.attack(times).await;
}

#[tokio::test]
async fn hostile_guests_end_as_is_right_and_leave_nothing() {
    attack(FEW).await;
}

#[tokio::test]
#[ignore = "a soak of some minutes"]
async fn hostile_guests_leave_nothing_in_4_000_runs() {
    attack(MANY).await;
}
