//! The service under measurement: the built binary in a folder of its own, on ports of its own choosing.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{ChildStderr, Command};
use tokio::sync::oneshot;

use crate::load::websocket;
use crate::process::{PATIENCE, Process};

/// How many of its last log lines are told when it does not start.
const TOLD_LINES: usize = 3;

/// How many definitions one import brings.
const IMPORTED: usize = 5_000;

/// A WebAssembly component that answers `{}`.
const NOOP: &str = include_str!("../noop.wat");

/// What an accepted execution survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Memory,
    Journal,
}

impl Durability {
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Journal => "journal",
        }
    }

    /// As it is said in the name of a row.
    pub fn adverb(self) -> &'static str {
        match self {
            Self::Memory => "in memory",
            Self::Journal => "journalled",
        }
    }
}

/// A service that is about to be started.
pub struct Launch {
    folder: TempDir,
    settings: Vec<(String, String)>,
}

/// A running service. Dropping it ends the process, then removes the folder.
pub struct Service {
    process: Process,
    folder: TempDir,
    client: reqwest::Client,
    pub rest: SocketAddr,
    pub websocket: SocketAddr,
    /// From its start until it said that it is ready.
    pub took: Duration,
}

/// The addresses in the line that says `ready`: of REST and of the WebSocket.
type Addresses = (SocketAddr, SocketAddr);

impl Launch {
    /// With the default configuration, but for its ports and the form of its log.
    pub fn by_default() -> Result<Self> {
        let launch = Self { folder: tempfile::tempdir()?, settings: Vec::new() };
        let launch = launch.set("REST__BIND", "127.0.0.1:0").set("WEBSOCKET__BIND", "127.0.0.1:0");
        Ok(launch.set("LOG__FORMAT", "json"))
    }

    /// With room for what a load asks for at once, and with nothing logged but that it is ready.
    pub fn new(durability: Durability) -> Result<Self> {
        let launch = Self::by_default()?.set("JOURNAL__DURABILITY", durability.name());
        Ok(launch
            .set("LOG__LEVEL", "warn,org_executor=info")
            .set("WEBSOCKET__UNLIMITED_ADDRESSES", r#"["127.0.0.1"]"#)
            .set("WEBSOCKET__MAX_CONNECTIONS", 20_000)
            .set("DISPATCHER__MAX_PENDING", 100_000)
            .set("STORE__MAX_PENDING", 100_000)
            .set("JOURNAL__KEEP_COUNT", 100_000_000))
    }

    /// Sets `ORG_EXECUTOR__{key}`.
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.push((format!("ORG_EXECUTOR__{key}"), value.to_string()));
        self
    }

    /// Gives a runtime exactly so many executors.
    pub fn pool(self, runtime: &str, executors: usize) -> Self {
        let runtime = runtime.to_uppercase();
        self.set(&format!("POOLS__{runtime}__MIN"), executors)
            .set(&format!("POOLS__{runtime}__MAX"), executors)
            .set(&format!("POOLS__{runtime}__QUEUE"), 100_000)
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> Result<Service> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_org-executor"));
        command.arg("serve").current_dir(self.folder.path());
        command.env_remove("RUST_LOG").env_remove("ORG_EXECUTOR_CONFIG").envs(self.settings);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let start = Instant::now();
        let mut process = Process::spawn(&mut command)?;
        let (said, (ready, is_ready)) = (Arc::new(Mutex::new(VecDeque::new())), oneshot::channel());
        let stderr = process.0.stderr.take().context("no pipe")?;
        tokio::spawn(hear(stderr, ready, said.clone()));
        let Ok(Ok((rest, websocket))) = tokio::time::timeout(PATIENCE, is_ready).await else {
            let said = said.lock().unwrap_or_else(PoisonError::into_inner);
            let said: Vec<&str> = said.iter().map(String::as_str).collect();
            bail!("the service did not start: {}", said.join(" "));
        };
        let took = start.elapsed();
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE * 2).build()?;
        Ok(Service { process, folder: self.folder, client, rest, websocket, took })
    }
}

/// Reads its log to the end, so that it never waits for somebody to read it.
async fn hear(stderr: ChildStderr, ready: oneshot::Sender<Addresses>, said: Arc<Mutex<VecDeque<String>>>) {
    let (mut lines, mut ready) = (BufReader::new(stderr).lines(), Some(ready));
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(addresses) = addresses(&line)
            && let Some(ready) = ready.take()
        {
            let _ = ready.send(addresses);
        }
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.push_back(line);
        if said.len() > TOLD_LINES {
            said.pop_front();
        }
    }
}

