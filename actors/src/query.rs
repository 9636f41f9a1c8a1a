//! The filter language of `POST /tools` and `POST /functions`. Pure, no store: `parse` reads and checks a filter,
//! `path` finds what it asks about, `order` compares values, `plan` tells what an index can do for it, and here is the
//! matching.
//!
//! It is a part of MongoDB's, with its semantics. A filter is an object whose keys are fields or `$and`, `$or` and `$nor`,
//! and all of it must hold. A field is one of the five of its kind, followed by a dotted path into objects and arrays; its
//! value is a plain value to be equal to, or an object of operators (`$eq`, `$in` and so on). `$text` searches ids, tags and
//! descriptions; it stands at the top, or in an `$and` there.
//!
//! - An array on the way stands for the objects in it, a segment of digits also for one place in it. Arrays directly
//!   inside arrays are entered by place only.
//! - An array at the end matches when an element does or when it does as a whole; one reached by its place only as a
//!   whole. `$size` and `$elemMatch` ask about an array as a whole.
//! - What is missing equals `null`. `$ne`, `$nin` and `$not` deny what they stand for, so they hold for what is missing.
//! - `1` equals `1.0`; integers and floats compare by exact value, strings byte by byte. A comparison holds only for what
//!   has the type of its operand; `null` is neither above nor below itself. Arrays compare element by element, the types
//!   in the order null, numbers, strings, objects, arrays, booleans, and then by length.
//! - Other than in MongoDB, objects are equal whatever the order of their keys: our JSON has no order to rely on. For
//!   the same reason nothing is compared with an object, nor with an array that has one in it.
//! - Keys that begin with `$` are refused inside values, as they are mostly a mistake, except below `$eq` and `$ne`,
//!   which take any value as it is: a JSON Schema has `$ref`.
//! - Regular expressions are those of the `regex` crate, which take time in proportion to the text: without look-around
//!   and back-references. Other than in MongoDB's, `$` is not before a line break that ends the text, `\w`, `\d` and `\b`
//!   know all of Unicode, and the option `x` ignores spaces in a class of characters too.
//! - `$exists` takes a boolean only.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use regex::Regex;
use serde_json::Value;

use crate::definition::Kind;
use crate::error::Result;

mod order;
mod parse;
mod path;
mod plan;
mod text;

use path::{Path, Step};
pub use plan::Plan;
pub use text::Text;

/// A filter that was read, checked and bounded.
#[derive(Clone, Debug)]
pub struct Filter {
    kind: Kind,
    root: Node,
    text: Option<Text>,
}

impl Filter {
    /// Reads the body of a query for definitions of this kind; `{}` matches all.
    ///
    /// # Errors
    /// `invalid` for anything that is not in the language or beyond its bounds. The details name the place, such as
    /// `$or[1].tool_metadata.size.$gt`.
    pub fn parse(kind: Kind, body: &Value) -> Result<Self> {
        let (root, text) = parse::filter(kind, body)?;
        Ok(Self { kind, root, text })
    }

    /// The same, of those only that the other one, which has no `$text`, matches as well.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { root: Node::All(vec![self.root, other.root]), ..self }
    }

    /// Whether it has a `$text`, by which matches can be ranked.
    pub fn has_text(&self) -> bool {
        self.text.is_some()
    }

    /// Whether a definition, as the JSON object of its five fields, is among what is asked for. Whether it answers the
    /// `$text` is for the search to say.
    pub fn matches(&self, document: &Value) -> bool {
        self.root.matches((document, false))
    }
}

#[derive(Clone, Debug)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Condition(Condition),
}

impl Node {
    fn condition(path: &Path, test: Test, negated: bool) -> Self {
        let path = path.clone();
        Self::Condition(Condition { path, test, negated })
    }

    fn matches(&self, from: Step<'_>) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.matches(from)),
            Self::Any(nodes) => nodes.iter().any(|node| node.matches(from)),
            Self::Not(node) => !node.matches(from),
            Self::Condition(condition) => condition.matches(from),
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
    Size(usize),
    /// One of these types.
    Type(Vec<Type>),
    Regex(Regex),
    Element(Element),
}

/// What an element of an array has to be.
#[derive(Clone, Debug)]
enum Element {
    /// A value of which this holds.
    Value(Box<Node>),
    /// An object that this filter matches. An array is one whose keys are its places.
    Object(Box<Node>),
}

impl Element {
    fn matches(&self, item: &Value) -> bool {
        match (self, item) {
            (Self::Value(node), item) => node.matches((item, true)),
            (Self::Object(node), Value::Object(_)) => node.matches((item, false)),
            (Self::Object(node), Value::Array(items)) => {
                let places = items.iter().enumerate().map(|(place, item)| (place.to_string(), item.clone()));
                node.matches((&Value::Object(places.collect()), false))
            }
            _ => false,
        }
    }
}

/// A type, as far as JSON has it. A number without a fraction is an `int` where 32 bits hold it, a `long` where 64 do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Double,
    String,
    Object,
    Array,
    Bool,
    Null,
    Int,
    Long,
    Number,
}

impl Type {
    fn holds(self, value: &Value) -> bool {
        match (self, value) {
            (Self::String, Value::String(_))
            | (Self::Object, Value::Object(_))
            | (Self::Array, Value::Array(_))
            | (Self::Bool, Value::Bool(_))
            | (Self::Null, Value::Null)
            | (Self::Number, Value::Number(_)) => true,
            (Self::Int | Self::Long | Self::Double, Value::Number(number)) => {
                let is = match number.as_i64() {
                    Some(whole) if i32::try_from(whole).is_ok() => Self::Int,
                    Some(_) => Self::Long,
                    None => Self::Double,
                };
                self == is
            }
            _ => false,
        }
    }
}

impl Condition {
    fn matches(&self, from: Step<'_>) -> bool {
        let path = &self.path;
        let holds = match &self.test {
            Test::OneOf(list) => path.any(from, |found| order::position(list, found).is_some()),
            Test::EachOf(list) => {
                let mut seen = BTreeSet::new();
                path.any(from, |found| {
                    let new = order::position(list, found).is_some_and(|at| seen.insert(at));
                    new && seen.len() == list.len()
                })
            }
            Test::Compare(accepts, bound) => path.any(from, |found| {
                let peer = found.filter(|value| order::rank(value) == order::rank(bound));
                peer.is_some_and(|value| accepts(order::compare(value, bound)))
            }),
            Test::Exists => path.any(from, |found| found.is_some()),
            Test::Size(size) => {
                path.any_whole(from, |value| value.as_array().is_some_and(|items| items.len() == *size))
            }
            Test::Type(types) => path
                .any(from, |found| found.is_some_and(|value| types.iter().any(|wanted| wanted.holds(value)))),
            Test::Regex(regex) => {
                path.any(from, |found| found.and_then(Value::as_str).is_some_and(|text| regex.is_match(text)))
            }
            Test::Element(element) => path.any_whole(from, |value| {
                value.as_array().is_some_and(|items| items.iter().any(|item| element.matches(item)))
            }),
        };
        holds != self.negated
    }
}

#[cfg(test)]
mod tests;
