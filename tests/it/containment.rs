//! Programs that fork, hide and stop, in each way that programs are kept together. What a machine does not give is
//! told, and skipped here.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::census::processes_of;
use crate::limits::{Bench, NOISE};
use crate::program::{accepted, shell, tool};
use crate::service::{Launch, PATIENCE, eventually};

const LEVELS: [&str; 4] = ["pid_namespace", "cgroup", "uid", "subreaper"];

/// Whether this machine keeps programs together in this way. Where it does not, it says so and runs nothing.
async fn is_given(level: &str) -> bool {
    let service = Launch::new().limits().set("LIMITS__CONTAINMENT", level).start().await;
    let (_, answer) = service.rest("GET", "/readyz", "").await;
    let readiness = &answer["data"];
    let binary = &readiness["runtimes"]["binary"];
    if binary["available"] == true {
        assert_eq!(readiness["containment"], level, "{readiness}");
        assert_eq!(readiness["holds_fork_bombs"], level != "subreaper", "{readiness}");
        return true;
    }
    let reason = binary["reason"].as_str().unwrap();
    eprintln!("SKIPPED {level}: {reason}");
    assert_eq!(readiness["containment"], Value::Null, "{readiness}");
    let talk = service.run("tool", "binary-increment-tool", json!({ "value": 5 })).await;
    let (error, code) = talk.error();
    assert_eq!(code, "not_startable", "{error}");
    assert!(error.contains(reason), "{error}");
    false
}

async fn bench(level: &str) -> Bench {
    Bench::new(Launch::new().limits().set("LIMITS__CONTAINMENT", level)).await
}

fn limited(entrypoint: &str, script: &str, limits: Value) -> Value {
    json!({ "runtime": "binary", "entrypoint": entrypoint, "args": ["-c", script], "limits": limits })
}

/// Programs that misbehave, what they are allowed, and the code with which each ends. They are lines of shell, since
/// another user may not be able to run this one's Python.
fn misbehaving() -> Vec<(&'static str, Value, &'static str)> {
    let short = json!({ "timeout_ms": 300 });
    vec![
        (
            "memory",
            limited(
                "sh",
                r"x=$(head -c 300000000 /dev/zero | tr '\0' x); sleep 60",
                json!({ "memory_mb": 100 }),
            ),
            "memory_exceeded",
        ),
        ("cpu", limited("sh", "while :; do :; done", json!({ "cpu_ms": 200 })), "cpu_exceeded"),
        (
            "processes",
            limited("sh", "while :; do sleep 60 & done", json!({ "processes": 20 })),
            "processes_exceeded",
        ),
        (
            "files",
            limited(
                "bash",
                r#"for n in $(seq 3 80); do eval "exec $n</dev/null"; done; while :; do :; done"#,
                json!({ "files": 64 }),
            ),
            "files_exceeded",
        ),
        (
            "disk",
            limited(
                "sh",
                "for i in 1 2 3 4; do dd if=/dev/zero of=$i bs=1M count=4; done; sleep 60",
                json!({}),
            ),
            "disk_exceeded",
        ),
        (
            "zombies",
            limited("sh", "for i in 1 2 3 4 5 6 7 8; do sleep 0 & done; exec sleep 60", short.clone()),
            "timed_out",
        ),
        ("stopped", limited("sh", "kill -STOP $$; sleep 60", short.clone()), "timed_out"),
        (
            "stopped-children",
            limited("sh", "for i in 1 2 3; do sh -c 'kill -STOP $$' & done; wait", short.clone()),
            "timed_out",
        ),
        (
            "daemons",
            limited(
                "sh",
                "(setsid sh -c 'sleep 60 & sleep 60' <&- >&- 2>&- &); setsid sleep 60 & sleep 60",
                short.clone(),
            ),
            "timed_out",
        ),
        (
            "deaf",
            limited("sh", "trap '' TERM INT HUP QUIT; while :; do sleep 0.05; done", short),
            "timed_out",
        ),
    ]
}

/// All of them in this way: each ends with its code, in time, and leaves nothing.
async fn holds(level: &str) {
    if !is_given(level).await {
        return;
    }
    let bench = bench(level).await;
    for (id, metadata, code) in misbehaving() {
        bench.failure(id, metadata, code).await;
    }
}

#[tokio::test]
async fn a_process_namespace_holds_what_misbehaves() {
    holds("pid_namespace").await;
}

#[tokio::test]
async fn a_control_group_holds_what_misbehaves() {
    holds("cgroup").await;
}

#[tokio::test]
async fn a_user_of_its_own_holds_what_misbehaves() {
    holds("uid").await;
}

#[tokio::test]
async fn a_subreaper_holds_what_misbehaves() {
    holds("subreaper").await;
}

/// How long a fork bomb may last: beyond its timeout, what a machine needs that it has brought to its knees.
const BOMB: Duration = Duration::from_secs(5);

