//! Reading a filter: what is in the language and within its bounds, and where in the body something is not.

use std::cmp::Ordering;

use regex::RegexBuilder;
use serde_json::{Map, Value};

use super::path::{Path, Segment};
use super::{Element, Node, Test, Text, Type, order};
use crate::definition::Kind;
use crate::error::{Error, Result};
use crate::json::shown;

/// What a field can be asked with; `$and`, `$or` and `$nor` stand where fields do.
const OPERATORS: &str = "$eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $all, $size, $exists, $type, $elemMatch, $regex, \
                         $options, $not, $and, $or and $nor, and $text at the top";
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
/// How long a regular expression may be, and how large what is made of it.
const MAX_REGEX: usize = 1_000;
const MAX_REGEX_BYTES: usize = 1 << 20;
/// How many regular expressions a filter may have.
const MAX_REGEXES: usize = 32;

/// Reads a whole filter. An error names the place.
pub fn filter(kind: Kind, body: &Value) -> Result<(Node, Option<Text>)> {
    let mut parser =
        Parser { kind, conditions: 0, regexes: 0, elements: 0, text: None, is_conjunction: true };
    let root = parser.filter(body, "", 1)?;
    Ok((root, parser.text))
}

/// Reads a filter and counts what is in it.
struct Parser {
    kind: Kind,
    conditions: usize,
    regexes: usize,
    /// How many `$elemMatch` there are around: below one, any name is a field.
    elements: usize,
    text: Option<Text>,
    /// Whether all that was read must hold, so far up to here: a search is one of what must.
    is_conjunction: bool,
}

