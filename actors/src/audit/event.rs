//! What is recorded, before it has its place in the chain: who did what, from where, and what came of it. Pure.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{write_object, write_string};
use crate::error::{Code, Error};
use crate::execution::{Client, Ended, Job, now_ms};

/// How long a text of an entry may be, in characters; what is longer is cut.
const MAX_TEXT: usize = 512;

/// About how long the text of an entry is, in bytes.
const TYPICAL: usize = 384;

/// About how long the detail of an execution is at most, in bytes.
const TYPICAL_DETAIL: usize = 128;

const TAKES_ALL: &str = "a string takes every text";

/// What was done or asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Action {
    Enter,
    DefinitionCreate,
    DefinitionUpdate,
    DefinitionDelete,
    DefinitionRollBack,
    DefinitionImport,
    DefinitionRegister,
    DefinitionRefresh,
    DefinitionRead,
    ExecutionAccept,
    ExecutionResume,
    ExecutionCancel,
    ExecutionEnd,
    ExecutionRead,
    KeyCreate,
    KeyRevoke,
    KeyRead,
    AuditRead,
    AuditForget,
    ServiceStart,
    ServiceReload,
    ServiceStop,
    ServiceRead,
}

impl Action {
    /// The name that stands in an entry.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enter => "enter",
            Self::DefinitionCreate => "definition.create",
            Self::DefinitionUpdate => "definition.update",
            Self::DefinitionDelete => "definition.delete",
            Self::DefinitionRollBack => "definition.roll_back",
            Self::DefinitionImport => "definition.import",
            Self::DefinitionRegister => "definition.register",
            Self::DefinitionRefresh => "definition.refresh",
            Self::DefinitionRead => "definition.read",
            Self::ExecutionAccept => "execution.accept",
            Self::ExecutionResume => "execution.resume",
            Self::ExecutionCancel => "execution.cancel",
            Self::ExecutionEnd => "execution.end",
            Self::ExecutionRead => "execution.read",
            Self::KeyCreate => "key.create",
            Self::KeyRevoke => "key.revoke",
            Self::KeyRead => "key.read",
            Self::AuditRead => "audit.read",
            Self::AuditForget => "audit.forget",
            Self::ServiceStart => "service.start",
            Self::ServiceReload => "service.reload",
            Self::ServiceStop => "service.stop",
            Self::ServiceRead => "service.read",
        }
    }

    /// Whether many of it come in a second: its entries gather for a moment before they are written.
    pub(super) fn is_frequent(self) -> bool {
        matches!(self, Self::ExecutionAccept | Self::ExecutionEnd)
    }
}

/// Which way somebody came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    /// The REST API.
    Rest,
    /// The WebSocket port.
    Websocket,
    /// A command on the store, without a service.
    Cli,
    /// The service itself.
    Service,
}

impl Door {
    /// The name that stands in an entry.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Websocket => "websocket",
            Self::Cli => "cli",
            Self::Service => "service",
        }
    }
}

/// Who does something, and from where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// A key, the subject of a token, or the address where no key is asked for.
    pub principal: Arc<str>,
    /// The address of the peer, where there is one.
    pub address: Option<IpAddr>,
    /// Which way it came.
    pub door: Door,
}

impl Origin {
    /// The service itself.
    pub fn service() -> Self {
        Self { principal: "service".into(), address: None, door: Door::Service }
    }

    /// Who is known by an address only.
    pub fn stranger(address: IpAddr, door: Door) -> Self {
        let address = address.to_canonical();
        Self { principal: address.to_string().into(), address: Some(address), door }
    }

    /// Who stands in the record of an execution: from where it came is not known any more.
    pub fn recorded(client: Client) -> Self {
        Self { principal: client.to_string().into(), address: None, door: Door::Service }
    }

    /// Whether nobody showed who this is.
    pub(super) fn is_stranger(&self) -> bool {
        self.address.is_some_and(|address| *self.principal == *address.to_string())
    }
}

/// Something that is to be recorded. Its place in the chain it gets when it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When it happened, in milliseconds since the epoch.
    pub at_ms: u64,
    /// Who did it.
    pub origin: Arc<Origin>,
    /// What.
    pub action: Action,
    /// To what.
    pub subject: String,
    /// What came of it: `ok`, the code of an error, or the state of an execution that ended.
    pub result: &'static str,
    /// What else is to be known: a JSON object.
    pub detail: Detail,
}

/// What else an entry tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Detail {
    /// The members of an object; where there are none, that is empty.
    Members(Value),
    /// The text of an object as it stands in the log: of what is written for each execution.
    Text(String),
}

impl From<Value> for Detail {
    fn from(members: Value) -> Self {
        Self::Members(members)
    }
}

