//! What a definition's metadata says about running it. Metadata may hold anything; the keys read here have a
//! meaning, and a wrong type in one of them is an error that names it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::execution::Runtime;
use crate::json;
use crate::schema::{Misfit, Schema};
use crate::template::Template;

mod parameters;
pub mod secrets;

pub use parameters::{BODY, Parameter, Piece, Position, Style, filled, is_reserved_header, pieces};

/// How a definition runs.
#[derive(Debug)]
pub struct Spec {
    /// Named, or told by `protocol` or the source's ending; a definition may have none.
    pub runtime: Option<Runtime>,
    /// What the input must be, from `input_schema` or `api_spec.input`.
    pub input: Option<Schema>,
    /// What the output must be, from `output_schema` or `api_spec.output`.
    pub output: Option<Schema>,
    /// The program of a binary or script, or of an MCP server.
    pub program: ProgramSpec,
    /// The endpoint of an http or websocket function, or of an MCP server.
    pub api: ApiSpec,
    /// The image of a container.
    pub container: ContainerSpec,
    /// What a WebAssembly module may reach.
    pub grants: Grants,
    /// How stdout or the body becomes the output.
    pub mode: OutputMode,
    /// The bounds of one run.
    pub limits: Limits,
    /// May it run again when it was lost midway?
    pub idempotent: bool,
    /// How often a run that failed is tried again.
    pub retries: Retries,
    /// How many may run at the same time.
    pub max_concurrency: Option<usize>,
    /// What a caller is told of a definition that should not be used any more.
    pub deprecated: Option<Arc<str>>,
    /// By the variable or place that gets its value, the name of each secret in the configuration.
    pub secrets: BTreeMap<String, String>,
    /// A key that asks for something this version cannot keep, and so refuses to run without.
    pub unmet: Option<String>,
}

/// What is started, and what it is given.
#[derive(Debug, Default)]
pub struct ProgramSpec {
    /// A file under an allowed root.
    pub source: Option<String>,
    /// The file's SHA-256, in lower-case hex.
    pub sha256: Option<String>,
    /// A program on PATH or an absolute path.
    pub entrypoint: Option<String>,
    /// One argument each.
    pub args: Vec<Template>,
    /// Additional environment variables.
    pub env: BTreeMap<String, String>,
    /// What is written to its standard input.
    pub stdin: Stdin,
    /// `io: "files"`: input and output by files named in its arguments.
    pub by_files: bool,
    /// The function or class in a Python source, where it does not bear one of the usual names.
    pub handler: Option<String>,
    /// Whether it has the machine's network, where the definition says so.
    pub network: Option<bool>,
}

/// What a program reads from its standard input.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Stdin {
    /// The input as JSON.
    #[default]
    Json,
    /// Nothing: it is closed at once.
    None,
    /// A text made from the input.
    Text(Template),
}

/// The request of an API function.
#[derive(Debug, Default)]
pub struct ApiSpec {
    /// Where it is sent.
    pub url: Option<String>,
    /// The HTTP method; POST unless told.
    pub method: Option<String>,
    /// Headers sent along.
    pub headers: BTreeMap<String, String>,
    /// Whether an answer `{"success":true,"data":…}` gives its `data` as the output.
    pub unwrap: bool,
    /// Which tool of an MCP server; the one that bears the definition's id unless told.
    pub tool: Option<String>,
    /// Where each part of the input goes, over HTTP; without them the input goes as a whole.
    pub parameters: Option<Vec<Parameter>>,
}

/// The image of a container, and how long a container lives.
#[derive(Debug, Default)]
pub struct ContainerSpec {
    /// The image, by name or digest.
    pub image: Option<String>,
    /// What is run in it, one argument each; without any, what the image says.
    pub command: Vec<Template>,
    /// When the image is fetched.
    pub pull: Pull,
    /// How long a container lives.
    pub mode: ContainerMode,
    /// Whether it has a network: none unless told.
    pub network: Network,
}

