//! The root of the tree: one_for_one over the registry, the dispatcher, the pools, the sessions and the audit log.
//!
//! A child that died is started again at once. The sixth failure of the registry or of the dispatcher within ten
//! seconds is not borne: the service is told to end, saying why. Pools, sessions and the audit log never end it; after
//! five failures in a row their restart is delayed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::watch;

use crate::access::Keyring;
use crate::audit::{self, AuditActor, Trail};
use crate::dispatcher::{self, DispatcherActor};
use crate::effects::Effects;
use crate::names::Names;
use crate::pools::{self, PoolsActor};
use crate::registry::{self, RegistryActor};
use crate::runtime::Context;
use crate::sessions::{self, SessionsActor};
use crate::settings::Settings;
use crate::supervision::{Backoff, Intensity, Verdict};

/// A reference to the root.
pub type Ref = ActorRef<Msg>;

/// Root's children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Child {
    /// Definitions.
    Registry,
    /// The queue.
    Dispatcher,
    /// The executors.
    Pools,
    /// The connections.
    Sessions,
    /// Who did what.
    Audit,
}

impl Child {
    const ALL: [Self; 5] = [Self::Audit, Self::Registry, Self::Dispatcher, Self::Pools, Self::Sessions];
}

/// When what may be away for a while and could not be started is tried again.
const RETRY: std::time::Duration = std::time::Duration::from_millis(100);

/// What the root does.
#[derive(Debug)]
pub enum Msg {
    /// Start this child: the delay after repeated failures is over.
    Restart(Child),
    /// From now on a child that ends is meant to.
    Stopping,
    /// The pools have other bounds now, also when they are started again.
    Resize(BTreeMap<crate::execution::Runtime, crate::settings::PoolSettings>),
    /// Tell which children live, and how often each was started again.
    Tree(RpcReplyPort<BTreeMap<Child, Life>>),
}

/// What `/system` shows of a child.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Life {
    /// Whether it is there now.
    pub alive: bool,
    /// How often it was started again.
    pub restarts: u64,
}

/// What the root starts with.
#[derive(Debug)]
pub struct Args {
    /// How the actors find each other.
    pub names: Names,
    /// What they need to know.
    pub settings: Arc<Settings>,
    /// The open store.
    pub slot: registry::Slot,
    /// The definitions that are kept ready.
    pub known: Arc<registry::Known>,
    /// The API keys.
    pub keyring: Arc<Keyring>,
    /// What is to be recorded in the audit log.
    pub trail: Arc<Trail>,
    /// Where that is written.
    pub store: Arc<registry::Store>,
    /// What every run needs.
    pub context: Arc<Context>,
    /// Where it is told why the service must end.
    pub fatal: watch::Sender<Option<String>>,
}

/// The actor.
#[derive(Debug)]
pub struct RootActor;

impl Actor for RootActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: Ref, args: Args) -> Result<State, ActorProcessingErr> {
        let pools = args.settings.pools.clone();
        let mut state = State {
            effects: Effects::new(myself.clone()),
            myself,
            args,
            pools,
            children: HashMap::new(),
            lives: BTreeMap::new(),
            intensities: HashMap::new(),
            backoffs: HashMap::new(),
            stopping: false,
        };
        for child in Child::ALL {
            state.start(child).await?;
        }
        Ok(state)
    }

    async fn handle(&self, _: Ref, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Restart(child) => state.restart(child).await,
            Msg::Stopping => state.stopping = true,
            Msg::Resize(pools) => state.pools = pools,
            Msg::Tree(reply) => drop(reply.send(state.lives.clone())),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: Ref,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(child, error) => {
                state.ended(child.get_id(), &error.to_string()).await
            }
            SupervisionEvent::ActorTerminated(child, _, reason) => {
                state.ended(child.get_id(), reason.as_deref().unwrap_or("it stopped")).await;
            }
            _ => {}
        }
        Ok(())
    }
}

/// What the root holds.
#[derive(Debug)]
pub struct State {
    myself: Ref,
    args: Args,
    effects: Effects<Msg>,
    pools: BTreeMap<crate::execution::Runtime, crate::settings::PoolSettings>,
    children: HashMap<ActorId, Child>,
    lives: BTreeMap<Child, Life>,
    intensities: HashMap<Child, Intensity>,
    backoffs: HashMap<Child, Backoff>,
    stopping: bool,
}

