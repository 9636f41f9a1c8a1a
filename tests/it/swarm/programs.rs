//! Programs of this machine, most of them a line of shell.

use serde_json::{Value, json};

use super::{Calm, FEW, LONG, MANY, MARK, OK, Program, Swarm, launch};
use crate::program::Gate;

/// The answer of a program that succeeds: whose run it is.
const ANSWER: &str = r#"answer() { printf '{"execution":"%s"}' "$ORG_EXECUTION"; }; "#;

const FORK_LOOP: &str = "
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
";

/// Forks twice, in a session of its own and with nothing open, as daemons do.
const DAEMON: &str = r#"
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 1024)
        time.sleep(60)
    os._exit(0)
os.wait()
print('{"execution":"%s"}' % os.environ["ORG_EXECUTION"])
"#;

const DESCRIPTORS: &str = "
import os, time
held = []
while True:
    try:
        held.append(os.open('/dev/null', os.O_RDONLY))
    except OSError:
        time.sleep(60)
";

const THREADS: &str = "
import threading, time
while True:
    try:
        threading.Thread(target=time.sleep, args=(60,)).start()
    except RuntimeError:
        time.sleep(60)
";

/// The mark is an argument, so that it is on the command line of all that is forked.
fn program(
    name: &'static str,
    entrypoint: &str,
    script: &str,
    limits: Value,
    right: &'static [&'static str],
) -> Program {
    let args = ["-c", script, MARK];
    let metadata = json!({ "runtime": "binary", "entrypoint": entrypoint, "args": args, "limits": limits });
    Program { name, metadata, input: json!({}), right }
}

fn sh(name: &'static str, script: &str, limits: Value, right: &'static [&'static str]) -> Program {
    program(name, "sh", &format!("{ANSWER}{script}"), limits, right)
}

fn py(name: &'static str, script: &str, limits: Value, right: &'static [&'static str]) -> Program {
    program(name, "python3", script, limits, right)
}

fn programs() -> Vec<Program> {
    let long = json!({ "timeout_ms": LONG });
    let short = json!({ "timeout_ms": 300 });
    // Short, since a bomb that is not held takes the machine.
    let bounded = json!({ "timeout_ms": 5_000, "processes": 64 });
    vec![
        // Where the kernel's own bound is met before the watch looks, it fails by itself, or goes on within the bound.
        sh(
            "fork bomb",
            "f() { f | f & sleep 61.4242; }; f",
            bounded.clone(),
            &["processes_exceeded", "exit_status", "timed_out"],
        ),
        py("fork loop", FORK_LOOP, bounded.clone(), &["processes_exceeded"]),
        py("thread hog", THREADS, bounded, &["processes_exceeded"]),
        py("daemon", DAEMON, long.clone(), &[OK]),
        sh(
            "daemon without environment",
            "env -i setsid sh -c 'sleep 61.4242' <&- >&- 2>&- & answer",
            long.clone(),
            &[OK],
        ),
        sh("grandchild that holds the pipes", "setsid sleep 61.4242 & answer", long.clone(), &[OK]),
        sh(
            "memory hog",
            "(head -c 300000000 /dev/zero; sleep 61.4242) | tail -n 1",
            json!({ "timeout_ms": LONG, "memory_mb": 64 }),
            &["memory_exceeded"],
        ),
        sh(
            "memory hog in four children",
            "for i in 1 2 3 4; do (head -c 100000000 /dev/zero; sleep 61.4242) | tail -n 1 & done; wait",
            json!({ "timeout_ms": LONG, "memory_mb": 128 }),
            &["memory_exceeded"],
        ),
        sh("one large file", "exec head -c 1000000000 /dev/zero > file", long.clone(), &["disk_exceeded"]),
        sh(
            "many files",
            "i=0; while :; do head -c 1000000 /dev/zero > $i; i=$((i + 1)); done",
            long.clone(),
            &["disk_exceeded"],
        ),
        sh(
            "signal ignorer without output",
            "trap '' HUP INT QUIT TERM ALRM USR1 USR2 PIPE CHLD; exec >&- 2>&-; while :; do sleep 61.4242; done",
            short.clone(),
            &["timed_out"],
        ),
        sh("self-stopper", "kill -STOP $$; answer", short.clone(), &["timed_out"]),
        sh("group-stopper", "sleep 61.4242 & kill -STOP 0; answer", short, &["timed_out"]),
        sh(
            "zombie maker",
            // What `exec` becomes never waits for what the shell has started.
            "i=0; while [ $i -lt 50 ]; do sleep 0.1 & i=$((i + 1)); done; exec sleep 61.4242",
            json!({ "timeout_ms": 1_000, "processes": 64 }),
            &["timed_out"],
        ),
        py("descriptor hog", DESCRIPTORS, json!({ "timeout_ms": LONG, "files": 64 }), &["files_exceeded"]),
        sh("log flood", "yes >&2", json!({ "timeout_ms": 500 }), &["timed_out"]),
        sh("output flood", "yes", long.clone(), &["output_too_large"]),
        sh("burner", "while :; do :; done", json!({ "timeout_ms": LONG, "cpu_ms": 100 }), &["cpu_exceeded"]),
        // Process 1 of a namespace is not killed from within; where there is none, the launcher is.
        sh("killer of its parent", "kill -9 $PPID; answer", long.clone(), &[OK, "interrupted"]),
        sh(
            "maker of odd folders",
            "mkdir -p a/b; mkfifo a/b/fifo; ln -s ../.. a/b/up; ln -s loop loop; chmod 0 a/b a; answer",
            long,
            &[OK],
        ),
    ]
}

fn calm(gate: &Gate) -> Calm {
    Calm { metadata: gate.program("printf '{}'"), input: json!({}), waits: true }
}

async fn attack(times: usize) {
    Swarm::new(launch("BINARY"), programs(), &[], calm).await.attack(times).await;
}

#[tokio::test]
async fn hostile_programs_end_as_is_right_and_leave_nothing() {
    attack(FEW).await;
}

#[tokio::test]
#[ignore = "a soak of some minutes"]
async fn hostile_programs_leave_nothing_in_4_000_runs() {
    attack(MANY).await;
}
