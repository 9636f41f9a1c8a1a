//! The service under test: the built binary in a folder of its own, on ports of its own choosing.
//!
//! It is started with JSON logs on stderr. The line `ready` names its addresses; all lines are kept
//! and printed when the test fails.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

use crate::canary;
use crate::process::Process;
use crate::socket::{Socket, Talk};

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What is let in though it is private.
pub const ALLOW: &str = "EGRESS__ALLOW";

/// A service that is about to be started.
pub struct Launch {
    folder: Arc<TempDir>,
    settings: Vec<(String, String)>,
    /// A program that is to execute the service, with its arguments.
    through: Vec<String>,
    /// The service.
    program: PathBuf,
}

/// A running service. Dropping it kills the process, and looks for the canary in what it left.
pub struct Service {
    process: Process,
    folder: Arc<TempDir>,
    pub rest: SocketAddr,
    pub websocket: SocketAddr,
    client: reqwest::Client,
}

impl Launch {
    /// In a new folder.
    pub fn new() -> Self {
        Self::on(Arc::new(tempfile::tempdir().unwrap()))
    }

    /// In a folder that was used before.
    pub fn on(folder: Arc<TempDir>) -> Self {
        let store = format!("surrealkv://{}", folder.path().join("data").display());
        let program = PathBuf::from(env!("CARGO_BIN_EXE_org-executor"));
        let launch = Self { folder, settings: Vec::new(), through: Vec::new(), program };
        launch
            .set("REST__BIND", "127.0.0.1:0")
            .set("WEBSOCKET__BIND", "127.0.0.1:0")
            .set("LOG__FORMAT", "json")
            .set("STORE__URL", store)
            // The servers that tests play are on this machine.
            .set(ALLOW, r#"["127.0.0.0/8", "::1"]"#)
            .env(canary::VARIABLE, canary::WORD)
            .set("SECRETS__CANARY", format!("{{ env = '{}', definitions = ['*'] }}", canary::VARIABLE))
    }

    /// Sets `ORG_EXECUTOR__{key}`.
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        let key = format!("ORG_EXECUTOR__{key}");
        self.settings.push((key, value.to_string()));
        self
    }

    /// With nothing private let in, as the service is by itself.
    pub fn guarded(mut self) -> Self {
        self.settings.retain(|(key, _)| !key.ends_with(ALLOW));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// By this program, which executes its last arguments.
    pub fn through(mut self, program: &[&str]) -> Self {
        self.through = program.iter().map(|&part| part.to_owned()).collect();
        self
    }

    /// From this copy of it.
    pub fn program(mut self, program: PathBuf) -> Self {
        self.program = program;
        self
    }

    /// With programs that see the machine: what the test put there, and where it waits for them.
    pub fn limits(self) -> Self {
        self.set("SANDBOX__LEVEL", "limits")
    }

    /// A place in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its folder, to be used again.
    pub fn folder(&self) -> Arc<TempDir> {
        Arc::clone(&self.folder)
    }

    /// Keeps nothing on disk.
    pub fn memory(self) -> Self {
        self.set("STORE__URL", "mem://")
    }

    /// Gives the binary programs exactly `executors` workers.
    pub fn executors(self, executors: usize) -> Self {
        self.set("POOLS__BINARY__MIN", executors).set("POOLS__BINARY__MAX", executors)
    }

    /// With this configuration file.
    pub fn config(mut self, toml: &str) -> Self {
        let file = self.folder.path().join("config.toml");
        std::fs::write(&file, toml).unwrap();
        let value = file.display().to_string();
        self.settings.push(("ORG_EXECUTOR_CONFIG".to_owned(), value));
        self
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> Service {
        let faults = self.folder.path().join("faults.sock");
        let _ = std::fs::remove_file(&faults);
        let mut command = self.command("serve");
        command.env("ORG_EXECUTOR_FAULTS", faults);
        let (process, ready) = Process::spawn(command);
        let ready = tokio::time::timeout(PATIENCE, ready).await;
        let Ok(Ok((rest, websocket))) = ready else {
            panic!("the service was not ready");
        };
        Service { process, folder: self.folder, rest, websocket, client: client() }
    }

    /// Starts it where it must not come up: its exit status and what it said.
    pub async fn refused(self) -> (ExitStatus, String) {
        let (mut process, _ready) = Process::spawn(self.command("serve"));
        let status = process.exit().await;
        (status, process.log())
    }

    /// Runs another subcommand to its end: its exit status and all that it printed.
    pub async fn output(self, subcommand: &str, arguments: &[&str]) -> (ExitStatus, String) {
        let mut command = self.command(subcommand);
        command.args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = output.await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8_lossy(&text).into_owned())
    }

    fn command(&self, subcommand: &str) -> Command {
        let service = self.program.display().to_string();
        let mut words = self.through.iter().chain([&service]);
        let mut command = Command::new(words.next().unwrap_or(&service));
        command
            .args(words)
            .arg(subcommand)
            .current_dir(self.folder.path())
            .env_remove("RUST_LOG")
            .env_remove("ORG_EXECUTOR_CONFIG")
            .envs(self.settings.iter().cloned())
            .stdin(Stdio::null());
        command
    }
}

impl Service {
    /// With the default configuration, in a new folder.
    pub async fn start() -> Self {
        Launch::new().start().await
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its resident memory, in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.memory_kib("VmRSS")
    }

