//! What an interpreter keeps from one run to the next, what it must not keep, and when another one takes its place.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::census::{Census, processes_of};
use crate::program::{accepted, put_source, python, tool};
use crate::service::{Launch, Service, request_with};
use crate::socket::Talk;

/// How much longer than its own time anything may take on a busy machine.
const NOISE: Duration = Duration::from_secs(3);

/// A handler that does what it is told, and says which interpreter it runs in and what it finds there.
const OBEYING: &str = r#"
import os, subprocess, time, uuid

ME = uuid.uuid4().hex
runs = 0
kept = []

def handler(input):
    global runs
    runs += 1
    how = input.get("how")
    if how == "exit":
        os._exit(3)
    if how == "die":
        os.kill(os.getpid(), 9)
    if how == "hang":
        time.sleep(60)
    if how == "compute":
        while True:
            pass
    if how == "eat":
        kept.append(bytearray(300 << 20))
        time.sleep(60)
    if how == "write":
        open("left", "w").write("x")
        os.makedirs("a/b")
        os.chdir("/")
        os.environ["LEFT"] = "1"
    if how == "orphan":
        os.system("setsid sleep 60 & (setsid sleep 60 <&- >&- 2>&- &)")
    if how == "child":
        subprocess.Popen(["sleep", "60"], start_new_session=True)
    if how == "fork" and os.fork() == 0:
        return "from the fork"
    if how == "intrude":
        for descriptor in range(3, 8):
            try:
                os.write(descriptor, b"nonsense\n")
            except OSError:
                pass
    return {"me": ME, "runs": runs, "files": os.listdir("."), "left": os.environ.get("LEFT")}
"#;

/// A service with one executor for Python, which has the obeying handler warm.
struct Bench {
    service: Service,
    before: Census,
}

impl Bench {
    async fn new(limits: Value) -> Self {
        let service = one_executor().start().await;
        put_source(&service, "obeying.py", OBEYING);
        let mut metadata = python("obeying.py");
        metadata["limits"] = limits;
        service.create(&tool("obeying", metadata)).await;
        service.run("tool", "obeying", json!({})).await.output();
        let before = Census::settled(&service, &service.path("data/run")).await;
        Self { service, before }
    }

    async fn told(&self, how: &str) -> Talk {
        self.service.run("tool", "obeying", json!({ "how": how })).await
    }

    async fn assert_nothing_left(&self, talk: &Talk) {
        let run = self.service.path("data/run");
        self.before.assert_restored(&self.service, &run, talk.uuid()).await;
    }

    /// The interpreter that answers now, by a name of its own.
    async fn interpreter(&self) -> String {
        self.told("answer").await.output()["me"].as_str().unwrap().to_owned()
    }

    /// Has it fail with this code, and sees that another interpreter answers then.
    async fn replaced(&self, how: &str, timeout_ms: u64, code: &str) {
        let first = self.interpreter().await;
        let options = json!({ "timeout_ms": timeout_ms });
        let text = request_with("tool", "obeying", json!({ "how": how }), options);
        let start = Instant::now();
        let talk = self.service.talk("/tool", &text).await;
        let took = start.elapsed();
        let (error, told) = talk.error();
        println!("{how}: ended after {took:?}: {error}");
        assert_eq!(told, code, "{how}: {error}");
        assert!(took < NOISE, "{how}: {took:?}");
        self.assert_nothing_left(&talk).await;
        let next = self.told("answer").await;
        assert_ne!(next.output()["me"], json!(first), "{how}");
        assert_eq!(next.output()["runs"], 1, "{how}");
    }
}

fn one_executor() -> Launch {
    Launch::new().set("POOLS__PYTHON__MIN", 1).set("POOLS__PYTHON__MAX", 1)
}

