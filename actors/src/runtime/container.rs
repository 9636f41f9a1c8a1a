//! Runs an execution in a container, through the Docker API that Docker and Podman speak.
//!
//! A fresh container runs one execution and is removed. A warm one is kept by its executor: a shell in it takes one
//! command line after the other and resets the container in between, since making a container takes a hundred times
//! as long as running a command in one. In both the root is read-only, `/tmp` is small, the user is nobody, and there
//! are no privileges and, unless told, no network.

use std::time::Duration;

use bollard::Docker;

use super::bounds::Bounds;
use super::lines::Lines;
use super::output::Produced;
use super::process;
use super::stop::Stop;
use crate::compiled::Compiled;
use crate::execution::{Job, Outcome};
use crate::spec::{ContainerMode, Stdin};

mod agent;
mod engine;
mod fresh;
mod image;
mod instance;
mod places;
mod warm;

pub use engine::Engine;
pub use warm::Warm;

use image::Image;

/// The status of a process that SIGKILL ended, as shells and engines tell it.
const KILLED: i64 = 128 + 9;

/// The same for SIGXCPU: its processor time was over.
const OUT_OF_CPU: i64 = 128 + 24;

/// Runs one execution to its end.
///
/// # Errors
/// The outcome, where there is no output: the engine cannot be reached, the container could not be started, or the
/// program failed, took too long, printed or used too much.
pub async fn run(
    warm: &mut Warm,
    job: &Job,
    attempt: u32,
    engine: &Engine,
    lines: Lines<'_>,
    bounds: Bounds,
    stop: &mut Stop,
) -> Result<Produced, Outcome> {
    let order = Order::of(job)?;
    match job.definition.spec.container.mode {
        ContainerMode::Reset | ContainerMode::Drop if order.fits_a_shell() => {
            warm.run(&order, job, engine, lines, bounds, stop).await
        }
        _ => fresh::run(&order, job, attempt, engine, lines, bounds, stop).await,
    }
}

/// The engine, and the image of this definition on it.
async fn find(definition: &Compiled, engine: &Engine) -> Result<(Docker, Image), Outcome> {
    let spec = &definition.spec.container;
    let unnamed = || Outcome::failed("not_startable", "the definition names no `image`");
    let name = spec.image.as_deref().ok_or_else(unnamed)?;
    let docker = engine.docker().await?;
    let image = engine.image(&docker, name, spec.pull).await?;
    Ok((docker, image))
}

/// What an execution runs in a container, and what it gives it.
#[derive(Debug)]
struct Order {
    /// The definition's command; empty where the image's own counts.
    command: Vec<String>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    /// None where nothing can be read.
    stdin: Option<String>,
}

impl Order {
    fn of(job: &Job) -> Result<Self, Outcome> {
        let spec = &job.definition.spec;
        let input = job.input.members();
        let own = spec.program.env.iter().map(|(name, value)| (name.clone(), value.clone()));
        // After the definition's own, which must not hide whose run this is.
        let ours = [("ORG_EXECUTION", job.uuid.to_string()), ("ORG_DEFINITION", job.definition.id.clone())];
        let trace = job.traceparent.iter().map(|context| ("TRACEPARENT", context.clone()));
        let ours = ours.into_iter().chain(trace).map(|(name, value)| (name.to_owned(), value));
        let secrets = job.secrets.variables().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let order = Self {
            command: spec.container.command.iter().map(|part| part.render(&input)).collect(),
            args: spec.program.args.iter().map(|part| part.render(&input)).collect(),
            env: own.filter(|(name, _)| !is_ours(name)).chain(secrets).chain(ours).collect(),
            stdin: (spec.program.stdin != Stdin::None).then(|| process::stdin_text(job)),
        };
        let values = order.env.iter().map(|(_, value)| value);
        if order.command.iter().chain(&order.args).chain(values).any(|text| text.contains('\0')) {
            let message = "an argument or a variable has a NUL character, which no program can be given";
            return Err(Outcome::failed("not_startable", message));
        }
        Ok(order)
    }

    /// A shell holds any text but one with a NUL character.
    fn fits_a_shell(&self) -> bool {
        !self.stdin.as_ref().is_some_and(|stdin| stdin.contains('\0'))
    }

    /// The whole command line: the definition's command, else the image's, where `args` stand for the image's own.
    fn argv(&self, image: &Image) -> Result<Vec<String>, Outcome> {
        let (program, args) = match (self.command.is_empty(), self.args.is_empty()) {
            (false, _) => (&self.command, &self.args),
            (true, false) => (&image.entrypoint, &self.args),
            (true, true) => (&image.entrypoint, &image.cmd),
        };
        let argv: Vec<String> = program.iter().chain(args).cloned().collect();
        if argv.is_empty() {
            let message = "neither the definition nor its image names a command";
            return Err(Outcome::failed("not_startable", message));
        }
        Ok(argv)
    }
}

fn is_ours(name: &str) -> bool {
    ["ORG_EXECUTION", "ORG_DEFINITION", "TRACEPARENT"].contains(&name)
}

/// How a program ended.
#[derive(Debug)]
struct Ended {
    /// Its exit status; 128 more than the signal's number where a signal ended it.
    status: i64,
    /// Whether the kernel ended something in the container that wanted more memory than there was.
    is_out_of_memory: bool,
    took: Duration,
}

impl Ended {
    fn check(&self, bounds: &Bounds, lines: &Lines<'_>) -> Result<(), Outcome> {
        let Self { status, is_out_of_memory, took } = *self;
        match status {
            // Also where the first process made do without the one that was ended for it.
            _ if is_out_of_memory => Err(bounds.memory_exceeded()),
            0 => Ok(()),
            OUT_OF_CPU if bounds.cpu.is_some() => Err(bounds.cpu_exceeded()),
            // Who ignores SIGXCPU is ended by SIGKILL.
            KILLED if bounds.cpu.is_some_and(|cpu| took >= cpu) => Err(bounds.cpu_exceeded()),
            _ => {
                let ended = format!("the program ended with exit status {status}");
                let tail = lines.tail();
                let message = if tail.is_empty() { ended } else { format!("{ended}: {tail}") };
                Err(Outcome::failed("exit_status", message))
            }
        }
    }
}

/// Whole seconds of processor time, the unit of the limit, rounded up.
fn cpu_seconds(bounds: &Bounds) -> Option<u64> {
    bounds.cpu.map(|cpu| cpu.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX))
}
