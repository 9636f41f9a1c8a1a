//! The floors: the least that a service has to do for what is measured, and nothing else. Each is this program once more, in a
//! process of its own, as the service is one.

mod server;
mod store;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Subcommand, ValueEnum};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, Command};

use crate::load;
use crate::process::{self, Process};

/// What a bare WebSocket server does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Answers {
    /// Answers one text with two frames, and closes.
    Once,
    /// Answers each text with two frames.
    Each,
}

/// A process that is a floor.
#[derive(Clone, Debug, Subcommand)]
pub enum Floor {
    /// A bare WebSocket server.
    Websocket { answers: Answers },
    /// A bare handler that answers any GET with the bytes of a file.
    Http { file: PathBuf },
    /// Inserts records of executions.
    Records { seconds: f64 },
    /// Inserts definitions.
    Definitions { group: usize, seconds: f64 },
    /// Starts programs, each with pipes, and reaps them.
    Spawn { width: usize, seconds: f64 },
}

impl Floor {
    /// What the process does.
    pub async fn run(self) -> Result<()> {
        let rate = match self {
            Self::Websocket { answers } => return server::websocket(answers).await,
            Self::Http { file } => return server::http(std::fs::read(file)?).await,
            Self::Records { seconds } => store::records(Duration::from_secs_f64(seconds)).await?,
            Self::Definitions { group, seconds } => {
                store::definitions(group, Duration::from_secs_f64(seconds)).await?
            }
            Self::Spawn { width, seconds } => {
                load::rate(width, Duration::from_secs_f64(seconds), spawn_and_reap).await?
            }
        };
        println!("{rate}");
        Ok(())
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("floor").args(self.words()).stderr(Stdio::inherit());
        Ok(command)
    }

    fn words(&self) -> Vec<String> {
        match self {
            Self::Websocket { answers: Answers::Once } => vec!["websocket".into(), "once".into()],
            Self::Websocket { answers: Answers::Each } => vec!["websocket".into(), "each".into()],
            Self::Http { file } => vec!["http".into(), file.display().to_string()],
            Self::Records { seconds } => vec!["records".into(), seconds.to_string()],
            Self::Definitions { group, seconds } => {
                vec!["definitions".into(), group.to_string(), seconds.to_string()]
            }
            Self::Spawn { width, seconds } => vec!["spawn".into(), width.to_string(), seconds.to_string()],
        }
    }

    /// Has a process do it for as long as it was told: how often it did in a second.
    pub async fn rate(self) -> Result<f64> {
        let (_process, _stdin, mut stdout) = Process::piped(&mut self.command()?)?;
        Ok(process::line(&mut stdout).await?.parse()?)
    }

    /// Starts a process that serves.
    pub async fn serve(self) -> Result<Serving> {
        let (process, stdin, mut stdout) = Process::piped(&mut self.command()?)?;
        let address = process::line(&mut stdout).await?.parse()?;
        Ok(Serving { address, _process: process, _lifeline: stdin })
    }
}

/// A process that serves until this is dropped.
pub struct Serving {
    pub address: SocketAddr,
    _process: Process,
    _lifeline: ChildStdin,
}

/// Starts a program, writes to it, reads it, waits for it: what every service that runs programs does at least.
async fn spawn_and_reap() -> Result<()> {
    let mut command = Command::new("/bin/cat");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut stdin = child.stdin.take().context("no pipe")?;
    stdin.write_all(b"{}").await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    ensure!(output.stdout == b"{}", "cat answers {:?}", output.stdout);
    Ok(())
}

/// Answers each line, and nothing else.
const PYTHON: &str = include_str!("../bare.py");

/// A bare Python process that answers lines.
pub struct Python {
    _process: Process,
    stdin: ChildStdin,
    stdout: BufReader<tokio::process::ChildStdout>,
}

impl Python {
    pub fn start() -> Result<Self> {
        let (process, stdin, stdout) =
            Process::piped(Command::new("python3").args(["-u", "-c", PYTHON]).current_dir(Path::new("/")))?;
        Ok(Self { _process: process, stdin, stdout })
    }

    /// Keeps so many lines unanswered for a turn: how many it answered in a second.
    pub async fn rate(&mut self, open: usize, turn: Duration) -> Result<f64> {
        const LINE: &[u8] = b"{\"input\":{}}\n";
        let start = tokio::time::Instant::now();
        self.stdin.write_all(&LINE.repeat(open)).await?;
        let (mut waiting, mut done) = (open, 0_u32);
        while waiting > 0 {
            let answer = process::line(&mut self.stdout).await?;
            ensure!(answer == "{\"ok\": {}}", "Python answers {answer}");
            done += 1;
            waiting -= 1;
            if start.elapsed() < turn {
                self.stdin.write_all(LINE).await?;
                waiting += 1;
            }
        }
        Ok(f64::from(done) / start.elapsed().as_secs_f64())
    }
}
