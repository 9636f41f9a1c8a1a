//! The one handle on a running engine: starts the tree, finds its actors by name at each call, and drains it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ractor::{Actor, ActorId, ActorRef, Message, RpcReplyPort};
use serde_json::json;
use tokio::sync::{Mutex, OwnedSemaphorePermit, mpsc, oneshot, watch};

use crate::access::{About, Ids, Issued, Issuers, KeyId, Keyring, NewKey};
use crate::admission::Admission;
use crate::audit::{Action, Origin, Trail};
use crate::compiled::Compiled;
use crate::definition::{Definition, Kind, Patch};
use crate::dispatcher::{self, Caller};
use crate::error::{Code, Error, Result};
use crate::execution::{Client, Job, Runtime};
use crate::log::LogRing;
use crate::names::Names;
use crate::query::Filter;
use crate::registry::{
    self, ImportOptions, Imported, Known, Location, Lookup, Memory, Noted, Page, PageRequest, Store,
};
use crate::root::{self, RootActor};
use crate::runtime::{Context, Places};
use crate::session::{self, Backlog, Door, FRAMES, Frame};
use crate::settings::{Allowed, AuthSettings, PoolSettings, Required, Settings};
use crate::{pools, sessions};

mod acting;
mod auditing;
mod drain;
mod executions;
mod folders;
mod picture;

pub use acting::Acting;
pub use executions::Execution;
pub use folders::Folders;
pub use picture::Picture;

pub use crate::runtime::{Readiness, adopt_orphans};

/// How many queries and registrations may be under way or wait. They take long, and must not take the places of what
/// executions need from the registry.
const MAX_QUERIES: usize = 256;
const MAX_REGISTRATIONS: usize = 64;

/// How many may read the audit log at the same time.
const MAX_AUDITORS: usize = 8;

/// A cheap handle on a running engine.
#[derive(Clone, Debug)]
pub struct System {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    names: Names,
    settings: Arc<Settings>,
    folders: Folders,
    context: Arc<Context>,
    slot: registry::Slot,
    known: Arc<Known>,
    keyring: Arc<Keyring>,
    trail: Arc<Trail>,
    audit_admission: Admission,
    registry_admission: Admission,
    query_admission: Admission,
    source_admission: Admission,
    dispatcher_admission: Admission,
    session_admission: Admission,
    /// How many bytes of outcomes wait for clients.
    backlog: Arc<AtomicUsize>,
    draining: AtomicBool,
    fatal: watch::Receiver<Option<String>>,
}

/// What a system needs besides its settings.
#[derive(Clone, Debug)]
pub struct Host {
    /// How many sessions there may be at the same time.
    pub sessions: usize,
    /// How a launcher is started: a program that calls [`crate::launcher::main`], and its arguments.
    pub launcher: Vec<OsString>,
}

/// What became of an execution that was to be submitted without waiting.
#[derive(Debug)]
pub enum Submitted {
    /// This dispatcher has it.
    To(ActorId),
    /// Something has to be waited for.
    Not(Box<Job>, Caller),
}

/// A session and the ways on which its frames and its log come.
#[derive(Debug)]
pub struct Connection {
    /// Where the request goes.
    pub session: session::Ref,
    /// What is to be written; it closes without a last frame when the session failed.
    pub frames: mpsc::Receiver<Box<Frame>>,
    /// What came on that way and is not written yet.
    pub backlog: Arc<Backlog>,
    /// Log lines, where the request asked for them.
    pub log: Arc<LogRing>,
}

