//! The secrets that a definition names, and where their values may stand. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{ApiSpec, Keys, ProgramSpec};
use crate::error::{Error, Result};
use crate::execution::Runtime;

/// How many secrets a definition may name.
const MAX_SECRETS: usize = 32;

/// What a place for a secret begins with, white space aside.
const PREFIX: &str = "secrets.";

/// Variables that a program has from others, and those that a shell has for itself and does not pass on.
const RESERVED: [&str; 13] = [
    "PATH",
    "HOME",
    "ENV",
    "ORG_EXECUTION",
    "ORG_DEFINITION",
    "TRACEPARENT",
    "_",
    "BASHOPTS",
    "BASH_VERSINFO",
    "EUID",
    "PPID",
    "SHELLOPTS",
    "UID",
];

/// By the name that the definition uses, which is that of the variable, the name that the configuration has. A list of
/// names is short for an object in which both are the same.
pub(super) fn parse(
    keys: &Keys<'_>,
    runtime: Option<Runtime>,
    program: &ProgramSpec,
    api: &ApiSpec,
) -> Result<BTreeMap<String, String>> {
    let secrets = named(keys)?;
    if secrets.len() > MAX_SECRETS {
        return Err(Error::invalid(format!("`secrets` has more than {MAX_SECRETS} names")).at("secrets"));
    }
    for (used, name) in &secrets {
        let place = format!("secrets.{used}");
        let wrong = |message: String| Error::invalid(message).at(&place);
        if let Some(odd) = [used, name].into_iter().find(|name| !is_name(name)) {
            return Err(wrong(format!(
                "`secrets`: {odd:?} is no name of a letter, then letters, digits and `_`"
            )));
        }
        if RESERVED.contains(&used.as_str()) || used.starts_with("LD_") {
            return Err(wrong(format!("`secrets`: the variable {used:?} is not for a definition to set")));
        }
        if program.env.contains_key(used) {
            return Err(wrong(format!("`secrets`: the variable {used:?} is in `env` too")));
        }
    }
    let calls = match runtime {
        Some(Runtime::Http | Runtime::Websocket) => true,
        Some(Runtime::Mcp) => api.url.is_some(),
        _ => false,
    };
    if calls {
        in_headers(&secrets, api)?
    } else {
        nowhere_else(keys, &secrets)?
    }
    Ok(secrets)
}

fn named(keys: &Keys<'_>) -> Result<BTreeMap<String, String>> {
    let read = |value: &Value| match value {
        Value::Array(names) => {
            names.iter().map(|name| Some((name.as_str()?.to_owned(), name.as_str()?.to_owned()))).collect()
        }
        Value::Object(pairs) => {
            pairs.iter().map(|(used, name)| Some((used.clone(), name.as_str()?.to_owned()))).collect()
        }
        _ => None,
    };
    Ok(keys.get("secrets", "a list of names or an object of names", read)?.unwrap_or_default())
}

/// What calls others gets its secrets in headers, and nowhere else: addresses are logged by those who are called.
fn in_headers(secrets: &BTreeMap<String, String>, api: &ApiSpec) -> Result<()> {
    if api.url.as_deref().is_some_and(is_mentioned) {
        let message =
            "a secret cannot stand in `url`, which others write into their logs; `headers` can have it";
        return Err(Error::invalid(message).at("url"));
    }
    let mut used = Vec::new();
    for (header, text) in &api.headers {
        let place = format!("headers.{header}");
        let pieces = pieces(text).ok_or_else(|| {
            let message = format!("`{place}`: a place for a secret is written `{{{{secrets.NAME}}}}`");
            Error::invalid(message).at(&place)
        })?;
        let names = pieces
            .into_iter()
            .filter_map(|piece| if let Piece::Secret(name) = piece { Some(name) } else { None });
        for name in names {
            if !secrets.contains_key(name) {
                let message = format!("`{place}` wants {name:?}, which is not among `secrets`");
                return Err(Error::invalid(message).at(&place));
            }
            if header.eq_ignore_ascii_case("content-type") {
                let message =
                    format!("`{place}`: the content type goes wherever the body goes, and holds no secret");
                return Err(Error::invalid(message).at(&place));
            }
            used.push(name);
        }
    }
    match secrets.keys().find(|name| !used.contains(&name.as_str())) {
        Some(name) => {
            let message = format!(
                "`secrets`: this runtime takes secrets in `headers` only, and none has `{{{{secrets.{name}}}}}`"
            );
            Err(Error::invalid(message).at(format!("secrets.{name}")))
        }
        None => Ok(()),
    }
}

