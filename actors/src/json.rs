//! JSON as it came: strict parsing, and texts that keep every number as it was written.
//!
//! `serde_json::Value` rounds a number it cannot hold, so what a client stored or passed on is carried as
//! its own text (`RawValue`) and only looked at through a `Value`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};

/// An object whose values are kept as their own text.
pub type RawObject = BTreeMap<String, Box<RawValue>>;

/// How deep JSON may be nested (`serde_json`'s own bound).
pub const MAX_DEPTH: usize = 127;

/// As the only key of an object `serde_json` takes this for the text of another value. What was checked would mean
/// something else where it is read again.
const RAW: &str = "$serde_json::private::RawValue";

/// Parses JSON, refusing duplicate keys, more than [`MAX_DEPTH`] levels, trailing text, and a key that `serde_json` keeps
/// for itself.
///
/// # Errors
/// `invalid`, with the line and column.
pub fn parse(text: &str) -> Result<Value> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Strict
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| Error::invalid(format!("not valid JSON: {error}")))
}

/// Refuses what [`parse`] refuses, without the room that a `Value` takes.
///
/// # Errors
/// `invalid`, with the line and column.
pub fn check(text: &str) -> Result<()> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Sound
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end())
        .map_err(|error| Error::invalid(format!("not valid JSON: {error}")))
}

/// Splits an object into its members' texts. What is inside of them is [`parse`]'s to check.
///
/// # Errors
/// `invalid` where the text is no object, or a key stands twice.
pub fn members(text: &str) -> Result<RawObject> {
    let mut object = RawObject::new();
    for (key, member) in ordered_members(text)? {
        if object.contains_key(&key) {
            return Err(Error::invalid(format!("not valid JSON: the key `{}` stands twice", shown(&key))));
        }
        object.insert(key, member);
    }
    Ok(object)
}

/// The same, in the order in which they stand.
///
/// # Errors
/// `invalid` where the text is no object.
pub fn ordered_members(text: &str) -> Result<Vec<(String, Box<RawValue>)>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let members = deserializer.deserialize_map(Members);
    let members = members.and_then(|members| deserializer.end().map(|()| members));
    members.map_err(|error| Error::invalid(format!("not a JSON object: {error}")))
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, Box<RawValue>)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

/// The same JSON without the white space between its tokens; strings and numbers stay as written.
pub fn compact(text: &str) -> String {
    let is_space = |character| matches!(character, ' ' | '\t' | '\n' | '\r');
    // Mostly it is so already.
    if !text.contains(is_space) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for character in text.chars() {
        if in_string {
            out.push(character);
            match character {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = false,
                _ => {}
            }
        } else if !is_space(character) {
            in_string = character == '"';
            out.push(character);
        }
    }
    out
}

/// How deep valid JSON is nested: 0 for a number, 1 for `[]`.
pub fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// What a value is where no JSON is meant: a string without its quotes, anything else as it is written.
pub fn plain(value: &RawValue) -> String {
    let text = value.get();
    serde_json::from_str(text).unwrap_or_else(|_| text.to_owned())
}

