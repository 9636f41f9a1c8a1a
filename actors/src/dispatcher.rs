//! The dispatcher is the queue: what is admitted, in which order it runs, what is running.
//!
//! Executors report to it when they are idle, and it hands each one execution. Root supervises it. When it dies,
//! every open execution ends `interrupted`: Root tells the sessions, and the executors drop what they run and
//! report to the next dispatcher.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, ActorStatus, DerivedActorRef, RpcReplyPort};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use crate::effects::Effects;
use crate::error::{Code, Error};
use crate::execution::{Job, Outcome, Runtime};
use crate::executor;
use crate::names::Names;
use crate::pool;
use crate::settings::PoolSettings;

pub mod queue;

use queue::{DefinitionKey, Entry, Queue};

/// A reference to the dispatcher.
pub type Ref = ActorRef<Msg>;

/// How often idle executors are looked at.
const TICK: Duration = Duration::from_millis(250);

/// How many times an idempotent execution is begun when its executors keep dying.
const MAX_ATTEMPTS: u32 = 5;

/// What the dispatcher does.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields of a message are named for what they are")]
pub enum Msg {
    /// Take an execution in, or refuse it.
    Submit { job: Box<Job>, caller: Caller, permit: OwnedSemaphorePermit },
    /// An executor has nothing to do.
    Idle { runtime: Runtime, executor: executor::Ref },
    /// An execution ended; its executor has nothing to do, or goes.
    Finished {
        uuid: Uuid,
        attempt: u32,
        outcome: Box<Outcome>,
        runtime: Runtime,
        executor: executor::Ref,
        is_idle: bool,
    },
    /// An executor is gone, with whatever it was running.
    ExecutorDown(ActorId),
    /// A pool is gone, with all its executors.
    PoolDown(Runtime),
    /// The pools have other bounds now.
    Resize(BTreeMap<Runtime, PoolSettings>),
    /// Time to look at idle executors.
    Tick,
    /// Take nothing new in, end what waits, and answer when nothing runs.
    Drain(RpcReplyPort<()>),
    /// End what still runs.
    Interrupt,
    /// Tell what waits and runs.
    Stats(RpcReplyPort<BTreeMap<Runtime, Stats>>),
    /// Panic, for a test.
    #[cfg(feature = "faults")]
    Panic,
}

/// Where an execution's news go. It stays with the dispatcher's record and never travels with the worker.
pub type Caller = DerivedActorRef<Notice>;

/// News of one execution.
#[derive(Clone, Debug)]
pub enum Notice {
    /// It is in the queue.
    Accepted(Uuid),
    /// It was not taken in.
    Refused(Error),
    /// It began to run.
    Started(Uuid),
    /// It ended.
    Finished(Uuid, Outcome),
}

/// What `/system` shows of one runtime's queue.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Stats {
    /// Executions that wait.
    pub queued: usize,
    /// Executions that an executor holds.
    pub running: usize,
    /// Executors without work.
    pub idle: usize,
}

/// What a dispatcher starts with.
#[derive(Debug)]
pub struct Args {
    /// How the others are found.
    pub names: Names,
    /// `[pools]`.
    pub pools: BTreeMap<Runtime, PoolSettings>,
    /// How many bytes of input may wait.
    pub max_queued_bytes: usize,
}

/// The actor.
#[derive(Debug)]
pub struct DispatcherActor;

impl Actor for DispatcherActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: Ref, args: Args) -> Result<State, ActorProcessingErr> {
        Ok(State::new(myself, args))
    }

    async fn handle(&self, _: Ref, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Submit { job, caller, permit } => state.submit(*job, caller, permit),
            Msg::Idle { runtime, executor } => state.idle(runtime, executor),
            Msg::Finished { uuid, attempt, outcome, runtime, executor, is_idle } => {
                state.finished(uuid, attempt, *outcome, executor.get_id());
                if is_idle {
                    state.idle(runtime, executor);
                }
            }
            Msg::ExecutorDown(executor) => state.executor_down(executor),
            Msg::PoolDown(runtime) => state.pool_down(runtime),
            Msg::Resize(pools) => state.resize(pools),
            Msg::Tick => state.tick(Instant::now()),
            Msg::Drain(reply) => state.drain(reply),
            Msg::Interrupt => state.interrupt(),
            Msg::Stats(reply) => drop(reply.send(state.stats())),
            #[cfg(feature = "faults")]
            Msg::Panic => panic!("a test told the dispatcher to panic"),
        }
        Ok(())
    }
}

