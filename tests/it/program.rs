//! Definitions that tests make, the sources that they name, and programs that wait for the test.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::service::{PATIENCE, Service, eventually, request_with};
use crate::socket::{Socket, Talk};

/// A tool with this metadata.
pub fn tool(id: &str, metadata: Value) -> Value {
    json!({
        "tool_id": id,
        "tool_search_tags": ["test"],
        "tool_metadata": metadata,
        "tool_description": "made by a test",
        "tool_default_params": {},
    })
}

/// A function with this metadata.
pub fn function(id: &str, metadata: Value) -> Value {
    json!({
        "function_id": id,
        "function_search_tags": ["test"],
        "function_metadata": metadata,
        "function_description": "made by a test",
        "function_default_params": {},
    })
}

/// The metadata of a program that is a line of shell.
pub fn shell(script: &str) -> Value {
    json!({ "runtime": "binary", "entrypoint": "sh", "args": ["-c", script] })
}

/// As `shell`, with a timeout.
pub fn shell_within(timeout_ms: u64, script: &str) -> Value {
    let mut metadata = shell(script);
    metadata["limits"] = json!({ "timeout_ms": timeout_ms });
    metadata
}

/// The metadata of a handler in a Python source.
pub fn python(source: &str) -> Value {
    json!({ "runtime": "python", "source_url": source })
}

/// Writes a source into the catalog's folder, from which definitions may always take theirs.
pub fn put_source(service: &Service, name: &str, content: impl AsRef<[u8]>) {
    let file = service.path("data/catalog").join(name);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, content).unwrap();
}

/// Runs a script of the test's own in the catalog's folder, as one that makes an archive.
pub fn in_catalog(service: &Service, script: &str) {
    let mut command = Command::new("python3");
    let status = command.args(["-c", script]).current_dir(service.path("data/catalog")).status().unwrap();
    assert!(status.success(), "{status}");
}

/// A run of a tool that was accepted: its connection, and its uuid.
pub async fn accepted(service: &Service, id: &str, input: Value, options: Value) -> (Socket, String) {
    let mut socket = service.socket("/tool").await;
    socket.send(&request_with("tool", id, input, options)).await;
    let frame = socket.frame().await.unwrap();
    let uuid = frame["uuid"].as_str().unwrap_or_else(|| panic!("not accepted: {frame}"));
    (socket, uuid.to_owned())
}

/// A run of a tool whose client wants to hear of it while it runs.
pub async fn streamed(service: &Service, id: &str, input: Value) -> Talk {
    let text = request_with("tool", id, input, json!({ "stream": true }));
    service.talk("/tool", &text).await
}

/// The log lines that were heard.
pub fn lines(talk: &Talk) -> Vec<&str> {
    let log = talk.frames.iter().filter(|frame| frame["event"] == "log");
    log.filter_map(|frame| frame["line"].as_str()).collect()
}

/// A door at which programs wait until the test opens it.
///
/// A program that is left behind ends by itself once the gate is dropped.
pub struct Gate(TempDir);

impl Gate {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The metadata of a program that waits at the gate, then runs `then`.
    pub fn program(&self, then: &str) -> Value {
        let gate = self.path().display();
        shell(&format!(
            "echo here >> {gate}/arrived; \
             while [ -d {gate} ] && [ ! -e {gate}/open ]; do sleep 0.01; done; {then}"
        ))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn open(&self) {
        std::fs::write(self.path().join("open"), "").unwrap();
    }

    /// Waits until that many programs have arrived.
    pub async fn arrived(&self, programs: usize) {
        let arrived = || self.read("arrived").lines().count() >= programs;
        eventually("the program runs", PATIENCE, arrived).await;
    }

    /// A file beside the gate, empty where there is none yet.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap_or_default()
    }
}
