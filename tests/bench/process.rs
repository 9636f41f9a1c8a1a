//! Child processes: none is left when its handle is gone, whatever it started itself.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long anything may take before it counts as failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long a process may take to end in order.
const GRACE: Duration = Duration::from_secs(3);

/// A process in a group of its own. Dropping it ends the group.
pub struct Process(pub Child);

impl Process {
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let child = command.process_group(0).kill_on_drop(true).spawn();
        Ok(Self(child.with_context(|| format!("cannot start {:?}", command.as_std().get_program()))?))
    }

    /// With pipes on its standard input and output.
    pub fn piped(command: &mut Command) -> Result<(Self, ChildStdin, BufReader<ChildStdout>)> {
        let mut process = Self::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let stdin = process.0.stdin.take().context("no pipe")?;
        let stdout = process.0.stdout.take().context("no pipe")?;
        Ok((process, stdin, BufReader::new(stdout)))
    }

    fn group(&self) -> Option<Pid> {
        self.0.id().map(|pid| Pid::from_raw(pid.cast_signed()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(group) = self.group() else { return };
        let _ = killpg(group, Signal::SIGTERM);
        let deadline = Instant::now() + GRACE;
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        // What it started may be there still.
        let _ = killpg(group, Signal::SIGKILL);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline + GRACE {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The next line of a process.
pub async fn line(reader: &mut (impl AsyncBufRead + Unpin)) -> Result<String> {
    let mut line = String::new();
    let read = tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await;
    if read.context("a process said nothing in time")?? == 0 {
        bail!("a process ended without an answer");
    }
    Ok(line.trim_end().to_owned())
}

/// What a program prints that has to succeed within so long.
pub async fn output(command: &mut Command, limit: Duration) -> Result<String> {
    command.kill_on_drop(true).stdin(Stdio::null());
    let what = format!("{:?}", command.as_std().get_program());
    let output = tokio::time::timeout(limit, command.output()).await;
    let output = output.with_context(|| format!("{what} took longer than {limit:?}"))?;
    let output = output.with_context(|| format!("cannot start {what}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.trim_end().lines().next_back().unwrap_or_default();
        bail!("{what} failed: {last}");
    }
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

/// Tries until it succeeds, since nothing announces when it will.
pub async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("not in time: {what}")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// A port of this machine that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
