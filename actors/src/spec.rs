//! What a definition's metadata says about running it. Metadata may hold anything; the keys read here have a
//! meaning, and a wrong type in one of them is an error that names it. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::execution::Runtime;
use crate::json;
use crate::schema::Schema;
use crate::template::Template;

/// How a definition runs.
#[derive(Debug)]
pub struct Spec {
    /// Named, or told by `protocol` or the source's ending; a definition may have none.
    pub runtime: Option<Runtime>,
    /// What the input must be, from `input_schema` or `api_spec.input`.
    pub input: Option<Schema>,
    /// What the output must be, from `output_schema` or `api_spec.output`.
    pub output: Option<Schema>,
    /// The program of a binary or script.
    pub program: ProgramSpec,
    /// The endpoint of an http or websocket function.
    pub api: ApiSpec,
    /// How stdout or the body becomes the output.
    pub mode: OutputMode,
    /// The bounds of one run.
    pub limits: Limits,
    /// May it run again when it was lost midway?
    pub idempotent: bool,
    /// How many may run at the same time.
    pub max_concurrency: Option<usize>,
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
}

impl Spec {
    /// Reads the metadata.
    ///
    /// # Errors
    /// `invalid`, with the place inside the metadata as `details.field`.
    pub fn parse(metadata: &Map<String, Value>) -> Result<Self> {
        let keys = Keys { object: metadata, prefix: "" };
        for plain in ["version", "type", "subtype", "protocol", "image"] {
            keys.text(plain)?;
        }
        keys.texts("command")?;
        keys.any_of("network", "a boolean or a string", |value| value.is_boolean() || value.is_string())?;
        let (input, output) = schemas(&keys)?;
        let program = ProgramSpec::parse(&keys)?;
        Ok(Self {
            runtime: runtime(
                &keys,
                program.source.as_ref().map(|source| program.entrypoint.as_ref().unwrap_or(source)),
            )?,
            input,
            output,
            program,
            api: ApiSpec::parse(&keys)?,
            mode: metadata.get("output").map_or(Ok(OutputMode::Json), OutputMode::parse)?,
            limits: Limits::parse(&keys)?,
            idempotent: keys.flag("idempotent")?.unwrap_or(false),
            max_concurrency: keys
                .count("max_concurrency")?
                .map(|max| usize::try_from(max).unwrap_or(usize::MAX)),
            unmet: unmet(&keys)?,
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
            mode: OutputMode::Json,
            limits: Limits::default(),
            idempotent: false,
            max_concurrency: None,
            unmet: Some(format!("its metadata cannot be run by this version: {error}")),
        }
    }

    /// The first field that a template wants and the input lacks, as a JSON pointer.
    pub fn missing_field(&self, input: &Value) -> Option<String> {
        let stdin = match &self.program.stdin {
            Stdin::Text(template) => Some(template),
            Stdin::Json | Stdin::None => None,
        };
        self.program.args.iter().chain(stdin).find_map(|template| template.missing(input))
    }
}

impl ProgramSpec {
    fn parse(keys: &Keys<'_>) -> Result<Self> {
        let entrypoint = keys.text("entrypoint")?.map(str::to_owned);
        let source = keys.text("source_url")?.map(str::to_owned);
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
        let args = keys.texts("args")?.iter().map(|text| Template::parse(text)).collect();
        Ok(Self { source, sha256, entrypoint, args, env, stdin, by_files })
    }
}

impl ApiSpec {
    fn parse(keys: &Keys<'_>) -> Result<Self> {
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
        Ok(Self { url, method, headers, unwrap: keys.flag("unwrap")?.unwrap_or(false) })
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
        for later in ["memory_mb", "cpu_ms", "processes", "files"] {
            limits.count(later)?;
        }
        Ok(Self {
            timeout: limits.count("timeout_ms")?.map(Duration::from_millis),
            output_bytes: limits.count("output_bytes")?,
        })
    }
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

/// Promises that nothing here keeps are not made: such a definition registers, and says why it does not run.
fn unmet(keys: &Keys<'_>) -> Result<Option<String>> {
    let secrets = !keys.texts("secrets")?.is_empty();
    if let Some(retries) = keys.inner("retries")? {
        retries.whole("max")?;
        retries.whole("backoff_ms")?;
    }
    let limits = keys.inner("limits")?;
    let limit = |name: &&str| limits.as_ref().is_some_and(|limits| limits.object.contains_key(*name));
    let limit = ["memory_mb", "cpu_ms", "processes", "files"].into_iter().find(limit);
    Ok(match limit {
        Some(name) => Some(format!(
            "`limits.{name}` cannot be enforced by this version, so the definition does not run"
        )),
        None if keys.object.get("network") == Some(&Value::Bool(false)) => {
            Some("`network: false` cannot be enforced by this version, so the definition does not run".into())
        }
        None if secrets => {
            Some("`secrets` cannot be given by this version, so the definition does not run".into())
        }
        None => None,
    })
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
            (json!({"stdin": 5}), "stdin"),
            (json!({"output": "xml"}), "output"),
            (json!({"output": {"a": "json", "b": "text"}}), "output"),
            (json!({"io": "pipes"}), "io"),
            (json!({"limits": {"timeout_ms": -1}}), "limits.timeout_ms"),
            (json!({"limits": {"memory_mb": "1"}}), "limits.memory_mb"),
            (json!({"retries": {"max": 1.5}}), "retries.max"),
            (json!({"max_concurrency": 0}), "max_concurrency"),
            (json!({"idempotent": "yes"}), "idempotent"),
            (json!({"sha256": "abc"}), "sha256"),
            (json!({"sha256": "0".repeat(64), "entrypoint": "sh"}), "sha256"),
            (json!({"entrypoint": "../bin/sh"}), "entrypoint"),
            (json!({"headers": {"a b": "c"}}), "headers"),
            (json!({"input_schema": {"type": "nonsense"}}), "input_schema"),
            (json!({"api_spec": {"input": {"a": {"type": "nonsense"}}}}), "api_spec.input.a"),
        ] {
            let error = parse(metadata.clone()).expect_err(&metadata.to_string());
            assert_eq!(error.details().expect("a place")["field"], place, "{metadata}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_kept_is_said() {
        assert!(parse(json!({"limits": {"memory_mb": 5}})).expect("valid").unmet.is_some());
        assert!(parse(json!({"secrets": ["token"]})).expect("valid").unmet.is_some());
        assert!(parse(json!({"network": false})).expect("valid").unmet.is_some());
        assert!(parse(json!({"limits": {"timeout_ms": 5}})).expect("valid").unmet.is_none());
    }
}
