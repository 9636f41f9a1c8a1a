//! What the service is told before it starts: the embedded `config/default.toml`, a file over it, the
//! environment over both.
//!
//! The default file is the schema as well: it says which keys exist and of what type they are, and no
//! default stands anywhere else. `layers` reads the layers and lays them over each other; `check` holds each
//! of them against the schema, and says what a value may be beyond its type. What holds between keys stands
//! here.

use std::collections::BTreeSet;
use std::env;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use actors::execution::Runtime;
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};

mod check;
mod layers;

use check::join;

const DEFAULT: &str = include_str!("../config/default.toml");
const DEFAULT_NAME: &str = "config/default.toml";
const FILE_VARIABLE: &str = "ORG_EXECUTOR_CONFIG";

/// The whole configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The REST API.
    pub rest: RestConfig,
    /// The WebSocket listener.
    pub websocket: WebSocketConfig,
    /// TLS on both ports.
    pub tls: TlsConfig,
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
    /// How long the header of a request may take, in milliseconds.
    pub header_timeout_ms: u64,
    /// How long the body of a request may take, in milliseconds.
    pub body_timeout_ms: u64,
    /// How long a connection may stay without a byte in either direction, in milliseconds.
    pub idle_timeout_ms: u64,
    /// Connections at one time.
    pub max_connections: usize,
    /// Connections of one address at one time.
    pub max_connections_per_address: usize,
    /// The networks whose addresses may have any number.
    #[serde(deserialize_with = "networks")]
    pub unlimited_addresses: Vec<IpNet>,
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
    /// Connections of one address at one time.
    pub max_connections_per_address: usize,
    /// The networks whose addresses may have any number.
    #[serde(deserialize_with = "networks")]
    pub unlimited_addresses: Vec<IpNet>,
    /// Requests that may be open on one `/session` connection; further ones are not read.
    pub window: usize,
    /// Names that `Host` may bear besides the loopback ones, without a port.
    pub allowed_hosts: Vec<String>,
    /// Foreign origins that may call, as `scheme://host` with a port where it is not the scheme's.
    pub allowed_origins: Vec<String>,
    /// What becomes of an execution whose client leaves before its end.
    pub on_disconnect: OnDisconnect,
}

/// What becomes of an execution whose client leaves before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// It goes on.
    Keep,
    /// It is cancelled.
    Cancel,
}

/// `[tls]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The file with the certificate and those that lead to its authority, as PEM; empty: no TLS.
    pub certificate: String,
    /// The file with its private key, as PEM.
    pub key: String,
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
    Config::from_table(merged(file)?)
}

/// The configuration, and what is in force as TOML without the comments. What a source is asked with may be a credential and is not shown.
///
/// # Errors
/// As for [`load`].
pub fn in_force(file: Option<&Path>) -> Result<(Config, String), ConfigError> {
    let mut table = merged(file)?;
    let config = Config::from_table(table.clone())?;
    let sources = table.get_mut("sources").and_then(toml::Value::as_array_mut);
    for source in sources.into_iter().flatten().filter_map(toml::Value::as_table_mut) {
        for (key, value) in source.iter_mut() {
            let may_be_secret = ["headers", "mcp_command"].contains(&key.as_str())
                || value.as_str().is_some_and(|text| text.contains(['@', '?']));
            if may_be_secret {
                *value = "(not shown)".into();
            }
        }
    }
    let secrets = table.get_mut("secrets").and_then(toml::Value::as_table_mut);
    for (_, secret) in secrets.into_iter().flatten() {
        if let Some(command) = secret.get_mut("command") {
            *command = "(not shown)".into();
        }
    }
    let shown = toml::to_string(&table);
    let shown = shown.map_err(|error| ConfigError(format!("the configuration cannot be shown: {error}")))?;
    Ok((config, shown))
}

fn merged(file: Option<&Path>) -> Result<Table, ConfigError> {
    let named = || env::var_os(FILE_VARIABLE).filter(|name| !name.is_empty());
    let path = file.map(Path::to_owned).or_else(|| named().map(PathBuf::from));
    let read = path.map(|path| match fs::read_to_string(&path) {
        Ok(text) => Ok((path.display().to_string(), text)),
        Err(error) => Err(ConfigError(format!("cannot read the configuration {}: {error}", path.display()))),
    });
    let read = read.transpose()?;
    let file = read.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
    layers::merge(DEFAULT, file, layers::variables()?.into_iter())
}

