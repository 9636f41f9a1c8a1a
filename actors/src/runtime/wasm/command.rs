//! WASI commands: what a program is to a machine. Each run has an instance of its own.

use wasmtime::{InstancePre, Store};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;

use super::Call;
use super::drive::{Drive, Guest};
use super::host::{self, Fault, Host};
use super::streams::{Log, Output, Stream};
use crate::execution::{Job, Outcome};
use crate::runtime::lines::Lines;
use crate::runtime::output::Produced;
use crate::runtime::stop::Stop;
use crate::spec::Stdin;

/// Runs `_start` of a module.
///
/// # Errors
/// The outcome, where there is no output.
pub async fn module(
    call: &Call<'_>,
    module: &InstancePre<Host>,
    lines: &mut Lines<'_>,
    stop: &mut Stop,
) -> Result<Produced, Outcome> {
    let (module, bounds) = (module.clone(), call.bounds);
    let guest = |mut store: Store<Host>| -> Guest<Result<(), Fault>> {
        Box::pin(async move {
            let ended = async {
                let instance = module.instantiate_async(&mut store).await?;
                let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
                start.call_async(&mut store, ()).await
            };
            let ended = ended.await;
            check_exit(ended, &store, &bounds)
        })
    };
    run(call, guest, lines, stop).await
}

/// Runs a component of the world `wasi:cli/command`.
///
/// # Errors
/// The outcome, where there is no output.
pub async fn component(
    call: &Call<'_>,
    component: &CommandPre<Host>,
    lines: &mut Lines<'_>,
    stop: &mut Stop,
) -> Result<Produced, Outcome> {
    let (component, bounds) = (component.clone(), call.bounds);
    let guest = |mut store: Store<Host>| -> Guest<Result<(), Fault>> {
        Box::pin(async move {
            let ended = async {
                let command = component.instantiate_async(&mut store).await?;
                command
                    .wasi_cli_run()
                    .call_run(&mut store)
                    .await?
                    .map_err(|()| wasmtime::Error::new(I32Exit(1)))
            };
            let ended = ended.await;
            check_exit(ended, &store, &bounds)
        })
    };
    run(call, guest, lines, stop).await
}

async fn run(
    call: &Call<'_>,
    guest: impl FnOnce(Store<Host>) -> Guest<Result<(), Fault>>,
    lines: &mut Lines<'_>,
    stop: &mut Stop,
) -> Result<Produced, Outcome> {
    let (output, log) = (Output::new(call.bounds.output_bytes), Log::default());
    let mut store = store(call, &output, &log)?;
    Host::begin(&mut store, &call.bounds);
    let (running, yielded) = (call.engine.running(), store.data().yielded());
    let drive = Drive { running, yielded, log, lines: &mut *lines, stop };
    let ended = drive.until_end(guest(store)).await?;
    // What it printed too much of is why it failed, where it did.
    let output = output.finish().map_err(|_| call.bounds.output_too_large())?;
    ended.map_err(|fault| fault.outcome(&lines.tail()))?;
    Ok(Produced::Bytes(output))
}

fn store(call: &Call<'_>, output: &Output, log: &Log) -> Result<Store<Host>, Outcome> {
    let job = call.job;
    let mut own = vec![("ORG_EXECUTION", job.uuid.to_string())];
    own.extend(job.traceparent.iter().map(|context| ("TRACEPARENT", context.clone())));
    let mut wasi = host::wasi(job, &call.folders, call.egress, own)?;
    wasi.arg(&job.definition.id);
    let args = &job.definition.spec.program.args;
    if !args.is_empty() {
        let input = job.input.members();
        for template in args {
            wasi.arg(template.render(&input));
        }
    }
    wasi.stdin(MemoryInputPipe::new(stdin(job))).stdout(Stream(output.clone())).stderr(Stream(log.clone()));
    Ok(Host::store(call.engine, wasi.build_p1(), &call.bounds))
}

fn stdin(job: &Job) -> String {
    match &job.definition.spec.program.stdin {
        Stdin::Json => job.input.text.clone(),
        Stdin::None => String::new(),
        Stdin::Text(template) => template.render(&job.input.members()),
    }
}

fn check_exit(
    ended: wasmtime::Result<()>,
    store: &Store<Host>,
    bounds: &crate::runtime::bounds::Bounds,
) -> Result<(), Fault> {
    let Err(error) = ended else { return Ok(()) };
    match error.downcast_ref::<I32Exit>() {
        Some(I32Exit(0)) => Ok(()),
        Some(I32Exit(_)) if store.data().is_out_of_memory() => Err(Fault::Outcome(bounds.memory_exceeded())),
        Some(I32Exit(status)) => {
            let message = format!("the module ended with exit status {status}");
            Err(Fault::Own { code: "exit_status", message })
        }
        None => Err(Fault::of(&error, store.data(), bounds)),
    }
}
