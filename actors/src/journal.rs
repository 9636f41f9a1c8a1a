//! The journal: the durable record of executions, written in group commits through the registry's store.
//!
//! While one batch is being written the next one gathers; alone, a record goes at once. Each record is an insert that
//! leaves alone what is there already, so the dispatcher keeps a record until it is told that it is on disk, and hands
//! it in again when a write failed or this actor was replaced: writing twice is harmless, and the first outcome wins.
//! The registry supervises it; its successor announces itself to the dispatcher.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use uuid::Uuid;

use crate::dispatcher;
use crate::effects::{Effects, Panicked};
use crate::error::{Error, Result};
use crate::execution::{Ended, Job, Key, Page, PageRequest, Snapshot};
use crate::measures;
use crate::names::Names;
use crate::registry::{Lease, StoreError};

mod recovery;
mod retention;

pub use recovery::{OpenExecution, Recovered};

/// A reference to the journal.
pub type Ref = ActorRef<Msg>;

/// How many records and how many bytes of them are written in one commit.
const BATCH: usize = 2_000;
const BATCH_BYTES: usize = 16 << 20;

/// How many revisions are remembered as written.
const KNOWN: usize = 10_000;

/// What the journal does.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields of a message are named for what they are")]
pub enum Msg {
    /// Write these, and tell that dispatcher when they are on disk.
    Append { records: Vec<Record>, dispatcher: dispatcher::Ref },
    /// The batch under way was written, or was not.
    Written(std::result::Result<std::result::Result<(), String>, Panicked>),
    /// Answer with what was accepted and has not ended, after all that was handed in before is written.
    Recover(RpcReplyPort<Result<Recovered>>),
    /// Answer with one execution as it is recorded.
    Find { uuid: Uuid, reply: RpcReplyPort<Result<Option<Box<Snapshot>>>> },
    /// Answer with the execution that is recorded under an idempotency key.
    FindKey { key: Key, reply: RpcReplyPort<Result<Option<Box<Snapshot>>>> },
    /// Answer with recorded executions, the newest first.
    List { page: PageRequest, reply: RpcReplyPort<Result<Page>> },
    /// Time to forget what is too old.
    Sweep,
    /// It was tried.
    Swept,
    /// A message whose answer went out elsewhere.
    Settled,
    /// Panic, for a test.
    #[cfg(feature = "faults")]
    Panic,
}

/// What is written about an execution. Its name is its uuid.
#[derive(Clone, Debug)]
pub enum Record {
    /// It was accepted.
    Accepted(Accepted),
    /// It is about to run; of one that may run only once.
    Attempt(Uuid, u32),
    /// This attempt failed, and there is to be another.
    Retry(Uuid, u32),
    /// It ended.
    Ended(Uuid, Arc<Ended>),
    /// No open execution has a lower uuid: where a recovery begins to read.
    Floor(Uuid),
}

/// An execution as it was accepted.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// What runs, and with which input.
    pub job: Arc<Job>,
    /// Its place in the order of acceptance.
    pub number: u64,
    /// When, in milliseconds since the epoch.
    pub accepted_ms: u64,
    /// Whether it counts as begun: an executor was free.
    pub is_begun: bool,
}

/// Which record it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Receipt {
    /// That it was accepted.
    Accepted(Uuid),
    /// That it is about to run for the so-manieth time.
    Attempt(Uuid, u32),
    /// That this attempt failed and there is to be another.
    Retry(Uuid, u32),
    /// That it ended.
    Ended(Uuid),
    /// Where a recovery begins.
    Floor,
}

impl Record {
    /// Which record it is.
    pub fn receipt(&self) -> Receipt {
        match self {
            Self::Accepted(accepted) => Receipt::Accepted(accepted.job.uuid),
            Self::Attempt(uuid, number) => Receipt::Attempt(*uuid, *number),
            Self::Retry(uuid, number) => Receipt::Retry(*uuid, *number),
            Self::Ended(uuid, _) => Receipt::Ended(*uuid),
            Self::Floor(_) => Receipt::Floor,
        }
    }

