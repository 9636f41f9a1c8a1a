//! A pool: the executors of one runtime.
//!
//! Its supervisor is Pools. It grows when the dispatcher says that work waits, shrinks when executors are idle for
//! long, and replaces an executor that died: at once, after five in a row with a delay, and is then reported
//! degraded. When it dies itself, its executors die with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};

use crate::dispatcher;
use crate::effects::Effects;
use crate::execution::Runtime;
use crate::executor::{self, ExecutorActor};
use crate::names::Names;
use crate::runtime::Context;
use crate::settings::PoolSettings;
use crate::supervision::Backoff;

/// A reference to a pool.
pub type Ref = ActorRef<Msg>;

/// What a pool does.
#[derive(Debug)]
pub enum Msg {
    /// So many executions wait, and nobody is idle.
    Grow(usize),
    /// This executor was idle for long and is no longer counted on.
    LongIdle(ActorId),
    /// An executor did its first work.
    Worked,
    /// There is a new dispatcher.
    DispatcherReplaced,
    /// Other bounds hold.
    Resize(PoolSettings),
    /// The delay after repeated failures is over.
    Refill,
    /// Tell how many executors there are.
    Stats(RpcReplyPort<Stats>),
    /// Panic, for a test.
    #[cfg(feature = "faults")]
    Panic,
    /// Have an executor panic, for a test.
    #[cfg(feature = "faults")]
    PanicExecutor(RpcReplyPort<Option<ActorId>>),
}

/// What `/system` shows of a pool.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Stats {
    /// Executors there are.
    pub executors: usize,
    /// Executors at least.
    pub min: usize,
    /// Executors at most.
    pub max: usize,
    /// Executors that failed since the pool started.
    pub failures: u64,
    /// Whether replacing them is being delayed.
    pub degraded: bool,
}

/// What a pool starts with.
#[derive(Clone, Debug)]
pub struct Args {
    /// What its executors run.
    pub runtime: Runtime,
    /// `[pools.<runtime>]`.
    pub settings: PoolSettings,
    /// How the others are found.
    pub names: Names,
    /// What every run needs.
    pub context: Arc<Context>,
}

/// The actor.
#[derive(Debug)]
pub struct PoolActor;

impl Actor for PoolActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: Ref, args: Args) -> Result<State, ActorProcessingErr> {
        Ok(State {
            effects: Effects::new(myself.clone()),
            myself,
            settings: args.settings.clone(),
            args,
            executors: HashMap::new(),
            backoff: Backoff::default(),
            delayed: false,
            failures: 0,
        })
    }

    async fn post_start(&self, _: Ref, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.grow_to(state.settings.min).await;
        Ok(())
    }

    async fn handle(&self, _: Ref, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Grow(wanted) => state.grow(wanted).await,
            Msg::LongIdle(executor) => state.long_idle(executor),
            Msg::Worked => state.backoff.succeeded(),
            Msg::DispatcherReplaced => state.tell_all(),
            Msg::Resize(settings) => state.resize(settings).await,
            Msg::Refill => state.refill().await,
            Msg::Stats(reply) => drop(reply.send(state.stats())),
            #[cfg(feature = "faults")]
            Msg::Panic => panic!("a test told a pool to panic"),
            #[cfg(feature = "faults")]
            Msg::PanicExecutor(reply) => state.panic_executor(reply),
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
            SupervisionEvent::ActorFailed(executor, error) => {
                state.failed(executor.get_id(), &error.to_string()).await
            }
            SupervisionEvent::ActorTerminated(executor, _, _) => state.forget(executor.get_id()),
            _ => {}
        }
        Ok(())
    }
}

/// What a pool holds.
#[derive(Debug)]
pub struct State {
    myself: Ref,
    args: Args,
    settings: PoolSettings,
    effects: Effects<Msg>,
    executors: HashMap<ActorId, executor::Ref>,
    backoff: Backoff,
    /// Whether a refill waits for its delay.
    delayed: bool,
    failures: u64,
}

impl State {
    async fn grow(&mut self, wanted: usize) {
        // While starts are delayed, a waiting queue is no reason to start more.
        if !self.delayed {
            let target = self.executors.len().saturating_add(wanted).min(self.settings.max);
            self.grow_to(target).await;
        }
    }

    async fn grow_to(&mut self, target: usize) {
        while self.executors.len() < target {
            let args = executor::Args {
                runtime: self.args.runtime,
                names: self.args.names.clone(),
                context: self.args.context.clone(),
                pool: self.myself.clone(),
            };
            match ExecutorActor::spawn_linked(None, ExecutorActor, args, self.myself.get_cell()).await {
                Ok((executor, _)) => drop(self.executors.insert(executor.get_id(), executor)),
                Err(error) => {
                    tracing::error!(runtime = %self.args.runtime, %error, "an executor could not be started");
                    return self.count_failure();
                }
            }
        }
    }

    fn long_idle(&mut self, id: ActorId) {
        let surplus = self.executors.len() > self.settings.min;
        let Some(executor) = self.executors.get(&id) else { return };
        if surplus {
            executor.stop(None);
            self.executors.remove(&id);
        } else {
            drop(executor.cast(executor::Msg::Report));
        }
    }

    fn tell_all(&self) {
        for executor in self.executors.values() {
            drop(executor.cast(executor::Msg::Report));
        }
    }

    async fn resize(&mut self, settings: PoolSettings) {
        self.settings = settings;
        let surplus = self.executors.len().saturating_sub(self.settings.max);
        for executor in self.executors.values().take(surplus) {
            drop(executor.cast(executor::Msg::Retire));
        }
        self.grow_to(self.settings.min).await;
    }

    async fn failed(&mut self, executor: ActorId, error: &str) {
        tracing::error!(runtime = %self.args.runtime, error, "an executor failed");
        self.failures += 1;
        self.forget(executor);
        self.count_failure();
        if !self.delayed {
            self.refill().await;
        }
    }

    fn forget(&mut self, executor: ActorId) {
        self.executors.remove(&executor);
        let down = dispatcher::Msg::ExecutorDown(executor);
        self.args.names.tell(&self.args.names.dispatcher(), down);
    }

    /// Counts a failure; where failures come in a row, the next start is put off.
    fn count_failure(&mut self) {
        let delay = self.backoff.next_delay(Instant::now());
        if !delay.is_zero() && !self.delayed {
            self.delayed = true;
            self.effects.run(tokio::time::sleep(delay), |_| Msg::Refill);
        }
    }

    async fn refill(&mut self) {
        self.delayed = false;
        // One more than is left, but never less than the minimum: load asks for the rest.
        let target = (self.executors.len() + 1).clamp(self.settings.min, self.settings.max);
        self.grow_to(target).await;
    }

    fn stats(&self) -> Stats {
        Stats {
            executors: self.executors.len(),
            min: self.settings.min,
            max: self.settings.max,
            failures: self.failures,
            degraded: self.backoff.is_degraded(),
        }
    }

    #[cfg(feature = "faults")]
    fn panic_executor(&self, reply: RpcReplyPort<Option<ActorId>>) {
        let executor = self.executors.values().next();
        drop(reply.send(executor.map(|executor| executor.get_id())));
        if let Some(executor) = executor {
            drop(executor.cast(executor::Msg::Panic));
        }
    }
}
