//! The client commands about executions, through the built binary: what they print, and how they exit.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::program::{Gate, accepted, tool};
use crate::service::{Launch, PATIENCE, Service};
use crate::socket::Socket;

/// How a client command ended, and what it said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// What it printed, where all went well and there was nothing to say besides.
    #[track_caller]
    pub fn printed(&self) -> &str {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        &self.stdout
    }

    /// As `printed`, of a command with `--json`: one document on one line.
    #[track_caller]
    pub fn json(&self) -> Value {
        let printed = self.printed();
        assert_eq!(printed.lines().count(), 1, "{printed}");
        serde_json::from_str(printed).expect(printed)
    }

    #[track_caller]
    pub fn assert_has_line(&self, line: &str) {
        assert!(self.printed().lines().any(|printed| printed == line), "{line}: {}", self.stdout);
    }
}

/// Runs the binary with these words.
pub async fn client(service: &Service, line: &str) -> Said {
    client_with(service, line, "").await
}

/// As `client`, with this on stdin.
pub async fn client_with(service: &Service, line: &str, stdin: &str) -> Said {
    said(Run { stdin, ..Run::of(service, line) }).await
}

/// As `client`, with this key.
pub async fn client_with_key(service: &Service, key: &str, line: &str) -> Said {
    said(Run { key, ..Run::of(service, line) }).await
}

/// The same over TLS, with this certificate as the only one that is trusted.
pub async fn client_over_tls(service: &Service, key: &str, trusted: &Path, line: &str) -> Said {
    said(Run { key, trusted: Some(trusted), ..Run::of(service, line) }).await
}

/// A run of the binary.
struct Run<'a> {
    service: &'a Service,
    line: &'a str,
    stdin: &'a str,
    key: &'a str,
    trusted: Option<&'a Path>,
}

impl<'a> Run<'a> {
    fn of(service: &'a Service, line: &'a str) -> Self {
        Self { service, line, stdin: "", key: "", trusted: None }
    }
}

