//! A process of the service, with its log.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::oneshot;

use crate::service::PATIENCE;

/// How many of the last log lines a failed test prints.
const PRINTED_LINES: usize = 400;

/// A child process with its log. Dropping it kills it.
pub struct Process {
    child: Child,
    log: Log,
    reader: Option<JoinHandle<()>>,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

/// Where REST and WebSocket are served.
pub type Addresses = (SocketAddr, SocketAddr);

impl Process {
    /// Starts it. Its addresses come when it says that it is ready.
    pub fn spawn(mut command: Command) -> (Self, oneshot::Receiver<Addresses>) {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (log, (ready, is_ready)) = (Log::default(), oneshot::channel());
        let lines = log.clone();
        let reader = std::thread::spawn(move || lines.fill(stderr, ready));
        let process = Self { child, log, reader: Some(reader) };
        (process, is_ready)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended by itself.
    pub async fn exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.drain_log();
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the service did not end");
    }

    pub fn log(&self) -> String {
        self.log.0.lock().unwrap().join("\n")
    }

    /// Ends it at once, and reads its log to the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.drain_log();
    }

    /// Reads on to the end, unless something that outlived the process holds its stderr.
    fn drain_log(&mut self) {
        let deadline = Instant::now() + Duration::from_millis(500);
        while Instant::now() < deadline && self.reader.as_ref().is_some_and(|r| !r.is_finished()) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.drain_log();
            let lines = self.log.0.lock().unwrap();
            let first = lines.len().saturating_sub(PRINTED_LINES);
            eprintln!("the service's log:\n{}", lines[first..].join("\n"));
        }
    }
}

impl Log {
    fn fill(&self, stderr: impl Read, ready: oneshot::Sender<Addresses>) {
        let (mut stderr, mut line, mut ready) = (BufReader::new(stderr), Vec::new(), Some(ready));
        while stderr.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if ready.is_some()
                && let Some(addresses) = addresses(&text)
                && let Some(ready) = ready.take()
            {
                let _ = ready.send(addresses);
            }
            self.0.lock().unwrap().push(text);
            line.clear();
        }
    }
}

/// The addresses in the line that says `ready`.
fn addresses(line: &str) -> Option<Addresses> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields")?;
    let address = |name: &str| fields.get(name)?.as_str()?.parse().ok();
    (fields.get("message")? == "ready").then_some((address("rest")?, address("websocket")?))
}
