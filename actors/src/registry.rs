//! The registry: definitions by id, held in the store and kept ready in a cache.
//!
//! It owns the store while it lives; Root supervises it. When it dies, the requests it was serving lose their
//! reply port and are told `unavailable`; definitions that were handed out stay good, and the next registry
//! takes the open store over from its slot.
//!
//! Writes run one after the other, in the order in which they came. Reads run beside them and beside each
//! other; queries, which may look at many definitions, only a few at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quick_cache::unsync::Cache;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::compiled::Compiled;
use crate::definition::{Definition, Kind, Patch};
use crate::effects::{Effects, Panicked};
use crate::error::{Error, Result};
use crate::query::Filter;
use crate::settings::{SourceSettings, StoreSettings};

mod read;
mod sources;
mod store;
mod write;

pub use read::{Page, PageRequest};
pub use store::{Location, Store, StoreError};
use write::{Change, Write};

/// A reference to the registry.
pub type Ref = ActorRef<Msg>;

/// Where the open store stays while registries come and go; it is lent to one of them at a time.
pub type Slot = Arc<Mutex<Arc<Store>>>;

/// The store, for as long as this is held.
pub type Lease = Arc<OwnedMutexGuard<Arc<Store>>>;

/// How many queries look through definitions at the same time.
const CONCURRENT_QUERIES: usize = 2;

/// How many resolved names are remembered between two writes.
const MAX_ALIASES: usize = 4_096;

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
    /// Fetch a definition from the sources and add it.
    Register { kind: Kind, id: String, permit: OwnedSemaphorePermit, reply: Reply<Arc<Compiled>> },
    /// Tell how many definitions there are and what the cache holds.
    Stats(RpcReplyPort<Stats>),
    /// The slot lent the store.
    Lent(Lease),
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
    /// The write under way ended.
    Written(std::result::Result<write::Done, Panicked>),
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
    /// The open store's place.
    pub slot: Slot,
    /// `[store]`.
    pub settings: StoreSettings,
    /// `[[sources]]`.
    pub sources: Arc<[SourceSettings]>,
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
        match message {
            Msg::Lent(lease) => state.lent(lease),
            Msg::Stats(reply) => drop(reply.send(state.stats())),
            Msg::Found { lookup, exact, epoch, result } => state.found(lookup, exact, epoch, *result),
            Msg::Written(result) => state.written(result),
            Msg::Fetched { result, permit, reply } => state.fetched(result, permit, reply),
            Msg::Settled => {}
            #[cfg(feature = "faults")]
            Msg::Panic => panic!("a test told the registry to panic"),
            request if state.lease.is_none() => state.waiting.push(request),
            Msg::Get(lookup) => state.look_up(lookup, true),
            Msg::Resolve(lookup) => state.look_up(lookup, false),
            Msg::Query { kind, filter, page, permit, reply } => {
                state.query(kind, filter, page, permit, reply)
            }
            Msg::Create { definition, permit, reply } => {
                state.enqueue(Write { change: Change::Create(definition), permit, reply })
            }
            Msg::Update { kind, id, patch, if_match, permit, reply } => {
                state.enqueue(Write { change: Change::Update { kind, id, patch, if_match }, permit, reply });
            }
            Msg::Delete { kind, id, if_match, permit, reply } => {
                state.enqueue(Write { change: Change::Delete { kind, id, if_match }, permit, reply });
            }
            Msg::Register { kind, id, permit, reply } => state.register(kind, id, permit, reply),
        }
        Ok(())
    }
}

/// What the registry holds.
#[derive(Debug)]
pub struct State {
    myself: Ref,
    effects: Effects<Msg>,
    settings: StoreSettings,
    sources: Arc<[SourceSettings]>,
    lease: Option<Lease>,
    /// What came before the store was at hand; bounded by admission.
    waiting: Vec<Msg>,
    cache: [Cache<String, Arc<Compiled>, Weight>; 2],
    /// What names and ranges meant since the last write.
    aliases: HashMap<(Kind, String), Arc<Compiled>>,
    writes: VecDeque<Write>,
    writing: bool,
    /// Counts writes, so that a read that began before one is not cached after it.
    epoch: u64,
    queries: Arc<Semaphore>,
}

#[derive(Clone, Debug)]
struct Weight;