    /// How large what was given and put out is in it.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Accepted(accepted) => accepted.job.input.text.len(),
            Self::Ended(_, ended) => ended.bytes(),
            Self::Attempt(..) | Self::Retry(..) | Self::Floor(_) => 0,
        }
    }
}

/// What a journal starts with.
#[derive(Clone, Debug)]
pub struct Args {
    /// How the others are found.
    pub names: Names,
    /// The store.
    pub lease: Lease,
    /// `[journal]`.
    pub settings: crate::settings::JournalSettings,
}

/// The actor.
#[derive(Debug)]
pub struct JournalActor;

impl Actor for JournalActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: Ref, args: Args) -> std::result::Result<State, ActorProcessingErr> {
        Ok(State {
            effects: Effects::new(myself),
            args,
            waiting: VecDeque::new(),
            flushing: None,
            recoveries: Vec::new(),
            known: HashSet::new(),
        })
    }

    async fn post_start(
        &self,
        myself: Ref,
        state: &mut State,
    ) -> std::result::Result<(), ActorProcessingErr> {
        let names = &state.args.names;
        names.tell(&names.dispatcher(), dispatcher::Msg::JournalReplaced(myself));
        state.arm();
        Ok(())
    }

    async fn handle(
        &self,
        _: Ref,
        message: Msg,
        state: &mut State,
    ) -> std::result::Result<(), ActorProcessingErr> {
        match message {
            Msg::Append { records, dispatcher } => state.append(records, &dispatcher),
            Msg::Written(result) => state.written(result),
            Msg::Recover(reply) => state.recover(reply),
            Msg::Find { uuid, reply } => {
                state.answer(reply, move |lease| async move { lease.execution(uuid).await });
            }
            Msg::FindKey { key, reply } => {
                state.answer(reply, move |lease| async move { lease.execution_of(&key).await });
            }
            Msg::List { page, reply } => {
                state.answer(reply, move |lease| async move { recovery::list(&lease, &page).await });
            }
            Msg::Sweep => state.sweep(),
            Msg::Swept => state.arm(),
            Msg::Settled => {}
            #[cfg(feature = "faults")]
            Msg::Panic => panic!("a test told the journal to panic"),
        }
        Ok(())
    }
}

/// What the journal holds.
#[derive(Debug)]
pub struct State {
    args: Args,
    effects: Effects<Msg>,
    /// What the next batches write.
    waiting: VecDeque<(Record, dispatcher::Ref)>,
    /// The batch under way: what is to be told to whom.
    flushing: Option<Flush>,
    /// Who waits for all that was handed in before to be written.
    recoveries: Vec<RpcReplyPort<Result<Recovered>>>,
    /// The fingerprints of revisions that are in the store.
    known: HashSet<Arc<str>>,
}

#[derive(Debug)]
struct Flush {
    receipts: Vec<(Receipt, dispatcher::Ref)>,
    revisions: Vec<Arc<str>>,
    since: Instant,
}

impl State {
    fn append(&mut self, records: Vec<Record>, dispatcher: &dispatcher::Ref) {
        self.waiting.extend(records.into_iter().map(|record| (record, dispatcher.clone())));
        self.flush();
    }

    /// Writes what waits, unless something is being written.
    fn flush(&mut self) {
        if self.flushing.is_some() || self.waiting.is_empty() {
            return;
        }
        let (mut records, mut receipts, mut bytes) = (Vec::new(), Vec::new(), 0);
        while records.len() < BATCH
            && bytes < BATCH_BYTES
            && let Some((record, dispatcher)) = self.waiting.pop_front()
        {
            bytes += record.bytes();
            receipts.push((record.receipt(), dispatcher));
            records.push(record);
        }
        if self.known.len() > KNOWN {
            self.known.clear();
        }
        let mut revisions = Vec::<Arc<str>>::new();
        let mut new = Vec::new();
        for record in &records {
            let Record::Accepted(accepted) = record else { continue };
            let fingerprint = &accepted.job.definition.fingerprint;
            if !self.known.contains(fingerprint) && !revisions.contains(fingerprint) {
                revisions.push(fingerprint.clone());
                new.push(accepted.job.definition.clone());
            }
        }
        self.flushing = Some(Flush { receipts, revisions, since: Instant::now() });
        let lease = self.args.lease.clone();
        let write = async move { lease.append(&records, &new).await.map_err(|error| error.to_string()) };
        self.effects.run(write, Msg::Written);
    }

