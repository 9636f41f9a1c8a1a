//! What a client asks for: in the seed's words, and on a connection for many with a name of its own for each request.

use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::Door;
use crate::definition::Kind;
use crate::error::{Error, Result};
use crate::execution::Options;
use crate::json::{self, RawObject};

/// How long a client's name of a request may be, as JSON text.
const MAX_ID: usize = 256;

/// What a client asks for.
#[derive(Debug)]
pub enum Asked {
    /// To run this.
    Run(Request),
    /// To end that execution.
    Cancel(Uuid),
    /// To be told the outcome of that execution, which was begun elsewhere or before.
    Attach(Uuid),
}

/// What to run, with which input, and how.
#[derive(Debug)]
pub struct Request {
    /// Tool or function.
    pub kind: Kind,
    /// Its id, name or range.
    pub id: String,
    /// What overlays the definition's defaults.
    pub input: RawObject,
    /// How.
    pub options: Options,
}

/// Reads a request: the client's name for it, as JSON text, where it has one, and what it asks for.
pub fn parse(door: Door, text: &str) -> (Option<Arc<str>>, Result<Asked>) {
    if let Some((id, request)) = plain(door, text) {
        return (id, Ok(Asked::Run(request)));
    }
    let value = match json::parse(text) {
        Ok(value) => value,
        Err(error) => return (None, Err(error)),
    };
    match door {
        Door::Once(kind) => (None, Request::parse(kind, &value, text, &[]).map(Asked::Run)),
        Door::Many => match name(&value, text) {
            Ok(id) => (id, one_of_many(&value, text)),
            Err(error) => (None, Err(error)),
        },
    }
}

/// A request to run something, written as nearly all are: its text is gone through once, and what is inside of its input
/// is left to the definition, which reads that anyway. None where it has to be looked at more closely.
fn plain(door: Door, text: &str) -> Option<(Option<Arc<str>>, Request)> {
    let mut members = json::members(text).ok()?;
    (json::depth(text) <= json::MAX_DEPTH).then_some(())?;
    let (id, kind) = match door {
        Door::Once(kind) => (None, kind),
        Door::Many => {
            let id = members.remove("id")?;
            let id = id.get();
            let is_short_number = id.len() < 16 && id.bytes().all(|byte| byte.is_ascii_digit());
            if id.len() > MAX_ID || !(is_short_number || plain_text(id).is_some()) {
                return None;
            }
            let is_function = members.contains_key("function_id");
            (Some(id.into()), if is_function { Kind::Function } else { Kind::Tool })
        }
    };
    let named = members.remove(&kind.field("id"))?;
    let input = members.remove("input_data")?;
    let options = match members.remove("options") {
        Some(options) => Options::parse(&json::parse(options.get()).ok()?).ok()?,
        None => Options::default(),
    };
    let input = json::members(input.get()).ok()?;
    members.is_empty().then_some(())?;
    Some((id, Request { kind, id: plain_text(named.get())?.to_owned(), input, options }))
}

/// What is between the quotes of a text that has nothing to be unescaped.
fn plain_text(json: &str) -> Option<&str> {
    let text = json.strip_prefix('"')?.strip_suffix('"')?;
    text.bytes().all(|byte| byte >= b' ' && byte != b'\\').then_some(text)
}

/// The client's name of a request; a number as it is written.
fn name(value: &Value, text: &str) -> Result<Option<Arc<str>>> {
    let wrong = |problem: &str| Err(Error::invalid(format!("`id` is {problem}")).at("id"));
    let id = match value.get("id") {
        None => return Ok(None),
        Some(id @ Value::String(_)) => id.to_string(),
        Some(Value::Number(_)) => json::members(text)?["id"].get().to_owned(),
        Some(other) => return wrong(&format!("{}, not a string or a number", json::type_name(other))),
    };
    if id.len() > MAX_ID { wrong("longer than 256 bytes") } else { Ok(Some(id.into())) }
}

fn one_of_many(value: &Value, text: &str) -> Result<Asked> {
    for (field, asked) in [("cancel", Asked::Cancel as fn(Uuid) -> Asked), ("attach", Asked::Attach)] {
        let Some(uuid) = value.get(field) else { continue };
        let others = value.as_object().into_iter().flatten().map(|(name, _)| name);
        if let Some(other) = others.into_iter().find(|name| *name != field && *name != "id") {
            return Err(
                Error::invalid(format!("unknown field `{}` beside `{field}`", json::shown(other))).at(other)
            );
        }
        let uuid = uuid.as_str().and_then(|uuid| uuid.parse().ok());
        let wrong = || Error::invalid(format!("`{field}` is not the uuid of an execution")).at(field);
        return uuid.map(asked).ok_or_else(wrong);
    }
    if value.is_object() && value.get("id").is_none() {
        let message = "`id` is missing: each request on this connection has a name, which its frames bear";
        return Err(Error::invalid(message).at("id"));
    }
    let kind = if value.get("function_id").is_some() { Kind::Function } else { Kind::Tool };
    Request::parse(kind, value, text, &["id"]).map(Asked::Run)
}

