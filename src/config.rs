//! What the service is told before it starts: the embedded `config/default.toml`, a file over it, the
//! environment over both.
//!
//! The default file is the schema as well: it says which keys exist and of what type they are, and no
//! default stands anywhere else. What a value may be beyond its type stands here. Each layer is checked by
//! itself, so that an error can say where the wrong thing was written.

use std::collections::BTreeSet;
use std::env;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};

use crate::telemetry;

const DEFAULT: &str = include_str!("../config/default.toml");
const DEFAULT_NAME: &str = "config/default.toml";
const FILE_VARIABLE: &str = "ORG_EXECUTOR_CONFIG";
const VARIABLE_PREFIX: &str = "ORG_EXECUTOR__";

/// A day, in milliseconds: the longest pause or timeout outside `[limits]`.
const DAY: i64 = 86_400_000;

/// The whole configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The REST API.
    pub rest: RestConfig,
    /// The WebSocket listener.
    pub websocket: WebSocketConfig,
    /// The service's own log.
    pub log: LogConfig,
    /// Everything else, which is the engine's.
    pub engine: actors::settings::Settings,
}

/// `[rest]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestConfig {
    /// Where to listen; port 0 takes a free one.
    #[serde(deserialize_with = "bind")]
    pub bind: SocketAddr,
    /// The largest request body, in bytes.
    pub body_bytes: usize,
    /// How long a connection may stay without a byte in either direction, in milliseconds.
    pub idle_timeout_ms: u64,
    /// Connections at one time.
    pub max_connections: usize,
    /// Names that `Host` may bear besides the loopback ones, without a port.
    pub allowed_hosts: Vec<String>,
    /// Foreign origins that may call, as `scheme://host` with a port where it is not the scheme's.
    pub allowed_origins: Vec<String>,
}

/// `[websocket]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebSocketConfig {
    /// Where to listen; port 0 takes a free one.
    #[serde(deserialize_with = "bind")]
    pub bind: SocketAddr,
    /// The largest message of a client, in bytes.
    pub message_bytes: usize,
    /// How long the opening handshake may take, in milliseconds.
    pub handshake_timeout_ms: u64,
    /// How long a connection may stay without its request, in milliseconds.
    pub request_timeout_ms: u64,
    /// After how many quiet milliseconds a ping is sent.
    pub ping_interval_ms: u64,
    /// After how many milliseconds without any byte a connection is given up.
    pub idle_timeout_ms: u64,
    /// Connections at one time.
    pub max_connections: usize,
    /// Names that `Host` may bear besides the loopback ones, without a port.
    pub allowed_hosts: Vec<String>,
    /// Foreign origins that may call, as `scheme://host` with a port where it is not the scheme's.
    pub allowed_origins: Vec<String>,
}

/// `[log]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// A level, or directives such as `info,actors=debug`.
    pub level: String,
    /// Who reads it.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// `Human` on a terminal, else `Json`.
    Auto,
    /// A line for a person.
    Human,
    /// One JSON object a line.
    Json,
}

/// Why the configuration cannot be used: a sentence that names the key, the value and the place.
#[derive(Debug)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Every key with its default and its meaning, as TOML.
pub fn default_text() -> &'static str {
    DEFAULT
}

/// Reads all layers. The file is `file`, else what `ORG_EXECUTOR_CONFIG` names, else there is none.
///
/// # Errors
/// The file cannot be read, or a layer has an unknown key or a wrong value.
pub fn load(file: Option<&Path>) -> Result<Config, ConfigError> {
    let named = || env::var_os(FILE_VARIABLE).filter(|name| !name.is_empty());
    let path = file.map(Path::to_owned).or_else(|| named().map(PathBuf::from));
    let read = path.map(|path| match fs::read_to_string(&path) {
        Ok(text) => Ok((path.display().to_string(), text)),
        Err(error) => Err(ConfigError(format!("cannot read the configuration {}: {error}", path.display()))),
    });
    let read = read.transpose()?;
    let file = read.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
    Config::from_table(layered(DEFAULT, file, variables()?.into_iter())?)
}

