//! The executions that ended last, so that a late wish about one is told so. Bounded.

use std::collections::{HashSet, VecDeque};

use uuid::Uuid;

/// How many are remembered: 32 bytes each.
const REMEMBERED: usize = 10_000;

/// Uuids, the oldest first.
#[derive(Debug, Default)]
pub struct Ended {
    order: VecDeque<Uuid>,
    all: HashSet<Uuid>,
}

impl Ended {
    /// Remembers one; the oldest is forgotten where there are many.
    pub fn insert(&mut self, uuid: Uuid) {
        if !self.all.insert(uuid) {
            return;
        }
        self.order.push_back(uuid);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }

    /// Whether it is remembered.
    pub fn contains(&self, uuid: Uuid) -> bool {
        self.all.contains(&uuid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered() {
        let mut ended = Ended::default();
        let uuids: Vec<Uuid> = (0..=REMEMBERED as u128).map(Uuid::from_u128).collect();
        uuids.iter().chain(&uuids[1..]).for_each(|uuid| ended.insert(*uuid));
        assert!(!ended.contains(uuids[0]) && ended.contains(uuids[1]) && ended.contains(uuids[REMEMBERED]));
    }
}
