//! What is recorded of the service as a whole, and how its audit log is read.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::System;
use crate::audit::{self, Action, Door, Event, Origin, Page, PageRequest, Report};
use crate::error::{Error, Result};

/// How long who reads the log waits for what happened until then to be written.
const FLUSH: Duration = Duration::from_secs(5);

impl System {
    /// Records what the configuration was changed to without a restart, or why it was not.
    pub fn record_reload(&self, outcome: std::result::Result<&[&str], &str>) {
        let service = Arc::new(Origin::service());
        let event = match outcome {
            Ok(changed) => {
                Event::done(service, Action::ServiceReload, "service", json!({ "changed": changed }))
            }
            Err(problem) => {
                let error = Error::invalid(problem);
                Event::refused(service, Action::ServiceReload, "service", error.code(), &error)
            }
        };
        self.inner.trail.add(event);
    }

    /// Records that somebody was not let in, before it was looked who that is.
    pub fn record_shut(&self, address: IpAddr, door: Door, error: &Error) {
        let stranger = Arc::new(Origin::stranger(address, door));
        self.inner.trail.refused(&stranger, Action::Enter, door.name(), error);
    }

    /// Waits until what happened until now is written.
    pub(super) async fn flush_audit(&self) -> Result<()> {
        self.call::<audit::Msg, _>(&self.inner.names.audit(), audit::Msg::Flush).await
    }

    /// The same, but not for ever: what is on disk can be read while nothing can be written.
    async fn catch_up(&self) {
        if !matches!(tokio::time::timeout(FLUSH, self.flush_audit()).await, Ok(Ok(()))) {
            tracing::warn!("the audit log is read without its last entries, which cannot be written yet");
        }
    }

    /// Entries of the audit log; those of the last moment too where it is read from its beginning.
    ///
    /// # Errors
    /// `overloaded`, `unavailable`.
    pub(super) async fn audit(&self, page: PageRequest, is_first: bool) -> Result<Page> {
        let permit = self.inner.audit_admission.at_once()?;
        if is_first {
            self.catch_up().await;
        }
        let read = |reply| audit::Msg::Read { page, permit, reply };
        self.call::<audit::Msg, _>(&self.inner.names.audit(), read).await?
    }

    /// Whether the audit log is whole, and whether a hash that was noted earlier is in it.
    ///
    /// # Errors
    /// `invalid` where that is no hash; `overloaded`, `unavailable`.
    pub(super) async fn verify_audit(&self, noted: Option<String>) -> Result<Report> {
        if noted.as_deref().is_some_and(|noted| !audit::is_hash(noted)) {
            return Err(Error::invalid("`head` is no hash of 64 hexadecimal digits").at("head"));
        }
        let permit = self.inner.audit_admission.at_once()?;
        self.catch_up().await;
        let verify = |reply| audit::Msg::Verify { noted, permit, reply };
        self.call::<audit::Msg, _>(&self.inner.names.audit(), verify).await?
    }
}
