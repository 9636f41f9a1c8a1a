//! Compiling, in a process of its own: a source may make the compiler overflow its stack, take all memory or never come
//! to an end, and only a process can be ended for that. It is this binary under a hidden subcommand, run through a
//! launcher like any other program. What it compiles it leaves in the cache on disk, where the service finds it.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::engine::{Plan, compiled};
use crate::execution::Outcome;
use crate::launcher::protocol::{Exceeded, Exit};
use crate::runtime::bounds::Bounds;
use crate::runtime::folder::Folder;
use crate::runtime::launched::{self, Launcher, LauncherCommand};
use crate::settings::WasmSettings;

/// The subcommand under which the binary compiles.
pub const SUBCOMMAND: &str = "wasm-compiler";

/// Less than the threads of the service have, so that none of them overflows on what passed here.
const STACK_BYTES: usize = 8 << 20;

/// How much it may say about a source that is none.
const SAID_BYTES: u64 = 4 * 1024;

const MIB: u64 = 1 << 20;

/// Starts compilers.
#[derive(Debug)]
pub struct Compiler {
    command: LauncherCommand,
    run_folder: PathBuf,
    bounds: Bounds,
}

/// Why there is nothing compiled.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The source is none.
    Told(String),
    /// It took more than a compiler may have, or its compiler died of it; it would again.
    TooMuch(String),
    /// The compiler could not be run.
    Outcome(Outcome),
}

impl Failure {
    /// What an execution that asked for it comes to.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Told(problem) | Self::TooMuch(problem) => Outcome::failed("not_startable", problem),
            Self::Outcome(outcome) => outcome,
        }
    }
}

impl Compiler {
    /// Compilers are started so, each in a working folder below that one.
    pub fn new(command: &LauncherCommand, run_folder: PathBuf, settings: &WasmSettings) -> Self {
        let bounds = Bounds {
            timeout: Duration::from_millis(settings.compile_timeout_ms),
            output_bytes: usize::MAX,
            memory_bytes: settings.compile_memory_mb.saturating_mul(MIB),
            cpu: None,
            // Its threads, of which it has one for each processor.
            processes: 4_096,
            files: 1_024,
            // What it makes goes into the cache.
            disk_bytes: u64::from(u32::MAX),
        };
        Self { command: command.unsandboxed(), run_folder, bounds }
    }

    /// Has the source in this file compiled, into the cache of an engine by this plan.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn compile(&self, plan: &Plan, file: &Path) -> Result<(), Failure> {
        let mut launcher = Launcher::new(self.command.clone());
        let compiling = tokio::time::timeout(self.bounds.timeout, self.run(&mut launcher, plan, file));
        if let Ok(ended) = compiling.await {
            return ended;
        }
        launcher.end().await;
        let millis = self.bounds.timeout.as_millis();
        Err(Failure::TooMuch(format!(
            "compiling the source took longer than {millis} ms, which is `wasm.compile_timeout_ms`"
        )))
    }

    async fn run(&self, launcher: &mut Launcher, plan: &Plan, file: &Path) -> Result<(), Failure> {
        let no_folder = |error: std::io::Error| Failure::Outcome(launched::no_folder(&error));
        let folder = Folder::make(&self.run_folder).map_err(no_folder)?;
        let own = Path::new(self.command.program.first().map_or("/proc/self/exe".as_ref(), |own| &**own));
        let program = launched::Program {
            path: own,
            args: vec![SUBCOMMAND.into(), plan.to_text(), file.to_string_lossy().into_owned()],
            env: [].into(),
            folder: folder.path(),
            shown: Vec::new(),
            network: false,
            input: None,
        };
        let pipes = launcher.run(program, &self.bounds).await.map_err(Failure::Outcome)?;
        let (mut said, mut complaint) = (String::new(), Vec::new());
        let mut stdout = pipes.stdout.take(SAID_BYTES);
        let mut stderr = pipes.stderr;
        let exit = {
            let mut hearing = pin!(async {
                // A pipe that errs has ended, and what is no text says nothing.
                let _ = tokio::join!(stdout.read_to_string(&mut said), stderr.read_to_end(&mut complaint));
            });
            let mut is_heard = false;
            let exit = loop {
                tokio::select! {
                    exit = launcher.ended() => break exit.map_err(Failure::Outcome)?,
                    () = &mut hearing, if !is_heard => is_heard = true,
                }
            };
            if !is_heard {
                hearing.await;
            }
            exit
        };
        self.judge(&exit, &said)
    }

    fn judge(&self, exit: &Exit, said: &str) -> Result<(), Failure> {
        match (&exit.exceeded, exit.code) {
            (Some(Exceeded::Memory), _) => {
                let mib = self.bounds.memory_bytes / MIB;
                Err(Failure::TooMuch(format!(
                    "compiling the source took more than {mib} MiB of memory, which is `wasm.compile_memory_mb`"
                )))
            }
            (None, Some(0)) => Ok(()),
            (None, Some(1)) if !said.trim().is_empty() => Err(Failure::Told(said.trim().to_owned())),
            _ => Err(Failure::TooMuch("the source cannot be compiled: the compiler died of it".into())),
        }
    }
}

/// Compiles what the arguments name.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(2);
    let plan = arguments.next().and_then(|plan| Plan::parse(plan.to_str()?));
    let (Some(plan), Some(file)) = (plan, arguments.next()) else {
        eprintln!("error: `{SUBCOMMAND}` is started by the service, not by hand");
        return ExitCode::from(2);
    };
    let compile =
        move || compiled(&plan.engine().map_err(|error| error.to_string())?, Path::new(&file)).map(drop);
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(compile);
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(Ok(()))) => ExitCode::SUCCESS,
        Ok(Ok(Err(problem))) => {
            println!("{problem}");
            ExitCode::FAILURE
        }
        // A panic has said why.
        Ok(Err(_)) => ExitCode::from(3),
        Err(error) => {
            println!("there is no thread for it: {error}");
            ExitCode::FAILURE
        }
    }
}
