//! Runs a handler in a warm Python interpreter, which an executor keeps for the definition that it ran last.
//!
//! Requests and results travel over a channel of their own, two pipes, as lines of JSON, so that whatever the handler prints is
//! log. The interpreter is started, watched and ended through a launcher; between runs all that a handler started
//! is ended, and its working folder is emptied. `python/worker.py` is the other side.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

use super::Context;
use super::bounds::Bounds;
use super::folder::Folder;
use super::launched::{self, Channel, Kept, Launcher, LauncherCommand, Through, no_folder};
use super::lines::Lines;
use super::output::Produced;
use super::process;
use super::sandbox::View;
use super::stop::Stop;
use crate::artifacts::Lease;
use crate::definition::Kind;
use crate::execution::{Job, Outcome};
use crate::json;
use crate::launcher::protocol::Exit;
use crate::secrets::Granted;
use crate::settings::PythonSettings;

pub mod environment;

use environment::Environments;

/// The other side of the channel.
const WORKER: &str = include_str!("python/worker.py");

/// How long a run goes on before it is watched: most have ended by then.
const UNWATCHED: Duration = Duration::from_millis(5);

/// How long an interpreter whose channel closed may take to end, with all that it started.
const DYING: Duration = Duration::from_secs(2);

/// How often the log is read after an answer: a pipe holds 64 KiB, which is eight reads (pipe(7)).
const PIPE_READS: usize = 16;

/// How much longer than its output an answer may be: a traceback, and what stands around.
const ANSWER_BYTES: usize = 64 * 1024;

/// What all interpreters share.
#[derive(Debug)]
pub struct Python {
    /// The virtual environments.
    pub environments: Environments,
    max_runs: u64,
}

impl Python {
    /// With this folder for the environments. What installs packages does not get the variables that are `hidden`.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn new(
        settings: &PythonSettings,
        folder: PathBuf,
        path: &str,
        hidden: &BTreeSet<String>,
    ) -> std::io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let folder = folder.canonicalize()?;
        let environments = Environments::new(settings, folder, path, hidden);
        Ok(Self { environments, max_runs: settings.max_runs })
    }
}

/// What an executor keeps.
#[derive(Debug)]
pub struct Warm {
    launcher: Launcher,
    interpreter: Option<Interpreter>,
    folder: Option<Folder>,
}

/// An interpreter that has loaded a definition's source.
#[derive(Debug)]
struct Interpreter {
    definition: (Kind, String),
    etag: String,
    /// What is in its environment.
    secrets: Granted,
    requests: pipe::Sender,
    answers: pipe::Receiver,
    log: pipe::Receiver,
    /// For reading the log.
    buffer: Vec<u8>,
    /// What came over the channel and was not read as an answer yet.
    received: Vec<u8>,
    kept: Option<Kept>,
    runs: u64,
    /// Keeps the source where it is.
    _lease: Lease,
}

/// What the worker says when it has loaded the source, or could not.
#[derive(Deserialize)]
struct Greeting {
    failed: Option<Raised>,
}

/// What the worker answers.
enum Answer {
    /// The result, as JSON text.
    Result(Vec<u8>),
    /// There is none.
    None(NoResult),
}

/// Why there is no result.
#[derive(Deserialize)]
struct NoResult {
    error: Option<Raised>,
    invalid: Option<String>,
}

/// An exception.
#[derive(Deserialize)]
struct Raised {
    #[serde(default, rename = "type")]
    name: String,
    message: String,
}

impl Warm {
    /// No interpreter yet.
    pub fn new(command: LauncherCommand) -> Self {
        Self { launcher: Launcher::new(command), interpreter: None, folder: None }
    }

    /// Its working folder, where it has one.
    pub fn folder(&mut self) -> &mut Option<Folder> {
        &mut self.folder
    }

    /// Runs the handler.
    ///
    /// # Errors
    /// The outcome: it raised, the interpreter could not be started, died, took too long or too much.
    pub async fn run(
        &mut self,
        job: &Job,
        attempt: u32,
        context: &Context,
        bounds: Bounds,
        stop: &mut Stop,
    ) -> Result<Produced, Outcome> {
        let mut lines = Lines::of(job, context);
        let is_other = |interpreter: &Interpreter| {
            let (kind, id) = &interpreter.definition;
            interpreter.etag != job.definition.etag
                || interpreter.secrets != job.secrets
                || *id != job.definition.id
                || *kind != job.definition.kind
        };
        if self.interpreter.as_ref().is_some_and(is_other) {
            self.end().await;
        }
        if self.interpreter.is_none() {
            let prepared = stop.or(prepare(job, context)).await?;
            let started = self.start(job, context, bounds, stop, &mut lines, prepared).await;
            if let Err(outcome) = started {
                self.end().await;
                return Err(outcome);
            }
        }
        let answered = self.exchange(job, attempt, bounds, stop, &mut lines).await;
        lines.finish();
        // Where an answer is not this execution's, more may be on the way that are nobody's.
        let answer = answered.and_then(|line| Answer::read(&line, job, &bounds));
        match answer {
            Ok(answer) => {
                self.settle(context, &bounds).await;
                answer.produced(&bounds)
            }
            Err(outcome) => {
                self.end().await;
                Err(outcome)
            }
        }
    }

