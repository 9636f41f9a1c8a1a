//! How executions end, each exactly once; and the end of the service.

use std::sync::Arc;

use ractor::{ActorId, RpcReplyPort};
use uuid::Uuid;

use super::open::Phase;
use super::{Msg, Notice, State};
use crate::audit::{Action, Detail, Event};
use crate::execution::{self, Ended, Job, Outcome, now_ms};
use crate::journal::Record;
use crate::measures::Stage;

impl State {
    pub(super) fn finished(&mut self, uuid: Uuid, attempt: u32, outcome: Outcome, from: ActorId) {
        let Some(open) = self.open.get_mut(&uuid) else { return };
        let is_current = matches!(&open.phase, Phase::Running { executor, .. } if executor.get_id() == from);
        if !is_current || open.attempts != attempt {
            // A late result of an earlier attempt.
            return;
        }
        self.by_executor.remove(&from);
        open.left(Stage::Run);
        match outcome.state {
            // The launcher failed, as an executor may.
            execution::State::Interrupted if open.job.definition.spec.idempotent => self.lost(uuid),
            execution::State::Failed | execution::State::TimedOut
                if !outcome.is_for_good() && self.may_retry(uuid) =>
            {
                self.pause(uuid, &outcome);
            }
            _ => self.settle(uuid, outcome),
        }
    }

    fn may_retry(&self, uuid: Uuid) -> bool {
        // In a drain what is on record goes on at the next start.
        (self.draining.is_none() || self.records.is_some())
            && self
                .open
                .get(&uuid)
                .is_some_and(|open| !open.is_cancelled && open.retries < open.job.definition.spec.retries.max)
    }

    /// Lets an execution that failed wait for the time of its next attempt.
    fn pause(&mut self, uuid: Uuid, outcome: &Outcome) {
        let Some(open) = self.open.get_mut(&uuid) else { return };
        let Phase::Running { entry, .. } = std::mem::replace(&mut open.phase, Phase::Queued) else { return };
        let runtime = open.job.runtime;
        if let Some(lane) = self.lanes.get_mut(&runtime) {
            lane.queue.release(&entry.definition);
        }
        let pause = open.job.definition.spec.retries.pause(open.retries, uuid);
        open.retries += 1;
        open.phase = Phase::Pausing(entry);
        if let Some(records) = &mut self.records {
            records.append(Record::Retry(uuid, open.attempts));
        }
        let (retry, state) = (open.retries, outcome.state.name());
        tracing::info!(%uuid, retry, state, pause_ms = pause.as_millis(), "an execution is tried again");
        if self.draining.is_some() {
            open.tell(&Notice::Postponed(uuid));
            open.callers.clear();
            return self.answer_drain();
        }
        self.effects.run(tokio::time::sleep(pause), move |_| Msg::Retry(uuid));
        self.schedule(runtime);
    }

    /// The end of an execution that an executor held.
    pub(super) fn settle(&mut self, uuid: Uuid, outcome: Outcome) {
        let Some(open) = self.open.get_mut(&uuid) else { return };
        let runtime = open.job.runtime;
        match std::mem::replace(&mut open.phase, Phase::Queued) {
            Phase::Next(entry) => self.not_next(&entry),
            Phase::Running { entry, .. } | Phase::Beginning { entry, .. } => {
                if let Some(lane) = self.lanes.get_mut(&runtime) {
                    lane.queue.release(&entry.definition);
                }
            }
            _ => {}
        }
        self.conclude(uuid, outcome);
        // One of the same definition may have waited for this one.
        self.schedule(runtime);
        self.answer_drain();
    }

