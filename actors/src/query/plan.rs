//! What the indexes of the store can do for a filter. Pure: a filter is compiled to what every match has, and the
//! store makes bound statements of it. What is found that way still has to be matched.

use std::cmp::Ordering;

use serde_json::Value;

use super::{Condition, Filter, Node, Test, Text};

/// What every match has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// One of these ids.
    pub ids: Option<Vec<String>>,
    /// An id that is not below this one.
    pub from: Option<String>,
    /// An id that is not above this one.
    pub to: Option<String>,
    /// Of each of these sets at least one tag. An empty set says that nothing can match.
    pub tags: Vec<Vec<String>>,
    /// What the search finds.
    pub text: Option<Text>,
}

impl Filter {
    /// Compiles the filter.
    pub fn plan(&self) -> Plan {
        let (id, tags) = (self.kind.field("id"), self.kind.field("search_tags"));
        let (mut from, mut to) = (None, None);
        self.root.range(&id, &mut from, &mut to);
        let mut groups = self.root.groups(&tags);
        groups.iter_mut().for_each(|group| {
            group.sort_unstable();
            group.dedup();
        });
        Plan {
            ids: self.root.groups(&id).into_iter().min_by_key(Vec::len),
            from,
            to,
            tags: groups,
            text: self.text.clone(),
        }
    }
}

impl Node {
    /// Sets of strings, of each of which the field has at least one where this matches.
    fn groups(&self, field: &str) -> Vec<Vec<String>> {
        match self {
            Self::All(nodes) => nodes.iter().flat_map(|node| node.groups(field)).collect(),
            Self::Any(nodes) => {
                let branches: Option<Vec<_>> =
                    nodes.iter().map(|node| node.groups(field).into_iter().min_by_key(Vec::len)).collect();
                branches.map(|branches| branches.concat()).into_iter().collect()
            }
            Self::Not(_) => Vec::new(),
            Self::Condition(condition) => condition.groups(field),
        }
    }

    /// Narrows the range in which the field's only value is.
    fn range(&self, field: &str, from: &mut Option<String>, to: &mut Option<String>) {
        match self {
            Self::All(nodes) => nodes.iter().for_each(|node| node.range(field, from, to)),
            Self::Condition(condition) => condition.range(field, from, to),
            Self::Any(_) | Self::Not(_) => {}
        }
    }
}

impl Condition {
    fn groups(&self, field: &str) -> Vec<Vec<String>> {
        if self.negated || !self.path.is(field) {
            return Vec::new();
        }
        let string = |value: &Value| value.as_str().map(str::to_owned);
        match &self.test {
            // What is no string is in no field of strings, except that `null` is in one that has none.
            Test::OneOf(list) if list.iter().any(|value| !value.is_string()) => Vec::new(),
            Test::OneOf(list) => vec![list.iter().filter_map(string).collect()],
            Test::EachOf(list) if list.is_empty() => vec![Vec::new()],
            Test::EachOf(list) => list.iter().filter_map(string).map(|one| vec![one]).collect(),
            _ => Vec::new(),
        }
    }

    fn range(&self, field: &str, from: &mut Option<String>, to: &mut Option<String>) {
        if self.negated || !self.path.is(field) {
            return;
        }
        match &self.test {
            Test::Compare(accepts, Value::String(bound)) => {
                if !accepts(Ordering::Less) {
                    raise(from, bound.clone());
                }
                if !accepts(Ordering::Greater) {
                    lower(to, bound.clone());
                }
            }
            Test::Regex(regex) => {
                if let Some(prefix) = literal_prefix(regex.as_str()) {
                    lower(to, format!("{prefix}{}", char::MAX));
                    raise(from, prefix);
                }
            }
            _ => {}
        }
    }
}

fn raise(bound: &mut Option<String>, to: String) {
    if bound.as_ref().is_none_or(|bound| *bound < to) {
        *bound = Some(to);
    }
}

fn lower(bound: &mut Option<String>, to: String) {
    if bound.as_ref().is_none_or(|bound| *bound > to) {
        *bound = Some(to);
    }
}

