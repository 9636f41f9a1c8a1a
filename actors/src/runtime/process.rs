//! Runs a program of this machine: one process group, one working folder, both gone when the run ends.
//!
//! Standard input is written while standard output and error are read, so that no side waits for the other. What
//! the program prints to standard error is its log.

use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use uuid::Uuid;

use super::folder::Folder;
use super::leftovers::{self, Tree};
use super::output::Produced;
use super::program::{self, Program};
use super::{Bounds, Context};
use crate::execution::{Job, Outcome};
use crate::json;
use crate::log::LogRing;
use crate::spec::Stdin;

/// How much of standard error an outcome repeats.
const STDERR_TAIL: usize = 2_048;

/// How long what was printed may take to arrive once nobody holds the pipes.
const FLUSH: Duration = Duration::from_millis(500);

/// Runs the program to its end.
///
/// # Errors
/// The outcome, where there is no output: it could not be started, failed, took too long, printed too much.
pub async fn run(job: &Job, attempt: u32, context: &Context, bounds: Bounds) -> Result<Produced, Outcome> {
    let program = locate(job, context).await?;
    let folder = Folder::make(&context.run_folder, job.uuid, attempt).map_err(|error| not_started(&error))?;
    let produced = run_in(folder.path(), job, context, bounds, &program).await;
    folder.remove().await;
    produced
}

/// Finds the program; a source that is pinned by its hash is read whole, where that may take its time.
async fn locate(job: &Job, context: &Context) -> Result<Program, Outcome> {
    let spec = &job.definition.spec.program;
    let located = if spec.sha256.is_some() {
        let (definition, roots, path) = (job.definition.clone(), context.roots.clone(), context.path.clone());
        let look = move || program::locate(&definition.spec.program, &roots, &path);
        tokio::task::spawn_blocking(look).await.unwrap_or_else(|error| Err(error.to_string()))
    } else {
        program::locate(spec, &context.roots, &context.path)
    };
    located.map_err(|problem| Outcome::failed("not_startable", problem))
}

async fn run_in(
    folder: &Path,
    job: &Job,
    context: &Context,
    bounds: Bounds,
    program: &Program,
) -> Result<Produced, Outcome> {
    let files = if job.definition.spec.program.by_files {
        Some(Files::prepare(job, folder).map_err(|error| not_started(&error))?)
    } else {
        None
    };
    let mut command = command(job, context, program, files.as_ref(), folder);
    let (mut child, tree) = start(&mut command, job.uuid).map_err(|error| not_started(&error))?;

    let log = LogSink { ring: job.log.as_deref(), line_bytes: context.limits.log_line_bytes };
    let ended = Watch { job, bounds, log, by_files: files.is_some() }.until_end(&mut child, &tree).await;
    tree.close();
    let ended = ended?;
    check_exit(ended.status, &ended.stderr)?;
    match files {
        Some(files) => files.output(bounds.output_bytes).map(Produced::Json),
        None => Ok(Produced::Bytes(ended.stdout)),
    }
}

/// The two files of `io: "files"`.
struct Files {
    input: PathBuf,
    output: PathBuf,
}

impl Files {
    fn prepare(job: &Job, folder: &Path) -> std::io::Result<Self> {
        let files = Self { input: folder.join("input.json"), output: folder.join("output.json") };
        let definition = &job.definition;
        let document: Value = serde_json::from_slice(&definition.json)?;
        let data = document[definition.kind.field("metadata")].get("data").cloned();
        let text = format!(
            r#"{{"tool_id":{},"tool_data":{},"mode":"input","input":{}}}"#,
            json::quote(&definition.id),
            data.unwrap_or_else(|| Value::Object(serde_json::Map::new())),
            job.input.text,
        );
        std::fs::write(&files.input, text)?;
        Ok(files)
    }

    fn output(&self, max_bytes: usize) -> Result<Vec<u8>, Outcome> {
        let missing = |_| Outcome::failed("invalid_output", "the program wrote no output file");
        let about = std::fs::symlink_metadata(&self.output).map_err(missing)?;
        if !about.is_file() {
            return Err(Outcome::failed("invalid_output", "the output file is not a plain file"));
        }
        if about.len() > max_bytes as u64 {
            return Err(too_large(max_bytes));
        }
        std::fs::read(&self.output).map_err(missing)
    }
}

