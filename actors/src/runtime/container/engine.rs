//! The engine: where it is found, whether it answers, and that nothing is left on it. It may go and come back at any
//! time; each use finds it anew when it did.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{ListContainersOptions, PruneContainersOptions, RemoveContainerOptions};
use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard};

use super::image::Pulls;
use super::places::{answers, connect, places, usual_sockets};
use crate::execution::Outcome;
use crate::settings::ContainerSettings;

/// The label of every container of this program; its value tells the service.
pub const LABEL: &str = "org-executor";

/// How often something is tried that the engine refuses while it is busy with the same container.
const TRIES: u32 = 20;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// How often it is looked whether an earlier process left anything.
const ROUNDS: u32 = 10;

/// How long removing a container may take.
const REMOVAL: Duration = Duration::from_secs(10);

/// How often an engine that was gone is looked for, as long as it has containers that are to be removed.
const AGAIN: Duration = Duration::from_secs(1);

/// How long removing all of them may take when the service ends.
const CLOSING: Duration = Duration::from_secs(15);

/// How many containers are removed at one time.
const REMOVED_AT_ONCE: usize = 4;

/// The engine, shared by all executors.
#[derive(Clone, Debug)]
pub struct Engine(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: ContainerSettings,
    service: String,
    /// The engine that answered last.
    answered: Mutex<Option<Docker>>,
    /// Set once what an earlier process left is removed, which comes before the first container of this one.
    swept: OnceCell<()>,
    /// Containers that could not be removed since their engine was gone, with their engine.
    left: Mutex<Vec<(Docker, String)>>,
    /// Whether somebody looks for their engine.
    is_minded: AtomicBool,
    pulls: Pulls,
    /// Held while a container is made; true once the service ends and none is made any more.
    closed: RwLock<bool>,
}

impl Engine {
    /// The engine that these settings mean; `service` tells the containers of this service from another's.
    pub fn new(settings: &ContainerSettings, service: &str) -> Self {
        Self(Arc::new(Shared {
            settings: settings.clone(),
            service: service.to_owned(),
            answered: Mutex::default(),
            swept: OnceCell::new(),
            left: Mutex::default(),
            is_minded: AtomicBool::new(false),
            pulls: Pulls::default(),
            closed: RwLock::default(),
        }))
    }

    /// Whether containers can run now.
    ///
    /// # Errors
    /// One sentence: why not.
    pub async fn available(&self) -> Result<(), String> {
        self.reach().await.map(drop)
    }

    /// Removes the containers that an earlier process of this service left; where the engine cannot be reached,
    /// that is done when it is reached first.
    pub async fn sweep(&self) {
        if let Ok(docker) = self.reach().await {
            // Told in the log, and tried again before the first container.
            let _ = self.0.swept.get_or_try_init(|| self.sweep_on(&docker)).await;
        }
    }

    /// Removes all containers of this service, before it ends; none is made any more.
    pub async fn close(&self) {
        *self.0.closed.write().await = true;
        if !self.0.swept.initialized() {
            return;
        }
        let closing = async {
            // Told in the log; the next process looks again.
            match self.reach().await {
                Ok(docker) => drop(self.sweep_on(&docker).await),
                Err(why) => tracing::warn!(why, "containers may be left"),
            }
        };
        if tokio::time::timeout(CLOSING, closing).await.is_err() {
            tracing::warn!("the engine does not remove its containers in time, and they are left");
        }
    }

    /// The engine, for a container.
    ///
    /// # Errors
    /// The outcome, where it cannot be reached.
    pub async fn docker(&self) -> Result<Docker, Outcome> {
        let known = self.answered().clone();
        let docker = match known {
            Some(docker) => docker,
            None => self.reach().await.map_err(|why| {
                tracing::warn!(why, "containers cannot run");
                unavailable()
            })?,
        };
        self.0.swept.get_or_try_init(|| self.sweep_on(&docker)).await?;
        Ok(docker)
    }

