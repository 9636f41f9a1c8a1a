//! A session: one connection. On `/tool` and `/function` it has one request and one outcome, on `/session` many.
//!
//! It reads a request, has the registry resolve the definition, merges and checks the input itself (there are many
//! sessions and one dispatcher), and submits. Sessions supervises it and never restarts it; when it dies, the edge finds
//! the way of its frames closed and tells the client. When the dispatcher dies, it asks the next one for what it waits for.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::audit::Action;
use crate::definition::Kind;
use crate::dispatcher::{Caller, Cancelled, Notice};
use crate::effects::{Effects, Panicked};
use crate::error::{Code, Error, Result};
use crate::execution::{Job, Outcome};
use crate::log::LogRing;
use crate::system::{Acting, Submitted};

mod backlog;
mod request;

pub use backlog::Backlog;
use request::{Asked, Request};

/// A reference to a session.
pub type Ref = ActorRef<Msg>;

/// How many frames one request may have waiting for the edge.
pub const FRAMES: usize = 4;

/// What a session does.
#[derive(Debug)]
pub enum Msg {
    /// The client's requests, as they came: those that came together are one message.
    Requests(Vec<String>),
    /// The client wants the end of its executions.
    Cancel,
    /// The client is gone: whether what it began is to end with it.
    Leave(bool),
    /// The dispatcher was told to end an execution; its news tell the rest. Where a request asked for it, that is answered.
    CancelAsked(Option<Arc<str>>, Uuid, std::result::Result<Result<Cancelled>, Panicked>),
    /// A dispatcher was given the execution, or it was refused before.
    Submitted(Uuid, std::result::Result<Result<ActorId>, Panicked>),
    /// A dispatcher sends the news from now on, or the execution ended so, or nobody knows it.
    Followed(Uuid, std::result::Result<Result<Option<Outcome>>, Panicked>),
    /// News of an execution.
    News(Notice),
    /// This dispatcher is gone.
    DispatcherDown(ActorId),
    /// Panic, for a test.
    #[cfg(feature = "faults")]
    Panic,
}

impl From<Notice> for Msg {
    fn from(notice: Notice) -> Self {
        Self::News(notice)
    }
}

impl TryFrom<Msg> for Notice {
    type Error = Msg;

    fn try_from(message: Msg) -> std::result::Result<Self, Msg> {
        match message {
            Msg::News(notice) => Ok(notice),
            other => Err(other),
        }
    }
}

/// What a connection is for: the path of its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// One execution of this kind, then it is closed.
    Once(Kind),
    /// Executions of any kind, each request with a name of the client's own.
    Many,
}

/// What the edge writes to the client.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The client's name of the request, as JSON text; where there are many.
    pub id: Option<Arc<str>>,
    /// The execution that it is about, where there is one.
    pub uuid: Option<Uuid>,
    /// What is told.
    pub news: News,
}

/// What a frame tells. Each request is answered by one that is the last.
#[derive(Clone, Debug)]
pub enum News {
    /// The execution is in the queue. Its log comes on this way, where the request asked for it; of a definition that is
    /// deprecated the client is told so.
    Accepted {
        /// The log, where it is asked for.
        log: Option<Arc<LogRing>>,
        /// What a client is told of a definition that is deprecated.
        warning: Option<Arc<str>>,
    },
    /// It began to run; sent where the request asked for a stream.
    Started,
    /// It ended.
    Finished(Outcome),
    /// It was never taken in, or what was asked cannot be done.
    Refused(Error),
    /// The service shuts down; it is recorded, and runs when the service is started again.
    Postponed,
    /// It is being ended, as this request asked.
    Cancelling,
}

impl News {
    /// Whether it answers its request.
    pub fn is_last(&self) -> bool {
        !matches!(self, Self::Accepted { .. } | Self::Started)
    }

    /// How much room it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Finished(outcome) => outcome.bytes(),
            _ => 0,
        }
    }
}

/// What a session starts with.
#[derive(Debug)]
pub struct Args {
    /// What this connection is for.
    pub door: Door,
    /// The client's trace context, where its handshake had one.
    pub traceparent: Option<String>,
    /// The handle to everything else, as who asks may use it.
    pub acting: Acting,
    /// The way to the edge; that it closes without a last frame tells that the session failed.
    pub frames: mpsc::Sender<Box<Frame>>,
    /// What is on that way.
    pub backlog: Arc<Backlog>,
    /// The way of log lines to the edge.
    pub log: Arc<LogRing>,
}

/// The actor.
#[derive(Debug)]
pub struct SessionActor;

