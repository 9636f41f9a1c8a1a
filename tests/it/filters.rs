//! The filter language beside another implementation of MongoDB's: mingo, in Node.js, which npm installs into a folder of
//! the test's own. Where there is neither, the test says so and is skipped. `PAIRS` says how many pairs of a filter and a
//! document there are.
//!
//! Nothing is asked where mingo is known to go another way than MongoDB's documentation. So no comparison has an array as
//! its operand: MongoDB compares it with an array as a whole, mingo with the elements only, so that it holds `[1, 3]` for
//! not above `[1, 2]`. The tables beside the code, `actors/src/query/tests`, have those.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use actors::definition::Kind;
use actors::query::Filter;
use serde_json::{Value, json};

use crate::cancels::Dice;
use crate::npm;

/// How many pairs there are unless told.
const PAIRS: usize = 50_000;

/// What is installed.
const MINGO: &str = "mingo@7.2.7";

/// Reads lines of `[filter, document]`, and writes for each whether they match.
const SCRIPT: &str = r#"
import { Query } from "mingo";
import { createInterface } from "node:readline";
const answers = [];
for await (const line of createInterface({ input: process.stdin })) {
  const [filter, document] = JSON.parse(line);
  try {
    answers.push(new Query(filter).test(document) ? "1" : "0");
  } catch (error) {
    answers.push(`${error}`.replaceAll("\n", " "));
  }
}
process.stdout.write(answers.join("\n") + "\n");
"#;

/// What pairs are made of, by dice, so that a failing one can be had again.
pub struct Maker(pub Dice);

impl Maker {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0.roll(sides as u64) as usize
    }

    fn scalar(&mut self) -> Value {
        match self.roll(10) {
            0..=4 => json!(self.roll(4)),
            5..=7 => json!(["x", "xy", "y", ""][self.roll(4)]),
            8 => json!(self.roll(2) == 0),
            _ => Value::Null,
        }
    }

    /// What stands in a document.
    fn value(&mut self, depth: usize) -> Value {
        match self.roll(if depth == 0 { 5 } else { 9 }) {
            0..=4 => self.scalar(),
            // Not directly inside one another, where mingo goes another way than MongoDB.
            5 | 6 => {
                let item = |dice: &mut Self| {
                    if dice.roll(3) == 0 { dice.object(depth - 1) } else { dice.scalar() }
                };
                (0..self.roll(4)).map(|_| item(self)).collect()
            }
            _ => self.object(depth - 1),
        }
    }

    pub fn object(&mut self, depth: usize) -> Value {
        let mut object = json!({});
        for key in ["a", "b", "c"] {
            if self.roll(3) > 0 {
                object[key] = self.value(depth);
            }
        }
        object
    }

    fn path(&mut self) -> String {
        let mut path = ["a", "b", "c"][self.roll(3)].to_owned();
        for _ in 0..[0, 0, 0, 1, 1, 2][self.roll(6)] {
            path += [".a", ".b", ".c"][self.roll(3)];
        }
        path
    }

    fn list(&mut self) -> Value {
        (0..1 + self.roll(4)).map(|_| self.scalar()).collect()
    }

    /// An operator with what it takes.
    pub fn operator(&mut self, name: &str, depth: usize) -> Value {
        match name {
            "$eq" | "$ne" => self.value(1),
            "$in" | "$nin" => self.list(),
            "$all" if self.roll(4) == 0 => {
                (0..1 + self.roll(2)).map(|_| json!({ "$elemMatch": self.element(0) })).collect()
            }
            "$all" => (0..1 + self.roll(2)).map(|_| self.scalar()).collect(),
            "$size" => json!(self.roll(4)),
            "$exists" => json!(self.roll(2) == 0),
            "$type" => {
                let types = ["string", "object", "array", "bool", "null", "number"];
                let one = json!(types[self.roll(6)]);
                if self.roll(3) == 0 { json!([one, types[self.roll(6)]]) } else { one }
            }
            "$regex" => json!(["x", "^x", "y$", "^$", "[xy]{2}"][self.roll(5)]),
            "$not" => {
                // Without those that are told to mingo in other words.
                let names = ["$eq", "$gt", "$lte", "$in", "$size", "$exists", "$regex", "$elemMatch"];
                let name = names[self.roll(names.len())];
                json!({ name: self.operator(name, depth.saturating_sub(1)) })
            }
            "$elemMatch" => self.element(depth),
            // Comparisons, without arrays, as is told above.
            _ => match self.roll(3) {
                0 => json!(["x", "xy", "y"][self.roll(3)]),
                _ => json!(self.roll(4)),
            },
        }
    }

    fn element(&mut self, depth: usize) -> Value {
        if self.roll(2) == 0 {
            let simple = ["$eq", "$gt", "$gte", "$lt", "$lte", "$in", "$ne", "$nin"];
            let (first, second) = (simple[self.roll(8)], simple[self.roll(8)]);
            let mut element = json!({ first: self.operator(first, 0) });
            if self.roll(2) == 0 {
                element[second] = self.operator(second, 0);
            }
            element
        } else {
            let filter = self.filter(depth.min(1));
            self.without_dots(&filter)
        }
    }

    /// The paths in an element go no further: whether they enter an array is not seen from outside.
    fn without_dots(&mut self, filter: &Value) -> Value {
        let map = filter.as_object().unwrap().iter().map(|(key, value)| {
            if key.starts_with('$') {
                let branches =
                    value.as_array().unwrap().iter().map(|branch| self.without_dots(branch)).collect();
                (key.clone(), branches)
            } else {
                (key[..1].to_owned(), value.clone())
            }
        });
        Value::Object(map.collect())
    }

    /// A filter of this operator alone.
    pub fn alone(&mut self, name: &str) -> Value {
        match name {
            // Arrays are rare at the end of long paths.
            "$elemMatch" => {
                json!({ ["a", "b", "c"][self.roll(3)]: { "$elemMatch": self.element(0) } })
            }
            _ => json!({ self.path(): { name: self.operator(name, 1) } }),
        }
    }

    pub fn filter(&mut self, depth: usize) -> Value {
        let mut filter = json!({});
        for _ in 0..1 + self.roll(2) {
            if depth > 0 && self.roll(3) == 0 {
                let branches: Value = (0..1 + self.roll(3)).map(|_| self.filter(depth - 1)).collect();
                filter[["$and", "$or", "$nor"][self.roll(3)]] = branches;
            } else {
                let name = NAMES[self.roll(NAMES.len())];
                filter[self.path()] = if self.roll(4) == 0 {
                    self.scalar()
                } else {
                    json!({ name: self.operator(name, depth) })
                };
            }
        }
        filter
    }
}

