//! Many definitions at a time: each is checked against what is stored, and those that change something are written
//! together.

use std::collections::HashSet;

use futures_util::{StreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;

use super::pin::Source;
use super::store::{Change, Store, StoreError};
use super::{Lease, Reply};
use crate::artifacts::{Artifacts, Pin};
use crate::compiled::Revision;
use crate::definition::{Definition, Kind};
use crate::error::{Error, Result};

/// How many sources are brought in at the same time.
const PINNING: usize = 8;

/// How an import goes about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// What is there already is replaced where it differs; otherwise it stays as it is.
    pub replace: bool,
    /// Nothing is written; the answers are those that an import would give.
    pub dry_run: bool,
}

/// What became of one definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imported {
    /// It is new.
    Created,
    /// It replaced another one.
    Updated,
    /// It is there already, as it is here.
    Unchanged,
    /// One with its id is there already, and stays.
    Exists,
}

/// Definitions of one kind that wait for their turn to be written.
#[derive(Debug)]
pub struct Import {
    /// Tools or functions.
    pub kind: Kind,
    /// Each with what its source is, or why it cannot be taken.
    pub incoming: Vec<Result<(Definition, Option<Pin>)>>,
    /// How to go about it.
    pub options: ImportOptions,
    /// Admission, held until it is answered.
    pub permit: OwnedSemaphorePermit,
    /// Where the answers go, one for each definition.
    pub reply: Reply<Vec<Result<Imported>>>,
}

/// An import that was made.
#[derive(Debug)]
pub struct Done {
    /// Tools or functions.
    pub kind: Kind,
    /// The ids of what is another revision now, or may be.
    pub updated: Vec<String>,
    answers: Result<Vec<Result<Imported>>>,
    reply: Reply<Vec<Result<Imported>>>,
    _permit: OwnedSemaphorePermit,
}

impl Done {
    /// Tells the caller.
    pub fn answer(self) {
        drop(self.reply.send(self.answers));
    }
}

/// Brings in the sources of definitions.
pub async fn pinned(
    definitions: Vec<Definition>,
    artifacts: &Artifacts,
) -> Vec<Result<(Definition, Option<Pin>)>> {
    let pinning = definitions.into_iter().map(async |definition| match Source::of(&definition.metadata) {
        Some(source) => source.pin(artifacts).await.map(|pin| (definition, pin)),
        None => Ok((definition, None)),
    });
    stream::iter(pinning).buffered(PINNING).collect().await
}

/// Makes the import.
pub async fn perform(lease: Lease, import: Import) -> Done {
    let Import { kind, incoming, options, permit, reply } = import;
    let mut batch = Batch { store: &lease, kind, options, changes: Vec::new(), updated: Vec::new() };
    let answers = batch.take(incoming).await.map_err(|error| {
        tracing::error!(%error, "the store failed on an import");
        Error::unavailable("the store failed, and how much of this was written is unknown")
    });
    let updated = batch.updated;
    Done { kind, updated, answers, reply, _permit: permit }
}

struct Batch<'a> {
    store: &'a Store,
    kind: Kind,
    options: ImportOptions,
    changes: Vec<Change>,
    updated: Vec<String>,
}

impl Batch<'_> {
    async fn take(
        &mut self,
        incoming: Vec<Result<(Definition, Option<Pin>)>>,
    ) -> std::result::Result<Vec<Result<Imported>>, StoreError> {
        let ids: HashSet<&str> =
            incoming.iter().flatten().map(|(definition, _)| definition.id.as_str()).collect();
        let ids: Vec<&str> = ids.into_iter().collect();
        let mut known = self.store.get_all(self.kind, &ids).await?;
        let mut changed = HashSet::new();
        let mut answers = Vec::with_capacity(incoming.len());
        for definition in incoming {
            let (definition, pin) = match definition {
                Ok(definition) => definition,
                Err(error) => {
                    answers.push(Err(error));
                    continue;
                }
            };
            let id = definition.id.clone();
            let before = known.get(&id);
            let answer = match before {
                None => Imported::Created,
                Some(_) if !self.options.replace => Imported::Exists,
                Some(before) if before.definition == definition => Imported::Unchanged,
                Some(_) => Imported::Updated,
            };
            answers.push(Ok(answer));
            if matches!(answer, Imported::Exists | Imported::Unchanged) {
                continue;
            }
            let now = self.next(before, definition, pin);
            if !changed.insert(id.clone()) {
                // A write has one change of each definition.
                self.write().await?;
                changed = HashSet::from([id.clone()]);
            }
            self.changes.push(match before {
                None => Change::Create(now.clone()),
                Some(before) => {
                    self.updated.push(id.clone());
                    Change::Replace { before: Box::new(before.clone()), now: Box::new(now.clone()) }
                }
            });
            known.insert(id, now);
        }
        self.write().await?;
        Ok(answers)
    }

    fn next(&self, before: Option<&Revision>, definition: Definition, pin: Option<Pin>) -> Revision {
        let now = self.store.now();
        let (number, created_ms) = before.map_or((1, now), |before| (before.number + 1, before.created_ms));
        Revision { definition, number, created_ms, updated_ms: now, pin }
    }

    async fn write(&mut self) -> std::result::Result<(), StoreError> {
        let changes = std::mem::take(&mut self.changes);
        if changes.is_empty() || self.options.dry_run {
            return Ok(());
        }
        self.store.apply(self.kind, &changes).await
    }
}
