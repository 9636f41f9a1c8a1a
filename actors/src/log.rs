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

impl Lines {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.dropped == 0
    }
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

/// How much of the end of a log is kept with the execution.
const KEPT: usize = 16 * 1024;

/// The end of all that an execution printed, for whoever asks later.
#[derive(Debug, Default)]
pub struct Kept(Mutex<End>);

#[derive(Debug, Default)]
struct End {
    bytes: VecDeque<u8>,
    /// How many bytes came before these.
    dropped: usize,
}

impl Kept {
    /// Takes what was printed.
    pub fn write(&self, printed: &[u8]) {
        let mut end = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = &printed[printed.len().saturating_sub(KEPT)..];
        let surplus = (end.bytes.len() + new.len()).saturating_sub(KEPT);
        end.bytes.drain(..surplus);
        end.bytes.extend(new);
        end.dropped += surplus + printed.len() - new.len();
    }

    /// What is kept, nothing where nothing was printed; where the beginning is lost, a line says so.
    pub fn text(&self) -> Option<String> {
        let end = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, second) = end.bytes.as_slices();
        let bytes = [first, second].concat();
        let text = String::from_utf8_lossy(&bytes);
        match (end.dropped, bytes.is_empty()) {
            (_, true) => None,
            (0, _) => Some(text.into_owned()),
            (dropped, _) => Some(format!("… ({dropped} bytes before this are not kept)\n{text}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_what_is_lost_is_told() {
        let kept = Kept::default();
        assert_eq!(kept.text(), None);
        kept.write(b"one\n");
        kept.write(b"two\n");
        assert_eq!(kept.text().as_deref(), Some("one\ntwo\n"));
        kept.write(&[b'x'; KEPT]);
        kept.write(b"end");
        let text = kept.text().expect("a text");
        assert!(text.starts_with("… (11 bytes before this are not kept)\nxxx"), "{text}");
        assert!(text.ends_with("xend"), "{text}");
        kept.write(&[b'y'; 3 * KEPT]);
        assert!(kept.text().expect("a text").contains(&format!("{} bytes", 11 + 3 + KEPT + 2 * KEPT - 3)));
    }

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