/// When an image is fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pull {
    /// When the engine does not have it.
    #[default]
    Missing,
    /// Never: the engine must have it.
    Never,
    /// Before each new container.
    Always,
}

/// How long a container lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContainerMode {
    /// One container for each execution.
    #[default]
    Fresh,
    /// A container is kept and reset after each execution: its processes are ended, its temporary files removed.
    Reset,
    /// A container is started ahead and dropped after its one execution.
    Drop,
}

/// What a container or module may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Nothing.
    #[default]
    None,
    /// What the engine gives unless told otherwise.
    Default,
    /// A network that the engine knows by this name.
    Named(String),
}

/// What a WebAssembly module may reach; nothing unless told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Folders under an allowed root, read-only, by the path at which the module sees them.
    pub folders: BTreeMap<String, String>,
    /// Whether it may open connections.
    pub network: bool,
}

/// How often, and after which pause, a run that failed is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retries {
    /// How many times at most, besides the first.
    pub max: u32,
    /// The pause before the first retry; each further one is twice as long.
    pub backoff: Duration,
}

/// How what a program printed becomes the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputMode {
    /// One JSON document.
    Json,
    /// `{"stdout": "…"}`.
    Text,
    /// An array of lines.
    Lines,
    /// `{"<key>": …}` around another mode.
    Wrapped(String, Box<OutputMode>),
}

/// The bounds that a definition sets; absent ones come from the configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// How much it may put out.
    pub output_bytes: Option<u64>,
    /// How much memory it may hold, in MiB.
    pub memory_mb: Option<u64>,
    /// How much processor time it may use.
    pub cpu: Option<Duration>,
    /// How many processes and threads it may have.
    pub processes: Option<u64>,
    /// How many files a process may have open.
    pub files: Option<u64>,
}

impl Spec {
    /// Reads the metadata.
    ///
    /// # Errors
    /// `invalid`, with the place inside the metadata as `details.field`.
    pub fn parse(metadata: &Map<String, Value>) -> Result<Self> {
        let keys = Keys { object: metadata, prefix: "" };
        for plain in ["version", "type", "subtype", "protocol"] {
            keys.text(plain)?;
        }
        let idempotent = keys.flag("idempotent")?.unwrap_or(false);
        let (input, output) = schemas(&keys)?;
        let program = ProgramSpec::parse(&keys)?;
        let file = program.source.as_ref().map(|source| program.entrypoint.as_ref().unwrap_or(source));
        let runtime = runtime(&keys, file)?;
        let container = ContainerSpec::parse(&keys)?;
        let api = ApiSpec::parse(&keys, runtime)?;
        if runtime == Some(Runtime::Mcp) && api.url.is_some() && program.entrypoint.is_some() {
            let message = "an MCP server has a `url` or an `entrypoint`, not both";
            return Err(Error::invalid(message).at("entrypoint"));
        }
        Ok(Self {
            runtime,
            grants: Grants::parse(&keys, &container.network)?,
            deprecated: deprecated(&keys)?,
            secrets: secrets::parse(&keys, runtime, &program, &api)?,
            unmet: unmet(&keys, runtime),
            container,
            input,
            output,
            program,
            api,
            mode: metadata.get("output").map_or(Ok(OutputMode::Json), OutputMode::parse)?,
            limits: Limits::parse(&keys)?,
            idempotent,
            retries: Retries::parse(&keys, idempotent)?,
            max_concurrency: keys
                .count("max_concurrency")?
                .map(|max| usize::try_from(max).unwrap_or(usize::MAX)),
        })
    }

    /// Of metadata that an older or newer version let in, and that this one cannot read.
    pub fn unreadable(error: Error) -> Self {
        Self {
            runtime: None,
            input: None,
            output: None,
            program: ProgramSpec::default(),
            api: ApiSpec::default(),
            container: ContainerSpec::default(),
            grants: Grants::default(),
            retries: Retries::default(),
            mode: OutputMode::Json,
            limits: Limits::default(),
            idempotent: false,
            max_concurrency: None,
            deprecated: None,
            secrets: BTreeMap::new(),
            unmet: Some(format!("its metadata cannot be run by this version: {error}")),
        }
    }

