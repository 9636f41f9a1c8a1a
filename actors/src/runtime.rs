//! How an execution runs: one file for each way. The kinds are ours and closed, so they are an enum and a match.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use uuid::Uuid;

use crate::artifacts::{Artifacts, Lease, Pin, Problem};
use crate::egress::Egress;
use crate::execution::{Job, Outcome, Runtime};
use crate::secrets::Secrets;
use crate::settings::{Level, LimitSettings, Settings};

mod api;
mod bounds;
mod container;
mod files;
mod folder;
mod launched;
mod leftovers;
mod lines;
mod mcp;
mod output;
mod process;
mod program;
mod python;
mod readiness;
mod sandbox;
mod stop;
mod wasm;

pub use launched::LauncherCommand;
pub use leftovers::adopt_orphans;
pub use readiness::Readiness;
pub use wasm::compiler;

use bounds::Bounds;
use folder::Folder;
use lines::Lines;
use output::Produced;
use python::Python;
use sandbox::Sandbox;
use stop::Stop;
use wasm::compiler::Compiler;

/// What every run needs.
#[derive(Debug)]
pub struct Context {
    /// `[limits]`.
    pub limits: LimitSettings,
    /// Where each run gets a working folder of its own.
    pub run_folder: PathBuf,
    /// The folders that sources may come from, in the order in which they are looked through.
    pub roots: Vec<PathBuf>,
    /// The `PATH` on which programs are looked up, and which they get.
    pub path: String,
    /// Where programs come from.
    pub artifacts: Artifacts,
    launcher: LauncherCommand,
    sandbox: Arc<Sandbox>,
    /// The way out.
    pub egress: Egress,
    /// What executions are given by name.
    pub secrets: Secrets,
    containers: container::Engine,
    python: Python,
    wasm: wasm::Engine,
    readiness: readiness::Cache,
}

/// The folders of a context.
#[derive(Debug)]
pub struct Places {
    /// Where the service keeps what is not in its store.
    pub data: PathBuf,
    /// Where each run gets a working folder of its own.
    pub run: PathBuf,
    /// The folders that sources may come from, in the order in which they are looked through.
    pub roots: Vec<PathBuf>,
}

impl Context {
    /// Makes the folder for the runs, and takes away what an earlier process left in it.
    ///
    /// # Errors
    /// One sentence: a folder cannot be made, or the certificates of this machine cannot be read.
    pub fn new(settings: &Settings, places: Places, launcher: Vec<OsString>) -> Result<Self, String> {
        let Places { data, run, roots } = places;
        let place = run.display().to_string();
        if let Err(error) = folder::remove_left(&run)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            // Every attempt has a folder of a new name, so that nothing of this comes into its way.
            tracing::warn!(place, %error, "what an earlier process left could not be removed");
        }
        std::fs::create_dir_all(&run)
            .map_err(|error| format!("the folder {place} cannot be made: {error}"))?;
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into());
        let limits = settings.limits.clone();
        let secrets = Secrets::new(&settings.secrets)?;
        secrets.guard();
        let egress = Egress::new(settings.egress.allow.clone())?;
        let artifact_folder = data.join("artifacts");
        let artifacts =
            Artifacts::open(&settings.artifacts, artifact_folder.clone(), roots.clone(), egress.clone())?;
        let python = Python::new(&settings.python, data.join("python"), &path, secrets.hidden())
            .map_err(|error| format!("the folder for Python cannot be made: {error}"))?;
        let mut kept = Vec::new();
        for folder in [artifact_folder, data.join("python")] {
            // Programs run as other users, and read what is theirs in here.
            let found = std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755))
                .and_then(|()| folder.canonicalize());
            kept.push(found.map_err(|error| format!("the folder {} is gone: {error}", folder.display()))?);
        }
        let sandbox = Arc::new(Sandbox::new(settings, &path, kept));
        let run_folder =
            run.canonicalize().map_err(|error| format!("the folder {place} is gone: {error}"))?;
        let launcher = LauncherCommand { program: launcher, sandbox: sandbox.clone(), is_sandboxed: true };
        files::allow();
        let compiler = Compiler::new(&launcher, run_folder.clone(), &settings.wasm);
        let executors = settings.pools.get(&Runtime::Wasm).map_or(1, |pool| pool.max);
        let wasm = wasm::Engine::new(&settings.wasm, &limits, executors, &data.join("wasm"), Some(compiler))?;
        Ok(Self {
            artifacts,
            containers: container::Engine::new(&settings.containers, &instance(&data)?),
            python,
            wasm,
            launcher,
            sandbox,
            egress,
            secrets,
            readiness: readiness::Cache::default(),
            limits,
            run_folder,
            roots,
            path,
        })
    }

    /// Finds out how far programs are kept apart here; before the first of them runs.
    ///
    /// # Errors
    /// One sentence: the level that was asked for by its name cannot be had.
    pub async fn settle_sandbox(&self) -> Result<(), String> {
        self.sandbox.settle(&self.launcher, &self.run_folder).await
    }

    /// The level of the sandbox that programs run in; none where none can be started.
    pub fn sandbox_level(&self) -> Option<Level> {
        self.sandbox.level()
    }

    /// Whether a job's program has the machine's network.
    fn network(&self, job: &Job) -> Result<bool, Outcome> {
        let asked = job.definition.spec.program.network;
        self.sandbox.network(asked).map_err(|problem| Outcome::failed("not_startable", problem))
    }

    /// Removes what an earlier process of this service left outside its folders.
    pub async fn sweep(&self) {
        self.containers.sweep().await;
    }

    /// Removes what executors that have ended may have left outside the folders, before the service ends.
    pub async fn close(&self) {
        self.containers.close().await;
    }

    /// The artifact of a job: what was pinned at its registration, else what its source has now, from then on.
    async fn artifact(&self, job: &Job) -> Result<Lease, Outcome> {
        let failed = |problem: Problem| Outcome::failed("not_startable", problem.to_string());
        let definition = &job.definition;
        let spec = &definition.spec.program;
        let no_source = || Outcome::failed("not_startable", "the definition has no `source_url`");
        let source = spec.source.as_deref().ok_or_else(no_source)?;
        if definition.pin.get().is_none() {
            let pin = Box::pin(self.artifacts.pin(source, spec.sha256.as_deref())).await.map_err(failed)?;
            tracing::info!(id = definition.id, pin = pin.as_str(), "pinned at its first run");
            // Another run may have been first, with the same or a newer artifact: the first one stays.
            let _ = definition.pin.set(pin);
        }
        let pin: &Pin = definition.pin.get().ok_or_else(no_source)?;
        self.artifacts.lease(source, pin).await.map_err(failed)
    }
}

