//! What the registry writes, one change after the other: each is checked against what is stored, then stored. New definitions
//! that wait together are stored together, since each commit waits for the disk. An import's are in `import`.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::read::no_revision;
use super::store::{self, Store, StoreError};
use super::{Lease, Reply};
use crate::artifacts::Pin;
use crate::compiled::{Compiled, Revision, means};
use crate::definition::{Definition, Kind, Patch};
use crate::error::{Code, Error, Result};

/// A change that waits for its turn.
#[derive(Debug)]
pub struct Write {
    /// What is to change.
    pub change: Change,
    /// Admission, held until it is answered; what the registry does by itself has none.
    pub permit: Option<OwnedSemaphorePermit>,
    /// Where the answer goes.
    pub reply: Reply<Arc<Compiled>>,
}

/// What is to change.
#[derive(Debug)]
pub enum Change {
    /// Add, with what its source is.
    Create(Box<Definition>, Option<Pin>),
    /// Replace the given fields; with new metadata comes what its source is now.
    Update { kind: Kind, id: String, patch: Box<Patch>, pin: Option<Pin>, if_match: Option<String> },
    /// Make an earlier revision the one in force again, with what its source was then.
    RollBack { kind: Kind, id: String, number: u64, if_match: Option<String> },
    /// Remove.
    Delete { kind: Kind, id: String, if_match: Option<String> },
}

impl Change {
    /// The metadata that it brings.
    pub fn metadata(&self) -> Option<&str> {
        match self {
            Self::Create(definition, _) => Some(&definition.metadata),
            Self::Update { patch, .. } => patch.metadata(),
            Self::RollBack { .. } | Self::Delete { .. } => None,
        }
    }
}

impl Write {
    /// The definition that it adds, where it does.
    pub fn added(&self) -> Option<&Definition> {
        match &self.change {
            Change::Create(definition, _) => Some(definition),
            _ => None,
        }
    }

    /// With what its source is.
    pub fn with(mut self, found: Option<Pin>) -> Self {
        match &mut self.change {
            Change::Create(_, pin) | Change::Update { pin, .. } => *pin = found,
            Change::RollBack { .. } | Change::Delete { .. } => {}
        }
        self
    }
}

/// A change that was made or refused.
#[derive(Debug)]
pub struct Done {
    /// Whose cache entry is concerned.
    pub kind: Kind,
    /// Whose cache entry is concerned.
    pub id: String,
    /// Whether a success means that it is gone.
    pub removed: bool,
    /// The definition as it now is, or was when it was removed.
    pub result: Result<Arc<Compiled>>,
    /// Where the answer goes.
    pub reply: Reply<Arc<Compiled>>,
    _permit: Option<OwnedSemaphorePermit>,
}

/// Makes the change.
pub async fn perform(lease: Lease, write: Write) -> Done {
    let Write { change, permit, reply } = write;
    let (kind, id, removed) = match &change {
        Change::Create(definition, _) => (definition.kind, definition.id.clone(), false),
        Change::Update { kind, id, .. } | Change::RollBack { kind, id, .. } => (*kind, id.clone(), false),
        Change::Delete { kind, id, .. } => (*kind, id.clone(), true),
    };
    let result = apply(&lease, change).await.unwrap_or_else(|error| Err(unknown(&error, &id)));
    Done { kind, id, removed, result, reply, _permit: permit }
}

/// Adds definitions of one kind, no two of one id: all in one commit, or one after the other where the id of one is taken.
pub async fn create_together(lease: Lease, kind: Kind, writes: Vec<Write>) -> Vec<Done> {
    let checked: Vec<Result<Added>> = writes.iter().filter_map(|write| added(&lease, write)).collect();
    let change = |(revision, _): &Added| store::Change::Create(revision.clone());
    let changes: Vec<store::Change> = checked.iter().flatten().map(change).collect();
    let stored = if changes.is_empty() { Ok(()) } else { lease.apply(kind, &changes).await };
    if let Err(StoreError::Exists) = stored {
        let mut done = Vec::with_capacity(writes.len());
        for write in writes {
            done.push(perform(lease.clone(), write).await);
        }
        return done;
    }
    let settle = |(write, checked): (Write, Result<Added>)| {
        let id = write.added().map(|definition| definition.id.clone()).unwrap_or_default();
        let result = checked.and_then(|(_, compiled)| match &stored {
            Ok(()) => Ok(compiled),
            Err(error) => Err(unknown(error, &id)),
        });
        Done { kind, id, removed: false, result, reply: write.reply, _permit: write.permit }
    };
    writes.into_iter().zip(checked).map(settle).collect()
}

type Added = (Revision, Arc<Compiled>);

fn added(store: &Store, write: &Write) -> Option<Result<Added>> {
    let Change::Create(definition, pin) = &write.change else { return None };
    Some(first(store, (**definition).clone(), pin.clone()))
}

