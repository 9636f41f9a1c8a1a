//! What holds for every target: what an error has to be, and what is known of a JSON text.

use serde_json::Value;

use crate::error::{Code, Error};
use crate::json;

/// An error is one sentence on one line, says that the client sent something wrong, and its place is a name.
#[track_caller]
pub fn error(error: &Error) {
    let message = error.to_string();
    assert!(!message.is_empty(), "an error says something");
    assert!(!message.contains(['\n', '\r']), "an error is one line: {message:?}");
    assert!(matches!(error.code(), Code::Invalid | Code::Unprocessable), "{:?}: {message}", error.code());
    if let Some(details) = error.details() {
        assert!(details["field"].is_string(), "the place is a name: {details}");
    }
}

/// The same, of one that names a place.
#[track_caller]
pub fn error_with_place(error: &Error) {
    self::error(error);
    let field = error.details().and_then(|details| details["field"].as_str());
    assert!(field.is_some_and(|field| !field.is_empty()), "it names no field: {error}");
}

/// Reads JSON as the engine does, and sees that all that is said of the text agrees with what it means.
pub fn json(text: &str) -> Option<Value> {
    let value = match json::parse(text) {
        Ok(value) => value,
        Err(error) => {
            self::error(&error);
            return None;
        }
    };
    let short = json::compact(text);
    assert_eq!(json::parse(&short).as_ref(), Ok(&value), "the compact text means the same");
    assert_eq!(json::compact(&short), short, "the compact text is as short as it gets");
    let deep = depth(&value);
    assert_eq!(json::depth(text), deep, "the depth of the text is that of the value");
    assert!(deep <= json::MAX_DEPTH, "it is not too deep");
    // Later it is read again by the library alone, which must not see something else than was checked.
    assert_eq!(serde_json::from_str::<Value>(text).ok().as_ref(), Some(&value), "it means one thing");
    if let Value::Object(object) = &value {
        let members = json::members(text).expect("it is an object");
        let ordered = json::ordered_members(text).expect("it is an object");
        assert_eq!((members.len(), ordered.len()), (object.len(), object.len()), "all members are there");
        for (name, member) in &members {
            assert_eq!(json::parse(member.get()).as_ref(), Ok(&object[name]), "a member means what it did");
        }
    }
    Some(value)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
