//! A frame of a client: what parses is a request that says what the frame says, anything else a clear error.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use org_executor_fuzz::definition::Kind;
use org_executor_fuzz::execution::Options;
use org_executor_fuzz::session::Door;
use org_executor_fuzz::session::request::{Asked, Request, parse};
use org_executor_fuzz::{json, judge};
use serde_json::{Map, Value, json};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let value = judge::json(text);
    for door in [Door::Once(Kind::Tool), Door::Once(Kind::Function), Door::Many] {
        let (name, asked) = parse(door, text);
        check_name(door, name.as_deref(), value.as_ref());
        match (asked, &value) {
            (Err(error), _) => judge::error(&error),
            // What is inside of an input is checked where it is used.
            (Ok(Asked::Run(request)), None) if is_left(&request) => {}
            (Ok(_), None) => panic!("what is no JSON was read as a request"),
            (Ok(asked), Some(value)) => check(door, name, &asked, value),
        }
    }
});

fn is_left(request: &Request) -> bool {
    let input = serde_json::to_string(&request.input).expect("texts of JSON under their names");
    json::parse(&input).is_err()
}

/// A name is the one in the frame, and belongs to a connection for many.
fn check_name(door: Door, name: Option<&str>, value: Option<&Value>) {
    let Some(name) = name else { return };
    assert_eq!(door, Door::Many);
    assert!(name.len() <= 256, "a name is bounded");
    let name = json::parse(name).expect("a name is JSON");
    assert!(value.is_none_or(|value| value.get("id") == Some(&name)), "a name is the frame's");
}

/// It asks for what the frame says, and asks the same when it is written anew.
fn check(door: Door, name: Option<Arc<str>>, asked: &Asked, value: &Value) {
    let written = match asked {
        Asked::Run(request) => run(name.as_deref(), request, value),
        Asked::Cancel(uuid) => ended("cancel", *uuid, name.as_deref(), value),
        Asked::Attach(uuid) => ended("attach", *uuid, name.as_deref(), value),
    };
    let (name_again, again) = parse(door, &written);
    let meant = |name: Option<Arc<str>>| name.map(|name| json::parse(&name).expect("a name is JSON"));
    assert_eq!(meant(name_again), meant(name), "{written}");
    let again = again.unwrap_or_else(|error| panic!("{written}: {error}"));
    assert_eq!(shown(&again), shown(asked), "{written}");
}

fn ended(field: &str, uuid: impl ToString, name: Option<&str>, value: &Value) -> String {
    assert!(value[field].is_string());
    with_name(name, &mut Map::from_iter([(field.to_owned(), Value::from(uuid.to_string()))]))
}

fn run(name: Option<&str>, request: &Request, value: &Value) -> String {
    let id_field = request.kind.field("id");
    assert_eq!(value[&id_field], request.id);
    let input: Map<String, Value> = request
        .input
        .iter()
        .map(|(key, text)| (key.clone(), json::parse(text.get()).expect("it was checked with the frame")))
        .collect();
    assert_eq!(value["input_data"], Value::Object(input.clone()), "the input is the frame's");
    let options = &request.options;
    assert!(options.priority <= 9 && options.timeout.is_none_or(|timeout| !timeout.is_zero()));
    let mut told = json!({ "stream": options.stream, "priority": options.priority });
    if let Some(timeout) = options.timeout {
        told["timeout_ms"] = u64::try_from(timeout.as_millis()).expect("it came as one").into();
    }
    if let Some(key) = &options.idempotency_key {
        told["idempotency_key"] = (**key).into();
    }
    assert_eq!(Options::parse(&told).as_ref(), Ok(options));
    let mut frame = Map::from_iter([(id_field, request.id.clone().into()), ("options".into(), told)]);
    frame.insert("input_data".into(), input.into());
    with_name(name, &mut frame)
}

fn with_name(name: Option<&str>, frame: &mut Map<String, Value>) -> String {
    if let Some(name) = name {
        frame.insert("id".into(), json::parse(name).expect("a name is JSON"));
    }
    Value::Object(std::mem::take(frame)).to_string()
}

/// All that it asks for, but the spelling of the input.
fn shown(asked: &Asked) -> String {
    match asked {
        Asked::Run(Request { kind, id, input, options }) => {
            let input: Vec<_> = input.iter().map(|(key, text)| (key, json::parse(text.get()).ok())).collect();
            format!("{kind:?} {id:?} {options:?} {input:?}")
        }
        other => format!("{other:?}"),
    }
}
