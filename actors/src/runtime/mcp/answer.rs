//! What the result of a tool is as an output. Pure.

use rmcp::model::{CallToolResult, ContentBlock, ServerResult};
use serde::de::IgnoredAny;
use serde_json::json;

use crate::execution::Outcome;
use crate::json;
use crate::mcp::shortened;
use crate::runtime::bounds::Bounds;
use crate::runtime::output::Produced;

/// How much an outcome repeats of what a tool says about its failure, in bytes.
const MAX_SAID: usize = 2_048;

/// What is structured, as the one text there is has it, where that means the same; else the one text there is, where that is
/// JSON; else the content as it came.
///
/// # Errors
/// The tool failed, gave too much, or nothing that is a result.
pub fn read(result: ServerResult, bounds: &Bounds) -> Result<Produced, Outcome> {
    let result = match result {
        ServerResult::CallToolResult(result) => result,
        // A result without content looks like any empty one.
        ServerResult::EmptyResult(_) => CallToolResult::default(),
        _ => {
            return Err(Outcome::failed(
                "mcp_error",
                "the MCP server answered with what is no result of a tool",
            ));
        }
    };
    if result.is_error == Some(true) {
        return Err(failed(&result));
    }
    let output = output(result);
    if output.len() > bounds.output_bytes {
        return Err(bounds.output_too_large());
    }
    Ok(Produced::Json(output.into_bytes()))
}

fn output(result: CallToolResult) -> String {
    let alone = match &result.content[..] {
        [ContentBlock::Text(only)] => Some(&only.text),
        _ => None,
    };
    match (result.structured_content, alone) {
        // What is structured came through the library, which rounds numbers and sorts keys; the text is the server's own.
        (Some(structured), Some(text)) if json::parse(text).is_ok_and(|meant| meant == structured) => {
            json::compact(text)
        }
        (Some(structured), _) => structured.to_string(),
        (None, Some(text)) if serde_json::from_str::<IgnoredAny>(text).is_ok() => text.clone(),
        (None, _) => json!({ "content": result.content }).to_string(),
    }
}

fn failed(result: &CallToolResult) -> Outcome {
    let texts = result.content.iter().filter_map(|block| Some(block.as_text()?.text.as_str()));
    let said = texts.collect::<Vec<_>>().join("\n");
    let said = match (said.trim(), &result.structured_content) {
        ("", Some(structured)) => structured.to_string(),
        ("", None) => "the tool failed and did not say why".to_owned(),
        (said, _) => said.to_owned(),
    };
    Outcome::failed("tool_error", shortened(&said, MAX_SAID))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;

    fn bounds() -> Bounds {
        Bounds {
            timeout: Duration::from_secs(1),
            output_bytes: 60,
            memory_bytes: 1,
            cpu: None,
            processes: 1,
            files: 1,
            disk_bytes: 1,
        }
    }

    fn read_value(result: Value) -> Result<String, (String, String)> {
        let result: ServerResult = serde_json::from_value(result).expect("a result");
        match read(result, &bounds()) {
            Ok(Produced::Json(json)) => Ok(String::from_utf8(json).expect("text")),
            Ok(other) => panic!("{other:?}"),
            Err(outcome) => {
                let failure = outcome.result.expect_err("a failure");
                Err((failure.code.into_owned(), failure.message))
            }
        }
    }

    fn text(text: &str) -> Value {
        json!({ "type": "text", "text": text })
    }

    #[test]
    fn an_output_is_what_is_structured_or_a_text_of_json_or_the_content() {
        for (result, output) in [
            (json!({ "content": [text("3")], "structuredContent": {"result": 3} }), r#"{"result":3}"#),
            (json!({ "content": [text("{\"a\": 1.50}")] }), "{\"a\": 1.50}"),
            (json!({ "content": [text("{\"a\": 1.50}")], "structuredContent": {"a": 1.5} }), "{\"a\":1.50}"),
            (json!({ "content": [text("plain")] }), r#"{"content":[{"text":"plain","type":"text"}]}"#),
            (json!({ "content": [] }), r#"{"content":[]}"#),
            (json!({}), r#"{"content":[]}"#),
        ] {
            let told = read_value(result).expect("an output");
            let value = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
            assert_eq!(value(&told), value(output));
            assert!(told == output || !output.contains("1.50"), "{told}");
        }
        let two = read_value(json!({ "content": [text("1"), text("2")] }));
        assert_eq!(two.expect_err("too large").0, "output_too_large");
    }

    #[test]
    fn a_tool_that_failed_says_why() {
        let error =
            |content: Value| read_value(json!({ "content": content, "isError": true })).expect_err("failed");
        assert_eq!(error(json!([text("one"), text("two")])), ("tool_error".into(), "one\ntwo".into()));
        assert!(error(json!([])).1.contains("did not say why"));
        assert_eq!(error(json!([text(&"é".repeat(4_000))])).1.len(), MAX_SAID + "…".len());
        let structured = json!({ "isError": true, "content": [], "structuredContent": {"why": "no room"} });
        assert_eq!(read_value(structured).expect_err("failed").1, r#"{"why":"no room"}"#);
    }

    #[test]
    fn what_is_no_result_of_a_tool_is_told() {
        let told = read_value(json!({ "tools": [], "nextCursor": "x" }));
        assert_eq!(told.expect_err("another result").0, "mcp_error");
    }
}