impl Actor for SessionActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: Ref, args: Args) -> std::result::Result<State, ActorProcessingErr> {
        let effects = Effects::new(myself.clone());
        Ok(State {
            myself,
            args,
            effects,
            open: HashMap::new(),
            dead: Vec::new(),
            is_leaving: false,
            is_stopped: false,
        })
    }

    async fn handle(
        &self,
        _: Ref,
        message: Msg,
        state: &mut State,
    ) -> std::result::Result<(), ActorProcessingErr> {
        match message {
            Msg::Requests(texts) => state.requests(&texts),
            Msg::Cancel => state.cancel_all(),
            Msg::Leave(cancels) => state.leave(cancels),
            Msg::CancelAsked(id, uuid, result) => state.cancel_asked(id, uuid, result),
            Msg::Submitted(uuid, result) => state.submitted(uuid, result),
            Msg::Followed(uuid, result) => state.followed(uuid, result),
            Msg::News(notice) => state.news(notice),
            Msg::DispatcherDown(dispatcher) => state.dispatcher_down(dispatcher),
            #[cfg(feature = "faults")]
            Msg::Panic => panic!("a test told a session to panic"),
        }
        Ok(())
    }
}

/// What a session holds.
#[derive(Debug)]
pub struct State {
    myself: Ref,
    args: Args,
    effects: Effects<Msg>,
    /// What was asked for and has no last frame yet.
    open: HashMap<Uuid, Open>,
    /// Dispatchers that went before it was known which one was given an execution.
    dead: Vec<ActorId>,
    /// The client is gone, and its executions are being ended.
    is_leaving: bool,
    /// This was the last message.
    is_stopped: bool,
}

/// An execution that the client waits for.
#[derive(Debug, Default)]
struct Open {
    id: Option<Arc<str>>,
    /// Whether the client wants to know that it began, and has not been told.
    tells_start: bool,
    log: Option<Arc<LogRing>>,
    /// What its definition has to say to callers, once that is known; nothing where it says nothing.
    warning: Option<Arc<OnceLock<Arc<str>>>>,
    /// The dispatcher has it, so that it can be cancelled there.
    is_accepted: bool,
    /// Its end was asked for.
    is_cancelled: bool,
    /// Another request began it: this client only waits for it.
    is_anothers: bool,
    /// Who was given the execution.
    dispatcher: Option<ActorId>,
    /// It was begun elsewhere, or given to a dispatcher that failed: whichever there is has it.
    is_followed: bool,
}

impl State {
    fn requests(&mut self, texts: &[String]) {
        for text in texts {
            self.request(text);
            if self.is_stopped {
                // Its client is given up: what came after this is not begun.
                return;
            }
        }
    }

    fn request(&mut self, text: &str) {
        let (id, asked) = request::parse(self.args.door, text);
        // A connection for one was counted when it was opened.
        let counted = if self.args.door == Door::Many { self.args.acting.count_request() } else { Ok(()) };
        let asked = counted.and(asked);
        match asked {
            Ok(Asked::Run(request)) => self.run(id, request),
            Ok(Asked::Attach(uuid)) => self.attach(id, uuid),
            Ok(Asked::Cancel(uuid)) => self.cancel(Some(id.unwrap_or_else(|| "null".into())), uuid),
            Err(error) => self.send(id, None, News::Refused(error)),
        }
    }

    fn run(&mut self, id: Option<Arc<str>>, request: Request) {
        // Now, so that uuids are nearly in the order of acceptance.
        let uuid = Uuid::now_v7();
        let log = request.options.stream.then(|| match self.args.door {
            Door::Once(_) => self.args.log.clone(),
            Door::Many => Arc::new(self.args.log.sibling()),
        });
        let tells_start = request.options.stream;
        self.open.insert(uuid, Open { id, tells_start, log: log.clone(), ..Open::default() });
        let acting = self.args.acting.clone();
        let traceparent = self.args.traceparent.clone();
        let caller = Caller::Actor(self.myself.get_derived());
        let own = acting.clone();
        let job = move |definition, input, options| {
            let job = own.job(uuid, definition, input, options)?;
            Ok(Box::new(Job { traceparent, log, ..job }))
        };
        let Request { kind, id, input, options } = request;
        let submission = match acting.known(kind, &id) {
            // Mostly nothing has to be waited for: a task would cost more than the rest.
            Some(definition) => {
                if let Some(warning) = &definition.spec.deprecated
                    && let Some(open) = self.open.get_mut(&uuid)
                {
                    open.warning = Some(Arc::new(OnceLock::from(warning.clone())));
                }
                match job(definition, input, options).and_then(|job| acting.system.submit_now(job, caller)) {
                    Ok(Submitted::To(dispatcher)) => return self.submitted(uuid, Ok(Ok(dispatcher))),
                    Ok(Submitted::Not(job, caller)) => {
                        async move { acting.system.submit(job, caller).await }.boxed()
                    }
                    Err(error) => return self.submitted(uuid, Ok(Err(error))),
                }
            }
            // One effect for both questions: each costs a task and a message.
            None => {
                let warning = Arc::new(OnceLock::new());
                if let Some(open) = self.open.get_mut(&uuid) {
                    open.warning = Some(warning.clone());
                }
                async move {
                    let definition = acting.resolve(kind, &id).await?;
                    if let Some(message) = &definition.spec.deprecated {
                        warning.get_or_init(|| message.clone());
                    }
                    acting.system.submit(job(definition, input, options)?, caller).await
                }
                .boxed()
            }
        };
        self.effects.run(submission, move |result| Msg::Submitted(uuid, result));
    }

