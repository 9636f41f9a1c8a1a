//! What becomes of executions whose executor is gone.

use std::collections::HashSet;

use ractor::{ActorId, ActorStatus};
use uuid::Uuid;

use super::State;
use super::open::Phase;
use crate::execution::{Outcome, Runtime};
use crate::executor;

/// How many times an idempotent execution is begun when its executors keep dying.
pub(super) const MAX_ATTEMPTS: u32 = 5;

impl State {
    pub(super) fn executor_down(&mut self, executor: ActorId) {
        for lane in self.lanes.values_mut() {
            lane.forget(executor);
        }
        if let Some(uuid) = self.by_executor.remove(&executor) {
            self.lost(uuid);
        }
    }

    pub(super) fn pool_down(&mut self, runtime: Runtime) {
        if let Some(lane) = self.lanes.get_mut(&runtime) {
            lane.forget_all();
        }
        let held = |uuid: &Uuid| self.open.get(uuid).is_some_and(|open| open.job.runtime == runtime);
        let lost: Vec<(ActorId, Uuid)> = self
            .by_executor
            .iter()
            .filter(|(_, uuid)| held(uuid))
            .map(|(executor, uuid)| (*executor, *uuid))
            .collect();
        for (executor, uuid) in lost {
            self.by_executor.remove(&executor);
            self.lost(uuid);
        }
    }

    /// What was running when its executor died: an idempotent one has another turn, any other has ended. What had not
    /// begun waits again.
    pub(super) fn lost(&mut self, uuid: Uuid) {
        let Some(open) = self.open.get_mut(&uuid) else { return };
        let runtime = open.job.runtime;
        if let Phase::Beginning { .. } = open.phase
            && let Phase::Beginning { entry, .. } = std::mem::replace(&mut open.phase, Phase::Queued)
        {
            self.unclaim(entry);
            return self.schedule(runtime);
        }
        let outcome = if open.is_cancelled {
            Some(Outcome::cancelled())
        } else if !open.job.definition.spec.idempotent {
            Some(Outcome::interrupted("the executor of this execution failed"))
        } else if self.draining.is_some() {
            Some(Outcome::interrupted("the executor of this execution failed during a shutdown"))
        } else if open.begins() >= MAX_ATTEMPTS {
            Some(Outcome::crash_loop(MAX_ATTEMPTS))
        } else {
            None
        };
        if let Some(outcome) = outcome {
            return self.settle(uuid, outcome);
        }
        let attempts = open.attempts;
        if let Phase::Running { entry, .. } = std::mem::replace(&mut open.phase, Phase::Queued) {
            tracing::warn!(%uuid, attempts, "the executor failed; this execution is queued again");
            self.queue_again(entry);
            self.schedule(runtime);
        }
    }

    /// An execution handed to an executor that was just being killed with its pool is told by nobody. An executor
    /// counts as dead at the second look: its last message may be on the way at the first.
    pub(super) fn forget_the_dead(&mut self) {
        let is_dead = |executor: &executor::Ref| executor.get_status() >= ActorStatus::Stopping;
        let held = self.by_executor.values().filter_map(|uuid| match &self.open.get(uuid)?.phase {
            Phase::Running { executor, .. } | Phase::Beginning { executor, .. } => Some(executor),
            _ => None,
        });
        let dead: HashSet<ActorId> =
            held.filter(|executor| is_dead(executor)).map(|executor| executor.get_id()).collect();
        let known = std::mem::replace(&mut self.dead, dead.clone());
        dead.intersection(&known).for_each(|executor| self.executor_down(*executor));
    }
}