    fn written(&mut self, result: std::result::Result<std::result::Result<(), String>, Panicked>) {
        let Some(flush) = self.flushing.take() else { return };
        let problem = match result {
            Ok(Ok(())) => None,
            Ok(Err(problem)) => Some(problem),
            Err(Panicked) => Some("the journal failed on a batch".into()),
        };
        measures::committed(flush.receipts.len(), flush.since.elapsed(), problem.is_none());
        match &problem {
            None => self.known.extend(flush.revisions),
            Some(problem) => tracing::error!(problem, "records of executions could not be written"),
        }
        let mut told: Vec<(dispatcher::Ref, Vec<Receipt>)> = Vec::new();
        for (receipt, dispatcher) in flush.receipts {
            match told.iter_mut().find(|(known, _)| known.get_id() == dispatcher.get_id()) {
                Some((_, receipts)) => receipts.push(receipt),
                None => told.push((dispatcher, vec![receipt])),
            }
        }
        for (dispatcher, receipts) in told {
            let is_written = problem.is_none();
            // A dispatcher that is gone has a successor, which reads what is written.
            drop(dispatcher.cast(dispatcher::Msg::Journalled { receipts, is_written }));
        }
        self.flush();
        self.answer_recoveries();
    }

    fn recover(&mut self, reply: RpcReplyPort<Result<Recovered>>) {
        self.recoveries.push(reply);
        self.answer_recoveries();
    }

    fn answer_recoveries(&mut self) {
        if self.flushing.is_some() || !self.waiting.is_empty() {
            return;
        }
        for reply in std::mem::take(&mut self.recoveries) {
            self.answer(reply, |lease| async move { lease.open_executions().await });
        }
    }

    /// Answers with what the store has; the store's own words are for the log.
    fn answer<T: Send + 'static, F>(&mut self, reply: RpcReplyPort<Result<T>>, read: impl FnOnce(Lease) -> F)
    where
        F: Future<Output = std::result::Result<T, StoreError>> + Send + 'static,
    {
        let read = read(self.args.lease.clone());
        let read = async move { read.await.map_err(|error| unreadable(&error)) };
        self.effects.run(read, move |result| {
            drop(reply.send(result.unwrap_or_else(|Panicked| Err(broken()))));
            Msg::Settled
        });
    }

    fn arm(&mut self) {
        let pause = Duration::from_millis(self.args.settings.sweep_ms);
        self.effects.run(tokio::time::sleep(pause), |_| Msg::Sweep);
    }

    fn sweep(&mut self) {
        let Args { names, lease, settings } = self.args.clone();
        let sweep = async move { retention::sweep(&lease, &names, &settings).await };
        self.effects.run(sweep, |result| {
            match result {
                Ok(Ok(0)) | Err(Panicked) => {}
                Ok(Ok(forgotten)) => tracing::info!(forgotten, "old executions were forgotten"),
                Ok(Err(error)) => tracing::warn!(%error, "old executions could not be forgotten yet"),
            }
            Msg::Swept
        });
    }
}

/// What a caller is told when an effect panicked.
fn broken() -> Error {
    Error::unavailable("the journal failed on this request")
}

/// What a caller is told of a store that erred; the details are for the log.
fn unreadable(error: &StoreError) -> Error {
    tracing::error!(%error, "the journal cannot be read");
    Error::unavailable("the journal cannot be read at the moment")
}
