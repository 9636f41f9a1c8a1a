//! One execution that was taken in and has no outcome yet.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;

use super::queue::Entry;
use super::{Caller, Notice, tell};
use crate::execution::{Ended, Job, Progress, Snapshot};
use crate::executor;
use crate::measures::{self, Stage};

/// An execution that was taken in and has no outcome yet.
#[derive(Debug)]
pub struct Open {
    /// What runs, and with which input.
    pub job: Arc<Job>,
    /// Who gets its news.
    pub callers: Vec<Caller>,
    /// Its place in the order of acceptance.
    pub number: u64,
    /// When it was taken in, in milliseconds since the epoch.
    pub accepted_ms: u64,
    /// It is on record that it was accepted; before that nobody knows it.
    pub is_recorded: bool,
    /// Held until then.
    pub permit: Option<OwnedSemaphorePermit>,
    /// How often it was begun.
    pub attempts: u32,
    /// The last of its attempts that is on record as begun.
    pub recorded_attempt: u32,
    /// The last of them that was handed to the journal.
    pub written_attempt: u32,
    /// Whether each attempt goes on record before it begins.
    pub records_attempts: bool,
    /// How often it was tried again because it failed; an executor that was lost does not count.
    pub retries: u32,
    /// Somebody asked for its end.
    pub is_cancelled: bool,
    /// When it came into the stage that it is in.
    pub since: Instant,
    /// When its last attempt began, in milliseconds since the epoch.
    pub started_ms: Option<u64>,
    /// How far it has come.
    pub phase: Phase,
}

/// How far an open execution has come.
#[derive(Debug)]
pub enum Phase {
    /// It waits in the queue of its runtime.
    Queued,
    /// It is among the next, and that it begins goes on record before an executor is free.
    Next(Entry<Arc<Job>>),
    /// It has an executor, and begins once that is on record.
    Beginning { entry: Entry<Arc<Job>>, executor: executor::Ref },
    /// An executor runs it.
    Running { entry: Entry<Arc<Job>>, executor: executor::Ref },
    /// It failed, and waits for the time of its next attempt.
    Pausing(Entry<Arc<Job>>),
    /// It ended, and that goes on record.
    Ending(Arc<Ended>),
}

impl Open {
    /// An execution that waits.
    pub fn new(job: Arc<Job>, number: u64, accepted_ms: u64) -> Self {
        Self {
            records_attempts: !job.definition.spec.idempotent,
            job,
            callers: Vec::new(),
            number,
            accepted_ms,
            is_recorded: false,
            permit: None,
            attempts: 0,
            recorded_attempt: 0,
            written_attempt: 0,
            retries: 0,
            is_cancelled: false,
            since: Instant::now(),
            started_ms: None,
            phase: Phase::Queued,
        }
    }

    /// How often it was begun, but for what failed by itself and was tried again: once more than executors were lost with it.
    pub fn begins(&self) -> u32 {
        self.attempts.saturating_sub(self.retries)
    }

    /// Tells this one its news too. Those that are gone make room before more is taken.
    pub fn listen(&mut self, caller: Caller) {
        if self.callers.len() == self.callers.capacity() {
            self.callers.retain(Caller::is_there);
        }
        self.callers.push(caller);
    }

    /// It leaves a stage, and comes into the next.
    pub fn left(&mut self, stage: Stage) {
        let now = Instant::now();
        measures::left(stage, now - std::mem::replace(&mut self.since, now));
    }

    /// Tells everybody who wants its news.
    pub fn tell(&self, notice: &Notice) {
        self.callers.iter().for_each(|caller| tell(caller, notice.clone()));
    }

    /// What is known of it: what is not on record yet is not told.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { input: self.job.input.text.as_str().into(), ..self.outline() }
    }

    /// The same without its input, which may be large.
    pub fn outline(&self) -> Snapshot {
        let progress = match (&self.phase, self.started_ms) {
            (Phase::Running { .. } | Phase::Ending(_), Some(since)) => {
                Progress::Running(since, self.attempts)
            }
            _ => Progress::Queued,
        };
        Snapshot {
            uuid: self.job.uuid,
            kind: self.job.definition.kind,
            id: self.job.definition.id.clone(),
            revision: Some(self.job.definition.number),
            client: self.job.client,
            input: "".into(),
            accepted_ms: self.accepted_ms,
            progress,
        }
    }

    /// What is remembered of it once it ended so.
    pub fn ended(&self, ended: Arc<Ended>) -> Snapshot {
        Snapshot { progress: Progress::Ended(ended), ..self.snapshot() }
    }
}
