//! What a program may use: each limit has its code, counts all that the program started, and leaves alone what
//! stays within it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::census::Census;
use crate::program::{shell, tool};
use crate::service::{Launch, Service};
use crate::socket::Talk;

/// How much longer than its own time anything may take on a busy machine.
pub const NOISE: Duration = Duration::from_secs(10);

/// How much a program may write here, in MiB.
const DISK_MB: u64 = 8;

/// A service with one executor for programs, whose launcher is there.
pub struct Bench {
    pub service: Service,
    run: PathBuf,
    before: Census,
}

impl Bench {
    pub async fn new(launch: Launch) -> Self {
        let service = launch.executors(1).set("LIMITS__DISK_MB", DISK_MB).start().await;
        service.create(&tool("quick", shell("printf 1"))).await;
        service.run("tool", "quick", json!({})).await.output();
        let run = service.path("data/run");
        let before = Census::settled(&service, &run).await;
        Self { service, run, before }
    }

    /// Runs it within this time: what was heard, when nothing is left of it and the next one runs well.
    pub async fn run(&self, id: &str, metadata: Value, limit: Duration) -> Talk {
        self.service.create(&tool(id, metadata)).await;
        let start = Instant::now();
        let talk = self.service.run("tool", id, json!({})).await;
        let took = start.elapsed();
        println!("{id}: ended after {took:?} of {limit:?} allowed: {}", talk.last());
        self.before.assert_restored(&self.service, &self.run, talk.uuid()).await;
        assert!(took < limit, "{id}: {took:?}");
        assert_eq!(*self.service.run("tool", "quick", json!({})).await.output(), json!(1), "after {id}");
        talk
    }

    /// The sentence of a failure with this code.
    pub async fn failure(&self, id: &str, metadata: Value, code: &str) -> String {
        let talk = self.run(id, metadata, NOISE).await;
        let (error, told) = talk.error();
        assert_eq!(told, code, "{id}: {error}");
        error.to_owned()
    }

    async fn succeeds(&self, id: &str, metadata: Value) {
        self.run(id, metadata, NOISE).await.output();
    }
}

fn limited(mut metadata: Value, limits: Value) -> Value {
    metadata["limits"] = limits;
    metadata
}

/// A program in a language that can hold things.
fn python3(script: &str) -> Value {
    json!({ "runtime": "binary", "entrypoint": "python3", "args": ["-c", script] })
}

/// Holds 200 MB.
const HOLDING: &str = "import time\nkept = bytearray(200 << 20)\ntime.sleep(60)";

/// Shares 40 MB with three children.
const SHARING: &str = r#"
import os, time

kept = bytearray(40 << 20)
children = [os.fork() for _ in range(2)]
time.sleep(0.3)
if all(children):
    print(1)
"#;

/// Holds as many files as it gets.
const OPENING: &str = r#"
import time

kept = []
try:
    while True:
        kept.append(open("/dev/null"))
except OSError:
    time.sleep(60)
"#;

#[tokio::test]
async fn memory_is_bounded() {
    let bench = Bench::new(Launch::new()).await;
    let metadata = limited(python3(HOLDING), json!({ "memory_mb": 100 }));
    let error = bench.failure("memory", metadata, "memory_exceeded").await;
    assert!(error.contains("100 MiB"), "{error}");
}

#[tokio::test]
async fn memory_is_counted_over_all_that_a_program_started() {
    let bench = Bench::new(Launch::new()).await;
    let script = "import os, time\nos.fork()\nos.fork()\nkept = bytearray(40 << 20)\ntime.sleep(60)";
    let metadata = limited(python3(script), json!({ "memory_mb": 100 }));
    bench.failure("family", metadata, "memory_exceeded").await;
}

#[tokio::test]
async fn memory_that_processes_share_is_counted_once() {
    let bench = Bench::new(Launch::new()).await;
    let metadata = limited(python3(SHARING), json!({ "memory_mb": 100 }));
    bench.succeeds("sharing", metadata).await;
}

