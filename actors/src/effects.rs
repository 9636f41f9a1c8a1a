//! Effects of an actor: tasks that its state owns, so that no `handle` waits for a store, a process or
//! another actor. They are aborted when the state is dropped; a result *or a panic* comes back as a message.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use ractor::{ActorRef, Message};
use tokio::task::{AbortHandle, JoinSet};

/// The effect panicked; the panic's own message is in the log.
#[derive(Debug)]
pub struct Panicked;

/// The running effects of one actor.
#[derive(Debug)]
pub struct Effects<M> {
    myself: ActorRef<M>,
    tasks: JoinSet<()>,
}

impl<M: Message> Effects<M> {
    /// No effects yet.
    pub fn new(myself: ActorRef<M>) -> Self {
        Self { myself, tasks: JoinSet::new() }
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
        while self.tasks.try_join_next().is_some() {}
        let myself = self.myself.clone();
        self.tasks.spawn(async move {
            let result = AssertUnwindSafe(future).catch_unwind().await.map_err(|_| Panicked);
            // An actor that is gone wants no result.
            let _ = myself.cast(done(result));
        })
    }
}
