//! The supervisor of the sessions. A session is never restarted: its client connects again.
//!
//! Root supervises it. When it dies, every session dies with it, and the edge tells each client.

use std::collections::HashMap;
use std::sync::Arc;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::OwnedSemaphorePermit;

use crate::session::{self, SessionActor};

/// A reference to the supervisor of the sessions.
pub type Ref = ActorRef<Msg>;

/// What the supervisor of the sessions does.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields of a message are named for what they are")]
pub enum Msg {
    /// Start a session for a new connection.
    Open { args: Box<session::Args>, permit: Arc<OwnedSemaphorePermit>, reply: RpcReplyPort<session::Ref> },
    /// This dispatcher is gone, with every execution that it had taken in.
    DispatcherDown(ActorId),
    /// Tell how many sessions there are.
    Count(RpcReplyPort<usize>),
    /// Panic, for a test.
    #[cfg(feature = "faults")]
    Panic,
    /// Have a session panic, for a test.
    #[cfg(feature = "faults")]
    PanicSession(RpcReplyPort<Option<ActorId>>),
}

/// The actor.
#[derive(Debug)]
pub struct SessionsActor;

impl Actor for SessionsActor {
    type Msg = Msg;
    type State = State;
    type Arguments = ();

    async fn pre_start(&self, myself: Ref, (): ()) -> Result<State, ActorProcessingErr> {
        Ok(State { myself, sessions: HashMap::new() })
    }

    async fn handle(&self, _: Ref, message: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Open { args, permit, reply } => state.open(*args, permit, reply).await,
            Msg::DispatcherDown(dispatcher) => state.tell_all(dispatcher),
            Msg::Count(reply) => drop(reply.send(state.sessions.len())),
            #[cfg(feature = "faults")]
            Msg::Panic => panic!("a test told the supervisor of the sessions to panic"),
            #[cfg(feature = "faults")]
            Msg::PanicSession(reply) => state.panic_session(reply),
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
            SupervisionEvent::ActorFailed(session, error) => {
                tracing::error!(%error, "a session failed");
                state.sessions.remove(&session.get_id());
            }
            SupervisionEvent::ActorTerminated(session, _, _) => {
                drop(state.sessions.remove(&session.get_id()))
            }
            _ => {}
        }
        Ok(())
    }
}

/// The live sessions, each with its place among the admitted connections.
#[derive(Debug)]
pub struct State {
    myself: Ref,
    sessions: HashMap<ActorId, (session::Ref, Arc<OwnedSemaphorePermit>)>,
}

impl State {
    async fn open(
        &mut self,
        args: session::Args,
        permit: Arc<OwnedSemaphorePermit>,
        reply: RpcReplyPort<session::Ref>,
    ) {
        match SessionActor::spawn_linked(None, SessionActor, args, self.myself.get_cell()).await {
            Ok((session, _)) => {
                self.sessions.insert(session.get_id(), (session.clone(), permit));
                // Where its connection is gone meanwhile, nobody else would end it.
                if reply.send(session.clone()).is_err() {
                    session.stop(None);
                }
            }
            // The reply port is lost, and the edge says so to its client.
            Err(error) => tracing::error!(%error, "a session could not be started"),
        }
    }

    fn tell_all(&self, dispatcher: ActorId) {
        for (session, _) in self.sessions.values() {
            drop(session.cast(session::Msg::DispatcherDown(dispatcher)));
        }
    }

    #[cfg(feature = "faults")]
    fn panic_session(&self, reply: RpcReplyPort<Option<ActorId>>) {
        let session = self.sessions.values().next().map(|(session, _)| session);
        drop(reply.send(session.map(|session| session.get_id())));
        if let Some(session) = session {
            drop(session.cast(session::Msg::Panic));
        }
    }
}
