//! Executions in containers, on a real engine.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

use crate::podman::{IMAGE, Podman, address, podman};
use crate::program::{lines, tool};
use crate::service::{Launch, PATIENCE, Service, eventually, request_with};
use crate::socket::Talk;

/// Every way in which a container may live.
const MODES: [&str; 3] = ["fresh", "warm", "warm_once"];

/// How much longer than its own time anything may take on a busy machine.
const NOISE: Duration = Duration::from_secs(10);

/// A service with one executor for containers, and its engine.
struct Bench {
    service: Service,
    podman: &'static Podman,
}

impl Bench {
    async fn new() -> Option<Self> {
        let podman = podman().await?;
        Some(Self { service: launch(&podman.socket()).start().await, podman })
    }

    /// Registers a definition under its mode, and runs it.
    async fn run(&self, mode: &str, metadata: Value, input: Value) -> Talk {
        self.service.create(&tool(mode, metadata)).await;
        self.service.run("tool", mode, input).await
    }

    async fn text(&self, id: &str) -> String {
        let talk = self.service.run("tool", id, json!({})).await;
        talk.output()["stdout"].as_str().unwrap().trim().to_owned()
    }

    fn containers(&self) -> Vec<String> {
        self.podman.containers(&self.service)
    }

    async fn assert_emptied(&self) {
        eventually("no container is left", PATIENCE, || self.containers().is_empty()).await;
    }
}

fn launch(socket: &str) -> Launch {
    one_executor(Launch::new(), socket)
}

fn one_executor(launch: Launch, socket: &str) -> Launch {
    launch
        .set("CONTAINERS__SOCKET", socket)
        .set("CONTAINERS__TMPFS_MB", 16)
        .set("POOLS__CONTAINER__MIN", 1)
        .set("POOLS__CONTAINER__MAX", 1)
}

/// The metadata of a command in a container.
fn container(mode: &str, command: &[&str]) -> Value {
    json!({
        "runtime": "container",
        "image": IMAGE,
        "command": command,
        "container": { "mode": mode, "pull": "never" },
        "limits": { "memory_mb": 64, "processes": 20, "output_bytes": 4_000_000 },
    })
}

/// As `container`, of a line of shell whose output is text.
fn shell(mode: &str, script: &str) -> Value {
    let mut metadata = container(mode, &["sh", "-c", script]);
    metadata["output"] = json!("text");
    metadata
}

fn limited(mut metadata: Value, limit: &str, value: u64) -> Value {
    metadata["limits"][limit] = json!(value);
    metadata
}

#[tokio::test]
async fn a_container_reads_json_and_gives_json() {
    let Some(bench) = Bench::new().await else { return };
    for mode in MODES {
        let input = json!({ "text": "it's \"quoted\" $HOME `x` \\ \n é", "large": "x".repeat(500_000) });
        let talk = bench.run(mode, container(mode, &["cat"]), input.clone()).await;
        assert_eq!(*talk.output(), input, "{mode}");
    }
}

#[tokio::test]
async fn a_program_that_does_not_read_its_input_runs_all_the_same() {
    let Some(bench) = Bench::new().await else { return };
    for mode in MODES {
        let input = json!({ "large": "x".repeat(500_000) });
        let talk = bench.run(mode, container(mode, &["echo", "[1]"]), input).await;
        assert_eq!(*talk.output(), json!([1]), "{mode}");
    }
}

#[tokio::test]
async fn arguments_and_variables_arrive_as_they_are() {
    let Some(bench) = Bench::new().await else { return };
    for mode in MODES {
        let script = r#"printf '%s|' "$0" "$1" "$2" "$A" "$ORG_DEFINITION"; test -n "$ORG_EXECUTION""#;
        let mut metadata = shell(mode, script);
        metadata["command"] = json!(["sh", "-c", script, "{{first}}"]);
        metadata["args"] = json!(["a'b \"c\"", "{{second}}"]);
        metadata["env"] = json!({ "A": "x\n$y 'z'", "odd.name": "1" });
        let talk = bench.run(mode, metadata, json!({ "first": "-n", "second": "* ? \\n" })).await;
        let expected = format!("-n|a'b \"c\"|* ? \\n|x\n$y 'z'|{mode}|");
        assert_eq!(talk.output()["stdout"], json!(expected), "{mode}");
    }
}