/// What tells the containers of this service from those of another on the same engine: a name that stays with its
/// data. A copy of the folder has another inode, and is another service.
fn instance(data: &Path) -> Result<String, String> {
    let file = data.join("instance");
    let unwritable = |error: std::io::Error| format!("the data folder cannot be written: {error}");
    let inode = std::fs::metadata(data).map_err(unwritable)?.ino();
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let (name, of) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let name = Uuid::parse_str(name).ok().filter(|_| of.is_empty() || of == inode.to_string());
    if let Some(name) = name
        && !of.is_empty()
    {
        return Ok(name.to_string());
    }
    let name = name.unwrap_or_else(Uuid::now_v7).to_string();
    let write = || {
        let part = data.join("instance.part");
        let mut written = std::fs::File::create(&part)?;
        written.write_all(format!("{name} {inode}").as_bytes())?;
        written.sync_all()?;
        std::fs::rename(&part, &file)
    };
    write().map_err(unwritable)?;
    Ok(name)
}

/// What an executor keeps from one run to the next. When it is dropped, what it holds is ended.
#[derive(Debug)]
pub enum Worker {
    /// Nothing: each run is a request to somebody else.
    None,
    /// A launcher, through which each program is started, and a working folder.
    Program(process::Warm),
    /// A container.
    Container(container::Warm),
    /// An interpreter.
    Python(python::Warm),
    /// An instance.
    Wasm(wasm::Warm),
    /// A connection to an MCP server, which may be a program.
    Mcp(mcp::Warm),
}

impl Worker {
    /// A worker that holds nothing yet.
    pub fn new(runtime: Runtime, context: &Context) -> Self {
        match runtime {
            Runtime::Binary | Runtime::Script => Self::Program(process::Warm::new(context.launcher.clone())),
            Runtime::Container => Self::Container(container::Warm::default()),
            Runtime::Python => Self::Python(python::Warm::new(context.launcher.clone())),
            Runtime::Wasm => Self::Wasm(wasm::Warm::default()),
            Runtime::Mcp => Self::Mcp(mcp::Warm::new(context.launcher.clone())),
            Runtime::Http | Runtime::Websocket => Self::None,
        }
    }

    /// Waits until it has a working folder, where it needs one: on a full disk nothing begins, and nothing fails.
    async fn settle(&mut self, context: &Context) {
        let folder = match self {
            Self::Program(warm) => warm.folder(),
            Self::Python(warm) => warm.folder(),
            Self::None | Self::Container(_) | Self::Wasm(_) | Self::Mcp(_) => return,
        };
        if folder.is_none() {
            *folder = Some(Folder::made(&context.run_folder).await);
        }
    }
}

