//! The curves: what a call costs, and how many there are in a second, as something grows.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::compare::growth::Grown;
use crate::compare::{WARM_UP, registry, sessions};
use crate::load::{self, Took, many, websocket};
use crate::report::{self, Curve};
use crate::service::{Durability, Launch, Service, numbered, request};

/// How long the points of one measurement may take together.
const AT_MOST: Duration = Duration::from_secs(3_600);

/// A tool that hands its input on, in Python.
const ECHO: &str = "def handler(input, context):\n    return input\n";

/// How much a program has to count to be busy for some milliseconds.
const COUNT: &str = "BEGIN { for (i = 0; i < 60000; i++) n += i; print \"{}\" }";

/// What grows.
#[derive(Clone, Copy)]
enum Growing {
    Sessions,
    Definitions,
    Executions,
    Payload,
    Pool,
}

impl Growing {
    const ALL: [Self; 5] = [Self::Sessions, Self::Definitions, Self::Executions, Self::Payload, Self::Pool];

    fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Definitions => "definitions",
            Self::Executions => "executions",
            Self::Payload => "payload",
            Self::Pool => "pool",
        }
    }

    async fn measure(self, turn: Duration, most: usize) -> Result<Vec<Curve>> {
        match self {
            Self::Sessions => idle_sessions(turn, most).await,
            Self::Definitions => definitions(turn, most).await,
            Self::Executions => executions(turn, most).await,
            Self::Payload => payload(turn).await,
            Self::Pool => pool(turn).await,
        }
    }
}

/// Draws all that are chosen. One that fails does not keep others from being drawn.
pub async fn run(
    turn: Duration,
    most: usize,
    is_chosen: impl Fn(&str) -> bool,
    folder: &Path,
) -> Result<String> {
    let (mut curves, mut failed, mut text) = (Vec::new(), Vec::new(), String::new());
    for growing in Growing::ALL.into_iter().filter(|growing| is_chosen(growing.name())) {
        match tokio::time::timeout(AT_MOST, growing.measure(turn, most)).await {
            Ok(Ok(measured)) => curves.extend(measured),
            Ok(Err(error)) => failed.push(format!("{}: {error:#}", growing.name())),
            Err(_) => failed.push(format!("{}: not done after {AT_MOST:?}", growing.name())),
        }
        text = report::write_curves(folder, &curves, &failed)?;
    }
    Ok(text)
}

/// 10^`first`, 10^(`first` + 1) and so on, to `most`.
fn powers(first: u32, most: usize) -> impl Iterator<Item = usize> {
    (first..).map(|power| 10_usize.pow(power)).take_while(move |&count| count <= most)
}

fn tell(curve: &str, x: usize, values: &[f64]) {
    let values: Vec<String> = values.iter().map(|&value| report::number(value)).collect();
    eprintln!("{curve} at {x}: {}", values.join(", "));
}

/// One client's one-shot no-ops.
async fn one_shots(service: &Service, turn: Duration) -> Result<Took> {
    let text = request("noop", &json!({}));
    let one_shot = || websocket::one_shot(service.websocket, "/tool", &text);
    load::closed_loop(WARM_UP, async || one_shot().await).await?;
    load::closed_loop(turn, async || one_shot().await).await
}

/// No-ops on one connection.
async fn no_ops(service: &Service, turn: Duration) -> Result<f64> {
    let text = numbered("noop", &json!({}));
    many::rate(service.websocket, &text, 256, WARM_UP).await?;
    many::rate(service.websocket, &text, 256, turn).await
}

async fn idle_sessions(turn: Duration, most: usize) -> Result<Vec<Curve>> {
    const X: &str = "idle sessions";
    let mut took = Curve::new(
        "sessions-latency",
        "A one-shot no-op beside idle sessions",
        X,
        "time of one call (ms)",
        &["p50", "p99"],
    );
    let mut rates = Curve::new(
        "sessions-rate",
        "No-ops on one connection beside idle sessions",
        X,
        "executions per second",
        &["/session, 256 outstanding"],
    );
    let mut filled = Grown::Sessions.filled(0).await?;
    let mut there = 0;
    for count in powers(0, most.min(10_000)) {
        filled.fill(Grown::Sessions, there, count).await?;
        there = count;
        let one_shots = one_shots(&filled.service, turn).await?;
        let [p50, p99] = [0.5, 0.99].map(|part| one_shots.quantile(part));
        let rate = no_ops(&filled.service, turn).await?;
        tell("sessions", count, &[p50, p99, rate]);
        took.push(count as f64, &[p50, p99]);
        rates.push(count as f64, &[rate]);
    }
    Ok(vec![took, rates])
}

