//! The registry: definitions by id, held in the store and kept ready for whoever asks.
//!
//! It owns the store while it lives; Root supervises it. When it dies, the requests it was serving lose their
//! reply port and are told `unavailable`; definitions that were handed out stay good, and the next registry
//! takes the open store over from its slot. It supervises the journal, which writes through the same store and goes
//! with it.
//!
//! Writes run one after the other, in the order in which they came. Reads run beside them and beside each
//! other; queries, which may look at many definitions, only a few at a time.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::access::{About, Ids, Issued, KeyId, Keyring, NewKey};
use crate::audit::Trail;
use crate::compiled::Compiled;
use crate::definition::{Definition, Kind, Patch, check_id};
use crate::effects::{Effects, Panicked};
use crate::error::{Code, Error, Result};
use crate::journal::{self, JournalActor};
use crate::names::Names;
use crate::query::Filter;
use crate::runtime::Context;
use crate::settings::{JournalSettings, SourceSettings, StoreSettings};
use crate::supervision::{Intensity, Verdict};

mod import;
mod known;
mod page;
mod pin;
mod read;
mod refresh;
mod search;
mod sources;
mod store;
mod write;

use import::Import;
pub use import::{ImportOptions, Imported};
pub use known::Known;
pub use page::{By, Page, PageRequest, Position, Sort};
use pin::Source;
pub use store::{Location, Memory, Noted, Store, StoreError};
use write::{Change, Write};

/// A reference to the registry.
pub type Ref = ActorRef<Msg>;

/// Where the open store stays while registries come and go; it is lent to one of them at a time.
pub type Slot = Arc<Mutex<Arc<Store>>>;

/// The store, for as long as this is held.
pub type Lease = Arc<OwnedMutexGuard<Arc<Store>>>;

/// How many queries look through definitions at the same time.
const CONCURRENT_QUERIES: usize = 2;

/// How many new definitions are written in one commit at most, and how many bytes of metadata.
const TOGETHER: usize = 256;
const TOGETHER_BYTES: usize = 1024 * 1024;

/// How long what was written may wait for the text index to commit it, where nobody searches.
const INDEX_DELAY: Duration = Duration::from_secs(1);

/// How long the search for what came from a source works at a time.
const SLICE: Duration = Duration::from_secs(1);

/// How soon a journal that could not be started is tried again.
const JOURNAL_RETRY: Duration = Duration::from_millis(2);

/// A write with what its source is, or why it is refused and whom to tell.
type Pinning = std::result::Result<Write, (Error, Reply<Arc<Compiled>>)>;

/// A write that waits for its turn.
#[derive(Debug)]
enum Turn {
    One(Write),
    Many(Import),
    /// New definitions of one kind, no two of one id.
    New(Kind, Vec<Write>),
}

/// A write that was made.
#[derive(Debug)]
#[expect(missing_docs, reason = "the kinds of a turn")]
pub enum Done {
    One(Box<write::Done>),
    Many(import::Done),
    New(Vec<write::Done>),
}

/// Where an answer goes.
pub type Reply<T> = RpcReplyPort<Result<T>>;

