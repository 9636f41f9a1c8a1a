//! The dispatcher is the queue: what is admitted, in which order it runs, what is running.
//!
//! Executors report to it when they are idle, and it hands each one execution. What it takes in, begins and ends goes
//! to the journal before anybody is told. Root supervises it. When it dies, the executors drop what they run and report
//! to the next dispatcher, which reads what is open from the journal; sessions attach to their executions again. Where
//! nothing is journalled, every open execution ends `interrupted`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, ActorStatus, DerivedActorRef, RpcReplyPort};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use uuid::Uuid;

use crate::audit::Trail;
use crate::effects::{Effects, Panicked};
use crate::error::Error;
use crate::execution::{Client, Ended, Job, Key, Outcome, Page, PageRequest, Runtime, Snapshot};
use crate::executor;
use crate::journal::{self, Receipt, Recovered};
use crate::measures::Definitions;
use crate::names::Names;
use crate::settings::{Level, PoolSettings};

mod admission;
mod endings;
mod lane;
mod losses;
mod open;
pub mod queue;
mod records;
mod recovery;
mod remembered;
#[cfg(test)]
mod tests;
mod turns;

use lane::Lane;
use open::{Open, Phase};
use records::Records;
use remembered::Remembered;

/// A reference to the dispatcher.
pub type Ref = ActorRef<Msg>;

/// How often idle executors and unwritten records are looked at.
const TICK: Duration = Duration::from_millis(250);

/// After how many bytes of inputs a page of open executions ends.
const PAGE_BYTES: usize = 16 << 20;

/// What the dispatcher does.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields of a message are named for what they are")]
pub enum Msg {
    /// Take an execution in, or refuse it.
    /// `recorded` is the execution that the journal has under the request's idempotency key.
    Submit { job: Box<Job>, caller: Caller, permit: OwnedSemaphorePermit, recorded: Option<Box<Snapshot>> },
    /// Send the news of an execution that was taken in to this caller too.
    Attach { uuid: Uuid, caller: Caller, reply: RpcReplyPort<Attached> },
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
    /// There is a new journal.
    JournalReplaced(journal::Ref),
    /// These records are on disk, or may not be.
    Journalled { receipts: Vec<Receipt>, is_written: bool },
    /// What was open when the service or this dispatcher's predecessor ended, or that it cannot be read.
    Recovered(Result<crate::error::Result<Recovered>, Panicked>),
    /// Ask the journal once more what is open.
    RecoverAgain,
    /// These, which ended, are not on record any more.
    Forgotten(HashSet<Uuid>),
    /// Time to look at idle executors and unwritten records.
    Tick,
    /// Take nothing new in, and answer when nothing runs and all is recorded.
    Drain(RpcReplyPort<()>),
    /// End what still runs.
    Interrupt,
    /// Tell what is known of one execution.
    Find { uuid: Uuid, reply: RpcReplyPort<Option<Box<Snapshot>>> },
    /// Tell the end of the log of one that is open.
    Log { uuid: Uuid, reply: RpcReplyPort<Option<String>> },
    /// Tell which executions are open, and which ended lately where nothing is journalled.
    List { page: PageRequest, reply: RpcReplyPort<Page> },
    /// Tell whether executions can be recorded, where they are.
    IsRecording(RpcReplyPort<bool>),
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

impl Caller {
    /// Whether somebody still waits.
    fn is_there(&self) -> bool {
        match self {
            Self::Actor(actor) => actor.get_status() < ActorStatus::Stopping,
            Self::Channel(channel) => !channel.is_closed(),
        }
    }
}

/// News of one execution.
#[derive(Clone, Debug)]
pub enum Notice {
    /// It is in the queue.
    Accepted(Uuid),
    /// It was not taken in.
    Refused(Uuid, Error),
    /// What was asked for as the first is the second, by its idempotency key.
    Known(Uuid, Uuid),
    /// It began to run; told where the request asked for a stream.
    Started(Uuid),
    /// It ended.
    Finished(Uuid, Outcome),
    /// The service shuts down; it is recorded, and runs when the service is started again.
    Postponed(Uuid),
}

/// What came of asking for an execution's news.
#[derive(Clone, Debug)]
pub enum Attached {
    /// They will come.
    Open,
    /// It ended so.
    Ended(Arc<Ended>),
    /// There is no such execution, or it ended long ago.
    Unknown,
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
    /// How many milliseconds the oldest of them has waited.
    pub oldest_ms: u64,
    /// Executions that failed and wait for the time of their next attempt.
    pub retrying: usize,
    /// Executions that an executor holds.
    pub running: usize,
    /// Executions that ended, whose outcome is being recorded.
    pub ending: usize,
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
    /// How many executions of one client may be open.
    pub max_per_client: usize,
    /// Whether executions are recorded.
    pub is_journalled: bool,
    /// The level of the sandbox that programs run in.
    pub sandbox: Option<Level>,
    /// What is to be recorded in the audit log.
    pub trail: Arc<Trail>,
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

