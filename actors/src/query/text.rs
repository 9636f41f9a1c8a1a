//! What `$text` asks for: words, phrases, and words that must not be there, in MongoDB's notation.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::json::shown;

/// How long a search may be, in characters, and how many words and phrases it may have.
const MAX_CHARS: usize = 1_000;
const MAX_PARTS: usize = 32;

/// A search over ids, tags and descriptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// Any of these; the more of them, the better.
    pub words: Vec<String>,
    /// All of these, each as it stands.
    pub phrases: Vec<String>,
    /// None of these words and phrases.
    pub excluded: Vec<String>,
}

impl Text {
    /// Reads the operand of `$text`.
    ///
    /// # Errors
    /// `invalid`, with the place below `$text`.
    pub fn parse(operand: &Value, place: &str) -> Result<Self> {
        let wrong = || Error::invalid("`$text` takes {\"$search\": \"words\"}").at(place);
        let map = operand.as_object().ok_or_else(wrong)?;
        if let Some(unknown) = map.keys().find(|key| *key != "$search") {
            let unknown = shown(unknown);
            let message = format!("`{unknown}` is not supported in `$text`; it has `$search`");
            return Err(Error::invalid(message).at(format!("{place}.{unknown}")));
        }
        let search = map.get("$search").and_then(Value::as_str).ok_or_else(wrong)?;
        let place = format!("{place}.$search");
        if search.chars().count() > MAX_CHARS {
            return Err(Error::invalid(format!("A search has at most {MAX_CHARS} characters")).at(place));
        }
        let text = Self::split(search);
        if text.words.is_empty() && text.phrases.is_empty() {
            return Err(Error::invalid("A search has at least one word that is not excluded").at(place));
        }
        if text.words.len() + text.phrases.len() + text.excluded.len() > MAX_PARTS {
            let message = format!("A search has at most {MAX_PARTS} words and phrases");
            return Err(Error::invalid(message).at(place));
        }
        Ok(text)
    }

    /// What is between quotes is a phrase; a `-` before a word or a phrase excludes it.
    fn split(search: &str) -> Self {
        let (mut text, mut excludes) = (Self::default(), false);
        for (at, part) in search.split('"').enumerate() {
            let is_quoted = at % 2 == 1;
            if is_quoted && part.contains(char::is_alphanumeric) {
                let phrases = if excludes { &mut text.excluded } else { &mut text.phrases };
                phrases.push(part.to_owned());
            }
            if is_quoted {
                continue;
            }
            excludes = part.split(char::is_whitespace).next_back() == Some("-");
            for word in part.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)) {
                match word.strip_prefix('-') {
                    Some(word) => text.excluded.push(word.to_owned()),
                    None => text.words.push(word.to_owned()),
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_phrases_and_what_is_excluded_are_told_apart() {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        for (search, words, phrases, excluded) in [
            ("weather city", &["weather", "city"][..], &[][..], &[][..]),
            ("weather -daily \"by city\"", &["weather"], &["by city"], &["daily"]),
            ("well-known", &["well-known"], &[], &[]),
            ("a \"open end", &["a"], &["open end"], &[]),
            ("- a -- \"\"", &["a"], &[], &[]),
            ("a -\"by city\" b", &["a", "b"], &[], &["by city"]),
            ("well-\"by city\"", &["well-"], &["by city"], &[]),
        ] {
            let text = Text::parse(&json!({ "$search": search }), "$text").expect(search);
            let expected = Text { words: owned(words), phrases: owned(phrases), excluded: owned(excluded) };
            assert_eq!(text, expected, "{search}");
        }
    }

    #[test]
    fn a_bad_search_names_its_place() {
        for (operand, place) in [
            (json!("x"), "$text"),
            (json!({}), "$text"),
            (json!({ "$search": 5 }), "$text"),
            (json!({ "$search": "x", "$language": "en" }), "$text.$language"),
            (json!({ "$search": "x", "a\nb": "en" }), "$text.a\u{fffd}b"),
            (json!({ "$search": " - " }), "$text.$search"),
            (json!({ "$search": "-x" }), "$text.$search"),
            (json!({ "$search": "x".repeat(1_001) }), "$text.$search"),
            (json!({ "$search": "x ".repeat(33) }), "$text.$search"),
        ] {
            let error = Text::parse(&operand, "$text").expect_err("bad");
            assert_eq!(error.details().expect("a place")["field"], place, "{operand}");
        }
    }
}