/// What the registry does.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields of a message are named for what they are")]
pub enum Msg {
    /// Answer with the definition of exactly this id.
    Get(Lookup),
    /// Answer with the definition that this id, name or range means.
    Resolve(Lookup),
    /// Answer with the definitions that a filter matches.
    Query {
        kind: Kind,
        filter: Box<Filter>,
        page: PageRequest,
        permit: OwnedSemaphorePermit,
        reply: Reply<Page>,
    },
    /// Answer with the ids of all versions of a name, the highest first.
    Versions { kind: Kind, name: String, permit: OwnedSemaphorePermit, reply: Reply<Vec<String>> },
    /// Answer with the revisions of a definition, the newest first.
    Revisions { kind: Kind, id: String, permit: OwnedSemaphorePermit, reply: Reply<Vec<Noted>> },
    /// Answer with one revision of a definition.
    Revision {
        kind: Kind,
        id: String,
        number: u64,
        permit: OwnedSemaphorePermit,
        reply: Reply<Arc<Compiled>>,
    },
    /// Add a definition; a taken id is a conflict.
    Create { definition: Box<Definition>, permit: OwnedSemaphorePermit, reply: Reply<Arc<Compiled>> },
    /// Replace the given fields.
    Update {
        kind: Kind,
        id: String,
        patch: Box<Patch>,
        if_match: Option<String>,
        permit: OwnedSemaphorePermit,
        reply: Reply<Arc<Compiled>>,
    },
    /// Remove a definition.
    Delete {
        kind: Kind,
        id: String,
        if_match: Option<String>,
        permit: OwnedSemaphorePermit,
        reply: Reply<Arc<Compiled>>,
    },
    /// Make an earlier revision the one in force again.
    RollBack {
        kind: Kind,
        id: String,
        number: u64,
        if_match: Option<String>,
        permit: OwnedSemaphorePermit,
        reply: Reply<Arc<Compiled>>,
    },
    /// Take in many definitions of a kind, and answer for each.
    Import {
        kind: Kind,
        definitions: Vec<Definition>,
        options: ImportOptions,
        permit: OwnedSemaphorePermit,
        reply: Reply<Vec<Result<Imported>>>,
    },
    /// Fetch a definition from the sources and add it.
    Register { kind: Kind, id: String, ids: Ids, permit: OwnedSemaphorePermit, reply: Reply<Arc<Compiled>> },
    /// Ask the source of a definition for what it is now, and write what has changed.
    Refresh { current: Arc<Compiled>, permit: Option<OwnedSemaphorePermit>, reply: Reply<Arc<Compiled>> },
    /// Answer with all that a source lists of a kind.
    List { kind: Kind, source: String, permit: OwnedSemaphorePermit, reply: Reply<Vec<Result<Definition>>> },
    /// Make an API key.
    CreateKey { new: Box<NewKey>, permit: OwnedSemaphorePermit, reply: Reply<Issued> },
    /// Revoke an API key.
    RevokeKey { id: KeyId, permit: OwnedSemaphorePermit, reply: Reply<About> },
    /// Tell what the cache holds and what waits.
    Stats(RpcReplyPort<Stats>),
    /// The slot lent the store.
    Lent(Lease),
    /// Start the journal: its predecessor bore the name still.
    StartJournal,
    /// A read that the cache could not answer came back.
    Found {
        lookup: Lookup,
        exact: bool,
        epoch: u64,
        result: Box<std::result::Result<Result<Arc<Compiled>>, Panicked>>,
    },
    /// A source answered.
    Fetched {
        result: std::result::Result<Result<Definition>, Panicked>,
        permit: OwnedSemaphorePermit,
        reply: Reply<Arc<Compiled>>,
    },
    /// The source of a definition told what it is now.
    Refreshed {
        result: std::result::Result<Result<refresh::Refreshed>, Panicked>,
        permit: Option<OwnedSemaphorePermit>,
        reply: Reply<Arc<Compiled>>,
    },
    /// The interval of this source is over.
    RefreshDue(String),
    /// These of a source are left to be refreshed.
    RefreshNext { name: String, left: VecDeque<(Kind, String)> },
    /// What the source of a definition is was found out, or that it cannot be had.
    Pinned(std::result::Result<Pinning, Panicked>),
    /// The sources of what is to be imported were found out.
    ImportPinned(std::result::Result<Import, Panicked>),
    /// The write under way ended.
    Written(std::result::Result<Done, Panicked>),
    /// The text index has committed, or could not.
    Committed,
    /// A message whose answer went out elsewhere.
    Settled,
    /// Panic, for a test.
    #[cfg(feature = "faults")]
    Panic,
}

/// A request for one definition.
#[derive(Debug)]
pub struct Lookup {
    /// Tool or function.
    pub kind: Kind,
    /// Its id, or for `Resolve` what means one.
    pub id: String,
    /// Admission, held until it is answered.
    pub permit: OwnedSemaphorePermit,
    /// Where the answer goes.
    pub reply: Reply<Arc<Compiled>>,
}

/// What `/system` shows of the registry.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Stats {
    /// Definitions in the cache.
    pub cached: usize,
    /// What they weigh, in bytes.
    pub cached_bytes: u64,
    /// Writes that wait for their turn.
    pub pending_writes: usize,
    /// Whether the store is at hand.
    pub ready: bool,
}

