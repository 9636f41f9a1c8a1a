//! A session: one connection, one request, one outcome.
//!
//! It reads the request, has the registry resolve the definition, merges and checks the input itself (there are
//! many sessions and one dispatcher), and submits. Sessions supervises it and never restarts it; when it dies,
//! the edge finds the way of its frames closed and tells the client.

use std::sync::Arc;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef};
use serde_json::Value;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::definition::Kind;
use crate::dispatcher::{Caller, Notice};
use crate::effects::{Effects, Panicked};
use crate::error::{Error, Result};
use crate::execution::{Client, Job, Options, Outcome};
use crate::json::{self, RawObject};
use crate::log::LogRing;
use crate::system::System;

/// A reference to a session.
pub type Ref = ActorRef<Msg>;

/// How many frames wait for the edge: a one-shot execution has three.
pub const FRAMES: usize = 4;

/// What a session does.
#[derive(Debug)]
pub enum Msg {
    /// The client's request, as it came.
    Request(String),
    /// The client wants the end of its execution, or is gone and its executions are to end with it.
    Cancel,
    /// The dispatcher was told to end the execution; its news tell the rest.
    CancelAsked,
    /// A dispatcher was given the execution, or it was refused before.
    Submitted(std::result::Result<Result<ActorId>, Panicked>),
    /// News of the execution.
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

/// What the edge writes to the client, in this order; the last one is `Finished` or `Refused`.
#[derive(Clone, Debug)]
pub enum Frame {
    /// The execution is in the queue.
    Accepted(Uuid),
    /// It began to run; sent where the request asked for a stream.
    Started(Uuid),
    /// It ended.
    Finished(Uuid, Outcome),
    /// It was never taken in.
    Refused(Error),
}

/// What a session starts with.
#[derive(Debug)]
pub struct Args {
    /// What this connection runs.
    pub kind: Kind,
    /// Who asks.
    pub client: Client,
    /// The client's trace context, where its handshake had one.
    pub traceparent: Option<String>,
    /// The handle to everything else.
    pub system: System,
    /// The way to the edge; that it closes without a last frame tells that the session failed.
    pub frames: mpsc::Sender<Frame>,
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
            uuid: Uuid::now_v7(),
            tells_start: false,
            is_accepted: false,
            is_cancelled: false,
            dispatcher: None,
            dead: Vec::new(),
        })
    }

    async fn handle(
        &self,
        _: Ref,
        message: Msg,
        state: &mut State,
    ) -> std::result::Result<(), ActorProcessingErr> {
        match message {
            Msg::Request(text) => state.request(&text),
            Msg::Cancel => state.cancel(),
            Msg::CancelAsked => {}
            Msg::Submitted(result) => state.submitted(result),
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
    uuid: Uuid,
    /// Whether the client wants to know that it began, and has not been told.
    tells_start: bool,
    /// The dispatcher has it, so that it can be cancelled there.
    is_accepted: bool,
    /// Its end was asked for.
    is_cancelled: bool,
    /// Who was given the execution.
    dispatcher: Option<ActorId>,
    /// Dispatchers that went before it was known which one was given the execution.
    dead: Vec<ActorId>,
}

impl State {
    fn request(&mut self, text: &str) {
        let request = match Request::parse(self.args.kind, text) {
            Ok(request) => request,
            Err(error) => return self.end(Frame::Refused(error)),
        };
        self.tells_start = request.options.stream;
        let log = request.options.stream.then(|| self.args.log.clone());
        let (system, kind, client) = (self.args.system.clone(), self.args.kind, self.args.client);
        let (uuid, traceparent) = (self.uuid, self.args.traceparent.clone());
        let caller = Caller::Actor(self.myself.get_derived());
        // One effect for both questions: each costs a task and a message.
        let submission = async move {
            let definition = system.resolve(kind, &request.id).await?;
            let mut job = Job::new(uuid, definition, request.input, request.options, client)?;
            (job.traceparent, job.log) = (traceparent, log);
            system.submit(job, caller).await
        };
        self.effects.run(submission, Msg::Submitted);
    }

    fn submitted(&mut self, result: std::result::Result<Result<ActorId>, Panicked>) {
        match result.unwrap_or_else(|Panicked| Err(failed())) {
            Ok(dispatcher) if self.dead.contains(&dispatcher) => self.interrupted(),
            Ok(dispatcher) => self.dispatcher = Some(dispatcher),
            Err(error) => self.end(Frame::Refused(error)),
        }
    }

    fn news(&mut self, notice: Notice) {
        match notice {
            Notice::Accepted(uuid) => {
                self.is_accepted = true;
                self.send(Frame::Accepted(uuid));
                if self.is_cancelled {
                    self.cancel();
                }
            }
            Notice::Started(uuid) => {
                // An idempotent execution may start again; one frame tells it.
                if std::mem::take(&mut self.tells_start) {
                    self.send(Frame::Started(uuid));
                }
            }
            Notice::Finished(uuid, outcome) => self.end(Frame::Finished(uuid, outcome)),
            Notice::Refused(error) => self.end(Frame::Refused(error)),
        }
    }

    /// What is not accepted yet is cancelled as soon as it is.
    fn cancel(&mut self) {
        self.is_cancelled = true;
        if self.is_accepted {
            let (system, uuid) = (self.args.system.clone(), self.uuid);
            let asking = async move { system.cancel(uuid).await };
            // Without a dispatcher the execution is lost, which comes as news of its own.
            self.effects.run(asking, |_| Msg::CancelAsked);
        }
    }

    fn dispatcher_down(&mut self, dispatcher: ActorId) {
        if self.dispatcher == Some(dispatcher) {
            self.interrupted();
        } else {
            self.dead.push(dispatcher);
        }
    }

    fn interrupted(&mut self) {
        let outcome = Outcome::interrupted("the dispatcher failed while it held this execution");
        self.end(Frame::Finished(self.uuid, outcome));
    }

    fn send(&self, frame: Frame) {
        // The edge takes each frame at once or is gone.
        drop(self.args.frames.try_send(frame));
    }

    fn end(&mut self, frame: Frame) {
        self.send(frame);
        self.myself.stop(None);
    }
}

/// A request of the seed: what to run, with which input, and how.
#[derive(Debug)]
struct Request {
    id: String,
    input: RawObject,
    options: Options,
}

impl Request {
    fn parse(kind: Kind, text: &str) -> Result<Self> {
        let value = json::parse(text)?;
        let Value::Object(object) = &value else {
            return Err(Error::invalid(format!("the request is {}, not an object", json::type_name(&value))));
        };
        let id_field = kind.field("id");
        for field in object.keys() {
            if *field != id_field && field != "input_data" && field != "options" {
                return Err(Error::invalid(format!("unknown field `{field}`")).at(field));
            }
        }
        let (Some(id), Some(input)) = (object.get(&id_field), object.get("input_data")) else {
            return Err(Error::invalid(format!("Missing required fields for {} task", kind.name())));
        };
        let wrong = |field: &str, expected: &str, value: &Value| {
            Error::invalid(format!("`{field}` is {}, not {expected}", json::type_name(value))).at(field)
        };
        let id = id.as_str().ok_or_else(|| wrong(&id_field, "a string", id))?.to_owned();
        if !input.is_object() {
            return Err(wrong("input_data", "an object", input));
        }
        let options = object.get("options").map(Options::parse).transpose()?.unwrap_or_default();
        let raw = json::members(text)?.remove("input_data").ok_or_else(failed)?;
        Ok(Self { id, input: json::members(raw.get())?, options })
    }
}

fn failed() -> Error {
    Error::unavailable("the session failed on this request")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_the_text_of_its_input() {
        let text = r#"{"tool_id":"t","input_data":{"value": 18446744073709551615},"options":{"priority":1}}"#;
        let request = Request::parse(Kind::Tool, text).expect("valid");
        assert_eq!((request.id.as_str(), request.options.priority), ("t", 1));
        assert_eq!(request.input["value"].get(), "18446744073709551615");
    }

    #[test]
    fn bad_requests_are_told_in_the_seeds_words_where_it_has_them() {
        for (text, message) in [
            (r#"{"tool_id":"t"}"#, "Missing required fields for tool task"),
            (r#"{"input_data":{}}"#, "Missing required fields for tool task"),
            (r#"{}"#, "Missing required fields for tool task"),
            (r#"{"tool_id":5,"input_data":{}}"#, "`tool_id` is a number, not a string"),
            (r#"{"tool_id":"t","input_data":[]}"#, "`input_data` is an array, not an object"),
            (r#"{"tool_id":"t","input_data":{},"x":1}"#, "unknown field `x`"),
            (r#"{"tool_id":"t","input_data":{"a":1,"a":2}}"#, "stands twice"),
            ("[]", "the request is an array, not an object"),
            ("nonsense", "not valid JSON"),
        ] {
            let error = Request::parse(Kind::Tool, text).expect_err(text);
            assert!(error.to_string().contains(message), "{text}: {error}");
        }
    }
}
