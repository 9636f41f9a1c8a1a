//! One run of one definition with one input: what is asked for, how it runs, how it ended. Pure.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::access::KeyId;
use crate::audit::Origin;
use crate::compiled::Compiled;
use crate::error::{Error, Result};
use crate::json::{self, RawObject};
use crate::log::{Kept, LogRing};
use crate::secrets::Granted;
use crate::settings::Level;

mod snapshot;

pub use snapshot::{Page, PageRequest, Phase, Progress, Snapshot};

/// How a definition runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// A program of this machine.
    Binary,
    /// A file with an interpreter.
    Script,
    /// An image, through the Docker API.
    Container,
    /// A handler in a warm interpreter.
    Python,
    /// A WebAssembly module or component.
    Wasm,
    /// A request to an HTTP service.
    Http,
    /// A message to a WebSocket service.
    Websocket,
    /// A tool of an MCP server.
    Mcp,
}

impl Runtime {
    /// Every runtime that a definition may name.
    pub const ALL: [Self; 8] = [
        Self::Binary,
        Self::Script,
        Self::Container,
        Self::Python,
        Self::Wasm,
        Self::Http,
        Self::Websocket,
        Self::Mcp,
    ];

    /// The name that stands in `runtime` and in `[pools.<runtime>]`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Script => "script",
            Self::Container => "container",
            Self::Python => "python",
            Self::Wasm => "wasm",
            Self::Http => "http",
            Self::Websocket => "websocket",
            Self::Mcp => "mcp",
        }
    }

    /// Whether what runs is a program of its own on this machine, in the sandbox.
    pub fn is_sandboxed(self) -> bool {
        matches!(self, Self::Binary | Self::Script | Self::Python)
    }

    /// The runtime of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|runtime| runtime.name() == name)
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// How an execution ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It gave an output.
    Succeeded,
    /// It ran, and did not.
    Failed,
    /// It was ended at its timeout.
    TimedOut,
    /// It was ended because somebody asked for it.
    Cancelled,
    /// The service lost it: a crash on the way, or a shutdown.
    Interrupted,
}

impl State {
    /// Every way to end.
    pub const ALL: [Self; 5] =
        [Self::Succeeded, Self::Failed, Self::TimedOut, Self::Cancelled, Self::Interrupted];

    /// The name that stands in logs and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }

    /// The state of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// What is recorded of an execution whose acceptance may not be.
const UNRECORDED: &str = "the execution could not be recorded when it was submitted";

/// The one outcome of an execution.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub state: State,
    /// The output's JSON text, or why there is none.
    pub result: std::result::Result<Arc<str>, Failure>,
}

/// Why there is no output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What a client can match on: `exit_status`, `output_too_large`, `invalid_output`, …
    pub code: Cow<'static, str>,
    /// One sentence, with the end of stderr where there was any.
    pub message: String,
}

/// The code of an outcome where the address to be called may not be reached.
pub const EGRESS_DENIED: &str = "egress_denied";

impl Outcome {
    /// Whether another attempt would fail in the same way.
    pub fn is_for_good(&self) -> bool {
        self.result.as_ref().is_err_and(|failure| failure.code == EGRESS_DENIED)
    }

    /// It gave this output, as JSON text.
    pub fn succeeded(output: String) -> Self {
        Self { state: State::Succeeded, result: Ok(output.into()) }
    }

    /// It ran, and failed.
    pub fn failed(code: &'static str, message: impl Into<String>) -> Self {
        Self::without_output(State::Failed, code, message)
    }

    /// It ran past its timeout.
    pub fn timed_out(timeout: Duration) -> Self {
        let message = format!("the execution was ended after {} ms", timeout.as_millis());
        Self::without_output(State::TimedOut, "timed_out", message)
    }

    /// Somebody asked for its end.
    pub fn cancelled() -> Self {
        Self::without_output(State::Cancelled, "cancelled", "the execution was cancelled")
    }

    /// The service lost it.
    pub fn interrupted(message: impl Into<String>) -> Self {
        Self::without_output(State::Interrupted, "interrupted", message)
    }

    /// It was taken in, and that could not be recorded: it never ran.
    pub fn unrecorded() -> Self {
        Self::interrupted(UNRECORDED)
    }

    /// Whether it is that: who asked was told so, and asks again.
    pub fn is_unrecorded(&self) -> bool {
        self.result.as_ref().is_err_and(|failure| &*failure.message == UNRECORDED)
    }

    /// Its executors kept dying.
    pub fn crash_loop(attempts: u32) -> Self {
        let message = format!("the executor of this execution failed {attempts} times");
        Self::without_output(State::Interrupted, "crash_loop", message)
    }

    /// How much room its texts take.
    pub fn bytes(&self) -> usize {
        match &self.result {
            Ok(output) => output.len(),
            Err(failure) => failure.message.len(),
        }
    }