impl Detail {
    /// Of an execution that comes in: its definition, which has a short name.
    pub(crate) fn of(job: &Job) -> Self {
        let mut text = opened();
        write_definition(&mut text, job);
        Self::Text(text)
    }

    /// Of one that ended: with its attempts, and why it failed. What it put out does not stand in the log.
    pub(crate) fn of_end(job: &Job, ended: &Ended) -> Self {
        let mut text = opened();
        write!(text, r#""attempts":{},"#, ended.attempts).expect(TAKES_ALL);
        if let Err(failure) = &ended.outcome.result {
            text.push_str(r#""code":"#);
            write_string(&mut text, &failure.code);
            text.push(',');
        }
        write_definition(&mut text, job);
        Self::Text(text)
    }

    /// Adds a member.
    pub(crate) fn add(&mut self, name: &str, value: impl Into<Value>) {
        if let Self::Members(Value::Object(members)) = self {
            members.insert(name.into(), value.into());
        }
    }
}

impl Event {
    /// Something that was done now.
    pub fn done(
        origin: Arc<Origin>,
        action: Action,
        subject: impl fmt::Display,
        detail: impl Into<Detail>,
    ) -> Self {
        let detail = detail.into();
        Self { at_ms: now_ms(), origin, action, subject: subject.to_string(), result: "ok", detail }
    }

    /// Something that was refused now.
    pub fn refused(
        origin: Arc<Origin>,
        action: Action,
        subject: impl fmt::Display,
        code: Code,
        error: &Error,
    ) -> Self {
        let detail = json!({ "message": error.to_string() }).into();
        Self { at_ms: now_ms(), origin, action, subject: subject.to_string(), result: code.as_str(), detail }
    }

    /// The text of the entry that it is at this place of the chain, which is what is hashed: one line of JSON with its fields
    /// in this order and nothing but printable ASCII, so that no name or message can look like another field or another
    /// line, in a file as on a terminal.
    pub(super) fn text(&self, sequence: u64) -> String {
        let mut text = String::with_capacity(TYPICAL);
        let at_ms = self.at_ms;
        write!(text, r#"{{"sequence":{sequence},"at_ms":{at_ms},"principal":"#).expect(TAKES_ALL);
        write_string(&mut text, &cut(&self.origin.principal));
        text.push_str(r#","address":""#);
        if let Some(address) = self.origin.address {
            write!(text, "{address}").expect(TAKES_ALL);
        }
        let (door, action) = (self.origin.door.name(), self.action.name());
        write!(text, r#"","door":"{door}","action":"{action}","subject":"#).expect(TAKES_ALL);
        write_string(&mut text, &cut(&self.subject));
        write!(text, r#","result":"{}","detail":"#, self.result).expect(TAKES_ALL);
        match &self.detail {
            Detail::Text(detail) => text.push_str(detail),
            Detail::Members(Value::Object(detail)) if detail.values().any(is_long) => {
                write_object(&mut text, &shortened(detail))
            }
            Detail::Members(Value::Object(detail)) => write_object(&mut text, detail),
            Detail::Members(_) => text.push_str("{}"),
        }
        text.push('}');
        text
    }
}

/// The beginning of an object that tells of an execution, with room for all of it.
fn opened() -> String {
    let mut text = String::with_capacity(TYPICAL_DETAIL);
    text.push('{');
    text
}

fn write_definition(text: &mut String, job: &Job) {
    let definition = &job.definition;
    text.push_str(r#""definition":"#);
    write_string(text, &definition.kind.subject(&definition.id).to_string());
    write!(text, r#","revision":{}}}"#, definition.number).expect(TAKES_ALL);
}

fn is_long(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.len() > MAX_TEXT)
}

fn cut(text: &str) -> Cow<'_, str> {
    crate::json::shortened(text, MAX_TEXT)
}

fn shortened(detail: &Map<String, Value>) -> Map<String, Value> {
    let short = |value: &Value| value.as_str().map_or_else(|| value.clone(), |text| cut(text).into());
    detail.iter().map(|(name, value)| (name.clone(), short(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Entry;
    use super::super::tests::event;
    use super::*;

    #[test]
    fn a_long_text_is_cut() {
        let entry =
            Event { detail: json!({ "message": "é".repeat(9_999) }).into(), ..event(&"x".repeat(9_999)) };
        let entry = Entry::parse(&entry.text(1)).expect("an entry");
        assert_eq!(entry.subject.chars().count(), MAX_TEXT + 1);
        assert_eq!(entry.detail["message"].as_str().map(|text| text.chars().count()), Some(MAX_TEXT + 1));
    }
}
