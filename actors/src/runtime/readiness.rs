//! What can run on this machine at this moment, and why the rest cannot: for `/system` and `/readyz`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Mutex;

use super::Context;
use super::sandbox::Held;
use crate::execution::Runtime;
use crate::settings::Containment;

/// How long an answer holds: asking may start a process and calls the engine of the containers.
const HOLDS: Duration = Duration::from_secs(1);

/// What can run.
#[derive(Clone, Debug, Serialize)]
pub struct Readiness {
    /// Each configured runtime.
    pub runtimes: BTreeMap<Runtime, Availability>,
    /// How far programs are kept apart from this machine and from each other; null where none can be started.
    pub sandbox: Option<Held>,
    /// How programs are kept together so that all of them can be ended; null where none can be started.
    pub containment: Option<Containment>,
    /// Whether also those are ended that fork faster than they are found.
    pub holds_fork_bombs: bool,
}

/// Whether a runtime can run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Availability {
    /// Whether it can.
    pub available: bool,
    /// Why it cannot, in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The last answer.
#[derive(Debug, Default)]
pub struct Cache {
    last: Mutex<Option<(Instant, Readiness)>>,
}

impl From<Result<(), String>> for Availability {
    fn from(result: Result<(), String>) -> Self {
        Self { available: result.is_ok(), reason: result.err() }
    }
}

impl Context {
    /// What can run now, of these runtimes. Asked often, it is looked up once a second.
    pub async fn readiness(&self, runtimes: impl IntoIterator<Item = Runtime>) -> Readiness {
        let mut last = self.readiness.last.lock().await;
        if let Some((asked, readiness)) = &*last
            && asked.elapsed() < HOLDS
        {
            return readiness.clone();
        }
        let sandbox = self.sandbox.held().cloned().map_err(str::to_owned);
        let mut available = BTreeMap::new();
        for runtime in runtimes {
            available.insert(runtime, self.available(runtime, &sandbox).await.into());
        }
        let sandbox = sandbox.ok();
        let containment = sandbox.as_ref().map(|held| held.containment);
        let holds_fork_bombs = containment.is_some_and(|level| level != Containment::Subreaper);
        let readiness = Readiness { runtimes: available, sandbox, containment, holds_fork_bombs };
        *last = Some((Instant::now(), readiness.clone()));
        readiness
    }

    async fn available(&self, runtime: Runtime, sandbox: &Result<Held, String>) -> Result<(), String> {
        match runtime {
            Runtime::Binary | Runtime::Script => sandbox.clone().map(drop),
            Runtime::Python => {
                sandbox.clone()?;
                self.python.environments.available().await.map(drop)
            }
            Runtime::Container => self.containers.available().await,
            Runtime::Wasm | Runtime::Http | Runtime::Websocket | Runtime::Mcp => Ok(()),
        }
    }
}