    fn without_output(state: State, code: &'static str, message: impl Into<String>) -> Self {
        Self { state, result: Err(Failure { code: code.into(), message: message.into() }) }
    }
}

/// How and when an execution ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// When it began to run for the last time, in milliseconds since the epoch; nothing where it never did.
    pub started_ms: Option<u64>,
    /// When it ended, in milliseconds since the epoch.
    pub ended_ms: u64,
    /// How often it was begun.
    pub attempts: u32,
    /// The level of the sandbox that it ran in, where it was a program.
    pub sandbox: Option<Level>,
    /// The end of its log, where it printed anything.
    pub log: Option<Arc<str>>,
}

impl Ended {
    /// How much room its texts take.
    pub fn bytes(&self) -> usize {
        self.outcome.bytes() + self.log.as_ref().map_or(0, |log| log.len())
    }
}

/// The time, in milliseconds since the epoch.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How long an idempotency key may be, in bytes.
const MAX_KEY: usize = 255;

/// What a request may ask for besides its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether log lines and progress are wanted while it runs.
    pub stream: bool,
    /// A shorter timeout than the definition's.
    pub timeout: Option<Duration>,
    /// 0 to 9; higher goes first.
    pub priority: u8,
    /// The client's name for what it wants done once: the same name for the same definition is the same execution.
    pub idempotency_key: Option<Arc<str>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { stream: false, timeout: None, priority: 5, idempotency_key: None }
    }
}

impl Options {
    /// Reads the `options` of a request.
    ///
    /// # Errors
    /// `invalid`, naming the option.
    pub fn parse(value: &Value) -> Result<Self> {
        Self::parse_as(value, |name| format!("options.{name}"))
    }

    /// The same, where a request has each of them in another place: `field` tells which that is.
    ///
    /// # Errors
    /// `invalid`, naming the place.
    pub fn parse_as(value: &Value, field: impl Fn(&str) -> String) -> Result<Self> {
        let wrong = |name: &str, expected: &str, value: &Value| {
            let field = field(name);
            let given = match value {
                Value::Number(number) => json::shown(&number.to_string()),
                other => json::type_name(other).into(),
            };
            Error::invalid(format!("`{field}` is {given}, not {expected}")).at(field)
        };
        let object = value.as_object().ok_or_else(|| {
            Error::invalid(format!("`options` is {}, not an object", json::type_name(value))).at("options")
        })?;
        let mut options = Self::default();
        for (name, value) in object {
            match name.as_str() {
                "stream" => {
                    options.stream = value.as_bool().ok_or_else(|| wrong(name, "a boolean", value))?
                }
                "timeout_ms" => {
                    let millis = value.as_u64().filter(|millis| *millis > 0);
                    let millis = millis.ok_or_else(|| wrong(name, "a positive whole number", value))?;
                    options.timeout = Some(Duration::from_millis(millis));
                }
                "priority" => {
                    let priority = value.as_u64().and_then(|priority| u8::try_from(priority).ok());
                    let priority = priority.filter(|priority| *priority <= 9);
                    options.priority =
                        priority.ok_or_else(|| wrong(name, "a whole number from 0 to 9", value))?;
                }
                "idempotency_key" => {
                    let key = value.as_str().filter(|key| (1..=MAX_KEY).contains(&key.len()));
                    let key = key.ok_or_else(|| wrong(name, "a text of 1 to 255 bytes", value))?;
                    options.idempotency_key = Some(key.into());
                }
                _ => {
                    let shown = json::shown(name);
                    let known = "`stream`, `timeout_ms`, `priority` and `idempotency_key`";
                    return Err(Error::invalid(format!("unknown option `{shown}`; there are {known}"))
                        .at(field(name)));
                }
            }
        }
        Ok(options)
    }
}

/// Who asked: turns are fair among clients, and an execution belongs to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Client {
    /// Whoever is at this address, where no key is asked for.
    Address(IpAddr),
    /// Who has this key.
    Key(KeyId),
    /// Whom an issuer of tokens names so: a hash of both.
    Subject(u128),
}

impl Client {
    /// All who ask about definitions: they share a turn.
    pub const UNNAMED: Self = Self::Address(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
}

impl fmt::Display for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(formatter, "{address}"),
            Self::Key(id) => write!(formatter, "key:{id}"),
            Self::Subject(hash) => write!(formatter, "jwt:{hash:032x}"),
        }
    }
}

impl FromStr for Client {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let parsed = match text.split_once(':') {
            Some(("key", id)) => id.parse().ok().map(Self::Key),
            Some(("jwt", hash)) => u128::from_str_radix(hash, 16).ok().map(Self::Subject),
            _ => text.parse().ok().map(Self::Address),
        };
        parsed.ok_or("no client has this name")
    }
}

/// A client's trace context (W3C Trace Context): `00-<32 hex>-<16 hex>-<2 hex>`; what has another form is none.
pub fn trace_context(text: &str) -> Option<String> {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let is_hex = text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    (is_hex && lengths == [2, 32, 16, 2]).then(|| text.to_owned())
}

