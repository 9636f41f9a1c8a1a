//! How actors find each other: by name at each message, so that no reference goes stale across a restart.
//!
//! Names are global in the process, so each system puts a prefix of its own before them.

use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorRef, Message};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::execution::Runtime;

/// How long an actor that is being replaced is awaited.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(1);

/// The names of one system's actors.
#[derive(Clone, Debug)]
pub struct Names {
    prefix: Arc<str>,
}

impl Names {
    /// Names that no other system in this process has.
    pub fn unique() -> Self {
        Self { prefix: format!("org-{}", Uuid::now_v7().simple()).into() }
    }

    /// The root supervisor.
    pub fn root(&self) -> String {
        format!("{}/root", self.prefix)
    }

    /// The registry.
    pub fn registry(&self) -> String {
        format!("{}/registry", self.prefix)
    }

    /// The journal.
    pub fn journal(&self) -> String {
        format!("{}/registry/journal", self.prefix)
    }

    /// The writer of the audit log.
    pub fn audit(&self) -> String {
        format!("{}/audit", self.prefix)
    }

    /// The dispatcher.
    pub fn dispatcher(&self) -> String {
        format!("{}/dispatcher", self.prefix)
    }

    /// The supervisor of the pools.
    pub fn pools(&self) -> String {
        format!("{}/pools", self.prefix)
    }

    /// The pool of one runtime.
    pub fn pool(&self, runtime: Runtime) -> String {
        format!("{}/pool/{runtime}", self.prefix)
    }

    /// The supervisor of the sessions.
    pub fn sessions(&self) -> String {
        format!("{}/sessions", self.prefix)
    }

    /// The actor of that name, if it is there now.
    pub fn find<M: Message>(&self, name: &str) -> Option<ActorRef<M>> {
        ActorRef::<M>::where_is(name)
    }

    /// Sends to the actor of that name if it is there; if it is being replaced, its successor learns what it
    /// needs by other ways.
    pub fn tell<M: Message>(&self, name: &str, message: M) {
        if self.find::<M>(name).is_none_or(|actor| actor.cast(message).is_err()) {
            tracing::debug!(name, "a message found nobody");
        }
    }

    /// The actor of that name; one that is being replaced is awaited for a second.
    ///
    /// # Errors
    /// `unavailable` after that.
    pub async fn wait_for<M: Message>(&self, name: &str) -> Result<ActorRef<M>> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(actor) = self.find(name) {
                return Ok(actor);
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(Error::unavailable("a part of the service is being restarted"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
