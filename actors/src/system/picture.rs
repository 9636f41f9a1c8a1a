//! What is alive, waits and runs at a moment: for `/system` and `/readyz`.

use std::collections::BTreeMap;
use std::time::Duration;

use ractor::{Message, RpcReplyPort};
use serde::Serialize;
use tokio::sync::oneshot;

use super::System;
use crate::execution::Runtime;
use crate::launcher::parse_statm;
use crate::measures::{self, Load};
use crate::root::{self, Child, Life};
use crate::runtime::Readiness;
use crate::{dispatcher, pool, registry, sessions};

/// How long `/system` waits for an actor to tell about itself.
const GLANCE: Duration = Duration::from_millis(500);

/// A live picture of the tree, for `/system`.
#[derive(Debug, Serialize)]
pub struct Picture {
    /// The children of the root.
    pub children: BTreeMap<Child, Life>,
    /// The registry, unless it is being replaced.
    pub registry: Option<registry::Stats>,
    /// The queue of each runtime.
    pub queues: Option<BTreeMap<Runtime, dispatcher::Stats>>,
    /// The executors of each runtime; a pool that is being replaced is null.
    pub pools: BTreeMap<Runtime, Option<pool::Stats>>,
    /// What can run on this machine, and why the rest cannot.
    pub readiness: Readiness,
    /// The connections.
    pub sessions: Option<usize>,
    /// Whether the service is shutting down.
    pub draining: bool,
}

impl System {
    /// What is alive, waits and runs at this moment.
    pub async fn picture(&self) -> Picture {
        let names = &self.inner.names;
        let children = self.glance(&names.root(), root::Msg::Tree).await;
        let mut pools = BTreeMap::new();
        for runtime in self.inner.settings.pools.keys() {
            pools.insert(*runtime, self.glance(&names.pool(*runtime), pool::Msg::Stats).await);
        }
        Picture {
            children: children.unwrap_or_default(),
            registry: self.glance(&names.registry(), registry::Msg::Stats).await,
            queues: self.glance(&names.dispatcher(), dispatcher::Msg::Stats).await,
            pools,
            readiness: self.readiness().await,
            sessions: self.glance(&names.sessions(), sessions::Msg::Count).await,
            draining: self.is_draining(),
        }
    }

    /// Brings the gauges of [`measures`] up to this moment.
    pub async fn measure(&self) {
        let picture = self.picture().await;
        for (runtime, pool) in &picture.pools {
            let queue =
                picture.queues.as_ref().and_then(|queues| queues.get(runtime)).cloned().unwrap_or_default();
            let load = Load {
                queued: queue.queued,
                oldest: Duration::from_millis(queue.oldest_ms),
                running: queue.running,
                executors: pool.as_ref().map_or(0, |pool| pool.executors),
                idle: queue.idle,
            };
            measures::load(*runtime, load);
            if let Some(pool) = pool {
                measures::restarts(format!("executor:{runtime}"), pool.failures);
            }
        }
        for (child, life) in &picture.children {
            measures::restarts(format!("{child:?}").to_lowercase(), life.restarts);
        }
        let store = self.inner.folders.data.join("store");
        let sized = tokio::task::spawn_blocking(move || (bytes_below(&store), resident_bytes())).await;
        let (store_bytes, resident) = sized.unwrap_or_default();
        measures::process(picture.sessions.unwrap_or(0), store_bytes, resident);
    }

    /// What can run on this machine at this moment.
    pub async fn readiness(&self) -> Readiness {
        self.inner.context.readiness(self.inner.settings.pools.keys().copied()).await
    }

    /// Why the service cannot take work at this moment, if it cannot.
    pub async fn why_not_ready(&self) -> Option<String> {
        if self.is_draining() {
            return Some("the service is shutting down".into());
        }
        let picture = self.picture().await;
        let dead =
            picture.children.iter().find(|(_, life)| !life.alive).map(|(child, _)| format!("{child:?}"));
        if dead.is_none() && picture.queues.is_none() {
            return Some("the executions of the last run are being read".into());
        }
        let is_recording = self.glance(&self.inner.names.dispatcher(), dispatcher::Msg::IsRecording).await;
        if is_recording == Some(false) {
            return Some("executions cannot be recorded at the moment".into());
        }
        match (dead, picture.registry) {
            (Some(child), _) => Some(format!("the {} is being restarted", child.to_lowercase())),
            (None, Some(stats)) if stats.ready => None,
            (None, _) => Some("the registry has no store at hand".into()),
        }
    }

    /// What an actor tells about itself, if it is there and does so soon.
    pub(super) async fn glance<M: Message, T: Send + 'static>(
        &self,
        name: &str,
        message: fn(RpcReplyPort<T>) -> M,
    ) -> Option<T> {
        let actor = self.inner.names.find::<M>(name)?;
        let (sender, answer) = oneshot::channel();
        actor.cast(message(sender.into())).ok()?;
        tokio::time::timeout(GLANCE, answer).await.ok()?.ok()
    }
}

fn bytes_below(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(about) if about.is_dir() => bytes_below(&entry.path()),
        Ok(about) => about.len(),
        // What vanishes meanwhile takes no room.
        Err(_) => 0,
    });
    sizes.sum()
}

/// The resident memory of this process.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    parse_statm(&statm).map_or(0, |(resident, _)| resident)
}