    /// What a template wants and the input lacks, or has as no program can be given it.
    pub fn misfit(&self, input: &Value) -> Option<Misfit> {
        let stdin = match &self.program.stdin {
            Stdin::Text(template) => Some(template),
            Stdin::Json | Stdin::None => None,
        };
        let arguments = || self.program.args.iter().chain(&self.container.command);
        let missing = arguments().chain(stdin).find_map(|template| template.missing(input));
        let missing = missing.map(|place| (place, "is wanted by a template and missing"));
        let with_nul = || {
            let place = arguments().find_map(|template| template.with_nul(input))?;
            Some((place, "has a NUL character, which no argument of a program can have"))
        };
        let (place, reason) = missing.or_else(with_nul)?;
        Some(Misfit { place, reason: reason.into() })
    }
}

impl ProgramSpec {
    fn parse(keys: &Keys<'_>) -> Result<Self> {
        let entrypoint = keys.text("entrypoint")?.map(str::to_owned);
        let source = keys.text("source_url")?.map(str::to_owned);
        if source.as_ref().is_some_and(String::is_empty) {
            return Err(Error::invalid("`source_url` is empty").at("source_url"));
        }
        if source.is_none()
            && entrypoint.as_deref().is_some_and(|path| path.contains('/') && !path.starts_with('/'))
        {
            let message = "`entrypoint` alone is a program on PATH or an absolute path";
            return Err(Error::invalid(message).at("entrypoint"));
        }
        let sha256 = keys.text("sha256")?.map(str::to_ascii_lowercase);
        if sha256
            .as_ref()
            .is_some_and(|hash| hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            return Err(Error::invalid("`sha256` is not 64 hexadecimal digits").at("sha256"));
        }
        if sha256.is_some() && source.is_none() {
            return Err(Error::invalid("`sha256` pins a `source_url`, and there is none").at("sha256"));
        }
        let stdin = match keys.text("stdin")? {
            None | Some("json") => Stdin::Json,
            Some("none") => Stdin::None,
            Some(text) => Stdin::Text(Template::parse(text)),
        };
        let by_files = match keys.text("io")? {
            None | Some("stdio") => false,
            Some("files") => true,
            Some(_) => return Err(Error::invalid("`io` is neither \"stdio\" nor \"files\"").at("io")),
        };
        let env = keys.map("env")?;
        if let Some(name) = env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
            return Err(Error::invalid(format!("{name:?} is no name of an environment variable")).at("env"));
        }
        if let Some((name, _)) = env.iter().find(|(_, value)| value.contains('\0')) {
            return Err(has_nul().at(format!("env.{name}")));
        }
        let args = keys.templates("args")?;
        let handler = keys.text("handler")?.map(str::to_owned);
        // A name is that of a container's network.
        let network = keys.object.get("network").map(|network| *network != Value::Bool(false));
        Ok(Self { source, sha256, entrypoint, args, env, stdin, by_files, handler, network })
    }
}

impl ApiSpec {
    fn parse(keys: &Keys<'_>, runtime: Option<Runtime>) -> Result<Self> {
        let method = keys.text("method")?.map(str::to_ascii_uppercase);
        if method.as_ref().is_some_and(|method| reqwest::Method::from_bytes(method.as_bytes()).is_err()) {
            return Err(Error::invalid("`method` is no HTTP method").at("method"));
        }
        let headers = keys.map("headers")?;
        for (name, value) in &headers {
            let named = reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_ok();
            if !named || reqwest::header::HeaderValue::from_str(value).is_err() {
                return Err(Error::invalid(format!("{name:?} is no HTTP header")).at("headers"));
            }
        }
        let url = keys.text("url")?.map(str::to_owned);
        let tool = keys.text("tool")?.map(str::to_owned);
        let parameters = match runtime {
            Some(Runtime::Http) => parameters::parse(keys, url.as_deref(), &headers)?,
            // Anywhere else the key is free to use.
            _ => None,
        };
        let unwrap = keys.flag("unwrap")?.unwrap_or(false);
        Ok(Self { url, method, headers, unwrap, tool, parameters })
    }
}