fn command(job: &Job, context: &Context, program: &Program, files: Option<&Files>, folder: &Path) -> Command {
    let spec = &job.definition.spec.program;
    let mut command = Command::new(&program.path);
    command.args(&program.first_args);
    if let Some(files) = files {
        command.arg(&files.input).arg(&files.output);
    }
    if !spec.args.is_empty() {
        let input = job.input.value();
        command.args(spec.args.iter().map(|template| template.render(&input)));
    }
    command
        .env_clear()
        .env("PATH", &context.path)
        .envs(&spec.env)
        // After the definition's own, which must not hide whose process this is.
        .env("ORG_EXECUTION", job.uuid.to_string())
        .env("ORG_DEFINITION", &job.definition.id)
        .envs(job.traceparent.iter().map(|context| ("TRACEPARENT", context)))
        .current_dir(folder)
        .process_group(0)
        .kill_on_drop(true)
        .stdin(if reads_input(job) { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn reads_input(job: &Job) -> bool {
    let spec = &job.definition.spec.program;
    match spec.stdin {
        Stdin::Json => !spec.by_files,
        Stdin::None => false,
        Stdin::Text(_) => true,
    }
}

fn start(command: &mut Command, uuid: Uuid) -> std::io::Result<(Child, Tree)> {
    let _starting = leftovers::starting();
    let child = command.spawn()?;
    let tree = Tree::new(leader(&child), uuid, pipes(&child));
    Ok((child, tree))
}

fn leader(child: &Child) -> i32 {
    child.id().expect("a child that was not waited for has an id").cast_signed()
}

/// The names of the pipes on which a program prints, as `/proc/PID/fd` shows them to whoever holds them.
fn pipes(child: &Child) -> Vec<String> {
    let descriptors =
        [child.stdout.as_ref().map(AsRawFd::as_raw_fd), child.stderr.as_ref().map(AsRawFd::as_raw_fd)];
    let link = |descriptor: i32| std::fs::read_link(format!("/proc/self/fd/{descriptor}")).ok();
    descriptors
        .into_iter()
        .flatten()
        .filter_map(link)
        .map(|link| link.to_string_lossy().into_owned())
        .collect()
}

/// How a program ended, and what it printed.
struct Ended {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: VecDeque<u8>,
}

/// What a run is watched for.
struct Watch<'a> {
    job: &'a Job,
    bounds: Bounds,
    log: LogSink<'a>,
    by_files: bool,
}

impl Watch<'_> {
    /// Feeds and reads the program until it exits, its time is over, or it printed too much; then ends all that
    /// is left of it.
    async fn until_end(&self, child: &mut Child, tree: &Tree) -> Result<Ended, Outcome> {
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (mut printed, mut tail) = (Vec::new(), VecDeque::new());
        let mut is_too_large = false;
        let status = {
            let mut feed = pin!(feed(stdin, self.job));
            let mut out = pin!(self.read_stdout(stdout, &mut printed));
            let mut err = pin!(self.log.follow(stderr, &mut tail));
            let mut timeout = pin!(tokio::time::sleep(self.bounds.timeout));
            let (mut is_fed, mut is_out_read, mut is_err_read) = (false, false, false);
            let status = loop {
                tokio::select! {
                    status = child.wait() => break status.map_err(|error| not_started(&error)),
                    () = &mut timeout => break Err(Outcome::timed_out(self.bounds.timeout)),
                    () = &mut feed, if !is_fed => is_fed = true,
                    () = &mut err, if !is_err_read => is_err_read = true,
                    large = &mut out, if !is_out_read => {
                        is_out_read = true;
                        if large {
                            break Err(too_large(self.bounds.output_bytes));
                        }
                    }
                }
            };
            if status.is_err() {
                // By its own id first: it may have left its group.
                let _ = child.start_kill();
                tree.kill();
                if tokio::time::timeout(FLUSH, child.wait()).await.is_err() {
                    tracing::error!("the kernel has not ended a program that was killed");
                }
            }
            tree.end().await;
            let flush = async {
                is_too_large = !is_out_read && out.await;
                if !is_err_read {
                    err.await;
                }
            };
            // Nobody holds the pipes any more; should somebody, what was read so far is what counts.
            let _ = tokio::time::timeout(FLUSH, flush).await;
            status?
        };
        if is_too_large {
            return Err(too_large(self.bounds.output_bytes));
        }
        Ok(Ended { status, stdout: printed, stderr: tail })
    }

    /// Keeps what is printed, up to the bound. Whether there was more.
    async fn read_stdout(&self, stdout: impl AsyncRead + Unpin, printed: &mut Vec<u8>) -> bool {
        if self.by_files {
            // The output is a file: what is printed is log.
            self.log.follow(stdout, &mut VecDeque::new()).await;
            return false;
        }
        let mut capped = stdout.take(self.bounds.output_bytes as u64 + 1);
        // A pipe that errs has ended.
        let _ = capped.read_to_end(printed).await;
        printed.len() > self.bounds.output_bytes
    }
}

/// Writes the input. A program that does not read it is no failure.
async fn feed(stdin: Option<ChildStdin>, job: &Job) {
    let Some(mut stdin) = stdin else { return };
    let text = match &job.definition.spec.program.stdin {
        Stdin::Text(template) => template.render(&job.input.value()),
        Stdin::Json | Stdin::None => job.input.text.clone(),
    };
    let _ = stdin.write_all(text.as_bytes()).await;
}

/// Where log lines go while a program runs.
#[derive(Clone, Copy)]
struct LogSink<'a> {
    ring: Option<&'a LogRing>,
    line_bytes: usize,
}