impl System {
    /// Opens the store and starts the tree.
    ///
    /// # Errors
    /// One sentence: what the settings ask for cannot be had, or what is in the way of the store.
    pub async fn start(settings: Settings, host: Host) -> Result<Self> {
        let location = Location::parse(&settings.store.url);
        let location =
            location.ok_or_else(|| Error::invalid("`store.url` is neither surrealkv://FOLDER nor mem://"))?;
        let store = Store::open(location.clone(), Memory(settings.store.memory_mb))
            .await
            .map_err(|error| Error::unavailable(error.to_string()))?;
        let issuers = Issuers::load(&settings.auth.issuers).map_err(Error::unavailable)?;
        let keys = store.keys().await.map_err(|error| Error::unavailable(error.to_string()))?;
        let is_required = settings.auth.required == Required::Always;
        let keyring = Arc::new(Keyring::new(keys, issuers, is_required));
        let folders = Folders::of(&location)?;
        let mut roots = vec![folders.catalog.clone()];
        roots.extend(settings.artifacts.roots.iter().cloned());
        let places = Places { data: folders.data.clone(), run: folders.run.clone(), roots };
        let context = Context::new(&settings, places, host.launcher).map_err(Error::unavailable)?;
        let context = Arc::new(context);
        let settling = context.clone();
        // In a task, as all that starts processes: the main thread's children are taken for orphans.
        let settled = tokio::spawn(async move { settling.settle_sandbox().await }).await;
        let settled = settled.unwrap_or_else(|_| Err("the sandbox could not be tried".into()));
        settled.map_err(Error::unavailable)?;
        let sweeping = context.clone();
        tokio::spawn(async move { sweeping.sweep().await });

        let (names, settings) = (Names::unique(), Arc::new(settings));
        let (store, trail) = (Arc::new(store), Arc::new(Trail::new(settings.audit.enabled)));
        let detail = json!({ "version": env!("CARGO_PKG_VERSION"), "pid": std::process::id() });
        trail.done(&Arc::new(Origin::service()), Action::ServiceStart, "service", detail);
        let slot: registry::Slot = Arc::new(Mutex::new(store.clone()));
        let known = Arc::new(Known::new(settings.store.cache_mb << 20));
        let (fatal_sender, fatal) = watch::channel(None);
        let args = root::Args {
            names: names.clone(),
            settings: settings.clone(),
            slot: slot.clone(),
            known: known.clone(),
            keyring: keyring.clone(),
            trail: trail.clone(),
            store,
            context: context.clone(),
            fatal: fatal_sender,
        };
        let started = RootActor::spawn(Some(names.root()), RootActor, args).await;
        started.map_err(|error| {
            Error::unavailable(format!("the supervision tree could not be started: {error}"))
        })?;
        let inner = Inner {
            registry_admission: Admission::new(settings.store.max_pending),
            audit_admission: Admission::new(MAX_AUDITORS),
            query_admission: Admission::new(MAX_QUERIES),
            source_admission: Admission::new(MAX_REGISTRATIONS),
            dispatcher_admission: Admission::new(settings.dispatcher.max_pending),
            session_admission: Admission::new(host.sessions),
            backlog: Arc::default(),
            names,
            settings,
            folders,
            context,
            slot,
            known,
            keyring,
            trail,
            draining: AtomicBool::new(false),
            fatal,
        };
        let system = Self { inner: Arc::new(inner) };
        #[cfg(feature = "faults")]
        crate::faults::listen(system.clone());
        Ok(system)
    }

    /// The folders of this system.
    pub fn folders(&self) -> &Folders {
        &self.inner.folders
    }

    /// How the actors of this system find each other.
    pub fn names(&self) -> &Names {
        &self.inner.names
    }

    /// Adds a definition.
    ///
    /// # Errors
    /// `conflict` where its id is taken; `overloaded`, `unavailable`.
    pub(crate) async fn create(&self, definition: Definition) -> Result<Arc<Compiled>> {
        let definition = Box::new(definition);
        self.ask(Client::UNNAMED, |permit, reply| registry::Msg::Create { definition, permit, reply }).await
    }

    /// The definition of exactly this id.
    ///
    /// # Errors
    /// `not_found`; `overloaded`, `unavailable`.
    pub(crate) async fn get(&self, kind: Kind, id: &str) -> Result<Arc<Compiled>> {
        match self.inner.known.get(kind, id) {
            Some(definition) => Ok(definition),
            None => self.look_up(Client::UNNAMED, kind, id, registry::Msg::Get).await,
        }
    }

    /// The definition that this id, bare name, `name:latest` or range means.
    ///
    /// # Errors
    /// `not_found`; `overloaded`, `unavailable`.
    pub(crate) async fn resolve(&self, client: Client, kind: Kind, id: &str) -> Result<Arc<Compiled>> {
        match self.known(kind, id) {
            Some(definition) => Ok(definition),
            None => self.look_up(client, kind, id, registry::Msg::Resolve).await,
        }
    }

    /// The same, where it is kept ready.
    pub(crate) fn known(&self, kind: Kind, id: &str) -> Option<Arc<Compiled>> {
        self.inner.known.resolve(kind, id)
    }

    /// The ids of all versions of a name, the highest first.
    ///
    /// # Errors
    /// `not_found`; `overloaded`, `unavailable`.
    pub(crate) async fn versions(&self, kind: Kind, name: &str) -> Result<Vec<String>> {
        let name = name.to_owned();
        self.ask(Client::UNNAMED, |permit, reply| registry::Msg::Versions { kind, name, permit, reply }).await
    }