async fn said(run: Run<'_>) -> Said {
    let Run { service, line, stdin, key, trusted } = run;
    let mut command = Command::new(env!("CARGO_BIN_EXE_org-executor"));
    let secure = if trusted.is_some() { "s" } else { "" };
    if let Some(trusted) = trusted {
        command.env("SSL_CERT_FILE", trusted);
    }
    command
        .args(line.split(' '))
        .current_dir(service.folder().path())
        .env("ORG_EXECUTOR_URL", format!("http{secure}://{}", service.rest))
        .env("ORG_EXECUTOR_WS", format!("ws{secure}://{}", service.websocket))
        .env("ORG_EXECUTOR_KEY", key)
        .env_remove("CLICOLOR_FORCE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let stdin = stdin.to_owned();
    let writing = tokio::spawn(async move {
        // A command that does not read to the end says by itself what is wrong.
        let _ = input.write_all(stdin.as_bytes()).await;
    });
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("an end in time").unwrap();
    writing.await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A service with one executor, and a tool that waits at the gate.
async fn with_a_waiting_tool() -> (Service, Gate) {
    let (service, gate) = (Launch::new().limits().executors(1).start().await, Gate::new());
    service.create(&tool("waiting", gate.program("echo two >&2; printf 7"))).await;
    (service, gate)
}

async fn run(service: &Service) -> (Socket, String) {
    accepted(service, "waiting", json!({}), json!({})).await
}

#[tokio::test]
async fn an_execution_is_shown_and_read_while_it_runs_and_after() {
    let (service, gate) = with_a_waiting_tool().await;
    let (socket, uuid) = run(&service).await;
    gate.arrived(1).await;
    let (get, log) = (format!("execution get {uuid}"), format!("execution log {uuid}"));
    let shown = client(&service, &get).await;
    for line in ["tool       waiting", "state      running", "attempts   1", "input      {}"] {
        shown.assert_has_line(line);
    }
    let empty = client(&service, &log).await;
    assert_eq!((empty.code, empty.stdout.as_str()), (Some(0), ""), "{empty:?}");

    gate.open();
    assert_eq!(socket.rest().await.last()["output"], json!(7));
    let shown = client(&service, &get).await;
    for line in ["state      succeeded", "output     7"] {
        shown.assert_has_line(line);
    }
    let told = client(&service, &format!("--json {get}")).await.json();
    let told = (&told["uuid"], &told["state"], &told["output"]);
    assert_eq!(told, (&json!(uuid), &json!("succeeded"), &json!(7)));
    assert_eq!(client(&service, &log).await.printed(), "two\n");
    let told = client(&service, &format!("--json {log}")).await.json();
    assert_eq!(told, json!({ "uuid": uuid, "lines": ["two"] }));
}

#[tokio::test]
async fn executions_are_listed_the_newest_first() {
    let (service, gate) = with_a_waiting_tool().await;
    let (first, running) = run(&service).await;
    gate.arrived(1).await;
    let (second, queued) = run(&service).await;
    let listed = async |options: &str| {
        let told = client(&service, &format!("--json execution list{options}")).await.json();
        let uuids = told.as_array().unwrap().iter().map(|told| told["uuid"].as_str().unwrap().to_owned());
        uuids.collect::<Vec<_>>()
    };
    assert_eq!(listed("").await, [queued.as_str(), running.as_str()]);
    assert_eq!(listed(" --state running --tool waiting --since 1h").await, [running.as_str()]);
    assert_eq!(listed(" --state queued --limit 1").await, [queued.as_str()]);
    for none in [" --state failed", " --tool other", " --function waiting", " --until 1h"] {
        assert!(listed(none).await.is_empty(), "{none}");
    }

    let table = client(&service, "execution list --limit 1").await;
    assert_eq!(table.stderr, "there are more: raise --limit to see them\n");
    let lines: Vec<Vec<&str>> = table.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 2, "{table:?}");
    assert_eq!(lines[0], ["UUID", "STATE", "AGE", "DEFINITION"]);
    assert_eq!(lines[1][..2], [queued.as_str(), "queued"]);
    assert_eq!(lines[1][3..], ["tool", "waiting"]);
    let none = client(&service, "execution list --state failed").await;
    assert_eq!((none.stdout.as_str(), none.stderr.as_str()), ("", "no execution found\n"));

    gate.open();
    for socket in [first, second] {
        assert_eq!(socket.rest().await.last()["output"], json!(7));
    }
}

#[tokio::test]
async fn what_waits_and_what_runs_is_cancelled_once() {
    let (service, gate) = with_a_waiting_tool().await;
    let running = run(&service).await;
    gate.arrived(1).await;
    let queued = run(&service).await;
    for (socket, uuid) in [queued, running] {
        let cancel = format!("execution cancel {uuid}");
        assert_eq!(client(&service, &cancel).await.printed(), "Execution cancelled\n");
        assert_eq!(socket.rest().await.last()["code"], "cancelled");
        let shown = client(&service, &format!("execution get {uuid}")).await;
        shown.assert_has_line("state      cancelled");
        shown.assert_has_line("error      the execution was cancelled (cancelled)");
        let again = client(&service, &cancel).await;
        assert_eq!((again.code, again.stdout.as_str()), (Some(1), ""), "{again:?}");
        assert!(again.stderr.contains("(conflict)"), "{again:?}");
    }
}

#[tokio::test]
async fn an_unknown_uuid_is_refused_and_a_bad_one_not_even_asked_for() {
    let service = Launch::new().limits().start().await;
    for verb in ["get", "log", "cancel"] {
        let unknown = client(&service, &format!("--json execution {verb} {}", uuid::Uuid::nil())).await;
        assert_eq!(unknown.code, Some(1), "{verb}: {unknown:?}");
        let told: Value = serde_json::from_str(&unknown.stdout).unwrap();
        assert_eq!((&told["success"], &told["code"]), (&json!(false), &json!("not_found")), "{verb}");
        let bad = client(&service, &format!("execution {verb} nonsense")).await;
        assert_eq!((bad.code, bad.stdout.as_str()), (Some(2), ""), "{verb}: {bad:?}");
    }
}
