//! Definitions that tests make, and programs that wait for the test.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::service::{PATIENCE, eventually};

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