/// What every match of an anchored pattern begins with, as far as it is written out in letters, digits, `-`, `_`, `:` and
/// escaped signs. The parser keeps patterns with options apart, as `(?i)` before them.
fn literal_prefix(pattern: &str) -> Option<String> {
    let rest = pattern.strip_prefix('^')?;
    if rest.contains('|') {
        return None;
    }
    let (mut prefix, mut rest) = (String::new(), rest.chars().peekable());
    while let Some(&letter) = rest.peek() {
        let literal = match letter {
            '\\' => {
                rest.next();
                rest.peek().copied().filter(|sign| sign.is_ascii_punctuation() && !"<>".contains(*sign))
            }
            _ => Some(letter).filter(|letter| letter.is_alphanumeric() || "-_:".contains(*letter)),
        };
        let Some(literal) = literal else { break };
        rest.next();
        // What may be there not at all, or more than once, is not known to be there once.
        if rest.peek().is_some_and(|next| "?*{+".contains(*next)) {
            break;
        }
        prefix.push(literal);
    }
    (!prefix.is_empty()).then_some(prefix)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::definition::Kind;

    fn plan(body: Value) -> Plan {
        Filter::parse(Kind::Tool, &body).expect("valid").plan()
    }

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn what_every_match_has_is_told() {
        for (body, tags, ids) in [
            (json!({}), vec![], None),
            (json!({"tool_search_tags": "a"}), vec![owned(&["a"])], None),
            (json!({"tool_tags": {"$in": ["b", "a", "b"]}}), vec![owned(&["a", "b"])], None),
            (json!({"tool_tags": {"$all": ["a", "b"]}}), vec![owned(&["a"]), owned(&["b"])], None),
            (json!({"tool_tags": {"$all": []}}), vec![owned(&[])], None),
            (json!({"tool_tags": {"$in": ["a", null]}}), vec![], None),
            (json!({"tool_tags": ["a"]}), vec![], None),
            (json!({"tool_tags": {"$nin": ["a"]}}), vec![], None),
            (json!({"tool_tags": {"$not": {"$in": ["a"]}}}), vec![], None),
            (json!({"$nor": [{"tool_tags": "a"}]}), vec![], None),
            (json!({"$or": [{"tool_tags": "a"}, {"tool_tags": "b"}]}), vec![owned(&["a", "b"])], None),
            (json!({"$or": [{"tool_tags": "a"}, {"tool_id": "b"}]}), vec![], None),
            (json!({"tool_tags": {"$all": [["x"], "b"]}}), vec![owned(&["b"])], None),
            (json!({"tool_tags": {"$in": []}}), vec![owned(&[])], None),
            (json!({"tool_tags.0": "a"}), vec![], None),
            (json!({"tool_tags": null}), vec![], None),
            (
                json!({"$and": [{"tool_tags": "a"}, {"tool_id": {"$in": ["x", "y"]}}], "tool_id": "x"}),
                vec![owned(&["a"])],
                Some(owned(&["x"])),
            ),
            (json!({"tool_metadata.tool_id": "a"}), vec![], None),
        ] {
            let plan = plan(body.clone());
            assert_eq!((plan.tags, plan.ids), (tags, ids), "{body}");
        }
    }

    #[test]
    fn ids_in_a_range_are_told() {
        let end = |prefix: &str| Some(format!("{prefix}{}", char::MAX));
        for (condition, from, to) in [
            (json!({"$gt": "a"}), Some("a"), None),
            (json!({"$gte": "a", "$lt": "c"}), Some("a"), Some("c".to_owned())),
            (json!({"$gt": 5}), None, None),
            (json!({"$regex": "^pet\\.find"}), Some("pet.find"), end("pet.find")),
            (json!({"$regex": "^ab?"}), Some("a"), end("a")),
            (json!({"$regex": "^a|b"}), None, None),
            (json!({"$regex": "^.a"}), None, None),
            (json!({"$regex": "^\\d"}), None, None),
            (json!({"$regex": "^\\<a"}), None, None),
            (json!({"$regex": "a"}), None, None),
            (json!({"$regex": "^a", "$options": "i"}), None, None),
            (json!({"$regex": "^a", "$options": "m"}), None, None),
            (json!({"$regex": "^a b", "$options": "x"}), None, None),
            (json!({"$not": {"$gt": "a"}}), None, None),
            (json!({"$elemMatch": {"$gt": "a"}}), None, None),
        ] {
            let plan = plan(json!({ "tool_id": condition }));
            assert_eq!((plan.from.as_deref(), plan.to), (from, to), "{condition}");
        }
        let both = plan(json!({"$and": [{"tool_id": {"$gt": "b"}}, {"tool_id": {"$gt": "a"}}]}));
        assert_eq!(both.from.as_deref(), Some("b"));
        assert_eq!(plan(json!({"$or": [{"tool_id": {"$gt": "b"}}]})).from, None);
    }
}
