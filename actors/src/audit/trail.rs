//! What is to be recorded and is not on disk yet. Everybody adds to it; the writer takes from its front, and takes away
//! only what is written. It outlives the writer, so that a successor goes on where that stood.
//!
//! It is bounded: who changes something waits until there is room for its entry, and no execution is taken in while there
//! is none. What executions that are open come to when they end is added in any case: they are bounded themselves.

use std::collections::VecDeque;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::refusals::Refusals;
use super::{Action, Detail, Event, Head, Origin};
use crate::admission::PATIENCE;
use crate::error::{Code, Error};

/// How many entries may wait.
const MAX_WAITING: usize = 65_536;

/// How many entries are written in one commit.
const BATCH: usize = 4_000;

/// How long the entries of executions gather before they are written: each commit is one more for the disk.
const GATHER: Duration = Duration::from_millis(250);

/// What is to be recorded.
pub struct Trail {
    is_enabled: bool,
    waiting: Mutex<Waiting>,
    /// There is something to be written.
    added: Notify,
    /// Something was written.
    taken: Notify,
}

#[derive(Default)]
struct Waiting {
    queue: VecDeque<Arc<Event>>,
    refusals: Refusals,
    /// How many were added, and how many of them are on disk.
    added: u64,
    written: u64,
    /// When the first of those that wait was added.
    since: Option<Instant>,
    /// Some of it does not wait for more to gather.
    is_urgent: bool,
    /// The head of the chain once what is being written is on disk, and how many entries that are of the queue.
    under_way: Option<(Head, usize)>,
}

impl fmt::Debug for Trail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Trail").field("waiting", &self.lock().queue.len()).finish_non_exhaustive()
    }
}