    /// What the kernel says of its memory under this name, in KiB.
    pub fn memory_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn folder(&self) -> Arc<TempDir> {
        Arc::clone(&self.folder)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }

    /// All that it logged until now.
    pub fn log(&self) -> String {
        self.process.log()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.rest)
    }

    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// One REST call with a JSON body, or none where `body` is empty: the status and the answer.
    pub async fn rest(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, text) = self.rest_text(method, path, body).await;
        let answer = match text.as_str() {
            "" => Value::Null,
            text => serde_json::from_str(text).expect(text),
        };
        (status, answer)
    }

    /// As `rest`, with the answer's very text.
    pub async fn rest_text(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.client.request(method, self.url(path));
        if !body.is_empty() {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Registers a definition of either kind.
    pub async fn create(&self, definition: &Value) {
        let kind = kind_of(definition);
        let path = format!("/{kind}");
        let (status, answer) = self.rest("POST", &path, &definition.to_string()).await;
        assert_eq!(status, 201, "{answer}");
    }

    pub async fn socket(&self, path: &str) -> Socket {
        Socket::open(self.websocket, path).await.unwrap()
    }

    /// Sends one text to `/tool` or `/function` and hears it to the end.
    pub async fn talk(&self, path: &str, text: &str) -> Talk {
        Talk::hold(self.websocket, path, text).await.unwrap()
    }

    /// All frames that a run of a tool gives.
    pub async fn run_tool(&self, id: &str, input: Value) -> Vec<Value> {
        self.run("tool", id, input).await.frames
    }

    /// A run of a definition, `kind` being `tool` or `function`.
    pub async fn run(&self, kind: &str, id: &str, input: Value) -> Talk {
        self.talk(&format!("/{kind}"), &request(kind, id, input)).await
    }

    /// Makes an actor panic: how many milliseconds its replacement took.
    pub async fn panic(&self, actor: &str) -> Result<f64, String> {
        let line = format!("panic {actor}\n");
        let answer = tokio::time::timeout(PATIENCE, self.fault(&line));
        let answer = answer.await.map_err(|_| "no answer".to_owned())?;
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.trim().split_once(' ') {
            Some(("ok", took)) => Ok(took.parse().unwrap()),
            _ => Err(answer),
        }
    }

    async fn fault(&self, line: &str) -> std::io::Result<String> {
        let stream = tokio::net::UnixStream::connect(self.path("faults.sock")).await?;
        let mut stream = tokio::io::BufReader::new(stream);
        stream.write_all(line.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_line(&mut answer).await?;
        Ok(answer)
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).unwrap();
    }

    /// Waits until the process has ended by itself.
    pub async fn exit(&mut self) -> ExitStatus {
        self.process.exit().await
    }

    /// Asks it to end and waits until it has.
    pub async fn stop(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.exit().await
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.process.kill();
            canary::assert_absent(&self.process.log(), self.folder.path());
        }
    }
}

fn client() -> reqwest::Client {
    // No connection stays open between two calls, so that descriptors can be counted.
    reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(PATIENCE).build().unwrap()
}

/// `tool` or `function`.
pub fn kind_of(definition: &Value) -> &'static str {
    match definition.get("tool_id") {
        Some(_) => "tool",
        None => "function",
    }
}

/// What a one-shot session sends.
pub fn request(kind: &str, id: &str, input: Value) -> String {
    json!({ format!("{kind}_id"): id, "input_data": input }).to_string()
}

/// As `request`, with options.
pub fn request_with(kind: &str, id: &str, input: Value, options: Value) -> String {
    json!({ format!("{kind}_id"): id, "input_data": input, "options": options }).to_string()
}

/// Waits until `holds`, which nothing announces.
pub async fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
