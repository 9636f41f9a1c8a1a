//! What is taken in, and who hears of it.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::lane::Lane;
use super::open::{Open, Phase};
use super::queue::Entry;
use super::{Attached, Caller, Cancelled, Notice, State, tell};
use crate::audit::{Action, Detail};
use crate::definition::Subject;
use crate::error::{Code, Error};
use crate::execution::{Client, Ended, Job, Key, Outcome, Progress, Runtime, Snapshot, now_ms};
use crate::executor;
use crate::journal::{Accepted, Record};
use crate::measures::{self, Stage};

impl State {
    pub(super) fn submit(
        &mut self,
        job: Job,
        caller: Caller,
        permit: OwnedSemaphorePermit,
        recorded: Option<Box<Snapshot>>,
    ) {
        let job = Arc::new(job);
        let key = job.key();
        if let Some(key) = &key
            && self.is_known(&job, key, &caller, recorded)
        {
            return;
        }
        if let Err(error) = self.admit(&job) {
            measures::refused(error.code());
            self.trail.refused(&job.origin, Action::ExecutionAccept, subject(&job), &error);
            return tell(&caller, Notice::Refused(job.uuid, error));
        }
        measures::accepted(job.definition.kind);
        let (uuid, runtime) = (job.uuid, job.runtime);
        tracing::debug!(%uuid, %runtime, "accepted");
        let mut open = Open::new(job.clone(), self.next_number, now_ms());
        self.next_number += 1;
        open.callers.push(caller);
        if let Some(key) = key {
            self.keys.insert(key, uuid);
        }
        if self.records.is_none() {
            open.is_recorded = true;
            self.trail.done(&job.origin, Action::ExecutionAccept, uuid, Detail::of(&job));
            open.tell(&Notice::Accepted(uuid));
            self.open.insert(uuid, open);
            return self.schedule(runtime);
        }
        open.permit = Some(permit);
        self.open.insert(uuid, open);
        // Where an executor is free, one record says both that it was accepted and that it begins.
        self.schedule(runtime);
        let (Some(open), Some(records)) = (self.open.get_mut(&uuid), &mut self.records) else { return };
        let is_begun = matches!(open.phase, Phase::Beginning { .. } | Phase::Next(_));
        if is_begun {
            open.recorded_attempt = open.attempts;
        }
        let (number, accepted_ms) = (open.number, open.accepted_ms);
        records.append(Record::Accepted(Accepted { job, number, accepted_ms, is_begun }));
    }

    /// Whether there is an execution under this key: then its news go to this caller too. With another input the key is
    /// taken.
    fn is_known(&mut self, job: &Job, key: &Key, caller: &Caller, recorded: Option<Box<Snapshot>>) -> bool {
        let open = self.keys.get(key).and_then(|uuid| self.open.get_mut(uuid));
        let (uuid, input) = match (&open, self.remembered.of_key(key), &recorded) {
            (Some(open), ..) => (open.job.uuid, &*open.job.input.text),
            (None, Some(ended), _) => (ended.uuid, &*ended.input),
            (None, None, Some(recorded)) => (recorded.uuid, &*recorded.input),
            (None, None, None) => return false,
        };
        if input != job.input.text {
            let taken = "this idempotency key was used for this definition with another input";
            let error = Error::new(Code::Conflict, taken);
            self.trail.refused(&job.origin, Action::ExecutionAccept, subject(job), &error);
            tell(caller, Notice::Refused(job.uuid, error));
            return true;
        }
        if let Some(open) = open {
            tell(caller, Notice::Known(job.uuid, uuid));
            if open.is_recorded {
                tell(caller, Notice::Accepted(uuid));
            }
            open.listen(caller.clone());
            return true;
        }
        let ended = self.remembered.ended(uuid).or_else(|| match &recorded.as_ref()?.progress {
            Progress::Ended(ended) => Some(ended.clone()),
            _ => None,
        });
        match ended {
            Some(ended) => {
                tell(caller, Notice::Known(job.uuid, uuid));
                tell(caller, Notice::Accepted(uuid));
                tell(caller, Notice::Finished(uuid, ended.outcome.clone()));
            }
            // All that is open is known here: what came of recording this one is not known yet.
            None => {
                let unknown =
                    "what came of the execution with this idempotency key is not on record; try again later";
                tell(caller, Notice::Refused(job.uuid, Error::unavailable(unknown)));
            }
        }
        true
    }

