//! The audit log without a service: read from its store, and written to by who changes that.

use std::sync::Arc;

use super::{Door, Event, Link, Origin, Report, verify};
use crate::access::open_offline;
use crate::error::{Error, Result};
use crate::registry::{Store, StoreError};
use crate::settings::Settings;

/// The log of a store that no service uses.
#[derive(Debug)]
pub struct Offline {
    store: Store,
}

impl Offline {
    /// Opens the store of these settings.
    ///
    /// # Errors
    /// One sentence: it is in use, is not there, or cannot be opened.
    pub async fn open(settings: &Settings) -> Result<Self> {
        Ok(Self { store: open_offline(settings, false).await? })
    }

    /// Whether the chain holds, and whether `noted` is in it.
    ///
    /// # Errors
    /// The store erred.
    pub async fn verify(&self, noted: Option<&str>) -> Result<Report> {
        verify(&self.store, noted).await.map_err(unreadable)
    }

    /// Entries after that one, at most so many.
    ///
    /// # Errors
    /// The store erred.
    pub async fn entries(&self, after: u64, limit: u64) -> Result<Vec<Link>> {
        self.store.audit_entries(after, limit).await.map_err(unreadable)
    }

    /// Does to the store whatever a statement says, for a test that tampers with it.
    ///
    /// # Errors
    /// The store erred.
    #[cfg(feature = "faults")]
    pub async fn tamper(&self, statement: &str) -> Result<()> {
        self.store.tamper(statement).await.map_err(unreadable)
    }

    /// Closes the store.
    ///
    /// # Errors
    /// It did not let go of its folder.
    pub async fn close(self) -> Result<()> {
        self.store.close().await.map_err(|error| Error::unavailable(error.to_string()))
    }
}

/// Who works on a store without a service: whom this machine knows under this number.
pub fn offline_origin() -> Arc<Origin> {
    let principal = format!("uid:{}", nix::unistd::getuid()).into();
    Arc::new(Origin { principal, address: None, door: Door::Cli })
}

/// Adds to the chain of a store that no service uses.
///
/// # Errors
/// The store erred.
pub async fn append(store: &Store, event: &Event) -> std::result::Result<(), StoreError> {
    let link = Link::after(&store.audit_head().await?, event);
    let head = link.head();
    store.append_audit(&[link], &head, None).await
}

fn unreadable(error: StoreError) -> Error {
    Error::unavailable(format!("the audit log cannot be read: {error}"))
}