/// What a registry starts with.
#[derive(Debug)]
pub struct Args {
    /// How the others are found.
    pub names: Names,
    /// `[journal]`.
    pub journal: JournalSettings,
    /// The open store's place.
    pub slot: Slot,
    /// `[store]`.
    pub settings: StoreSettings,
    /// What is kept ready.
    pub known: Arc<Known>,
    /// The API keys.
    pub keyring: Arc<Keyring>,
    /// What is to be recorded in the audit log.
    pub trail: Arc<Trail>,
    /// `[[sources]]`.
    pub sources: Arc<[SourceSettings]>,
    /// Where the programs of definitions are kept, and the way out.
    pub context: Arc<Context>,
}

/// The actor.
#[derive(Debug)]
pub struct RegistryActor;

impl Actor for RegistryActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: Ref, args: Args) -> std::result::Result<State, ActorProcessingErr> {
        Ok(State::new(myself, args))
    }

    async fn handle(
        &self,
        _: Ref,
        message: Msg,
        state: &mut State,
    ) -> std::result::Result<(), ActorProcessingErr> {
        let starts_journal = matches!(message, Msg::Lent(_) | Msg::StartJournal);
        state.receive(message);
        if starts_journal {
            state.start_journal().await;
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: Ref,
        event: SupervisionEvent,
        state: &mut State,
    ) -> std::result::Result<(), ActorProcessingErr> {
        // One that was stopped is meant to be.
        let SupervisionEvent::ActorFailed(_, error) = event else { return Ok(()) };
        tracing::error!(%error, "the journal failed and is started again");
        if state.journal_failures.record(Instant::now()) == Verdict::GiveUp {
            return Err("the journal failed six times within ten seconds".into());
        }
        state.start_journal().await;
        Ok(())
    }
}

/// What the registry holds.
#[derive(Debug)]
pub struct State {
    myself: Ref,
    names: Names,
    effects: Effects<Msg>,
    settings: StoreSettings,
    journal: JournalSettings,
    journal_failures: Intensity,
    sources: Arc<[SourceSettings]>,
    context: Arc<Context>,
    lease: Option<Lease>,
    /// What came before the store was at hand; bounded by admission.
    waiting: Vec<Msg>,
    known: Arc<Known>,
    keyring: Arc<Keyring>,
    trail: Arc<Trail>,
    writes: VecDeque<Turn>,
    writing: bool,
    /// Whether the text index is about to commit.
    committing: bool,
    /// Counts writes, so that a read that began before one is not cached after it.
    epoch: u64,
    queries: Arc<Semaphore>,
}

impl State {
    fn new(myself: Ref, args: Args) -> Self {
        let mut effects = Effects::new(myself.clone());
        let slot = args.slot.clone();
        // The predecessor's state may be dropped after its death was told: this waits for it.
        effects.run(async move { Arc::new(slot.lock_owned().await) }, |lease| {
            lease.map_or(Msg::Settled, Msg::Lent)
        });
        // What the predecessor was writing when it died may be stored or not.
        args.known.clear();
        Self {
            myself,
            names: args.names,
            effects,
            settings: args.settings,
            journal: args.journal,
            journal_failures: Intensity::of_the_root(),
            sources: args.sources,
            context: args.context,
            lease: None,
            waiting: Vec::new(),
            known: args.known,
            keyring: args.keyring,
            trail: args.trail,
            writes: VecDeque::new(),
            writing: false,
            committing: false,
            epoch: 0,
            queries: Arc::new(Semaphore::new(CONCURRENT_QUERIES)),
        }
    }