/// What the dispatcher holds.
#[derive(Debug)]
pub struct State {
    myself: Ref,
    names: Names,
    effects: Effects<Msg>,
    lanes: BTreeMap<Runtime, Lane>,
    running: HashMap<Uuid, Running>,
    by_executor: HashMap<ActorId, Uuid>,
    /// Executors that held an execution and were found dead at the last look.
    dead: HashSet<ActorId>,
    queued_bytes: usize,
    max_queued_bytes: usize,
    /// Set once the service shuts down; answered when nothing runs.
    draining: Option<Vec<RpcReplyPort<()>>>,
}

/// One runtime's queue and its idle executors, the last to become idle at the end.
#[derive(Debug)]
struct Lane {
    settings: PoolSettings,
    queue: Queue<Waiting>,
    idle: Vec<(executor::Ref, Instant)>,
    /// The pool was told that more executors would help, and has not sent one since.
    asked_to_grow: bool,
}

/// An execution that waits.
#[derive(Debug)]
struct Waiting {
    job: Arc<Job>,
    caller: Caller,
    attempts: u32,
}

/// An execution that an executor holds.
#[derive(Debug)]
struct Running {
    entry: Entry<Waiting>,
    executor: executor::Ref,
}

impl State {
    fn new(myself: Ref, args: Args) -> Self {
        let lane = |settings: PoolSettings| Lane {
            queue: Queue::new(settings.queue),
            settings,
            idle: Vec::new(),
            asked_to_grow: false,
        };
        let mut state = Self {
            effects: Effects::new(myself.clone()),
            myself,
            names: args.names,
            lanes: args.pools.into_iter().map(|(runtime, settings)| (runtime, lane(settings))).collect(),
            running: HashMap::new(),
            by_executor: HashMap::new(),
            dead: HashSet::new(),
            queued_bytes: 0,
            max_queued_bytes: args.max_queued_bytes,
            draining: None,
        };
        state.arm();
        state
    }

    fn arm(&mut self) {
        self.effects.run(tokio::time::sleep(TICK), |_| Msg::Tick);
    }

    fn submit(&mut self, job: Job, caller: Caller, permit: OwnedSemaphorePermit) {
        let uuid = job.uuid;
        let notice = match self.admit(job, &caller) {
            Ok(runtime) => {
                tell(&caller, Notice::Accepted(uuid));
                tracing::debug!(%uuid, %runtime, "accepted");
                self.schedule(runtime);
                return;
            }
            Err(error) => Notice::Refused(error),
        };
        tell(&caller, notice);
        drop(permit);
    }

    fn admit(&mut self, job: Job, caller: &Caller) -> Result<Runtime, Error> {
        if self.draining.is_some() {
            return Err(Error::new(Code::Draining, "the service is shutting down"));
        }
        let (runtime, bytes) = (job.runtime, job.input.text.len());
        let no_pool = || Error::unavailable(format!("the runtime {runtime} is not available"));
        let lane = self.lanes.get_mut(&runtime).ok_or_else(no_pool)?;
        if self.queued_bytes + bytes > self.max_queued_bytes && !lane.queue.is_empty() {
            return Err(Error::new(
                Code::Overloaded,
                "the inputs that wait are too large together; try again later",
            ));
        }
        let spec = &job.definition.spec;
        let key = (job.definition.kind, job.definition.id.clone());
        let (priority, client, max) = (job.options.priority, job.client, spec.max_concurrency);
        let waiting = Waiting { job: Arc::new(job), caller: caller.clone(), attempts: 0 };
        match lane.queue.push(Entry::new(priority, client, key, max, waiting)) {
            Ok(()) => {
                self.queued_bytes += bytes;
                Ok(runtime)
            }
            Err(_) => Err(Error::new(
                Code::Overloaded,
                format!("the queue of the runtime {runtime} is full; try again later"),
            )),
        }
    }