impl Config {
    /// Refuses an address beyond loopback, for as long as the ports ask for no key.
    ///
    /// # Errors
    /// Such an address, unless `insecure`.
    pub fn check_exposure(&self, insecure: bool) -> Result<(), ConfigError> {
        for (key, bind) in [("rest.bind", self.rest.bind), ("websocket.bind", self.websocket.bind)] {
            if !insecure && !bind.ip().to_canonical().is_loopback() {
                return Err(ConfigError(format!(
                    "{key} = \"{bind}\" is not a loopback address: anyone who reaches the port could \
                     run tools; bind to 127.0.0.1, or pass --insecure to accept that"
                )));
            }
        }
        Ok(())
    }

    /// Takes the merged layers apart and checks what holds between keys.
    fn from_table(mut table: Table) -> Result<Self, ConfigError> {
        check_order(&table)?;
        let rest = section(&mut table, "rest")?;
        let websocket = section(&mut table, "websocket")?;
        let log = section(&mut table, "log")?;
        let engine = table
            .try_into()
            .map_err(|error| ConfigError(format!("the configuration does not fit: {error}")))?;
        let config = Self { rest, websocket, log, engine };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let (rest, websocket) = (self.rest.bind, self.websocket.bind);
        let either_is_any = rest.ip().is_unspecified() || websocket.ip().is_unspecified();
        let same_ip = rest.ip() == websocket.ip() || either_is_any;
        if rest.port() != 0 && rest.port() == websocket.port() && same_ip {
            return Err(ConfigError(format!(
                "rest.bind = \"{rest}\" and websocket.bind = \"{websocket}\": each needs a port of its own"
            )));
        }
        let (ping, idle) = (self.websocket.ping_interval_ms, self.websocket.idle_timeout_ms);
        if ping >= idle {
            return Err(ConfigError(format!(
                "websocket.ping_interval_ms = {ping} is not below websocket.idle_timeout_ms = {idle}: \
                 a quiet client would be given up before it is asked"
            )));
        }
        let mut names = BTreeSet::new();
        for source in &self.engine.sources {
            if !names.insert(&source.name) {
                return Err(ConfigError(format!("two `sources` bear the name {:?}", source.name)));
            }
        }
        Ok(())
    }
}

fn section<T: DeserializeOwned>(table: &mut Table, name: &str) -> Result<T, ConfigError> {
    let section = table.remove(name).unwrap_or_else(|| Table::new().into());
    section.try_into().map_err(|error| ConfigError(format!("`{name}` does not fit: {error}")))
}

/// No default or lower bound is above its upper bound.
fn check_order(table: &Table) -> Result<(), ConfigError> {
    let table = |name: &str| table.get(name).and_then(Value::as_table);
    let limits = table("limits").map(|limits| ("limits".to_owned(), limits));
    let pools = table("pools").into_iter().flatten();
    let pools = pools.filter_map(|(name, pool)| Some((join("pools", name), pool.as_table()?)));
    for (section, table) in limits.into_iter().chain(pools) {
        for (low, high) in
            [("min", "max"), ("timeout_ms", "max_timeout_ms"), ("output_bytes", "max_output_bytes")]
        {
            let number = |key| table.get(key).and_then(Value::as_integer);
            if let (Some(below), Some(above)) = (number(low), number(high))
                && below > above
            {
                return Err(ConfigError(format!(
                    "{section}.{low} = {below} is above {section}.{high} = {above}"
                )));
            }
        }
    }
    Ok(())
}

fn bind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    address(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no address")))
}

/// `localhost` is 127.0.0.1; no other name is looked up.
fn address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}").parse().ok(),
        None => text.parse().ok(),
    }
}

/// The environment's part that is ours.
fn variables() -> Result<Vec<(String, String)>, ConfigError> {
    env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
        .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
        .map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(ConfigError(format!("{name} is not UTF-8"))),
        })
        .collect()
}

