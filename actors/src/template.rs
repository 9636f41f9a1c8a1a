//! Templates: text in which `{{name}}` stands for a field of the input, and nothing else is special.
//!
//! `{{a.b}}` looks into objects. A string stands as it is, any other value as its JSON text, as it is written. There is no
//! shell and no escaping: one template is one argument.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::json::{self, RawObject};

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Vec<String>),
}

impl Template {
    /// Parses a template; braces around anything but a field's path are plain text.
    pub fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let (mut plain, mut rest) = (String::new(), text);
        while let Some(start) = rest.find("{{") {
            let field =
                rest[start + 2..].split_once("}}").and_then(|(inside, after)| Some((path(inside)?, after)));
            match field {
                Some((path, after)) => {
                    plain.push_str(&rest[..start]);
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(Part::Field(path));
                    rest = after;
                }
                None => {
                    plain.push_str(&rest[..=start]);
                    rest = &rest[start + 1..];
                }
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Self { parts }
    }

    /// The first field that the input does not have, as a JSON pointer.
    pub fn missing(&self, input: &Value) -> Option<String> {
        self.parts.iter().find_map(|part| match part {
            Part::Field(path) if find(path, input).is_none() => Some(format!("/{}", path.join("/"))),
            _ => None,
        })
    }

    /// The first field of the input whose text has a NUL character, which no argument can have, as a JSON pointer.
    pub fn with_nul(&self, input: &Value) -> Option<String> {
        self.parts.iter().find_map(|part| match part {
            Part::Field(path) => {
                let text = find(path, input)?.as_str()?;
                text.contains('\0').then(|| format!("/{}", path.join("/")))
            }
            Part::Text(_) => None,
        })
    }

    /// The text for this input; a field that it lacks is empty (see [`Template::missing`]).
    pub fn render(&self, input: &RawObject) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Field(path) => out.extend(raw(path, input).map(|raw| json::plain(&raw))),
            }
        }
        out
    }
}

fn path(inside: &str) -> Option<Vec<String>> {
    let is_name = |segment: &str| {
        !segment.is_empty() && segment.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
    };
    let segments: Vec<&str> = inside.trim_matches(' ').split('.').collect();
    segments.iter().all(|segment| is_name(segment)).then(|| segments.into_iter().map(str::to_owned).collect())
}

/// The text of a field, as it is written.
fn raw(path: &[String], input: &RawObject) -> Option<Box<RawValue>> {
    let (first, inside) = path.split_first()?;
    let value = input.get(first.as_str())?;
    if inside.is_empty() { Some(value.clone()) } else { raw(inside, &json::members(value.get()).ok()?) }
}

fn find<'a>(path: &[String], input: &'a Value) -> Option<&'a Value> {
    path.iter().try_fold(input, |value, segment| value.get(segment.as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_replaced_and_all_else_is_plain() {
        let input = r#"{"value":5,"name":"a b; rm","deep":{"x":[1]},"none":null,"big":{"b":1.50,"a":12345678901234567890123}}"#;
        let input = json::members(input).expect("an object");
        for (template, text) in [
            ("{{value}}", "5"),
            ("--n={{ name }}!", "--n=a b; rm!"),
            ("{{deep.x}}{{none}}", "[1]null"),
            ("{{big}} {{big.a}}", r#"{"b":1.50,"a":12345678901234567890123} 12345678901234567890123"#),
            ("BEGIN{print ARGV[1]+1}", "BEGIN{print ARGV[1]+1}"),
            ("{{{value}}}", "{5}"),
            ("{{a b}} {{}} {{ {", "{{a b}} {{}} {{ {"),
            ("", ""),
            ("}}{{", "}}{{"),
        ] {
            assert_eq!(Template::parse(template).render(&input), text, "{template}");
        }
    }

    #[test]
    fn a_field_that_no_argument_can_hold_is_named() {
        let template = Template::parse("{{a}} {{b.c}}");
        assert_eq!(template.with_nul(&json!({"a": "x", "b": {"c": "\0"}})), Some("/b/c".into()));
        // As JSON it is an escape.
        assert_eq!(template.with_nul(&json!({"a": "x", "b": {"c": ["\0"]}})), None);
    }

    #[test]
    fn a_field_that_the_input_lacks_is_named() {
        let template = Template::parse("{{a}} {{b.c}}");
        assert_eq!(template.missing(&json!({"a": 1, "b": {}})), Some("/b/c".into()));
        assert_eq!(template.missing(&json!({"a": null, "b": {"c": 0}})), None);
    }
}