    async fn post_start(&self, myself: Ref, state: &mut State) -> Result<(), ActorProcessingErr> {
        // A journal that comes later announces itself.
        if let Some(journal) = state.names.find(&state.names.journal()) {
            drop(myself.cast(Msg::JournalReplaced(journal)));
        }
        Ok(())
    }

    async fn handle(&self, _: Ref, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.receive(message);
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
    /// Every execution that was taken in and has no outcome yet.
    open: BTreeMap<Uuid, Open>,
    by_executor: HashMap<ActorId, Uuid>,
    /// Which of the open ones has this idempotency key.
    keys: HashMap<Key, Uuid>,
    remembered: Remembered,
    definitions: Definitions,
    sandbox: Option<Level>,
    /// Executors that held an execution and were found dead at the last look.
    dead: HashSet<ActorId>,
    queued_bytes: usize,
    max_queued_bytes: usize,
    /// How many executions of each client are open.
    of_clients: HashMap<Client, usize>,
    max_per_client: usize,
    trail: Arc<Trail>,
    /// The number of the next execution: the order of acceptance.
    next_number: u64,
    /// What is handed to the journal; nothing where executions are kept in memory only.
    records: Option<Records>,
    /// What came before it was known what is open; bounded by admission.
    held: Option<Vec<Msg>>,
    /// Set once the service shuts down; answered when nothing runs.
    draining: Option<Vec<RpcReplyPort<()>>>,
}

impl State {
    fn new(myself: Ref, args: Args) -> Self {
        let lanes = args.pools.into_iter();
        let mut state = Self {
            effects: Effects::new(myself.clone()),
            records: args.is_journalled.then(|| Records::new(myself.clone())),
            myself,
            names: args.names,
            lanes: lanes.map(|(runtime, settings)| (runtime, Lane::new(runtime, settings))).collect(),
            open: BTreeMap::new(),
            by_executor: HashMap::new(),
            keys: HashMap::new(),
            remembered: Remembered::default(),
            definitions: Definitions::default(),
            sandbox: args.sandbox,
            dead: HashSet::new(),
            queued_bytes: 0,
            max_queued_bytes: args.max_queued_bytes,
            of_clients: HashMap::new(),
            max_per_client: args.max_per_client,
            trail: args.trail,
            next_number: 0,
            held: args.is_journalled.then(Vec::new),
            draining: None,
        };
        state.arm();
        state
    }

    fn arm(&mut self) {
        self.effects.run(tokio::time::sleep(TICK), |_| Msg::Tick);
    }

    fn receive(&mut self, message: Msg) {
        match message {
            Msg::JournalReplaced(journal) => self.journal_replaced(journal),
            Msg::Journalled { receipts, is_written } => self.journalled(receipts, is_written),
            Msg::Recovered(result) => self.recovered(result),
            Msg::RecoverAgain => self.recover(),
            Msg::Idle { runtime, executor } => {
                if let Some(lane) = self.lanes.get_mut(&runtime) {
                    lane.has_grown();
                }
                self.idle(runtime, executor);
            }
            Msg::ExecutorDown(executor) => self.executor_down(executor),
            Msg::PoolDown(runtime) => self.pool_down(runtime),
            Msg::Resize(pools) => self.resize(pools),
            Msg::Forgotten(uuids) => self.remembered.forget(&uuids),
            Msg::Tick => self.tick(Instant::now()),
            #[cfg(feature = "faults")]
            Msg::Panic => panic!("a test told the dispatcher to panic"),
            message => match &mut self.held {
                Some(held) => held.push(message),
                None => self.serve(message),
            },
        }
    }