#[tokio::test]
async fn processor_time_is_bounded_and_counts_children_that_have_ended() {
    let bench = Bench::new(Launch::new()).await;
    for (id, script) in [
        ("loop", "while :; do :; done"),
        ("children", "while :; do head -c 10000000 /dev/zero | tr a b >/dev/null; done"),
    ] {
        let metadata = limited(shell(script), json!({ "cpu_ms": 300 }));
        let error = bench.failure(id, metadata, "cpu_exceeded").await;
        assert!(error.contains("300 ms"), "{error}");
    }
    let metadata = limited(shell("sleep 0.6; printf 1"), json!({ "cpu_ms": 300 }));
    bench.succeeds("waiting", metadata).await;
}

#[tokio::test]
async fn processes_and_threads_are_bounded() {
    let bench = Bench::new(Launch::new()).await;
    let limits = json!({ "processes": 20 });
    let threads =
        "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(60,)).start()";
    for (id, metadata) in [("processes", shell("while :; do sleep 60 & done")), ("threads", python3(threads))]
    {
        let error = bench.failure(id, limited(metadata, limits.clone()), "processes_exceeded").await;
        assert!(error.contains("20"), "{error}");
    }
    let few = shell("for i in 1 2 3 4; do sleep 0.2 & done; wait; printf 1");
    bench.succeeds("few", limited(few, limits)).await;
}

#[tokio::test]
async fn open_files_are_bounded() {
    let bench = Bench::new(Launch::new()).await;
    let metadata = limited(python3(OPENING), json!({ "files": 64 }));
    let error = bench.failure("files", metadata, "files_exceeded").await;
    assert!(error.contains("64"), "{error}");
}

#[tokio::test]
async fn what_is_written_into_the_working_folder_is_bounded() {
    let bench = Bench::new(Launch::new()).await;
    for (id, script) in [
        ("some", "for i in 1 2 3 4; do dd if=/dev/zero of=$i bs=1M count=4; done; sleep 60"),
        (
            "deep",
            "mkdir -p a/b/c; for i in 1 2 3; do dd if=/dev/zero of=a/b/c/$i bs=1M count=4; done; sleep 60",
        ),
        ("many", "i=0; while :; do i=$((i+1)); echo x > $i; done"),
    ] {
        let error = bench.failure(id, shell(script), "disk_exceeded").await;
        assert!(error.contains("8 MiB"), "{id}: {error}");
    }
    bench.succeeds("little", shell("dd if=/dev/zero of=f bs=1M count=4; sleep 0.1; printf 1")).await;
}

#[tokio::test]
async fn one_file_that_outgrows_the_working_folder_is_told_so() {
    let bench = Bench::new(Launch::new()).await;
    for (id, script) in [
        ("ending", "dd if=/dev/zero of=f bs=1M count=30; exit 3"),
        ("waiting", "dd if=/dev/zero of=f bs=1M count=30; sleep 60"),
        ("appending", "yes >> f; sleep 60"),
    ] {
        let metadata = limited(shell(script), json!({ "timeout_ms": 2_000 }));
        bench.failure(id, metadata, "disk_exceeded").await;
    }
}

#[tokio::test]
async fn the_configuration_holds_where_a_definition_says_nothing_or_more() {
    let launch = Launch::new().set("LIMITS__PROCESSES", 20).set("LIMITS__MAX_PROCESSES", 30);
    let bench = Bench::new(launch).await;
    let forking = shell("while :; do sleep 60 & done");
    for (id, limits, told) in [
        ("silent", json!({}), "20"),
        ("modest", json!({ "processes": 10 }), "10"),
        ("asking", json!({ "processes": 1_000 }), "30"),
    ] {
        let error = bench.failure(id, limited(forking.clone(), limits), "processes_exceeded").await;
        assert!(error.contains(told), "{id}: {error}");
    }
}
