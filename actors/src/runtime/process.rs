//! Runs a program of this machine: a working folder, pipes, and a launcher that ends all that is left of it.
//!
//! Standard input is written while standard output and error are read, so that no side waits for the other. What
//! the program prints to standard error is its log.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

use super::Context;
use super::bounds::Bounds;
use super::folder::Folder;
use super::launched::{self, Launcher, LauncherCommand, Pipes, Unwritten, no_folder};
use super::lines::Lines;
use super::output::Produced;
use super::program::{self, Located};
use super::sandbox::View;
use super::stop::Stop;
use crate::artifacts::Lease;
use crate::execution::{Job, Outcome};
use crate::json;
use crate::launcher::protocol::Exit;
use crate::spec::Stdin;

/// How long what was printed may take to arrive once nobody holds the pipes.
const FLUSH: Duration = Duration::from_millis(500);

/// The signal of a file that grew too large (signal(7)).
const SIGXFSZ: i32 = 25;

/// What an executor keeps.
#[derive(Debug)]
pub struct Warm {
    launcher: Launcher,
    folder: Option<Folder>,
}

impl Warm {
    /// Nothing was started yet.
    pub fn new(command: LauncherCommand) -> Self {
        Self { launcher: Launcher::new(command), folder: None }
    }

    /// Its working folder, where it has one that is still there.
    pub fn folder(&mut self) -> &mut Option<Folder> {
        self.folder.take_if(|folder| !folder.path().is_dir());
        &mut self.folder
    }
}

/// The exit status by which a shell tells that a program got that signal.
const SHELL_SIGXFSZ: i32 = 128 + SIGXFSZ;

/// Runs the program to its end.
///
/// # Errors
/// The outcome, where there is no output: it could not be started, failed, took too long, printed too much.
pub async fn run(
    warm: &mut Warm,
    job: &Job,
    context: &Context,
    bounds: Bounds,
    stop: &mut Stop,
) -> Result<Produced, Outcome> {
    let located = stop.or(program::locate(job, context)).await?;
    let folder = match warm.folder.take() {
        Some(folder) => folder,
        None => Folder::make(&context.run_folder).map_err(|error| no_folder(&error))?,
    };
    let produced = run_in(folder.path(), &mut warm.launcher, job, context, bounds, stop, &located).await;
    warm.folder = folder.emptied().await;
    produced
}

async fn run_in(
    folder: &Path,
    launcher: &mut Launcher,
    job: &Job,
    context: &Context,
    bounds: Bounds,
    stop: &mut Stop,
    located: &Located,
) -> Result<Produced, Outcome> {
    let network = context.network(job)?;
    let source = located.lease.as_ref().map(Lease::folder);
    let view = View::new(&context.sandbox, folder, source, None);
    let files = if job.definition.spec.program.by_files {
        Some(Files::prepare(job, folder).map_err(|error| no_folder(&error))?)
    } else {
        None
    };
    let uuid = job.uuid.to_string();
    let program = launched::Program {
        path: &view.path(&located.path),
        args: arguments(job, located, files.as_ref(), &view),
        env: launched::environment(job, &context.path, &uuid),
        folder,
        shown: view.shown(),
        network,
        input: reads_input(job).then(|| stdin_text(job)),
    };
    let pipes = launcher.run(program, &bounds).await?;
    let run = Run { bounds, lines: Lines::of(job, context), prints_log: files.is_some() };
    let stdout = run.until_end(launcher, pipes, stop).await?;
    match files {
        Some(files) => files.output(&bounds).map(Produced::Json),
        None => Ok(Produced::Bytes(stdout)),
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
        // The program may run as another user.
        std::fs::set_permissions(&files.input, Permissions::from_mode(0o644))?;
        Ok(files)
    }

    fn output(&self, bounds: &Bounds) -> Result<Vec<u8>, Outcome> {
        let missing = |_| Outcome::failed("invalid_output", "the program wrote no output file");
        let about = std::fs::symlink_metadata(&self.output).map_err(missing)?;
        if !about.is_file() {
            return Err(Outcome::failed("invalid_output", "the output file is not a plain file"));
        }
        if about.len() > bounds.output_bytes as u64 {
            return Err(bounds.output_too_large());
        }
        std::fs::read(&self.output).map_err(missing)
    }
}

fn arguments(job: &Job, located: &Located, files: Option<&Files>, view: &View<'_>) -> Vec<String> {
    let mut args = located.flags.clone();
    args.extend(located.file.as_deref().map(|file| view.text(file)));
    if let Some(files) = files {
        args.extend([&files.input, &files.output].map(|path| view.text(path)));
    }
    let templates = &job.definition.spec.program.args;
    if !templates.is_empty() {
        let input = job.input.members();
        args.extend(templates.iter().map(|template| template.render(&input)));
    }
    args
}

