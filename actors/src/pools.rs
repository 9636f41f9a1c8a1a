//! The supervisor of the pools, one for each configured runtime.
//!
//! Root supervises it. A pool that died is told to the dispatcher, since its executors died with it, and started
//! again: at once, after five in a row with a delay.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::dispatcher;
use crate::effects::Effects;
use crate::execution::Runtime;
use crate::names::Names;
use crate::pool::{self, PoolActor};
use crate::runtime::Context;
use crate::settings::PoolSettings;
use crate::supervision::Backoff;

/// A reference to the supervisor of the pools.
pub type Ref = ActorRef<Msg>;

/// How soon a pool that could not be started is tried again.
const RETRY: Duration = Duration::from_millis(2);

/// What the supervisor of the pools does.
#[derive(Debug)]
pub enum Msg {
    /// Tell every executor that there is a new dispatcher.
    DispatcherReplaced,
    /// Other bounds hold.
    Resize(BTreeMap<Runtime, PoolSettings>),
    /// Start this pool: the delay after repeated failures is over.
    Restart(Runtime),
    /// Panic, for a test.
    #[cfg(feature = "faults")]
    Panic,
}

/// What it starts with.
#[derive(Clone, Debug)]
pub struct Args {
    /// `[pools]`.
    pub pools: BTreeMap<Runtime, PoolSettings>,
    /// How the others are found.
    pub names: Names,
    /// What every run needs.
    pub context: Arc<Context>,
}

/// The actor.
#[derive(Debug)]
pub struct PoolsActor;

impl Actor for PoolsActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: Ref, args: Args) -> Result<State, ActorProcessingErr> {
        let effects = Effects::new(myself.clone());
        Ok(State { myself, args, effects, pools: HashMap::new(), backoffs: HashMap::new() })
    }

    async fn post_start(&self, _: Ref, state: &mut State) -> Result<(), ActorProcessingErr> {
        let runtimes: Vec<Runtime> = state.args.pools.keys().copied().collect();
        for runtime in runtimes {
            state.start(runtime).await;
        }
        Ok(())
    }

    async fn handle(&self, _: Ref, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::DispatcherReplaced => state.tell_all(),
            Msg::Resize(pools) => state.resize(pools),
            Msg::Restart(runtime) => state.start(runtime).await,
            #[cfg(feature = "faults")]
            Msg::Panic => panic!("a test told the supervisor of the pools to panic"),
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
            SupervisionEvent::ActorFailed(pool, error) => {
                state.failed(pool.get_id(), &error.to_string()).await
            }
            SupervisionEvent::ActorTerminated(pool, _, _) => drop(state.pools.remove(&pool.get_id())),
            _ => {}
        }
        Ok(())
    }
}

/// What the supervisor of the pools holds.
#[derive(Debug)]
pub struct State {
    myself: Ref,
    args: Args,
    effects: Effects<Msg>,
    pools: HashMap<ActorId, (Runtime, pool::Ref)>,
    backoffs: HashMap<Runtime, Backoff>,
}

impl State {
    async fn start(&mut self, runtime: Runtime) {
        let Some(settings) = self.args.pools.get(&runtime).cloned() else { return };
        let (names, context) = (self.args.names.clone(), self.args.context.clone());
        let name = names.pool(runtime);
        let args = pool::Args { runtime, settings, names, context };
        match PoolActor::spawn_linked(Some(name), PoolActor, args, self.myself.get_cell()).await {
            Ok((pool, _)) => drop(self.pools.insert(pool.get_id(), (runtime, pool))),
            // When this supervisor was itself replaced, the pool of its predecessor may still bear the name.
            Err(error) => {
                tracing::debug!(%runtime, %error, "a pool could not be started yet");
                self.effects.run(tokio::time::sleep(RETRY), move |_| Msg::Restart(runtime));
            }
        }
    }

    async fn failed(&mut self, id: ActorId, error: &str) {
        let Some((runtime, _)) = self.pools.remove(&id) else { return };
        tracing::error!(%runtime, error, "a pool failed");
        let names = &self.args.names;
        names.tell(&names.dispatcher(), dispatcher::Msg::PoolDown(runtime));
        if !self.restart_later(runtime) {
            self.start(runtime).await;
        }
    }

    /// Counts a failure; whether the restart has to wait.
    fn restart_later(&mut self, runtime: Runtime) -> bool {
        let delay = self.backoffs.entry(runtime).or_default().next_delay(Instant::now());
        if !delay.is_zero() {
            self.effects.run(tokio::time::sleep(delay), move |_| Msg::Restart(runtime));
        }
        !delay.is_zero()
    }

    fn tell_all(&self) {
        for (_, pool) in self.pools.values() {
            drop(pool.cast(pool::Msg::DispatcherReplaced));
        }
    }

    fn resize(&mut self, pools: BTreeMap<Runtime, PoolSettings>) {
        for (runtime, pool) in self.pools.values() {
            if let Some(settings) = pools.get(runtime) {
                drop(pool.cast(pool::Msg::Resize(settings.clone())));
            }
        }
        self.args.pools = pools;
    }
}
