//! The filter language of `POST /tools` and `POST /functions`: parsing, checking and matching. Pure, no store.
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

use serde_json::{Map, Number, Value};

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
/// As deep as `serde_json` reads: bounds the recursion of [`order`], one side of which is always a filter's value.
const MAX_VALUE_DEPTH: usize = 128;

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
        let conditions = 0;
        let root = Parser { kind, conditions }.filter(body, "", 1)?;
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

/// What is asked; the lists are sorted by [`order`] and without repetition.
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
            Test::OneOf(list) => path.any(document, |found| position(list, found).is_some()),
            Test::EachOf(list) => {
                let mut seen = BTreeSet::new();
                path.any(document, |found| {
                    let new = position(list, found).is_some_and(|at| seen.insert(at));
                    new && seen.len() == list.len()
                })
            }
            Test::Compare(accepts, bound) => path.any(document, |found| {
                let peer = found.filter(|value| rank(value) == rank(bound));
                peer.is_some_and(|value| accepts(order(value, bound)))
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
    fn parse(kind: Kind, key: &str) -> Result<Self> {
        let names: Vec<&str> = key.split('.').take(MAX_SEGMENTS + 1).collect();
        let sized = |name: &&str| (1..=MAX_SEGMENT_CHARS).contains(&name.chars().count());
        if names.len() > MAX_SEGMENTS || !names.iter().all(sized) {
            return Err(Error::invalid(format!(
                "A field name has at most {MAX_SEGMENTS} parts of 1 to {MAX_SEGMENT_CHARS} characters"
            )));
        }
        if key.contains(char::is_control) {
            return Err(Error::invalid("A field name has no control characters"));
        }
        let mut segments: Vec<_> = names.into_iter().map(Segment::new).collect();
        segments[0].name = root_field(kind, &segments[0].name)?;
        Ok(Self(segments))
    }

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
        let path = Path::parse(self.kind, key).map_err(|error| error.at(place))?;
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

/// A list of values, sorted and without repetition, to be searched with [`position`].
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
    values.sort_by(order);
    values.dedup_by(|left, right| order(left, right).is_eq());
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

/// Where in a sorted list a value is; what is missing is `null`.
fn position(list: &[Value], found: Option<&Value>) -> Option<usize> {
    let value = found.unwrap_or(&Value::Null);
    list.binary_search_by(|entry| order(entry, value)).ok()
}

/// One order of all values; equal are those that a filter holds for equal. Only within numbers, strings and booleans
/// does it mean anything, elsewhere it serves the search in a sorted list.
fn order(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => order_numbers(left, right),
        (Value::String(left), Value::String(right)) => left.cmp(right),
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Array(left), Value::Array(right)) => {
            let lengths = left.len().cmp(&right.len());
            let pairs = left.iter().zip(right);
            lengths.then_with(|| first_difference(pairs.map(|(left, right)| order(left, right))))
        }
        (Value::Object(left), Value::Object(right)) => left.len().cmp(&right.len()).then_with(|| {
            let pairs = sorted(left).into_iter().zip(sorted(right));
            first_difference(pairs.map(|(left, right)| {
                let keys = left.0.cmp(right.0);
                keys.then_with(|| order(left.1, right.1))
            }))
        }),
        _ => rank(left).cmp(&rank(right)),
    }
}

