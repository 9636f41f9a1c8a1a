//! The filter language of `POST /tools` and `POST /functions`. Pure, no store: `parse` reads and checks a filter,
//! `order` compares values, and here is the matching.
//!
//! It is a part of MongoDB's. A filter is an object whose keys are fields or `$and` and `$or`, and all of it must
//! hold. A field is one of the five of its kind, followed by a dotted path into objects and arrays; its value is a
//! plain value to be equal to, or an object of operators (`$eq`, `$in` and so on).
//!
//! - An array on the way stands for the objects in it, a segment of digits also for one place in it. Arrays directly
//!   inside arrays are entered by place only.
//! - An array at the end matches when an element does or when it does as a whole; one reached by its place only as a
//!   whole.
//! - What is missing equals `null`. `$ne` and `$nin` deny `$eq` and `$in`, so they hold for what is missing.
//! - `1` equals `1.0`; integers and floats compare by exact value, strings byte by byte. Order exists within numbers,
//!   strings and booleans only.
//! - Other than in MongoDB, objects are equal whatever the order of their keys: our JSON has no order to rely on.
//! - Keys that begin with `$` are refused inside values, as they are mostly a mistake, except below `$eq` and `$ne`,
//!   which take any value as it is: a JSON Schema has `$ref`.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::definition::Kind;
use crate::error::Result;

mod order;
mod parse;

/// A filter that was read, checked and bounded.
#[derive(Clone, Debug)]
pub struct Filter {
    kind: Kind,
    root: Node,
}

impl Filter {
    /// Reads the body of a query for definitions of this kind; `{}` matches all.
    ///
    /// # Errors
    /// `invalid` for anything that is not in the language or beyond its bounds. The details name the place, such as
    /// `$or[1].tool_metadata.size.$gt`.
    pub fn parse(kind: Kind, body: &Value) -> Result<Self> {
        let root = parse::filter(kind, body)?;
        Ok(Self { kind, root })
    }

    /// Whether a definition, as the JSON object of its five fields, is among what is asked for.
    pub fn matches(&self, document: &Value) -> bool {
        self.root.matches(document)
    }

    /// Tags of which every match has at least one, where the filter implies such a set: an index can narrow by them.
    /// The narrowed still have to be matched. An empty set says that nothing can match.
    pub fn tags_hint(&self) -> Option<Vec<String>> {
        self.root.hint(&self.kind.field("search_tags"))
    }

    /// The only ids that a match can have, where the filter implies such a set; as with [`Filter::tags_hint`].
    pub fn id_hint(&self) -> Option<Vec<String>> {
        self.root.hint(&self.kind.field("id"))
    }
}

#[derive(Clone, Debug)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Condition(Condition),
}

impl Node {
    fn condition(path: &Path, test: Test, negated: bool) -> Self {
        let path = path.clone();
        Self::Condition(Condition { path, test, negated })
    }

    fn matches(&self, document: &Value) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.matches(document)),
            Self::Any(nodes) => nodes.iter().any(|node| node.matches(document)),
            Self::Condition(condition) => condition.matches(document),
        }
    }

    fn hint(&self, field: &str) -> Option<Vec<String>> {
        match self {
            Self::All(nodes) => nodes.iter().filter_map(|node| node.hint(field)).min_by_key(Vec::len),
            Self::Any(nodes) => {
                let hints: Option<Vec<_>> = nodes.iter().map(|node| node.hint(field)).collect();
                hints.map(|hints| hints.concat())
            }
            Self::Condition(condition) => condition.hint(field),
        }
    }
}

/// One question about one field.
#[derive(Clone, Debug)]
struct Condition {
    path: Path,
    test: Test,
    negated: bool,
}

/// What is asked; the lists are sorted by [`order::compare`] and without repetition.
#[derive(Clone, Debug)]
enum Test {
    OneOf(Vec<Value>),
    EachOf(Vec<Value>),
    Compare(fn(Ordering) -> bool, Value),
    Exists,
}