impl Trail {
    /// Nothing is to be recorded yet; where it is not enabled, nothing ever is.
    pub fn new(is_enabled: bool) -> Self {
        Self { is_enabled, waiting: Mutex::default(), added: Notify::new(), taken: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another entry may wait.
    pub fn has_room(&self) -> bool {
        self.lock().queue.len() < MAX_WAITING
    }

    /// Waits until another entry may.
    pub async fn room(&self) {
        self.when(Self::has_room).await;
    }

    /// Whether what waits is far from as much as may: else an execution is not taken in at once.
    pub fn is_calm(&self) -> bool {
        self.lock().queue.len() < MAX_WAITING / 2
    }

    /// Waits until it is, but no longer than a request waits for its turn; not at all where there is no room, which is told
    /// where the execution comes in.
    pub async fn calm(&self) {
        let is_decided = |trail: &Self| trail.is_calm() || !trail.has_room();
        let _ = tokio::time::timeout(PATIENCE, self.when(is_decided)).await;
    }

    async fn when(&self, holds: impl Fn(&Self) -> bool) {
        loop {
            let mut taken = pin!(self.taken.notified());
            // Before the look, so that what is taken in between is noticed.
            taken.as_mut().enable();
            if holds(self) {
                return;
            }
            taken.await;
        }
    }

    /// Records something. Who can wait has waited for room.
    pub fn add(&self, event: Event) {
        if !self.is_enabled {
            return;
        }
        let is_first = {
            let mut waiting = self.lock();
            waiting.push(event);
            waiting.is_due() || waiting.queue.len() == 1
        };
        if is_first {
            self.added.notify_one();
        }
    }

    /// Records that this was done.
    pub fn done(
        &self,
        origin: &Arc<Origin>,
        action: Action,
        subject: impl fmt::Display,
        detail: impl Into<Detail>,
    ) {
        if self.is_enabled {
            self.add(Event::done(origin.clone(), action, subject, detail));
        }
    }

    /// Records that this was refused, for what the error says; many like it are one entry.
    pub fn refused(&self, origin: &Arc<Origin>, action: Action, subject: impl fmt::Display, error: &Error) {
        self.refused_as(origin, action, subject, error.code(), error);
    }

    /// The same, under another code than the client was told.
    pub fn refused_as(
        &self,
        origin: &Arc<Origin>,
        action: Action,
        subject: impl fmt::Display,
        code: Code,
        error: &Error,
    ) {
        if self.is_enabled {
            self.refusal(Event::refused(origin.clone(), action, subject, code, error));
        }
    }

    /// Records a refusal; many like it are one entry.
    pub fn refusal(&self, event: Event) {
        if !self.is_enabled {
            return;
        }
        let first = self.lock().refusals.take(event, Instant::now());
        if let Some(event) = first {
            self.add(event);
        }
    }

    /// Has the refusals that gathered recorded, those of windows that are over or all.
    pub fn close_refusals(&self, all: bool) {
        let closed = {
            let mut waiting = self.lock();
            // They go on to gather while there is no room.
            if waiting.refusals.is_empty() || waiting.queue.len() >= MAX_WAITING {
                return;
            }
            waiting.refusals.close(Instant::now(), all)
        };
        closed.into_iter().for_each(|event| self.add(event));
    }

    /// Has all that waits written soon: how many entries there were until now.
    pub fn hurry(&self) -> u64 {
        let (added, is_waiting) = {
            let mut waiting = self.lock();
            waiting.is_urgent |= !waiting.queue.is_empty();
            (waiting.added, waiting.is_urgent)
        };
        if is_waiting {
            self.added.notify_one();
        }
        added
    }

    /// Waits until there is something to be written.
    pub async fn ready(&self) {
        loop {
            let mut added = pin!(self.added.notified());
            added.as_mut().enable();
            let since = {
                let waiting = self.lock();
                if waiting.is_due() {
                    return;
                }
                waiting.since
            };
            match since {
                None => added.await,
                Some(since) => tokio::select! {
                    () = added => {}
                    () = tokio::time::sleep_until((since + GATHER).into()) => return,
                },
            }
        }
    }

    /// The first of those that wait; they go on to wait until they are written.
    pub fn front(&self) -> Vec<Arc<Event>> {
        let mut waiting = self.lock();
        waiting.is_urgent &= waiting.queue.len() > BATCH;
        waiting.queue.iter().take(BATCH).cloned().collect()
    }

    /// So many of the first are being written, which makes this head.
    pub fn begin(&self, head: Head, entries: usize) {
        self.lock().under_way = Some((head, entries));
    }

    /// The chain has this head on disk: what was being written is, where it made that head.
    pub fn settle(&self, head: &Head) {
        let mut waiting = self.lock();
        let written = waiting.under_way.take().filter(|(expected, _)| expected == head);
        let Some((_, entries)) = written else { return };
        let done: Vec<_> = waiting.queue.drain(..entries).collect();
        waiting.written += entries as u64;
        waiting.since = (!waiting.queue.is_empty()).then(Instant::now);
        drop(waiting);
        drop(done);
        self.taken.notify_waiters();
    }

    /// How many entries are on disk of all that were added.
    pub fn written(&self) -> u64 {
        self.lock().written
    }

    /// How many entries wait.
    pub fn waiting(&self) -> usize {
        self.lock().queue.len()
    }
}

impl Waiting {
    fn push(&mut self, event: Event) {
        self.is_urgent |= !event.action.is_frequent();
        self.since.get_or_insert_with(Instant::now);
        self.added += 1;
        self.queue.push_back(Arc::new(event));
    }

    /// Whether nothing more has to gather.
    fn is_due(&self) -> bool {
        self.is_urgent || self.queue.len() >= BATCH
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::event;
    use super::*;

    fn head(sequence: u64) -> Head {
        Head { sequence, ..Head::genesis() }
    }

    #[test]
    fn what_is_not_written_stays() {
        let trail = Trail::new(true);
        for subject in ["a", "b", "c"] {
            trail.add(event(subject));
        }
        let subjects = || trail.front().iter().map(|event| event.subject.clone()).collect::<Vec<_>>();
        trail.begin(head(2), 2);
        trail.settle(&head(0));
        assert_eq!((subjects(), trail.written()), (vec!["a".into(), "b".into(), "c".into()], 0));
        trail.begin(head(2), 2);
        trail.settle(&head(2));
        assert_eq!((subjects(), trail.written()), (vec!["c".into()], 2));
        trail.settle(&head(2));
        assert_eq!(trail.written(), 2);
    }

    #[tokio::test]
    async fn who_adds_waits_for_room() {
        let trail = Arc::new(Trail::new(true));
        for _ in 0..MAX_WAITING {
            trail.add(event("a"));
        }
        let waiting = trail.clone();
        let mut waiting = tokio::spawn(async move { waiting.room().await });
        tokio::task::yield_now().await;
        assert!(!trail.has_room() && !waiting.is_finished());
        let origin = Arc::new(Origin::service());
        let refusal = Error::new(Code::Forbidden, "no");
        for _ in 0..3 {
            trail.refused(&origin, Action::KeyCreate, "", &refusal);
        }
        trail.close_refusals(true);
        trail.begin(head(2), 2);
        trail.settle(&head(2));
        (&mut waiting).await.expect("there is room");
        trail.close_refusals(true);
        assert_eq!(trail.waiting(), MAX_WAITING);
    }

    #[tokio::test]
    async fn executions_wait_before_there_is_no_room() {
        let trail = Arc::new(Trail::new(true));
        for _ in 0..MAX_WAITING / 2 {
            trail.add(event("a"));
        }
        assert!(trail.has_room() && !trail.is_calm());
        let waiting = trail.clone();
        let mut waiting = tokio::spawn(async move { waiting.calm().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        trail.begin(head(2), 2);
        trail.settle(&head(2));
        (&mut waiting).await.expect("it is calm");
    }

    #[tokio::test]
    async fn only_executions_gather() {
        let trail = Trail::new(true);
        trail.add(Event { action: Action::ExecutionEnd, ..event("a") });
        assert!(!trail.lock().is_due());
        trail.ready().await;
        trail.add(event("b"));
        assert!(trail.lock().is_due());
        trail.ready().await;
        trail.front();
        assert!(!trail.lock().is_due());
        assert_eq!(trail.hurry(), 2);
        trail.ready().await;
    }

    #[test]
    fn where_it_is_not_enabled_nothing_is_kept() {
        let trail = Trail::new(false);
        trail.add(event("a"));
        trail.refused(&Arc::new(Origin::service()), Action::KeyRead, "", &Error::invalid("no"));
        assert_eq!((trail.waiting(), trail.hurry()), (0, 0));
    }
}