/// A hash of a definition's id and a client's idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(pub Arc<str>);

/// An execution on its way: all that an executor needs.
#[derive(Clone, Debug)]
pub struct Job {
    /// The name that the client was given.
    pub uuid: Uuid,
    /// What runs: the revision that was accepted.
    pub definition: Arc<Compiled>,
    /// The runtime of that definition.
    pub runtime: Runtime,
    /// The merged and validated input.
    pub input: Input,
    /// What the request asked for.
    pub options: Options,
    /// Whose turn it takes, and to whom it belongs.
    pub client: Client,
    /// Who asked, and from where, for the audit log.
    pub origin: Arc<Origin>,
    /// How many executions that one may have open, where it is told of it.
    pub max_open: Option<usize>,
    /// The client's trace context (W3C Trace Context), which the run gets as `TRACEPARENT`.
    pub traceparent: Option<String>,
    /// Where its log lines go while it runs, when somebody listens.
    pub log: Option<Arc<LogRing>>,
    /// The end of its log.
    pub kept: Arc<Kept>,
    /// What its definition asks for by name; there while it runs only.
    pub(crate) secrets: Granted,
}

impl Job {
    /// What no other definition and no other key of a client give: under it this execution is found again.
    pub fn key(&self) -> Option<Key> {
        let key = self.options.idempotency_key.as_ref()?;
        let mut hash = Sha256::new();
        // What one principal runs is nothing to another, whatever key it uses.
        let client = match self.client {
            Client::Address(_) => None,
            principal => Some(principal.to_string()),
        };
        let parts = [self.definition.kind.name(), &self.definition.id, key];
        for part in parts.into_iter().chain(client.as_deref()) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Some(Key(format!("{:x}", hash.finalize()).into()))
    }

    /// An execution of this definition, with its defaults overlaid by what was given, and checked.
    ///
    /// # Errors
    /// `invalid` or `unavailable` where it cannot run, `unprocessable` where the input does not fit.
    pub fn new(
        uuid: Uuid,
        definition: Arc<Compiled>,
        given: RawObject,
        options: Options,
        client: Client,
        origin: Arc<Origin>,
    ) -> Result<Self> {
        let runtime = definition.runtime()?;
        let input = definition.input(given)?;
        Ok(Self {
            uuid,
            definition,
            runtime,
            input,
            options,
            client,
            origin,
            max_open: None,
            traceparent: None,
            log: None,
            kept: Arc::default(),
            secrets: Granted::default(),
        })
    }
}

/// An input, as JSON text with every number as it was written. What waits in a queue is only this: a `Value` takes
/// many times the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The text of a JSON object.
    pub text: String,
}

impl Input {
    /// Its members, each as it is written.
    pub fn members(&self) -> RawObject {
        json::members(&self.text).expect("an input was parsed when it was checked")
    }

    /// The same, to look at.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.text).expect("an input was parsed when it was checked")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_are_read_and_bad_ones_are_named() {
        let options =
            Options::parse(&json!({"stream": true, "timeout_ms": 5, "priority": 9, "idempotency_key": "k"}))
                .expect("valid");
        let timeout = Some(Duration::from_millis(5));
        let expected = Options { stream: true, timeout, priority: 9, idempotency_key: Some("k".into()) };
        assert_eq!(options, expected);
        for (bad, place) in [
            (json!({"priority": 10}), "options.priority"),
            (json!({"timeout_ms": 0}), "options.timeout_ms"),
            (json!({"timeout_ms": "5"}), "options.timeout_ms"),
            (json!({"stream": 1}), "options.stream"),
            (json!({"colour": 1}), "options.colour"),
            (json!({"idempotency_key": ""}), "options.idempotency_key"),
            (json!({"idempotency_key": 1}), "options.idempotency_key"),
            (json!([]), "options"),
        ] {
            let error = Options::parse(&bad).expect_err("bad");
            assert_eq!(error.details().expect("a place")["field"], place);
        }
    }

    #[test]
    fn a_client_is_read_as_it_was_written() {
        let clients = [
            Client::Address("::1".parse().expect("an address")),
            Client::Key(KeyId::of(7)),
            Client::Subject(1 << 127),
        ];
        for client in clients.into_iter().chain([Client::UNNAMED]) {
            assert_eq!(client.to_string().parse(), Ok(client));
        }
        for bad in ["", "key:", "key:xyz", "jwt:", "name:1", "127.0.0.1:80"] {
            assert!(bad.parse::<Client>().is_err(), "{bad}");
        }
    }

    #[test]
    fn each_runtime_is_known_by_its_name() {
        for runtime in Runtime::ALL {
            assert_eq!(Runtime::named(runtime.name()), Some(runtime));
        }
        assert_eq!(Runtime::named("cobol"), None);
    }
}