impl quick_cache::Weighter<String, Arc<Compiled>> for Weight {
    fn weight(&self, id: &String, definition: &Arc<Compiled>) -> u64 {
        id.len() as u64 + definition.weight()
    }
}

impl State {
    fn new(myself: Ref, args: Args) -> Self {
        let mut effects = Effects::new(myself.clone());
        let slot = args.slot.clone();
        // The predecessor's state may be dropped after its death was told: this waits for it.
        effects.run(async move { Arc::new(slot.lock_owned().await) }, |lease| {
            lease.map_or(Msg::Settled, Msg::Lent)
        });
        let bytes = args.settings.cache_mb * 1024 * 1024 / 2;
        let cache = || Cache::with_weighter(1_000, bytes, Weight);
        Self {
            myself,
            effects,
            settings: args.settings,
            sources: args.sources,
            lease: None,
            waiting: Vec::new(),
            cache: [cache(), cache()],
            aliases: HashMap::new(),
            writes: VecDeque::new(),
            writing: false,
            epoch: 0,
            queries: Arc::new(Semaphore::new(CONCURRENT_QUERIES)),
        }
    }

    fn lent(&mut self, lease: Lease) {
        self.lease = Some(lease);
        for message in std::mem::take(&mut self.waiting) {
            // To itself, so that each is handled like any other message.
            drop(self.myself.cast(message));
        }
    }

    fn stats(&self) -> Stats {
        Stats {
            cached: self.cache.iter().map(Cache::len).sum(),
            cached_bytes: self.cache.iter().map(Cache::weight).sum(),
            pending_writes: self.writes.len() + usize::from(self.writing),
            ready: self.lease.is_some(),
        }
    }

    fn lease(&self) -> Lease {
        self.lease.clone().expect("requests wait until the store is lent")
    }

    fn look_up(&mut self, lookup: Lookup, exact: bool) {
        let cached = self.cache[lookup.kind as usize].get(lookup.id.as_str()).cloned();
        let known = || self.aliases.get(&(lookup.kind, lookup.id.clone())).cloned();
        let found = cached.or_else(|| if exact { None } else { known() });
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
            self.cache[lookup.kind as usize].insert(definition.id.clone(), definition.clone());
            if !exact && definition.id != lookup.id && self.aliases.len() < MAX_ALIASES {
                self.aliases.insert((lookup.kind, lookup.id), definition.clone());
            }
        }
        drop(lookup.reply.send(result));
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
            let _turn = queries.acquire_owned().await;
            read::search(&lease, kind, &filter, &page, Instant::now() + budget).await
        };
        self.effects.run(search, move |result| {
            drop(reply.send(result.unwrap_or_else(|_| Err(broken()))));
            drop(permit);
            Msg::Settled
        });
    }

    fn register(
        &mut self,
        kind: Kind,
        id: String,
        permit: OwnedSemaphorePermit,
        reply: Reply<Arc<Compiled>>,
    ) {
        let sources = self.sources.clone();
        let fetch = async move { sources::fetch(&sources, kind, &id).await };
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
                self.enqueue(Write { change: Change::Create(Box::new(definition)), permit, reply })
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn enqueue(&mut self, write: Write) {
        self.writes.push_back(write);
        self.write_next();
    }

    fn write_next(&mut self) {
        if self.writing {
            return;
        }
        if let Some(write) = self.writes.pop_front() {
            self.writing = true;
            self.effects.run(write::perform(self.lease(), write), Msg::Written);
        }
    }

    fn written(&mut self, result: std::result::Result<write::Done, Panicked>) {
        self.writing = false;
        self.epoch += 1;
        self.aliases.clear();
        match result {
            Ok(done) => self.settle(done),
            // The write's reply port went with it, so its caller knows; what it wrote is unknown.
            Err(Panicked) => self.cache.iter_mut().for_each(Cache::clear),
        }
        self.write_next();
    }

    fn settle(&mut self, done: write::Done) {
        let cache = &mut self.cache[done.kind as usize];
        match &done.result {
            Ok(definition) if !done.removed => cache.insert(definition.id.clone(), definition.clone()),
            _ => drop(cache.remove(done.id.as_str())),
        }
        drop(done.reply.send(done.result));
    }
}

/// What a caller is told when an effect panicked.
fn broken() -> Error {
    Error::unavailable("the registry failed on this request")
}