    /// To be held while a container is made.
    ///
    /// # Errors
    /// The outcome, where the service is ending.
    pub async fn making(&self) -> Result<RwLockReadGuard<'_, bool>, Outcome> {
        let closed = self.0.closed.read().await;
        if *closed {
            return Err(Outcome::interrupted("the service is ending"));
        }
        Ok(closed)
    }

    /// The outcome of what the engine did not do. Its own words, in which there may be paths of this machine, go to
    /// the log.
    pub fn failed(&self, error: &Error, what: &str) -> Outcome {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                tracing::warn!(status_code, message, "the engine {what}");
                Outcome::failed(
                    "not_startable",
                    refusal(message).unwrap_or_else(|| format!("the engine {what}")),
                )
            }
            Error::JsonDataError { .. } | Error::JsonSerdeError { .. } => {
                tracing::warn!(%error, "the engine gave an answer that is not understood");
                Outcome::failed("engine_unavailable", "the engine's answer is not understood")
            }
            _ => {
                tracing::warn!(%error, "the engine {what}");
                *self.answered() = None;
                unavailable()
            }
        }
    }

    /// How long fetching an image may take.
    pub fn pull_timeout(&self) -> Duration {
        Duration::from_millis(self.0.settings.pull_timeout_ms)
    }

    /// How large a temporary file system is, in MiB.
    pub fn tmpfs_mb(&self) -> u64 {
        self.0.settings.tmpfs_mb
    }

    /// What stands in the label of each container.
    pub fn service(&self) -> &str {
        &self.0.service
    }

    /// The images that are being fetched.
    pub fn pulls(&self) -> &Pulls {
        &self.0.pulls
    }

    /// Removes a container, running or not. What cannot be removed now is removed when the engine is back.
    pub async fn remove(&self, docker: &Docker, name: &str) {
        let problem = match tokio::time::timeout(REMOVAL, remove(docker, name)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it took longer than {} s", REMOVAL.as_secs()),
        };
        tracing::warn!(problem, name, "a container could not be removed and is kept in mind");
        *self.answered() = None;
        self.left().push((docker.clone(), name.to_owned()));
        self.mind();
    }

    /// Looks for the engine until nothing is left on it.
    fn mind(&self) {
        let Ok(runtime) = Handle::try_current() else { return };
        if self.0.is_minded.swap(true, Ordering::AcqRel) {
            return;
        }
        let engine = self.clone();
        runtime.spawn(async move {
            while !engine.left().is_empty() {
                tokio::time::sleep(AGAIN).await;
                // Whoever needs it is told why it cannot be reached.
                drop(engine.reach().await);
            }
            engine.0.is_minded.store(false, Ordering::Release);
            if !engine.left().is_empty() {
                engine.mind();
            }
        });
    }

    /// Finds an engine that answers: first the one that did last.
    async fn reach(&self) -> Result<Docker, String> {
        let known = self.answered().clone();
        if let Some(docker) = known
            && answers(&docker).await
        {
            self.remove_left();
            return Ok(docker);
        }
        *self.answered() = None;
        let places = places(&self.0.settings.socket);
        if places.is_empty() {
            return Err(format!("no container engine was found at {}", usual_sockets().join(", ")));
        }
        for place in &places {
            if let Some(docker) = connect(place)
                && answers(&docker).await
            {
                *self.answered() = Some(docker.clone());
                self.remove_left();
                return Ok(docker);
            }
        }
        Err(format!("no container engine answers at {}", places.join(", ")))
    }

    fn remove_left(&self) {
        let left = std::mem::take(&mut *self.left());
        if left.is_empty() {
            return;
        }
        let engine = self.clone();
        tokio::spawn(async move {
            for (docker, name) in left {
                engine.remove(&docker, &name).await;
            }
        });
    }

    async fn sweep_on(&self, docker: &Docker) -> Result<(), Outcome> {
        let label = format!("{LABEL}={}", self.0.service);
        let filters = Some([("label".to_owned(), vec![label])].into());
        for _ in 0..ROUNDS {
            let options = ListContainersOptions { all: true, filters: filters.clone(), ..Default::default() };
            match docker.list_containers(Some(options)).await {
                Ok(found) if found.is_empty() => return Ok(()),
                Ok(found) => {
                    tracing::info!(containers = found.len(), "removing containers that are left");
                    let ids = futures_util::stream::iter(found.into_iter().filter_map(|found| found.id));
                    ids.for_each_concurrent(REMOVED_AT_ONCE, async |id| self.remove(docker, &id).await).await;
                }
                Err(Error::JsonDataError { .. }) => {
                    // Podman tells of a container that has just ended with a word that bollard does not know.
                    let options = PruneContainersOptions { filters: filters.clone() };
                    let _ = docker.prune_containers(Some(options)).await;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(self.failed(&error, "could not list its containers")),
            }
        }
        tracing::error!("containers that are left could not be removed");
        Ok(())
    }

    fn answered(&self) -> MutexGuard<'_, Option<Docker>> {
        self.0.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self) -> MutexGuard<'_, Vec<(Docker, String)>> {
        self.0.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn remove(docker: &Docker, name: &str) -> Result<(), Error> {
    let mut tries = 1..TRIES;
    loop {
        let options = RemoveContainerOptions { force: true, v: true, ..RemoveContainerOptions::default() };
        match docker.remove_container(name, Some(options)).await {
            Ok(()) | Err(Error::DockerResponseServerError { status_code: 404, .. }) => return Ok(()),
            // Another request is at the same container.
            Err(Error::DockerResponseServerError { .. }) if tries.next().is_some() => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn unavailable() -> Outcome {
    Outcome::failed("engine_unavailable", "the container engine cannot be reached")
}

/// What the definition's author can do something about, told without the engine's own words.
fn refusal(message: &str) -> Option<String> {
    let has = |words: &str| message.contains(words);
    // What an OCI runtime puts around the name of the program: exec: "name": …
    let program = || message.split("exec: \"").nth(1).and_then(|rest| rest.split('"').next());
    let of = |what: &str| program().map(|program| format!("the image has no program {program:?}{what}"));
    if has("executable file not found") || has("no such file or directory") {
        of("")
    } else if has("chdir to cwd") {
        Some("nobody, the user of a container, may not enter the image's working folder".into())
    } else if has("permission denied") || has("is a directory") {
        of(" that can be executed")
    } else if has("network not found") || (has("network") && has("not found")) {
        Some("the engine has no network of that name".into())
    } else if has("rlimit") {
        Some("the engine may not set the limits of this container".into())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_without_the_engines_own_words() {
        for (message, told) in [
            (
                "runc: runc create failed: exec: \"nope\": executable file not found in $PATH: OCI runtime",
                Some("the image has no program \"nope\""),
            ),
            (
                "unable to start container process: exec: \"/x/y\": stat /x/y: no such file or directory: unknown",
                Some("the image has no program \"/x/y\""),
            ),
            (
                "exec: \"/etc/passwd\": permission denied: OCI permission denied",
                Some("the image has no program \"/etc/passwd\" that can be executed"),
            ),
            (
                "container create: unable to find network with name or ID nonet: network not found",
                Some("the engine has no network of that name"),
            ),
            ("open /var/lib/containers/storage/x: no such file or directory", None),
        ] {
            assert_eq!(refusal(message).as_deref(), told, "{message}");
        }
    }
}