impl Parser {
    /// An object of fields and of `$and`, `$or` and `$nor`, all of which must hold.
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
                "$or" => Node::Any(self.alternatives(value, &place, depth)?),
                "$nor" => Node::Not(Box::new(Node::Any(self.alternatives(value, &place, depth)?))),
                "$text" => self.text(value, &place)?,
                name if name.starts_with('$') => return Err(misplaced(name).at(place)),
                field => self.field(field, value, &place, depth)?,
            });
        }
        Ok(Node::All(nodes))
    }

    /// The search, which the index answers: here it always holds.
    fn text(&mut self, operand: &Value, place: &str) -> Result<Node> {
        self.count(place)?;
        if !self.is_conjunction || self.elements > 0 {
            return Err(Error::invalid("`$text` stands at the top, or in an `$and` there").at(place));
        }
        if self.text.replace(Text::parse(operand, place)?).is_some() {
            return Err(Error::invalid("A filter has one `$text`").at(place));
        }
        Ok(Node::All(Vec::new()))
    }

    fn alternatives(&mut self, value: &Value, place: &str, depth: usize) -> Result<Vec<Node>> {
        let around = std::mem::replace(&mut self.is_conjunction, false);
        let nodes = self.branches(value, place, depth);
        self.is_conjunction = around;
        nodes
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
    fn field(&mut self, key: &str, value: &Value, place: &str, depth: usize) -> Result<Node> {
        let path = if self.elements > 0 { segments(key).map(Path) } else { path(self.kind, key) };
        let path = path.map_err(|error| error.at(place))?;
        match value.as_object().filter(|map| map.keys().any(|key| is_operator(key))) {
            Some(operators) => self.operators(&path, operators, place, depth),
            None => {
                self.count(place)?;
                check_value(value, false, 0).map_err(|error| error.at(place))?;
                Ok(Node::condition(&path, Test::OneOf(vec![value.clone()]), false))
            }
        }
    }

    /// An object of operators, all of which must hold of what the path leads to.
    fn operators(
        &mut self,
        path: &Path,
        operators: &Map<String, Value>,
        place: &str,
        depth: usize,
    ) -> Result<Node> {
        if depth > MAX_DEPTH {
            return Err(Error::invalid(format!("A filter is nested at most {MAX_DEPTH} deep")).at(place));
        }
        if let Some(plain) = operators.keys().find(|key| !is_operator(key)) {
            let message = "Operators and plain keys do not mix in one object";
            return Err(Error::invalid(message).at(below(place, plain)));
        }
        let mut nodes = Vec::new();
        for (name, operand) in operators {
            let place = below(place, name);
            self.count(&place)?;
            nodes.push(match name.as_str() {
                "$not" => Node::Not(Box::new(self.not(path, operand, &place, depth)?)),
                "$elemMatch" => self.element(path, operand, &place, depth)?,
                "$all" if is_list_of_elements(operand) => {
                    let elements = operand.as_array().into_iter().flatten().enumerate();
                    let nodes = elements.map(|(at, element)| {
                        let place = format!("{place}[{at}].$elemMatch");
                        self.count(&place)?;
                        self.element(path, &element["$elemMatch"], &place, depth)
                    });
                    Node::All(nodes.collect::<Result<_>>()?)
                }
                "$regex" => {
                    let regex = self.regex(operand, operators.get("$options"), &place)?;
                    Node::condition(path, regex, false)
                }
                "$options" if operators.contains_key("$regex") => continue,
                _ => {
                    let (test, negated) = operator(name, operand, &place)?;
                    Node::condition(path, test, negated)
                }
            });
        }
        Ok(Node::All(nodes))
    }

    fn not(&mut self, path: &Path, operand: &Value, place: &str, depth: usize) -> Result<Node> {
        let operators = operand.as_object().filter(|map| map.keys().any(|key| is_operator(key)));
        let operators =
            operators.ok_or_else(|| Error::invalid("`$not` takes an object of operators").at(place))?;
        self.operators(path, operators, place, depth + 1)
    }

    /// An element of an array: a value of which all operators hold, or an object that a filter matches.
    fn element(&mut self, path: &Path, operand: &Value, place: &str, depth: usize) -> Result<Node> {
        let Some(map) = operand.as_object() else {
            return Err(Error::invalid("`$elemMatch` takes an object of operators or a filter").at(place));
        };
        let is_of_values = map.keys().any(|key| is_operator(key) && !LOGICAL.contains(&key.as_str()));
        self.elements += 1;
        let element = if is_of_values {
            let node = self.operators(&Path(Vec::new()), map, place, depth + 1)?;
            Element::Value(Box::new(node))
        } else {
            Element::Object(Box::new(self.filter(operand, place, depth + 1)?))
        };
        self.elements -= 1;
        Ok(Node::condition(path, Test::Element(element), false))
    }

    fn regex(&mut self, operand: &Value, options: Option<&Value>, place: &str) -> Result<Test> {
        let pattern = operand.as_str().ok_or_else(|| Error::invalid("`$regex` takes a string").at(place))?;
        if pattern.len() > MAX_REGEX {
            let message = format!("A regular expression has at most {MAX_REGEX} bytes");
            return Err(Error::invalid(message).at(place));
        }
        self.regexes += 1;
        if self.regexes > MAX_REGEXES {
            let message = format!("A filter has at most {MAX_REGEXES} regular expressions");
            return Err(Error::invalid(message).at(place));
        }
        let wrong = || Error::invalid("`$options` takes some of the letters i, m, s, x and u").at(place);
        let options = options.map_or(Some(""), Value::as_str).ok_or_else(wrong)?;
        // Flags that stand in the pattern itself are seen by whoever looks at it later.
        let flagged = if options.is_empty() { pattern.to_owned() } else { format!("(?:){pattern}") };
        let mut builder = RegexBuilder::new(&flagged);
        builder.size_limit(MAX_REGEX_BYTES);
        for option in options.chars() {
            match option {
                'i' => builder.case_insensitive(true),
                'm' => builder.multi_line(true),
                's' => builder.dot_matches_new_line(true),
                'x' => builder.ignore_whitespace(true),
                // Text is Unicode always.
                'u' => &mut builder,
                _ => return Err(wrong()),
            };
        }
        builder.build().map(Test::Regex).map_err(|error| {
            let reason = error.to_string();
            // The library draws the place over several lines; the last one says what is wrong.
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Error::invalid(format!("Not a regular expression that is supported: {reason}")).at(place)
        })
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

/// What combines filters.
const LOGICAL: [&str; 3] = ["$and", "$or", "$nor"];

fn is_operator(key: &str) -> bool {
    key.starts_with('$')
}

/// Whether it is `[{"$elemMatch": …}, …]`.
fn is_list_of_elements(operand: &Value) -> bool {
    let is_element =
        |item: &Value| item.as_object().is_some_and(|map| map.len() == 1 && map.contains_key("$elemMatch"));
    operand.as_array().is_some_and(|items| !items.is_empty() && items.iter().all(is_element))
}

/// Reads a key: a field, and where to go from it.
pub fn path(kind: Kind, key: &str) -> Result<Path> {
    let mut segments = segments(key)?;
    segments[0].name = root_field(kind, &segments[0].name)?;
    Ok(Path(segments))
}

fn segments(key: &str) -> Result<Vec<Segment>> {
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
    Ok(names.into_iter().map(Segment::new).collect())
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
        "$size" => (Test::Size(size(operand, place)?), false),
        "$type" => (Test::Type(types(operand, place)?), false),
        // Nothing is above or below what is missing or null; at least and at most as much is what equals it.
        "$gte" | "$lte" if operand.is_null() => (Test::OneOf(vec![Value::Null]), false),
        "$gt" | "$lt" if operand.is_null() => (Test::OneOf(Vec::new()), false),
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

/// Mongo takes a float that is whole too.
fn size(operand: &Value, place: &str) -> Result<usize> {
    let whole = operand.as_f64().filter(|size| size.fract() == 0.0 && (0.0..=4e15).contains(size));
    whole
        .map(|size| size as usize)
        .ok_or_else(|| Error::invalid("`$size` takes a whole number that is not negative").at(place))
}

/// One type or a list of them, each by its name or its number.
fn types(operand: &Value, place: &str) -> Result<Vec<Type>> {
    const TYPES: [(&str, u64, Type); 8] = [
        ("double", 1, Type::Double),
        ("string", 2, Type::String),
        ("object", 3, Type::Object),
        ("array", 4, Type::Array),
        ("bool", 8, Type::Bool),
        ("null", 10, Type::Null),
        ("int", 16, Type::Int),
        ("long", 18, Type::Long),
    ];
    let one = |operand: &Value| {
        if operand == "number" {
            return Ok(Type::Number);
        }
        let is = |(name, number, _): &&(&str, u64, Type)| {
            operand == *name || operand.as_f64() == Some(*number as f64)
        };
        let found = TYPES.iter().find(is).map(|(_, _, found)| *found);
        found.ok_or_else(|| {
            let message = "JSON has double (1), string (2), object (3), array (4), bool (8), null (10), int (16), \
                           long (18) and number";
            Error::invalid(format!("`$type` takes a type or a list of them; {message}")).at(place)
        })
    };
    match operand.as_array() {
        Some(list) if !list.is_empty() && list.len() <= TYPES.len() + 1 => list.iter().map(one).collect(),
        _ => Ok(vec![one(operand)?]),
    }
}

fn compare(accepts: fn(Ordering) -> bool, operand: &Value, place: &str) -> Result<Test> {
    check_value(operand, true, 0).map_err(|error| error.at(place))?;
    if has_object(operand) {
        let message = "This compares with a number, a string, a boolean, null or an array of such; an object is above \
                       or below another by the order of their keys, which our JSON does not keep";
        return Err(Error::invalid(message).at(place));
    }
    Ok(Test::Compare(accepts, operand.clone()))
}

/// Whether it is an object or has one somewhere.
fn has_object(value: &Value) -> bool {
    match value {
        Value::Object(_) => true,
        Value::Array(items) => items.iter().any(has_object),
        _ => false,
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
    Error::invalid(if LOGICAL.contains(&name.as_str()) {
        format!("`{name}` does not belong below a field")
    } else if OPERATORS.split([',', ' ']).any(|known| known == name) {
        format!("`{name}` belongs below a field")
    } else {
        format!("`{name}` is not supported; supported are {OPERATORS}")
    })
}

/// The place of a key, for an error.
fn below(place: &str, key: &str) -> String {
    // An empty key is seen by its quotes.
    let key = if key.is_empty() { "\"\"".to_owned() } else { shown(key) };
    if place.is_empty() { key } else { format!("{place}.{key}") }
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
            {"tool_id": {"$regex": 1}} | tool_id.$regex | takes a string
            {"tool_id": {"$regex": "("}} | tool_id.$regex | unclosed group
            {"tool_id": {"$regex": "(?=x)"}} | tool_id.$regex | look-around
            {"tool_id": {"$regex": "x", "$options": "g"}} | tool_id.$regex | i, m, s, x and u
            {"tool_id": {"$regex": "(a{1000}){1000}"}} | tool_id.$regex | size limit
            {"tool_id": {"$options": "i"}} | tool_id.$options | `$options` belongs
            {"tool_id": {"$not": 1}} | tool_id.$not | an object of operators
            {"tool_id": {"$not": {"a": 1}}} | tool_id.$not | an object of operators
            {"tool_id": {"$not": {"$gt": {}}}} | tool_id.$not.$gt | a number, a string
            {"tool_id": {"$elemMatch": 1}} | tool_id.$elemMatch | an object of operators or a filter
            {"tool_id": {"$elemMatch": {"$gt": 1, "a": 1}}} | tool_id.$elemMatch.a | do not mix
            {"tool_id": {"$elemMatch": {"a": {"$where": 1}}}} | tool_id.$elemMatch.a.$where | not supported
            {"tool_id": {"$all": [{"$elemMatch": 1}]}} | tool_id.$all[0].$elemMatch | an object of operators
            {"tool_id": {"$size": -1}} | tool_id.$size | a whole number
            {"tool_id": {"$size": 1.5}} | tool_id.$size | a whole number
            {"tool_id": {"$type": "date"}} | tool_id.$type | a type or a list
            {"tool_id": {"$type": []}} | tool_id.$type | a type or a list
            {"tool_id": {"$nor": []}} | tool_id.$nor | does not belong below a field
            {"$nor": {}} | $nor | at least one filter
            {"$not": {}} | $not | `$not` belongs below a field
            {"tool_id": {"$": 1}} | tool_id.$ | `$` is not supported
            {"tool_id": {"$and": []}} | tool_id.$and | `$and` does not belong below a field
            {"tool_id": {"$gt": 1, "n": 1}} | tool_id.n | do not mix
            {"tool_id": {"a": {"$gt": 1}}} | tool_id | `$gt` does not belong inside a value
            {"tool_id": [{"$gt": 1}]} | tool_id | `$gt` does not belong inside a value
            {"tool_id": {"$in": [1, {"$gt": 1}]}} | tool_id.$in[1] | `$gt` does not belong inside
            {"name": 1} | name | `name` is no field of a tool; its fields are tool_id, tool_search
            {"function_id": 1} | function_id | is no field of a tool
            {"tool_identity": 1} | tool_identity | is no field of a tool
            {"": 1} | "" | 1 to 256 characters
            {"": {"$gt": 1, "$$or": 3}} | "" | 1 to 256 characters
            {"$or": [{"": 1}]} | $or[0]."" | 1 to 256 characters
            {"tool_metadata.": 1} | tool_metadata. | 1 to 256 characters
            {"tool_metadata..a": 1} | tool_metadata..a | 1 to 256 characters
            {"tool_metadata.\n": 1} | tool_metadata.� | no control characters
            {"tool_id": {"$lte": {"a": 1}}} | tool_id.$lte | by the order of their keys, which our JSON does not keep
            {"tool_id": {"$gt": {"$gt": 1}}} | tool_id.$gt | a boolean, null or an array of such
            {"tool_id": {"$lt": [1, [{}]]}} | tool_id.$lt | a boolean, null or an array of such
            {"tool_id": {"$in": "x"}} | tool_id.$in | a list of values
            {"tool_id": {"$nin": {}}} | tool_id.$nin | a list of values
            {"tool_id": {"$all": 1}} | tool_id.$all | a list of values
            {"tool_id": {"$exists": 1}} | tool_id.$exists | true or false
            {"$and": []} | $and | at least one filter
            {"$or": {}} | $or | at least one filter
            {"$or": [{}, 1]} | $or[1] | must be a JSON object
            {"$or": [{}, {"$and": [{"tool_id": {"$mod": 1}}]}]} | $or[1].$and[0].tool_id.$mod | `$mod` is
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

        let nots = |depth| (0..depth).fold(json!({ "$eq": 1 }), |inner, _| json!({ "$not": inner }));
        let patterns = |count| json!({ "$and": vec![json!({ "tool_id": { "$regex": "x" } }); count] });
        for body in [nested(16), wide(1_000), empty(1_000), listed(10_000)] {
            tool(&body);
        }
        tool(&json!({ long(31): 1, broad(256): 1, "tool_metadata": deep(128) }));

        tool(&json!({ "tool_id": nots(15) }));
        tool(&patterns(32));
        let place = format!("tool_id{}", ".$not".repeat(16));
        refused(&json!({ "tool_id": nots(16) }), &place, "at most 16 deep");
        refused(&patterns(33), "$and[32].tool_id.$regex", "at most 32 regular expressions");
        let long_pattern = json!({ "tool_id": { "$regex": "x".repeat(1_001) } });
        refused(&long_pattern, "tool_id.$regex", "at most 1000 bytes");
        refused(&nested(17), &["$or[0]"; 16].join("."), "at most 16 deep");
        refused(&wide(1_001), "$or[1000].tool_id", "at most 1000 conditions");
        refused(&empty(1_001), "$or[1000]", "at most 1000 conditions");
        refused(&listed(10_001), "tool_metadata.n.$in", "at most 10000 values");
        refused(&json!({ long(32): 1 }), &long(32), "at most 32 parts");
        let cut = format!("{}…", broad(242));
        refused(&json!({ broad(257): 1 }), &cut, "1 to 256 characters");
        refused(&json!({ "tool_metadata": deep(129) }), "tool_metadata", "at most 128 deep");
        refused(&json!({ "tool_id": { "$lt": deep(129) } }), "tool_id.$lt", "at most 128 deep");
    }
}
