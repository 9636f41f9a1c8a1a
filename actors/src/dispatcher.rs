//! The dispatcher is the queue: what is admitted, in which order it runs, what is running.
//!
//! Executors report to it when they are idle, and it hands each one execution. Root supervises it. When it dies,
//! every open execution ends `interrupted`: Root tells the sessions, and the executors drop what they run and
//! report to the next dispatcher.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, ActorStatus, DerivedActorRef, RpcReplyPort};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use uuid::Uuid;

use crate::effects::Effects;
use crate::error::{Code, Error};
use crate::execution::{self, Job, Outcome, Runtime};
use crate::executor;
use crate::names::Names;
use crate::pool;
use crate::settings::PoolSettings;

mod ended;
mod lane;
pub mod queue;

use ended::Ended;
use lane::Lane;
use queue::{DefinitionKey, Entry};

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
    /// End an execution, wherever it is.
    Cancel { uuid: Uuid, reply: RpcReplyPort<Cancelled> },
    /// The pause before this execution's next attempt is over.
    Retry(Uuid),
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
#[derive(Clone, Debug)]
pub enum Caller {
    /// A session.
    Actor(DerivedActorRef<Notice>),
    /// A task that waits. At most a handful of notices come, and the channel closes when the dispatcher dies.
    Channel(mpsc::UnboundedSender<Notice>),
}

/// News of one execution.
#[derive(Clone, Debug)]
pub enum Notice {
    /// It is in the queue.
    Accepted(Uuid),
    /// It was not taken in.
    Refused(Error),
    /// It began to run; told where the request asked for a stream.
    Started(Uuid),
    /// It ended.
    Finished(Uuid, Outcome),
}

/// What came of asking for an execution's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It ends: at once where it waited, else as soon as its processes are gone.
    Asked,
    /// It had ended already.
    Ended,
    /// There is no such execution, or it ended long ago.
    Unknown,
}

/// What `/system` shows of one runtime's queue.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Stats {
    /// Executions that wait.
    pub queued: usize,
    /// Executions that failed and wait for the time of their next attempt.
    pub retrying: usize,
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
            Msg::Cancel { uuid, reply } => drop(reply.send(state.cancel(uuid))),
            Msg::Retry(uuid) => state.retry(uuid),
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
    /// Executions that failed and wait for the time of their next attempt.
    retrying: HashMap<Uuid, Entry<Waiting>>,
    ended: Ended,
    /// Executors that held an execution and were found dead at the last look.
    dead: HashSet<ActorId>,
    queued_bytes: usize,
    max_queued_bytes: usize,
    /// Set once the service shuts down; answered when nothing runs.
    draining: Option<Vec<RpcReplyPort<()>>>,
}

/// An execution that waits.
#[derive(Debug)]
struct Waiting {
    job: Arc<Job>,
    caller: Caller,
    /// How often it was begun.
    attempts: u32,
    /// How often it was tried again because it failed; an executor that was lost does not count.
    retries: u32,
    /// Somebody asked for its end.
    is_cancelled: bool,
}

/// An execution that an executor holds.
#[derive(Debug)]
struct Running {
    entry: Entry<Waiting>,
    executor: executor::Ref,
}