#[tokio::test]
async fn a_template_is_what_a_container_reads() {
    let Some(bench) = Bench::new().await else { return };
    for mode in MODES {
        let mut metadata = container(mode, &["cat"]);
        metadata["stdin"] = json!("{{text}}");
        metadata["output"] = json!("text");
        // No shell can hold the last character.
        for text in ["a\n'b'\nEOF\n", "", "a\0b"] {
            let id = format!("{mode}-{}", text.len());
            bench.service.create(&tool(&id, metadata.clone())).await;
            let talk = bench.service.run("tool", &id, json!({ "text": text })).await;
            assert_eq!(talk.output()["stdout"], json!(text), "{mode}");
        }
    }
}

#[tokio::test]
async fn what_a_container_prints_to_stderr_is_heard_while_it_runs() {
    let Some(bench) = Bench::new().await else { return };
    for mode in MODES {
        let script = "echo one >&2; sleep 1; echo two >&2; printf three >&2";
        bench.service.create(&tool(mode, shell(mode, script))).await;
        let mut socket = bench.service.socket("/tool").await;
        socket.send(&request_with("tool", mode, json!({}), json!({ "stream": true }))).await;
        while socket.frame().await.unwrap()["line"] != "one" {}
        let heard = Instant::now();
        let talk = socket.rest().await;
        assert!(heard.elapsed() > Duration::from_millis(500), "{mode}: {:?}", heard.elapsed());
        assert_eq!(lines(&talk), ["two", "three"], "{mode}");
        assert_eq!(talk.output()["stdout"], "", "{mode}");
    }
}

#[tokio::test]
async fn a_container_that_fails_says_how() {
    let Some(bench) = Bench::new().await else { return };
    for mode in MODES {
        let talk = bench.run(mode, shell(mode, "echo broken >&2; exit 7"), json!({})).await;
        let (error, code) = talk.error();
        assert_eq!(code, "exit_status", "{mode}");
        assert!(error.contains("exit status 7") && error.ends_with("broken"), "{mode}: {error}");
    }
}

#[tokio::test]
async fn a_container_ends_at_its_timeout_and_is_gone() {
    let Some(bench) = Bench::new().await else { return };
    for mode in MODES {
        let metadata = limited(shell(mode, "(setsid sleep 60 &); sleep 60"), "timeout_ms", 1_500);
        let start = Instant::now();
        let talk = bench.run(mode, metadata, json!({})).await;
        assert_eq!(talk.error().1, "timed_out", "{mode}");
        assert!(start.elapsed() < NOISE, "{mode}: {:?}", start.elapsed());
        assert_eq!(bench.containers(), [""; 0], "{mode}");
    }
}

/// What asks for too much ends with this code, soon, and the next run is none the worse.
async fn is_bounded(script: &str, limit: (&str, u64), code: &str) {
    let Some(bench) = Bench::new().await else { return };
    for mode in MODES {
        // An empty input is the one that behaves.
        let script = format!("read -r input; [ \"$input\" = '{{}}' ] && exec echo well; {script}");
        bench.service.create(&tool(mode, limited(shell(mode, &script), limit.0, limit.1))).await;
        assert_eq!(bench.text(mode).await, "well", "{mode}");
        let start = Instant::now();
        let talk = bench.service.run("tool", mode, json!({ "ask": "too much" })).await;
        assert_eq!(talk.error().1, code, "{mode}: {:?}", talk.error());
        assert!(start.elapsed() < NOISE, "{mode}: {:?}", start.elapsed());
        assert_eq!(bench.text(mode).await, "well", "{mode}");
    }
}