    /// Ends the interpreter, if there is one.
    async fn end(&mut self) {
        // Also where its start was not over, and the launcher alone knows of it.
        self.launcher.end().await;
        self.interpreter = None;
        self.empty_folder().await;
    }

    /// Removes what a run left in the working folder. An interpreter whose folder is gone cannot work in another.
    async fn empty_folder(&mut self) -> bool {
        if let Some(folder) = self.folder.take() {
            self.folder = folder.emptied().await;
        }
        self.folder.is_some()
    }

    async fn start(
        &mut self,
        job: &Job,
        context: &Context,
        bounds: Bounds,
        stop: &mut Stop,
        lines: &mut Lines<'_>,
        prepared: Prepared,
    ) -> Result<(), Outcome> {
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => Folder::make(&context.run_folder).map_err(|error| no_folder(&error))?,
        };
        let folder = self.folder.insert(folder);
        let network = context.network(job)?;
        let handler = job.definition.spec.program.handler.clone().unwrap_or_default();
        let source = prepared.lease.folder().to_owned();
        let uuid = job.uuid.to_string();
        let environment = context.python.environments.folder_of(&prepared.interpreter);
        let view = View::new(&context.sandbox, folder.path(), Some(&source), environment.as_deref());
        if environment.is_none() {
            let failed = |problem| Outcome::failed("not_startable", problem);
            context.sandbox.check_shown(&prepared.interpreter).map_err(failed)?;
        }
        let program = launched::Program {
            path: &view.path(&prepared.interpreter),
            args: vec![
                "-u".into(),
                // Its own text, so that no file of the service's has to be shown.
                "-c".into(),
                WORKER.into(),
                view.text(&prepared.file),
                handler,
                view.text(&source),
            ],
            env: launched::environment(job, &context.path, &uuid),
            folder: folder.path(),
            shown: view.shown(),
            network,
            input: None,
        };
        let Channel { requests, answers, log } = self.launcher.keep(program, Through::Own, &bounds).await?;
        self.launcher.watch(&bounds, Some(folder.path())).await?;
        let mut interpreter = Interpreter {
            definition: (job.definition.kind, job.definition.id.clone()),
            etag: job.definition.etag.clone(),
            secrets: job.secrets.clone(),
            requests,
            answers,
            log,
            buffer: vec![0; 8 * 1024],
            received: Vec::new(),
            kept: None,
            runs: 0,
            _lease: prepared.lease,
        };
        let around =
            Around { launcher: &mut self.launcher, bounds: &bounds, stop, lines, folder: folder.path() };
        let greeting = interpreter.converse(None, around).await?;
        let greeting: Greeting = serde_json::from_slice(&greeting).map_err(|_| garbled())?;
        if let Some(raised) = greeting.failed {
            return Err(Outcome::failed("not_startable", raised.message));
        }
        interpreter.kept = self.launcher.kept();
        self.interpreter = Some(interpreter);
        Ok(())
    }

    async fn exchange(
        &mut self,
        job: &Job,
        attempt: u32,
        bounds: Bounds,
        stop: &mut Stop,
        lines: &mut Lines<'_>,
    ) -> Result<Vec<u8>, Outcome> {
        let interpreter = self.interpreter.as_mut().ok_or_else(garbled)?;
        let request = format!(
            "{{\"execution\":\"{}\",\"attempt\":{attempt},\"definition\":{},\"traceparent\":{},\"deadline_ms\":{},\"folder\":null,\"input\":{}}}\n",
            job.uuid,
            json::quote(&job.definition.id),
            job.traceparent.as_deref().map_or_else(|| "null".to_owned(), json::quote),
            bounds.timeout.as_millis(),
            job.input.text,
        );
        interpreter.runs += 1;
        let folder = self.folder.as_ref().ok_or_else(garbled)?.path();
        let around = Around { launcher: &mut self.launcher, bounds: &bounds, stop, lines, folder };
        interpreter.converse(Some(request.as_bytes()), around).await
    }

    /// After a run: what it started is ended, what it wrote is removed, and an interpreter that is worn is let go.
    async fn settle(&mut self, context: &Context, bounds: &Bounds) {
        let Some(interpreter) = &mut self.interpreter else { return };
        let is_worn = interpreter.runs >= context.python.max_runs;
        let resident = interpreter.kept.as_ref().and_then(Kept::alone_with);
        let is_alone = match resident {
            Some(_) => true,
            None => matches!(self.launcher.sweep().await, Ok(true)),
        };
        let is_large = resident.is_some_and(|bytes| bytes > bounds.memory_bytes);
        // A line that nobody asked for would be read as the next answer.
        let is_clean = interpreter.received.is_empty();
        let is_clean = self.empty_folder().await && is_clean;
        if is_worn || is_large || !is_alone || !is_clean {
            self.end().await;
        }
    }
}

