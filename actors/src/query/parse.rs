//! Reading a filter: what is in the language and within its bounds, and where in the body something is not.

use std::cmp::Ordering;

use serde_json::Value;

use super::{Node, Path, Segment, Test, order};
use crate::definition::Kind;
use crate::error::{Error, Result};

/// What a field can be asked with; `$and` and `$or` stand where fields do.
const OPERATORS: &str = "$eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $all, $exists, $and and $or";
/// The five fields, without their prefix.
const FIELDS: &str = "id search_tags metadata description default_params";

const MAX_DEPTH: usize = 16;
const MAX_CONDITIONS: usize = 1_000;
const MAX_LIST: usize = 10_000;
const MAX_SEGMENTS: usize = 32;
const MAX_SEGMENT_CHARS: usize = 256;
/// As deep as `serde_json` reads: bounds the recursion of [`order::compare`], one side of which is
/// always a filter's value.
const MAX_VALUE_DEPTH: usize = 128;

/// Reads a whole filter. An error names the place.
pub fn filter(kind: Kind, body: &Value) -> Result<Node> {
    let conditions = 0;
    Parser { kind, conditions }.filter(body, "", 1)
}

/// Reads a filter and counts what is in it.
struct Parser {
    kind: Kind,
    conditions: usize,
}

impl Parser {
    /// An object of fields and of `$and` and `$or`, all of which must hold.
    fn filter(&mut self, body: &Value, place: &str, depth: usize) -> Result<Node> {
        let Some(map) = body.as_object() else {
            let place = if place.is_empty() { "body" } else { place };
            return Err(Error::invalid("A filter must be a JSON object").at(place));
        };
        if depth > MAX_DEPTH {
            let message = format!("A filter is nested at most {MAX_DEPTH} deep");
            return Err(Error::invalid(message).at(place));
        }
        if map.is_empty() {
            self.count(place)?;
        }
        let mut nodes = Vec::new();
        for (key, value) in map {
            let place = below(place, key);
            nodes.push(match key.as_str() {
                "$and" => Node::All(self.branches(value, &place, depth)?),
                "$or" => Node::Any(self.branches(value, &place, depth)?),
                name if name.starts_with('$') => return Err(misplaced(name).at(place)),
                field => self.field(field, value, &place)?,
            });
        }
        Ok(Node::All(nodes))
    }

    fn branches(&mut self, value: &Value, place: &str, depth: usize) -> Result<Vec<Node>> {
        let filters = match value.as_array() {
            Some(filters) if !filters.is_empty() => filters,
            _ => return Err(Error::invalid("This takes a list of at least one filter").at(place)),
        };
        let mut nodes = Vec::new();
        for (at, filter) in filters.iter().enumerate() {
            nodes.push(self.filter(filter, &format!("{place}[{at}]"), depth + 1)?);
        }
        Ok(nodes)
    }

    /// A field with a value to be equal to, or with an object of operators.
    fn field(&mut self, key: &str, value: &Value, place: &str) -> Result<Node> {
        let path = path(self.kind, key).map_err(|error| error.at(place))?;
        let is_operator = |key: &String| key.starts_with('$');
        let map = value.as_object();
        let Some(operators) = map.filter(|map| map.keys().any(is_operator)) else {
            self.count(place)?;
            check_value(value, false, 0).map_err(|error| error.at(place))?;
            let test = Test::OneOf(vec![value.clone()]);
            return Ok(Node::condition(&path, test, false));
        };
        if let Some(plain) = operators.keys().find(|key| !is_operator(key)) {
            let message = "Operators and plain keys do not mix in one object";
            return Err(Error::invalid(message).at(below(place, plain)));
        }
        let mut nodes = Vec::new();
        for (name, operand) in operators {
            let place = below(place, name);
            self.count(&place)?;
            let (test, negated) = operator(name, operand, &place)?;
            nodes.push(Node::condition(&path, test, negated));
        }
        Ok(Node::All(nodes))
    }

    fn count(&mut self, place: &str) -> Result<()> {
        self.conditions += 1;
        if self.conditions > MAX_CONDITIONS {
            let message = format!("A filter has at most {MAX_CONDITIONS} conditions");
            return Err(Error::invalid(message).at(place));
        }
        Ok(())
    }
}