impl OutputMode {
    fn parse(value: &Value) -> Result<Self> {
        let unknown = || {
            Error::invalid("`output` is \"json\", \"text\", \"lines\" or {name: one of these}").at("output")
        };
        let named = |name: &str| match name {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            "lines" => Ok(Self::Lines),
            _ => Err(unknown()),
        };
        match value {
            Value::String(name) => named(name),
            Value::Object(object) if object.len() == 1 => {
                let (key, inner) = object.iter().next().ok_or_else(unknown)?;
                Ok(Self::Wrapped(key.clone(), Box::new(named(inner.as_str().ok_or_else(unknown)?)?)))
            }
            _ => Err(unknown()),
        }
    }
}

impl Limits {
    fn parse(keys: &Keys<'_>) -> Result<Self> {
        let Some(limits) = keys.inner("limits")? else { return Ok(Self::default()) };
        Ok(Self {
            timeout: limits.count("timeout_ms")?.map(Duration::from_millis),
            output_bytes: limits.count("output_bytes")?,
            memory_mb: limits.count("memory_mb")?,
            cpu: limits.count("cpu_ms")?.map(Duration::from_millis),
            processes: limits.count("processes")?,
            files: limits.count("files")?,
        })
    }
}

impl ContainerSpec {
    fn parse(keys: &Keys<'_>) -> Result<Self> {
        let image = keys.text("image")?.map(str::to_owned);
        let command = keys.templates("command")?;
        keys.any_of("network", "a boolean or a string", |value| value.is_boolean() || value.is_string())?;
        let network = match keys.object.get("network") {
            Some(Value::Bool(true)) => Network::Default,
            Some(Value::String(name)) => Network::Named(name.clone()),
            _ => Network::None,
        };
        let mut spec = Self { image, command, network, ..Self::default() };
        let Some(container) = keys.inner("container")? else { return Ok(spec) };
        spec.pull = container.choice(
            "pull",
            &[("missing", Pull::Missing), ("never", Pull::Never), ("always", Pull::Always)],
        )?;
        spec.mode = container.choice(
            "mode",
            &[
                ("fresh", ContainerMode::Fresh),
                ("warm", ContainerMode::Reset),
                ("warm_once", ContainerMode::Drop),
            ],
        )?;
        Ok(spec)
    }
}

impl Grants {
    fn parse(keys: &Keys<'_>, network: &Network) -> Result<Self> {
        let folders = keys.map("folders")?;
        if let Some(path) = folders.keys().find(|path| !path.starts_with('/')) {
            let message = format!("{path:?} is no absolute path at which a folder can be seen");
            return Err(Error::invalid(message).at("folders"));
        }
        Ok(Self { folders, network: *network != Network::None })
    }
}

impl Retries {
    /// The pause before the next retry, after this many: twice as long each time, at most an hour, and up to a tenth
    /// longer by chance, so that executions that failed together do not come back together.
    pub fn pause(&self, retries: u32, uuid: uuid::Uuid) -> Duration {
        let doubled = self.backoff.saturating_mul(1_u32.checked_shl(retries).unwrap_or(u32::MAX));
        let pause = doubled.min(Duration::from_millis(Self::MAX_BACKOFF_MS));
        // The end of a uuid of version 7 is chance.
        let chance = (uuid.as_u128() & 0xff) as u32;
        pause + pause * chance / 2_560
    }

    /// The longest pause that a definition may ask for.
    const MAX_BACKOFF_MS: u64 = 3_600_000;