impl State {
    async fn start(&mut self, child: Child) -> Result<(), ActorProcessingErr> {
        let (names, parent) = (self.args.names.clone(), self.myself.get_cell());
        let settings = self.args.settings.clone();
        let id = match child {
            Child::Registry => {
                let sources = settings.sources.clone().into();
                let args = registry::Args {
                    names: names.clone(),
                    journal: settings.journal.clone(),
                    slot: self.args.slot.clone(),
                    known: self.args.known.clone(),
                    keyring: self.args.keyring.clone(),
                    trail: self.args.trail.clone(),
                    settings: settings.store.clone(),
                    sources,
                    context: self.args.context.clone(),
                };
                RegistryActor::spawn_linked(Some(names.registry()), RegistryActor, args, parent)
                    .await?
                    .0
                    .get_id()
            }
            Child::Dispatcher => {
                let max_queued_bytes = settings.dispatcher.max_queued_mb.saturating_mul(1024 * 1024);
                let name = names.dispatcher();
                let is_journalled = settings.is_journalled();
                let args = dispatcher::Args {
                    names,
                    pools: self.pools.clone(),
                    max_queued_bytes,
                    max_per_client: settings.dispatcher.max_per_client,
                    trail: self.args.trail.clone(),
                    is_journalled,
                    sandbox: self.args.context.sandbox_level(),
                };
                DispatcherActor::spawn_linked(Some(name), DispatcherActor, args, parent).await?.0.get_id()
            }
            Child::Pools => {
                let name = names.pools();
                let args =
                    pools::Args { pools: self.pools.clone(), names, context: self.args.context.clone() };
                PoolsActor::spawn_linked(Some(name), PoolsActor, args, parent).await?.0.get_id()
            }
            Child::Audit => {
                let (trail, store) = (self.args.trail.clone(), self.args.store.clone());
                let args = audit::Args { trail, store, settings: settings.audit.clone() };
                AuditActor::spawn_linked(Some(names.audit()), AuditActor, args, parent).await?.0.get_id()
            }
            Child::Sessions => SessionsActor::spawn_linked(Some(names.sessions()), SessionsActor, (), parent)
                .await?
                .0
                .get_id(),
        };
        self.children.insert(id, child);
        self.lives.entry(child).or_default().alive = true;
        Ok(())
    }

    async fn ended(&mut self, id: ActorId, reason: &str) {
        let Some(child) = self.children.remove(&id) else { return };
        let life = self.lives.entry(child).or_default();
        life.alive = false;
        if self.stopping {
            return;
        }
        life.restarts += 1;
        tracing::error!(?child, reason, "a part of the service failed and is started again");
        if !self.may_restart(child) {
            return;
        }
        if child == Child::Pools {
            // Before new executors report, or they would be counted as lost.
            self.announce(child, id);
        }
        let delay = match child {
            Child::Registry | Child::Dispatcher => std::time::Duration::ZERO,
            Child::Pools | Child::Sessions | Child::Audit => {
                self.backoffs.entry(child).or_default().next_delay(Instant::now())
            }
        };
        if delay.is_zero() {
            self.restart(child).await;
        } else {
            self.effects.run(tokio::time::sleep(delay), move |_| Msg::Restart(child));
        }
        if child == Child::Dispatcher {
            // After its successor is there, to which the executors report.
            self.announce(child, id);
        }
    }

    fn may_restart(&mut self, child: Child) -> bool {
        if matches!(child, Child::Pools | Child::Sessions | Child::Audit) {
            return true;
        }
        let intensity = self.intensities.entry(child).or_insert_with(Intensity::of_the_root);
        if intensity.record(Instant::now()) == Verdict::Restart {
            return true;
        }
        let name = format!("{child:?}").to_lowercase();
        self.args.fatal.send_replace(Some(format!("the {name} failed six times within ten seconds")));
        false
    }

    async fn restart(&mut self, child: Child) {
        if let Err(error) = self.start(child).await {
            let reason = format!("the {child:?} could not be started again: {error}");
            tracing::error!(reason);
            match child {
                Child::Registry | Child::Dispatcher => drop(self.args.fatal.send_replace(Some(reason))),
                Child::Pools | Child::Sessions | Child::Audit => {
                    self.effects.run(tokio::time::sleep(RETRY), move |_| Msg::Restart(child));
                }
            }
        }
    }

    /// Tells those who relied on the one that is gone.
    fn announce(&self, child: Child, id: ActorId) {
        let names = &self.args.names;
        match child {
            Child::Dispatcher => {
                names.tell(&names.sessions(), sessions::Msg::DispatcherDown(id));
                names.tell(&names.pools(), pools::Msg::DispatcherReplaced);
            }
            Child::Pools => {
                for runtime in self.pools.keys() {
                    names.tell(&names.dispatcher(), dispatcher::Msg::PoolDown(*runtime));
                }
            }
            Child::Registry | Child::Sessions | Child::Audit => {}
        }
    }
}
