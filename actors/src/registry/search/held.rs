//! Which views of the index are held for those who come back for their next page, and for how long.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::View;

/// For how long a view is held after it was last asked for.
const HELD_FOR: Duration = Duration::from_secs(300);

/// How many are held: each keeps the files of the index that were there.
const MAX_HELD: usize = 64;

/// Views by their numbers; the one that was not asked for the longest is the first.
pub struct Held {
    views: VecDeque<(u32, Instant, Arc<View>)>,
    next: u32,
}

impl Default for Held {
    /// The numbers begin anywhere, so that one of an earlier index means none of this one.
    fn default() -> Self {
        Self { views: VecDeque::new(), next: uuid::Uuid::now_v7().as_u128() as u32 }
    }
}

impl Held {
    /// Holds a view, and gives its number: the one that it has where it is held already.
    pub fn hold(&mut self, view: &Arc<View>) -> u32 {
        self.prune();
        let generation = view.searcher.generation();
        let known = self.views.iter().position(|(_, _, held)| held.searcher.generation() == generation);
        let (number, view) = match known.and_then(|at| self.views.remove(at)) {
            Some((number, _, held)) => (number, held),
            None => {
                self.next = self.next.wrapping_add(1);
                (self.next, view.clone())
            }
        };
        if self.views.len() == MAX_HELD {
            self.views.pop_front();
        }
        self.views.push_back((number, Instant::now(), view));
        number
    }

    /// The view of this number.
    pub fn get(&mut self, number: u32) -> Option<Arc<View>> {
        self.prune();
        let at = self.views.iter().position(|(held, _, _)| *held == number)?;
        let (_, _, view) = self.views.remove(at)?;
        self.views.push_back((number, Instant::now(), view.clone()));
        Some(view)
    }

    /// Lets those go that nobody asked for any more.
    pub fn prune(&mut self) {
        while self.views.front().is_some_and(|(_, asked, _)| asked.elapsed() > HELD_FOR) {
            self.views.pop_front();
        }
    }

    /// Lets all go.
    pub fn clear(&mut self) {
        self.views.clear();
    }
}
