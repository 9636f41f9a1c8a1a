//! How an execution runs: one file for each way. The kinds are ours and closed, so they are an enum and a match.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::execution::{Job, Outcome, Runtime};
use crate::settings::LimitSettings;

mod api;
mod folder;
mod leftovers;
mod output;
mod process;
mod program;

pub use leftovers::adopt_orphans;

/// What every run needs.
#[derive(Debug)]
pub struct Context {
    /// `[limits]`.
    pub limits: LimitSettings,
    /// Where each run gets a working folder of its own.
    pub run_folder: PathBuf,
    /// The folders that programs may come from, in the order in which they are looked through.
    pub roots: Vec<PathBuf>,
    /// The `PATH` on which programs are looked up, and which they get.
    pub path: String,
    http: reqwest::Client,
}

impl Context {
    /// Makes the folder for the runs, and takes away what an earlier process left in it.
    ///
    /// # Errors
    /// One sentence: the folder cannot be made, or the certificates of this machine cannot be read.
    pub fn new(limits: LimitSettings, run_folder: PathBuf, roots: Vec<PathBuf>) -> Result<Self, String> {
        let place = run_folder.display().to_string();
        if let Err(error) = folder::remove_tree(&run_folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            // Every attempt has a folder of a new name, so that nothing of this comes into its way.
            tracing::warn!(place, %error, "what an earlier process left could not be removed");
        }
        std::fs::create_dir_all(&run_folder)
            .map_err(|error| format!("the folder {place} cannot be made: {error}"))?;
        let http = api::client().map_err(|error| format!("no HTTP client can be made: {error}"))?;
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into());
        Ok(Self { limits, run_folder, roots, path, http })
    }
}

/// The bounds of one run.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    timeout: Duration,
    output_bytes: usize,
}

impl Bounds {
    /// What the definition asks for, within what the configuration allows; a request can only shorten the time.
    fn of(job: &Job, limits: &LimitSettings) -> Self {
        let asked = &job.definition.spec.limits;
        let millis = Duration::from_millis;
        let own = asked.timeout.unwrap_or(millis(limits.timeout_ms)).min(millis(limits.max_timeout_ms));
        let bytes = asked.output_bytes.unwrap_or(limits.output_bytes).min(limits.max_output_bytes);
        Self {
            timeout: job.options.timeout.map_or(own, |shorter| shorter.min(own)),
            output_bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
        }
    }
}

/// Runs one execution to its outcome. When the future is dropped, what it started is ended.
#[tracing::instrument(name = "execution", skip_all, fields(uuid = %job.uuid))]
pub async fn run(job: Arc<Job>, attempt: u32, context: Arc<Context>) -> Outcome {
    let bounds = Bounds::of(&job, &context.limits);
    let produced = match job.runtime {
        Runtime::Binary | Runtime::Script => process::run(&job, attempt, &context, bounds).await,
        Runtime::Http => api::http(&job, &context.http, bounds).await,
        Runtime::Websocket => api::websocket(&job, bounds).await,
        Runtime::Container | Runtime::Python | Runtime::Wasm => {
            Err(Outcome::failed("unavailable", format!("the runtime {} is not available yet", job.runtime)))
        }
    };
    match produced.and_then(|produced| output::read(produced, &job.definition.spec)) {
        Ok(output) => Outcome::succeeded(output),
        Err(outcome) => outcome,
    }
}