#[tokio::test]
async fn one_interpreter_answers_again_and_again() {
    let bench = Bench::new(json!({})).await;
    let first = bench.told("answer").await;
    for runs in 3..8 {
        let talk = bench.told("answer").await;
        assert_eq!(talk.output()["me"], first.output()["me"]);
        assert_eq!(talk.output()["runs"], runs);
    }
    // An exception is no reason to let it go.
    let source =
        "runs = 0\n\ndef handler(input):\n    global runs\n    runs += 1\n    return 1 / (runs - 1) + runs\n";
    put_source(&bench.service, "raising.py", source);
    bench.service.create(&tool("raising", python("raising.py"))).await;
    assert_eq!(bench.service.run("tool", "raising", json!({})).await.error().1, "exception");
    assert_eq!(*bench.service.run("tool", "raising", json!({})).await.output(), json!(3.0));
}

#[tokio::test]
async fn two_definitions_keep_an_interpreter_each() {
    let launch = Launch::new().set("POOLS__PYTHON__MIN", 2).set("POOLS__PYTHON__MAX", 2);
    let service = launch.start().await;
    put_source(&service, "obeying.py", OBEYING);
    for id in ["one", "other"] {
        service.create(&tool(id, python("obeying.py"))).await;
        // Each executor has reported once there was work for both.
        service.run("tool", id, json!({})).await.output();
    }
    let mut seen = [BTreeSet::new(), BTreeSet::new()];
    for _ in 0..5 {
        for (id, seen) in ["one", "other"].into_iter().zip(&mut seen) {
            let talk = service.run("tool", id, json!({})).await;
            seen.insert(talk.output()["me"].as_str().unwrap().to_owned());
        }
    }
    let [one, other] = &seen;
    assert_eq!((one.len(), other.len()), (1, 1), "{seen:?}");
    assert!(one.is_disjoint(other), "{seen:?}");
}

#[tokio::test]
async fn an_interpreter_that_dies_is_replaced_and_the_caller_is_told() {
    let bench = Bench::new(json!({})).await;
    bench.replaced("exit", 20_000, "exit_status").await;
    bench.replaced("die", 20_000, "exit_status").await;
}

#[tokio::test]
async fn a_handler_that_hangs_is_ended_with_its_interpreter() {
    let bench = Bench::new(json!({})).await;
    bench.replaced("hang", 300, "timed_out").await;
}

#[tokio::test]
async fn a_handler_that_uses_too_much_is_ended_with_its_interpreter() {
    let bench = Bench::new(json!({ "memory_mb": 100, "cpu_ms": 200 })).await;
    bench.replaced("eat", 20_000, "memory_exceeded").await;
    bench.replaced("compute", 20_000, "cpu_exceeded").await;
}

#[tokio::test]
async fn a_handler_that_writes_where_answers_go_is_ended_with_its_interpreter() {
    let bench = Bench::new(json!({})).await;
    bench.replaced("intrude", 20_000, "invalid_output").await;
}

#[tokio::test]
async fn a_handler_that_hangs_is_ended_when_it_is_cancelled() {
    let bench = Bench::new(json!({})).await;
    let (mut socket, uuid) =
        accepted(&bench.service, "obeying", json!({ "how": "hang" }), json!({ "stream": true })).await;
    assert_eq!(socket.frame().await.unwrap()["event"], "started");
    socket.send(&json!({ "cancel": uuid }).to_string()).await;
    let talk = socket.rest().await;
    assert_eq!(talk.error().1, "cancelled");
    assert_eq!(talk.frames.len(), 1, "{talk:?}");
    let run = bench.service.path("data/run");
    bench.before.assert_restored(&bench.service, &run, Some(&uuid)).await;
    assert_eq!(bench.told("answer").await.output()["runs"], 1);
}

#[tokio::test]
async fn an_interpreter_is_replaced_after_enough_runs() {
    let service = one_executor().set("PYTHON__MAX_RUNS", 3).start().await;
    put_source(&service, "obeying.py", OBEYING);
    service.create(&tool("obeying", python("obeying.py"))).await;
    let mut runs = Vec::new();
    for _ in 0..7 {
        let talk = service.run("tool", "obeying", json!({})).await;
        runs.push(talk.output()["runs"].as_u64().unwrap());
    }
    assert_eq!(runs, [1, 2, 3, 1, 2, 3, 1]);
}

