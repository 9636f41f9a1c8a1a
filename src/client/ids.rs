//! How a definition is known: by its id, whose field tells a tool from a function. Pure.

use actors::definition::Kind;
use anyhow::{Result, anyhow};
use serde::Deserialize;

/// The ids of a definition of either kind.
#[derive(Debug, Default, Deserialize)]
pub struct Ids {
    tool_id: Option<String>,
    function_id: Option<String>,
}

impl Ids {
    /// Reads them out of the JSON text of a definition.
    ///
    /// # Errors
    /// It is not JSON, not an object, or an id is no text.
    pub fn of(text: &str) -> Result<Self> {
        // An array would be taken for the fields in their order.
        if !text.starts_with('{') {
            return Err(anyhow!("a definition is a JSON object"));
        }
        serde_json::from_str(text).map_err(|error| anyhow!(reason(&error)))
    }

    /// The id of a definition of this kind.
    pub fn get(self, kind: Kind) -> Option<String> {
        match kind {
            Kind::Tool => self.tool_id,
            Kind::Function => self.function_id,
        }
    }
}

/// Tells a tool from a function.
///
/// # Errors
/// As [`Ids::of`]; and it has no id, or those of both kinds.
pub fn identify(text: &str) -> Result<(Kind, String)> {
    let ids = Ids::of(text)?;
    match (ids.tool_id, ids.function_id) {
        (Some(id), None) => Ok((Kind::Tool, id)),
        (None, Some(id)) => Ok((Kind::Function, id)),
        (None, None) => Err(anyhow!("it has neither a tool_id nor a function_id")),
        (Some(_), Some(_)) => Err(anyhow!("it has both a tool_id and a function_id")),
    }
}

/// What is wrong, without the line: it would be counted from the definition, not from the file.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let what = text.strip_suffix(&place).unwrap_or(&text);
    if error.is_data() { what.to_owned() } else { format!("not JSON: {what} at column {}", error.column()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_known_by_its_id() {
        assert_eq!(identify(r#"{"tool_id":"x","tool_metadata":{}}"#).unwrap(), (Kind::Tool, "x".to_owned()));
        assert_eq!(identify(r#"{"function_id":"f:v1"}"#).unwrap(), (Kind::Function, "f:v1".to_owned()));
    }

    #[test]
    fn what_is_no_definition_says_why() {
        for (text, reason) in [
            ("{}", "it has neither a tool_id nor a function_id"),
            (r#"{"tool_id":"x","function_id":"y"}"#, "it has both a tool_id and a function_id"),
            (r#"{"tool_id":5}"#, "invalid type: integer `5`, expected a string"),
            (r#"["a","b"]"#, "a definition is a JSON object"),
            ("7", "a definition is a JSON object"),
            (r#"{"tool_id":"x",}"#, "not JSON: trailing comma at column 16"),
            (r#"{"tool_id":"x""#, "not JSON: EOF while parsing an object at column 14"),
        ] {
            assert_eq!(identify(text).unwrap_err().to_string(), reason, "{text}");
        }
    }
}