    fn idle(&mut self, runtime: Runtime, executor: executor::Ref) {
        let Some(lane) = self.lanes.get_mut(&runtime) else { return };
        let id = executor.get_id();
        // It may report both by itself and when told of a new dispatcher.
        if self.by_executor.contains_key(&id) || lane.idle.iter().any(|(idle, _)| idle.get_id() == id) {
            return;
        }
        lane.asked_to_grow = false;
        lane.idle.push((executor, Instant::now()));
        self.schedule(runtime);
    }

    /// Hands out what may run, as long as somebody is idle.
    fn schedule(&mut self, runtime: Runtime) {
        let Some(lane) = self.lanes.get_mut(&runtime) else { return };
        while let Some((executor, since)) = lane.idle.pop() {
            let Some(mut entry) = lane.queue.pop() else {
                lane.idle.push((executor, since));
                break;
            };
            let (uuid, bytes) = (entry.item.job.uuid, entry.item.job.input.text.len());
            entry.item.attempts += 1;
            let run = executor::Msg::Run {
                job: entry.item.job.clone(),
                attempt: entry.item.attempts,
                dispatcher: self.myself.clone(),
            };
            if executor.cast(run).is_err() {
                // It died idle; its pool will say so.
                entry.item.attempts -= 1;
                lane.queue.put_back(entry);
                continue;
            }
            self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
            tell(&entry.item.caller, Notice::Started(uuid));
            self.by_executor.insert(executor.get_id(), uuid);
            self.running.insert(uuid, Running { entry, executor });
        }
        let wanted = lane.queue.len();
        if wanted > 0 && lane.idle.is_empty() && !lane.asked_to_grow {
            lane.asked_to_grow = true;
            self.names.tell::<pool::Msg>(&self.names.pool(runtime), pool::Msg::Grow(wanted));
        }
    }

    fn finished(&mut self, uuid: Uuid, attempt: u32, outcome: Outcome, executor: ActorId) {
        let is_current = |running: &Running| {
            running.executor.get_id() == executor && running.entry.item.attempts == attempt
        };
        if !self.running.get(&uuid).is_some_and(is_current) {
            // A late result of an earlier attempt.
            return;
        }
        self.by_executor.remove(&executor);
        if let Some(running) = self.running.remove(&uuid) {
            self.settle(running.entry, outcome);
        }
    }

    /// The one place where an execution that ran ends.
    fn settle(&mut self, entry: Entry<Waiting>, outcome: Outcome) {
        let job = &entry.item.job;
        if let Some(lane) = self.lanes.get_mut(&job.runtime) {
            lane.queue.release(&entry.definition);
        }
        report(job, &entry.definition, &outcome);
        tell(&entry.item.caller, Notice::Finished(job.uuid, outcome));
        self.answer_drain();
    }

    fn executor_down(&mut self, executor: ActorId) {
        for lane in self.lanes.values_mut() {
            lane.idle.retain(|(idle, _)| idle.get_id() != executor);
        }
        let Some(uuid) = self.by_executor.remove(&executor) else { return };
        if let Some(running) = self.running.remove(&uuid) {
            self.lost(running.entry);
        }
    }

    fn pool_down(&mut self, runtime: Runtime) {
        if let Some(lane) = self.lanes.get_mut(&runtime) {
            lane.idle.clear();
            lane.asked_to_grow = false;
        }
        let of_runtime = |running: &Running| running.entry.item.job.runtime == runtime;
        let lost: Vec<Uuid> =
            self.running.iter().filter(|(_, running)| of_runtime(running)).map(|(uuid, _)| *uuid).collect();
        for uuid in lost {
            if let Some(running) = self.running.remove(&uuid) {
                self.by_executor.remove(&running.executor.get_id());
                self.lost(running.entry);
            }
        }
    }

    /// What was running when its executor died: an idempotent one has another turn, any other has ended.
    fn lost(&mut self, entry: Entry<Waiting>) {
        let job = entry.item.job.clone();
        if !job.definition.spec.idempotent {
            return self.settle(entry, Outcome::interrupted("the executor of this execution failed"));
        }
        if self.draining.is_some() {
            return self.settle(
                entry,
                Outcome::interrupted("the executor of this execution failed during a shutdown"),
            );
        }
        if entry.item.attempts >= MAX_ATTEMPTS {
            return self.settle(entry, Outcome::crash_loop(MAX_ATTEMPTS));
        }
        if let Some(lane) = self.lanes.get_mut(&job.runtime) {
            tracing::warn!(uuid = %job.uuid, attempts = entry.item.attempts, "the executor failed; this execution is queued again");
            self.queued_bytes += job.input.text.len();
            lane.queue.put_back(entry);
            self.schedule(job.runtime);
        }
    }