/// Reads a key: a field, and where to go from it.
pub fn path(kind: Kind, key: &str) -> Result<Path> {
    let names: Vec<&str> = key.split('.').take(MAX_SEGMENTS + 1).collect();
    let sized = |name: &&str| (1..=MAX_SEGMENT_CHARS).contains(&name.chars().count());
    if names.len() > MAX_SEGMENTS || !names.iter().all(sized) {
        return Err(Error::invalid(format!(
            "A field name has at most {MAX_SEGMENTS} parts of 1 to {MAX_SEGMENT_CHARS} characters"
        )));
    }
    if let Some(name) = names.iter().find(|name| name.starts_with('$')) {
        return Err(Error::invalid(format!("`{name}` stands where no operator belongs")));
    }
    if key.contains(char::is_control) {
        return Err(Error::invalid("A field name has no control characters"));
    }
    let mut segments: Vec<_> = names.into_iter().map(Segment::new).collect();
    segments[0].name = root_field(kind, &segments[0].name)?;
    Ok(Path(segments))
}

/// The seed's name of the field that a path begins with.
fn root_field(kind: Kind, name: &str) -> Result<String> {
    let fields: Vec<_> = FIELDS.split(' ').map(|field| kind.field(field)).collect();
    if name == kind.field("tags") {
        Ok(kind.field("search_tags"))
    } else if fields.iter().any(|field| field == name) {
        Ok(name.to_owned())
    } else {
        let (what, known) = (kind.name(), fields.join(", "));
        let message = format!("`{name}` is no field of a {what}; its fields are {known}");
        Err(Error::invalid(message))
    }
}

/// One operator below a field: what it tests, and whether that is denied.
fn operator(name: &str, operand: &Value, place: &str) -> Result<(Test, bool)> {
    Ok(match name {
        "$eq" | "$ne" => {
            check_value(operand, true, 0).map_err(|error| error.at(place))?;
            (Test::OneOf(vec![operand.clone()]), name == "$ne")
        }
        "$in" | "$nin" => (Test::OneOf(list(operand, place)?), name == "$nin"),
        "$all" => (Test::EachOf(list(operand, place)?), false),
        "$gt" => (compare(Ordering::is_gt, operand, place)?, false),
        "$gte" => (compare(Ordering::is_ge, operand, place)?, false),
        "$lt" => (compare(Ordering::is_lt, operand, place)?, false),
        "$lte" => (compare(Ordering::is_le, operand, place)?, false),
        "$exists" => match operand {
            Value::Bool(exists) => (Test::Exists, !exists),
            _ => return Err(Error::invalid("`$exists` takes true or false").at(place)),
        },
        _ => return Err(misplaced(name).at(place)),
    })
}

fn compare(accepts: fn(Ordering) -> bool, operand: &Value, place: &str) -> Result<Test> {
    match operand {
        Value::Number(_) | Value::String(_) | Value::Bool(_) => Ok(Test::Compare(accepts, operand.clone())),
        _ => Err(Error::invalid("This compares with a number, a string or a boolean").at(place)),
    }
}

/// A list of values, sorted and without repetition, to be searched with [`order::position`].
fn list(operand: &Value, place: &str) -> Result<Vec<Value>> {
    let Some(values) = operand.as_array() else {
        return Err(Error::invalid("This takes a list of values").at(place));
    };
    if values.len() > MAX_LIST {
        return Err(Error::invalid(format!("A list has at most {MAX_LIST} values")).at(place));
    }
    for (at, value) in values.iter().enumerate() {
        check_value(value, false, 0).map_err(|error| error.at(format!("{place}[{at}]")))?;
    }
    let mut values = values.clone();
    values.sort_by(order::compare);
    values.dedup_by(|left, right| order::compare(left, right).is_eq());
    Ok(values)
}

/// Refuses a value that is too deep, or one with `$` keys where these are not meant as data.
fn check_value(value: &Value, dollars: bool, depth: usize) -> Result<()> {
    if depth > MAX_VALUE_DEPTH {
        let message = format!("A value is nested at most {MAX_VALUE_DEPTH} deep");
        return Err(Error::invalid(message));
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| check_value(item, dollars, depth + 1)),
        Value::Object(map) => map.iter().try_for_each(|(key, item)| {
            if key.starts_with('$') && !dollars {
                let key = shown(key);
                return Err(Error::invalid(format!(
                    "`{key}` does not belong inside a value; `$eq` takes a value as it is"
                )));
            }
            check_value(item, dollars, depth + 1)
        }),
        _ => Ok(()),
    }
}

fn misplaced(name: &str) -> Error {
    let name = shown(name);
    Error::invalid(if name == "$and" || name == "$or" {
        format!("`{name}` does not belong below a field")
    } else if OPERATORS.split([',', ' ']).any(|known| known == name) {
        format!("`{name}` belongs below a field")
    } else {
        format!("`{name}` is not supported; supported are {OPERATORS}")
    })
}

/// The place of a key, for an error.
fn below(place: &str, key: &str) -> String {
    let key = shown(key);
    if place.is_empty() { key } else { format!("{place}.{key}") }
}