async fn definitions(turn: Duration, most: usize) -> Result<Vec<Curve>> {
    let mut curve = Curve::new(
        "definitions",
        "Rates beside stored definitions",
        "definitions",
        "per second",
        &["GET by id, 64 connections", "create, 64 connections", "/session no-op, 256 outstanding"],
    );
    let mut filled = Grown::Definitions.filled(0).await?;
    let (mut there, made) = (0, Arc::new(AtomicU64::new(0)));
    for count in powers(2, most) {
        filled.fill(Grown::Definitions, there, count).await?;
        there = count;
        let service = &filled.service;
        let read = registry::get_rate(service.rest, "noop", turn).await?;
        let run = no_ops(service, turn).await?;
        // Last, since it adds definitions.
        let created = registry::create_rate(service, &made, turn).await?;
        tell("definitions", count, &[read, created, run]);
        curve.push(count as f64, &[read, created, run]);
    }
    Ok(vec![curve])
}

async fn executions(turn: Duration, most: usize) -> Result<Vec<Curve>> {
    let mut curve = Curve::new(
        "executions",
        "Rates beside stored executions, journalled",
        "stored executions",
        "per second",
        &["one-shot no-op, 64 at a time", "/session no-op, 256 outstanding"],
    );
    let text = request("noop", &json!({}));
    for count in powers(3, most) {
        // A new one for each, since measuring stores executions.
        let filled = Grown::Executions.filled(count).await?;
        let one_shot = sessions::rate(filled.service.websocket, "/tool", &text, 64, turn).await?;
        let session = no_ops(&filled.service, turn).await?;
        tell("executions", count, &[one_shot, session]);
        curve.push(count as f64, &[one_shot, session]);
    }
    Ok(vec![curve])
}

/// The median of what calls took, in milliseconds, one after the other.
async fn each(service: &Service, text: &str, turn: Duration) -> Result<f64> {
    many::one_by_one(service.websocket, text, WARM_UP).await?;
    Ok(many::one_by_one(service.websocket, text, turn).await?.quantile(0.5))
}

async fn payload(turn: Duration) -> Result<Vec<Curve>> {
    let mut curve = Curve::new(
        "payload",
        "A call that gives back its input",
        "input (bytes)",
        "time of one call, median (ms)",
        &["binary cat", "python"],
    );
    let launch = Launch::new(Durability::Memory)?.pool("binary", 1).pool("python", 1);
    let launch = launch.set("WEBSOCKET__MESSAGE_BYTES", 16 << 20).set("LIMITS__OUTPUT_BYTES", 16 << 20);
    let service = launch.start().await?;
    service.put_source("echo.py", ECHO)?;
    service.create("echo", json!({ "source_url": "echo.py" })).await?;
    service.create("cat", json!({ "runtime": "binary", "entrypoint": "/bin/cat" })).await?;
    for bytes in powers(2, 10_000_000) {
        let input = json!({ "text": "x".repeat(bytes) });
        let binary = each(&service, &numbered("cat", &input), turn).await?;
        let python = each(&service, &numbered("echo", &input), turn).await?;
        tell("payload", bytes, &[binary, python]);
        curve.push(bytes as f64, &[binary, python]);
    }
    Ok(vec![curve])
}

async fn pool(turn: Duration) -> Result<Vec<Curve>> {
    let mut curve = Curve::new(
        "pool",
        "Programs by the size of their pool, 128 outstanding",
        "executors",
        "executions per second",
        &["sleep 0.005", "awk that counts for some milliseconds"],
    );
    for executors in [1, 2, 4, 8, 16, 32, 64] {
        let launch = Launch::new(Durability::Memory)?.pool("binary", executors);
        let service = launch.start().await?;
        let tools = [("sleep", json!(["0.005"])), ("awk", json!([COUNT]))];
        let mut rates = Vec::new();
        for (program, args) in tools {
            let output = if program == "sleep" { "text" } else { "json" };
            let metadata =
                json!({ "runtime": "binary", "entrypoint": program, "args": args, "output": output });
            service.create(program, metadata).await?;
            let text = numbered(program, &json!({}));
            many::rate(service.websocket, &text, 128, WARM_UP).await?;
            rates.push(many::rate(service.websocket, &text, 128, turn).await?);
        }
        tell("pool", executors, &rates);
        curve.push(executors as f64, &rates);
    }
    Ok(vec![curve])
}