#[tokio::test]
async fn a_container_that_eats_memory_is_ended() {
    is_bounded("x=a; while :; do x=$x$x; done", ("memory_mb", 64), "memory_exceeded").await;
}

#[tokio::test]
async fn a_container_that_computes_for_too_long_is_ended() {
    is_bounded("while :; do :; done", ("cpu_ms", 900), "cpu_exceeded").await;
}

#[tokio::test]
async fn a_container_that_floods_its_output_is_ended() {
    is_bounded("exec yes", ("output_bytes", 100_000), "output_too_large").await;
}

#[tokio::test]
async fn a_container_that_floods_its_log_is_ended_at_its_timeout() {
    is_bounded("exec yes >&2", ("timeout_ms", 2_000), "timed_out").await;
}

#[tokio::test]
async fn a_fork_bomb_stays_in_its_container() {
    let bomb = "while :; do sh -c 'while :; do sleep 100 & done' 2>/dev/null; done";
    is_bounded(bomb, ("timeout_ms", 3_000), "timed_out").await;
}

#[tokio::test]
async fn a_container_may_write_a_little_and_reach_nothing() {
    let Some(bench) = Bench::new().await else { return };
    let script = "id -u; id -g; ls /sys/class/net; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status | tr -d '\\t'; \
        for place in / /bin /etc /run /var/tmp /dev /sys /proc; do touch $place/x 2>/dev/null && echo $place; done; \
        touch /tmp/x && echo /tmp; head -c 17000000 /dev/zero > /tmp/large 2>/dev/null || echo full; ulimit -n";
    for mode in MODES {
        let metadata = limited(shell(mode, script), "files", 99);
        let talk = bench.run(mode, metadata, json!({})).await;
        let said: Vec<_> = talk.output()["stdout"].as_str().unwrap().lines().collect();
        let caps = ["CapEff:0000000000000000", "CapBnd:0000000000000000", "NoNewPrivs:1"];
        assert_eq!(said, [&["65534", "65534", "lo"][..], &caps, &["/tmp", "full", "99"]].concat(), "{mode}");
    }
}

#[tokio::test]
async fn a_warm_container_is_used_again_and_is_as_new() {
    let Some(bench) = Bench::new().await else { return };
    let script = "hostname; ls -A /tmp /dev/shm; ps -o args | grep -c '^sleep'; ls /proc/self/fd | wc -l; \
        mkdir -p /tmp/a/b; touch /tmp/.c '/tmp/d e' /dev/shm/f; sleep 60 & (setsid sleep 60 &); export LEFT=1; cd /tmp";
    bench.service.create(&tool("warm", shell("warm", script))).await;
    let first = bench.text("warm").await;
    for _ in 0..5 {
        assert_eq!(bench.text("warm").await, first);
    }
    assert_eq!(bench.containers().len(), 1);
    // Another definition gets another one, in place of it.
    bench.service.create(&tool("other", shell("warm", "hostname"))).await;
    assert_ne!(bench.text("other").await, first.lines().next().unwrap());
    eventually("one container is left", PATIENCE, || bench.containers().len() == 1).await;
    // So does another revision.
    let before = bench.text("other").await;
    let update = json!({ "tool_description": "other words" }).to_string();
    assert_eq!(bench.service.rest("PUT", "/tool/other", &update).await.0, 200);
    assert_ne!(bench.text("other").await, before);
}

#[tokio::test]
async fn a_warm_container_is_replaced_when_a_run_was_ended() {
    let Some(bench) = Bench::new().await else { return };
    let script = "read -r input; [ \"$input\" = '{}' ] || sleep 60; hostname";
    bench.service.create(&tool("warm", limited(shell("warm", script), "timeout_ms", 2_000))).await;
    let first = bench.text("warm").await;
    let talk = bench.service.run("tool", "warm", json!({ "wait": true })).await;
    assert_eq!(talk.error().1, "timed_out");
    assert_eq!(bench.containers(), [""; 0]);
    assert_ne!(bench.text("warm").await, first);
}