/// A client's key as an error repeats it: bounded, on one line.
fn shown(key: &str) -> String {
    let more = key.chars().nth(MAX_SEGMENT_CHARS).map(|_| '…');
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    key.chars().take(MAX_SEGMENT_CHARS).map(visible).chain(more).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::query::Filter;
    use crate::query::tests::{lines, read, tool};

    #[test]
    fn a_bad_filter_is_refused_at_its_place() {
        let table = r##"
            [] | body | must be a JSON object
            {"$where": "1"} | $where | `$where` is not supported; supported are $eq, $ne
            {"$gt": 1} | $gt | `$gt` belongs below a field
            {"tool_metadata.$where": 1} | tool_metadata.$where | `$where` stands where no operator belongs
            {"tool_id": 1, "$expr": {}} | $expr | `$expr` is not supported
            {"tool_id": {"$regex": "x"}} | tool_id.$regex | `$regex` is not supported
            {"tool_id": {"$": 1}} | tool_id.$ | `$` is not supported
            {"tool_id": {"$and": []}} | tool_id.$and | `$and` does not belong below a field
            {"tool_id": {"$gt": 1, "n": 1}} | tool_id.n | do not mix
            {"tool_id": {"a": {"$gt": 1}}} | tool_id | `$gt` does not belong inside a value
            {"tool_id": [{"$gt": 1}]} | tool_id | `$gt` does not belong inside a value
            {"tool_id": {"$in": [1, {"$gt": 1}]}} | tool_id.$in[1] | `$gt` does not belong inside
            {"name": 1} | name | `name` is no field of a tool; its fields are tool_id, tool_search
            {"function_id": 1} | function_id | is no field of a tool
            {"tool_identity": 1} | tool_identity | is no field of a tool
            {"$or": [{"": 1}]} | $or[0]. | 1 to 256 characters
            {"tool_metadata.": 1} | tool_metadata. | 1 to 256 characters
            {"tool_metadata..a": 1} | tool_metadata..a | 1 to 256 characters
            {"tool_metadata.\n": 1} | tool_metadata.� | no control characters
            {"tool_id": {"$gt": null}} | tool_id.$gt | a number, a string or a boolean
            {"tool_id": {"$lte": [1]}} | tool_id.$lte | a number, a string or a boolean
            {"tool_id": {"$in": "x"}} | tool_id.$in | a list of values
            {"tool_id": {"$nin": {}}} | tool_id.$nin | a list of values
            {"tool_id": {"$all": 1}} | tool_id.$all | a list of values
            {"tool_id": {"$exists": 1}} | tool_id.$exists | true or false
            {"$and": []} | $and | at least one filter
            {"$or": {}} | $or | at least one filter
            {"$or": [{}, 1]} | $or[1] | must be a JSON object
            {"$or": [{}, {"$and": [{"tool_id": {"$size": 1}}]}]} | $or[1].$and[0].tool_id.$size | `$size` is
        "##;
        for [body, place, message] in lines(table) {
            refused(&read(body), place, message);
        }
    }

    #[track_caller]
    fn refused(body: &Value, place: &str, message: &str) {
        let error = Filter::parse(Kind::Tool, body).expect_err("the filter is bad");
        assert_eq!(error.code(), crate::error::Code::Invalid);
        assert!(error.to_string().contains(message), "{error}");
        let details = error.details().expect("a place is named");
        assert_eq!(details["field"], place, "{error}");
    }

    #[test]
    fn a_filter_is_bounded() {
        let nested = |depth| (1..depth).fold(json!({}), |inner, _| json!({ "$or": [inner] }));
        let wide = |count| json!({ "$or": vec![json!({ "tool_id": 1 }); count] });
        let empty = |count| json!({ "$or": vec![json!({}); count] });
        let listed = |count| json!({ "tool_metadata.n": { "$in": vec![1; count] } });
        let long = |dots: usize| format!("tool_metadata{}", ".a".repeat(dots));
        let broad = |chars: usize| format!("tool_metadata.{}", "é".repeat(chars));
        let deep = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));

        for body in [nested(16), wide(1_000), empty(1_000), listed(10_000)] {
            tool(&body);
        }
        tool(&json!({ long(31): 1, broad(256): 1, "tool_metadata": deep(128) }));

        refused(&nested(17), &["$or[0]"; 16].join("."), "at most 16 deep");
        refused(&wide(1_001), "$or[1000].tool_id", "at most 1000 conditions");
        refused(&empty(1_001), "$or[1000]", "at most 1000 conditions");
        refused(&listed(10_001), "tool_metadata.n.$in", "at most 10000 values");
        refused(&json!({ long(32): 1 }), &long(32), "at most 32 parts");
        let cut = format!("{}…", broad(242));
        refused(&json!({ broad(257): 1 }), &cut, "1 to 256 characters");
        refused(&json!({ "tool_metadata": deep(129) }), "tool_metadata", "at most 128 deep");
    }
}