impl Condition {
    fn matches(&self, document: &Value) -> bool {
        let path = &self.path;
        let holds = match &self.test {
            Test::OneOf(list) => path.any(document, |found| order::position(list, found).is_some()),
            Test::EachOf(list) => {
                let mut seen = BTreeSet::new();
                path.any(document, |found| {
                    let new = order::position(list, found).is_some_and(|at| seen.insert(at));
                    new && seen.len() == list.len()
                })
            }
            Test::Compare(accepts, bound) => path.any(document, |found| {
                let peer = found.filter(|value| order::rank(value) == order::rank(bound));
                peer.is_some_and(|value| accepts(order::compare(value, bound)))
            }),
            Test::Exists => path.any(document, |found| found.is_some()),
        };
        holds != self.negated
    }

    fn hint(&self, field: &str) -> Option<Vec<String>> {
        if self.negated || !self.path.is(field) {
            return None;
        }
        let string = |value: &Value| value.as_str().map(str::to_owned);
        match &self.test {
            Test::OneOf(list) => list.iter().map(string).collect(),
            Test::EachOf(list) if list.is_empty() => Some(Vec::new()),
            Test::EachOf(list) => list.iter().find_map(string).map(|one| vec![one]),
            Test::Compare(..) | Test::Exists => None,
        }
    }
}

#[derive(Clone, Debug)]
struct Path(Vec<Segment>);

#[derive(Clone, Debug)]
struct Segment {
    name: String,
    /// The same as a place in an array, when written the way a place is.
    index: Option<usize>,
}

/// A value on the way, and whether an array gave it by its place: then it is not opened as an array at the end, and
/// nothing is missing where it cannot be entered.
type Step<'a> = (&'a Value, bool);

impl Path {
    fn is(&self, field: &str) -> bool {
        matches!(self.0.as_slice(), [only] if only.name == field)
    }

    /// Whether the test holds for anything that the path leads to; `None` is where it leads to nothing.
    ///
    /// Goes breadth first, so its stack does not grow with the document. A value reached on two ways (by place, and
    /// as a key of digits) is kept once, or their number could double with each segment.
    fn any(&self, document: &Value, mut test: impl FnMut(Option<&Value>) -> bool) -> bool {
        let mut missing = false;
        let mut here = vec![(document, false)];
        for segment in &self.0 {
            let mut next = Vec::new();
            for step in here {
                missing |= segment.follow(step, &mut next);
            }
            if segment.index.is_some() {
                next.sort_by_key(|step| std::ptr::from_ref(step.0));
                next.dedup_by_key(|step| std::ptr::from_ref(step.0));
            }
            here = next;
        }
        (missing && test(None))
            || here.into_iter().any(|(value, indexed)| {
                let items = value.as_array().filter(|_| !indexed);
                items.into_iter().flatten().any(|item| test(Some(item))) || test(Some(value))
            })
    }
}

impl Segment {
    /// Only digits without a leading zero name a place.
    fn new(name: &str) -> Self {
        let digits = name.bytes().all(|byte| byte.is_ascii_digit());
        let plain = digits && (name == "0" || !name.starts_with('0'));
        Self { name: name.to_owned(), index: plain.then(|| name.parse().ok()).flatten() }
    }

    /// Adds what this segment leads to, and tells whether it is missing somewhere.
    fn follow<'a>(&self, (value, indexed): Step<'a>, next: &mut Vec<Step<'a>>) -> bool {
        let mut enter = |map: &'a Map<String, Value>| {
            let found = map.get(&self.name);
            next.extend(found.map(|value| (value, false)));
            found.is_none()
        };
        match value {
            Value::Object(map) => enter(map),
            Value::Array(items) => {
                let mut missing = false;
                for map in items.iter().filter_map(Value::as_object) {
                    missing |= enter(map);
                }
                let found = self.index.and_then(|index| items.get(index));
                next.extend(found.map(|value| (value, true)));
                missing
            }
            _ => !indexed,
        }
    }
}

#[cfg(test)]
mod tests {
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
        path.any(&document, |_| {
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
}
