//! The way of log lines from a running program to whoever listens: a ring that drops the oldest line and
//! counts it, so that a slow reader never slows a tool and never costs memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// What waits in the ring: the lines in order, and how many were lost before them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// How many lines were dropped since the last [`LogRing::take`], all of them older than `lines`.
    pub dropped: u64,
    /// The lines, oldest first.
    pub lines: VecDeque<String>,
}

/// A bounded ring of log lines with one writer side and one reader.
#[derive(Debug)]
pub struct LogRing {
    capacity: usize,
    waiting: Mutex<Lines>,
    written: Arc<Notify>,
}

impl LogRing {
    /// A ring that holds this many lines.
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), waiting: Mutex::default(), written: Arc::new(Notify::new()) }
    }

    /// Another ring as large as this one, whose lines wake this one's reader.
    pub fn sibling(&self) -> Self {
        Self { capacity: self.capacity, waiting: Mutex::default(), written: self.written.clone() }
    }

    /// Adds a line; the oldest goes when there is no room.
    pub fn push(&self, line: String) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.lines.len() == self.capacity {
            waiting.lines.pop_front();
            waiting.dropped += 1;
        }
        waiting.lines.push_back(line);
        drop(waiting);
        self.written.notify_one();
    }

    /// Everything that waits now.
    pub fn take(&self) -> Lines {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Resolves once something was written since the last call.
    pub async fn written(&self) {
        self.written.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_line_goes_and_is_counted() {
        let ring = LogRing::new(2);
        for line in ["a", "b", "c"] {
            ring.push(line.into());
        }
        assert_eq!(ring.take(), Lines { dropped: 1, lines: ["b".to_owned(), "c".to_owned()].into() });
        assert_eq!(ring.take(), Lines::default());
    }
}