    fn receive(&mut self, message: Msg) {
        match message {
            Msg::Lent(lease) => self.lent(lease),
            Msg::Stats(reply) => drop(reply.send(self.stats())),
            Msg::Found { lookup, exact, epoch, result } => self.found(lookup, exact, epoch, *result),
            Msg::Written(result) => self.written(result),
            Msg::Fetched { result, permit, reply } => self.fetched(result, permit, reply),
            Msg::Refreshed { result, permit, reply } => self.refreshed(result, permit, reply),
            Msg::Pinned(result) => self.pinned(result),
            // The reply went with what panicked, so its caller knows.
            Msg::ImportPinned(import) => drop(import.map(|import| self.enqueue(Turn::Many(import)))),
            Msg::Committed => self.committed(),
            Msg::Settled | Msg::StartJournal => {}
            #[cfg(feature = "faults")]
            Msg::Panic => panic!("a test told the registry to panic"),
            request if self.lease.is_none() => self.waiting.push(request),
            Msg::Get(lookup) => self.look_up(lookup, true),
            Msg::Resolve(lookup) => self.look_up(lookup, false),
            Msg::Query { kind, filter, page, permit, reply } => self.query(kind, filter, page, permit, reply),
            Msg::Versions { kind, name, permit, reply } => {
                let lease = self.lease();
                self.read(async move { read::versions(&lease, kind, &name).await }, permit, reply);
            }
            Msg::Revisions { kind, id, permit, reply } => {
                let lease = self.lease();
                self.read(async move { read::revisions(&lease, kind, &id).await }, permit, reply);
            }
            Msg::Revision { kind, id, number, permit, reply } => {
                let lease = self.lease();
                self.read(async move { read::revision(&lease, kind, &id, number).await }, permit, reply);
            }
            Msg::Create { definition, permit, reply } => {
                self.pin(Write { change: Change::Create(definition, None), permit: Some(permit), reply });
            }
            Msg::Update { kind, id, patch, if_match, permit, reply } => {
                let change = Change::Update { kind, id, patch, pin: None, if_match };
                self.pin(Write { change, permit: Some(permit), reply });
            }
            Msg::Delete { kind, id, if_match, permit, reply } => {
                let change = Change::Delete { kind, id, if_match };
                self.enqueue(Turn::One(Write { change, permit: Some(permit), reply }));
            }
            Msg::RollBack { kind, id, number, if_match, permit, reply } => {
                let change = Change::RollBack { kind, id, number, if_match };
                self.enqueue(Turn::One(Write { change, permit: Some(permit), reply }));
            }
            Msg::Import { kind, definitions, options, permit, reply } => {
                let context = self.context.clone();
                let pinning = async move {
                    let incoming = import::pinned(definitions, &context.artifacts).await;
                    Import { kind, incoming, options, permit, reply }
                };
                self.effects.run(pinning, Msg::ImportPinned);
            }
            Msg::CreateKey { new, permit, reply } => {
                let (lease, keyring) = (self.lease(), self.keyring.clone());
                self.read(async move { keyring.create(&lease, *new).await }, permit, reply);
            }
            Msg::RevokeKey { id, permit, reply } => {
                let (lease, keyring) = (self.lease(), self.keyring.clone());
                self.read(async move { keyring.revoke(&lease, id).await }, permit, reply);
            }
            Msg::Register { kind, id, ids, permit, reply } => self.register(kind, id, ids, permit, reply),
            Msg::Refresh { current, permit, reply } => self.refresh(current, permit, reply),
            Msg::RefreshDue(name) => self.refresh_due(name),
            Msg::RefreshNext { name, left } => self.refresh_next(name, left),
            Msg::List { kind, source, permit, reply } => {
                let (sources, context) = (self.sources.clone(), self.context.clone());
                let list = async move { sources::list(&context.egress, &sources, &source, kind).await };
                self.read(list, permit, reply);
            }
        }
    }

    fn lent(&mut self, lease: Lease) {
        // Beside everything else, so that a search finds an index that has all.
        let store = lease.clone();
        self.effects.run(async move { store.level().await }, |levelled| {
            if let Ok(Err(error)) = levelled {
                tracing::warn!(%error, "the text index lacks some definitions; the next search tries again");
            }
            Msg::Settled
        });
        self.lease = Some(lease);
        self.wait_for_refreshes();
        for message in std::mem::take(&mut self.waiting) {
            self.receive(message);
        }
    }

    async fn start_journal(&mut self) {
        let args =
            journal::Args { names: self.names.clone(), lease: self.lease(), settings: self.journal.clone() };
        let name = Some(self.names.journal());
        let started = JournalActor::spawn_linked(name, JournalActor, args, self.myself.get_cell()).await;
        if let Err(error) = started {
            // When this registry is itself a successor, the journal of the one before may still bear the name.
            tracing::debug!(%error, "the journal could not be started yet");
            self.effects.run(tokio::time::sleep(JOURNAL_RETRY), |_| Msg::StartJournal);
        }
    }

