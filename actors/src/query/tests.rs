//! What filters match, in tables.

use serde_json::json;

use super::*;

/// A line of the table: a path below the metadata, what is asked of it, the metadata, whether they match.
#[track_caller]
pub fn check(table: &str) {
    for [path, condition, metadata, expected] in lines(table) {
        let body = json!({ format!("tool_metadata.{path}"): read(condition) });
        let document = json!({ "tool_id": "t", "tool_metadata": read(metadata) });
        let matches = tool(&body).matches(&document);
        assert_eq!(matches, expected == "yes", "{body} on {metadata}");
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
    serde_json::from_str(text).expect("the table holds JSON")
}

pub fn tool(body: &Value) -> Filter {
    Filter::parse(Kind::Tool, body).expect("the filter is valid")
}

#[test]
fn what_is_missing_equals_null() {
    check(
        r##"
        a | null | {} | yes
        a | null | {"a": null} | yes
        a | null | {"a": 0} | no
        a | null | {"a": []} | no
        a | null | {"a": [1, null]} | yes
        a.b | null | {} | yes
        a.b | null | {"a": 5} | yes
        a.b | null | {"a": {"b": {}}} | no
        a.b | null | {"a": []} | no
        a.b | null | {"a": [1, 2]} | no
        a.b | null | {"a": [{"b": 1}, {}]} | yes
        a.b | null | {"a": [{"b": 1}]} | no
        a | {"$ne": null} | {} | no
        a | {"$ne": 1} | {} | yes
        a | {"$nin": [1, 2]} | {} | yes
        a | {"$nin": [1, null]} | {} | no
        a | {"$in": [1, null]} | {} | yes
        a | {"$all": [null]} | {} | yes
        a | {"$gt": 0} | {} | no
        a | {"$exists": true} | {"a": null} | yes
        a | {"$exists": true} | {"a": []} | yes
        a | {"$exists": true} | {} | no
        a | {"$exists": false} | {} | yes
        a | {"$exists": false} | {"a": null} | no
        a.b | {"$exists": false} | {"a": []} | yes
        a.b | {"$exists": true} | {"a": [{}, {"b": 1}]} | yes
        "##,
    );
}

#[test]
fn arrays_match_by_element_by_place_and_whole() {
    check(
        r##"
        a | "x" | {"a": ["y", "x"]} | yes
        a | "x" | {"a": [["x"]]} | no
        a | ["x"] | {"a": [["x"]]} | yes
        a | ["x", "y"] | {"a": ["x", "y"]} | yes
        a | ["x", "y"] | {"a": ["y", "x"]} | no
        a | ["x"] | {"a": ["x", "y"]} | no
        a | [] | {"a": []} | yes
        a | {"$ne": "x"} | {"a": ["x", "y"]} | no
        a.b | 2 | {"a": [{"b": 1}, {"b": 2}]} | yes
        a.b | 2 | {"a": [{"b": [1, 2]}]} | yes
        a.b | 2 | {"a": [[{"b": 2}]]} | no
        a.b.c | 3 | {"a": [{"b": [{"c": 3}]}]} | yes
        a.0 | "x" | {"a": ["x", "y"]} | yes
        a.1 | "x" | {"a": ["x", "y"]} | no
        a.01 | "y" | {"a": ["x", "y"]} | no
        a.0 | "x" | {"a": {"0": "x"}} | yes
        a.0 | "x" | {"a": [1, {"0": "x"}]} | yes
        a.0 | 1 | {"a": [[1, 2]]} | no
        a.0 | [1, 2] | {"a": [[1, 2]]} | yes
        a.0.1 | 2 | {"a": [[1, 2]]} | yes
        a.0.b | 2 | {"a": [[{"b": 2}]]} | yes
        a.1.b | 2 | {"a": [{"b": 1}, {"b": 2}]} | yes
        a.0.b | 2 | {"a": [{"b": 1}, {"b": 2}]} | no
        a.0.b | null | {"a": [5]} | no
        a.0.b | null | {"a": [{"b": 5}]} | yes
        a.99999999999999999999 | 1 | {"a": [1]} | no
        "##,
    );
}

#[test]
fn lists_ask_for_one_for_none_or_for_each() {
    check(
        r##"
        a | {"$in": ["x", 1]} | {"a": 1.0} | yes
        a | {"$in": ["x", 1]} | {"a": "y"} | no
        a | {"$in": ["x"]} | {"a": ["y", "x"]} | yes
        a | {"$in": [["x"]]} | {"a": ["x"]} | yes
        a | {"$in": [{"b": 1}, {"c": 1}]} | {"a": {"c": 1}} | yes
        a | {"$in": []} | {"a": 1} | no
        a | {"$nin": []} | {"a": 1} | yes
        a | {"$nin": ["x"]} | {"a": ["y", "x"]} | no
        a | {"$nin": ["x"]} | {"a": ["y"]} | yes
        a | {"$all": ["x", "y"]} | {"a": ["y", "z", "x"]} | yes
        a | {"$all": ["x", "x"]} | {"a": ["x"]} | yes
        a | {"$all": ["x", "y"]} | {"a": ["x", "x"]} | no
        a | {"$all": ["x"]} | {"a": "x"} | yes
        a | {"$all": ["x", "y"]} | {"a": "x"} | no
        a | {"$all": [["x", "y"], "x"]} | {"a": ["x", "y"]} | yes
        a | {"$all": []} | {"a": []} | no
        a.b | {"$all": [1, 2]} | {"a": [{"b": 1}, {"b": 2}]} | yes
        "##,
    );
}

#[test]
fn sizes_types_and_patterns() {
    check(
        r##"
        a | {"$size": 2} | {"a": [1, 2]} | yes
        a | {"$size": 2.0} | {"a": [[1], [2]]} | yes
        a | {"$size": 1} | {"a": [[1, 2]]} | yes
        a | {"$size": 2} | {"a": [[1, 2]]} | no
        a | {"$size": 0} | {"a": []} | yes
        a | {"$size": 0} | {} | no
        a | {"$size": 1} | {"a": "x"} | no
        a.b | {"$size": 1} | {"a": [{"b": [1]}, {"b": 2}]} | yes
        a | {"$type": "string"} | {"a": "x"} | yes
        a | {"$type": 2} | {"a": [1, "x"]} | yes
        a | {"$type": "array"} | {"a": []} | yes
        a | {"$type": ["null", "object"]} | {"a": null} | yes
        a | {"$type": "null"} | {} | no
        a | {"$type": "number"} | {"a": 1.5} | yes
        a | {"$type": "int"} | {"a": 2147483647} | yes
        a | {"$type": "long"} | {"a": 2147483648} | yes
        a | {"$type": "double"} | {"a": 1} | no
        a | {"$type": "double"} | {"a": 0.5} | yes
        a | {"$regex": "^x"} | {"a": "xy"} | yes
        a | {"$regex": "X", "$options": "i"} | {"a": ["a", "yx"]} | yes
        a | {"$regex": "x.y", "$options": "s"} | {"a": "x\ny"} | yes
        a | {"$regex": "^y", "$options": "m"} | {"a": "x\ny"} | yes
        a | {"$regex": "x # all of it", "$options": "x"} | {"a": "x"} | yes
        a | {"$regex": "1"} | {"a": 1} | no
        a | {"$regex": "x"} | {} | no
        a | {"$gte": null} | {} | yes
        a | {"$lte": null} | {"a": null} | yes
        a | {"$lte": null} | {"a": 0} | no
        a | {"$gt": null} | {"a": null} | no
        "##,
    );
}

#[test]
fn what_is_denied_holds_for_what_is_missing() {
    check(
        r##"
        a | {"$not": {"$gt": 1}} | {} | yes
        a | {"$not": {"$gt": 1}} | {"a": 1} | yes
        a | {"$not": {"$gt": 1}} | {"a": [0, 2]} | no
        a | {"$not": {"$gt": 1, "$lt": 3}} | {"a": 5} | yes
        a | {"$not": {"$gt": 1, "$lt": 3}} | {"a": 2} | no
        a | {"$not": {"$not": {"$eq": 1}}} | {"a": 1} | yes
        a | {"$not": {"$regex": "x"}} | {"a": 1} | yes
        a | {"$not": {"$exists": true}} | {} | yes
        a | {"$not": {"$size": 1}, "$exists": true} | {"a": [1]} | no
        "##,
    );
    let table = r##"
        {"$nor": [{"tool_id": "a"}, {"tool_id": "b"}]} | yes
        {"$nor": [{"tool_id": "a"}, {"tool_id": "t"}]} | no
        {"$nor": [{"tool_id": "t", "tool_description": "x"}]} | yes
        {"$nor": [{"tool_metadata.a": null}]} | no
        {"$nor": [{"$nor": [{"tool_id": "t"}]}], "tool_id": "t"} | yes
    "##;
    let document = json!({ "tool_id": "t" });
    for [body, expected] in lines(table) {
        assert_eq!(tool(&read(body)).matches(&document), expected == "yes", "{body}");
    }
}

#[test]
fn one_element_has_to_be_all_that_is_asked() {
    check(
        r##"
        a | {"$elemMatch": {"$gt": 1, "$lt": 3}} | {"a": [0, 2]} | yes
        a | {"$elemMatch": {"$gt": 1, "$lt": 3}} | {"a": [0, 4]} | no
        a | {"$gt": 1, "$lt": 3} | {"a": [0, 4]} | yes
        a | {"$elemMatch": {"$gt": 1}} | {"a": 2} | no
        a | {"$elemMatch": {"$gt": 1}} | {"a": [[2]]} | no
        a | {"$elemMatch": {"$elemMatch": {"$gt": 1}}} | {"a": [[2]]} | yes
        a | {"$elemMatch": {"b": 1, "c": 2}} | {"a": [{"b": 1}, {"c": 2}]} | no
        a | {"$elemMatch": {"b": 1, "c": 2}} | {"a": [{"b": 1, "c": 2}]} | yes
        a | {"$elemMatch": {"b.c": {"$in": [1, 2]}}} | {"a": [{"b": [{"c": 2}]}]} | yes
        a | {"$elemMatch": {"b": null}} | {"a": [{}]} | yes
        a | {"$elemMatch": {"b": null}} | {"a": [1]} | no
        a | {"$elemMatch": {"$or": [{"b": 1}, {"c": 1}]}} | {"a": [{"c": 1}]} | yes
        a | {"$elemMatch": {"$nor": [{"b": 1}]}} | {"a": [{"b": 1}]} | no
        a | {"$elemMatch": {"0": 1}} | {"a": [[1]]} | yes
        a | {"$elemMatch": {"b": 1}} | {"a": [[{"b": 1}]]} | no
        a | {"$elemMatch": {"$ne": 1}} | {"a": [1]} | no
        a | {"$elemMatch": {"$ne": 1}} | {"a": [1, 2]} | yes
        a | {"$elemMatch": {"$exists": true}} | {"a": []} | no
        a | {"$not": {"$elemMatch": {"$gt": 1}}} | {"a": [1]} | yes
        a | {"$all": [{"$elemMatch": {"$gt": 1}}, {"$elemMatch": {"$lt": 0}}]} | {"a": [-1, 2]} | yes
        a | {"$all": [{"$elemMatch": {"$gt": 1}}, {"$elemMatch": {"$lt": 0}}]} | {"a": [1, 2]} | no
        a.b | {"$elemMatch": {"$eq": 1}} | {"a": [{"b": [1]}, {"b": [2]}]} | yes
        "##,
    );
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
        assert_eq!(filter.matches(&document), expected == "yes", "{body}");
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
fn hints_name_what_every_match_has() {
    let table = r##"
        {} | null | null
        {"tool_search_tags": "a"} | ["a"] | null
        {"tool_tags": {"$in": ["b", "a"]}} | ["a", "b"] | null
        {"tool_tags": {"$in": ["b", null]}} | null | null
        {"tool_tags": {"$in": []}} | [] | null
        {"tool_tags": {"$all": ["a", "b"]}} | ["a"] | null
        {"tool_tags": {"$all": [["x"], "b"]}} | ["b"] | null
        {"tool_tags": {"$all": [["x"]]}} | null | null
        {"tool_tags": {"$all": []}} | [] | null
        {"tool_tags": {"$nin": ["a"]}} | null | null
        {"tool_tags": {"$ne": "a"}} | null | null
        {"tool_tags": {"$exists": true}} | null | null
        {"tool_tags": ["a"]} | null | null
        {"tool_tags": null} | null | null
        {"tool_tags.0": "a"} | null | null
        {"tool_metadata.tool_search_tags": "a"} | null | null
        {"$and": [{"tool_tags": {"$in": ["a", "b"]}}, {"tool_tags": "c"}]} | ["c"] | null
        {"$or": [{"tool_tags": "b"}, {"tool_tags": {"$in": ["a", "c"]}}]} | ["b", "a", "c"] | null
        {"$or": [{"tool_tags": "a"}, {"tool_id": "b"}]} | null | null
        {"tool_id": {"$in": ["y", "x"]}, "tool_tags": "a"} | ["a"] | ["x", "y"]
        {"$and": [{"tool_id": {"$eq": "x"}}, {}]} | null | ["x"]
        {"tool_id": {"$gt": "x"}} | null | null
    "##;
    for [body, tags, ids] in lines(table) {
        let filter = tool(&read(body));
        assert_eq!(json!(filter.tags_hint()), read(tags), "{body}");
        assert_eq!(json!(filter.id_hint()), read(ids), "{body}");
    }
}

#[test]
fn functions_have_fields_of_their_own() {
    let body = json!({"function_tags": "math", "function_id": "add:v1.0.0"});
    let filter = Filter::parse(Kind::Function, &body).expect("both are fields of a function");
    let document = json!({"function_id": "add:v1.0.0", "function_search_tags": ["math"]});
    assert!(filter.matches(&document));
    assert_eq!(filter.tags_hint(), Some(vec!["math".to_owned()]));
    assert!(Filter::parse(Kind::Function, &json!({"tool_id": "x"})).is_err());
}