/// Lays the file (its name, its text) over the defaults and the environment over both, checking each.
fn layered(
    default: &str,
    file: Option<(&str, &str)>,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Table, ConfigError> {
    let defaults = parse(DEFAULT_NAME, default)?;
    let mut merged = defaults.clone();
    let mut lay = |place: &str, layer: Table| {
        let defaults = &defaults;
        Check { defaults, place }.table("", &layer, defaults)?;
        overlay(&mut merged, layer);
        Ok(())
    };
    if let Some((name, text)) = file {
        lay(name, parse(name, text)?)?;
    }
    let mut variables: Vec<_> = env.filter(|(name, _)| name.starts_with(VARIABLE_PREFIX)).collect();
    // A section's own variable comes before those of its keys, whatever order the system has.
    variables.sort();
    for (name, text) in variables {
        let place = format!("the environment variable {name}");
        lay(&place, from_variable(&name, &text, &defaults)?)?;
    }
    Ok(merged)
}

/// Parses a file. The error shows no line of it: there may be a secret in it.
fn parse(name: &str, text: &str) -> Result<Table, ConfigError> {
    text.parse().map_err(|error: toml::de::Error| {
        let end = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text.as_bytes()[..end].iter().filter(|byte| **byte == b'\n').count();
        ConfigError(format!("{name}, line {line}: {}", error.message()))
    })
}

/// The layer that one variable makes: `ORG_EXECUTOR__LOG__LEVEL=warn` is `log = { level = "warn" }`.
fn from_variable(name: &str, text: &str, defaults: &Table) -> Result<Table, ConfigError> {
    let path = name[VARIABLE_PREFIX.len()..].to_lowercase();
    let keys: Vec<&str> = path.split("__").collect();
    let (last, outer) = keys.split_last().unwrap_or((&"", &[]));
    let known = outer
        .iter()
        .try_fold(defaults, |table, key| table.get(*key)?.as_table())
        .and_then(|table| table.get(*last));
    let value = match (known, text.trim().parse::<Value>()) {
        // A string needs no quotes, also where it looks like something else; with quotes it may be.
        (Some(Value::String(_)), Ok(Value::String(value))) => Value::String(value),
        (Some(Value::String(_)), _) => text.into(),
        (Some(Value::Array(_) | Value::Table(_)), Err(error)) if text.contains(['[', '{']) => {
            return Err(ConfigError(format!("{name}: {}", error.message())));
        }
        (_, Ok(value)) => value,
        (_, Err(_)) => text.into(),
    };
    let innermost = Table::from_iter([((*last).to_owned(), value)]);
    Ok(outer.iter().rfold(innermost, |table, key| Table::from_iter([((*key).to_owned(), table.into())])))
}

/// Tables merge key by key; anything else is replaced.
fn overlay(base: &mut Table, layer: Table) {
    for (key, value) in layer {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(layer)) => overlay(base, layer),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Holds one layer against the keys and types of the default file.
struct Check<'a> {
    defaults: &'a Table,
    place: &'a str,
}

impl Check<'_> {
    fn table(&self, path: &str, given: &Table, known: &Table) -> Result<(), ConfigError> {
        given.iter().try_for_each(|(key, value)| {
            let like = known.get(key).ok_or_else(|| self.unknown(path, key, known));
            self.value(&join(path, key), value, like?)
        })
    }

    /// Checks `value` against one that has its type.
    fn value(&self, path: &str, value: &Value, like: &Value) -> Result<(), ConfigError> {
        match (value, like) {
            (Value::Array(entries), Value::Array(_)) => {
                let like = match path {
                    "sources" => source_entry().into(),
                    _ => Value::from(""),
                };
                let mut entries = entries.iter().enumerate();
                entries.try_for_each(|(index, entry)| self.value(&format!("{path}[{index}]"), entry, &like))
            }
            (Value::Table(given), Value::Table(open)) if open.is_empty() => self.headers(path, given),
            (Value::Table(given), Value::Table(known)) => {
                self.table(path, given, known)?;
                self.source(path, given)
            }
            (Value::Integer(number), Value::Integer(_)) if range(path).contains(number) => Ok(()),
            (Value::Boolean(_), Value::Boolean(_)) => Ok(()),
            (Value::String(text), Value::String(_)) if string(path).1(text) => Ok(()),
            _ => Err(self.wrong(path, value, like)),
        }
    }

    fn source(&self, path: &str, given: &Table) -> Result<(), ConfigError> {
        let lacks = |what| ConfigError(format!("{path} in {} has no {what}", self.place));
        if !path.starts_with("sources[") {
            Ok(())
        } else if !given.contains_key("name") {
            Err(lacks("`name`"))
        } else if !given.contains_key("tool_url") && !given.contains_key("function_url") {
            Err(lacks("`tool_url` and no `function_url`"))
        } else {
            Ok(())
        }
    }

    fn headers(&self, path: &str, given: &Table) -> Result<(), ConfigError> {
        given.iter().try_for_each(|(name, value)| {
            let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(token) {
                let place = self.place;
                return Err(ConfigError(format!(
                    "{path} in {place}: {name:?} cannot be the name of a header"
                )));
            }
            self.value(&join(path, name), value, &Value::from(""))
        })
    }

    fn wrong(&self, path: &str, value: &Value, like: &Value) -> ConfigError {
        let place = self.place;
        if path == "journal.durability" && value.as_str() == Some("journal") {
            return ConfigError(format!(
                "journal.durability = \"journal\" in {place}: the durable journal is not in this \
                 version; \"memory\" is what there is, and executions end with the process"
            ));
        }
        let expected = expected(path, like);
        // What is said of a source may be a secret: a header, a token in an address.
        let shown = match value {
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => value.to_string(),
            _ if path.starts_with("sources") => format!("({}, not shown)", value.type_str()),
            _ => shortened(&value.to_string()),
        };
        ConfigError(format!("{path} = {shown} in {place}: expected {expected}"))
    }

    fn unknown(&self, path: &str, key: &str, siblings: &Table) -> ConfigError {
        let likeness = strsim::normalized_damerau_levenshtein;
        let full = join(path, key);
        let near = siblings
            .keys()
            .map(|known| (join(path, known), likeness(key, known)))
            .filter(|(_, likeness)| *likeness >= 0.5);
        let far = paths("", self.defaults)
            .into_iter()
            .map(|known| (known.clone(), likeness(&full, &known)))
            .filter(|(_, likeness)| *likeness >= 0.75);
        let nearest = near.chain(far).max_by(|a, b| a.1.total_cmp(&b.1));
        let advice = nearest.map_or_else(
            || {
                let known: Vec<String> = siblings.keys().map(|key| format!("`{key}`")).collect();
                format!("known there: {}", known.join(", "))
            },
            |(nearest, _)| format!("did you mean `{nearest}`?"),
        );
        ConfigError(format!("unknown key `{full}` in {}; {advice}", self.place))
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// All keys, sections too, by their full paths.
fn paths(path: &str, table: &Table) -> Vec<String> {
    let mut all = Vec::new();
    for (key, value) in table {
        let path = join(path, key);
        if let Some(table) = value.as_table() {
            all.extend(paths(&path, table));
        }
        all.push(path);
    }
    all
}

/// The keys of one of `[[sources]]` and their types; an empty table may have any key.
fn source_entry() -> Table {
    toml::toml! {
        name = ""
        tool_url = ""
        function_url = ""
        headers = {}
        allow_private = false
        timeout_ms = 0
        max_bytes = 0
    }
}

/// The path without the positions in lists: `sources[0].name` is `sources.name`.
fn plain(path: &str) -> String {
    let keys: Vec<&str> = path.split('.').map(|key| key.split('[').next().unwrap_or(key)).collect();
    keys.join(".")
}

/// What a value at `path` must be, in words.
fn expected(path: &str, like: &Value) -> String {
    match like {
        Value::Integer(_) => {
            let (low, high) = range(path).into_inner();
            format!("a whole number from {low} to {high}")
        }
        Value::Boolean(_) => "true or false".into(),
        Value::Array(_) if path == "sources" => "a list of tables, one `[[sources]]` each".into(),
        Value::Array(_) => format!("a list, each entry {}", string(path).0),
        Value::Table(known) if !known.is_empty() => {
            let keys: Vec<String> = known.keys().map(|key| format!("`{key}`")).collect();
            format!("a table that may have {}", keys.join(", "))
        }
        Value::Table(_) => "a table of strings".into(),
        _ => string(path).0.into(),
    }
}

/// What a number may be. The upper ends keep a slip of the finger from exhausting the machine.
fn range(path: &str) -> RangeInclusive<i64> {
    let plain = plain(path);
    match plain.rsplit_once('.').unwrap_or(("", &plain)) {
        ("rest", "body_bytes") => 1_024..=256 << 20,
        ("websocket", "message_bytes") => 1_024..=16 << 20,
        ("store", "cache_mb") | ("dispatcher", "max_queued_mb") => 1..=65_536,
        ("dispatcher", "grace_ms") => 0..=DAY,
        ("limits", "timeout_ms" | "max_timeout_ms") => 1..=7 * DAY,
        ("limits", "log_line_bytes") => 64..=1 << 20,
        (_, "min") => 0..=1_024,
        (_, "max") => 1..=1_024,
        (_, key) if key.ends_with("_ms") => 1..=DAY,
        (_, key) if key.ends_with("_bytes") => 1..=1 << 30,
        _ => 1..=1_000_000,
    }
}

/// What a string must be, in words and as a test; of a list, each of its entries.
fn string(path: &str) -> (&'static str, fn(&str) -> bool) {
    match plain(path).as_str() {
        "rest.bind" => {
            ("a string such as \"127.0.0.1:8000\", an IP address or localhost with a port", |text| {
                address(text).is_some()
            })
        }
        "websocket.bind" => {
            ("a string such as \"127.0.0.1:8765\", an IP address or localhost with a port", |text| {
                address(text).is_some()
            })
        }
        "rest.allowed_hosts" | "websocket.allowed_hosts" => {
            ("a host without scheme, port and path, such as \"tools.example.org\"", is_host)
        }
        "rest.allowed_origins" | "websocket.allowed_origins" => {
            ("an origin without a path, such as \"https://console.example.org\"", is_origin)
        }
        "store.url" => ("\"surrealkv://FOLDER\" or \"mem://\"", is_store),
        "journal.durability" => ("\"memory\"", |text| text == "memory"),
        "log.level" => (
            "a level (off, error, warn, info, debug, trace) or a filter such as \"info,actors=debug\"",
            telemetry::is_level,
        ),
        "log.format" => ("\"auto\", \"human\" or \"json\"", |text| ["auto", "human", "json"].contains(&text)),
        "artifacts.roots" => ("a folder such as \"/srv/tools\"", |text| !text.is_empty()),
        "sources.name" => ("a name that is not empty", |text| !text.trim().is_empty()),
        "sources.tool_url" | "sources.function_url" => (
            "a string such as \"https://registry.example.org/tool/{id}\", with {id} behind the host",
            is_template,
        ),
        _ => ("a string without control characters", |text| !text.contains(char::is_control)),
    }
}

fn is_host(text: &str) -> bool {
    let v6 = text.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
    match v6 {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
            !text.is_empty() && text.chars().all(allowed)
        }
    }
}

fn is_origin(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, authority)| {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        !scheme.is_empty() && is_host(host) && port.is_none_or(|port| port.parse::<u16>().is_ok())
    })
}