    /// What can be done only when it is known what is open.
    fn serve(&mut self, message: Msg) {
        match message {
            Msg::Submit { job, caller, permit, recorded } => self.submit(*job, caller, permit, recorded),
            Msg::Attach { uuid, caller, reply } => drop(reply.send(self.attach(uuid, caller))),
            Msg::Finished { uuid, attempt, outcome, runtime, executor, is_idle } => {
                self.finished(uuid, attempt, *outcome, executor.get_id());
                if is_idle {
                    self.idle(runtime, executor);
                }
            }
            Msg::Cancel { uuid, reply } => drop(reply.send(self.cancel(uuid))),
            Msg::Retry(uuid) => self.retry(uuid),
            Msg::Drain(reply) => self.drain(reply),
            Msg::Interrupt => self.interrupt(),
            Msg::Find { uuid, reply } => drop(reply.send(self.find(uuid))),
            Msg::Log { uuid, reply } => drop(reply.send(self.log(uuid))),
            Msg::List { page, reply } => drop(reply.send(self.list(&page))),
            Msg::IsRecording(reply) => {
                let is_failing = self.records.as_ref().is_some_and(Records::is_failing);
                drop(reply.send(!is_failing));
            }
            Msg::Stats(reply) => drop(reply.send(self.stats())),
            _ => {}
        }
    }

    /// Offers executors that were idle for long to their pool, which lets them go or sends them back.
    fn tick(&mut self, now: Instant) {
        self.forget_the_dead();
        for (runtime, lane) in &mut self.lanes {
            lane.look(TICK);
            let pool = self.names.pool(*runtime);
            for executor in lane.take_long_idle(now) {
                self.names.tell(&pool, crate::pool::Msg::LongIdle(executor.get_id()));
            }
            // A pool that was being replaced when it was told to grow has forgotten it.
            if lane.waiting() > 0 && !lane.has_idle() {
                self.names.tell(&pool, crate::pool::Msg::Grow(lane.waiting()));
            }
        }
        if let Some(records) = &mut self.records {
            records.tick(now, self.open.first_key_value().map(|(uuid, _)| *uuid));
        }
        self.arm();
    }

    fn resize(&mut self, pools: BTreeMap<Runtime, PoolSettings>) {
        for (runtime, settings) in pools {
            if let Some(lane) = self.lanes.get_mut(&runtime) {
                lane.resize(settings);
            }
            self.schedule(runtime);
        }
    }

    fn find(&self, uuid: Uuid) -> Option<Box<Snapshot>> {
        let open = self.open.get(&uuid).filter(|open| open.is_recorded).map(|open| open.snapshot());
        open.or_else(|| self.remembered.get(uuid).cloned()).map(Box::new)
    }

    fn log(&self, uuid: Uuid) -> Option<String> {
        let open = self.open.get(&uuid).filter(|open| open.is_recorded)?;
        Some(open.job.kept.text().unwrap_or_default())
    }

    /// Those that are open; where nothing is journalled, those that ended too. The newest first.
    fn list(&self, request: &PageRequest) -> Page {
        let is_asked = |snapshot: &Snapshot| {
            request.before.is_none_or(|before| snapshot.uuid < before) && request.matches(snapshot)
        };
        let open = self.open.values().rev().filter(|open| open.is_recorded).map(Open::outline);
        let ended = self.remembered.all().filter(|_| self.records.is_none()).cloned();
        // One more than the page has tells whether there is a next one.
        let open = open.filter(is_asked).take(request.limit + 1);
        let mut items: Vec<Snapshot> = open.chain(ended.filter(is_asked)).collect();
        items.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.uuid));
        let (mut length, mut bytes) = (0, 0);
        for item in items.iter_mut().take(request.limit) {
            if bytes > PAGE_BYTES {
                break;
            }
            if let Some(open) = self.open.get(&item.uuid) {
                *item = open.snapshot();
            }
            bytes += item.input.len();
            length += 1;
        }
        let next = (items.len() > length && length > 0).then(|| items[length - 1].uuid);
        items.truncate(length);
        Page { items, next }
    }

    fn stats(&self) -> BTreeMap<Runtime, Stats> {
        let stats =
            |lane: &Lane| Stats { queued: lane.waiting(), idle: lane.idle_count(), ..Stats::default() };
        let mut all: BTreeMap<Runtime, Stats> =
            self.lanes.iter().map(|(runtime, lane)| (*runtime, stats(lane))).collect();
        let now = Instant::now();
        for open in self.open.values() {
            let Some(stats) = all.get_mut(&open.job.runtime) else { continue };
            match open.phase {
                Phase::Queued | Phase::Next(_) => {
                    let waited = now.duration_since(open.since).as_millis() as u64;
                    stats.oldest_ms = stats.oldest_ms.max(waited);
                }
                Phase::Beginning { .. } | Phase::Running { .. } => stats.running += 1,
                Phase::Pausing(_) => stats.retrying += 1,
                Phase::Ending(_) => stats.ending += 1,
            }
        }
        all
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