    fn stats(&self) -> Stats {
        Stats {
            cached: self.known.count(),
            cached_bytes: self.known.bytes(),
            pending_writes: self.writes.len() + usize::from(self.writing),
            ready: self.lease.as_ref().is_some_and(|lease| lease.is_open()),
        }
    }

    fn lease(&self) -> Lease {
        self.lease.clone().expect("requests wait until the store is lent")
    }

    fn look_up(&mut self, lookup: Lookup, exact: bool) {
        let known = &self.known;
        let found =
            if exact { known.get(lookup.kind, &lookup.id) } else { known.resolve(lookup.kind, &lookup.id) };
        if let Some(definition) = found {
            drop(lookup.reply.send(Ok(definition)));
            return;
        }
        let (lease, epoch) = (self.lease(), self.epoch);
        let (kind, id) = (lookup.kind, lookup.id.clone());
        let read = async move {
            if exact { read::get(&lease, kind, &id).await } else { read::resolve(&lease, kind, &id).await }
        };
        self.effects.run(read, move |result| Msg::Found { lookup, exact, epoch, result: Box::new(result) });
    }

    fn found(
        &mut self,
        lookup: Lookup,
        exact: bool,
        epoch: u64,
        result: std::result::Result<Result<Arc<Compiled>>, Panicked>,
    ) {
        let result = result.unwrap_or_else(|_| Err(broken()));
        if let Ok(definition) = &result
            && epoch == self.epoch
        {
            self.known.insert(definition.clone());
            if !exact && definition.id != lookup.id {
                self.known.note(lookup.kind, lookup.id, &definition.id);
            }
        }
        drop(lookup.reply.send(result));
    }