/// The first number of valid JSON that is another one as a double or a 64-bit integer: most libraries read it as that.
pub fn rounded(text: &str) -> Option<&str> {
    let (mut rest, mut in_string) = (text, false);
    while let Some(first) = rest.bytes().next() {
        let length = match first {
            b'\\' if in_string => 2,
            b'"' => {
                in_string = !in_string;
                1
            }
            b'-' | b'0'..=b'9' if !in_string => {
                let is_of_number = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E');
                let length = rest.find(|c| !is_of_number(c)).unwrap_or(rest.len());
                if !is_exact(&rest[..length]) {
                    return Some(&rest[..length]);
                }
                length
            }
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    None
}

fn is_exact(number: &str) -> bool {
    if number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok() {
        return true;
    }
    number.parse::<f64>().is_ok_and(|double| decimal(&format!("{double:e}")) == decimal(number))
}

/// The digits of a number without the zeros around them, and the power of ten of the last one.
fn decimal(number: &str) -> (String, i64) {
    let number = number.trim_start_matches('-');
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return (String::new(), 0);
    }
    let places = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
    let power = exponent.parse::<i64>().unwrap_or(i64::MAX);
    let zeros = places(digits.len() - significant.len());
    (significant.to_owned(), power.saturating_add(zeros).saturating_sub(places(fraction.len())))
}

/// A JSON string literal.
pub fn quote(text: &str) -> String {
    Value::from(text).to_string()
}

/// How much of a client's key an error repeats, in characters.
const MAX_SHOWN: usize = 256;

/// A client's key as an error repeats it: bounded, on one line.
pub fn shown(key: &str) -> String {
    one_line(&shortened(key, MAX_SHOWN))
}

/// So many characters of a text; an ellipsis tells that there are more.
pub fn shortened(text: &str, chars: usize) -> Cow<'_, str> {
    // No text has more characters than bytes.
    let end = if text.len() > chars { text.char_indices().nth(chars) } else { None };
    match end {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// The same text without line breaks and other control characters.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// What a value is called in an error.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Builds a `Value`, refusing what `Value`'s own deserialiser lets pass: a key that stands twice.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> std::result::Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> std::result::Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> std::result::Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(Strict)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> std::result::Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            admit(&key, object.contains_key(&key))?;
            let value = access.next_value_seed(Strict)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// Whether an object may have this key, which is in it already or not.
fn admit<E: serde::de::Error>(key: &str, is_there: bool) -> std::result::Result<(), E> {
    match key {
        RAW => Err(E::custom(format!("the key {} is reserved", quote(key)))),
        _ if is_there => Err(E::custom(format!("the key {} stands twice", quote(&shown(key))))),
        _ => Ok(()),
    }
}

/// Reads a value as [`Strict`] does, and keeps nothing of it.
struct Sound;

impl<'de> DeserializeSeed<'de> for Sound {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Sound {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> std::result::Result<(), A::Error> {
        while access.next_element_seed(Self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> std::result::Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = access.next_key::<String>()? {
            admit(&key, keys.contains(&key))?;
            access.next_value_seed(Self)?;
            keys.insert(key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_text() {
        let text =
            r#"{"a":18446744073709551615,"b":9007199254740993,"c":1e308,"d":0.10,"e":-0.0,"f":"a \" b"}"#;
        let spaced = text.replace(':', " :\n\t");
        assert!(parse(text).is_ok());
        assert_eq!(compact(&spaced), text);
        let members = members(text).expect("an object");
        assert_eq!(members["d"].get(), "0.10");
        assert_eq!(members["a"].get(), "18446744073709551615");
    }

    #[test]
    fn a_number_that_does_not_survive_is_found() {
        for text in [
            "1",
            "-0.0",
            "1.50",
            "18446744073709551615",
            "-9223372036854775808",
            "0.1",
            "1e22",
            "100e-2",
            "2.5E+3",
            "123456.789012345",
            r#"{"12345678901234567890123":["a \" 12345678901234567890123","é"]}"#,
        ] {
            assert_eq!(rounded(text), None, "{text}");
        }
        for number in ["12345678901234567890123", "18446744073709551617", "0.12345678901234567890", "1e400"] {
            assert_eq!(rounded(&format!(r#"{{"a\\":[1,{number}]}}"#)), Some(number));
        }
    }

    #[test]
    fn depth_counts_what_is_nested_and_not_what_is_quoted() {
        for (text, levels) in [("1", 0), ("[]", 1), (r#"{"a":[{}],"b":1}"#, 3), (r#"["[[[\"[[",[]]"#, 2)] {
            assert_eq!(depth(text), levels, "{text}");
        }
    }

    #[test]
    fn strings_keep_their_spaces_and_escapes() {
        assert_eq!(compact(r#" { "a b" : "c \" \\" , "d" : [ 1 , 2 ] } "#), r#"{"a b":"c \" \\","d":[1,2]}"#);
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_at_any_depth() {
        for text in [r#"{"a":1,"a":2}"#, r#"[{"b":{"a":1,"\u0061":2}}]"#] {
            let error = parse(text).expect_err("a duplicate");
            assert!(error.to_string().contains("\"a\" stands twice"), "{error}");
        }
        let error = members(r#"{"a":1,"\u0061":2}"#).expect_err("a duplicate");
        assert!(error.to_string().contains("`a` stands twice"), "{error}");
        assert!(members("{} {}").is_err() && members("[]").is_err());
    }

    #[test]
    fn what_was_read_is_read_the_same_by_the_library_alone() {
        for text in [
            r#"{"$serde_json::private::RawValue":"5"}"#,
            r#"[{"a":1,"$serde_json::private::\u0052awValue":"5"}]"#,
        ] {
            let error = parse(text).expect_err("it stands for another value");
            assert!(error.to_string().contains("is reserved"), "{error}");
        }
        let text = r#"{"$serde_json::private":"5","$ref":"a"}"#;
        assert_eq!(parse(text).ok(), serde_json::from_str(text).ok());
    }

    #[test]
    fn a_clients_key_is_shown_on_one_line_and_bounded() {
        assert_eq!(shown("a\r\nb"), "a\u{fffd}\u{fffd}b");
        assert_eq!(shown(&"é".repeat(256)), "é".repeat(256));
        assert_eq!(shown(&"é".repeat(257)), "é".repeat(256) + "…");
    }

    #[test]
    fn depth_trailing_text_and_huge_numbers_are_refused() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(&deep(MAX_DEPTH)).is_ok());
        for text in [deep(MAX_DEPTH + 1).as_str(), &deep(100_000), "{} {}", "1e400", "", "{\"a\":}"] {
            assert!(parse(text).is_err(), "{}", &text[..text.len().min(20)]);
        }
    }

    #[test]
    fn what_is_checked_is_refused_as_what_is_parsed() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        for text in [
            r#"{"a":[1,-2.5,18446744073709551616,null,true,"\u00e9\ud83d\ude00"],"b":{"a":1}}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"[{"b":{"a":1,"a":2}}]"#,
            r#"{"$serde_json::private::RawValue":"5"}"#,
            r#"{"a":"\ud800"}"#,
            "1e400",
            "{} {}",
            "",
            "{\"a\":}",
            &deep(MAX_DEPTH),
            &deep(MAX_DEPTH + 1),
        ] {
            let (parsed, checked) = (parse(text).map(drop), check(text));
            assert_eq!(parsed.map_err(|error| error.to_string()), checked.map_err(|error| error.to_string()));
        }
    }
}
