//! Which ids a principal may use: all, or those that one of its patterns matches. Pure.

use regex::Regex;
use serde_json::json;

use crate::definition::Kind;
use crate::error::{Code, Error, Result};
use crate::query::Filter;

/// How many patterns a principal may have, and how long one may be, in bytes.
const MAX_PATTERNS: usize = 16;
const MAX_PATTERN: usize = 128;

/// The ids that may be used. In a pattern `*` stands for any text and `?` for one character; everything else stands for
/// itself.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    /// None: all ids.
    patterns: Option<Vec<(String, Regex)>>,
}

impl Ids {
    /// Those that one of these patterns matches.
    ///
    /// # Errors
    /// `invalid`: no pattern, too many of them, or one that is empty or too long.
    pub fn matching(patterns: &[String]) -> Result<Self> {
        if patterns.is_empty() || patterns.len() > MAX_PATTERNS {
            return Err(Error::invalid(format!("`ids` has not 1 to {MAX_PATTERNS} patterns")).at("ids"));
        }
        let compiled = patterns.iter().enumerate().map(|(place, pattern)| {
            let bad =
                |what: &str| Error::invalid(format!("`ids[{place}]` {what}")).at(format!("ids[{place}]"));
            if pattern.is_empty() || pattern.len() > MAX_PATTERN {
                return Err(bad(&format!("has not 1 to {MAX_PATTERN} bytes")));
            }
            let regex = Regex::new(&expression(pattern)).map_err(|_| bad("is too large"))?;
            Ok((pattern.clone(), regex))
        });
        Ok(Self { patterns: Some(compiled.collect::<Result<_>>()?) })
    }

    /// Whether this id is one of them.
    pub fn has(&self, id: &str) -> bool {
        let patterns = self.patterns.as_ref();
        patterns.is_none_or(|patterns| patterns.iter().any(|(_, regex)| regex.is_match(id)))
    }

    /// What is told of an id that is none of them.
    pub fn refusal(&self) -> Error {
        Error::new(Code::Forbidden, "this key may not use this id")
    }

    /// The patterns; none where all ids may be used.
    pub fn patterns(&self) -> Option<impl Iterator<Item = &str>> {
        self.patterns.as_ref().map(|patterns| patterns.iter().map(|(pattern, _)| pattern.as_str()))
    }

    /// The same filter, of these ids only.
    ///
    /// # Errors
    /// `invalid` where the patterns are more than a filter may hold, which these bounds rule out.
    pub fn narrow(&self, kind: Kind, filter: Filter) -> Result<Filter> {
        let Some(patterns) = self.patterns() else { return Ok(filter) };
        let each = patterns.map(|pattern| json!({ kind.field("id"): { "$regex": expression(pattern) } }));
        // One alone is a condition of its own, for which an index may narrow the search.
        let ids = match each.collect::<Vec<_>>().as_slice() {
            [one] => Filter::parse(kind, one)?,
            many => Filter::parse(kind, &json!({ "$or": many }))?,
        };
        Ok(filter.and(ids))
    }
}

/// The pattern as a regular expression of the whole id, which has no line breaks.
fn expression(pattern: &str) -> String {
    let parts = pattern.chars().map(|character| match character {
        '*' => ".*".to_owned(),
        '?' => ".".to_owned(),
        other => regex::escape(other.encode_utf8(&mut [0; 4])),
    });
    format!("^{}$", parts.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(patterns: &[&str]) -> Result<Ids> {
        Ids::matching(&patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_pattern_matches_whole_ids() {
        assert!(Ids::default().has("anything"));
        let some = ids(&["weather_*", "a.b", "x?z:*"]).expect("valid");
        for id in ["weather_", "weather_lookup:v1.0.0", "a.b", "xyz:", "xéz:1"] {
            assert!(some.has(id), "{id}");
        }
        for id in ["the_weather_", "weather", "a.bc", "axb", "xz:1", "A.B", "", "a.b\n"] {
            assert!(!some.has(id), "{id}");
        }
    }

    #[test]
    fn bad_patterns_are_named() {
        for (patterns, place) in [
            (vec![], "ids"),
            (vec!["a", ""], "ids[1]"),
            (vec!["a"; 17], "ids"),
            (vec![&*"é".repeat(65)], "ids[0]"),
        ] {
            let error = ids(&patterns).expect_err(place);
            assert_eq!(error.details().expect("a place")["field"], place);
        }
    }

    #[test]
    fn a_filter_is_narrowed_to_the_ids() {
        let all = || Filter::parse(Kind::Tool, &json!({})).expect("valid");
        let narrowed = ids(&["a*", "(b)"]).expect("valid").narrow(Kind::Tool, all()).expect("fits");
        let of = |id: &str| json!({ "tool_id": id });
        assert!(narrowed.matches(&of("abc")) && narrowed.matches(&of("(b)")));
        assert!(!narrowed.matches(&of("b")) && !narrowed.matches(&of("ba")));
        assert!(Ids::default().narrow(Kind::Tool, all()).expect("fits").matches(&of("b")));
        let most = ids(&[&*"*?".repeat(64); MAX_PATTERNS]).expect("valid");
        assert!(
            most.narrow(Kind::Function, Filter::parse(Kind::Function, &json!({})).expect("valid")).is_ok()
        );
    }
}
