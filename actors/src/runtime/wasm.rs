//! Runs WebAssembly by wasmtime: a WASI command gets a fresh instance for each execution; a component that exports
//! `run: func(input: string) -> result<string, string>` keeps one for many.
//!
//! A guest reaches nothing but its input, clocks and random numbers, and what its definition grants. It never holds a
//! worker of the service: it yields at each tick, and what has used up its first ticks goes on in a thread of its own.

use std::fmt;
use std::path::Path;

use super::bounds::Bounds;
use super::lines::Lines;
use super::output::Produced;
use super::stop::Stop;
use crate::egress::Egress;
use crate::execution::{Job, Outcome};

mod command;
pub mod compiler;
mod component;
mod drive;
mod engine;
mod host;
mod streams;
#[cfg(test)]
mod tests;
mod ticker;

use component::Instance;
use engine::Code;

pub use engine::Engine;
pub use host::Folders;

/// What one executor keeps warm: the instance of the component that it ran last.
#[derive(Default)]
pub struct Warm {
    instance: Option<Box<Instance>>,
}

impl fmt::Debug for Warm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Warm").field("has_instance", &self.instance.is_some()).finish()
    }
}

/// One run, as its guest is told of it.
struct Call<'a> {
    job: &'a Job,
    engine: &'a Engine,
    pin: &'a str,
    bounds: Bounds,
    folders: Folders,
    egress: &'a Egress,
}

/// Runs the code in `file` to its end: a `.wasm` or its text, a module or a component. `pin` is the hash of what
/// it came from. The `folders` are granted by the definition, and were looked at: they are shown read-only.
///
/// # Errors
/// The outcome, where there is no output: it is no code that can be run, it failed, or it met one of its bounds.
#[expect(clippy::too_many_arguments, reason = "each is one of the things that a run is made of")]
pub async fn run(
    warm: &mut Warm,
    job: &Job,
    engine: &Engine,
    file: &Path,
    pin: &str,
    mut lines: Lines<'_>,
    mut bounds: Bounds,
    stop: &mut Stop,
    folders: Folders,
    egress: &Egress,
) -> Result<Produced, Outcome> {
    // Each file that a guest holds is one of the service.
    bounds.files = bounds.files.min(engine.max_files());
    let call = Call { job, engine, pin, bounds, folders, egress };
    // One that does not fit goes before another is made: both would count against the pool.
    let kept = warm.instance.take().filter(|instance| instance.fits(&call));
    let instance = match kept {
        Some(instance) => instance,
        None => {
            let code = stop.or(Box::pin(engine.code(file, pin))).await?;
            match &*code {
                Code::Module(module) => {
                    return Box::pin(command::module(&call, module, &mut lines, stop)).await;
                }
                Code::Command(component) => {
                    return Box::pin(command::component(&call, component, &mut lines, stop)).await;
                }
                Code::Function(function) => Instance::new(&call, function)?,
            }
        }
    };
    let (instance, answer) = instance.run(&call, &mut lines, stop).await?;
    warm.instance = instance;
    answer
}
