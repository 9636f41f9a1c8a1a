//! The layers of the configuration: read and laid over each other. Each is checked by itself, so that an
//! error can say where the wrong thing was written.

use std::env;

use toml::{Table, Value};

use super::{ConfigError, DEFAULT_NAME, check};

const VARIABLE_PREFIX: &str = "ORG_EXECUTOR__";

/// The environment's part that is ours.
pub fn variables() -> Result<Vec<(String, String)>, ConfigError> {
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
pub fn merge(
    default: &str,
    file: Option<(&str, &str)>,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Table, ConfigError> {
    let defaults = parse(DEFAULT_NAME, default)?;
    let mut merged = defaults.clone();
    let mut lay = |place: &str, layer: Table| {
        check::layer(&layer, &defaults, place)?;
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

#[cfg(test)]
mod tests {
    use crate::config::tests::{refusal, with};

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
    fn a_fault_of_syntax_is_told_by_file_and_line() {
        let refusal = refusal("# one\n[rest]\nbind = 127.0.0.1:8000\n");
        assert!(refusal.starts_with("executor.toml, line 3: "), "{refusal}");
    }
}
