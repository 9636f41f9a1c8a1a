//! The orderly end: no new work, a grace for what runs, then the leaves of the tree before their parents.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ractor::Message;
use serde_json::json;

use super::System;
use crate::audit::{self, Action, Origin};
use crate::error::{Error, Result};
use crate::{dispatcher, pool, pools, registry, root, sessions};

/// How long a stopping actor may take before it is left to the end of the process.
const STOP: Duration = Duration::from_secs(2);

/// How long the engine of the containers may take to remove those that are left. It removes one after the other, a few
/// in a second; what is left then goes at the next start.
const REMOVAL: Duration = Duration::from_secs(20);

impl System {
    /// Ends in order: no new work, what waits is told, what runs has the grace, then the leaves of the tree are
    /// stopped before their parents, and the store is closed.
    ///
    /// # Errors
    /// When the store could not be closed.
    pub async fn drain(&self) -> Result<()> {
        self.inner.draining.store(true, Ordering::Release);
        let names = &self.inner.names;
        names.tell(&names.root(), root::Msg::Stopping);
        let grace = Duration::from_millis(self.inner.settings.dispatcher.grace_ms);
        let dispatcher = names.dispatcher();
        let quiet = self.call::<dispatcher::Msg, _>(&dispatcher, dispatcher::Msg::Drain);
        if tokio::time::timeout(grace, quiet).await.is_err() {
            tracing::warn!(grace_ms = grace.as_millis(), "the grace is over, and what still runs is ended");
            names.tell(&names.dispatcher(), dispatcher::Msg::Interrupt);
            // It answers once these ends are on record, and told.
            let recorded = self.call::<dispatcher::Msg, _>(&dispatcher, dispatcher::Msg::Drain);
            if tokio::time::timeout(STOP, recorded).await.is_err() {
                tracing::warn!("what was ended is not on record in time");
            }
        }
        self.wait_for_sessions().await;
        self.stop::<sessions::Msg>(&names.sessions()).await;
        for runtime in self.inner.settings.pools.keys() {
            self.stop::<pool::Msg>(&names.pool(*runtime)).await;
        }
        self.stop::<pools::Msg>(&names.pools()).await;
        if tokio::time::timeout(REMOVAL, self.inner.context.close()).await.is_err() {
            tracing::warn!("the engine of the containers did not answer in time");
        }
        self.stop::<dispatcher::Msg>(&names.dispatcher()).await;
        self.stop::<registry::Msg>(&names.registry()).await;
        self.record_end().await;
        self.stop::<audit::Msg>(&names.audit()).await;
        self.stop::<root::Msg>(&names.root()).await;
        let store = tokio::time::timeout(STOP, self.inner.slot.lock()).await;
        let store = store.map_err(|_| Error::unavailable("the store is still in use"))?;
        store.close().await.map_err(|error| Error::unavailable(error.to_string()))
    }

    /// The end of the service is the last entry of its audit log.
    async fn record_end(&self) {
        let service = Arc::new(Origin::service());
        self.inner.trail.done(&service, Action::ServiceStop, "service", json!({}));
        let written = tokio::time::timeout(STOP, self.flush_audit()).await;
        if !matches!(written, Ok(Ok(()))) {
            let lost = self.inner.trail.waiting();
            tracing::error!(lost, "the last entries of the audit log could not be written");
        }
    }

    /// Sessions end by themselves once their last frame is out; their clients get a moment to take it.
    async fn wait_for_sessions(&self) {
        let deadline = tokio::time::Instant::now() + STOP;
        while tokio::time::Instant::now() < deadline {
            match self.glance(&self.inner.names.sessions(), sessions::Msg::Count).await {
                Some(0) | None => return,
                Some(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    async fn stop<M: Message>(&self, name: &str) {
        let Some(actor) = self.inner.names.find::<M>(name) else { return };
        actor.stop_children_and_wait(None, Some(STOP)).await;
        if actor.stop_and_wait(None, Some(STOP)).await.is_err() {
            tracing::warn!(name, "an actor did not stop in time");
        }
    }
}
