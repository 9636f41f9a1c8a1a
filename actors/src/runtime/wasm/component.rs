//! Components that export `run`: one instance answers many inputs, until it fails, has run often enough, or another
//! definition comes. It is told of its definition, not of each run.

use wasmtime::Store;
use wasmtime::component::TypedFunc;

use super::Call;
use super::drive::Drive;
use super::engine::Function;
use super::host::{self, Fault, Folders, Host};
use super::streams::{Log, Stream};
use crate::definition::Kind;
use crate::execution::Outcome;
use crate::runtime::bounds::Bounds;
use crate::runtime::lines::Lines;
use crate::runtime::output::Produced;
use crate::runtime::stop::Stop;
use crate::secrets::Granted;

/// How much of what a component says about its failure an outcome repeats.
const MAX_REASON: usize = 2_048;

/// The least that a component may hand over in one call, whatever the bound of its output.
const MIN_HANDED_OVER: usize = 1 << 20;

/// How wasmtime's error ends when it handed over more than it may; the type of that error is not public.
const HANDED_OVER: &str = "fuel allocated for hostcalls has been exhausted";

type Run = TypedFunc<(&'static str,), (Answer,)>;

type Answer = Result<String, String>;

/// An instance, and what it was made for.
pub struct Instance {
    store: Store<Host>,
    function: Function,
    /// None before its first run.
    run: Option<Run>,
    log: Log,
    runs: u64,
    key: Key,
}

/// What has to be the same for an instance to be used again.
struct Key {
    kind: Kind,
    id: String,
    etag: String,
    pin: String,
    memory_bytes: u64,
    folders: Folders,
    secrets: Granted,
}

impl Instance {
    /// For this call and those that fit it; the code is instantiated as the first one runs.
    ///
    /// # Errors
    /// The outcome: what its definition grants cannot be given.
    pub fn new(call: &Call<'_>, function: &Function) -> Result<Box<Self>, Outcome> {
        let log = Log::default();
        let mut wasi = host::wasi(call.job, &call.folders, call.egress, [])?;
        // The answer is the output: what it prints is log.
        wasi.stdout(Stream(log.clone())).stderr(Stream(log.clone()));
        let definition = &call.job.definition;
        let key = Key {
            kind: definition.kind,
            id: definition.id.clone(),
            etag: definition.etag.clone(),
            pin: call.pin.to_owned(),
            memory_bytes: call.bounds.memory_bytes,
            folders: call.folders.clone(),
            secrets: call.job.secrets.clone(),
        };
        let store = Host::store(call.engine, wasi.build_p1(), &call.bounds);
        Ok(Box::new(Self { store, function: function.clone(), run: None, log, runs: 0, key }))
    }

    /// Whether it was made for such a call.
    pub fn fits(&self, call: &Call<'_>) -> bool {
        let (key, definition) = (&self.key, &call.job.definition);
        key.etag == definition.etag
            && key.id == definition.id
            && key.kind == definition.kind
            && key.pin == call.pin
            && key.memory_bytes == call.bounds.memory_bytes
            && key.folders == call.folders
            && key.secrets == call.job.secrets
    }

    /// Answers one input. The instance comes back where it can answer another.
    ///
    /// # Errors
    /// The outcome, where it had to end before it had answered.
    pub async fn run(
        mut self: Box<Self>,
        call: &Call<'_>,
        lines: &mut Lines<'_>,
        stop: &mut Stop,
    ) -> Result<(Option<Box<Self>>, Result<Produced, Outcome>), Outcome> {
        let (bounds, input) = (call.bounds, call.job.input.text.clone());
        Host::begin(&mut self.store, &bounds);
        // An answer that is much too large is not even copied.
        self.store.set_hostcall_fuel(bounds.output_bytes.saturating_add(1).max(MIN_HANDED_OVER));
        let (running, yielded, log) = (call.engine.running(), self.store.data().yielded(), self.log.clone());
        let guest = Box::pin(async move {
            let answer = self.answer(&input).await;
            let answer = answer.map_err(|error| {
                if error.root_cause().to_string().ends_with(HANDED_OVER) {
                    return Fault::Outcome(bounds.output_too_large());
                }
                Fault::of(&error, self.store.data(), &bounds)
            });
            (self, answer)
        });
        let drive = Drive { running, yielded, log, lines: &mut *lines, stop };
        let (mut instance, answer) = drive.until_end(guest).await?;
        instance.runs += 1;
        let is_out_of_memory = instance.store.data().is_out_of_memory();
        let is_worn = is_out_of_memory || instance.runs >= call.engine.max_runs();
        let kept = (answer.is_ok() && !is_worn).then_some(instance);
        let answer = answer.map_err(|fault| fault.outcome(&lines.tail()));
        Ok((kept, answer.and_then(|answer| produced(answer, is_out_of_memory, &bounds))))
    }

    async fn answer(&mut self, input: &str) -> wasmtime::Result<Answer> {
        let run = match self.run {
            Some(run) => run,
            None => {
                let instance = self.function.component.instantiate_async(&mut self.store).await?;
                *self.run.insert(instance.get_typed_func(&mut self.store, self.function.run)?)
            }
        };
        let (answer,) = run.call_async(&mut self.store, (input,)).await?;
        Ok(answer)
    }
}

fn produced(answer: Answer, is_out_of_memory: bool, bounds: &Bounds) -> Result<Produced, Outcome> {
    match answer {
        Ok(text) if text.len() > bounds.output_bytes => Err(bounds.output_too_large()),
        Ok(text) => Ok(Produced::Bytes(text.into_bytes())),
        Err(_) if is_out_of_memory => Err(bounds.memory_exceeded()),
        Err(reason) if reason.trim().is_empty() => {
            Err(Outcome::failed("failed", "the module failed, and did not say why"))
        }
        Err(mut reason) => {
            reason.truncate(reason.floor_char_boundary(MAX_REASON));
            Err(Outcome::failed("failed", reason))
        }
    }
}
