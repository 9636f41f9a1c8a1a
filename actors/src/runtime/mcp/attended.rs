//! What goes on beside a request to an MCP server: the time runs, the server tells and prints, and may end.

use std::pin::pin;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::unreachable;
use crate::execution::Outcome;
use crate::launcher::protocol::Exit;
use crate::log::LogRing;
use crate::runtime::bounds::Bounds;
use crate::runtime::launched::{self, Launcher};
use crate::runtime::lines::Lines;
use crate::runtime::process;
use crate::runtime::stop::Stop;

/// How long a server whose pipes closed may take to end, with all that it started.
const DYING: Duration = Duration::from_secs(2);

/// How often the log is read after an answer: a pipe holds 64 KiB, which is eight reads (pipe(7)).
const PIPE_READS: usize = 16;

/// A server that is a program.
#[derive(Debug)]
pub struct Process {
    log: pipe::Receiver,
    /// Its standard error is open.
    is_logging: bool,
    buffer: Vec<u8>,
    /// How it ended.
    exit: Option<Exit>,
}

/// What a program does besides answering.
enum Sign {
    Printed(usize),
    Ended(Result<Exit, Outcome>),
}

impl Process {
    /// One that was just started, and prints here.
    pub fn new(log: pipe::Receiver) -> Self {
        Self { log, is_logging: true, buffer: vec![0; 8 * 1024], exit: None }
    }

    async fn sign(&mut self, launcher: &mut Launcher) -> Sign {
        tokio::select! {
            biased;
            ended = launcher.ended(), if self.exit.is_none() => Sign::Ended(ended),
            read = self.log.read(&mut self.buffer), if self.is_logging => Sign::Printed(read.unwrap_or(0)),
            else => std::future::pending().await,
        }
    }

    /// What is in the pipe by now; what is printed on and on is not waited for.
    fn drain(&mut self, lines: &mut Lines<'_>) {
        for _ in 0..PIPE_READS {
            match self.log.try_read(&mut self.buffer) {
                Ok(read) if read > 0 => lines.write(&self.buffer[..read]),
                _ => break,
            }
        }
    }
}

/// All that is beside a request.
pub struct Attended<'a, 'job> {
    pub launcher: &'a mut Launcher,
    /// Of a server that is a program.
    pub process: Option<&'a mut Process>,
    /// Where the connection puts what the server tells.
    pub said: &'a LogRing,
    pub stop: &'a mut Stop,
    pub lines: &'a mut Lines<'job>,
}

impl Attended<'_, '_> {
    /// Waits for this, and keeps what is told and printed meanwhile.
    ///
    /// # Errors
    /// The outcome: it has to end, or the program could not be started. That the program ended is told by `work`, whose
    /// pipes close then.
    pub async fn through<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Outcome> {
        let mut work = pin!(work);
        loop {
            let sign = async {
                match &mut self.process {
                    Some(process) => process.sign(self.launcher).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // What is told and printed comes last: one that is always there would hide all else.
                biased;
                outcome = self.stop.reached() => return Err(outcome),
                done = &mut work => {
                    self.hear();
                    return Ok(done);
                }
                sign = sign => self.note(sign)?,
                () = self.said.written() => self.hear_told(),
            }
        }
    }

    fn note(&mut self, sign: Sign) -> Result<(), Outcome> {
        let Some(process) = &mut self.process else { return Ok(()) };
        match sign {
            Sign::Printed(0) => process.is_logging = false,
            Sign::Printed(read) => self.lines.write(&process.buffer[..read]),
            Sign::Ended(exit) => process.exit = Some(exit?),
        }
        Ok(())
    }

    /// What was told and printed before an answer is there by now.
    fn hear(&mut self) {
        self.hear_told();
        if let Some(process) = &mut self.process {
            process.drain(self.lines);
        }
    }

    fn hear_told(&mut self) {
        let told = self.said.take();
        if told.dropped > 0 {
            self.lines.write(format!("… ({} lines before this are lost)\n", told.dropped).as_bytes());
        }
        for line in told.lines {
            self.lines.tell(&line);
        }
    }

    /// The outcome of a call whose connection broke for this reason.
    pub async fn broken(&mut self, problem: &str, bounds: &Bounds) -> Outcome {
        if self.process.is_none() {
            return unreachable(problem);
        }
        match self.exit().await {
            Ok(Some(exit)) => process::died("the MCP server", exit, bounds, &self.lines.tail()),
            Ok(None) => Outcome::failed("mcp_error", format!("the MCP server failed: {problem}")),
            Err(outcome) => outcome,
        }
    }

    /// The outcome where the handshake with a program failed for this reason.
    pub async fn not_begun(&mut self, problem: &str, bounds: &Bounds) -> Outcome {
        let exit = match self.exit().await {
            Ok(exit) => exit,
            Err(outcome) => return outcome,
        };
        if let Some(limit) = exit.and_then(|exit| exit.exceeded) {
            return launched::exceeded(limit, bounds);
        }
        let problem = match exit.and_then(|exit| exit.code) {
            Some(code) => format!("it ended with exit status {code}"),
            None => problem.to_owned(),
        };
        let tail = self.lines.tail();
        let tail = if tail.is_empty() { tail } else { format!(": {tail}") };
        Outcome::failed("not_startable", format!("the MCP server could not be started: {problem}{tail}"))
    }

    /// How the program ended, where it does within a moment; all that it printed is heard then.
    async fn exit(&mut self) -> Result<Option<Exit>, Outcome> {
        let Some(process) = &mut self.process else { return Ok(None) };
        if process.exit.is_none() {
            process.exit = match tokio::time::timeout(DYING, self.launcher.ended()).await {
                Ok(ended) => Some(ended?),
                // What it was ended for takes long to be gone, or it closed its pipes and goes on.
                Err(_) => self.launcher.end().await.filter(|exit| exit.exceeded.is_some()),
            };
        }
        process.drain(self.lines);
        Ok(process.exit)
    }
}
