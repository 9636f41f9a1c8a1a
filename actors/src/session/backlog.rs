//! How much waits for clients that have not read it yet, and how long it may wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// How many bytes of outcomes may wait for one client.
const OWN: usize = 8 << 20;

/// How many may wait for all of them together; then whoever has some waiting gets no more.
const ALL: usize = 12 << 20;

/// How long a client may take nothing of what waits for it: while there is room for all, while half of it is used,
/// and when there is none.
const CALM: Duration = Duration::from_secs(10);
const BUSY: Duration = Duration::from_secs(2);
const FULL: Duration = Duration::from_millis(250);

/// What waits for one client, beside what waits for all.
#[derive(Debug)]
pub struct Backlog {
    own: AtomicUsize,
    all: Arc<AtomicUsize>,
    given_up: Notify,
}

impl Backlog {
    /// Nothing waits for this client yet.
    pub fn new(all: Arc<AtomicUsize>) -> Self {
        Self { own: AtomicUsize::new(0), all, given_up: Notify::new() }
    }

    /// So much more waits. Whether the client may have it: one that has read all before always may.
    pub fn add(&self, bytes: usize) -> bool {
        let own = self.own.fetch_add(bytes, Ordering::AcqRel);
        let all = self.all.fetch_add(bytes, Ordering::AcqRel);
        own == 0 || (own + bytes <= OWN && all + bytes <= ALL)
    }

    /// So much was taken by the client.
    pub fn taken(&self, bytes: usize) {
        self.own.fetch_sub(bytes, Ordering::AcqRel);
        self.all.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// How long the client may take nothing of it.
    pub fn patience(&self) -> Duration {
        match self.all.load(Ordering::Acquire) {
            all if all > ALL => FULL,
            all if all > ALL / 2 => BUSY,
            _ => CALM,
        }
    }

    /// The client gets no more, since it does not read: what is being written to it need not be finished.
    pub fn give_up(&self) {
        self.given_up.notify_one();
    }

    /// Waits until the client gets no more.
    pub async fn given_up(&self) {
        self.given_up.notified().await;
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own.load(Ordering::Acquire), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_read_gets_no_more_and_others_do() {
        let all = Arc::new(AtomicUsize::new(0));
        let (slow, other) = (Backlog::new(all.clone()), Backlog::new(all.clone()));
        assert!(slow.add(OWN + 1), "the first one always");
        assert!(!slow.add(1));
        assert!(other.add(1) && other.add(1));
        other.taken(2);
        drop(slow);
        assert_eq!(all.load(Ordering::Acquire), 0);
        let many: Vec<Backlog> = (0..4).map(|_| Backlog::new(all.clone())).collect();
        assert!(many.iter().all(|one| one.add(ALL / 4)), "each its first");
        assert!(!many[0].add(1), "together they have too much");
        assert_eq!(many[0].patience(), FULL);
        many[0].taken(ALL / 4 + 1);
        assert_eq!(many[0].patience(), BUSY);
        drop(many);
        assert_eq!(other.patience(), CALM);
    }
}
