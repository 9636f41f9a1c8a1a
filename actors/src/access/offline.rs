//! Keys without a service: whoever may write the store may make one.

use std::fmt;

use super::{About, Issued, Issuers, KeyId, Keyring, NewKey};
use crate::error::{Error, Result};
use crate::registry::{Location, Memory, Store};
use crate::settings::Settings;

/// The keys of a store that no service uses.
pub struct Offline {
    store: Store,
    keyring: Keyring,
}

impl fmt::Debug for Offline {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.keyring.fmt(formatter)
    }
}

impl Offline {
    /// Opens the store of these settings.
    ///
    /// # Errors
    /// One sentence: it is in use, or cannot be opened.
    pub async fn open(settings: &Settings) -> Result<Self> {
        let location = Location::parse(&settings.store.url);
        let location = location.filter(|location| *location != Location::Memory);
        let location =
            location.ok_or_else(|| Error::invalid("`store.url` is no folder, so that no key would last"))?;
        let unusable = |error: crate::registry::StoreError| Error::unavailable(error.to_string());
        let store = Store::open(location, Memory(settings.store.memory_mb)).await.map_err(unusable)?;
        let issuers = Issuers::load(&settings.auth.issuers).map_err(Error::unavailable)?;
        let keyring = Keyring::new(store.keys().await.map_err(unusable)?, issuers, true);
        Ok(Self { store, keyring })
    }

    /// What is known of all keys, the oldest first.
    pub fn all(&self) -> Vec<About> {
        self.keyring.all()
    }

    /// Makes a key.
    ///
    /// # Errors
    /// As for [`Keyring::create`].
    pub async fn create(&self, new: NewKey) -> Result<Issued> {
        self.keyring.create(&self.store, new).await
    }

    /// Revokes a key.
    ///
    /// # Errors
    /// As for [`Keyring::revoke`].
    pub async fn revoke(&self, id: KeyId) -> Result<About> {
        self.keyring.revoke(&self.store, id).await
    }

    /// Closes the store.
    ///
    /// # Errors
    /// It did not let go of its folder.
    pub async fn close(self) -> Result<()> {
        self.store.close().await.map_err(|error| Error::unavailable(error.to_string()))
    }
}