/// Has a handler leave processes: they are gone when its answer is there, which they do not delay, and with them the
/// interpreter, which may hold the dead among its children.
async fn leaves_nothing(how: &str) {
    let bench = Bench::new(json!({})).await;
    let first = bench.interpreter().await;
    let start = Instant::now();
    let talk = bench.told(how).await;
    let took = start.elapsed();
    assert_eq!(talk.output()["me"], json!(first), "{how}");
    assert!(processes_of(talk.uuid().unwrap()).is_empty(), "{how}");
    assert!(took < NOISE, "{how}: {took:?}");
    bench.assert_nothing_left(&talk).await;
    assert_ne!(bench.interpreter().await, first, "{how}: the interpreter stayed");
}

#[tokio::test]
async fn orphans_of_a_handler_are_gone_when_it_has_answered() {
    leaves_nothing("orphan").await;
}

#[tokio::test]
async fn children_of_a_handler_are_gone_when_it_has_answered() {
    leaves_nothing("child").await;
}

#[tokio::test]
async fn a_fork_of_a_handler_never_answers_in_its_place() {
    leaves_nothing("fork").await;
}

#[tokio::test]
async fn what_a_handler_writes_and_sets_is_gone_at_the_next_run() {
    let bench = Bench::new(json!({})).await;
    let first = bench.interpreter().await;
    bench.told("write").await.output();
    let next = bench.told("answer").await;
    assert_eq!(next.output()["me"], json!(first));
    assert_eq!((&next.output()["files"], &next.output()["left"]), (&json!([]), &Value::Null));
}

/// A source whose handler gives this number.
fn giving(number: u32) -> String {
    format!("def handler(input):\n    return {number}\n")
}

#[tokio::test]
async fn a_definition_that_is_updated_runs_with_its_new_handler() {
    let service = one_executor().start().await;
    put_source(&service, "two.py", "def one(input):\n    return 1\n\ndef two(input):\n    return 2\n");
    let metadata = |handler: &str| {
        let mut metadata = python("two.py");
        metadata["handler"] = json!(handler);
        metadata
    };
    service.create(&tool("changing", metadata("one"))).await;
    assert_eq!(*service.run("tool", "changing", json!({})).await.output(), json!(1));
    let update = json!({ "tool_metadata": metadata("two") }).to_string();
    assert_eq!(service.rest("PUT", "/tool/changing", &update).await.0, 200);
    assert_eq!(*service.run("tool", "changing", json!({})).await.output(), json!(2));
}

#[tokio::test]
async fn a_changed_source_runs_once_it_was_registered_again() {
    let service = one_executor().start().await;
    let output = async || service.run("tool", "changing", json!({})).await.output().clone();
    put_source(&service, "changing.py", giving(1));
    service.create(&tool("changing", python("changing.py"))).await;
    assert_eq!(output().await, json!(1));
    put_source(&service, "changing.py", giving(2));
    assert_eq!(output().await, json!(1), "it was pinned");
    // Another interpreter for the same pin.
    let update = json!({ "tool_description": "other words" }).to_string();
    assert_eq!(service.rest("PUT", "/tool/changing", &update).await.0, 200);
    assert_eq!(output().await, json!(1), "its source was not named again");
    let update = json!({ "tool_metadata": python("changing.py") }).to_string();
    assert_eq!(service.rest("PUT", "/tool/changing", &update).await.0, 200);
    assert_eq!(output().await, json!(2));
    put_source(&service, "changing.py", giving(3));
    assert_eq!(service.rest("DELETE", "/tool/changing", "").await.0, 200);
    service.create(&tool("changing", python("changing.py"))).await;
    assert_eq!(output().await, json!(3));
}