    /// Does what need not wait for the writes of definitions, and answers.
    fn read<T: Send + 'static>(
        &mut self,
        read: impl Future<Output = Result<T>> + Send + 'static,
        permit: OwnedSemaphorePermit,
        reply: Reply<T>,
    ) {
        self.effects.run(read, move |result| {
            drop(reply.send(result.unwrap_or_else(|Panicked| Err(broken()))));
            drop(permit);
            Msg::Settled
        });
    }

    fn query(
        &mut self,
        kind: Kind,
        filter: Box<Filter>,
        page: PageRequest,
        permit: OwnedSemaphorePermit,
        reply: Reply<Page>,
    ) {
        let (lease, queries) = (self.lease(), self.queries.clone());
        let budget = Duration::from_millis(self.settings.query_timeout_ms);
        let search = async move {
            let deadline = Instant::now() + budget;
            let Ok(_turn) = tokio::time::timeout(budget, queries.acquire_owned()).await else {
                return Err(Error::new(Code::Overloaded, "other queries take all the time; try again later"));
            };
            read::search(&lease, kind, &filter, &page, deadline).await
        };
        self.read(search, permit, reply);
    }

    fn register(
        &mut self,
        kind: Kind,
        id: String,
        ids: Ids,
        permit: OwnedSemaphorePermit,
        reply: Reply<Arc<Compiled>>,
    ) {
        if let Err(error) = check_id(&id) {
            return drop(reply.send(Err(error)));
        }
        let (sources, context) = (self.sources.clone(), self.context.clone());
        let fetch = async move {
            let found = sources::fetch(&context.egress, &sources, kind, &id).await?;
            // A name is answered by the version that the source has, which may be another id.
            if ids.has(&found.id) { Ok(found) } else { Err(ids.refusal()) }
        };
        self.effects.run(fetch, move |result| Msg::Fetched { result, permit, reply });
    }

    fn fetched(
        &mut self,
        result: std::result::Result<Result<Definition>, Panicked>,
        permit: OwnedSemaphorePermit,
        reply: Reply<Arc<Compiled>>,
    ) {
        match result.unwrap_or_else(|_| Err(broken())) {
            Ok(definition) => {
                self.pin(Write {
                    change: Change::Create(Box::new(definition), None),
                    permit: Some(permit),
                    reply,
                });
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Before a definition with a source is written, its source is brought in: what was registered is what runs.
    fn pin(&mut self, write: Write) {
        let Some(source) = write.change.metadata().and_then(Source::of) else {
            return self.enqueue(Turn::One(write));
        };
        let context = self.context.clone();
        let pinning = async move {
            match source.pin(&context.artifacts).await {
                Ok(pin) => Ok(write.with(pin)),
                Err(error) => Err((error, write.reply)),
            }
        };
        self.effects.run(pinning, Msg::Pinned);
    }

    fn pinned(&mut self, result: std::result::Result<Pinning, Panicked>) {
        match result {
            Ok(Ok(write)) => self.enqueue(Turn::One(write)),
            Ok(Err((error, reply))) => drop(reply.send(Err(error))),
            // The reply went with the write, so its caller knows.
            Err(Panicked) => {}
        }
    }

    fn enqueue(&mut self, turn: Turn) {
        self.writes.push_back(turn);
        self.write_next();
    }

    fn write_next(&mut self) {
        if self.writing {
            return;
        }
        let Some(turn) = self.next_turn() else { return };
        self.writing = true;
        let lease = self.lease();
        let work = async move {
            match turn {
                Turn::One(write) => Done::One(Box::new(write::perform(lease, write).await)),
                Turn::Many(import) => Done::Many(import::perform(lease, import).await),
                Turn::New(kind, writes) => Done::New(write::create_together(lease, kind, writes).await),
            }
        };
        self.effects.run(work, Msg::Written);
    }

    /// What is written next: new definitions that wait one after the other go together.
    fn next_turn(&mut self) -> Option<Turn> {
        let first = self.writes.pop_front()?;
        let Turn::One(write) = &first else { return Some(first) };
        let Some(added) = write.added() else { return Some(first) };
        let (kind, mut ids) = (added.kind, HashSet::from([added.id.clone()]));
        let mut bytes = added.metadata.len();
        let mut joins = |turn: &Turn| {
            let Turn::One(write) = turn else { return false };
            write.added().is_some_and(|next| {
                bytes += next.metadata.len();
                next.kind == kind && bytes <= TOGETHER_BYTES && ids.insert(next.id.clone())
            })
        };
        let others = self.writes.iter().take(TOGETHER - 1).take_while(|turn| joins(turn)).count();
        if others == 0 {
            return Some(first);
        }
        let turns = std::iter::once(first).chain(self.writes.drain(..others));
        let writes = turns.filter_map(|turn| if let Turn::One(write) = turn { Some(write) } else { None });
        Some(Turn::New(kind, writes.collect()))
    }

    fn written(&mut self, result: std::result::Result<Done, Panicked>) {
        self.writing = false;
        self.epoch += 1;
        self.known.forget_names();
        match result {
            Ok(Done::One(done)) => self.settle(*done),
            Ok(Done::New(all)) => all.into_iter().for_each(|done| self.settle(done)),
            Ok(Done::Many(done)) => {
                done.updated.iter().for_each(|id| self.known.remove(done.kind, id));
                done.answer();
            }
            // The write's reply port went with it, so its caller knows; what it wrote is unknown.
            Err(Panicked) => self.known.clear(),
        }
        self.write_next();
        self.commit_soon();
    }

    /// The text index commits what was written: a little later, so that it is many at a time.
    fn commit_soon(&mut self) {
        let search = self.lease().search().clone();
        if self.committing || !search.is_pending() {
            return;
        }
        self.committing = true;
        let commit = async move {
            tokio::time::sleep(INDEX_DELAY).await;
            // What went wrong is in the log; the next search mends it.
            drop(tokio::task::spawn_blocking(move || search.commit()).await);
        };
        self.effects.run(commit, |_| Msg::Committed);
    }

    fn committed(&mut self) {
        self.committing = false;
        self.commit_soon();
    }

    fn settle(&mut self, done: write::Done) {
        match &done.result {
            Ok(definition) if !done.removed => self.known.insert(definition.clone()),
            _ => self.known.remove(done.kind, &done.id),
        }
        drop(done.reply.send(done.result));
    }
}

/// What a caller is told when an effect panicked.
fn broken() -> Error {
    Error::unavailable("the registry failed on this request")
}