    fn admit(&mut self, job: &Arc<Job>) -> Result<(), Error> {
        if self.draining.is_some() {
            return Err(Error::new(Code::Draining, "the service is shutting down"));
        }
        if self.open.contains_key(&job.uuid) {
            return Err(Error::new(Code::Conflict, "there is an execution with this uuid"));
        }
        if self.records.as_ref().is_some_and(|records| records.is_failing()) {
            return Err(Error::unavailable("executions cannot be recorded at the moment; try again later"));
        }
        if !self.trail.has_room() {
            return Err(Error::unavailable("the audit log cannot be written at the moment; try again later"));
        }
        let (runtime, bytes) = (job.runtime, job.input.text.len());
        let no_pool = || Error::unavailable(format!("the runtime {runtime} is not available"));
        let lane = self.lanes.get_mut(&runtime).ok_or_else(no_pool)?;
        let overloaded = |lane: &Lane, message: String| {
            Err(Error::new(Code::Overloaded, message).after(lane.comes_free_in()))
        };
        if self.queued_bytes + bytes > self.max_queued_bytes && !lane.queue.is_empty() {
            return overloaded(lane, "the inputs that wait are too large together; try again later".into());
        }
        let max = job.max_open.map_or(self.max_per_client, |own| own.min(self.max_per_client));
        if self.of_clients.get(&job.client).is_some_and(|open| *open >= max) {
            return overloaded(lane, format!("this client has {max} executions open; try again later"));
        }
        if lane.queue.push(entry(job)).is_err() {
            return overloaded(lane, format!("the queue of the runtime {runtime} is full; try again later"));
        }
        self.count_open(job.client);
        self.queued_bytes += bytes;
        Ok(())
    }

    /// It is on record that this one was accepted.
    pub(super) fn accepted(&mut self, uuid: Uuid) {
        let Some(open) = self.open.get_mut(&uuid) else { return };
        if std::mem::replace(&mut open.is_recorded, true) {
            return;
        }
        open.permit = None;
        open.left(Stage::Accept);
        self.trail.done(&open.job.origin, Action::ExecutionAccept, uuid, Detail::of(&open.job));
        open.tell(&Notice::Accepted(uuid));
        match open.phase {
            Phase::Beginning { .. } => self.begin(uuid),
            Phase::Next(_) => drop(self.note(uuid)),
            Phase::Queued if self.draining.is_some() => open.tell(&Notice::Postponed(uuid)),
            _ => {}
        }
    }

    /// One more execution of this client is open.
    pub(super) fn count_open(&mut self, client: Client) {
        *self.of_clients.entry(client).or_default() += 1;
    }

    /// Takes out an execution that is open no more, with all by which it was known: its key.
    pub(super) fn close(&mut self, uuid: Uuid) -> Option<(Open, Option<Key>)> {
        let open = self.open.remove(&uuid)?;
        if let Some(of_client) = self.of_clients.get_mut(&open.job.client) {
            *of_client -= 1;
            if *of_client == 0 {
                self.of_clients.remove(&open.job.client);
            }
        }
        let key = open.job.key();
        if let Some(key) = &key {
            self.keys.remove(key);
        }
        Some((open, key))
    }