impl Config {
    /// Refuses an address beyond loopback, where no key is asked for.
    ///
    /// # Errors
    /// Such an address, unless `insecure`.
    pub fn check_exposure(&self, insecure: bool) -> Result<(), ConfigError> {
        for (key, bind) in [("rest.bind", self.rest.bind), ("websocket.bind", self.websocket.bind)] {
            if !insecure && !bind.ip().to_canonical().is_loopback() {
                return Err(ConfigError(format!(
                    "{key} = \"{bind}\" is not a loopback address, and there is no key: anyone who reaches the \
                     port could run tools; make a key with `org-executor key create --offline`, bind to \
                     127.0.0.1, or pass --insecure to accept that"
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
        let (tls, log) = (section(&mut table, "tls")?, section(&mut table, "log")?);
        let engine = table
            .try_into()
            .map_err(|error| ConfigError(format!("the configuration does not fit: {error}")))?;
        let config = Self { rest, websocket, tls, log, engine };
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
        if self.tls.certificate.is_empty() != self.tls.key.is_empty() {
            return Err(ConfigError(
                "of `tls.certificate` and `tls.key` one is set and the other is not".into(),
            ));
        }
        let instances = self.engine.wasm.max_instances;
        let pool = self.engine.pools.get(&Runtime::Wasm);
        if let Some(pool) = pool.filter(|pool| pool.max > instances as usize) {
            return Err(ConfigError(format!(
                "wasm.max_instances = {instances} is below pools.wasm.max = {}: an executor keeps its instance",
                pool.max
            )));
        }
        for (name, secret) in &self.engine.secrets {
            secret.users().map_err(|problem| ConfigError(format!("secrets.{name} {problem}")))?;
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

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let entries = Vec::<String>::deserialize(deserializer)?;
    let read = |text: String| {
        network(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no network")))
    };
    entries.into_iter().map(read).collect()
}

/// An address alone is the network that has nothing else.
fn network(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from)).ok()?;
    // One of IPv4 in the clothes of IPv6 is compared as what it is, and so would never match.
    (net.addr().to_canonical() == net.addr()).then_some(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn with(file: &str, env: &[(&str, &str)]) -> Result<Config, String> {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        layers::merge(DEFAULT, Some(("executor.toml", file)), env)
            .and_then(Config::from_table)
            .map_err(|error| error.to_string())
    }

    pub fn refusal(file: &str) -> String {
        with(file, &[]).expect_err(file)
    }

    pub fn refusal_of(variable: &str, value: &str) -> String {
        with("", &[(variable, value)]).expect_err(variable)
    }

    #[test]
    fn the_defaults_load_and_hold_to_their_own_rules() {
        let config = with(DEFAULT, &[]).expect("the defaults");
        assert_eq!(config.rest.bind.to_string(), "127.0.0.1:8000");
        assert_eq!(config.websocket.bind.to_string(), "127.0.0.1:8765");
        assert_eq!(config.rest.body_bytes, 4 << 20);
        assert_eq!(config.engine.pools.len(), 8);
        assert_eq!(config.engine.limits.max_output_bytes, 64 << 20);
        assert_eq!(config.log.format, LogFormat::Auto);
        assert!(config.check_exposure(false).is_ok());
    }

    #[test]
    fn keys_that_contradict_each_other_are_refused() {
        let url = "tool_url = 'https://a.example/{id}'";
        let twins = format!("sources = [{{ name = 'a', {url} }}, {{ name = 'a', {url} }}]");
        for (file, part) in [
            ("pools.binary.min = 9", "pools.binary.min = 9 is above pools.binary.max = 8"),
            ("limits.max_timeout_ms = 10", "limits.timeout_ms = 30000 is above limits.max_timeout_ms = 10"),
            ("websocket.idle_timeout_ms = 10000", "is not below"),
            ("wasm.max_instances = 1", "is below pools.wasm.max = 8"),
            ("websocket.bind = '0.0.0.0:8000'", "a port of its own"),
            (&twins, "two `sources`"),
            ("tls.key = 'k.pem'", "one is set and the other is not"),
        ] {
            let refusal = refusal(file);
            assert!(refusal.contains(part), "{file}: {refusal}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
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
