//! What is alive, waits and runs at a moment: for `/system` and `/readyz`.

use std::collections::BTreeMap;
use std::time::Duration;

use ractor::{Message, RpcReplyPort};
use serde::Serialize;
use tokio::sync::oneshot;

use super::System;
use crate::execution::Runtime;
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