/// Runs one execution to its outcome. When the future is dropped, what it started is ended.
#[tracing::instrument(name = "execution", skip_all, fields(uuid = %job.uuid))]
pub async fn run(
    worker: &mut Worker,
    job: &Job,
    attempt: u32,
    context: &Context,
    mut cancelled: watch::Receiver<bool>,
) -> Outcome {
    tokio::select! {
        biased;
        () = worker.settle(context) => {}
        _ = cancelled.wait_for(|is_cancelled| *is_cancelled) => return Outcome::cancelled(),
    }
    let bounds = Bounds::of(job, &context.limits);
    let mut stop = Stop::new(bounds.timeout, cancelled);
    if job.definition.spec.secrets.is_empty() {
        return ended(worker, job, attempt, context, bounds, &mut stop).await;
    }
    match stop.or(Box::pin(context.secrets.grant(&job.definition))).await {
        Ok(secrets) => {
            // A job of this run's own: what waits or has ended holds no secret.
            let job = Job { secrets, ..job.clone() };
            job.secrets.redacted(ended(worker, &job, attempt, context, bounds, &mut stop).await)
        }
        Err(outcome) => outcome,
    }
}

/// How it ends, in the words of whatever ran.
async fn ended(
    worker: &mut Worker,
    job: &Job,
    attempt: u32,
    context: &Context,
    bounds: Bounds,
    stop: &mut Stop,
) -> Outcome {
    // In boxes, but for the shortest: else the state of a run has room for the largest of them, and each run's is moved
    // and cleared.
    let produced = match worker {
        Worker::Program(warm) => Box::pin(process::run(warm, job, context, bounds, stop)).await,
        Worker::Python(warm) => Box::pin(warm.run(job, attempt, context, bounds, stop)).await,
        Worker::Container(warm) => {
            let lines = Lines::of(job, context);
            let containers = &context.containers;
            Box::pin(container::run(warm, job, attempt, containers, lines, bounds, stop)).await
        }
        Worker::Wasm(warm) => run_wasm(warm, job, context, bounds, stop).await,
        Worker::Mcp(warm) => Box::pin(warm.run(job, context, bounds, stop)).await,
        Worker::None if job.runtime == Runtime::Http => {
            stop.or(Box::pin(api::http(job, &context.egress, bounds))).await
        }
        Worker::None => stop.or(Box::pin(api::websocket(job, &context.egress, bounds))).await,
    };
    match produced.and_then(|produced| output::read(produced, &job.definition.spec)) {
        Ok(output) => Outcome::succeeded(output),
        Err(outcome) => outcome,
    }
}

async fn run_wasm(
    warm: &mut wasm::Warm,
    job: &Job,
    context: &Context,
    bounds: Bounds,
    stop: &mut Stop,
) -> Result<Produced, Outcome> {
    let failed = |problem: String| Outcome::failed("not_startable", problem);
    let lease = stop.or(context.artifact(job)).await?;
    let file = lease.file(job.definition.spec.program.entrypoint.as_deref()).map_err(failed)?;
    let folders = job.definition.spec.grants.folders.iter().map(|(guest, host)| {
        crate::artifacts::under_roots(host, &context.roots)
            .filter(|folder| folder.is_dir())
            .map(|folder| (folder, guest.clone()))
            .ok_or_else(|| failed(format!("the folder {host:?} is no folder under an allowed root")))
    });
    let folders = folders.collect::<Result<Vec<_>, _>>()?;
    if job.definition.spec.grants.network {
        context.sandbox.check_network().map_err(failed)?;
    }
    let (lines, egress) = (Lines::of(job, context), &context.egress);
    wasm::run(warm, job, &context.wasm, &file, lease.pin().as_str(), lines, bounds, stop, folders, egress)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_service_stays_with_its_data_and_is_not_that_of_a_copy() {
        let folders = tempfile::tempdir().expect("a folder");
        let folder = |name: &str| {
            let folder = folders.path().join(name);
            std::fs::create_dir_all(&folder).expect("made");
            folder
        };
        let (first, copy) = (folder("first"), folder("copy"));
        let name = instance(&first).expect("made");
        assert_eq!(instance(&first), Ok(name.clone()));
        std::fs::copy(first.join("instance"), copy.join("instance")).expect("copied");
        let other = instance(&copy).expect("another");
        assert_ne!(other, name);
        assert_eq!((instance(&copy), instance(&first)), (Ok(other), Ok(name.clone())));
        // As it was written before: a name alone. What is none, as after a loss of power, is no name of all containers.
        std::fs::write(first.join("instance"), &name).expect("written");
        assert_eq!((instance(&first), instance(&first)), (Ok(name.clone()), Ok(name.clone())));
        for text in ["", " ", "*", "no name 1"] {
            std::fs::write(first.join("instance"), text).expect("written");
            let new = instance(&first).expect("a new one");
            assert!(Uuid::parse_str(&new).is_ok() && new != name, "{new}");
        }
    }
}
