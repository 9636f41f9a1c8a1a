//! The keys of a service, kept ready: whoever comes with one is told apart here, without a look into the store, which
//! has them all.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::Mutex;

use super::key::apart;
use super::{About, Grant, Issued, Issuers, KeyId, NewKey, Principal, Scope};
use crate::error::{Code, Error, Result};
use crate::execution::{Client, now_ms};
use crate::registry::{Store, StoreError};

/// How many keys there may be, those that were revoked among them.
const MAX_KEYS: usize = 10_000;

/// All keys, and who may come without one.
#[derive(Debug)]
pub struct Keyring {
    keys: RwLock<HashMap<KeyId, Held>>,
    issuers: RwLock<Issuers>,
    /// Everybody, as long as no key is asked for.
    everybody: Arc<Principal>,
    /// A key is asked for, also where there is none.
    is_required: bool,
    /// One change at a time.
    writing: Mutex<()>,
}

#[derive(Debug)]
struct Held {
    about: About,
    principal: Arc<Principal>,
}

impl Held {
    fn new(about: About) -> Self {
        let principal = Principal::new(Some(Client::Key(about.id)), about.grant.clone());
        if about.revoked_ms.is_some() {
            principal.end();
        }
        Self { about, principal: Arc::new(principal) }
    }
}

impl Keyring {
    /// With these keys, and those who sign tokens.
    pub fn new(keys: Vec<About>, issuers: Issuers, is_required: bool) -> Self {
        let keys = keys.into_iter().map(|about| (about.id, Held::new(about))).collect();
        let everybody = Arc::new(Principal::unbound());
        let issuers = RwLock::new(issuers);
        Self { keys: RwLock::new(keys), issuers, everybody, is_required, writing: Mutex::new(()) }
    }

    /// Whether everybody may do everything: there was never a key, nobody signs tokens, and the settings do not ask for
    /// either. A key that was revoked counts, so that revoking the last one opens nothing; nor does anything else once it was
    /// shut.
    pub fn is_open(&self) -> bool {
        self.everybody.is_good().is_ok()
            && !self.is_required
            && self.issuers().is_empty()
            && self.read().is_empty()
    }

    /// Who comes with this token, or without one. Where no key is asked for, none is looked at.
    ///
    /// # Errors
    /// `unauthorized`, or what is wrong with what was shown.
    pub fn principal(&self, token: Result<Option<&str>>) -> Result<Arc<Principal>> {
        if self.is_open() {
            return Ok(self.everybody.clone());
        }
        let missing = || unauthorized("this service asks for a key, as `Authorization: Bearer KEY`");
        let token = token?.ok_or_else(missing)?;
        let principal = match apart(token) {
            Some((id, secret)) => {
                let keys = self.read();
                let held = keys.get(&id).filter(|held| held.about.hash.is_of(secret));
                held.map(|held| held.principal.clone())
            }
            None => self.issuers().principal(token)?,
        };
        let principal = principal.ok_or_else(|| unauthorized("this key is not one of this service"))?;
        principal.is_good()?;
        Ok(principal)
    }

    /// Which key of this service a token names, and whether it shows its secret: who is refused may have had one.
    pub fn named(&self, token: Option<&str>) -> Option<(KeyId, bool)> {
        let (id, secret) = apart(token?)?;
        self.read().get(&id).map(|held| (id, held.about.hash.is_of(secret)))
    }

    /// What is known of all keys, the oldest first.
    pub fn all(&self) -> Vec<About> {
        let mut all: Vec<About> = self.read().values().map(|held| held.about.clone()).collect();
        all.sort_by_key(|about| (about.created_ms, about.id));
        all
    }

    /// Makes a key. Once there is one, nobody comes in without.
    ///
    /// # Errors
    /// `invalid` where the first one has not the scope `admin`, or has an end or ids; `conflict` where there are too many;
    /// `unavailable`.
    pub async fn create(&self, store: &Store, new: NewKey) -> Result<Issued> {
        let _turn = self.writing.lock().await;
        let grant = &new.grant;
        let is_first = self.issuers().is_empty() && self.read().is_empty();
        if is_first && !makes_keys(grant) {
            let message = "the first key needs the scope `admin`, no end and no ids: without it nobody could make another one";
            return Err(Error::invalid(message).at("scopes"));
        }
        if self.read().len() >= MAX_KEYS {
            return Err(Error::new(Code::Conflict, format!("there are {MAX_KEYS} keys already")));
        }
        let (key, about) = new.issue()?;
        store.put_key(&about).await.map_err(unwritten)?;
        self.put(about.clone());
        self.everybody.end();
        Ok(Issued { key, about })
    }

    /// Revokes a key: what its principal has open ends. One that was revoked already stays so.
    ///
    /// # Errors
    /// `not_found`; `conflict` where nobody could make a key any more; `unavailable`.
    pub async fn revoke(&self, store: &Store, id: KeyId) -> Result<About> {
        let _turn = self.writing.lock().await;
        let about = self.read().get(&id).map(|held| held.about.clone());
        let mut about = about.ok_or_else(|| Error::new(Code::NotFound, "there is no key with this id"))?;
        if about.revoked_ms.is_some() {
            return Ok(about);
        }
        let is_lasting = |about: &About| about.revoked_ms.is_none() && makes_keys(&about.grant);
        let mut others = self.all().into_iter().filter(|other| other.id != id);
        if is_lasting(&about) && !others.any(|other| is_lasting(&other)) {
            let message =
                "this is the last key with the scope `admin`, no end and no ids: make another one first";
            return Err(Error::new(Code::Conflict, message));
        }
        about.revoked_ms = Some(now_ms());
        store.put_key(&about).await.map_err(unwritten)?;
        self.put(about.clone());
        Ok(about)
    }

