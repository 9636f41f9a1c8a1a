//! What filters match, in tables: examples of what MongoDB's manual says of each operator. The files below have those of
//! one operator or one matter each, here is how they are read, and what is our own.

use serde_json::json;

use super::*;

mod all;
mod arrays;
mod comparison;
mod elements;
mod equality;
mod logic;
mod membership;
mod missing;
mod paths;
mod patterns;
mod sizes;
mod types;

/// A line of the table: a path below the metadata, what is asked of it, the metadata, whether they match.
#[track_caller]
pub fn check(table: &str) {
    agree(lines(table).map(|[path, condition, metadata, expected]| {
        (json!({ format!("tool_metadata.{path}"): read(condition) }), metadata, expected)
    }));
}

/// A line of the table: a filter whose fields begin with `@` for the metadata, the metadata, whether they match.
#[track_caller]
pub fn check_filters(table: &str) {
    agree(lines(table).map(|[filter, metadata, expected]| (on_metadata(filter), metadata, expected)));
}

/// The same for one filter. A line of the table: the metadata, whether they match.
#[track_caller]
pub fn check_filter(filter: &str, table: &str) {
    agree(lines(table).map(|[metadata, expected]| (on_metadata(filter), metadata, expected)));
}

fn on_metadata(filter: &str) -> Value {
    read(&filter.replace("\"@", "\"tool_metadata."))
}

/// All lines that are wrong are told at once.
#[track_caller]
fn agree<'a>(examples: impl Iterator<Item = (Value, &'a str, &'a str)>) {
    let wrong = examples.filter(|(body, metadata, expected)| {
        let document = json!({ "tool_id": "t", "tool_metadata": read(metadata) });
        tool(body).matches(&document) != is_yes(expected)
    });
    let wrong: Vec<_> =
        wrong.map(|(body, metadata, expected)| format!("{body} on {metadata} is not {expected}")).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

pub fn is_yes(answer: &str) -> bool {
    match answer {
        "yes" => true,
        "no" => false,
        other => panic!("`{other}` is neither yes nor no"),
    }
}

/// The columns of each line of a table.
pub fn lines<const N: usize>(table: &str) -> impl Iterator<Item = [&str; N]> {
    let lines = table.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| {
        let columns: Vec<_> = line.split(" | ").map(str::trim).collect();
        columns.try_into().expect(line)
    })
}

pub fn read(text: &str) -> Value {
    serde_json::from_str(text).expect(text)
}

pub fn tool(body: &Value) -> Filter {
    Filter::parse(Kind::Tool, body).unwrap_or_else(|error| panic!("{body}: {error}"))
}

#[test]
fn conditions_combine() {
    let document = json!({
        "tool_id": "gawk",
        "tool_search_tags": ["text", "awk"],
        "tool_metadata": {"n": 2},
        "tool_description": "a \u{1f600} tool",
        "tool_default_params": {"value": 1},
    });
    let table = r##"
        {} | yes
        {"tool_id": "gawk", "tool_metadata.n": 2} | yes
        {"tool_id": "gawk", "tool_metadata.n": 3} | no
        {"tool_tags": "awk"} | yes
        {"tool_tags": "awk", "tool_search_tags": "text"} | yes
        {"tool_tags.0": "awk"} | no
        {"tool_metadata": {"n": 2}} | yes
        {"tool_description": {"$gt": "a"}, "tool_default_params.value": 1} | yes
        {"$and": [{"tool_tags": "awk"}, {"tool_id": {"$ne": "awk"}}]} | yes
        {"$and": [{"tool_tags": "awk"}, {"tool_id": "awk"}]} | no
        {"$or": [{"tool_id": "a"}, {"tool_metadata.n": {"$lt": 3}}]} | yes
        {"$or": [{"tool_id": "a"}, {"tool_id": "b"}]} | no
        {"$or": [{"tool_id": "gawk"}], "tool_metadata.n": 3} | no
        {"$or": [{"$and": [{}, {"$or": [{"tool_id": "gawk"}]}]}]} | yes
    "##;
    for [body, expected] in lines(table) {
        let filter = tool(&read(body));
        assert_eq!(filter.matches(&document), is_yes(expected), "{body}");
    }
}

#[test]
fn a_maze_of_arrays_is_walked_once() {
    let maze = (0..60).fold(json!(1), |inner, _| json!([{ "0": inner }]));
    let document = json!({ "tool_metadata": maze });
    let key = format!("tool_metadata{}", ".0".repeat(31));
    let path = parse::path(Kind::Tool, &key).expect("31 places are in bounds");
    let mut found = 0;
    path.any((&document, false), |_| {
        found += 1;
        false
    });
    assert!(found < 100, "{found}");
}

#[test]
fn functions_have_fields_of_their_own() {
    let body = json!({"function_tags": "math", "function_id": "add:v1.0.0"});
    let filter = Filter::parse(Kind::Function, &body).expect("both are fields of a function");
    let document = json!({"function_id": "add:v1.0.0", "function_search_tags": ["math"]});
    assert!(filter.matches(&document));
    assert_eq!(filter.plan().tags, [["math"]]);
    assert!(Filter::parse(Kind::Function, &json!({"tool_id": "x"})).is_err());
}
