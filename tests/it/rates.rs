//! How fast each runtime is, beside the floor that nothing built on it can pass, both measured in the same run. These
//! are measurements, not tests: `cargo test --test it rates:: -- --ignored --nocapture --test-threads 1`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actors::definition::{Definition, Kind};
use actors::execution::Options;
use actors::json::RawObject;
use actors::settings::Settings;
use actors::system::{Host, System};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::podman::{IMAGE, podman};
use crate::program::tool;
use crate::service::{Launch, request};
use crate::socket::Talk;

/// How many times floor and service take turns.
const ROUNDS: usize = 5;

/// The levels of the sandbox.
const LEVELS: [&str; 3] = ["off", "limits", "isolated"];

/// How long each turn is.
const TURN: Duration = Duration::from_secs(2);

/// Repeats `work` in `width` tasks for a turn: how often it was done in a second.
async fn rate<F: Future<Output = ()> + Send>(
    width: usize,
    work: impl Fn() -> F + Send + Sync + 'static,
) -> f64 {
    let (work, done) = (Arc::new(work), Arc::new(AtomicUsize::new(0)));
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..width {
        let (work, done) = (work.clone(), done.clone());
        tasks.spawn(async move {
            while start.elapsed() < TURN {
                work().await;
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tasks.join_all().await;
    done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints pairs of rates, and the median of their ratios.
pub fn report(what: &str, pairs: &[(f64, f64)]) {
    let ratio = median(pairs.iter().map(|(floor, ours)| ours / floor).collect());
    println!("{what}: ratio {ratio:.2}");
    for (floor, ours) in pairs {
        println!("  floor {floor:>9.0}/s   service {ours:>9.0}/s   {:.2}", ours / floor);
    }
}

/// The engine alone, without the sockets around it.
struct Engine(System);

impl Engine {
    async fn start(pools: &str) -> Self {
        Self::start_with(pools, |_| {}).await
    }

    async fn start_at(level: &str, pools: &str) -> Self {
        Self::start_with(pools, |config| config["sandbox"]["level"] = level.into()).await
    }

    async fn start_with(pools: &str, change: impl FnOnce(&mut toml::Table)) -> Self {
        let mut config: toml::Table = include_str!("../../config/default.toml").parse().unwrap();
        for edge in ["rest", "websocket", "tls", "log"] {
            config.remove(edge);
        }
        config["store"]["url"] = "mem://".into();
        for (runtime, pool) in pools.parse::<toml::Table>().unwrap() {
            config["pools"][&runtime]["min"] = pool.clone();
            config["pools"][&runtime]["max"] = pool;
        }
        change(&mut config);
        let settings: Settings = config.try_into().unwrap();
        let launcher = vec![env!("CARGO_BIN_EXE_org-executor").into(), actors::launcher::SUBCOMMAND.into()];
        Self(System::start(settings, Host { sessions: 10_000, launcher }).await.unwrap())
    }

    async fn create(&self, id: &str, metadata: Value, files: &[(&str, &str)]) {
        for (name, text) in files {
            std::fs::write(self.0.folders().catalog.join(name), text).unwrap();
        }
        let definition = Definition::parse(Kind::Tool, &tool(id, metadata).to_string()).unwrap();
        self.0.acting_for_itself().create(definition).await.unwrap();
    }

    async fn run(&self, id: &str) {
        let acting = self.0.acting_for_itself();
        let execution = acting.execute(Kind::Tool, id, RawObject::new(), Options::default(), None);
        let execution = execution.await.unwrap();
        let outcome = execution.outcome().await.unwrap();
        assert!(outcome.result.is_ok(), "{outcome:?}");
    }

    async fn rate(self: &Arc<Self>, id: &'static str, width: usize) -> f64 {
        let engine = self.clone();
        rate(width, move || {
            let engine = engine.clone();
            async move { engine.run(id).await }
        })
        .await
    }
}

/// Starts a program, writes to it, reads it, waits for it: what every service that runs programs does at least.
async fn spawn_and_reap() {
    let mut command = Command::new("/bin/cat");
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"{}").await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.stdout, b"{}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn binary_sessions_beside_bare_spawn_and_reap() {
    let mut services = Vec::new();
    for level in LEVELS {
        let launch = Launch::new().memory().executors(16).set("SANDBOX__LEVEL", level);
        let service = launch.start().await;
        let metadata = json!({ "runtime": "binary", "entrypoint": "/bin/cat", "args": [] });
        service.create(&tool("cat", metadata)).await;
        services.push((level, service, Vec::new()));
    }
    let text: Arc<str> = request("tool", "cat", json!({})).into();
    for _ in 0..ROUNDS {
        for (_, service, pairs) in &mut services {
            let floor = rate(16, spawn_and_reap).await;
            let (address, text) = (service.websocket, text.clone());
            let ours = rate(16, move || {
                let text = text.clone();
                async move {
                    let talk = Talk::hold(address, "/tool", &text).await.unwrap();
                    assert_eq!(*talk.output(), json!({}));
                }
            });
            pairs.push((floor, ours.await));
        }
    }
    for (level, _, pairs) in &services {
        let what =
            format!("binary, sandbox {level}, 16 one-shot sessions, beside bare spawn-and-reap of cat");
        report(&what, pairs);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn binary_runs_of_the_engine_beside_bare_spawn_and_reap() {
    let mut engines = Vec::new();
    for level in LEVELS {
        let engine = Arc::new(Engine::start_at(level, "binary = 16").await);
        engine.create("cat", json!({ "runtime": "binary", "entrypoint": "/bin/cat" }), &[]).await;
        engines.push((level, engine, Vec::new()));
    }
    for _ in 0..ROUNDS {
        for (_, engine, pairs) in &mut engines {
            pairs.push((rate(16, spawn_and_reap).await, engine.rate("cat", 16).await));
        }
    }
    for (level, _, pairs) in &engines {
        let what =
            format!("binary, sandbox {level}, 16 runs through the engine alone, beside bare spawn-and-reap");
        report(&what, pairs);
    }
}

/// Answers each line, and nothing else.
const BARE_PYTHON: &str = include_str!("../bare.py");

/// A bare Python process that answers lines, asked one after the other: how often in a second.
async fn bare_python() -> f64 {
    let mut command = Command::new("python3");
    command.args(["-u", "-c", BARE_PYTHON]).kill_on_drop(true);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut lines = BufReader::new(stdout).lines();
    let (mut start, mut done) = (Instant::now(), 0);
    while done == 0 || start.elapsed() < TURN {
        stdin.write_all(b"{\"input\":{}}\n").await.unwrap();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "{\"ok\": {}}");
        done += 1;
        if done == 1 {
            // Its start does not count.
            start = Instant::now();
        }
    }
    f64::from(done) / start.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn python_runs_beside_a_bare_process_that_answers_lines() {
    for executors in [1, 2, 4] {
        let engine = Arc::new(Engine::start(&format!("python = {executors}")).await);
        let source = "def handler(input, context):\n    return {}\n";
        engine.create("noop", json!({ "source_url": "noop.py" }), &[("noop.py", source)]).await;
        engine.rate("noop", 8).await;
        let mut pairs = Vec::new();
        for _ in 0..ROUNDS {
            pairs.push((bare_python().await, engine.rate("noop", 8).await));
        }
        report(
            &format!("python warm no-op, {executors} interpreters, 8 at a time, beside one bare process"),
            &pairs,
        );
    }
}

/// A component that answers `{}`.
pub const NOOP: &str = include_str!("../noop.wat");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn wasm_runs_of_the_engine() {
    let engine = Arc::new(Engine::start("wasm = 8").await);
    engine.create("noop", json!({ "source_url": "noop.wasm" }), &[("noop.wasm", NOOP)]).await;
    for width in [1, 8, 64] {
        let mut rates = Vec::new();
        for _ in 0..ROUNDS {
            rates.push(engine.rate("noop", width).await);
        }
        println!(
            "wasm warm, {width} at a time, through the engine alone: median {:.0}/s of {rates:.0?}",
            median(rates.clone())
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn warm_containers_beside_fresh_ones() {
    let Some(podman) = podman().await else { return };
    let socket = podman.socket();
    let start = Engine::start_with("container = 1", |config| {
        config["containers"]["socket"] = socket.into();
        config["containers"]["tmpfs_mb"] = 16.into();
    });
    let engine = Arc::new(start.await);
    for mode in ["fresh", "warm"] {
        let metadata = json!({
            "runtime": "container", "image": IMAGE, "command": ["cat"],
            "container": { "mode": mode, "pull": "never" }, "limits": { "memory_mb": 64, "processes": 20 },
        });
        engine.create(mode, metadata, &[]).await;
    }
    let mut pairs = Vec::new();
    for _ in 0..ROUNDS {
        let fresh = engine.rate("fresh", 1).await;
        // Its start does not count.
        engine.run("warm").await;
        pairs.push((fresh, engine.rate("warm", 1).await));
    }
    report("container warm, one executor, beside fresh ones", &pairs);
    engine.0.drain().await.unwrap();
}
