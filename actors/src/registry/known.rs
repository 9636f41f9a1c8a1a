//! The definitions that are kept ready. The registry alone changes them, before it answers a write; whoever asks for one
//! looks here first, and asks the registry for what is not here.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use quick_cache::sync::Cache;

use crate::compiled::Compiled;
use crate::definition::Kind;

/// How many resolved names of a kind are remembered between two writes.
const MAX_ALIASES: usize = 4_096;

/// Tools and functions that are kept ready.
#[derive(Debug)]
pub struct Known {
    kinds: [OfKind; 2],
}

#[derive(Debug)]
struct OfKind {
    cache: Cache<String, Arc<Compiled>, Weight>,
    /// Which id a name or a range meant since the last write.
    aliases: RwLock<HashMap<String, String>>,
}

#[derive(Clone, Debug)]
struct Weight;

impl quick_cache::Weighter<String, Arc<Compiled>> for Weight {
    fn weight(&self, id: &String, definition: &Arc<Compiled>) -> u64 {
        id.len() as u64 + definition.weight()
    }
}

impl Known {
    /// None yet, and so many bytes of them at most.
    pub fn new(bytes: u64) -> Self {
        let of_kind =
            || OfKind { cache: Cache::with_weighter(1_000, bytes / 2, Weight), aliases: RwLock::default() };
        Self { kinds: [of_kind(), of_kind()] }
    }

    fn of(&self, kind: Kind) -> &OfKind {
        &self.kinds[kind as usize]
    }

    /// The definition of exactly this id.
    pub fn get(&self, kind: Kind, id: &str) -> Option<Arc<Compiled>> {
        self.of(kind).cache.get(id)
    }

    /// The definition of this id, or else of what it means.
    pub fn resolve(&self, kind: Kind, id: &str) -> Option<Arc<Compiled>> {
        let of_kind = self.of(kind);
        if let Some(definition) = of_kind.cache.get(id) {
            return Some(definition);
        }
        let aliases = of_kind.aliases.read().unwrap_or_else(PoisonError::into_inner);
        of_kind.cache.get(aliases.get(id)?.as_str())
    }

    /// It is as it is stored now.
    pub fn insert(&self, definition: Arc<Compiled>) {
        self.of(definition.kind).cache.insert(definition.id.clone(), definition);
    }

    /// A name or a range means the definition of this id, until the next write.
    pub fn note(&self, kind: Kind, name: String, id: &str) {
        let mut aliases = self.of(kind).aliases.write().unwrap_or_else(PoisonError::into_inner);
        if aliases.len() < MAX_ALIASES {
            aliases.insert(name, id.to_owned());
        }
    }

    /// There is no definition of this id, or it is not known how it is.
    pub fn remove(&self, kind: Kind, id: &str) {
        self.of(kind).cache.remove(id);
    }

    /// A write may have changed what names mean.
    pub fn forget_names(&self) {
        for of_kind in &self.kinds {
            of_kind.aliases.write().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// Nothing is known any more.
    pub fn clear(&self) {
        self.forget_names();
        self.kinds.iter().for_each(|of_kind| of_kind.cache.clear());
    }

    /// How many definitions there are here.
    pub fn count(&self) -> usize {
        self.kinds.iter().map(|of_kind| of_kind.cache.len()).sum()
    }

    /// What they weigh, in bytes.
    pub fn bytes(&self) -> u64 {
        self.kinds.iter().map(|of_kind| of_kind.cache.weight()).sum()
    }
}