    /// The revisions of a definition that are kept, the newest first, which is the one in force.
    ///
    /// # Errors
    /// `not_found`; `overloaded`, `unavailable`.
    pub(crate) async fn revisions(&self, kind: Kind, id: &str) -> Result<Vec<Noted>> {
        let id = id.to_owned();
        self.ask(Client::UNNAMED, |permit, reply| registry::Msg::Revisions { kind, id, permit, reply }).await
    }

    /// One revision of a definition.
    ///
    /// # Errors
    /// `not_found`; `overloaded`, `unavailable`.
    pub(crate) async fn revision(&self, kind: Kind, id: &str, number: u64) -> Result<Arc<Compiled>> {
        let id = id.to_owned();
        self.ask(Client::UNNAMED, |permit, reply| registry::Msg::Revision { kind, id, number, permit, reply })
            .await
    }

    /// Makes an earlier revision of a definition the one in force again, as a new revision, with what its source was
    /// then.
    ///
    /// # Errors
    /// `not_found`, `precondition_failed`; `overloaded`, `unavailable`.
    pub(crate) async fn roll_back(
        &self,
        kind: Kind,
        id: &str,
        number: u64,
        if_match: Option<String>,
    ) -> Result<Arc<Compiled>> {
        let id = id.to_owned();
        self.ask(Client::UNNAMED, |permit, reply| registry::Msg::RollBack {
            kind,
            id,
            number,
            if_match,
            permit,
            reply,
        })
        .await
    }

    /// Takes in many definitions of a kind, and tells what became of each, in their order.
    ///
    /// # Errors
    /// `overloaded`, `unavailable`; what is wrong with one of them is in its own place.
    pub(crate) async fn import(
        &self,
        kind: Kind,
        definitions: Vec<Definition>,
        options: ImportOptions,
    ) -> Result<Vec<Result<Imported>>> {
        self.ask(Client::UNNAMED, |permit, reply| registry::Msg::Import {
            kind,
            definitions,
            options,
            permit,
            reply,
        })
        .await
    }

    /// Replaces the given fields of a definition.
    ///
    /// # Errors
    /// `not_found`, `precondition_failed`, `invalid`; `overloaded`, `unavailable`.
    pub(crate) async fn update(
        &self,
        kind: Kind,
        id: &str,
        patch: Patch,
        if_match: Option<String>,
    ) -> Result<Arc<Compiled>> {
        let (id, patch) = (id.to_owned(), Box::new(patch));
        self.ask(Client::UNNAMED, |permit, reply| registry::Msg::Update {
            kind,
            id,
            patch,
            if_match,
            permit,
            reply,
        })
        .await
    }

    /// Removes a definition; executions that were accepted with it keep it.
    ///
    /// # Errors
    /// `not_found`, `precondition_failed`; `overloaded`, `unavailable`.
    pub(crate) async fn delete(
        &self,
        kind: Kind,
        id: &str,
        if_match: Option<String>,
    ) -> Result<Arc<Compiled>> {
        let id = id.to_owned();
        self.ask(Client::UNNAMED, |permit, reply| registry::Msg::Delete { kind, id, if_match, permit, reply })
            .await
    }

    /// Fetches a definition from the configured sources and adds it, where its id is one of these.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `source_unavailable`, `conflict`; `overloaded`, `unavailable`.
    pub(crate) async fn register(&self, kind: Kind, id: &str, ids: Ids) -> Result<Arc<Compiled>> {
        let id = id.to_owned();
        self.ask_at_once(&self.inner.source_admission, |permit, reply| registry::Msg::Register {
            kind,
            id,
            ids,
            permit,
            reply,
        })
        .await
    }

    /// Fetches a definition again from the source that it came from, and tells whether that made a new revision.
    ///
    /// # Errors
    /// `not_found`, `conflict` where it came from none, `source_unavailable`, `precondition_failed` where it was written
    /// meanwhile; `overloaded`, `unavailable`.
    pub(crate) async fn refresh(&self, kind: Kind, id: &str) -> Result<(Arc<Compiled>, bool)> {
        let current = self.get(kind, id).await?;
        let before = current.etag.clone();
        let now = self
            .ask_at_once(&self.inner.source_admission, |permit, reply| registry::Msg::Refresh {
                current,
                permit: Some(permit),
                reply,
            })
            .await?;
        let is_new = now.etag != before;
        Ok((now, is_new))
    }

    /// All definitions of a kind that a source lists.
    ///
    /// # Errors
    /// `not_found`, `source_unavailable`; `overloaded`, `unavailable`.
    pub(crate) async fn list_source(&self, kind: Kind, source: &str) -> Result<Vec<Result<Definition>>> {
        let source = source.to_owned();
        self.ask_at_once(&self.inner.source_admission, |permit, reply| registry::Msg::List {
            kind,
            source,
            permit,
            reply,
        })
        .await
    }