#[tokio::test]
async fn a_container_that_is_used_once_is_never_used_twice() {
    let Some(bench) = Bench::new().await else { return };
    bench.service.create(&tool("once", shell("warm_once", "hostname"))).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..5 {
        assert!(seen.insert(bench.text("once").await), "{seen:?}");
    }
    // The one for the next run, and none of the others.
    eventually("one container is left", PATIENCE, || bench.containers().len() == 1).await;
}

#[tokio::test]
async fn what_cannot_run_says_why() {
    let Some(bench) = Bench::new().await else { return };
    for mode in MODES {
        let absent = |image: &str, pull: &str| {
            let mut metadata = container(mode, &["true"]);
            metadata["image"] = json!(image);
            metadata["container"]["pull"] = json!(pull);
            metadata
        };
        let network = |name: &str| {
            let mut metadata = container(mode, &["true"]);
            metadata["network"] = json!(name);
            metadata
        };
        let cases = [
            (absent("localhost/absent", "never"), "`pull` is \"never\""),
            (absent("127.0.0.1:9/absent:1", "missing"), "could not be pulled"),
            (absent("a/../b", "missing"), "no name of an image"),
            (container(mode, &["no-such-program"]), "the image has no program \"no-such-program\""),
            (network("absent"), "no network of that name"),
            (network("host"), "may not use the network \"host\""),
        ];
        for (number, (metadata, why)) in cases.into_iter().enumerate() {
            let id = format!("{mode}-{number}");
            bench.service.create(&tool(&id, metadata)).await;
            let talk = bench.service.run("tool", &id, json!({})).await;
            let (error, code) = talk.error();
            assert_eq!(code, "not_startable", "{mode}: {error}");
            assert!(error.contains(why), "{mode}: {error}");
        }
    }
}

#[tokio::test]
async fn an_engine_that_is_gone_is_told_and_found_again() {
    let Some(podman) = podman().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("own.sock");
    let service = launch(&address(&socket)).start().await;
    for mode in MODES {
        service.create(&tool(mode, container(mode, &["cat"]))).await;
    }
    assert_unavailable(&service, folder.path()).await;
    for _ in 0..2 {
        let engine = podman.serve(&socket).await;
        for mode in MODES {
            assert_eq!(
                *service.run("tool", mode, json!({ "a": 1 })).await.output(),
                json!({ "a": 1 }),
                "{mode}"
            );
        }
        drop(engine);
        assert_unavailable(&service, folder.path()).await;
    }
    let engine = podman.serve(&socket).await;
    service.create(&tool("slow", container("fresh", &["sh", "-c", "echo here >&2; sleep 60"]))).await;
    let mut talking = service.socket("/tool").await;
    talking.send(&request_with("tool", "slow", json!({}), json!({ "stream": true }))).await;
    while talking.frame().await.unwrap()["line"] != "here" {}
    drop(engine);
    assert_eq!(talking.rest().await.error().1, "engine_unavailable");
    // What went on without its engine's service is removed once that is back.
    let _engine = podman.serve(&socket).await;
    eventually("no container is left", PATIENCE, || podman.containers(&service).is_empty()).await;
    assert_eq!(*service.run("tool", "fresh", json!({})).await.output(), json!({}));
}

/// What stands between the service and its engine, and can cut all connections that there are; there may be others at once.
async fn proxy(socket: &Path, engine: String) -> Arc<Notify> {
    let (cut, listener) = (Arc::new(Notify::new()), UnixListener::bind(socket).unwrap());
    let cutting = cut.clone();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let (engine, cutting) = (engine.clone(), cutting.clone());
            tokio::spawn(async move {
                let mut engine = UnixStream::connect(engine.trim_start_matches("unix://")).await.unwrap();
                tokio::select! {
                    _ = copy_bidirectional(&mut client, &mut engine) => {}
                    () = cutting.notified() => {}
                }
            });
        }
    });
    cut
}

