//! Whose turn it is, and what begins.

use std::sync::Arc;

use uuid::Uuid;

use super::open::{Open, Phase};
use super::queue::Entry;
use super::records::Records;
use super::{Notice, State};
use crate::execution::{Job, Runtime, now_ms};
use crate::journal::Record;
use crate::measures::Stage;
use crate::{executor, pool};

impl State {
    pub(super) fn idle(&mut self, runtime: Runtime, executor: executor::Ref) {
        let Some(lane) = self.lanes.get_mut(&runtime) else { return };
        let id = executor.get_id();
        // It may report both by itself and when told of a new dispatcher.
        if self.by_executor.contains_key(&id) || lane.is_idle(id) {
            return;
        }
        lane.add_idle(executor);
        self.schedule(runtime);
    }

    /// Hands out what may run, as long as somebody is idle.
    pub(super) fn schedule(&mut self, runtime: Runtime) {
        if self.held.is_some() {
            return;
        }
        while let Some((entry, executor)) = self.next(runtime) {
            let uuid = entry.item.uuid;
            let Some(open) = self.open.get_mut(&uuid) else { continue };
            self.by_executor.insert(executor.get_id(), uuid);
            open.phase = Phase::Beginning { entry, executor };
            self.begin(uuid);
        }
        self.look_ahead(runtime);
        let wanted = self.lanes.get_mut(&runtime).and_then(super::Lane::wants_to_grow);
        if let Some(wanted) = wanted {
            self.names.tell::<pool::Msg>(&self.names.pool(runtime), pool::Msg::Grow(wanted));
        }
    }

    /// The same of all runtimes.
    pub(super) fn schedule_all(&mut self) {
        let runtimes: Vec<_> = self.lanes.keys().copied().collect();
        runtimes.into_iter().for_each(|runtime| self.schedule(runtime));
    }

    /// What begins now: what was next already, or else the first of the queue.
    fn next(&mut self, runtime: Runtime) -> Option<(Entry<Arc<Job>>, executor::Ref)> {
        if !self.lanes.get(&runtime)?.has_idle() {
            return None;
        }
        let entry = self.first_of_next(runtime).or_else(|| self.claim(runtime))?;
        match self.lanes.get_mut(&runtime)?.take_idle(&entry.definition) {
            Some(executor) => Some((entry, executor)),
            None => {
                self.unclaim(entry);
                None
            }
        }
    }

    fn first_of_next(&mut self, runtime: Runtime) -> Option<Entry<Arc<Job>>> {
        let lane = self.lanes.get_mut(&runtime)?;
        while let Some(uuid) = lane.next.pop_front() {
            let Some(open) = self.open.get_mut(&uuid) else { continue };
            if let Phase::Next(_) = open.phase
                && let Phase::Next(entry) = std::mem::replace(&mut open.phase, Phase::Queued)
            {
                return Some(entry);
            }
        }
        None
    }

    /// Takes the first of the queue out, for its next attempt.
    fn claim(&mut self, runtime: Runtime) -> Option<Entry<Arc<Job>>> {
        // What cannot be recorded is not begun: its outcome would have to be kept, and it would run again after a crash.
        if self.draining.is_some() || self.records.as_ref().is_some_and(Records::is_full) {
            return None;
        }
        let entry = self.lanes.get_mut(&runtime)?.queue.pop()?;
        self.queued_bytes = self.queued_bytes.saturating_sub(entry.item.input.text.len());
        if let Some(open) = self.open.get_mut(&entry.item.uuid) {
            open.attempts += 1;
        }
        Some(entry)
    }

    /// What was claimed waits again, at its old place.
    pub(super) fn unclaim(&mut self, entry: Entry<Arc<Job>>) {
        if let Some(open) = self.open.get_mut(&entry.item.uuid) {
            open.attempts -= 1;
        }
        self.queue_again(entry);
    }

    /// Claims what will begin soon, so that no executor waits until that is on record.
    fn look_ahead(&mut self, runtime: Runtime) {
        if self.records.is_none() {
            return;
        }
        let wanted = self.lanes.get(&runtime).map_or(0, super::Lane::wanted_next);
        for _ in 0..wanted {
            let Some(entry) = self.claim(runtime) else { return };
            let uuid = entry.item.uuid;
            let (Some(open), Some(lane)) = (self.open.get_mut(&uuid), self.lanes.get_mut(&runtime)) else {
                continue;
            };
            open.phase = Phase::Next(entry);
            lane.next.push_back(uuid);
            self.note(uuid);
        }
    }

    /// Whether all is on record that must be before it begins; what is not is handed in.
    pub(super) fn note(&mut self, uuid: Uuid) -> bool {
        let Some(open) = self.open.get_mut(&uuid) else { return false };
        if !open.is_recorded {
            return false;
        }
        let Some(records) = &mut self.records else { return true };
        let attempt = open.attempts;
        if !open.records_attempts || open.recorded_attempt >= attempt {
            return true;
        }
        if open.written_attempt < attempt {
            open.written_attempt = attempt;
            records.append(Record::Attempt(uuid, attempt));
        }
        false
    }

    /// Begins an execution that has its executor, once all that must be on record is.
    pub(super) fn begin(&mut self, uuid: Uuid) {
        let is_beginning = |open: &Open| matches!(open.phase, Phase::Beginning { .. });
        if !self.open.get(&uuid).is_some_and(is_beginning) || !self.note(uuid) {
            return;
        }
        let Some(open) = self.open.get_mut(&uuid) else { return };
        let Phase::Beginning { entry, executor } = std::mem::replace(&mut open.phase, Phase::Queued) else {
            return;
        };
        let (job, attempt, dispatcher) = (open.job.clone(), open.attempts, self.myself.clone());
        if executor.cast(executor::Msg::Run { job, attempt, dispatcher }).is_err() {
            // It died idle; its pool will say so.
            self.by_executor.remove(&executor.get_id());
            return self.unclaim(entry);
        }
        open.started_ms = Some(now_ms());
        open.left(Stage::Queue);
        open.phase = Phase::Running { entry, executor };
        if open.job.options.stream {
            open.tell(&Notice::Started(uuid));
        }
    }

    /// This attempt is on record.
    pub(super) fn attempt_recorded(&mut self, uuid: Uuid, attempt: u32) {
        let Some(open) = self.open.get_mut(&uuid) else { return };
        open.recorded_attempt = open.recorded_attempt.max(attempt);
        let runtime = open.job.runtime;
        self.begin(uuid);
        self.schedule(runtime);
    }

    /// An execution that was handed out waits again, at its old place.
    pub(super) fn queue_again(&mut self, entry: Entry<Arc<Job>>) {
        if let Some(lane) = self.lanes.get_mut(&entry.item.runtime) {
            self.queued_bytes += entry.item.input.text.len();
            lane.queue.put_back(entry);
        }
    }

    pub(super) fn retry(&mut self, uuid: Uuid) {
        // It may have been cancelled meanwhile.
        let Some(open) = self.open.get_mut(&uuid) else { return };
        if !matches!(open.phase, Phase::Pausing(_)) {
            return;
        }
        let Phase::Pausing(entry) = std::mem::replace(&mut open.phase, Phase::Queued) else { return };
        let runtime = open.job.runtime;
        if let Some(lane) = self.lanes.get_mut(&runtime) {
            self.queued_bytes += entry.item.input.text.len();
            lane.queue.take_back(entry);
            self.schedule(runtime);
        }
    }
}
