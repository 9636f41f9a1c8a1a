//! Whether one layer of the configuration fits: its keys, their types, and what a value may be beyond its
//! type. What holds between keys shows only when all layers are merged, and is not here.

use std::ops::RangeInclusive;

use toml::{Table, Value};

use super::{ConfigError, address, network};
use crate::telemetry;

/// A day, in milliseconds: the longest pause or timeout outside `[limits]`.
const DAY: i64 = 86_400_000;

/// Holds one layer, which was written at `place`, against the keys and types of the default file.
///
/// # Errors
/// An unknown key or a wrong value.
pub fn layer(layer: &Table, defaults: &Table, place: &str) -> Result<(), ConfigError> {
    Check { defaults, place }.table("", layer, defaults)
}

/// What every part of a layer is checked with.
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
                    "auth.issuers" => issuer_entry().into(),
                    _ => Value::from(""),
                };
                let mut entries = entries.iter().enumerate();
                entries.try_for_each(|(index, entry)| self.value(&format!("{path}[{index}]"), entry, &like))
            }
            (Value::Table(given), Value::Table(_)) if path == "secrets" => self.secrets(given),
            (Value::Table(given), Value::Table(open)) if open.is_empty() => self.headers(path, given),
            (Value::Table(given), Value::Table(known)) => {
                self.table(path, given, known)?;
                self.issuer(path, given)?;
                self.source(path, given)
            }
            (Value::Integer(number), Value::Integer(_)) if range(path).contains(number) => Ok(()),
            (Value::Boolean(_), Value::Boolean(_)) => Ok(()),
            (Value::String(text), Value::String(_)) if string(path).1(text) => Ok(()),
            _ => Err(self.wrong(path, value, like)),
        }
    }

    fn issuer(&self, path: &str, given: &Table) -> Result<(), ConfigError> {
        let required = ["issuer", "audience", "keys"];
        match required.into_iter().find(|key| !given.contains_key(*key)) {
            Some(key) if path.starts_with("auth.issuers[") => {
                Err(ConfigError(format!("{path} in {} has no `{key}`", self.place)))
            }
            _ => Ok(()),
        }
    }

    fn source(&self, path: &str, given: &Table) -> Result<(), ConfigError> {
        let lacks = |what| ConfigError(format!("{path} in {} has no {what}", self.place));
        if !path.starts_with("sources[") {
            Ok(())
        } else if !given.contains_key("name") {
            Err(lacks("`name`"))
        } else if !SOURCE_PLACES.iter().any(|key| given.contains_key(*key)) {
            let places: Vec<String> = SOURCE_PLACES.iter().map(|key| format!("no `{key}`")).collect();
            Err(ConfigError(format!("{path} in {} has {}", self.place, places.join(", "))))
        } else {
            Ok(())
        }
    }

    /// Each has a name of its own, which a definition can name.
    fn secrets(&self, given: &Table) -> Result<(), ConfigError> {
        let like = secret_entry().into();
        given.iter().try_for_each(|(name, value)| {
            if !actors::spec::secrets::is_name(name) {
                let place = self.place;
                return Err(ConfigError(format!(
                    "secrets in {place}: {name:?} is no name of a letter, then letters, digits and `_`"
                )));
            }
            self.value(&join("secrets", name), value, &like)
        })
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
        let expected = expected(path, like);
        // What is said of a source may be a secret: a header, a token in an address. What is written in the place of a
        // secret may be one.
        let shown = match value {
            Value::Integer(_) | Value::Float(_) if path.starts_with("secrets") => {
                format!("({}, not shown)", value.type_str())
            }
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => value.to_string(),
            _ if path.starts_with("sources") || path.starts_with("secrets") => {
                format!("({}, not shown)", value.type_str())
            }
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

/// The full path of a key.
pub fn join(path: &str, key: &str) -> String {
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

/// Where a source is; it has one of these at least.
const SOURCE_PLACES: [&str; 5] = ["tool_url", "function_url", "openapi", "mcp_url", "mcp_command"];

/// The keys of one of `[[sources]]` and their types; an empty table may have any key.
fn source_entry() -> Table {
    toml::toml! {
        name = ""
        tool_url = ""
        function_url = ""
        openapi = ""
        base_url = ""
        mcp_url = ""
        mcp_command = []
        prefix = ""
        refresh_ms = 0
        headers = {}
        allow_private = false
        timeout_ms = 0
        max_bytes = 0
    }
}

/// The keys of one of `[secrets]`.
fn secret_entry() -> Table {
    toml::toml! {
        env = ""
        file = ""
        command = []
        definitions = []
        trim = true
        cache_ms = 0
    }
}

/// The keys of one of `[[auth.issuers]]`.
fn issuer_entry() -> Table {
    toml::toml! {
        issuer = ""
        audience = ""
        keys = ""
        scope_claim = ""
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
        Value::Array(_) if ["sources", "auth.issuers"].contains(&path) => {
            format!("a list of tables, one `[[{path}]]` each")
        }
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
        ("store", "memory_mb") => 128..=1 << 20,
        ("dispatcher", "grace_ms") | ("sources", "refresh_ms") => 0..=DAY,
        ("limits", "timeout_ms" | "max_timeout_ms") => 1..=7 * DAY,
        ("limits", "log_line_bytes") => 64..=1 << 20,
        ("limits", "files" | "max_files") => 16..=1 << 20,
        ("websocket", "window") => 1..=65_536,
        ("audit", "keep_days") => 0..=36_500,
        ("journal", "keep_count") => 1..=100_000_000,
        ("journal", "keep_output_mb") => 1..=100_000_000,
        (section, "cache_ms") if section.starts_with("secrets.") => 0..=DAY,
        (_, "min") => 0..=1_024,
        (_, "max") => 1..=1_024,
        ("wasm", "max_instances") => 1..=10_000,
        (_, key) if key.ends_with("_mb") => 1..=1 << 20,
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
        "rest.unlimited_addresses" | "websocket.unlimited_addresses" => {
            ("a network or an address such as \"10.0.0.0/8\" or \"127.0.0.1\"", |text| {
                network(text).is_some()
            })
        }
        "store.url" => ("\"surrealkv://FOLDER\" or \"mem://\"", is_store),
        "journal.durability" => ("\"journal\" or \"memory\"", |text| ["journal", "memory"].contains(&text)),
        "log.level" => (
            "a level (off, error, warn, info, debug, trace) or a filter such as \"info,actors=debug\"",
            telemetry::is_level,
        ),
        "log.format" => ("\"auto\", \"human\" or \"json\"", |text| ["auto", "human", "json"].contains(&text)),
        "websocket.on_disconnect" => ("\"keep\" or \"cancel\"", |text| ["keep", "cancel"].contains(&text)),
        "auth.required" => ("\"auto\" or \"always\"", |text| ["auto", "always"].contains(&text)),
        "auth.issuers.issuer"
        | "auth.issuers.audience"
        | "auth.issuers.keys"
        | "auth.issuers.scope_claim" => ("a string that is not empty", |text| !text.trim().is_empty()),
        "sandbox.level" => ("\"auto\", \"isolated\", \"limits\" or \"off\"", |text| {
            actors::settings::Level::named(text).is_some()
        }),
        "sandbox.readable" => {
            ("an absolute path such as \"/opt/tools\", outside /tmp, /dev and /proc", |text| {
                let path = std::path::Path::new(text);
                let is_taken =
                    ["/tmp", "/var/tmp", "/dev", "/proc"].iter().any(|taken| path.starts_with(taken));
                path.parent().is_some() && path.is_absolute() && !is_taken && !text.contains(char::is_control)
            })
        }
        "limits.containment" => {
            ("\"auto\", \"pid_namespace\", \"cgroup\", \"uid\" or \"subreaper\"", |text| {
                ["auto", "pid_namespace", "cgroup", "uid", "subreaper"].contains(&text)
            })
        }
        "containers.socket" => ("\"auto\", \"unix:///PATH\" or \"tcp://HOST:PORT\"", |text| {
            text == "auto" || text.starts_with("unix:///") || text.starts_with("tcp://")
        }),
        "python.interpreter" => ("a program such as \"python3\"", |text| !text.trim().is_empty()),
        "egress.allow" => (
            "a network, an address or a host such as \"10.0.0.0/8\", \"127.0.0.1:9000\" or \"models.internal\"",
            |text| text.parse::<actors::settings::Allowed>().is_ok(),
        ),
        "artifacts.roots" => ("a folder such as \"/srv/tools\"", |text| !text.is_empty()),
        "sources.name" => ("a name that is not empty", |text| !text.trim().is_empty()),
        "sources.tool_url" | "sources.function_url" => (
            "a string such as \"https://registry.example.org/tool/{id}\", with {id} behind the host",
            is_template,
        ),
        text if text.starts_with("secrets.") && text.ends_with(".env") => {
            ("the name of an environment variable besides PATH and HOME, which programs get", |text| {
                actors::spec::secrets::is_name(text) && !["PATH", "HOME"].contains(&text)
            })
        }
        text if text.starts_with("secrets.") && text.ends_with(".file") => {
            ("a file such as \"/run/secrets/token\"", |text| !text.is_empty())
        }
        text if text.starts_with("secrets.") && text.ends_with(".definitions") => {
            ("an id or a pattern such as \"deploy-*\"", |text| (1..=128).contains(&text.len()))
        }
        "sources.openapi" | "sources.base_url" | "sources.mcp_url" => {
            ("an address such as \"https://api.example.org/openapi.json\"", is_http)
        }
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
    // What stands behind a `?` would be read as settings of the engine.
    text == "mem://" || folder.is_some_and(|folder| !folder.trim().is_empty() && !folder.contains(['?', '#']))
}

fn is_http(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) && !text.contains(char::is_whitespace)
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
    use crate::config::default_text;
    use crate::config::tests::{refusal, refusal_of, with};

    /// The example at the end of the default file, without its comment signs.
    fn example() -> String {
        let (_, lines) = default_text().split_once("# [[sources]]\n").expect("there is an example");
        let lines = lines.lines().map(|line| line.strip_prefix("# ").unwrap_or(line));
        format!("[[sources]]\n{}", lines.collect::<Vec<_>>().join("\n"))
    }

    /// The comment that speaks for each key: directly above it, or above the group of its section.
    fn comments() -> BTreeMap<String, String> {
        let mut comments = BTreeMap::new();
        let (mut block, mut section, mut group) = (String::new(), String::new(), String::new());
        for line in default_text().lines() {
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
    fn every_key_is_documented_with_the_range_that_is_in_force() {
        let comments = comments();
        let table = default_text().parse::<Table>().expect("TOML");
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
        let table = text.parse::<Table>().expect("TOML");
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
    fn an_unknown_key_is_named_with_its_place_and_the_nearest_known_one() {
        for (file, sentence) in [
            ("[rest]\nbnd = 'x'", "unknown key `rest.bnd` in executor.toml; did you mean `rest.bind`?"),
            ("log_level = 'info'", "unknown key `log_level` in executor.toml; did you mean `log.level`?"),
            (
                "[pools.cobol]\nmax = 1",
                "unknown key `pools.cobol` in executor.toml; known there: `binary`, `container`, \
                 `http`, `mcp`, `python`, `script`, `wasm`, `websocket`",
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
                 `allowed_origins`, `bind`, `body_bytes`, `body_timeout_ms`, `header_timeout_ms`, `idle_timeout_ms`, \
                 `max_connections`, `max_connections_per_address`, `unlimited_addresses`",
            ),
            (
                "[store]\ncache_mb = '64'",
                "store.cache_mb = \"64\" in executor.toml: expected a whole number from 1 to 65536",
            ),
            (
                "[rest]\nunlimited_addresses = ['10.0.0.0/8', '::1', '::ffff:10.0.0.0/104']",
                "rest.unlimited_addresses[2] = \"::ffff:10.0.0.0/104\" in executor.toml: expected a network or an \
                 address such as \"10.0.0.0/8\" or \"127.0.0.1\"",
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
            ("store.url = 'rocksdb://x'", "\"surrealkv://FOLDER\""),
            ("store.url = 'surrealkv://'", "\"surrealkv://FOLDER\""),
            ("log.level = 'inof'", "expected a level"),
            ("log.format = 'xml'", "\"auto\", \"human\" or \"json\""),
            ("rest.allowed_hosts = ['a:1']", "rest.allowed_hosts[0]"),
            ("rest.allowed_origins = ['*']", "rest.allowed_origins[0]"),
            ("rest.allowed_origins = ['https://a/']", "without a path"),
            ("egress.allow = ['::1', '*.internal']", "egress.allow[1] = \"*.internal\" in executor.toml"),
            ("egress.allow = ['10.0.0.0/33']", "a network, an address or a host"),
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
            (
                "{ name = 'a' }".into(),
                "has no `tool_url`, no `function_url`, no `openapi`, no `mcp_url`, no `mcp_command`",
            ),
            ("{ name = 'a', tool_url = 'https://{id}.x/' }".into(), "behind the host"),
            ("{ name = 'a', openapi = 'petstore.json' }".into(), "an address such as"),
            (format!("{{ name = 'a', {url}, timeout_ms = 0 }}"), "timeout_ms = 0"),
            (format!("{{ name = 'a', {url}, headers = {{ 'x y' = '' }} }}"), "\"x y\""),
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
    fn a_secret_is_checked_and_what_stands_in_its_place_is_not_shown() {
        for (entry, part) in [
            (
                "a = { evn = 'X' }",
                "unknown key `secrets.a.evn` in executor.toml; did you mean `secrets.a.env`?",
            ),
            ("a = {}", "secrets.a has not one of `env`, `file` and `command`"),
            ("a = { env = 'X', file = '/x' }", "secrets.a has not one of"),
            ("a = { env = '' }", "secrets.a.env = (string, not shown)"),
            ("a = { env = 'PATH' }", "the name of an environment variable"),
            ("a = { file = '' }", "a file such as"),
            ("a = { command = 'pass show x' }", "secrets.a.command = (string, not shown)"),
            ("a = { env = 'X', definitions = [''] }", "secrets.a.definitions[0]"),
            ("a = { env = 'X', definitions = 'x' }", "a list, each entry an id or a pattern"),
            ("a = { env = 'X', cache_ms = -1 }", "a whole number from 0 to 86400000"),
            ("a = { env = 'X', trim = 'no' }", "true or false"),
            ("'a b' = { env = 'X' }", "\"a b\" is no name"),
        ] {
            let refusal = refusal(&format!("[secrets]\n{entry}"));
            assert!(refusal.contains(part), "{entry}: {refusal}");
        }
        for entry in [
            "a = 'SECRET'",
            "a = { env = ['SECRET'] }",
            "a = 51515151",
            "a = { file = 51515151 }",
            "a = { command = [1] }",
        ] {
            let refusal = refusal(&format!("[secrets]\n{entry}"));
            assert!(!refusal.contains("SECRET") && !refusal.contains("5151"), "{refusal}");
        }
        let good = "a = { env = 'X' }\nb = { file = '/x', trim = false, definitions = ['a', 'b-*'] }\n\
                    c = { command = ['pass', 'show', 'x'], cache_ms = 0 }";
        let secrets = with(&format!("[secrets]\n{good}"), &[]).expect("valid").engine.secrets;
        assert!(secrets["a"].trim && secrets["a"].definitions.is_empty() && secrets["a"].cache_ms == 60_000);
        assert!(!secrets["b"].trim && secrets["c"].cache_ms == 0);
        assert!(
            with("", &[("ORG_EXECUTOR__SECRETS__TOKEN__ENV", "X")])
                .expect("valid")
                .engine
                .secrets
                .contains_key("token")
        );
    }

    #[test]
    fn a_durability_is_one_of_two() {
        let refusal = refusal("journal.durability = 'disk'");
        assert!(refusal.contains("\"journal\" or \"memory\""), "{refusal}");
    }
}
