//! Containers, half of them fresh ones, half of them warm ones that are reset after each run.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Calm, FEW, MANY, OK, Program, Swarm, WIDTH, launch};
use crate::podman::{IMAGE, podman};
use crate::program::Gate;
use crate::service::{PATIENCE, eventually};

/// The answer of a program that succeeds: whose run it is.
const ANSWER: &str = r#"answer() { printf '{"execution":"%s"}' "$ORG_EXECUTION"; }; "#;

/// A definition for all programs with the same limits: the script comes with the input.
fn metadata(mode: &str, limits: Value) -> Value {
    json!({
        "runtime": "container", "image": IMAGE, "command": ["sh", "-c", "{{script}}"],
        "container": { "mode": mode, "pull": "never" }, "limits": limits,
    })
}

fn input(script: &str) -> Value {
    json!({ "script": format!("{ANSWER}{script}") })
}

/// What they do, for how long they may, and what is right. What the kernel refuses them fails them or not, as the
/// program takes it.
const SCRIPTS: [(&str, &str, &str, &[&str]); 20] = [
    ("fork bomb", "f() { f | f & sleep 61.4242; }; f", SHORT, &["timed_out", "exit_status"]),
    ("daemon", "setsid sh -c 'sleep 61.4242' <&- >&- 2>&- & answer", LONG, &[OK]),
    ("daemon without environment", "env -i setsid sleep 61.4242 & answer", LONG, &[OK]),
    ("memory hog", "exec dd if=/dev/zero of=/dev/null bs=300M count=1", LONG, &["memory_exceeded"]),
    (
        "memory hog in four children",
        "for i in 1 2 3 4; do dd if=/dev/zero of=/dev/null bs=30M count=20 & done; wait; exit 1",
        LONG,
        &["memory_exceeded", "exit_status"],
    ),
    ("one large file", "exec dd if=/dev/zero of=/tmp/file bs=1M", LONG, &["exit_status"]),
    (
        "many files",
        "i=0; while :; do head -c 100000 /dev/zero > /tmp/$i; i=$((i + 1)); done",
        SHORT,
        &["timed_out"],
    ),
    (
        "writer elsewhere",
        "for d in / /etc /dev/shm /run /proc/sys/kernel; do echo x > $d/file; done; answer",
        LONG,
        &[OK],
    ),
    (
        "signal ignorer",
        "trap '' HUP INT QUIT TERM ALRM USR1 USR2 PIPE CHLD; while :; do sleep 61.4242; done",
        SHORT,
        &["timed_out"],
    ),
    ("self-stopper", "sh -c 'kill -STOP $$'; sleep 61.4242", SHORT, &["timed_out"]),
    ("group-stopper", "sleep 61.4242 & kill -STOP 0; sleep 61.4242", SHORT, &["timed_out"]),
    (
        "zombie maker",
        "i=0; while [ $i -lt 20 ]; do sleep 0.1 & i=$((i + 1)); done; exec sleep 61.4242",
        SHORT,
        &["timed_out"],
    ),
    ("descriptor hog", "for i in $(seq 100); do : > /tmp/$i; done; tail -f /tmp/*", SHORT, &["timed_out"]),
    ("log flood", "yes >&2", SHORT, &["timed_out"]),
    ("output flood", "yes", LONG, &["output_too_large"]),
    ("burner", "while :; do :; done", BURNING, &["cpu_exceeded"]),
    ("killer of all", "sleep 61.4242 & kill -9 -1; kill -9 1; kill -STOP 1; answer", LONG, &[OK]),
    ("process hog", "while :; do sleep 61.4242 & done", LONG, &["exit_status"]),
    (
        "maker of odd folders",
        "cd /tmp; mkdir -p a/b; mkfifo a/b/fifo; ln -s ../.. a/b/up; ln -s loop loop; chmod 0 a/b a; answer",
        LONG,
        &[OK],
    ),
    (
        "intruder",
        "for f in 0 1 2; do echo nonsense > /proc/1/fd/$f; done; answer",
        LONG,
        &[OK, "invalid_output", "container_ended"],
    ),
];

/// Sixteen containers that start at once take seconds of a small machine.
const SHORT: &str = r#"{"timeout_ms":3000,"memory_mb":64,"processes":32,"files":64}"#;
const LONG: &str = r#"{"timeout_ms":30000,"memory_mb":64,"processes":32,"files":64}"#;

/// Processor time is counted in whole seconds.
const BURNING: &str = r#"{"timeout_ms":30000,"cpu_ms":1000}"#;

fn programs() -> Vec<Program> {
    let mut programs = Vec::new();
    for (index, (name, script, limits, right)) in SCRIPTS.into_iter().enumerate() {
        let mode = if index % 2 == 0 { "fresh" } else { "warm" };
        let metadata = metadata(mode, serde_json::from_str(limits).unwrap());
        programs.push(Program { name, metadata, input: input(script), right });
    }
    programs
}

/// Each executor keeps one container. None can see the gate, but one takes longer than it takes to ask for all.
fn calm(_: &Gate) -> Calm {
    Calm { metadata: metadata("warm", json!({})), input: input("sleep 2; answer"), waits: false }
}

async fn attack(times: usize) {
    let Some(podman) = podman().await else { return };
    let launch =
        launch("CONTAINER").set("CONTAINERS__SOCKET", podman.socket()).set("CONTAINERS__TMPFS_MB", 16);
    let mut service = Swarm::new(launch, programs(), &[], calm).await.attack(times).await;
    let kept = || podman.containers(&service).len();
    eventually("each executor keeps one container", PATIENCE, || kept() <= WIDTH).await;
    service.signal(Signal::SIGTERM);
    service.exit().await;
    assert_eq!(podman.containers(&service).len(), 0, "containers are left");
}

#[tokio::test]
async fn hostile_containers_end_as_is_right_and_leave_nothing() {
    attack(FEW).await;
}

#[tokio::test]
#[ignore = "a soak of a quarter of an hour"]
async fn hostile_containers_leave_nothing_in_4_000_runs() {
    attack(MANY).await;
}