impl LogSink<'_> {
    /// Reads to the end: each line goes to the ring, the last bytes to `tail`.
    async fn follow(&self, mut stream: impl AsyncRead + Unpin, tail: &mut VecDeque<u8>) {
        let mut buffer = vec![0; 8 * 1024];
        let mut line = Vec::new();
        loop {
            let read = match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(read) => &buffer[..read],
            };
            keep_tail(tail, read);
            if self.ring.is_some() {
                self.split(read, &mut line);
            }
        }
        if !line.is_empty() {
            self.push(&line);
        }
    }

    fn split(&self, read: &[u8], line: &mut Vec<u8>) {
        for piece in read.split_inclusive(|byte| *byte == b'\n') {
            let room = self.line_bytes.saturating_sub(line.len());
            line.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.push(line);
                line.clear();
            }
        }
    }

    fn push(&self, line: &[u8]) {
        if let Some(ring) = self.ring {
            ring.push(String::from_utf8_lossy(line).trim_end_matches(['\n', '\r']).to_owned());
        }
    }
}

fn keep_tail(tail: &mut VecDeque<u8>, read: &[u8]) {
    let read = &read[read.len().saturating_sub(STDERR_TAIL)..];
    let surplus = (tail.len() + read.len()).saturating_sub(STDERR_TAIL);
    tail.drain(..surplus.min(tail.len()));
    tail.extend(read);
}

fn check_exit(status: ExitStatus, stderr: &VecDeque<u8>) -> Result<(), Outcome> {
    if status.success() {
        return Ok(());
    }
    let ended = match (status.code(), status.signal()) {
        (Some(code), _) => format!("the program ended with exit status {code}"),
        (None, Some(signal)) => format!("the program was ended by signal {signal}"),
        (None, None) => "the program ended abnormally".to_owned(),
    };
    let stderr: Vec<u8> = stderr.iter().copied().collect();
    let stderr = String::from_utf8_lossy(&stderr);
    let message = if stderr.trim().is_empty() { ended } else { format!("{ended}: {}", stderr.trim()) };
    Err(Outcome::failed("exit_status", message))
}

fn not_started(error: &std::io::Error) -> Outcome {
    Outcome::failed("not_startable", format!("the program could not be started: {error}"))
}

fn too_large(max_bytes: usize) -> Outcome {
    Outcome::failed("output_too_large", format!("the output is larger than {max_bytes} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_split_capped_and_their_end_is_kept() {
        let ring = LogRing::new(10);
        let sink = LogSink { ring: Some(&ring), line_bytes: 4 };
        let mut tail = VecDeque::new();
        sink.follow(&b"ab\r\nabcdefg\n\nlast"[..], &mut tail).await;
        assert_eq!(ring.take().lines, ["ab", "abcd", "", "last"]);
        assert_eq!(tail.len(), 17);
    }

    #[test]
    fn the_tail_is_the_end_and_bounded() {
        let mut tail = VecDeque::new();
        keep_tail(&mut tail, &[1; STDERR_TAIL - 1]);
        keep_tail(&mut tail, &[2; 3]);
        assert_eq!(
            (tail.len(), tail.back(), tail.iter().filter(|byte| **byte == 2).count()),
            (STDERR_TAIL, Some(&2), 3)
        );
        keep_tail(&mut tail, &[3; STDERR_TAIL * 2]);
        assert!(tail.len() == STDERR_TAIL && tail.iter().all(|byte| *byte == 3));
    }
}
