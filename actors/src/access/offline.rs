//! Keys without a service: whoever may write the store may make one.

use std::fmt;

use super::{About, Issued, Issuers, KeyId, Keyring, NewKey};
use crate::audit::{self, Action, Event};
use crate::error::{Code, Error, Result};
use crate::registry::{Location, Memory, Store};
use crate::settings::Settings;

/// The keys of a store that no service uses.
pub struct Offline {
    store: Store,
    keyring: Keyring,
    is_recorded: bool,
}

/// Opens the store of these settings, which no service uses; one that is not there only where it may be made.
///
/// # Errors
/// One sentence: it is in use, is not there, or cannot be opened.
pub(crate) async fn open_offline(settings: &Settings, may_be_made: bool) -> Result<Store> {
    let location = Location::parse(&settings.store.url);
    let location = location.filter(|location| *location != Location::Memory);
    let location = location
        .ok_or_else(|| Error::invalid("`store.url` is no folder, so that nothing in it would last"))?;
    if !may_be_made && !location.is_made() {
        let message = format!("there is no store at `store.url`, which is {:?}", settings.store.url);
        return Err(Error::new(Code::NotFound, message));
    }
    // The files that it would make could not be opened by the service.
    if let Some(owner) = location.owner()
        && owner != nix::unistd::geteuid()
    {
        let user = nix::unistd::User::from_uid(owner).ok().flatten();
        let user = user.map_or_else(|| owner.to_string(), |user| user.name);
        let message =
            format!("the store belongs to the user {user:?}, who alone works on it without a service");
        return Err(Error::new(Code::Forbidden, message));
    }
    let opened = Store::open(location, Memory(settings.store.memory_mb)).await;
    opened.map_err(|error| Error::unavailable(error.to_string()))
}

impl fmt::Debug for Offline {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.keyring.fmt(formatter)
    }
}

impl Offline {
    /// Opens the store of these settings; one that is not there only where it may be made.
    ///
    /// # Errors
    /// One sentence: it is in use, is not there, or cannot be opened.
    pub async fn open(settings: &Settings, may_be_made: bool) -> Result<Self> {
        let store = open_offline(settings, may_be_made).await?;
        let issuers = Issuers::load(&settings.auth.issuers).map_err(Error::unavailable)?;
        let keys = store.keys().await.map_err(|error| Error::unavailable(error.to_string()))?;
        let keyring = Keyring::new(keys, issuers, true);
        Ok(Self { store, keyring, is_recorded: settings.audit.enabled })
    }

    /// What is known of all keys, the oldest first.
    pub fn all(&self) -> Vec<About> {
        self.keyring.all()
    }

    /// Makes a key.
    ///
    /// # Errors
    /// As for [`Keyring::create`]; `unavailable` where the audit log cannot be written: then the key is shown to nobody.
    pub async fn create(&self, new: NewKey) -> Result<Issued> {
        let issued = self.keyring.create(&self.store, new).await?;
        self.record(Action::KeyCreate, &issued.about).await?;
        Ok(issued)
    }

    /// Revokes a key.
    ///
    /// # Errors
    /// As for [`Keyring::revoke`]; `unavailable` where the audit log cannot be written: the key is revoked all the same.
    pub async fn revoke(&self, id: KeyId) -> Result<About> {
        let about = self.keyring.revoke(&self.store, id).await?;
        self.record(Action::KeyRevoke, &about).await?;
        Ok(about)
    }

    async fn record(&self, action: Action, about: &About) -> Result<()> {
        if !self.is_recorded {
            return Ok(());
        }
        let event = Event::done(audit::offline_origin(), action, about.subject(), about.detail());
        audit::append(&self.store, &event).await.map_err(|error| {
            Error::unavailable(format!("what was done with the key {} cannot be recorded: {error}", about.id))
        })
    }

    /// Closes the store.
    ///
    /// # Errors
    /// It did not let go of its folder.
    pub async fn close(self) -> Result<()> {
        self.store.close().await.map_err(|error| Error::unavailable(error.to_string()))
    }
}