pub const NAMES: [&str; 15] = [
    "$eq",
    "$ne",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$in",
    "$nin",
    "$all",
    "$size",
    "$exists",
    "$type",
    "$regex",
    "$not",
    "$elemMatch",
];

/// The same filter on definitions: the fields of the documents are those of their metadata.
pub fn below_metadata(filter: &Value) -> Value {
    let mut below = json!({});
    for (key, value) in filter.as_object().unwrap() {
        if key.starts_with('$') {
            below[key] = value.as_array().unwrap().iter().map(below_metadata).collect();
        } else {
            below[format!("tool_metadata.{key}")] = value.clone();
        }
    }
    below
}

/// The same filter in words that mingo understands as MongoDB does. By MongoDB's documentation `$all` is the same as
/// `$and` of its values, and `$type` holds for an array when it does for an element; mingo asks for an array, or for the
/// array's own type.
fn for_mingo(filter: &Value) -> Value {
    let Some(map) = filter.as_object() else { return filter.clone() };
    let mut all = Vec::new();
    for (key, value) in map {
        let branches = |value: &Value| value.as_array().unwrap().iter().map(for_mingo).collect::<Value>();
        let is_plain = |list: &&Value| list.as_array().unwrap().iter().all(|item| !item.is_object());
        if key.starts_with('$') {
            all.push(json!({ key: branches(value) }));
        } else if let Some(list) = value.get("$all").filter(is_plain) {
            all.extend(list.as_array().unwrap().iter().map(|item| json!({ key: item })));
        } else if let Some(types) = value.get("$type") {
            let (whole, element) = (json!({ "$type": types }), json!({ "$elemMatch": { "$type": types } }));
            all.push(json!({ "$or": [{ key: whole }, { key: element }] }));
        } else if let Some(element) = value.get("$elemMatch").filter(|element| !is_of_values(element)) {
            all.push(json!({ key: { "$elemMatch": for_mingo(element) } }));
        } else {
            all.push(json!({ key: value }));
        }
    }
    json!({ "$and": all })
}

/// Whether mingo goes another way than MongoDB with this pair, as far as is known: where a path goes on from an array it
/// asks about the list of all that was found, and it opens an array's plain values as objects. Our own tables have these.
pub fn is_apart(filter: &Value, document: &Value) -> bool {
    filter.as_object().unwrap().iter().any(|(key, value)| {
        if key.starts_with('$') {
            return value.as_array().unwrap().iter().any(|branch| is_apart(branch, document));
        }
        let mut names: Vec<&str> = key.split('.').collect();
        names.pop();
        let mut here = document;
        for name in names {
            here = &here[name];
            if here.is_array() {
                return true;
            }
        }
        // Tags are plain values, and no filter here opens them.
        let document = document.get("tool_metadata").unwrap_or(document);
        opens_elements(value) && has_plain_element(document)
    })
}