fn reads_input(job: &Job) -> bool {
    let spec = &job.definition.spec.program;
    match spec.stdin {
        Stdin::Json => !spec.by_files,
        Stdin::None => false,
        Stdin::Text(_) => true,
    }
}

/// What a program gets on its standard input.
pub fn stdin_text(job: &Job) -> String {
    match &job.definition.spec.program.stdin {
        Stdin::Text(template) => template.render(&job.input.members()),
        Stdin::Json => job.input.text.clone(),
        Stdin::None => String::new(),
    }
}

/// A program that runs.
struct Run<'a> {
    bounds: Bounds,
    lines: Lines<'a>,
    /// The output is a file: what is printed is log.
    prints_log: bool,
}

impl Run<'_> {
    /// Feeds and reads the program until it and all that it started are gone: by themselves, or since its time is
    /// over, or it was cancelled, or printed too much. What it printed, if it ended well.
    async fn until_end(
        mut self,
        launcher: &mut Launcher,
        pipes: Pipes,
        stop: &mut Stop,
    ) -> Result<Vec<u8>, Outcome> {
        let mut printed = Vec::new();
        let ended = {
            let mut feed = pin!(feed(pipes.rest));
            let mut out = pin!(read_stdout(pipes.stdout, &mut printed, self.bounds, self.prints_log));
            let mut err = pin!(self.lines.follow(pipes.stderr));
            let (mut is_fed, mut is_out_read, mut is_err_read) = (false, false, false);
            let ended = loop {
                tokio::select! {
                    ended = launcher.ended() => break ended?,
                    outcome = stop.reached() => {
                        launcher.end().await;
                        return Err(outcome);
                    }
                    () = &mut feed, if !is_fed => is_fed = true,
                    () = &mut err, if !is_err_read => is_err_read = true,
                    is_within = &mut out, if !is_out_read => {
                        is_out_read = true;
                        if !is_within {
                            launcher.end().await;
                            return Err(self.bounds.output_too_large());
                        }
                    }
                }
            };
            let rest = async {
                let is_within = is_out_read || out.await;
                if !is_err_read {
                    err.await;
                }
                is_within
            };
            // Nobody holds the pipes any more; should somebody, what was read so far is what counts.
            if tokio::time::timeout(FLUSH, rest).await == Ok(false) {
                return Err(self.bounds.output_too_large());
            }
            ended
        };
        check(ended, &self.bounds, &self.lines.tail())?;
        Ok(printed)
    }
}

/// Keeps what is printed, up to the bound. False where there was more.
async fn read_stdout(
    mut stdout: pipe::Receiver,
    printed: &mut Vec<u8>,
    bounds: Bounds,
    is_log: bool,
) -> bool {
    if is_log {
        discard(stdout).await;
        return true;
    }
    let mut capped = (&mut stdout).take(bounds.output_bytes as u64 + 1);
    // A pipe that errs has ended.
    let _ = capped.read_to_end(printed).await;
    printed.len() <= bounds.output_bytes
}

async fn discard(mut stream: impl AsyncRead + Unpin) {
    let mut buffer = vec![0; 8 * 1024];
    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}

/// Writes what the pipe did not hold of the input. A program that does not read it is no failure.
async fn feed(rest: Option<Unwritten>) {
    if let Some((mut stdin, rest)) = rest {
        let _ = stdin.write_all(&rest).await;
    }
}

fn check(exit: Exit, bounds: &Bounds, tail: &str) -> Result<(), Outcome> {
    if let Some(limit) = exit.exceeded {
        return Err(launched::exceeded(limit, bounds));
    }
    let ended = match (exit.code, exit.signal) {
        (Some(0), _) => return Ok(()),
        (_, Some(SIGXFSZ)) | (Some(SHELL_SIGXFSZ), _) => return Err(bounds.disk_exceeded()),
        (Some(code), _) => format!("the program ended with exit status {code}"),
        (None, Some(signal)) => format!("the program was ended by signal {signal}"),
        (None, None) => "the program ended abnormally".to_owned(),
    };
    Err(failed(&ended, tail))
}

/// A warm program that ended when it should not have, by itself or for a limit.
pub fn died(what: &str, exit: Exit, bounds: &Bounds, tail: &str) -> Outcome {
    if let Some(limit) = exit.exceeded {
        return launched::exceeded(limit, bounds);
    }
    let how = match (exit.code, exit.signal) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no status".to_owned(),
    };
    failed(&format!("{what} ended with {how}"), tail)
}

/// A program that ended badly, with the end of what it said.
pub fn failed(ended: &str, tail: &str) -> Outcome {
    let message = if tail.is_empty() { ended.to_owned() } else { format!("{ended}: {tail}") };
    Outcome::failed("exit_status", message)
}