fn addresses(line: &str) -> Option<Addresses> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields")?;
    let address = |name: &str| fields.get(name)?.as_str()?.parse().ok();
    (fields.get("message")? == "ready").then_some((address("rest")?, address("websocket")?))
}

impl Service {
    /// With the tools `noop`, and `noop-once` that is not idempotent: warm WebAssembly that does nothing.
    pub async fn with_noop(durability: Durability) -> Result<Self> {
        let service = Launch::new(durability)?.set("SANDBOX__LEVEL", "limits").pool("wasm", 4);
        let service = service.start().await?;
        service.put_source("noop.wasm", NOOP)?;
        for (id, idempotent) in [("noop", true), ("noop-once", false)] {
            service.create(id, json!({ "source_url": "noop.wasm", "idempotent": idempotent })).await?;
        }
        Ok(service)
    }

    /// Its resident memory, in KiB.
    pub fn resident_kib(&self) -> Result<f64> {
        let pid = self.process.0.id().context("the service has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Ok(line.context("no VmRSS")?.trim().trim_end_matches(" kB").parse()?)
    }

    /// Writes a source where definitions may always take theirs from.
    pub fn put_source(&self, name: &str, content: &str) -> Result<()> {
        let catalog: PathBuf = self.folder.path().join("data/catalog");
        std::fs::create_dir_all(&catalog)?;
        Ok(std::fs::write(catalog.join(name), content)?)
    }

    /// One REST call: what was answered, whose status has to be a success.
    pub async fn rest(&self, method: &str, path: &str, content_type: &str, body: String) -> Result<String> {
        let url = format!("http://{}{path}", self.rest);
        let request = self.client.request(method.parse()?, url).header("content-type", content_type);
        let response = request.body(body).send().await?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status.is_success(), "{method} {path}: {status}: {text:.300}");
        Ok(text)
    }

    /// Registers a tool and runs it once, so that it is warm.
    pub async fn create(&self, id: &str, metadata: Value) -> Result<()> {
        self.rest("POST", "/tool", "application/json", tool(id, metadata).to_string()).await?;
        websocket::one_shot(self.websocket, "/tool", &request(id, &json!({}))).await
    }

    /// Registers the definitions with these numbers, which nobody runs.
    pub async fn import(&self, numbers: std::ops::Range<usize>) -> Result<()> {
        for first in numbers.clone().step_by(IMPORTED) {
            let some = first..(first + IMPORTED).min(numbers.end);
            let lines: Vec<String> = some.map(|number| definition(&stored_id(number)).to_string()).collect();
            let answer = self.rest("POST", "/tools/import", "application/x-ndjson", lines.join("\n")).await?;
            let sum = answer.trim_end().lines().next_back().unwrap_or_default();
            ensure!(sum.contains(r#""failed":0"#), "not imported: {sum}");
        }
        Ok(())
    }
}

/// A tool with this metadata.
pub fn tool(id: &str, metadata: Value) -> Value {
    json!({
        "tool_id": id,
        "tool_search_tags": ["bench"],
        "tool_metadata": metadata,
        "tool_description": "made by a benchmark",
        "tool_default_params": {},
    })
}

/// The id of a definition that is only stored.
pub fn stored_id(number: usize) -> String {
    format!("stored-{number:07}")
}

/// A definition of about 700 bytes, of the sort that people write.
pub fn definition(id: &str) -> Value {
    json!({
        "tool_id": id,
        "tool_search_tags": ["text", "utils", format!("team-{}", id.len() * 7 % 40)],
        "tool_metadata": {
            "runtime": "binary", "version": "1.4.2", "entrypoint": "/bin/cat", "output": "json",
            "input_schema": {
                "type": "object",
                "required": ["text"],
                "properties": { "text": { "type": "string" }, "width": { "type": "integer", "minimum": 0 } },
            },
            "limits": { "timeout_ms": 5_000, "memory_mb": 64 }, "idempotent": true,
        },
        "tool_description": format!("Folds a text at the given width and tells how many lines it has, as {id} does"),
        "tool_default_params": { "text": "nothing", "width": 72 },
    })
}

/// What a one-shot session sends.
pub fn request(id: &str, input: &Value) -> String {
    json!({ "tool_id": id, "input_data": input }).to_string()
}

/// What a `/session` sends.
pub fn numbered(id: &str, input: &Value) -> String {
    json!({ "id": 1, "tool_id": id, "input_data": input }).to_string()
}
