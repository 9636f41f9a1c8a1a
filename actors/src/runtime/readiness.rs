//! What can run on this machine at this moment, and why the rest cannot: for `/system` and `/readyz`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Mutex;

use super::Context;
use super::launched::Launcher;
use crate::execution::Runtime;
use crate::settings::Containment;

/// How long an answer holds: asking starts a process and calls the engine of the containers.
const HOLDS: Duration = Duration::from_secs(1);

/// What can run.
#[derive(Clone, Debug, Serialize)]
pub struct Readiness {
    /// Each configured runtime.
    pub runtimes: BTreeMap<Runtime, Availability>,
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

/// The last answer. How programs are kept together does not change while the service lives.
#[derive(Debug, Default)]
pub struct Cache {
    last: Mutex<Option<(Instant, Readiness)>>,
    containment: Mutex<Option<Containment>>,
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
        let containment = self.containment().await;
        let mut available = BTreeMap::new();
        for runtime in runtimes {
            available.insert(runtime, self.available(runtime, &containment).await.into());
        }
        let containment = containment.ok();
        let holds_fork_bombs = containment.is_some_and(|level| level != Containment::Subreaper);
        let readiness = Readiness { runtimes: available, containment, holds_fork_bombs };
        *last = Some((Instant::now(), readiness.clone()));
        readiness
    }

    async fn available(
        &self,
        runtime: Runtime,
        containment: &Result<Containment, String>,
    ) -> Result<(), String> {
        match runtime {
            Runtime::Binary | Runtime::Script => containment.clone().map(drop),
            Runtime::Python => {
                containment.clone()?;
                self.python.environments.available().await.map(drop)
            }
            Runtime::Container => self.containers.available().await,
            Runtime::Wasm | Runtime::Http | Runtime::Websocket | Runtime::Mcp => Ok(()),
        }
    }

    /// How programs are kept together here, found out by starting a launcher.
    async fn containment(&self) -> Result<Containment, String> {
        let mut known = self.readiness.containment.lock().await;
        if known.is_none() {
            *known = Some(Launcher::new(self.launcher.clone()).containment().await?);
        }
        Ok(known.unwrap_or(Containment::Subreaper))
    }
}
