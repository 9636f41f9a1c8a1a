//! JSON as text. Values pass through the client as they are written, because a number that went
//! through a parser may come back as another one (2^64, 0.10).

use std::io::Read;

use anyhow::{Context, Result};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Valid JSON on one line.
pub fn compact(text: &str) -> String {
    lay_out(text, false)
}

/// Valid JSON, indented by two.
pub fn pretty(text: &str) -> String {
    lay_out(text, true)
}

fn lay_out(text: &str, indented: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut depth = 0_usize;
    let mut rest = text.chars().filter_map(tokens()).peekable();
    while let Some((char, in_string)) = rest.next() {
        if !indented || in_string {
            out.push(char);
            continue;
        }
        let empty = matches!(rest.peek(), Some((']' | '}', false)));
        match char {
            '{' | '[' => {
                out.push(char);
                depth += 1;
                if !empty {
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if !out.ends_with(['{', '[']) {
                    new_line(&mut out, depth);
                }
                out.push(char);
            }
            ',' => {
                out.push(char);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => out.push(char),
        }
    }
    out
}

/// Drops the space between tokens, and tells of each other character whether it is in a string.
fn tokens() -> impl FnMut(char) -> Option<(char, bool)> {
    let (mut in_string, mut escaped) = (false, false);
    move |char| {
        let was_in_string = in_string;
        if in_string {
            in_string = escaped || char != '"';
            escaped = !escaped && char == '\\';
        } else {
            in_string = char == '"';
            if char.is_ascii_whitespace() {
                return None;
            }
        }
        Some((char, was_in_string || in_string))
    }
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

/// Text from a file, or from stdin when the name is `-`.
pub fn read(name: &str) -> Result<String> {
    let mut text = String::new();
    if name == "-" {
        std::io::stdin().read_to_string(&mut text).context("cannot read stdin")?;
    } else {
        text = std::fs::read_to_string(name).with_context(|| format!("cannot read {name}"))?;
    }
    Ok(text)
}

/// A JSON argument: the text itself, `@FILE`, or `-` for stdin.
pub fn argument(what: &str, given: &str) -> Result<Box<RawValue>> {
    let (text, place) = match given.strip_prefix('@') {
        Some(file) => (read(file)?, format!("{file}: ")),
        None if given == "-" => (read("-")?, "stdin: ".to_owned()),
        None => (given.to_owned(), String::new()),
    };
    let text = text.trim_start_matches('\u{feff}');
    let value: Box<RawValue> =
        serde_json::from_str(text).with_context(|| format!("{place}the {what} is not JSON"))?;
    // The service would say where in its frame that is.
    actors::json::check(text).with_context(|| format!("{place}the {what}"))?;
    Ok(value)
}

/// The values of a text that holds one value, an array of values, or JSON lines; each is a part of the text.
pub fn documents(text: &str) -> serde_json::Result<Vec<&RawValue>> {
    let text = text.trim_start_matches('\u{feff}');
    let mut documents = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        let value = value?;
        if value.get().starts_with('[') {
            documents.extend(serde_json::from_str::<Vec<&RawValue>>(value.get())?);
        } else {
            documents.push(value);
        }
    }
    Ok(documents)
}

/// For a field: keeps a `null` that is there apart from a key that is not, since `null` is an output.
pub fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_layout_touches_no_value() {
        let text = "{ \"b\" : [ 18446744073709551616 , 0.10, -0.0 ],\n\"a\":{ }, \"s\":\"x \\\" {,: \\\\\",\"e\":[] }";
        assert_eq!(
            compact(text),
            "{\"b\":[18446744073709551616,0.10,-0.0],\"a\":{},\"s\":\"x \\\" {,: \\\\\",\"e\":[]}"
        );
        assert_eq!(
            pretty(text),
            "{\n  \"b\": [\n    18446744073709551616,\n    0.10,\n    -0.0\n  ],\n  \"a\": {},\n  \"s\": \"x \\\" {,: \\\\\",\n  \"e\": []\n}"
        );
    }

    #[test]
    fn the_layout_is_that_of_serde_json() {
        let value =
            serde_json::json!({"a": [1, [], {}, [[2]], "é\n\"{["], "b": null, "c": {"d": true}, "": "[]"});
        let expected = serde_json::to_string_pretty(&value).unwrap();
        assert_eq!(pretty(&value.to_string()), expected);
        assert_eq!(compact(&expected), value.to_string());
    }

    #[test]
    fn one_object_an_array_and_lines_are_all_documents() {
        for (text, count) in [
            ("{\"a\":1}", 1),
            ("\u{feff}[{\"a\":1}, {\"b\":2}]", 2),
            ("{\"a\":1}\n{\"b\":2}\n\n{\"c\":3}\n", 3),
            ("", 0),
        ] {
            assert_eq!(documents(text).unwrap().len(), count, "{text}");
        }
        assert!(documents("{\"a\":1}\n{").is_err());
    }

    #[test]
    fn an_argument_that_is_not_json_says_which() {
        let error = argument("input", "{value: 5}").unwrap_err();
        assert!(format!("{error:#}").starts_with("the input is not JSON: key must be a string"));
        assert_eq!(argument("input", " {} ").unwrap().get(), "{}");
        let twice = format!("{:#}", argument("input", "{\"a\":1,\"a\":2}").unwrap_err());
        assert!(twice.starts_with("the input: not valid JSON: the key \"a\" stands twice"), "{twice}");
        assert!(twice.ends_with("at line 1 column 10"), "{twice}");
    }
}