/// What is around a conversation: who watches it, and what ends it.
struct Around<'a, 'job> {
    launcher: &'a mut Launcher,
    bounds: &'a Bounds,
    stop: &'a mut Stop,
    lines: &'a mut Lines<'job>,
    folder: &'a Path,
}

/// What a start needs and may take time to get.
struct Prepared {
    lease: Lease,
    file: PathBuf,
    interpreter: PathBuf,
}

async fn prepare(job: &Job, context: &Context) -> Result<Prepared, Outcome> {
    let failed = |problem: String| Outcome::failed("not_startable", problem);
    if job.definition.spec.program.source.is_none() {
        return Err(failed("the definition has no `source_url`, which names its Python source".into()));
    }
    let lease = context.artifact(job).await?;
    let file = lease.file(job.definition.spec.program.entrypoint.as_deref()).map_err(failed)?;
    let pin = lease.pin().as_str().to_owned();
    let home = file.parent().unwrap_or(lease.folder()).to_owned();
    let interpreter = context.python.environments.interpreter(&pin, &home).await.map_err(failed)?;
    Ok(Prepared { lease, file, interpreter })
}

impl Interpreter {
    /// Sends a line, where there is one, and waits for the line that answers it; what is printed meanwhile is log.
    async fn converse(&mut self, request: Option<&[u8]>, around: Around<'_, '_>) -> Result<Vec<u8>, Outcome> {
        let Around { launcher, bounds, stop, lines, folder } = around;
        let (received, log) = (&mut self.received, &mut self.log);
        let mut answer = pin!(answer(&mut self.answers, &mut self.requests, request, received, bounds));
        let mut watch = pin!(tokio::time::sleep(UNWATCHED));
        // A start is watched from its beginning.
        let (mut is_watched, mut is_logging) = (request.is_none(), true);
        let buffer = &mut self.buffer;
        let result = loop {
            tokio::select! {
                // The log comes last: one that is always there to be read would hide all else.
                biased;
                outcome = stop.reached() => return Err(outcome),
                answer = &mut answer => break answer?,
                () = &mut watch, if !is_watched => {
                    launcher.watch(bounds, Some(folder)).await?;
                    is_watched = true;
                }
                ended = launcher.ended() => {
                    let exit = ended?;
                    // Its last words are in the pipe, and nobody adds to them.
                    hear(log, buffer, lines);
                    return Err(died(exit, bounds, &lines.tail()));
                }
                read = log.read(buffer), if is_logging => match read {
                    Ok(read) if read > 0 => lines.write(&buffer[..read]),
                    // It closed its output, which is no reason to end.
                    _ => is_logging = false,
                },
            }
        };
        if is_watched {
            launcher.rest().await?;
        }
        let Some(answer) = result else {
            // The channel closed: the interpreter ends, or closed what is not its own.
            let exit = match tokio::time::timeout(DYING, launcher.ended()).await {
                Ok(ended) => ended?,
                // What it was ended for takes long to be gone.
                Err(_) => match launcher.end().await {
                    Some(exit) if exit.exceeded.is_some() => exit,
                    _ => return Err(garbled()),
                },
            };
            hear(&self.log, &mut self.buffer, lines);
            return Err(died(exit, bounds, &lines.tail()));
        };
        // What was printed before the answer is in the pipe by now.
        hear(&self.log, &mut self.buffer, lines);
        Ok(answer)
    }
}

/// Reads what is in the pipe of the log; what is printed on and on is not waited for.
fn hear(log: &pipe::Receiver, buffer: &mut [u8], lines: &mut Lines<'_>) {
    for _ in 0..PIPE_READS {
        match log.try_read(buffer) {
            Ok(read) if read > 0 => lines.write(&buffer[..read]),
            _ => break,
        }
    }
}