    /// Whether it is on record that this one was accepted is unknown: it never runs.
    pub(super) fn not_accepted(&mut self, uuid: Uuid) {
        let Some((open, _)) = self.close(uuid) else { return };
        let unknown =
            Error::unavailable("the execution could not be recorded, and does not run; try again later");
        self.trail.refused(&open.job.origin, Action::ExecutionAccept, subject(&open.job), &unknown);
        open.tell(&Notice::Refused(uuid, unknown));
        let runtime = open.job.runtime;
        let outcome = match open.phase {
            Phase::Queued | Phase::Pausing(_) => {
                self.take_waiting(runtime, uuid);
                None
            }
            Phase::Next(entry) => {
                self.not_next(&entry);
                None
            }
            Phase::Beginning { entry, executor } | Phase::Running { entry, executor } => {
                self.give_back(runtime, &entry, executor);
                None
            }
            Phase::Ending(ended) => Some(ended),
        };
        // Should it be on record after all, then so is its end.
        let outcome = outcome.unwrap_or_else(|| {
            Arc::new(Ended {
                outcome: Outcome::unrecorded(),
                started_ms: None,
                ended_ms: now_ms(),
                attempts: 0,
                sandbox: None,
                log: None,
            })
        });
        if let Some(records) = &mut self.records {
            records.append(Record::Ended(uuid, outcome));
        }
        self.schedule(runtime);
    }

    pub(super) fn attach(&mut self, uuid: Uuid, caller: Caller) -> Attached {
        match self.open.get_mut(&uuid) {
            Some(open) if open.is_recorded => {
                open.listen(caller);
                Attached::Open
            }
            // Nobody can know of it yet but its own caller, who is told otherwise.
            Some(_) => Attached::Unknown,
            None => self.remembered.ended(uuid).map_or(Attached::Unknown, Attached::Ended),
        }
    }

    pub(super) fn cancel(&mut self, uuid: Uuid) -> Cancelled {
        let Some(open) = self.open.get_mut(&uuid) else {
            return if self.remembered.get(uuid).is_some() { Cancelled::Ended } else { Cancelled::Unknown };
        };
        let runtime = open.job.runtime;
        match &open.phase {
            Phase::Ending(_) => return Cancelled::Ended,
            Phase::Running { executor, .. } => {
                open.is_cancelled = true;
                // One that died is found, and its execution ends cancelled then.
                drop(executor.cast(executor::Msg::Cancel { uuid, attempt: open.attempts }));
                return Cancelled::Asked;
            }
            Phase::Queued => self.take_waiting(runtime, uuid),
            Phase::Pausing(_) | Phase::Next(_) | Phase::Beginning { .. } => {
                match std::mem::replace(&mut open.phase, Phase::Queued) {
                    Phase::Beginning { entry, executor } => self.give_back(runtime, &entry, executor),
                    Phase::Next(entry) => self.not_next(&entry),
                    _ => {}
                }
            }
        }
        self.conclude(uuid, Outcome::cancelled());
        self.schedule(runtime);
        Cancelled::Asked
    }

    pub(super) fn take_waiting(&mut self, runtime: Runtime, uuid: Uuid) {
        let lane = self.lanes.get_mut(&runtime);
        if let Some(entry) = lane.and_then(|lane| lane.queue.remove(|job| job.uuid == uuid)) {
            self.queued_bytes = self.queued_bytes.saturating_sub(entry.item.input.text.len());
        }
    }

    /// What was next does not begin: another one of its definition may.
    pub(super) fn not_next(&mut self, entry: &Entry<Arc<Job>>) {
        if let Some(lane) = self.lanes.get_mut(&entry.item.runtime) {
            lane.next.retain(|next| *next != entry.item.uuid);
            lane.queue.release(&entry.definition);
        }
    }

    /// An executor that was to begin an execution has nothing to do after all.
    fn give_back(&mut self, runtime: Runtime, entry: &Entry<Arc<Job>>, executor: executor::Ref) {
        self.by_executor.remove(&executor.get_id());
        if let Some(lane) = self.lanes.get_mut(&runtime) {
            lane.queue.release(&entry.definition);
            lane.add_idle(executor);
        }
    }
}

/// How the audit log calls what was to run: where that is refused, nobody was told a uuid.
fn subject(job: &Job) -> Subject<'_> {
    job.definition.kind.subject(&job.definition.id)
}

/// What waits in the queue for this execution.
pub(super) fn entry(job: &Arc<Job>) -> Entry<Arc<Job>> {
    let definition = (job.definition.kind, job.definition.id.clone());
    Entry::new(job.options.priority, job.client, definition, job.definition.spec.max_concurrency, job.clone())
}