    fn parse(keys: &Keys<'_>, idempotent: bool) -> Result<Self> {
        let Some(retries) = keys.inner("retries")? else { return Ok(Self::default()) };
        let max = retries.whole("max")?.unwrap_or(0);
        let backoff_ms = retries.whole("backoff_ms")?.unwrap_or(100);
        if backoff_ms > Self::MAX_BACKOFF_MS {
            let message = format!("`retries.backoff_ms` is more than {}", Self::MAX_BACKOFF_MS);
            return Err(Error::invalid(message).at("retries.backoff_ms"));
        }
        if max > 0 && !idempotent {
            let message = "`retries` needs `idempotent: true`: anything else may run once only";
            return Err(Error::invalid(message).at("retries"));
        }
        let max = u32::try_from(max).ok().filter(|max| *max <= 100);
        let max = max.ok_or_else(|| Error::invalid("`retries.max` is more than 100").at("retries.max"))?;
        Ok(Self { max, backoff: Duration::from_millis(backoff_ms) })
    }
}

fn has_nul() -> Error {
    Error::invalid("a NUL character is in it, which no program can be given")
}

/// `file` is the source, or the entrypoint inside it.
fn runtime(keys: &Keys<'_>, file: Option<&String>) -> Result<Option<Runtime>> {
    if let Some(name) = keys.text("runtime")? {
        let known = || Runtime::ALL.map(Runtime::name).join(", ");
        let unknown =
            || Error::invalid(format!("unknown runtime {name:?}; there are {}", known())).at("runtime");
        return Runtime::named(name).ok_or_else(unknown).map(Some);
    }
    let protocol = keys.text("protocol")?.map(str::to_ascii_lowercase);
    Ok(match (protocol.as_deref(), file) {
        (Some("http" | "https"), _) => Some(Runtime::Http),
        (Some("websocket" | "ws" | "wss"), _) => Some(Runtime::Websocket),
        (_, Some(file)) if file.ends_with(".py") => Some(Runtime::Python),
        (_, Some(file)) if file.ends_with(".wasm") => Some(Runtime::Wasm),
        (_, Some(_)) => Some(Runtime::Script),
        _ => None,
    })
}

fn schemas(keys: &Keys<'_>) -> Result<(Option<Schema>, Option<Schema>)> {
    let compile = |key: &str, schema: Option<&Value>| {
        schema.map(|schema| Schema::compile(schema).map_err(|error| error.within(key))).transpose()
    };
    let mut input = compile("input_schema", keys.object.get("input_schema"))?;
    let mut output = compile("output_schema", keys.object.get("output_schema"))?;
    if let Some(spec) = keys.inner("api_spec")? {
        let side = |name: &str| {
            let fields = spec.object.get(name);
            fields
                .map(|fields| Schema::of_api_spec(fields).map_err(|error| error.within(&spec.place(name))))
                .transpose()
        };
        let (declared_input, declared_output) = (side("input")?, side("output")?);
        input = input.or(declared_input);
        output = output.or(declared_output);
    }
    Ok((input, output))
}

/// `deprecated` is a sentence for callers, or `true`.
fn deprecated(keys: &Keys<'_>) -> Result<Option<Arc<str>>> {
    keys.any_of("deprecated", "a boolean or a string", |value| value.is_boolean() || value.is_string())?;
    Ok(match keys.object.get("deprecated") {
        Some(Value::Bool(true)) => Some("it is deprecated".into()),
        Some(Value::String(message)) => Some(message.as_str().into()),
        _ => None,
    })
}

/// Promises that nothing here keeps are not made: such a definition registers, and says why it does not run.
fn unmet(keys: &Keys<'_>, runtime: Option<Runtime>) -> Option<String> {
    let is_elsewhere = matches!(runtime, Some(Runtime::Http | Runtime::Websocket | Runtime::Mcp));
    if keys.object.get("network") == Some(&Value::Bool(false)) && is_elsewhere {
        let message =
            "`network: false` cannot be kept by a runtime that calls others, so the definition does not run";
        return Some(message.into());
    }
    None
}