    /// A page of the definitions that a filter matches.
    ///
    /// # Errors
    /// `overloaded`, `unavailable`.
    pub(crate) async fn query(&self, kind: Kind, filter: Filter, page: PageRequest) -> Result<Page> {
        let filter = Box::new(filter);
        self.ask_at_once(&self.inner.query_admission, |permit, reply| registry::Msg::Query {
            kind,
            filter,
            page,
            permit,
            reply,
        })
        .await
    }

    /// Gives an execution to the dispatcher, which tells the caller whether it took it in; the answer here says only
    /// which dispatcher that was.
    ///
    /// # Errors
    /// `draining`, `overloaded`, `unavailable`.
    pub(crate) async fn submit(&self, job: Box<Job>, caller: Caller) -> Result<ActorId> {
        let (origin, definition) = (job.origin.clone(), job.definition.clone());
        let submitted = self.hand_in(job, caller).await;
        if let Err(error) = &submitted {
            let subject = definition.kind.subject(&definition.id);
            self.inner.trail.refused(&origin, Action::ExecutionAccept, subject, error);
        }
        submitted
    }

    async fn hand_in(&self, job: Box<Job>, caller: Caller) -> Result<ActorId> {
        self.refuse_when_draining()?;
        let permit = self.inner.dispatcher_admission.in_turn(job.client).await?;
        // With its place, so that only so many wait here, and clients in their turns.
        self.inner.trail.calm().await;
        let recorded = match job.key() {
            Some(key) if self.inner.settings.is_journalled() => self.recorded_under(key).await?,
            _ => None,
        };
        let mut message = dispatcher::Msg::Submit { job, caller, permit, recorded };
        loop {
            let dispatcher =
                self.inner.names.wait_for::<dispatcher::Msg>(&self.inner.names.dispatcher()).await?;
            match dispatcher.cast(message) {
                Ok(()) => return Ok(dispatcher.get_id()),
                // It died between the look and the message: its successor is awaited.
                Err(ractor::MessagingErr::SendErr(unsent)) => message = unsent,
                Err(_) => return Err(Error::unavailable("the dispatcher cannot be reached")),
            }
            tokio::task::yield_now().await;
        }
    }

    /// The same, where nothing has to be waited for; otherwise the execution comes back.
    ///
    /// # Errors
    /// `unavailable`.
    pub(crate) fn submit_now(&self, job: Box<Job>, caller: Caller) -> Result<Submitted> {
        if self.is_draining() {
            // Where it is waited for, this is refused.
            return Ok(Submitted::Not(job, caller));
        }
        // Whether its idempotency key is on record is a question to the journal.
        let asks = job.options.idempotency_key.is_some() && self.inner.settings.is_journalled();
        let waits = asks || !self.inner.trail.is_calm();
        let place = if waits { None } else { self.inner.dispatcher_admission.at_once().ok() };
        let dispatcher = self.inner.names.find::<dispatcher::Msg>(&self.inner.names.dispatcher());
        let (Some(permit), Some(dispatcher)) = (place, dispatcher) else {
            return Ok(Submitted::Not(job, caller));
        };
        match dispatcher.cast(dispatcher::Msg::Submit { job, caller, permit, recorded: None }) {
            Ok(()) => Ok(Submitted::To(dispatcher.get_id())),
            Err(ractor::MessagingErr::SendErr(dispatcher::Msg::Submit { job, caller, .. })) => {
                Ok(Submitted::Not(job, caller))
            }
            Err(_) => Err(Error::unavailable("the dispatcher cannot be reached")),
        }
    }

    /// Makes an API key.
    pub(crate) async fn create_key(&self, new: NewKey) -> Result<Issued> {
        let new = Box::new(new);
        self.ask(Client::UNNAMED, |permit, reply| registry::Msg::CreateKey { new, permit, reply }).await
    }

    /// Revokes an API key.
    pub(crate) async fn revoke_key(&self, id: KeyId) -> Result<About> {
        self.ask(Client::UNNAMED, |permit, reply| registry::Msg::RevokeKey { id, permit, reply }).await
    }

    /// Whether everybody who reaches the service may do everything: no key is asked for.
    pub fn is_open(&self) -> bool {
        self.inner.keyring.is_open()
    }

    /// Takes tokens as these settings say, without a restart: their keys may have changed.
    ///
    /// # Errors
    /// A set of keys that cannot be read; then it stays as it was.
    pub fn trust(&self, settings: &AuthSettings) -> Result<()> {
        self.inner.keyring.trust(Issuers::load(&settings.issuers).map_err(Error::unavailable)?);
        Ok(())
    }