/// The next line of the worker, without its end; none where the channel closed.
async fn answer(
    reader: &mut pipe::Receiver,
    writer: &mut pipe::Sender,
    request: Option<&[u8]>,
    received: &mut Vec<u8>,
    bounds: &Bounds,
) -> Result<Option<Vec<u8>>, Outcome> {
    if let Some(request) = request
        && writer.write_all(request).await.is_err()
    {
        return Ok(None);
    }
    let mut seen = 0;
    loop {
        if let Some(end) = received[seen..].iter().position(|byte| *byte == b'\n') {
            let rest = received.split_off(seen + end + 1);
            let mut line = std::mem::replace(received, rest);
            line.pop();
            return Ok(Some(line));
        }
        seen = received.len();
        if seen > bounds.output_bytes + ANSWER_BYTES {
            return Err(bounds.output_too_large());
        }
        match reader.read_buf(received).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) => {}
        }
    }
}

impl Answer {
    /// Reads a line.
    ///
    /// # Errors
    /// It is no answer, or another execution's; or the result is too large.
    fn read(line: &[u8], job: &Job, bounds: &Bounds) -> Result<Self, Outcome> {
        Self::parse(line, &job.uuid.to_string(), bounds)
    }

    fn parse(line: &[u8], execution: &str, bounds: &Bounds) -> Result<Self, Outcome> {
        let name = format!("{{\"for\":\"{execution}\",");
        let rest = line.strip_prefix(name.as_bytes()).ok_or_else(garbled)?;
        if let Some(result) = rest.strip_prefix(br#""ok":"#).and_then(|result| result.strip_suffix(b"}")) {
            if result.len() > bounds.output_bytes {
                return Err(bounds.output_too_large());
            }
            return Ok(Self::Result(result.to_vec()));
        }
        let answer: NoResult = serde_json::from_slice(line).map_err(|_| garbled())?;
        if answer.error.is_none() && answer.invalid.is_none() {
            return Err(garbled());
        }
        Ok(Self::None(answer))
    }

    fn produced(self, bounds: &Bounds) -> Result<Produced, Outcome> {
        let answer = match self {
            Self::Result(json) => return Ok(Produced::Json(json)),
            Self::None(answer) => answer,
        };
        match answer.error {
            Some(raised) if raised.name == "MemoryError" => Err(bounds.memory_exceeded()),
            Some(raised) => Err(Outcome::failed("exception", format!("{}: {}", raised.name, raised.message))),
            None => Err(Outcome::failed("invalid_output", answer.invalid.unwrap_or_default())),
        }
    }
}

fn died(exit: Exit, bounds: &Bounds, tail: &str) -> Outcome {
    process::died("the interpreter", exit, bounds, tail)
}

fn garbled() -> Outcome {
    Outcome::failed("invalid_output", "the interpreter said something else than an answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds() -> Bounds {
        Bounds {
            timeout: Duration::from_secs(1),
            output_bytes: 10,
            memory_bytes: 1 << 20,
            cpu: None,
            processes: 1,
            files: 1,
            disk_bytes: 1,
        }
    }

    #[test]
    fn an_answer_is_a_result_an_exception_or_no_json() {
        let code = |text: &str| {
            let answer = Answer::parse(text.as_bytes(), "e", &bounds());
            match answer.and_then(|answer| answer.produced(&bounds())) {
                Ok(Produced::Json(json)) => String::from_utf8(json).expect("text"),
                Ok(other) => panic!("{other:?}"),
                Err(outcome) => outcome.result.expect_err("a failure").code.into_owned(),
            }
        };
        assert_eq!(code(r#"{"for":"e","ok":{"a":1}}"#), r#"{"a":1}"#);
        assert_eq!(code(r#"{"for":"e","ok":null}"#), "null");
        assert_eq!(code(r#"{"for":"e","ok":"12345678901"}"#), "output_too_large");
        let error =
            |name| format!(r#"{{"for":"e","error":{{"type":"{name}","message":"m","traceback":"t"}}}}"#);
        assert_eq!(code(&error("ValueError")), "exception");
        assert_eq!(code(&error("MemoryError")), "memory_exceeded");
        assert_eq!(code(r#"{"for":"e","invalid":"NaN"}"#), "invalid_output");
        for other in ["nonsense", r#"{"ok":1}"#, r#"{"for":"f","ok":1}"#, r#"{"for":"e","x":1}"#] {
            assert_eq!(code(other), "invalid_output", "{other}");
        }
    }
}