    fn submitted(&mut self, uuid: Uuid, result: std::result::Result<Result<ActorId>, Panicked>) {
        let Some(open) = self.open.get_mut(&uuid) else { return };
        match result.unwrap_or_else(|Panicked| Err(failed())) {
            Ok(dispatcher) if self.dead.contains(&dispatcher) => self.follow(uuid),
            Ok(dispatcher) => open.dispatcher = Some(dispatcher),
            Err(error) => self.end(uuid, News::Refused(error)),
        }
    }

    fn news(&mut self, notice: Notice) {
        match notice {
            Notice::Accepted(uuid) => self.accepted(uuid),
            Notice::Started(uuid) => {
                // An idempotent execution may start again; one frame tells it.
                if let Some(open) = self.open.get_mut(&uuid)
                    && std::mem::take(&mut open.tells_start)
                {
                    let id = open.id.clone();
                    self.send(id, Some(uuid), News::Started);
                }
            }
            Notice::Known(asked, uuid) => self.known(asked, uuid),
            Notice::Finished(uuid, outcome) => self.end(uuid, News::Finished(outcome)),
            Notice::Postponed(uuid) => self.end(uuid, News::Postponed),
            Notice::Refused(uuid, error) => self.end(uuid, News::Refused(error)),
        }
    }

    /// What was asked for is an execution that there is already.
    fn known(&mut self, asked: Uuid, uuid: Uuid) {
        let Some(open) = self.open.remove(&asked) else { return };
        if self.open.contains_key(&uuid) {
            let error = Error::new(Code::Conflict, "this connection waits for that execution already");
            return self.send(open.id, Some(uuid), News::Refused(error));
        }
        self.open.insert(uuid, Open { is_followed: true, is_anothers: true, ..open });
        if self.is_leaving {
            self.leave(true);
        }
    }

    /// It is in the queue: the client is told once.
    fn accepted(&mut self, uuid: Uuid) {
        let Some(open) = self.open.get_mut(&uuid) else { return };
        if std::mem::replace(&mut open.is_accepted, true) {
            return;
        }
        let (id, log, is_cancelled) = (open.id.clone(), open.log.clone(), open.is_cancelled);
        let warning = open.warning.as_ref().and_then(|warning| warning.get().cloned());
        self.send(id, Some(uuid), News::Accepted { log, warning });
        if is_cancelled {
            self.cancel(None, uuid);
        }
    }

    /// What is not accepted yet is cancelled as soon as it is.
    fn cancel_all(&mut self) {
        let mut accepted = Vec::new();
        for (uuid, open) in &mut self.open {
            open.is_cancelled = true;
            accepted.extend(open.is_accepted.then_some(*uuid));
        }
        for uuid in accepted {
            self.cancel(None, uuid);
        }
    }

    /// The client is gone: what it began is ended, where that is wanted; what others began goes on.
    fn leave(&mut self, cancels: bool) {
        self.is_leaving = true;
        if cancels {
            self.open.retain(|_, open| !open.is_anothers);
            self.cancel_all();
        }
        if !cancels || self.open.is_empty() {
            self.myself.stop(None);
        }
    }

    fn cancel(&mut self, asker: Option<Arc<str>>, uuid: Uuid) {
        let (acting, is_own) = (self.args.acting.clone(), asker.is_none());
        let asking = async move {
            // Whether it was begun here: what another principal has begun is not there.
            if is_own { acting.cancel_own(uuid).await } else { acting.cancel(uuid).await }
        };
        self.effects.run(asking, move |result| Msg::CancelAsked(asker, uuid, result));
    }