    /// Starts a session for a new connection, on which so many requests may be open at the same time.
    ///
    /// # Errors
    /// `draining`, `overloaded`, `unavailable`.
    pub(crate) async fn open_session(
        &self,
        acting: &Acting,
        door: Door,
        traceparent: Option<String>,
        window: usize,
    ) -> Result<Connection> {
        self.refuse_when_draining()?;
        let permit = Arc::new(self.inner.session_admission.at_once()?);
        let (sender, frames) = mpsc::channel(FRAMES * window.max(1));
        let backlog = Arc::new(Backlog::new(self.inner.backlog.clone()));
        let log = Arc::new(LogRing::new(self.inner.settings.limits.log_lines));
        let args = session::Args {
            door,
            traceparent,
            acting: acting.clone(),
            frames: sender,
            backlog: backlog.clone(),
            log: log.clone(),
        };
        let args = Box::new(args);
        let session = self
            .call::<sessions::Msg, _>(&self.inner.names.sessions(), |reply| sessions::Msg::Open {
                args,
                permit,
                reply,
            })
            .await?;
        Ok(Connection { session, frames, backlog, log })
    }

    /// From now on this may be reached though it is private, and nothing else that is.
    pub fn allow(&self, entries: Vec<Allowed>) {
        self.inner.context.egress.allow(entries);
    }

    /// Gives the pools other bounds, without a restart.
    pub fn resize(&self, pools: BTreeMap<Runtime, PoolSettings>) {
        let names = &self.inner.names;
        names.tell(&names.root(), root::Msg::Resize(pools.clone()));
        names.tell(&names.dispatcher(), dispatcher::Msg::Resize(pools.clone()));
        names.tell(&names.pools(), pools::Msg::Resize(pools));
    }

    /// Resolves when the tree cannot be kept alive, with the reason.
    pub async fn fatal(&self) -> String {
        let mut fatal = self.inner.fatal.clone();
        let reason = match fatal.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone(),
            // The root is gone, and with it the sender.
            Err(_) => None,
        };
        reason.unwrap_or_else(|| "the root of the supervision tree is gone".into())
    }

    /// Whether the service is shutting down.
    pub fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Acquire)
    }

    fn refuse_when_draining(&self) -> Result<()> {
        if self.is_draining() {
            Err(Error::new(Code::Draining, "the service is shutting down"))
        } else {
            Ok(())
        }
    }

    /// A lookup changes nothing, so one that a dying registry lost is asked once more.
    async fn look_up(
        &self,
        client: Client,
        kind: Kind,
        id: &str,
        message: fn(Lookup) -> registry::Msg,
    ) -> Result<Arc<Compiled>> {
        let ask = || {
            let id = id.to_owned();
            self.ask(client, move |permit, reply| message(Lookup { kind, id, permit, reply }))
        };
        match ask().await {
            Err(error) if error.code() == Code::Unavailable => ask().await,
            answer => answer,
        }
    }

    /// Asks the registry, as soon as it is this client's turn.
    async fn ask<T: Send + 'static>(
        &self,
        client: Client,
        message: impl FnOnce(OwnedSemaphorePermit, registry::Reply<T>) -> registry::Msg,
    ) -> Result<T> {
        let permit = self.inner.registry_admission.in_turn(client).await?;
        self.call::<registry::Msg, _>(&self.inner.names.registry(), |reply| message(permit, reply)).await?
    }

    /// Asks the registry what takes long, while not too much of that is under way.
    async fn ask_at_once<T: Send + 'static>(
        &self,
        admission: &Admission,
        message: impl FnOnce(OwnedSemaphorePermit, registry::Reply<T>) -> registry::Msg,
    ) -> Result<T> {
        let permit = admission.at_once()?;
        self.call::<registry::Msg, _>(&self.inner.names.registry(), |reply| message(permit, reply)).await?
    }

    /// Sends a question and waits for its answer; an actor that dies meanwhile is `unavailable`.
    async fn call<M: Message, T: Send + 'static>(
        &self,
        name: &str,
        message: impl FnOnce(RpcReplyPort<T>) -> M,
    ) -> Result<T> {
        let actor: ActorRef<M> = self.inner.names.wait_for(name).await?;
        let (sender, answer) = oneshot::channel();
        let lost = || Error::unavailable("a part of the service failed while it held this request");
        actor.cast(message(sender.into())).map_err(|_| lost())?;
        answer.await.map_err(|_| lost())
    }
}