    /// The one place where an accepted execution ends: its outcome goes on record, then its callers are told.
    pub(super) fn conclude(&mut self, uuid: Uuid, outcome: Outcome) {
        let Some(open) = self.open.get_mut(&uuid) else { return };
        report(&open.job, &outcome);
        self.definitions.ended(open.job.definition.kind, &open.job.definition.id, outcome.state);
        let (started_ms, attempts) = (open.started_ms, open.attempts);
        let log = open.job.kept.text().map(Into::into);
        // One that was begun by an earlier process is not known to have begun here.
        let ran_here = started_ms.is_some() && open.job.runtime.is_sandboxed();
        let sandbox = self.sandbox.filter(|_| ran_here);
        // The clock may have been set back meanwhile.
        let ended_ms = started_ms.map_or_else(now_ms, |started| now_ms().max(started));
        let ended = Arc::new(Ended { outcome, started_ms, ended_ms, attempts, sandbox, log });
        match &mut self.records {
            Some(records) => {
                open.phase = Phase::Ending(ended.clone());
                records.append(Record::Ended(uuid, ended));
            }
            None => {
                open.phase = Phase::Ending(ended);
                self.ended(uuid);
            }
        }
    }

    /// Its outcome is on record.
    pub(super) fn ended(&mut self, uuid: Uuid) {
        let is_ending = |open: &super::Open| matches!(open.phase, Phase::Ending(_));
        if !self.open.get(&uuid).is_some_and(is_ending) {
            return;
        }
        let Some((mut open, key)) = self.close(uuid) else { return };
        open.left(Stage::End);
        if let Some(lane) = self.lanes.get_mut(&open.job.runtime) {
            lane.count_end();
        }
        let Phase::Ending(ended) = &open.phase else { return };
        self.trail.add(event(&open.job, ended));
        open.tell(&Notice::Finished(uuid, ended.outcome.clone()));
        self.remembered.insert(open.ended(ended.clone()), key);
    }

    /// What waits stays on record for the next start; where nothing is journalled, it ends.
    pub(super) fn drain(&mut self, reply: RpcReplyPort<()>) {
        self.draining.get_or_insert_default().push(reply);
        let waits = |phase: &Phase| matches!(phase, Phase::Queued | Phase::Pausing(_));
        let waiting: Vec<Uuid> =
            self.open.iter().filter(|(_, open)| waits(&open.phase)).map(|(uuid, _)| *uuid).collect();
        for lane in self.lanes.values_mut() {
            lane.queue.drain();
        }
        self.queued_bytes = 0;
        for uuid in waiting {
            if self.records.is_none() {
                self.conclude(
                    uuid,
                    Outcome::interrupted("the service shut down before this execution began"),
                );
            } else if let Some(open) = self.open.get_mut(&uuid)
                && open.is_recorded
            {
                open.tell(&Notice::Postponed(uuid));
                open.callers.clear();
            }
        }
        self.answer_drain();
    }

    /// Answers when nothing runs any more and all that is known is on record.
    pub(super) fn answer_drain(&mut self) {
        // Most ends are not the service's, and many executions may wait behind this one.
        let Some(replies) = &mut self.draining else { return };
        let is_busy = |open: &super::Open| !matches!(open.phase, Phase::Queued | Phase::Pausing(_));
        let is_unwritten = self.records.as_ref().is_some_and(|records| !records.is_empty());
        if !is_unwritten && !self.open.values().any(is_busy) {
            replies.drain(..).for_each(|reply| drop(reply.send(())));
        }
    }

    pub(super) fn interrupt(&mut self) {
        self.by_executor.clear();
        let runs =
            |phase: &Phase| matches!(phase, Phase::Running { .. } | Phase::Beginning { .. } | Phase::Next(_));
        let running: Vec<Uuid> =
            self.open.iter().filter(|(_, open)| runs(&open.phase)).map(|(uuid, _)| *uuid).collect();
        for uuid in running {
            self.settle(uuid, Outcome::interrupted("the service shut down while this execution was running"));
        }
    }
}

/// How the end of an execution stands in the audit log.
fn event(job: &Job, ended: &Ended) -> Event {
    let detail = Detail::of_end(job, ended);
    let done = Event::done(job.origin.clone(), Action::ExecutionEnd, job.uuid, detail);
    Event { result: ended.outcome.state.name(), ..done }
}

fn report(job: &Job, outcome: &Outcome) {
    let (uuid, kind, id) = (job.uuid, job.definition.kind.name(), &job.definition.id);
    match &outcome.result {
        Ok(_) => tracing::info!(%uuid, kind, id, state = outcome.state.name(), "execution ended"),
        Err(failure) => {
            tracing::info!(%uuid, kind, id, state = outcome.state.name(), code = &*failure.code, "execution ended")
        }
    }
}
