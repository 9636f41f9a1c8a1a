//! Handlers in warm interpreters, which other runs of their definition would meet.

use serde_json::{Value, json};

use super::{Calm, FEW, LONG, MANY, MARK, OK, Program, Swarm, launch};
use crate::program::Gate;

/// Each way to misbehave is a function that is given the mark.
const HOSTILE: &str = r#"
import os, signal, subprocess, threading, time

def fork_loop(mark):
    while True:
        try:
            os.fork()
        except OSError:
            pass

def daemon(mark):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 1024)
            time.sleep(60)
        os._exit(0)
    os.wait()

def bare_daemon(mark):
    subprocess.Popen(["sleep", mark], env={}, start_new_session=True)

def returning_fork(mark):
    os.fork()

def memory(mark):
    held = []
    while True:
        held.append(bytearray(1 << 20))

def memory_of_children(mark):
    for _ in range(4):
        if os.fork() == 0:
            break
    held = bytearray(60 << 20)
    time.sleep(60)

def files(mark):
    number = 0
    while True:
        number += 1
        with open(str(number), "wb") as file:
            file.write(bytes(1 << 18))

def deaf(mark):
    for number in range(1, 32):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_IGN)
    os.closerange(0, 3)
    time.sleep(60)

def stop(mark):
    os.kill(os.getpid(), signal.SIGSTOP)

def stop_group(mark):
    subprocess.Popen(["sleep", mark])
    os.killpg(0, signal.SIGSTOP)

def zombies(mark):
    for _ in range(50):
        if os.fork() == 0:
            os._exit(0)

def descriptors(mark):
    held = []
    while True:
        try:
            held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            time.sleep(60)

def log(mark):
    while True:
        print("y" * 1000)

def output(mark):
    return "x" * (4 << 20)

def threads(mark):
    while True:
        try:
            threading.Thread(target=time.sleep, args=(60,)).start()
        except RuntimeError:
            time.sleep(60)

def burn(mark):
    while True:
        pass

def intrude(mark):
    for descriptor in range(3, 16):
        try:
            os.write(descriptor, b"nonsense\n")
        except OSError:
            pass

def close(mark):
    os.closerange(3, 64)

def kill_parent(mark):
    os.kill(os.getppid(), signal.SIGKILL)

def folders(mark):
    os.makedirs("a/b")
    os.mkfifo("a/b/fifo")
    os.symlink("loop", "loop")
    for folder in ("a/b", "a", "."):
        os.chmod(folder, 0)

def handler(input, context):
    return globals()[input["mode"]](input["mark"]) or {"execution": context.execution}

def wait(input):
    with open(input["gate"] + "/arrived", "a") as arrived:
        arrived.write("here\n")
    while os.path.isdir(input["gate"]) and not os.path.exists(input["gate"] + "/open"):
        time.sleep(0.01)
    return {}
"#;

fn handler(mode: &'static str, limits: &Value, right: &'static [&'static str]) -> Program {
    let metadata = json!({
        "runtime": "python", "source_url": "hostile.py", "handler": "handler", "limits": limits
    });
    Program { name: mode, metadata, input: json!({ "mode": mode, "mark": MARK }), right }
}

fn programs() -> Vec<Program> {
    let limits =
        |timeout_ms: u64| json!({ "timeout_ms": timeout_ms, "processes": 64, "memory_mb": 96, "files": 64 });
    // Programs with the same limits share an interpreter. A bomb that is not held takes the machine, but not for long.
    let (long, bounded, short) = (&limits(LONG), &limits(5_000), &limits(1_000));
    let mut burning = limits(LONG);
    burning["cpu_ms"] = json!(300);
    vec![
        // Before it has too many processes it may have too much memory.
        handler("fork_loop", bounded, &["processes_exceeded", "memory_exceeded"]),
        handler("threads", bounded, &["processes_exceeded"]),
        handler("daemon", long, &[OK]),
        handler("bare_daemon", long, &[OK]),
        handler("returning_fork", long, &[OK]),
        handler("zombies", long, &[OK]),
        handler("memory", long, &["memory_exceeded"]),
        handler("memory_of_children", long, &["memory_exceeded"]),
        handler("files", long, &["disk_exceeded"]),
        handler("deaf", short, &["timed_out"]),
        handler("stop", short, &["timed_out"]),
        handler("stop_group", short, &["timed_out"]),
        handler("descriptors", long, &["files_exceeded"]),
        handler("log", short, &["timed_out"]),
        handler("output", long, &["output_too_large"]),
        handler("burn", &burning, &["cpu_exceeded"]),
        handler("intrude", long, &["invalid_output"]),
        handler("close", long, &["exit_status"]),
        // Process 1 of a namespace is not killed from within; where there is none, the launcher is.
        handler("kill_parent", long, &[OK, "interrupted"]),
        handler("folders", long, &[OK]),
    ]
}

fn calm(gate: &Gate) -> Calm {
    let metadata = json!({ "runtime": "python", "source_url": "hostile.py", "handler": "wait" });
    Calm { metadata, input: json!({ "gate": gate.path() }), waits: true }
}

async fn attack(times: usize) {
    let sources = [("hostile.py", HOSTILE)];
    Swarm::new(launch("PYTHON"), programs(), &sources, calm).await.attack(times).await;
}

#[tokio::test]
async fn hostile_handlers_end_as_is_right_and_leave_nothing() {
    attack(FEW).await;
}

#[tokio::test]
#[ignore = "a soak of some minutes"]
async fn hostile_handlers_leave_nothing_in_4_000_runs() {
    attack(MANY).await;
}