    fn resize(&mut self, pools: BTreeMap<Runtime, PoolSettings>) {
        for (runtime, settings) in pools {
            if let Some(lane) = self.lanes.get_mut(&runtime) {
                lane.queue.set_bound(settings.queue);
                lane.settings = settings;
                lane.asked_to_grow = false;
            }
            self.schedule(runtime);
        }
    }

    /// An execution handed to an executor that was just being killed with its pool is told by nobody. An executor
    /// counts as dead at the second look: its last message may be on the way at the first.
    fn forget_the_dead(&mut self) {
        let is_dead = |running: &&Running| running.executor.get_status() >= ActorStatus::Stopping;
        let dead: HashSet<ActorId> =
            self.running.values().filter(is_dead).map(|running| running.executor.get_id()).collect();
        let known = std::mem::replace(&mut self.dead, dead.clone());
        dead.intersection(&known).for_each(|executor| self.executor_down(*executor));
    }

    /// Offers executors that were idle for long to their pool, which lets them go or sends them back.
    fn tick(&mut self, now: Instant) {
        self.forget_the_dead();
        for (runtime, lane) in &mut self.lanes {
            let idle_for = lane.settings.idle();
            let long_idle =
                lane.idle.iter().take_while(|(_, since)| now.duration_since(*since) >= idle_for).count();
            for (executor, _) in lane.idle.drain(..long_idle) {
                self.names
                    .tell::<pool::Msg>(&self.names.pool(*runtime), pool::Msg::LongIdle(executor.get_id()));
            }
            // A pool that was being replaced when it was told to grow has forgotten it.
            if !lane.queue.is_empty() && lane.idle.is_empty() {
                self.names.tell::<pool::Msg>(&self.names.pool(*runtime), pool::Msg::Grow(lane.queue.len()));
            }
        }
        self.arm();
    }

    fn drain(&mut self, reply: RpcReplyPort<()>) {
        self.draining.get_or_insert_default().push(reply);
        let waiting: Vec<_> = self.lanes.values_mut().flat_map(|lane| lane.queue.drain()).collect();
        self.queued_bytes = 0;
        for entry in waiting {
            let outcome = Outcome::interrupted("the service shut down before this execution began");
            report(&entry.item.job, &entry.definition, &outcome);
            tell(&entry.item.caller, Notice::Finished(entry.item.job.uuid, outcome));
        }
        self.answer_drain();
    }

    fn answer_drain(&mut self) {
        if self.running.is_empty()
            && let Some(replies) = &mut self.draining
        {
            replies.drain(..).for_each(|reply| drop(reply.send(())));
        }
    }

    fn interrupt(&mut self) {
        self.by_executor.clear();
        for (_, running) in std::mem::take(&mut self.running) {
            self.settle(
                running.entry,
                Outcome::interrupted("the service shut down while this execution was running"),
            );
        }
    }

    fn stats(&self) -> BTreeMap<Runtime, Stats> {
        let running = |runtime| {
            self.running.values().filter(|running| running.entry.item.job.runtime == runtime).count()
        };
        let stats = |runtime: Runtime, lane: &Lane| Stats {
            queued: lane.queue.len(),
            running: running(runtime),
            idle: lane.idle.len(),
        };
        self.lanes.iter().map(|(runtime, lane)| (*runtime, stats(*runtime, lane))).collect()
    }
}

/// A caller that is gone misses the news; the execution goes on.
fn tell(caller: &Caller, notice: Notice) {
    if caller.send_message(notice).is_err() {
        tracing::debug!("nobody waits for this execution any more");
    }
}

fn report(job: &Job, definition: &DefinitionKey, outcome: &Outcome) {
    let (uuid, kind, id) = (job.uuid, definition.0.name(), &definition.1);
    match &outcome.result {
        Ok(_) => tracing::info!(%uuid, kind, id, state = outcome.state.name(), "execution ended"),
        Err(failure) => {
            tracing::info!(%uuid, kind, id, state = outcome.state.name(), code = failure.code, "execution ended")
        }
    }
}