#[tokio::test]
async fn an_output_that_was_cut_off_is_no_output() {
    let Some(podman) = podman().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("cut.sock");
    let cut = proxy(&socket, podman.socket()).await;
    let service = launch(&address(&socket)).start().await;
    for mode in MODES {
        let script = "echo first; echo here >&2; sleep 4; echo second";
        service.create(&tool(mode, shell(mode, script))).await;
        let mut talking = service.socket("/tool").await;
        talking.send(&request_with("tool", mode, json!({}), json!({ "stream": true }))).await;
        while talking.frame().await.unwrap()["line"] != "here" {}
        cut.notify_waiters();
        let talk = talking.rest().await;
        let (error, code) = talk.error();
        assert!(["engine_unavailable", "container_ended"].contains(&code), "{mode}: {code}: {error}");
    }
    eventually("no container is left", PATIENCE, || podman.containers(&service).is_empty()).await;
}

#[tokio::test]
async fn a_part_that_was_ended_for_its_memory_is_told_where_the_rest_made_do_without_it() {
    let Some(bench) = Bench::new().await else { return };
    for mode in ["warm", "warm_once"] {
        let script = "head -c 300000000 /dev/zero | tail | wc -c";
        let talk = bench.run(mode, shell(mode, script), json!({})).await;
        assert_eq!(talk.error().1, "memory_exceeded", "{mode}: {talk:?}");
    }
}

async fn assert_unavailable(service: &Service, folder: &Path) {
    for mode in MODES {
        let talk = service.run("tool", mode, json!({})).await;
        let (error, code) = talk.error();
        assert_eq!(code, "engine_unavailable", "{mode}: {error}");
        assert!(!error.contains(&*folder.to_string_lossy()), "{mode}: {error}");
    }
}

#[tokio::test]
async fn nothing_is_left_when_the_service_was_killed() {
    let Some(mut bench) = Bench::new().await else { return };
    bench.service.create(&tool("warm", container("warm", &["cat"]))).await;
    bench.service.run("tool", "warm", json!({})).await.output();
    bench.service.create(&tool("slow", container("fresh", &["sh", "-c", "echo here >&2; sleep 60"]))).await;
    let mut talking = bench.service.socket("/tool").await;
    talking.send(&request_with("tool", "slow", json!({}), json!({ "stream": true }))).await;
    while talking.frame().await.unwrap()["line"] != "here" {}
    bench.service.signal(Signal::SIGKILL);
    bench.service.exit().await;
    let left = bench.containers();
    assert!(!left.is_empty());
    // Another service on the same engine lets them be.
    let other = launch(&bench.podman.socket()).start().await;
    other.create(&tool("warm", container("warm", &["cat"]))).await;
    other.run("tool", "warm", json!({})).await.output();
    assert_eq!(bench.containers(), left);
    let next = one_executor(Launch::on(bench.service.folder()), &bench.podman.socket()).start().await;
    let bench = Bench { service: next, podman: bench.podman };
    bench.assert_emptied().await;
    assert_eq!(bench.podman.containers(&other).len(), 1);
    assert_eq!(*bench.service.run("tool", "warm", json!({})).await.output(), json!({}));
}

#[tokio::test]
async fn a_service_that_ends_leaves_no_container() {
    // The last one keeps a container, or is about to have made one.
    for modes in [["fresh", "warm_once", "warm"], ["fresh", "warm", "warm_once"]] {
        let Some(bench) = Bench::new().await else { return };
        for mode in modes {
            bench.run(mode, container(mode, &["cat"]), json!({})).await.output();
        }
        let Bench { mut service, podman } = bench;
        service.signal(Signal::SIGTERM);
        assert!(service.exit().await.success());
        assert_eq!(podman.containers(&service), [""; 0], "{modes:?}");
    }
}