/// What runs a program gets its secrets in the environment: arguments are seen by all of the machine.
fn nowhere_else(keys: &Keys<'_>, secrets: &BTreeMap<String, String>) -> Result<()> {
    let texts = |value: &Value| match value {
        Value::String(text) => is_mentioned(text),
        Value::Array(texts) => texts.iter().filter_map(Value::as_str).any(is_mentioned),
        Value::Object(texts) => texts.values().filter_map(Value::as_str).any(is_mentioned),
        _ => false,
    };
    let place = ["args", "command", "env", "stdin"]
        .into_iter()
        .find(|key| !secrets.is_empty() && keys.object.get(*key).is_some_and(texts));
    match place {
        Some(key) => {
            let message = format!("a secret cannot stand in `{key}`: the program has it in its environment");
            Err(Error::invalid(message).at(key))
        }
        None => Ok(()),
    }
}

/// Whether a text may stand as the name of a secret, and of a variable.
pub fn is_name(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.bytes().all(is_word)
        && text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
        && text.len() <= 128
}

/// The text with the values in their places; registration has seen to it that they are well written.
pub fn filled<'v>(text: &str, value: impl Fn(&str) -> &'v str) -> String {
    let pieces = pieces(text).unwrap_or_else(|| vec![Piece::Text(text)]);
    let filled = pieces.into_iter().map(|piece| match piece {
        Piece::Text(text) => text.to_owned(),
        Piece::Secret(name) => value(name).to_owned(),
    });
    filled.collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Piece<'t> {
    Text(&'t str),
    Secret(&'t str),
}

/// None where a place for a secret is not well written.
fn pieces(text: &str) -> Option<Vec<Piece<'_>>> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some(start) = place(rest) {
        let (inside, after) = rest[start + 2..].split_once("}}")?;
        let name = inside.trim().strip_prefix(PREFIX).filter(|name| is_name(name))?;
        pieces.extend([Piece::Text(&rest[..start]), Piece::Secret(name)]);
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    Some(pieces)
}

fn is_mentioned(text: &str) -> bool {
    place(text).is_some()
}

/// Where `{{secrets.` begins.
fn place(text: &str) -> Option<usize> {
    let mut braces = text.match_indices("{{").map(|(start, _)| start);
    braces.find(|start| text[start + 2..].trim_start().starts_with(PREFIX))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::spec::Spec;

    fn parse(metadata: Value) -> Result<Spec> {
        Spec::parse(metadata.as_object().expect("an object"))
    }

    #[test]
    fn names_are_a_list_or_an_object() {
        let secrets = |value: Value| {
            let spec = parse(json!({ "runtime": "binary", "secrets": value })).expect("valid");
            assert!(spec.unmet.is_none());
            spec.secrets.into_iter().collect::<Vec<_>>()
        };
        let pair = |used: &str, name: &str| (used.to_owned(), name.to_owned());
        assert_eq!(secrets(json!([])), []);
        assert_eq!(
            secrets(json!(["github_token", "B"])),
            [pair("B", "B"), pair("github_token", "github_token")]
        );
        assert_eq!(secrets(json!({ "GITHUB_TOKEN": "ci_token" })), [pair("GITHUB_TOKEN", "ci_token")]);
    }

    #[test]
    fn what_cannot_be_given_is_told_by_its_place() {
        let url = "https://a.example/";
        for (metadata, place) in [
            (json!({ "secrets": 5 }), "secrets"),
            (json!({ "secrets": "token" }), "secrets"),
            (json!({ "secrets": ["a", 1] }), "secrets"),
            (json!({ "secrets": { "A": 1 } }), "secrets"),
            (json!({ "secrets": [""] }), "secrets."),
            (json!({ "secrets": ["a-b"] }), "secrets.a-b"),
            (json!({ "secrets": ["1a"] }), "secrets.1a"),
            (json!({ "secrets": { "A": "b c" } }), "secrets.A"),
            (json!({ "secrets": { "A=": "b" } }), "secrets.A="),
            (json!({ "secrets": ["PATH"] }), "secrets.PATH"),
            (json!({ "secrets": { "ORG_EXECUTION": "a" } }), "secrets.ORG_EXECUTION"),
            (json!({ "secrets": ["ORG_DEFINITION"] }), "secrets.ORG_DEFINITION"),
            (json!({ "secrets": ["TRACEPARENT"] }), "secrets.TRACEPARENT"),
            (json!({ "secrets": { "LD_PRELOAD": "a" } }), "secrets.LD_PRELOAD"),
            (json!({ "secrets": ["A"], "env": { "A": "x" } }), "secrets.A"),
            (json!({ "secrets": (0..33).map(|n| format!("s{n}")).collect::<Vec<_>>() }), "secrets"),
            (json!({ "secrets": ["a"], "args": ["{{secrets.a}}"] }), "args"),
            (json!({ "secrets": ["a"], "stdin": "x{{ secrets.a }}" }), "stdin"),
            (json!({ "secrets": ["a"], "env": { "B": "{{secrets.a}}" } }), "env"),
            (json!({ "runtime": "http", "url": url, "secrets": ["a"] }), "secrets.a"),
            (
                json!({ "runtime": "http", "url": url, "headers": { "Content-Type": "a/b; x={{secrets.a}}" }, "secrets": ["a"] }),
                "headers.Content-Type",
            ),
            (json!({ "runtime": "websocket", "url": "wss://h/", "secrets": ["a"] }), "secrets.a"),
            (json!({ "runtime": "mcp", "url": url, "secrets": ["a"] }), "secrets.a"),
            (json!({ "runtime": "http", "url": "https://h/?t={{secrets.a}}", "secrets": ["a"] }), "url"),
            (json!({ "runtime": "http", "url": "https://h/?t={{ secrets.a }}" }), "url"),
            (
                json!({ "runtime": "http", "url": url, "headers": { "x": "{{secrets.b}}" }, "secrets": ["a"] }),
                "headers.x",
            ),
            (
                json!({ "runtime": "http", "url": url, "headers": { "x": "{{secrets.a" }, "secrets": ["a"] }),
                "headers.x",
            ),
            (
                json!({ "runtime": "http", "url": url, "headers": { "x": "{{secrets.a b}}" }, "secrets": ["a"] }),
                "headers.x",
            ),
            (
                json!({ "runtime": "http", "url": url, "headers": { "{{secrets.a}}": "x" }, "secrets": ["a"] }),
                "headers",
            ),
        ] {
            let error = parse(metadata.clone()).expect_err(&metadata.to_string());
            assert_eq!(error.details().expect("a place")["field"], place, "{metadata}: {error}");
        }
    }

    #[test]
    fn each_runtime_takes_them_in_its_way() {
        for runtime in ["binary", "script", "python", "container", "wasm", "mcp"] {
            assert!(parse(json!({ "runtime": runtime, "secrets": ["a"] })).is_ok(), "{runtime}");
        }
        for runtime in ["http", "websocket", "mcp"] {
            let headers = json!({ "authorization": "Bearer {{secrets.a}}" });
            let metadata =
                json!({ "runtime": runtime, "url": "https://h/", "headers": headers, "secrets": ["a"] });
            assert!(parse(metadata).is_ok(), "{runtime}");
        }
        // Without secrets a field of the input may be called so.
        assert!(parse(json!({ "runtime": "binary", "args": ["{{secrets.a}}"] })).is_ok());
    }

    #[test]
    fn values_take_their_places() {
        for (text, told) in [
            ("Bearer {{secrets.a}}", "Bearer <a>"),
            ("{{ secrets.a }}:{{secrets.b}}!", "<a>:<b>!"),
            ("{{secret.a}} {{a}} {{", "{{secret.a}} {{a}} {{"),
            ("{{secrets.a", "{{secrets.a"),
            ("", ""),
        ] {
            let value = |name: &str| if name == "a" { "<a>" } else { "<b>" };
            assert_eq!(filled(text, value), told, "{text}");
        }
    }
}
