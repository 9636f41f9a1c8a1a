//! One runtime in the dispatcher: its queue, and its idle executors.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::ActorId;
use uuid::Uuid;

use super::queue::{DefinitionKey, Queue};
use crate::execution::{Job, Runtime};
use crate::executor;
use crate::settings::PoolSettings;

/// How much the last look counts in the rate at which executions end.
const WEIGHT: f64 = 0.2;

/// About how long it takes that a record is on disk, in seconds: what will begin within that time is noted before.
const COMMIT_SECONDS: f64 = 0.02;

/// How many at most wait noted as begun; where the service ends before they begin, those that run only once are interrupted.
const MAX_NEXT: usize = 128;

/// What waits for a runtime and who could run it.
#[derive(Debug)]
pub struct Lane {
    /// What waits.
    pub queue: Queue<Arc<Job>>,
    /// What was taken from the queue and begins next, in this order.
    pub next: VecDeque<Uuid>,
    settings: PoolSettings,
    /// Whether executors keep something of the definition that they ran last.
    keeps_warm: bool,
    /// The last to become idle at the end.
    idle: Vec<(executor::Ref, Instant)>,
    /// What each executor ran last.
    ran: HashMap<ActorId, DefinitionKey>,
    /// How many executions ended since the last look, and how many end in a second of late.
    ended: u32,
    rate: f64,
    /// The pool was told that more executors would help, and has not sent one since.
    asked_to_grow: bool,
}

impl Lane {
    /// Nothing waits, and nobody is idle.
    pub fn new(runtime: Runtime, settings: PoolSettings) -> Self {
        Self {
            queue: Queue::new(settings.queue),
            next: VecDeque::new(),
            settings,
            keeps_warm: matches!(runtime, Runtime::Container | Runtime::Python | Runtime::Wasm),
            idle: Vec::new(),
            ran: HashMap::new(),
            ended: 0,
            rate: 0.0,
            asked_to_grow: false,
        }
    }

    /// An execution ended.
    pub fn count_end(&mut self) {
        self.ended += 1;
    }

    /// So much time passed since the last look at what ended.
    pub fn look(&mut self, passed: Duration) {
        let now = f64::from(std::mem::take(&mut self.ended)) / passed.as_secs_f64();
        self.rate += (now - self.rate) * WEIGHT;
    }

    /// How many more are to be next: as many as begin while a record is written, so none where executions take long.
    pub fn wanted_next(&self) -> usize {
        ((self.rate * COMMIT_SECONDS) as usize).min(MAX_NEXT).saturating_sub(self.next.len())
    }

    /// How many wait for an executor.
    pub fn waiting(&self) -> usize {
        self.queue.len() + self.next.len()
    }

    /// So many executions end in a second.
    #[cfg(test)]
    pub fn set_rate(&mut self, rate: f64) {
        self.rate = rate;
    }

    /// When about a tenth of what waits will have ended: then it is worth to come back.
    pub fn comes_free_in(&self) -> Duration {
        let seconds = self.waiting() as f64 / 10.0 / self.rate.max(0.001);
        Duration::from_secs_f64(seconds.clamp(0.1, 60.0))
    }

    /// Other bounds hold.
    pub fn resize(&mut self, settings: PoolSettings) {
        self.queue.set_bound(settings.queue);
        self.settings = settings;
        self.asked_to_grow = false;
    }

    /// Whether this executor is known to be idle.
    pub fn is_idle(&self, id: ActorId) -> bool {
        self.idle.iter().any(|(idle, _)| idle.get_id() == id)
    }

    /// The pool has sent an executor.
    pub fn has_grown(&mut self) {
        self.asked_to_grow = false;
    }

    /// This executor has nothing to do.
    pub fn add_idle(&mut self, executor: executor::Ref) {
        self.idle.push((executor, Instant::now()));
    }

    /// Whether anybody is idle.
    pub fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// How many are idle.
    pub fn idle_count(&self) -> usize {
        self.idle.len()
    }

    /// The executor that is to run this definition: one that ran it last, else one that keeps nothing yet, else the
    /// one that was idle for longest, whose warm process is the least missed. Where nothing is kept, the last one to
    /// become idle, so that the others can be let go.
    pub fn take_idle(&mut self, definition: &DefinitionKey) -> Option<executor::Ref> {
        if !self.keeps_warm {
            return self.idle.pop().map(|(executor, _)| executor);
        }
        let ran = |(executor, _): &(executor::Ref, Instant)| self.ran.get(&executor.get_id());
        let same = self.idle.iter().rposition(|idle| ran(idle) == Some(definition));
        let index = same.or_else(|| self.idle.iter().position(|idle| ran(idle).is_none())).unwrap_or(0);
        if index >= self.idle.len() {
            return None;
        }
        let (executor, _) = self.idle.remove(index);
        if same.is_none() {
            self.ran.insert(executor.get_id(), definition.clone());
        }
        Some(executor)
    }

    /// How many more executors the pool is to be asked for now.
    pub fn wants_to_grow(&mut self) -> Option<usize> {
        let wanted = self.waiting();
        let would_help = wanted > 0 && !self.has_idle();
        let was_asked = std::mem::replace(&mut self.asked_to_grow, would_help);
        (would_help && !was_asked).then_some(wanted)
    }

    /// Those that were idle for long, who are no longer counted on.
    pub fn take_long_idle(&mut self, now: Instant) -> impl Iterator<Item = executor::Ref> {
        let idle_for = self.settings.idle();
        let is_long = |(_, since): &&(executor::Ref, Instant)| now.duration_since(*since) >= idle_for;
        let long = self.idle.iter().take_while(is_long).count();
        self.idle.drain(..long).map(|(executor, _)| executor)
    }

    /// This executor is gone.
    pub fn forget(&mut self, executor: ActorId) {
        self.idle.retain(|(idle, _)| idle.get_id() != executor);
        self.ran.remove(&executor);
    }

    /// All executors are gone.
    pub fn forget_all(&mut self) {
        self.idle.clear();
        self.ran.clear();
        self.asked_to_grow = false;
    }
}