fn first_difference(mut orders: impl Iterator<Item = Ordering>) -> Ordering {
    orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// The entries by key: whether a map keeps them so is a feature that any crate of the build can change.
fn sorted(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    entries
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}

fn order_numbers(left: &Number, right: &Number) -> Ordering {
    match (integer(left), integer(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        (Some(left), None) => order_mixed(left, float(right)),
        (None, Some(right)) => order_mixed(right, float(left)).reverse(),
        (None, None) => float(left).total_cmp(&float(right)),
    }
}

/// Exact, where a conversion of the integer to a float would round it. A float beyond all integers saturates in the
/// cast, and compares right.
fn order_mixed(integer: i128, float: f64) -> Ordering {
    integer.cmp(&(float as i128)).then_with(|| 0.0_f64.total_cmp(&(float.fract() + 0.0)))
}

fn integer(number: &Number) -> Option<i128> {
    let signed = number.as_i64().map(i128::from);
    signed.or_else(|| number.as_u64().map(i128::from))
}

/// Adding zero makes `-0.0` the same as `0.0`.
fn float(number: &Number) -> f64 {
    let float = number.as_f64();
    float.expect("a JSON number is an integer of 64 bits or a finite float") + 0.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A line of the table: a path below the metadata, what is asked of it, the metadata, whether they match.
    #[track_caller]
    fn check(table: &str) {
        for [path, condition, metadata, expected] in lines(table) {
            let body = json!({ format!("tool_metadata.{path}"): read(condition) });
            let document = json!({ "tool_id": "t", "tool_metadata": read(metadata) });
            let matches = tool(&body).matches(&document);
            assert_eq!(matches, expected == "yes", "{body} on {metadata}");
        }
    }

    /// The columns of each line of a table.
    fn lines<const N: usize>(table: &str) -> impl Iterator<Item = [&str; N]> {
        let lines = table.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(|line| {
            let columns: Vec<_> = line.split(" | ").map(str::trim).collect();
            columns.try_into().expect(line)
        })
    }

    fn read(text: &str) -> Value {
        serde_json::from_str(text).expect("the table holds JSON")
    }

    fn tool(body: &Value) -> Filter {
        Filter::parse(Kind::Tool, body).expect("the filter is valid")
    }

    #[test]
    fn values_are_equal_by_type_and_worth() {
        check(
            r##"
            a | "x" | {"a": "x"} | yes
            a | "x" | {"a": "X"} | no
            a | "1" | {"a": 1} | no
            a | 1 | {"a": 1.0} | yes
            a | 0 | {"a": -0.0} | yes
            a | 0.0 | {"a": -0.0} | yes
            a | 1 | {"a": true} | no
            a | false | {"a": 0} | no
            a | 9007199254740993 | {"a": 9007199254740992.0} | no
            a | 9007199254740992 | {"a": 9007199254740992.0} | yes
            a | 18446744073709551615 | {"a": 18446744073709551615} | yes
            a | 18446744073709551615 | {"a": 18446744073709551616.0} | no
            a | {"b": 1, "c": [2]} | {"a": {"c": [2.0], "b": 1}} | yes
            a | {"b": 1} | {"a": {"b": 1, "c": 2}} | no
            a | {"b": 1} | {"a": {"c": 1}} | no
            a | {} | {"a": {}} | yes
            a | {} | {"a": {"b": 1}} | no
            a | {"$eq": {"$ref": "#/x"}} | {"a": {"$ref": "#/x"}} | yes
            a.$ref | "#/x" | {"a": {"$ref": "#/x"}} | yes
            a | {"$eq": "x"} | {"a": "x"} | yes
            a | {"$ne": "x"} | {"a": "x"} | no
            a | {"$ne": "x"} | {"a": "y"} | yes
            "##,
        );
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
    fn order_stays_within_a_type() {
        check(
            r##"
            a | {"$gt": 1} | {"a": 1.5} | yes
            a | {"$gt": 1} | {"a": 1.0} | no
            a | {"$gte": 1} | {"a": 1.0} | yes
            a | {"$lt": -1} | {"a": -1.5} | yes
            a | {"$lt": 0} | {"a": -0.5} | yes
            a | {"$gt": 0} | {"a": -0.0} | no
            a | {"$gt": 9007199254740992.0} | {"a": 9007199254740993} | yes
            a | {"$lt": 9007199254740993} | {"a": 9007199254740992.0} | yes
            a | {"$lt": 1e300} | {"a": 18446744073709551615} | yes
            a | {"$gt": -1e300} | {"a": -9223372036854775808} | yes
            a | {"$gt": 9223372036854775807} | {"a": 18446744073709551615} | yes
            a | {"$gt": 1} | {"a": "2"} | no
            a | {"$lt": "b"} | {"a": "a"} | yes
            a | {"$lt": "a"} | {"a": "Z"} | yes
            a | {"$gt": "z"} | {"a": "é"} | yes
            a | {"$lt": "b"} | {"a": 1} | no
            a | {"$gt": false} | {"a": true} | yes
            a | {"$gte": 0} | {"a": null} | no
            a | {"$gt": 1, "$lt": 3} | {"a": 2} | yes
            a | {"$gt": 1, "$lt": 3} | {"a": 3} | no
            a | {"$gt": 5, "$lt": 3} | {"a": [1, 9]} | yes
            a | {"$lte": 3} | {"a": [9, 3]} | yes
            a | {"$lt": 3} | {"a": [[1]]} | no
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
    fn a_bad_filter_is_refused_at_its_place() {
        let table = r##"
            [] | body | must be a JSON object
            {"$where": "1"} | $where | `$where` is not supported; supported are $eq, $ne
            {"$gt": 1} | $gt | `$gt` belongs below a field
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

    #[test]
    fn a_maze_of_arrays_is_walked_once() {
        let maze = (0..60).fold(json!(1), |inner, _| json!([{ "0": inner }]));
        let document = json!({ "tool_metadata": maze });
        let key = format!("tool_metadata{}", ".0".repeat(31));
        let path = Path::parse(Kind::Tool, &key).expect("31 places are in bounds");
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