impl Request {
    fn parse(kind: Kind, value: &Value, text: &str, more: &[&str]) -> Result<Self> {
        let Value::Object(object) = value else {
            return Err(Error::invalid(format!("the request is {}, not an object", json::type_name(value))));
        };
        let id_field = kind.field("id");
        for field in object.keys() {
            let is_known = *field == id_field || field == "input_data" || field == "options";
            if !is_known && !more.contains(&field.as_str()) {
                return Err(Error::invalid(format!("unknown field `{}`", json::shown(field))).at(field));
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
        let raw = json::members(text)?.remove("input_data").ok_or_else(super::failed)?;
        Ok(Self { kind, id, input: json::members(raw.get())?, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn once(text: &str) -> Result<Request> {
        match parse(Door::Once(Kind::Tool), text) {
            (None, Ok(Asked::Run(request))) => Ok(request),
            (None, Err(error)) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_keeps_the_text_of_its_input() {
        let text = r#"{"tool_id":"t","input_data":{"value": 18446744073709551615},"options":{"priority":1}}"#;
        let request = once(text).expect("valid");
        assert_eq!((request.id.as_str(), request.options.priority), ("t", 1));
        assert_eq!(request.input["value"].get(), "18446744073709551615");
    }

    #[test]
    fn a_request_means_the_same_however_it_is_written() {
        for (plain, other) in [
            (
                r#"{"id":7,"tool_id":"t","input_data":{"a":1}}"#,
                r#"{"id":7e0,"tool_id":"\u0074","input_data":{"a":1}}"#,
            ),
            (
                r#"{"id":"x","function_id":"é","input_data":{}}"#,
                r#" { "function_id" : "\u00e9" , "input_data" : { } , "id" : "\u0078" } "#,
            ),
        ] {
            let (id, request) = super::plain(Door::Many, plain).expect("it is plain");
            assert!(super::plain(Door::Many, other).is_none(), "{other}");
            let (other_id, asked) = parse(Door::Many, other);
            let Ok(Asked::Run(other)) = asked else { panic!("{asked:?}") };
            let number = |id: Option<Arc<str>>| id.and_then(|id| id.trim_matches('"').parse::<f64>().ok());
            assert!(id == other_id || number(id) == number(other_id));
            assert_eq!((request.kind, request.id), (other.kind, other.id));
            assert!(request.input.keys().eq(other.input.keys()));
        }
        for text in [
            r#"{"id":1,"tool_id":"t","input_data":{},"input_data":{}}"#,
            r#"{"id":1,"tool_id":"t","input_data":[]}"#,
            r#"{"id":1,"tool_id":7,"input_data":{}}"#,
            r#"{"id":1,"tool_id":"t","input_data":{},"options":{"priority":99}}"#,
            r#"{"id":-1,"tool_id":"t","input_data":{}}"#,
            r#"{"id":1,"tool_id":"t","function_id":"f","input_data":{}}"#,
            r#"{"id":1,"cancel":"x"}"#,
        ] {
            assert!(super::plain(Door::Many, text).is_none(), "{text}");
        }
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
            (r#"{"tool_id":"t","input_data":{},"id":1}"#, "unknown field `id`"),
            (r#"{"tool_id":"t","input_data":{},"a\nb":1}"#, "unknown field `a\u{fffd}b`"),
            (r#"{"tool_id":"t","input_data":{"a":1,"a":2}}"#, "stands twice"),
            ("[]", "the request is an array, not an object"),
            ("nonsense", "not valid JSON"),
        ] {
            let error = once(text).expect_err(text);
            assert!(error.to_string().contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn on_a_connection_for_many_each_request_has_a_name() {
        let (id, asked) = parse(Door::Many, r#"{"id":"a","function_id":"f","input_data":{}}"#);
        assert_eq!(id.as_deref(), Some(r#""a""#));
        assert!(matches!(asked, Ok(Asked::Run(Request { kind: Kind::Function, .. }))), "{asked:?}");
        let uuid = Uuid::from_u128(7);
        let (id, asked) = parse(Door::Many, &format!(r#"{{"id":3,"attach":"{uuid}"}}"#));
        assert!(matches!(asked, Ok(Asked::Attach(attached)) if attached == uuid), "{asked:?}");
        assert_eq!(id.as_deref(), Some("3"));
        for number in ["12345678901234567890123", "18446744073709551616", "1e2", "-0.50"] {
            let (id, asked) = parse(Door::Many, &format!(r#"{{"id":{number},"attach":"{uuid}"}}"#));
            assert!(asked.is_ok() && id.as_deref() == Some(number), "{number}: {id:?}");
        }
        let (id, asked) = parse(Door::Many, &format!(r#"{{"cancel":"{uuid}"}}"#));
        assert!(
            matches!(asked, Ok(Asked::Cancel(cancelled)) if cancelled == uuid) && id.is_none(),
            "{asked:?}"
        );
        for (text, message) in [
            (r#"{"tool_id":"t","input_data":{}}"#, "`id` is missing"),
            (r#"{"id":null,"tool_id":"t","input_data":{}}"#, "`id` is null"),
            (r#"{"id":1,"cancel":"x"}"#, "`cancel` is not the uuid"),
            (r#"{"id":1,"attach":7}"#, "`attach` is not the uuid"),
            (r#"{"id":1,"attach":"x","tool_id":"t"}"#, "unknown field `tool_id` beside `attach`"),
            (r#"{"id":1,"tool_id":"t"}"#, "Missing required fields for tool task"),
            (r#"{"id":1,"tool_id":"t","function_id":"f","input_data":{}}"#, "unknown field `tool_id`"),
        ] {
            let (_, asked) = parse(Door::Many, text);
            let error = asked.expect_err(text);
            assert!(error.to_string().contains(message), "{text}: {error}");
        }
    }
}