/// A definition as its first revision.
fn first(store: &Store, definition: Definition, pin: Option<Pin>) -> Result<Added> {
    let now = store.now();
    let revision = Revision { definition, number: 1, created_ms: now, updated_ms: now, pin };
    Compiled::new(&revision).map(|compiled| (revision, compiled))
}

fn unknown(error: &StoreError, id: &str) -> Error {
    tracing::error!(%error, id, "the store failed on a write");
    Error::unavailable("the store failed, and whether this was written is unknown")
}

/// The outer error is the store's, the inner one the caller's.
async fn apply(store: &Store, change: Change) -> std::result::Result<Result<Arc<Compiled>>, StoreError> {
    match change {
        Change::Create(definition, pin) => create(store, *definition, pin).await,
        Change::Update { kind, id, patch, pin, if_match } => {
            update(store, kind, &id, *patch, pin, if_match.as_deref()).await
        }
        Change::RollBack { kind, id, number, if_match } => {
            roll_back(store, kind, &id, number, if_match.as_deref()).await
        }
        Change::Delete { kind, id, if_match } => delete(store, kind, &id, if_match.as_deref()).await,
    }
}

async fn create(
    store: &Store,
    definition: Definition,
    pin: Option<Pin>,
) -> std::result::Result<Result<Arc<Compiled>>, StoreError> {
    let kind = definition.kind;
    let (revision, compiled) = match first(store, definition, pin) {
        Ok(added) => added,
        Err(error) => return Ok(Err(error)),
    };
    match store.create(&revision).await {
        Ok(()) => Ok(Ok(compiled)),
        Err(StoreError::Exists) => {
            Ok(Err(Error::new(Code::Conflict, format!("{} with this id exists already", kind.title()))))
        }
        Err(error) => Err(error),
    }
}

async fn update(
    store: &Store,
    kind: Kind,
    id: &str,
    patch: Patch,
    pin: Option<Pin>,
    if_match: Option<&str>,
) -> std::result::Result<Result<Arc<Compiled>>, StoreError> {
    let before = match stored(store, kind, id, if_match).await? {
        Ok(revision) => revision,
        Err(error) => return Ok(Err(error)),
    };
    let mut now = before.clone();
    if patch.metadata().is_some() {
        now.pin = pin;
    }
    match patch.apply(&mut now.definition) {
        Ok(()) => replace(store, before, now).await,
        Err(error) => Ok(Err(error)),
    }
}

async fn roll_back(
    store: &Store,
    kind: Kind,
    id: &str,
    number: u64,
    if_match: Option<&str>,
) -> std::result::Result<Result<Arc<Compiled>>, StoreError> {
    let before = match stored(store, kind, id, if_match).await? {
        Ok(revision) => revision,
        Err(error) => return Ok(Err(error)),
    };
    let earlier = if number == before.number {
        Some(before.clone())
    } else {
        // One of a definition that bore this id and was removed is none of this one.
        let found = store.revision(kind, id, number).await?;
        found.filter(|found| found.created_ms == before.created_ms)
    };
    match earlier {
        Some(earlier) => replace(store, before, earlier).await,
        None => Ok(Err(no_revision(kind, number))),
    }
}

/// Writes what is to be in force now as the next revision.
async fn replace(
    store: &Store,
    before: Revision,
    mut now: Revision,
) -> std::result::Result<Result<Arc<Compiled>>, StoreError> {
    now.number = before.number + 1;
    now.updated_ms = store.now();
    let compiled = match Compiled::new(&now) {
        Ok(compiled) => compiled,
        Err(error) => return Ok(Err(error)),
    };
    let change = store::Change::Replace { before: Box::new(before), now: Box::new(now) };
    store.apply(compiled.kind, &[change]).await.map(|()| Ok(compiled))
}

async fn delete(
    store: &Store,
    kind: Kind,
    id: &str,
    if_match: Option<&str>,
) -> std::result::Result<Result<Arc<Compiled>>, StoreError> {
    match stored(store, kind, id, if_match).await?.and_then(|revision| Compiled::new(&revision)) {
        Ok(compiled) => store.delete(kind, id).await.map(|()| Ok(compiled)),
        Err(error) => Ok(Err(error)),
    }
}

/// What is stored, if it is the revision that the caller means.
async fn stored(
    store: &Store,
    kind: Kind,
    id: &str,
    if_match: Option<&str>,
) -> std::result::Result<Result<Revision>, StoreError> {
    let Some(revision) = store.get(kind, id).await? else { return Ok(Err(kind.not_registered())) };
    let etag = revision.etag();
    if if_match.is_some_and(|wanted| !means(wanted, &etag)) {
        let message = format!("{} was changed since: its revision is now {etag}", kind.title());
        return Ok(Err(Error::new(Code::PreconditionFailed, message)));
    }
    Ok(Ok(revision))
}
