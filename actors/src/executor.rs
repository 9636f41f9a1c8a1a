//! An executor: one worker of a runtime, which runs one execution at a time.
//!
//! It keeps what its runtime holds warm: a launcher, an interpreter, a container, an instance. Its pool supervises it.
//! When it dies, its state is dropped, and with it the run: the processes are ended, the working folder is removed; the
//! pool tells the dispatcher and starts another.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::dispatcher;
use crate::effects::{Begun, Effects, Panicked};
use crate::execution::{Job, Outcome, Runtime};
use crate::names::Names;
use crate::pool;
use crate::runtime::{self, Context, Worker};

/// A reference to an executor.
pub type Ref = ActorRef<Msg>;

/// What an executor does.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields of a message are named for what they are")]
pub enum Msg {
    /// Run this, and tell that dispatcher how it ended.
    Run { job: Arc<Job>, attempt: u32, dispatcher: dispatcher::Ref },
    /// End this execution, if it is the one under way.
    Cancel { uuid: Uuid, attempt: u32 },
    /// The run ended.
    Done { uuid: Uuid, attempt: u32, result: Box<Result<(Outcome, Worker), Panicked>> },
    /// End after the execution under way; one that has none is let go when it was idle for long.
    Retire,
    /// There is a new dispatcher: drop what an older one gave, and report to it.
    Report,
    /// Panic, for a test.
    #[cfg(feature = "faults")]
    Panic,
}

/// What an executor starts with.
#[derive(Clone, Debug)]
pub struct Args {
    /// What it runs.
    pub runtime: Runtime,
    /// How the others are found.
    pub names: Names,
    /// What every run needs.
    pub context: Arc<Context>,
    /// Who supervises it.
    pub pool: pool::Ref,
}

/// The actor.
#[derive(Debug)]
pub struct ExecutorActor;

impl Actor for ExecutorActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: Ref, args: Args) -> Result<State, ActorProcessingErr> {
        Ok(State {
            effects: Effects::new(myself.clone()),
            myself,
            worker: Some(Worker::new(args.runtime, &args.context)),
            args,
            current: None,
            has_worked: false,
            retiring: false,
        })
    }

    async fn post_start(&self, _: Ref, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.report();
        Ok(())
    }

    async fn handle(&self, _: Ref, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Run { job, attempt, dispatcher } => state.run(job, attempt, dispatcher),
            Msg::Cancel { uuid, attempt } => state.cancel(uuid, attempt),
            Msg::Done { uuid, attempt, result } => state.done(uuid, attempt, *result),
            Msg::Retire => state.retiring = true,
            Msg::Report => state.report(),
            #[cfg(feature = "faults")]
            Msg::Panic => panic!("a test told an executor to panic"),
        }
        Ok(())
    }
}

/// What an executor holds.
#[derive(Debug)]
pub struct State {
    myself: Ref,
    args: Args,
    effects: Effects<Msg>,
    /// What is kept warm; the run under way has it.
    worker: Option<Worker>,
    current: Option<Current>,
    has_worked: bool,
    /// The pool has more executors than it may.
    retiring: bool,
}

/// The execution under way.
#[derive(Debug)]
struct Current {
    uuid: Uuid,
    attempt: u32,
    dispatcher: dispatcher::Ref,
    run: AbortHandle,
    cancel: watch::Sender<bool>,
}

impl State {
    fn run(&mut self, job: Arc<Job>, attempt: u32, dispatcher: dispatcher::Ref) {
        let (uuid, context) = (job.uuid, self.args.context.clone());
        let mut worker =
            self.worker.take().unwrap_or_else(|| Worker::new(self.args.runtime, &self.args.context));
        let (cancel, cancelled) = watch::channel(false);
        // In a box, since it is large and would be copied into each wrapper around it.
        let work = Box::pin(async move {
            let outcome = runtime::run(&mut worker, &job, attempt, &context, cancelled).await;
            (outcome, worker)
        });
        let done = move |result| Msg::Done { uuid, attempt, result: Box::new(result) };
        match self.effects.begin(work, done) {
            Begun::Running(run) => {
                self.current = Some(Current { uuid, attempt, dispatcher, run, cancel });
            }
            Begun::Done(result) => self.finished(uuid, attempt, &dispatcher, result),
        }
    }

    fn cancel(&mut self, uuid: Uuid, attempt: u32) {
        // One that has ended meanwhile ends as it did.
        if let Some(current) = &self.current
            && current.uuid == uuid
            && current.attempt == attempt
        {
            current.cancel.send_replace(true);
        }
    }

    fn done(&mut self, uuid: Uuid, attempt: u32, result: Result<(Outcome, Worker), Panicked>) {
        let is_current = |current: &mut Current| current.uuid == uuid && current.attempt == attempt;
        // A run that was dropped may have ended just before.
        let Some(current) = self.current.take_if(is_current) else { return };
        self.finished(uuid, attempt, &current.dispatcher, result);
    }

    fn finished(
        &mut self,
        uuid: Uuid,
        attempt: u32,
        dispatcher: &dispatcher::Ref,
        result: Result<(Outcome, Worker), Panicked>,
    ) {
        let outcome = match result {
            Ok((outcome, worker)) => {
                self.worker = Some(worker);
                outcome
            }
            Err(Panicked) => Outcome::failed("internal", "the runtime failed on this execution"),
        };
        if !self.has_worked {
            self.has_worked = true;
            drop(self.args.pool.cast(pool::Msg::Worked));
        }
        let finished = dispatcher::Msg::Finished {
            uuid,
            attempt,
            outcome: Box::new(outcome),
            runtime: self.args.runtime,
            executor: self.myself.clone(),
            is_idle: !self.retiring,
        };
        if dispatcher.cast(finished).is_err() {
            // Its successor will ask for a report; the execution's caller was told that it is interrupted.
            tracing::debug!(%uuid, "the dispatcher of this execution is gone");
        }
        if self.retiring {
            self.myself.stop(None);
        }
    }

    fn report(&mut self) {
        let Some(dispatcher) = self.args.names.find::<dispatcher::Msg>(&self.args.names.dispatcher()) else {
            return;
        };
        if let Some(current) =
            self.current.take_if(|current| current.dispatcher.get_id() != dispatcher.get_id())
        {
            current.run.abort();
            tracing::warn!(uuid = %current.uuid, "dropped an execution of a dispatcher that failed");
        }
        if self.current.is_none() {
            let idle = dispatcher::Msg::Idle { runtime: self.args.runtime, executor: self.myself.clone() };
            drop(dispatcher.cast(idle));
        }
    }
}