fn is_store(text: &str) -> bool {
    let folder = text.strip_prefix("surrealkv://");
    text == "mem://" || folder.is_some_and(|folder| !folder.trim().is_empty())
}

/// The id must not choose the host, so it stands behind the first slash.
fn is_template(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let parts = rest.and_then(|rest| rest.split_once(['/', '?']));
    parts.is_some_and(|(host, path)| !host.is_empty() && !host.contains('{') && path.contains("{id}"))
        && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn with(file: &str, env: &[(&str, &str)]) -> Result<Config, String> {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        layered(DEFAULT, Some(("executor.toml", file)), env)
            .and_then(Config::from_table)
            .map_err(|error| error.to_string())
    }

    fn refusal(file: &str) -> String {
        with(file, &[]).expect_err(file)
    }

    fn refusal_of(variable: &str, value: &str) -> String {
        with("", &[(variable, value)]).expect_err(variable)
    }

    /// The example at the end of the default file, without its comment signs.
    fn example() -> String {
        let (_, lines) = DEFAULT.split_once("# [[sources]]\n").expect("there is an example");
        let lines = lines.lines().map(|line| line.strip_prefix("# ").unwrap_or(line));
        format!("[[sources]]\n{}", lines.collect::<Vec<_>>().join("\n"))
    }

    /// The comment that speaks for each key: directly above it, or above the group of its section.
    fn comments() -> BTreeMap<String, String> {
        let mut comments = BTreeMap::new();
        let (mut block, mut section, mut group) = (String::new(), String::new(), String::new());
        for line in DEFAULT.lines() {
            if line.starts_with('#') {
                block = block + "\n" + line.trim_start_matches('#');
            } else if let Some(name) = line.strip_prefix('[') {
                let name = name.trim_end_matches(']').to_owned();
                let same_group = name.split('.').next() == section.split('.').next();
                group = if same_group { group + &block } else { std::mem::take(&mut block) };
                (section, block) = (name, String::new());
            } else if let Some((key, _)) = line.split_once(" = ") {
                // In a group the key's own lines begin with its name.
                let shared = group.split_once(&format!("\n `{key}` ")).map(|(_, text)| {
                    let (lines, _) = text.split_once("\n `").unwrap_or((text, ""));
                    lines.to_owned()
                });
                let own = std::mem::take(&mut block);
                let comment = if own.is_empty() { shared.unwrap_or_default() } else { own };
                comments.insert(join(&section, key), comment);
            } else {
                block.clear();
            }
        }
        comments
    }

    fn leaves(path: &str, table: &Table) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::new();
        for (key, value) in table {
            match value {
                Value::Table(inner) => all.extend(leaves(&join(path, key), inner)),
                value => drop(all.insert(join(path, key), value.clone())),
            }
        }
        all
    }

    #[test]
    fn the_defaults_load_and_hold_to_their_own_rules() {
        let config = with(DEFAULT, &[]).expect("the defaults");
        assert_eq!(config.rest.bind.to_string(), "127.0.0.1:8000");
        assert_eq!(config.websocket.bind.to_string(), "127.0.0.1:8765");
        assert_eq!(config.rest.body_bytes, 4 << 20);
        assert_eq!(config.engine.pools.len(), 4);
        assert_eq!(config.engine.limits.max_output_bytes, 64 << 20);
        assert_eq!(config.log.format, LogFormat::Auto);
        assert!(config.check_exposure(false).is_ok());
    }

    #[test]
    fn every_key_is_documented_with_the_range_that_is_in_force() {
        let comments = comments();
        let table = parse(DEFAULT_NAME, default_text()).expect("TOML");
        for (path, value) in leaves("", &table) {
            let comment = comments.get(&path).map(|comment| comment.trim());
            assert!(comment.is_some_and(|comment| !comment.is_empty()), "no comment for {path}");
            if value.is_integer() {
                let (low, high) = range(&path).into_inner();
                let documented = comment
                    .is_some_and(|text| text.replace("\n", "").contains(&format!(" {low} to {high}.")));
                assert!(documented, "{path} is {low} to {high}: {comment:?}");
            }
        }
    }

    #[test]
    fn the_example_of_a_source_is_complete_and_its_defaults_are_the_ones_in_force() {
        let text = example();
        let table = parse("example", &text).expect("TOML");
        let entry = table["sources"][0].as_table().expect("a table");
        let keys = |table: &Table| table.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(entry), keys(&source_entry()));
        let full = with(&text, &[]).expect("valid").engine.sources.remove(0);
        let short = "[[sources]]\nname = 'a'\ntool_url = 'https://a.example/{id}'";
        let short = with(short, &[]).expect("valid").engine.sources.remove(0);
        assert_eq!(
            (full.timeout_ms, full.max_bytes, full.allow_private),
            (short.timeout_ms, short.max_bytes, short.allow_private)
        );
        for (key, value) in entry.iter().filter(|(_, value)| value.is_integer()) {
            let (low, high) = range(&join("sources", key)).into_inner();
            assert!(
                text.contains(&format!(" {low} to {high}.\n{key} = {value}")),
                "{key} is {low} to {high}"
            );
        }
    }

    #[test]
    fn the_file_lies_over_the_defaults_and_the_environment_over_both() {
        let file = "[rest]\nbind = 'localhost:1'\nbody_bytes = 2048\n[pools.binary]\nmax = 2";
        let config = with(
            file,
            &[
                ("ORG_EXECUTOR__POOLS__BINARY__MAX", "4"),
                ("ORG_EXECUTOR__REST__BODY_BYTES", "4_096"),
                ("ORG_EXECUTOR__WEBSOCKET__BIND", "[::1]:2"),
                ("ORG_EXECUTOR__STORE", "{ url = 'mem://', cache_mb = 1 }"),
                ("ORG_EXECUTOR__STORE__CACHE_MB", "2"),
                ("ORG_EXECUTOR__REST__ALLOWED_HOSTS", "['a.example']"),
                ("ORG_EXECUTOR__LOG__LEVEL", "\"warn\""),
                ("ORG_EXECUTOR__SOURCES", "[{ name = 'a', function_url = 'http://b/{id}' }]"),
                ("ORG_EXECUTOR_CONFIG", "not a key"),
                ("PATH", "/bin"),
            ],
        )
        .expect("valid");
        assert_eq!(config.rest.bind.to_string(), "127.0.0.1:1");
        assert_eq!(config.rest.body_bytes, 4_096);
        assert_eq!(config.websocket.bind.to_string(), "[::1]:2");
        assert_eq!(config.rest.allowed_hosts, ["a.example"]);
        assert_eq!(config.log.level, "warn");
        assert_eq!(config.engine.store.url, "mem://");
        assert_eq!(config.engine.store.cache_mb, 2);
        assert_eq!(config.engine.sources[0].name, "a");
        let mut pools = config.engine.pools.values().map(|pool| (pool.min, pool.max));
        assert!(pools.any(|sizes| sizes == (1, 4)));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place_and_the_nearest_known_one() {
        for (file, sentence) in [
            ("[rest]\nbnd = 'x'", "unknown key `rest.bnd` in executor.toml; did you mean `rest.bind`?"),
            ("log_level = 'info'", "unknown key `log_level` in executor.toml; did you mean `log.level`?"),
            (
                "[pools.python]\nmax = 1",
                "unknown key `pools.python` in executor.toml; \
                 known there: `binary`, `http`, `script`, `websocket`",
            ),
            (
                "[[sources]]\ntool_ulr = 'x'",
                "unknown key `sources[0].tool_ulr` in executor.toml; \
                 did you mean `sources[0].tool_url`?",
            ),
        ] {
            assert_eq!(refusal(file), sentence);
        }
        assert_eq!(
            refusal_of("ORG_EXECUTOR__POOLS__BINARY__MAXIMUM", "4"),
            "unknown key `pools.binary.maximum` in the environment variable \
             ORG_EXECUTOR__POOLS__BINARY__MAXIMUM; did you mean `pools.binary.max`?"
        );
        for odd in ["ORG_EXECUTOR__", "ORG_EXECUTOR____BIND", "ORG_EXECUTOR__X"] {
            assert!(refusal_of(odd, "1").starts_with("unknown key"), "{odd}");
        }
    }

    #[test]
    fn a_wrong_type_is_named_with_what_is_expected() {
        for (file, sentence) in [
            (
                "[rest]\nbind = 5",
                "rest.bind = 5 in executor.toml: expected a string such as \"127.0.0.1:8000\", \
                 an IP address or localhost with a port",
            ),
            (
                "rest = 5",
                "rest = 5 in executor.toml: expected a table that may have `allowed_hosts`, \
                 `allowed_origins`, `bind`, `body_bytes`, `idle_timeout_ms`, `max_connections`",
            ),
            (
                "[store]\ncache_mb = '64'",
                "store.cache_mb = \"64\" in executor.toml: expected a whole number from 1 to 65536",
            ),
            (
                "[artifacts]\nroots = ['/a', 1]",
                "artifacts.roots[1] = 1 in executor.toml: expected a folder such as \"/srv/tools\"",
            ),
            (
                "[sources]\nname = 'a'",
                "sources = (table, not shown) in executor.toml: \
                 expected a list of tables, one `[[sources]]` each",
            ),
        ] {
            assert_eq!(refusal(file), sentence);
        }
        assert_eq!(
            refusal_of("ORG_EXECUTOR__LIMITS__TIMEOUT_MS", "30s"),
            "limits.timeout_ms = \"30s\" in the environment variable \
             ORG_EXECUTOR__LIMITS__TIMEOUT_MS: expected a whole number from 1 to 604800000"
        );
    }

    #[test]
    fn a_value_out_of_its_bounds_is_refused() {
        for (file, part) in [
            ("rest.bind = '127.0.0.1'", "expected a string such as"),
            ("rest.bind = 'localhost:65536'", "expected a string such as"),
            ("websocket.message_bytes = 1023", "from 1024 to 16777216"),
            ("websocket.request_timeout_ms = 0", "from 1 to 86400000"),
            ("pools.binary.max = 0", "from 1 to 1024"),
            ("pools.binary.min = -1", "from 0 to 1024"),
            ("pools.binary.min = 9", "pools.binary.min = 9 is above pools.binary.max = 8"),
            ("limits.max_timeout_ms = 10", "limits.timeout_ms = 30000 is above limits.max_timeout_ms = 10"),
            ("websocket.idle_timeout_ms = 20000", "is not below"),
            ("websocket.bind = '0.0.0.0:8000'", "a port of its own"),
            ("store.url = 'rocksdb://x'", "\"surrealkv://FOLDER\""),
            ("store.url = 'surrealkv://'", "\"surrealkv://FOLDER\""),
            ("log.level = 'inof'", "expected a level"),
            ("log.format = 'xml'", "\"auto\", \"human\" or \"json\""),
            ("rest.allowed_hosts = ['a:1']", "rest.allowed_hosts[0]"),
            ("rest.allowed_origins = ['*']", "rest.allowed_origins[0]"),
            ("rest.allowed_origins = ['https://a/']", "without a path"),
        ] {
            let refusal = refusal(file);
            assert!(refusal.contains(part), "{file}: {refusal}");
        }
        let good = "rest.allowed_origins = ['http://a:1', 'https://[::1]', 'https://b']\n\
                    rest.allowed_hosts = ['[::1]', 'a.b']\nwebsocket.bind = '127.0.0.1:0'";
        assert!(with(good, &[]).is_ok());
    }

    #[test]
    fn a_source_is_checked_and_its_secrets_are_not_shown() {
        let url = "tool_url = 'https://a.example/{id}'";
        for (entry, part) in [
            (format!("{{ {url} }}"), "sources[0] in executor.toml has no `name`"),
            ("{ name = 'a' }".into(), "no `tool_url` and no `function_url`"),
            ("{ name = 'a', tool_url = 'https://{id}.x/' }".into(), "behind the host"),
            (format!("{{ name = 'a', {url}, timeout_ms = 0 }}"), "timeout_ms = 0"),
            (format!("{{ name = 'a', {url}, headers = {{ 'x y' = '' }} }}"), "\"x y\""),
            (format!("{{ name = 'a', {url} }}, {{ name = 'a', {url} }}"), "two `sources`"),
        ] {
            let refusal = refusal(&format!("sources = [{entry}]"));
            assert!(refusal.contains(part), "{entry}: {refusal}");
        }
        for list in [
            "{ name = 'a', headers = { authorization = 'SECRET\\u0000' } }",
            "{ name = 'a', headers = { authorization = ['SECRET'] } }",
            "{ name = 'a', headers = 'SECRET' }",
            "'SECRET'",
            "{ name = 'SECRET ",
        ] {
            for list in [list.to_owned(), list.replace('\'', "\"")] {
                let sources = format!("[{list}]");
                let refusals =
                    [refusal(&format!("sources = {sources}")), refusal_of("ORG_EXECUTOR__SOURCES", &sources)];
                for refusal in refusals {
                    assert!(!refusal.contains("SECRET"), "{refusal}");
                    assert!(refusal.len() > 20, "{refusal}");
                }
            }
        }
    }

    #[test]
    fn the_durable_journal_is_refused_as_not_yet_there() {
        let refusal = refusal("journal.durability = 'journal'");
        assert!(refusal.contains("not in this version"), "{refusal}");
        assert!(refusal.contains("\"memory\" is what there is"), "{refusal}");
    }

    #[test]
    fn a_fault_of_syntax_is_told_by_file_and_line() {
        let refusal = refusal("# one\n[rest]\nbind = 127.0.0.1:8000\n");
        assert!(refusal.starts_with("executor.toml, line 3: "), "{refusal}");
        let missing = load(Some(Path::new("no/such.toml"))).expect_err("no such file");
        assert!(missing.to_string().contains("no/such.toml"), "{missing}");
    }

    #[test]
    fn an_address_beyond_loopback_needs_insecure() {
        for key in ["rest", "websocket"] {
            for open in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[::ffff:192.0.2.1]:1"] {
                let config = with(&format!("{key}.bind = '{open}'"), &[]).expect("valid");
                assert!(config.check_exposure(true).is_ok());
                let refusal = config.check_exposure(false).expect_err(open).to_string();
                assert!(refusal.contains(&format!("{key}.bind")), "{refusal}");
                assert!(refusal.contains("--insecure"), "{refusal}");
            }
            for closed in ["127.8.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "localhost:1"] {
                let config = with(&format!("{key}.bind = '{closed}'"), &[]).expect("valid");
                assert!(config.check_exposure(false).is_ok(), "{closed}");
            }
        }
    }
}