    fn cancel_asked(
        &mut self,
        asker: Option<Arc<str>>,
        uuid: Uuid,
        result: std::result::Result<Result<Cancelled>, Panicked>,
    ) {
        // Without a dispatcher the execution is lost, which comes as news of its own.
        let Some(id) = asker else { return };
        let news = match result.unwrap_or_else(|Panicked| Err(failed())) {
            Ok(Cancelled::Asked) => News::Cancelling,
            Ok(Cancelled::Ended) => {
                News::Refused(Error::new(Code::Conflict, "the execution has ended already"))
            }
            Ok(Cancelled::Unknown) => {
                News::Refused(Error::new(Code::NotFound, "there is no execution with this uuid"))
            }
            Err(error) => News::Refused(error),
        };
        self.send(Some(id), Some(uuid), news);
    }

    fn attach(&mut self, id: Option<Arc<str>>, uuid: Uuid) {
        if self.open.contains_key(&uuid) {
            let error = Error::new(Code::Conflict, "this connection waits for that execution already");
            return self.send(id, Some(uuid), News::Refused(error));
        }
        self.open.insert(uuid, Open { id, is_anothers: true, ..Open::default() });
        let acting = self.args.acting.clone();
        self.follow_if(uuid, async move { acting.owns(Action::ExecutionRead, uuid).await });
    }

    fn dispatcher_down(&mut self, dispatcher: ActorId) {
        self.dead.push(dispatcher);
        let is_lost = |open: &Open| open.is_followed || open.dispatcher == Some(dispatcher);
        let lost: Vec<Uuid> =
            self.open.iter().filter(|(_, open)| is_lost(open)).map(|(uuid, _)| *uuid).collect();
        lost.into_iter().for_each(|uuid| self.follow(uuid));
    }

    /// Asks the dispatcher that there is for an execution that was given to another one.
    fn follow(&mut self, uuid: Uuid) {
        self.follow_if(uuid, std::future::ready(Ok(())));
    }

    fn follow_if(&mut self, uuid: Uuid, may: impl Future<Output = Result<()>> + Send + 'static) {
        let Some(open) = self.open.get_mut(&uuid) else { return };
        open.is_followed = true;
        let system = self.args.acting.system.clone();
        let caller = Caller::Actor(self.myself.get_derived());
        let following = async move {
            may.await?;
            system.follow(uuid, caller).await
        };
        self.effects.run(following, move |result| Msg::Followed(uuid, result));
    }

    fn followed(&mut self, uuid: Uuid, result: std::result::Result<Result<Option<Outcome>>, Panicked>) {
        let Some(open) = self.open.get(&uuid) else { return };
        let is_attached = open.dispatcher.is_none() && self.args.door == Door::Many;
        match result.unwrap_or_else(|Panicked| Err(failed())) {
            Ok(None) => self.accepted(uuid),
            Ok(Some(outcome)) => {
                self.accepted(uuid);
                self.end(uuid, News::Finished(outcome));
            }
            Err(error) if error.code() != Code::NotFound && (open.is_accepted || !is_attached) => {
                let lost = "what becomes of this execution cannot be followed at the moment; its uuid tells its outcome";
                self.end(uuid, News::Refused(Error::unavailable(lost)));
            }
            Err(_) if open.is_accepted => {
                let lost = "the dispatcher failed while it held this execution";
                self.end(uuid, News::Finished(Outcome::interrupted(lost)));
            }
            Err(error) if is_attached => self.end(uuid, News::Refused(error)),
            Err(_) => {
                let lost = "the dispatcher failed while it was given this execution, which does not run";
                self.end(uuid, News::Refused(Error::unavailable(lost)));
            }
        }
    }

    fn end(&mut self, uuid: Uuid, news: News) {
        if let Some(open) = self.open.remove(&uuid) {
            self.send(open.id, Some(uuid), news);
        }
    }

    fn send(&mut self, id: Option<Arc<str>>, uuid: Option<Uuid>, news: News) {
        let is_over = news.is_last() && (self.args.door != Door::Many || self.is_left());
        let may_have_it = self.args.backlog.add(news.bytes());
        // A channel makes room for 32 of them at once, on each connection that there is.
        let frame = Box::new(Frame { id, uuid, news });
        // The edge takes each frame at once, or its client does not read: its outcomes stay where they are recorded.
        let is_stuck = self.args.frames.try_send(frame).is_err() || !may_have_it;
        if is_stuck {
            self.args.backlog.give_up();
        }
        if is_over || (is_stuck && !self.is_leaving) {
            self.is_stopped = true;
            self.myself.stop(None);
        }
    }

    /// Whether the client is gone and all that it began has ended.
    fn is_left(&self) -> bool {
        self.is_leaving && self.open.is_empty()
    }
}

fn failed() -> Error {
    Error::unavailable("the session failed on this request")
}
