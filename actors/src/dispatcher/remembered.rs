//! The executions that ended last, so that a late wish about one is answered at once. Bounded in number and in bytes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use crate::execution::{Ended, Key, Progress, Snapshot};

/// How many are remembered.
const REMEMBERED: usize = 10_000;

/// How many bytes of inputs and outputs are remembered.
const BYTES: usize = 16 << 20;

/// Executions that ended, the oldest first.
#[derive(Debug, Default)]
pub struct Remembered {
    order: VecDeque<(Uuid, Option<Key>)>,
    all: HashMap<Uuid, Snapshot>,
    keys: HashMap<Key, Uuid>,
    bytes: usize,
}

impl Remembered {
    /// Remembers one; the oldest are forgotten where there are many.
    pub fn insert(&mut self, snapshot: Snapshot, key: Option<Key>) {
        let (uuid, bytes) = (snapshot.uuid, weight(&snapshot));
        if self.all.insert(uuid, snapshot).is_some() {
            return;
        }
        if let Some(key) = &key {
            self.keys.insert(key.clone(), uuid);
        }
        self.order.push_back((uuid, key));
        self.bytes += bytes;
        while self.order.len() > REMEMBERED || (self.bytes > BYTES && self.order.len() > 1) {
            let Some((oldest, key)) = self.order.pop_front() else { return };
            if let Some(key) = key {
                self.keys.remove(&key);
            }
            self.bytes -= self.all.remove(&oldest).map_or(0, |snapshot| weight(&snapshot));
        }
    }

    /// Forgets these.
    pub fn forget(&mut self, uuids: &HashSet<Uuid>) {
        let (all, keys, bytes) = (&mut self.all, &mut self.keys, &mut self.bytes);
        self.order.retain(|(uuid, key)| {
            if !uuids.contains(uuid) {
                return true;
            }
            if let Some(key) = key {
                keys.remove(key);
            }
            *bytes -= all.remove(uuid).map_or(0, |snapshot| weight(&snapshot));
            false
        });
    }

    /// One that is remembered.
    pub fn get(&self, uuid: Uuid) -> Option<&Snapshot> {
        self.all.get(&uuid)
    }

    /// The one with this idempotency key.
    pub fn of_key(&self, key: &Key) -> Option<&Snapshot> {
        self.get(*self.keys.get(key)?)
    }

    /// How one that is remembered ended.
    pub fn ended(&self, uuid: Uuid) -> Option<Arc<Ended>> {
        match &self.get(uuid)?.progress {
            Progress::Ended(ended) => Some(ended.clone()),
            _ => None,
        }
    }

    /// All that are remembered.
    pub fn all(&self) -> impl Iterator<Item = &Snapshot> {
        self.all.values()
    }
}

fn weight(snapshot: &Snapshot) -> usize {
    let output = match &snapshot.progress {
        Progress::Ended(ended) => ended.bytes(),
        _ => 0,
    };
    snapshot.input.len() + snapshot.id.len() + output
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Kind;
    use crate::execution::{Client, Outcome};

    fn snapshot(number: u128, output: usize) -> Snapshot {
        let outcome = Outcome::succeeded("x".repeat(output));
        let ended =
            Ended { outcome, started_ms: Some(1), ended_ms: 2, attempts: 1, sandbox: None, log: None };
        let progress = Progress::Ended(Arc::new(ended));
        let (uuid, id, input) = (Uuid::from_u128(number), "t".to_owned(), "{}".into());
        let client = Client::UNNAMED;
        Snapshot { uuid, kind: Kind::Tool, id, revision: Some(1), client, input, accepted_ms: 0, progress }
    }

    #[test]
    fn the_last_ones_are_remembered() {
        let mut remembered = Remembered::default();
        let last = REMEMBERED as u128;
        (0..=last).chain(1..=last).for_each(|number| remembered.insert(snapshot(number, 2), None));
        let knows = |number| remembered.ended(Uuid::from_u128(number)).is_some();
        assert!(!knows(0) && knows(1) && knows(last));
    }

    #[test]
    fn what_is_forgotten_is_not_there_any_more_nor_is_its_key() {
        let mut remembered = Remembered::default();
        let key = |number: u128| Key(format!("{number}").into());
        (0..4).for_each(|number| remembered.insert(snapshot(number, 2), Some(key(number))));
        remembered.forget(&HashSet::from([1, 3, 9].map(Uuid::from_u128)));
        let known: Vec<bool> = (0..4).map(|number| remembered.of_key(&key(number)).is_some()).collect();
        assert_eq!((known, remembered.all().count()), (vec![true, false, true, false], 2));
        remembered.forget(&HashSet::from([0, 2].map(Uuid::from_u128)));
        assert_eq!((remembered.bytes, remembered.order.len()), (0, 0));
    }

    #[test]
    fn large_ones_push_out_the_others() {
        let mut remembered = Remembered::default();
        (0..3).for_each(|number| remembered.insert(snapshot(number, BYTES / 2), None));
        let knows = |number| remembered.get(Uuid::from_u128(number)).is_some();
        assert!(!knows(0) && !knows(1) && knows(2), "each is a little more than half of the bytes");
    }
}
