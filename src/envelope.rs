//! The envelope of everything that failed, the same on both ports.

use actors::error::Error;
use actors::json::quote;
use serde_json::Value;

/// `{"success":false,"error":"one sentence","code":"snake_case"}`, with `details` where a place can be named.
pub fn refusal(error: &Error) -> String {
    failure(&error.to_string(), error.code().as_str(), error.details())
}

/// The same, for an execution that ended without an output.
pub fn failure(message: &str, code: &str, details: Option<&Value>) -> String {
    let details = details.map_or_else(String::new, |details| format!(r#","details":{details}"#));
    format!(r#"{{"success":false,"error":{},"code":"{code}"{details}}}"#, quote(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_told_in_one_order() {
        let error = Error::invalid("a \"word\"").at("tool_id");
        let expected =
            r#"{"success":false,"error":"a \"word\"","code":"invalid","details":{"field":"tool_id"}}"#;
        assert_eq!(refusal(&error), expected);
        assert_eq!(
            failure("x", "exit_status", None),
            r#"{"success":false,"error":"x","code":"exit_status"}"#
        );
    }
}