fn opens_elements(value: &Value) -> bool {
    match value {
        Value::Object(map) => map
            .iter()
            .any(|(key, value)| (key == "$elemMatch" && !is_of_values(value)) || opens_elements(value)),
        Value::Array(items) => items.iter().any(opens_elements),
        _ => false,
    }
}

fn has_plain_element(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.values().any(has_plain_element),
        Value::Array(items) => items.iter().any(|item| !item.is_object() || has_plain_element(item)),
        _ => false,
    }
}

fn is_of_values(element: &Value) -> bool {
    let mut keys = element.as_object().unwrap().keys();
    keys.any(|key| key.starts_with('$') && !["$and", "$or", "$nor"].contains(&key.as_str()))
}

/// How many pairs are given to mingo at a time.
const AT_A_TIME: usize = 100_000;

/// Mingo, in a folder of its own.
pub struct Peer {
    folder: tempfile::TempDir,
    pairs: Vec<(Value, Value)>,
    ours: Vec<bool>,
    different: Vec<String>,
}

impl Peer {
    /// Nothing where it cannot be had.
    pub fn install() -> Option<Self> {
        let folder = npm::installed(MINGO)?;
        Some(Self { folder, pairs: Vec::new(), ours: Vec::new(), different: Vec::new() })
    }

    /// Asks about a pair, of which we say whether it matches.
    pub fn ask(&mut self, filter: Value, document: Value, ours: bool) {
        self.pairs.push((filter, document));
        self.ours.push(ours);
        if self.pairs.len() == AT_A_TIME {
            self.compare();
        }
    }

    /// Where it says something else.
    pub fn different(mut self) -> Vec<String> {
        self.compare();
        self.different
    }

    fn compare(&mut self) {
        let answers = answers(self.folder.path(), &self.pairs);
        assert_eq!(answers.len(), self.pairs.len());
        for (((filter, document), ours), answer) in self.pairs.drain(..).zip(self.ours.drain(..)).zip(answers)
        {
            if answer != u8::from(ours).to_string() {
                self.different.push(format!("{filter} on {document}: we say {ours}, mingo says {answer}"));
            }
        }
    }
}

fn answers(folder: &Path, pairs: &[(Value, Value)]) -> Vec<String> {
    std::fs::write(folder.join("filters.mjs"), SCRIPT).unwrap();
    let mut node = Command::new("node")
        .arg("filters.mjs")
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = node.stdin.take().unwrap();
    let lines: String = pairs
        .iter()
        .map(|(filter, document)| json!([for_mingo(filter), document]).to_string() + "\n")
        .collect();
    let writing = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let output = node.wait_with_output().unwrap();
    writing.join().unwrap();
    assert!(output.status.success(), "node failed");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn filters_match_what_another_implementation_matches() {
    let count = std::env::var("PAIRS").ok().and_then(|count| count.parse().ok()).unwrap_or(PAIRS);
    let mut dice = Maker(Dice(7));
    let Some(mut peer) = Peer::install() else { return };
    let (mut number, mut matched, mut decided) = (0, 0, BTreeMap::<&str, [usize; 2]>::new());
    while number < count {
        let document = dice.object(2);
        // Half of them ask with one operator, each in its turn, to see that it decides both ways.
        let name = (number % 2 == 0).then(|| NAMES[number / 2 % NAMES.len()]);
        let filter = match name {
            Some(name) => dice.alone(name),
            None => dice.filter(2),
        };
        if is_apart(&filter, &document) {
            continue;
        }
        number += 1;
        let body = below_metadata(&filter);
        let ours = Filter::parse(Kind::Tool, &body).unwrap_or_else(|error| panic!("{error}: {body}"));
        let is_match = ours.matches(&json!({ "tool_id": "t", "tool_metadata": document }));
        matched += usize::from(is_match);
        if let Some(name) = name {
            decided.entry(name).or_default()[usize::from(is_match)] += 1;
        }
        peer.ask(filter, document, is_match);
    }
    let different = peer.different();
    println!("{count} pairs, {matched} match; by operator [not, yes]: {decided:?}");
    let shown = different.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
    assert!(different.is_empty(), "{} differ:\n{shown}", different.len());
    assert!(matched * 5 >= count, "only {matched} of {count} match");
    for (name, [no, yes]) in decided {
        let least = (no + yes) / 100;
        assert!(no >= least && yes >= least, "{name} decides {no} no and {yes} yes");
    }
}