/// Typed access to the keys of one object, with the place in every error.
struct Keys<'a> {
    object: &'a Map<String, Value>,
    prefix: &'a str,
}

impl<'a> Keys<'a> {
    fn place(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}.{key}", self.prefix) }
    }

    fn get<T>(&self, key: &str, expected: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.object.get(key) else { return Ok(None) };
        let place = self.place(key);
        let wrong =
            || Error::invalid(format!("`{place}` is {}, not {expected}", json::type_name(value))).at(&place);
        read(value).map(Some).ok_or_else(wrong)
    }

    fn any_of(&self, key: &str, expected: &str, fits: impl Fn(&Value) -> bool) -> Result<()> {
        self.get(key, expected, |value| fits(value).then_some(())).map(|_| ())
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key, "a string", Value::as_str)
    }

    fn texts(&self, key: &str) -> Result<Vec<&'a str>> {
        let read = |value: &'a Value| value.as_array()?.iter().map(Value::as_str).collect();
        Ok(self.get(key, "an array of strings", read)?.unwrap_or_default())
    }

    /// What becomes the arguments of a program.
    fn templates(&self, key: &str) -> Result<Vec<Template>> {
        let texts = self.texts(key)?;
        match texts.iter().position(|text| text.contains('\0')) {
            Some(at) => Err(has_nul().at(format!("{key}.{at}"))),
            None => Ok(texts.into_iter().map(Template::parse).collect()),
        }
    }

    fn map(&self, key: &str) -> Result<BTreeMap<String, String>> {
        let read = |value: &'a Value| {
            let pairs = value.as_object()?.iter();
            pairs.map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
        };
        Ok(self.get(key, "an object of strings", read)?.unwrap_or_default())
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.get(key, "a boolean", Value::as_bool)
    }

    fn whole(&self, key: &str) -> Result<Option<u64>> {
        self.get(key, "a whole number", Value::as_u64)
    }

    fn count(&self, key: &str) -> Result<Option<u64>> {
        self.get(key, "a positive whole number", |value| value.as_u64().filter(|count| *count > 0))
    }

    /// One of these words; the first value where there is none.
    fn choice<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<T> {
        let Some(word) = self.text(key)? else { return Ok(words[0].1) };
        let found = words.iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
        found.ok_or_else(|| {
            let known: Vec<_> = words.iter().map(|(name, _)| format!("{name:?}")).collect();
            let place = self.place(key);
            Error::invalid(format!("`{place}` is {word:?}, not {}", known.join(" or "))).at(place)
        })
    }

    fn inner(&self, key: &'a str) -> Result<Option<Keys<'a>>> {
        let object = self.get(key, "an object", Value::as_object)?;
        Ok(object.map(|object| Keys { object, prefix: key }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(metadata: Value) -> Result<Spec> {
        Spec::parse(metadata.as_object().expect("an object"))
    }

    #[test]
    fn the_runtime_is_named_or_follows_from_protocol_or_source() {
        for (metadata, runtime) in [
            (json!({"runtime": "binary", "protocol": "http"}), Some(Runtime::Binary)),
            (json!({"protocol": "HTTP"}), Some(Runtime::Http)),
            (json!({"protocol": "wss"}), Some(Runtime::Websocket)),
            (json!({"source_url": "a.py"}), Some(Runtime::Python)),
            (json!({"source_url": "a.wasm"}), Some(Runtime::Wasm)),
            (json!({"source_url": "a.sh"}), Some(Runtime::Script)),
            (json!({"source_url": "package", "entrypoint": "main.py"}), Some(Runtime::Python)),
            (json!({"entrypoint": "awk"}), None),
            (json!({"anything": {"else": [1]}}), None),
        ] {
            assert_eq!(parse(metadata.clone()).expect("valid").runtime, runtime, "{metadata}");
        }
    }

    #[test]
    fn a_wrong_type_is_told_by_its_place() {
        for (metadata, place) in [
            (json!({"runtime": "cobol"}), "runtime"),
            (json!({"args": "x"}), "args"),
            (json!({"args": [1]}), "args"),
            (json!({"env": {"A": 1}}), "env"),
            (json!({"env": {"A=B": "1"}}), "env"),
            (json!({"env": {"A": "a\0b"}}), "env.A"),
            (json!({"args": ["a", "\0"]}), "args.1"),
            (json!({"source_url": ""}), "source_url"),
            (json!({"stdin": 5}), "stdin"),
            (json!({"output": "xml"}), "output"),
            (json!({"output": {"a": "json", "b": "text"}}), "output"),
            (json!({"io": "pipes"}), "io"),
            (json!({"limits": {"timeout_ms": -1}}), "limits.timeout_ms"),
            (json!({"limits": {"memory_mb": "1"}}), "limits.memory_mb"),
            (json!({"retries": {"max": 1.5}}), "retries.max"),
            (json!({"retries": {"max": 1}}), "retries"),
            (json!({"idempotent": true, "retries": {"max": 1_000}}), "retries.max"),
            (
                json!({"idempotent": true, "retries": {"max": 1, "backoff_ms": 3_600_001}}),
                "retries.backoff_ms",
            ),
            (json!({"image": 5}), "image"),
            (json!({"command": "sh"}), "command"),
            (json!({"network": 1}), "network"),
            (json!({"container": {"mode": "cold"}}), "container.mode"),
            (json!({"container": {"pull": true}}), "container.pull"),
            (json!({"folders": {"relative": "x"}}), "folders"),
            (json!({"handler": []}), "handler"),
            (json!({"max_concurrency": 0}), "max_concurrency"),
            (json!({"deprecated": 1}), "deprecated"),
            (json!({"idempotent": "yes"}), "idempotent"),
            (json!({"sha256": "abc"}), "sha256"),
            (json!({"sha256": "0".repeat(64), "entrypoint": "sh"}), "sha256"),
            (json!({"entrypoint": "../bin/sh"}), "entrypoint"),
            (json!({"headers": {"a b": "c"}}), "headers"),
            (json!({"tool": ["add"]}), "tool"),
            (json!({"runtime": "mcp", "url": "http://x/", "entrypoint": "sh"}), "entrypoint"),
            (json!({"input_schema": {"type": "nonsense"}}), "input_schema"),
            (json!({"api_spec": {"input": {"a": {"type": "nonsense"}}}}), "api_spec.input.a"),
        ] {
            let error = parse(metadata.clone()).expect_err(&metadata.to_string());
            assert_eq!(error.details().expect("a place")["field"], place, "{metadata}: {error}");
        }
    }

    #[test]
    fn each_pause_is_twice_as_long_and_bounded() {
        let retries = Retries { max: 9, backoff: Duration::from_millis(100) };
        let millis = |retry| retries.pause(retry, uuid::Uuid::nil()).as_millis();
        assert_eq!([millis(0), millis(1), millis(5), millis(99)], [100, 200, 3_200, 3_600_000]);
        assert!(retries.pause(0, uuid::Uuid::max()).as_millis() < 110);
    }

    #[test]
    fn what_cannot_be_kept_is_said() {
        assert!(parse(json!({"limits": {"memory_mb": 5}})).expect("valid").unmet.is_none());
        assert!(parse(json!({"network": false, "runtime": "mcp"})).expect("valid").unmet.is_some());
        assert_eq!(parse(json!({"network": false})).expect("valid").program.network, Some(false));
        assert_eq!(parse(json!({})).expect("valid").program.network, None);
        assert!(parse(json!({"network": false, "runtime": "wasm"})).expect("valid").unmet.is_none());
        assert!(parse(json!({"limits": {"timeout_ms": 5}})).expect("valid").unmet.is_none());
    }
}