/// A function that calls itself twice, in a pipe, for ever; then what its first process does.
fn fork_bomb(then: &str) -> Value {
    let script = format!("bomb() {{ bomb | bomb & }}; bomb; {then}");
    limited("sh", &script, json!({ "processes": 64, "timeout_ms": 1_000 }))
}

/// Whether a bomb may end so: it depends on how soon it was looked at.
fn is_too_much(code: &str) -> bool {
    matches!(code, "processes_exceeded" | "timed_out")
}

#[tokio::test]
async fn a_fork_bomb_ends_and_leaves_nothing() {
    // One after the other: each takes the machine from all other tests. A subreaper holds none.
    for level in &LEVELS[..3] {
        if !is_given(level).await {
            continue;
        }
        let bench = bench(level).await;
        let talk = bench.run("staying", fork_bomb("sleep 60"), BOMB).await;
        let (error, code) = talk.error();
        assert!(is_too_much(code), "{level}: {code}: {error}");
        // Its first process ends well at once, and prints what is asked for.
        let talk = bench.run("leaving", fork_bomb("printf 1"), BOMB).await;
        match talk.last()["code"].as_str() {
            None => assert_eq!(*talk.output(), json!(1), "{level}"),
            Some(code) => assert!(is_too_much(code), "{level}: {talk:?}"),
        }
    }
}

/// The launcher of an execution: the parent of its first process, which none of the execution's own is.
fn launcher_of(uuid: &str) -> Option<u32> {
    let programs = processes_of(uuid);
    let parent = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
    };
    programs.iter().filter_map(parent).find(|parent| !programs.contains(parent))
}

#[tokio::test]
async fn a_launcher_that_is_killed_takes_its_programs_along() {
    for level in LEVELS {
        if !is_given(level).await {
            continue;
        }
        let bench = bench(level).await;
        bench.service.create(&tool("waiting", shell("setsid sleep 60 & sleep 60"))).await;
        let (socket, uuid) = accepted(&bench.service, "waiting", json!({}), json!({})).await;
        eventually("it has started another", PATIENCE, || processes_of(&uuid).len() >= 3).await;
        let launcher = launcher_of(&uuid).unwrap();
        kill(Pid::from_raw(launcher.cast_signed()), Signal::SIGKILL).unwrap();
        let talk = socket.rest().await;
        assert_eq!(talk.error().1, "interrupted", "{level}");
        eventually("all are gone", NOISE, || processes_of(&uuid).is_empty()).await;
        bench.run("next", shell("printf 2"), NOISE).await.output();
    }
}

/// The session of a process, and the kernel's line about its share of the processor, where there is one.
fn session_of(pid: u32) -> (i32, Option<String>) {
    let session = nix::unistd::getsid(Some(Pid::from_raw(pid.cast_signed()))).unwrap();
    (session.as_raw(), std::fs::read_to_string(format!("/proc/{pid}/autogroup")).ok())
}

/// Else Ctrl-C would reach programs before the service has ended them, and what a launcher asks of the kernel for its
/// session would hold for the service and the shell that it was started in.
#[tokio::test]
async fn a_launcher_has_a_session_of_its_own() {
    for launch in [Launch::new(), Launch::new().limits()] {
        let bench = Bench::new(launch).await;
        bench.service.create(&tool("waiting", shell("sleep 60"))).await;
        let (socket, uuid) = accepted(&bench.service, "waiting", json!({}), json!({})).await;
        eventually("its launcher is seen", PATIENCE, || launcher_of(&uuid).is_some()).await;
        let (session, share) = session_of(launcher_of(&uuid).unwrap());
        let (of_service, share_of_service) = session_of(bench.service.pid());
        assert_ne!(session, of_service);
        if share.is_some() {
            assert_ne!(share, share_of_service);
        }
        drop(socket);
    }
}

#[tokio::test]
async fn what_can_run_here_is_told_with_how_programs_are_kept_together() {
    let service = Launch::new().limits().start().await;
    let (status, answer) = service.rest("GET", "/readyz", "").await;
    assert_eq!((status, &answer["success"]), (200, &json!(true)), "{answer}");
    let ready = &answer["data"];
    let runtimes = ready["runtimes"].as_object().unwrap();
    let names: BTreeSet<_> = runtimes.keys().map(String::as_str).collect();
    let known = ["binary", "script", "container", "python", "wasm", "http", "websocket", "mcp"];
    assert_eq!(names, BTreeSet::from(known));
    for (name, about) in runtimes {
        let is_available = about["available"].as_bool().unwrap();
        let has_reason = about["reason"].as_str().is_some_and(|reason| !reason.is_empty());
        assert_ne!(is_available, has_reason, "{name}: {about}");
    }
    let level = ready["containment"].as_str().unwrap();
    assert!(LEVELS.contains(&level), "{level}");
    let (_, answer) = service.rest("GET", "/system", "").await;
    let shown = &answer["data"]["tree"]["readiness"];
    assert_eq!(shown["containment"], ready["containment"]);
    let shown = shown["runtimes"].as_object().unwrap();
    assert!(shown.keys().map(String::as_str).eq(runtimes.keys().map(String::as_str)), "{shown:?}");
}