    /// Takes the tokens of these from now on, and of no others: whoever came with one of another key has ended.
    pub fn trust(&self, issuers: Issuers) {
        if !issuers.is_empty() {
            self.everybody.end();
        }
        let mut trusted = self.issuers.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *trusted, issuers);
        before.yield_to(&trusted);
    }

    /// Takes in what was written. Whoever came with what was there before has ended.
    fn put(&self, about: About) {
        let held = Held::new(about);
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = keys.insert(held.about.id, held) {
            before.principal.end();
        }
    }

    fn issuers(&self) -> RwLockReadGuard<'_, Issuers> {
        self.issuers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<KeyId, Held>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unauthorized(message: &str) -> Error {
    Error::new(Code::Unauthorized, message)
}

fn unwritten(error: StoreError) -> Error {
    tracing::error!(%error, "a key could not be written");
    Error::unavailable("the key could not be written; try again later")
}

/// Whether who has it may make and revoke keys, for good.
fn makes_keys(grant: &Grant) -> bool {
    grant.scopes.has(Scope::Admin) && grant.expires_ms.is_none() && grant.ids.patterns().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Location, Memory};

    fn wanted(scopes: &str) -> NewKey {
        NewKey::parse(&format!(r#"{{"name":"n","scopes":[{scopes}]}}"#)).expect("valid")
    }

    async fn memory() -> Store {
        Store::open(Location::Memory, Memory(128)).await.expect("opens")
    }

    #[tokio::test]
    async fn the_first_key_shuts_the_door() {
        let (store, ring) = (memory().await, Keyring::new(Vec::new(), Issuers::default(), false));
        let everybody = ring.principal(Ok(None)).expect("open");
        for ignored in [Ok(Some("x")), Err(Error::new(Code::Unauthorized, "unreadable"))] {
            assert!(Arc::ptr_eq(&everybody, &ring.principal(ignored).expect("open")));
        }
        let refused = ring.create(&store, wanted(r#""read""#)).await.expect_err("no admin");
        assert_eq!(refused.code(), Code::Invalid);
        assert!(ring.principal(Ok(None)).is_ok());
        let admin = ring.create(&store, wanted(r#""admin""#)).await.expect("made");
        everybody.ended().await;
        assert_eq!(ring.principal(Ok(None)).expect_err("shut").code(), Code::Unauthorized);
        let principal = ring.principal(Ok(Some(&admin.key))).expect("good");
        assert_eq!(principal.client(Client::UNNAMED), Client::Key(admin.about.id));
        let mut forged = admin.key.clone();
        forged.pop();
        for bad in [forged.as_str(), "", "oe_0000000000000000_00", "x.y.z"] {
            assert_eq!(ring.principal(Ok(Some(bad))).expect_err(bad).code(), Code::Unauthorized);
        }
    }

    #[tokio::test]
    async fn a_revoked_key_ends_and_stays_revoked_after_a_restart() {
        let (store, ring) = (memory().await, Keyring::new(Vec::new(), Issuers::default(), false));
        let admin = ring.create(&store, wanted(r#""admin""#)).await.expect("made");
        let reader = ring.create(&store, wanted(r#""read""#)).await.expect("made");
        let open = ring.principal(Ok(Some(&reader.key))).expect("good");
        ring.revoke(&store, reader.about.id).await.expect("revoked");
        open.ended().await;
        assert_eq!(
            ring.principal(Ok(Some(&reader.key))).expect_err("revoked").to_string(),
            "this key was revoked"
        );
        assert!(ring.revoke(&store, reader.about.id).await.expect("again").revoked_ms.is_some());
        let last = ring.revoke(&store, admin.about.id).await.expect_err("the last one");
        assert_eq!(last.code(), Code::Conflict);

        let again = Keyring::new(store.keys().await.expect("read"), Issuers::default(), false);
        assert_eq!(again.all().len(), 2);
        assert!(
            again.principal(Ok(Some(&admin.key))).is_ok() && again.principal(Ok(Some(&reader.key))).is_err()
        );
        assert!(again.principal(Ok(None)).is_err());
    }

    #[tokio::test]
    async fn somebody_can_always_make_keys() {
        let (store, ring) = (memory().await, Keyring::new(Vec::new(), Issuers::default(), false));
        let bound = || NewKey::parse(r#"{"name":"n","scopes":["admin"],"ids":["*"]}"#).expect("valid");
        let refused = ring.create(&store, bound()).await.expect_err("it could make none");
        assert_eq!(refused.code(), Code::Invalid);
        let first = ring.create(&store, wanted(r#""admin""#)).await.expect("made");
        ring.create(&store, bound()).await.expect("made");
        let last = ring.revoke(&store, first.about.id).await.expect_err("the other one makes none");
        assert_eq!(last.code(), Code::Conflict);
        ring.create(&store, wanted(r#""admin""#)).await.expect("made");
        ring.revoke(&store, first.about.id).await.expect("another one makes them");
    }

    #[test]
    fn without_keys_the_settings_may_ask_for_one_all_the_same() {
        let ring = Keyring::new(Vec::new(), Issuers::default(), true);
        assert!(!ring.is_open());
        assert_eq!(ring.principal(Ok(None)).expect_err("shut").code(), Code::Unauthorized);
    }
}
