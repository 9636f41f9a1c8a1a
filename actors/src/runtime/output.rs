//! How what a run produced becomes its output: by the definition's output mode, and checked by its schema. Pure.

use serde_json::Value;

use crate::execution::Outcome;
use crate::json;
use crate::spec::{OutputMode, Spec};

/// What a run produced.
#[derive(Debug)]
pub enum Produced {
    /// Bytes that the output mode reads.
    Bytes(Vec<u8>),
    /// One JSON document, whatever the output mode.
    Json(Vec<u8>),
}

/// The output's JSON text.
///
/// # Errors
/// A `failed` outcome with the code `invalid_output`, saying what is wrong and where.
pub fn read(produced: Produced, spec: &Spec) -> Result<String, Outcome> {
    let (bytes, mode) = match produced {
        Produced::Bytes(bytes) => (bytes, &spec.mode),
        Produced::Json(bytes) => (bytes, &OutputMode::Json),
    };
    let text = String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        invalid(format!("the output is not valid UTF-8 at byte {place}"))
    })?;
    let output = apply(mode, &text)?;
    if let Some(schema) = &spec.output {
        let value = serde_json::from_str(&output)
            .map_err(|error| invalid(format!("the output is not JSON: {error}")))?;
        schema
            .check(&value)
            .map_err(|problem| invalid(format!("the output does not fit its schema: {problem}")))?;
    }
    Ok(output)
}

fn apply(mode: &OutputMode, text: &str) -> Result<String, Outcome> {
    Ok(match mode {
        OutputMode::Json => document(text)?,
        OutputMode::Text => format!(r#"{{"stdout":{}}}"#, json::quote(text)),
        OutputMode::Lines => Value::from(text.lines().collect::<Vec<_>>()).to_string(),
        // Under a name of its own, text needs no other.
        OutputMode::Wrapped(key, inner) if **inner == OutputMode::Text => {
            format!("{{{}:{}}}", json::quote(key), json::quote(text))
        }
        OutputMode::Wrapped(key, inner) => format!("{{{}:{}}}", json::quote(key), apply(inner, text)?),
    })
}

/// One JSON document, with its text kept.
fn document(text: &str) -> Result<String, Outcome> {
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    if text.is_empty() {
        return Err(invalid("the output is empty, and one JSON document was expected".into()));
    }
    json::check(text).map_err(|error| {
        invalid(match json::depth(text) {
            0..=json::MAX_DEPTH => format!("the output is {error}"),
            _ => format!("the output is nested deeper than {} levels", json::MAX_DEPTH),
        })
    })?;
    Ok(json::compact(text))
}

fn invalid(message: String) -> Outcome {
    Outcome::failed("invalid_output", message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(output: Value, schema: Value) -> Spec {
        let metadata = json!({"output": output, "output_schema": schema});
        Spec::parse(metadata.as_object().expect("an object")).expect("valid")
    }

    fn bytes(text: &str) -> Produced {
        Produced::Bytes(text.into())
    }

    #[test]
    fn each_mode_makes_its_output() {
        for (mode, text, output) in [
            (json!("json"), " {\"a\": 1.50} \n", r#"{"a":1.50}"#),
            (json!("json"), "18446744073709551616", "18446744073709551616"),
            (json!("text"), "a\n", r#"{"stdout":"a\n"}"#),
            (json!("lines"), "a\nb c\n", r#"["a","b c"]"#),
            (json!({"result": "json"}), "6\n", r#"{"result":6}"#),
            (json!({"out": "lines"}), "", r#"{"out":[]}"#),
            (json!({"said": "text"}), "a\n", r#"{"said":"a\n"}"#),
        ] {
            assert_eq!(read(bytes(text), &with(mode, json!(true))).expect("an output"), output);
        }
    }

    #[test]
    fn what_is_no_output_says_why() {
        let spec = with(json!("json"), json!({"properties": {"a": {"type": "integer"}}}));
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for (produced, why) in [
            (bytes(""), "empty"),
            (bytes("{} {}"), "trailing characters"),
            (bytes("nonsense"), "the output is not valid JSON"),
            (bytes(r#"{"b":1,"b":1}"#), "the key \"b\" stands twice"),
            (bytes(r#"{"b":"\ud800"}"#), "column"),
            (bytes(r#"{"b":1e400}"#), "number out of range"),
            (bytes(&deep), "nested deeper than 127 levels"),
            (Produced::Bytes(vec![b'"', 0xff, b'"']), "UTF-8 at byte 1"),
            (bytes(r#"{"a":"x"}"#), "/a: "),
        ] {
            let outcome = read(produced, &spec).expect_err(why);
            let failure = outcome.result.expect_err("a failure");
            assert_eq!(failure.code, "invalid_output");
            assert!(failure.message.contains(why), "{}", failure.message);
        }
    }
}
