//! Effects of an actor: tasks that its state owns, so that no `handle` waits for a store, a process or
//! another actor. They are dropped when the state is; a result *or a panic* comes back as a message.
//!
//! Nothing is kept of a task that ended: a set that is emptied only now and then would hold the room of each.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;

use futures_util::FutureExt;
use ractor::{ActorRef, Message};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// The effect panicked; the panic's own message is in the log.
#[derive(Debug)]
pub struct Panicked;

/// An effect that was begun.
#[derive(Debug)]
pub enum Begun<T> {
    /// It is done already.
    Done(Result<T, Panicked>),
    /// It runs, and its end comes as a message.
    Running(AbortHandle),
}

/// The running effects of one actor.
#[derive(Debug)]
pub struct Effects<M> {
    myself: ActorRef<M>,
    /// Its end is theirs.
    alive: watch::Sender<()>,
}

impl<M: Message> Effects<M> {
    /// No effects yet.
    pub fn new(myself: ActorRef<M>) -> Self {
        Self { myself, alive: watch::Sender::new(()) }
    }

    /// Runs a future; what it gives, or that it panicked, becomes a message to the actor itself.
    pub fn run<T, F>(
        &mut self,
        future: F,
        done: impl FnOnce(Result<T, Panicked>) -> M + Send + 'static,
    ) -> AbortHandle
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (myself, mut alive) = (self.myself.clone(), self.alive.subscribe());
        let effect = async move {
            tokio::select! {
                biased;
                _ = alive.changed() => {}
                result = AssertUnwindSafe(future).catch_unwind() => {
                    // An actor that is gone wants no result.
                    let _ = myself.cast(done(result.map_err(|_| Panicked)));
                }
            }
        };
        tokio::spawn(effect).abort_handle()
    }

    /// As [`Effects::run`], but what has nothing to wait for is done at once, without a task and a message, which would cost
    /// more than many an effect does itself.
    pub fn begin<T, F>(
        &mut self,
        mut future: Pin<Box<F>>,
        done: impl FnOnce(Result<T, Panicked>) -> M + Send + 'static,
    ) -> Begun<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        // The task polls it once more, and is the one that is woken.
        match std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().now_or_never())) {
            Ok(Some(result)) => Begun::Done(Ok(result)),
            Ok(None) => Begun::Running(self.run(future, done)),
            Err(_) => Begun::Done(Err(Panicked)),
        }
    }
}