impl State {
    fn new(myself: Ref, args: Args) -> Self {
        let mut state = Self {
            effects: Effects::new(myself.clone()),
            myself,
            names: args.names,
            lanes: args
                .pools
                .into_iter()
                .map(|(runtime, settings)| (runtime, Lane::new(runtime, settings)))
                .collect(),
            running: HashMap::new(),
            by_executor: HashMap::new(),
            retrying: HashMap::new(),
            ended: Ended::default(),
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
        let waiting = Waiting {
            job: Arc::new(job),
            caller: caller.clone(),
            attempts: 0,
            retries: 0,
            is_cancelled: false,
        };
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
        if self.by_executor.contains_key(&id) || lane.is_idle(id) {
            return;
        }
        lane.add_idle(executor);
        self.schedule(runtime);
    }

    /// Hands out what may run, as long as somebody is idle.
    fn schedule(&mut self, runtime: Runtime) {
        let Some(lane) = self.lanes.get_mut(&runtime) else { return };
        while lane.has_idle() {
            let Some(mut entry) = lane.queue.pop() else { break };
            let Some(executor) = lane.take_idle(&entry.definition) else { break };
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
            if entry.item.job.options.stream {
                tell(&entry.item.caller, Notice::Started(uuid));
            }
            self.by_executor.insert(executor.get_id(), uuid);
            self.running.insert(uuid, Running { entry, executor });
        }
        if let Some(wanted) = lane.wants_to_grow() {
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
        let Some(running) = self.running.remove(&uuid) else { return };
        let spec = &running.entry.item.job.definition.spec;
        match outcome.state {
            // The launcher failed, as an executor may.
            execution::State::Interrupted if spec.idempotent => self.lost(running.entry),
            execution::State::Failed | execution::State::TimedOut if self.may_retry(&running.entry.item) => {
                self.pause(running.entry, &outcome);
            }
            _ => self.settle(running.entry, outcome),
        }
    }

    fn may_retry(&self, waiting: &Waiting) -> bool {
        self.draining.is_none()
            && !waiting.is_cancelled
            && waiting.retries < waiting.job.definition.spec.retries.max
    }

    /// Lets an execution that failed wait for the time of its next attempt.
    fn pause(&mut self, mut entry: Entry<Waiting>, outcome: &Outcome) {
        let job = entry.item.job.clone();
        if let Some(lane) = self.lanes.get_mut(&job.runtime) {
            lane.queue.release(&entry.definition);
        }
        let pause = job.definition.spec.retries.pause(entry.item.retries, job.uuid);
        entry.item.retries += 1;
        let (uuid, retry, state) = (job.uuid, entry.item.retries, outcome.state.name());
        tracing::info!(%uuid, retry, state, pause_ms = pause.as_millis(), "an execution is tried again");
        self.retrying.insert(uuid, entry);
        self.effects.run(tokio::time::sleep(pause), move |_| Msg::Retry(uuid));
        self.schedule(job.runtime);
    }

    fn retry(&mut self, uuid: Uuid) {
        // It may have been cancelled meanwhile.
        let Some(entry) = self.retrying.remove(&uuid) else { return };
        let runtime = entry.item.job.runtime;
        if let Some(lane) = self.lanes.get_mut(&runtime) {
            self.queued_bytes += entry.item.job.input.text.len();
            lane.queue.take_back(entry);
            self.schedule(runtime);
        }
    }

    fn cancel(&mut self, uuid: Uuid) -> Cancelled {
        if let Some(running) = self.running.get_mut(&uuid) {
            running.entry.item.is_cancelled = true;
            let cancel = executor::Msg::Cancel { uuid, attempt: running.entry.item.attempts };
            // One that died is found, and its execution ends cancelled then.
            drop(running.executor.cast(cancel));
            return Cancelled::Asked;
        }
        let entry = self.retrying.remove(&uuid).or_else(|| self.take_waiting(uuid));
        match entry {
            Some(entry) => {
                self.conclude(&entry, Outcome::cancelled());
                Cancelled::Asked
            }
            None if self.ended.contains(uuid) => Cancelled::Ended,
            None => Cancelled::Unknown,
        }
    }

    fn take_waiting(&mut self, uuid: Uuid) -> Option<Entry<Waiting>> {
        let take = |lane: &mut Lane| lane.queue.remove(|waiting| waiting.job.uuid == uuid);
        let entry = self.lanes.values_mut().find_map(take)?;
        self.queued_bytes = self.queued_bytes.saturating_sub(entry.item.job.input.text.len());
        Some(entry)
    }

    /// The end of an execution that an executor held.
    fn settle(&mut self, entry: Entry<Waiting>, outcome: Outcome) {
        let runtime = entry.item.job.runtime;
        if let Some(lane) = self.lanes.get_mut(&runtime) {
            lane.queue.release(&entry.definition);
        }
        self.conclude(&entry, outcome);
        // One of the same definition may have waited for this one.
        self.schedule(runtime);
        self.answer_drain();
    }

    /// The one place where an accepted execution ends.
    fn conclude(&mut self, entry: &Entry<Waiting>, outcome: Outcome) {
        let uuid = entry.item.job.uuid;
        self.ended.insert(uuid);
        report(&entry.item.job, &entry.definition, &outcome);
        tell(&entry.item.caller, Notice::Finished(uuid, outcome));
    }

    fn executor_down(&mut self, executor: ActorId) {
        for lane in self.lanes.values_mut() {
            lane.forget(executor);
        }
        let Some(uuid) = self.by_executor.remove(&executor) else { return };
        if let Some(running) = self.running.remove(&uuid) {
            self.lost(running.entry);
        }
    }

    fn pool_down(&mut self, runtime: Runtime) {
        if let Some(lane) = self.lanes.get_mut(&runtime) {
            lane.forget_all();
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
        if entry.item.is_cancelled {
            return self.settle(entry, Outcome::cancelled());
        }
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
                lane.resize(settings);
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
            let pool = self.names.pool(*runtime);
            for executor in lane.take_long_idle(now) {
                self.names.tell::<pool::Msg>(&pool, pool::Msg::LongIdle(executor.get_id()));
            }
            // A pool that was being replaced when it was told to grow has forgotten it.
            if !lane.queue.is_empty() && !lane.has_idle() {
                self.names.tell::<pool::Msg>(&pool, pool::Msg::Grow(lane.queue.len()));
            }
        }
        self.arm();
    }

    fn drain(&mut self, reply: RpcReplyPort<()>) {
        self.draining.get_or_insert_default().push(reply);
        let mut waiting: Vec<_> = self.lanes.values_mut().flat_map(|lane| lane.queue.drain()).collect();
        waiting.extend(self.retrying.drain().map(|(_, entry)| entry));
        self.queued_bytes = 0;
        for entry in waiting {
            self.conclude(&entry, Outcome::interrupted("the service shut down before this execution began"));
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
        let retrying =
            |runtime| self.retrying.values().filter(|entry| entry.item.job.runtime == runtime).count();
        let stats = |runtime: Runtime, lane: &Lane| Stats {
            queued: lane.queue.len(),
            retrying: retrying(runtime),
            running: running(runtime),
            idle: lane.idle_count(),
        };
        self.lanes.iter().map(|(runtime, lane)| (*runtime, stats(*runtime, lane))).collect()
    }
}

/// A caller that is gone misses the news; the execution goes on.
fn tell(caller: &Caller, notice: Notice) {
    let is_told = match caller {
        Caller::Actor(actor) => actor.send_message(notice).is_ok(),
        Caller::Channel(channel) => channel.send(notice).is_ok(),
    };
    if !is_told {
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
