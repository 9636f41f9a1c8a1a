//! A tool of an MCP server as a definition. Pure.

use rmcp::model::{JsonObject, Tool};
use serde_json::{Map, Value, json};

use crate::definition::{Definition, Kind};
use crate::schema::Schema;
use crate::settings::SourceSettings;

/// The text of a definition that runs this tool of the source.
///
/// # Errors
/// What it has that a definition cannot have, such as a `/` in its name.
pub fn of(tool: &Tool, source: &SourceSettings) -> Result<String, String> {
    let mut metadata = address(source);
    metadata.insert("runtime".into(), "mcp".into());
    metadata.insert("tool".into(), tool.name.clone().into());
    for (key, schema) in
        [("input_schema", Some(&tool.input_schema)), ("output_schema", tool.output_schema.as_ref())]
    {
        let Some(schema) = schema else { continue };
        match usable(schema) {
            Some(schema) => drop(metadata.insert(key.into(), schema)),
            // The server checks what it is given in any case.
            None => tracing::warn!(source = source.name, tool = %tool.name, key, "not a usable JSON Schema"),
        }
    }
    if let Some(title) = &tool.title {
        metadata.insert("title".into(), title.clone().into());
    }
    if let Some(annotations) = &tool.annotations {
        metadata.insert("annotations".into(), json!(annotations));
        if annotations.is_idempotent() || annotations.read_only_hint == Some(true) {
            metadata.insert("idempotent".into(), true.into());
        }
    }
    let text = json!({
        "tool_id": format!("{}{}", source.prefix, tool.name),
        "tool_search_tags": ["mcp", source.name],
        "tool_metadata": metadata,
        "tool_description": tool.description.as_deref().unwrap_or_default(),
        "tool_default_params": {},
    })
    .to_string();
    Definition::parse(Kind::Tool, &text).map_err(|error| error.to_string())?;
    Ok(text)
}

/// Where the server is. Headers may be secrets, and stay with the source.
fn address(source: &SourceSettings) -> Map<String, Value> {
    let mut metadata = Map::new();
    match (&source.mcp_url, source.mcp_command.split_first()) {
        (Some(url), _) => drop(metadata.insert("url".into(), url.clone().into())),
        (None, Some((program, args))) => {
            metadata.insert("entrypoint".into(), program.clone().into());
            metadata.insert("args".into(), args.into());
        }
        (None, None) => {}
    }
    metadata
}

/// The schema as it is where registration takes it, else without its `$schema`, which may name what nobody knows.
fn usable(schema: &JsonObject) -> Option<Value> {
    let whole = Value::Object(schema.clone());
    if Schema::compile(&whole).is_ok() {
        return Some(whole);
    }
    let mut plain = schema.clone();
    plain.remove("$schema")?;
    Some(Value::Object(plain)).filter(|plain| Schema::compile(plain).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(given: &str) -> SourceSettings {
        let mut settings: Value = serde_json::from_str(given).expect("JSON");
        settings["name"] = "demo".into();
        serde_json::from_value(settings).expect("settings")
    }

    fn tool(given: Value) -> Tool {
        let mut tool = json!({ "name": "add", "inputSchema": { "type": "object" } });
        tool.as_object_mut().expect("an object").extend(given.as_object().expect("an object").clone());
        serde_json::from_value(tool).expect("a tool")
    }

    fn metadata(tool: &Tool, source: &SourceSettings) -> Value {
        let text = of(tool, source).expect("a definition");
        serde_json::from_str::<Value>(&text).expect("JSON")["tool_metadata"].clone()
    }

    #[test]
    fn a_tool_becomes_a_definition_without_the_sources_headers() {
        let source = source(
            r#"{"mcp_url": "http://x/mcp", "prefix": "demo.", "headers": {"authorization": "Bearer s3cret"}}"#,
        );
        let tool = tool(json!({
            "title": "Sum", "description": "Adds", "annotations": {"readOnlyHint": true},
            "outputSchema": {"type": "object", "x-other": 1}
        }));
        let text = of(&tool, &source).expect("a definition");
        assert!(!text.contains("s3cret"), "{text}");
        let whole: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(whole["tool_id"], "demo.add");
        assert_eq!(whole["tool_description"], "Adds");
        assert_eq!(whole["tool_search_tags"], json!(["mcp", "demo"]));
        let expected = json!({
            "runtime": "mcp", "url": "http://x/mcp", "tool": "add", "title": "Sum",
            "input_schema": {"type": "object"}, "output_schema": {"type": "object", "x-other": 1},
            "annotations": {"readOnlyHint": true}, "idempotent": true
        });
        assert_eq!(whole["tool_metadata"], expected);
    }

    #[test]
    fn a_command_becomes_an_entrypoint_with_its_arguments() {
        let source = source(r#"{"mcp_command": ["uvx", "some-server", "--quiet"]}"#);
        let metadata = metadata(&tool(json!({ "annotations": {"idempotentHint": false} })), &source);
        assert_eq!(
            (&metadata["entrypoint"], &metadata["args"]),
            (&json!("uvx"), &json!(["some-server", "--quiet"]))
        );
        assert_eq!((metadata.get("idempotent"), metadata.get("output_schema")), (None, None));
    }

    #[test]
    fn a_schema_of_any_draft_is_kept_and_one_that_cannot_be_used_is_left_out() {
        let source = source(r#"{"mcp_url": "http://x/mcp"}"#);
        let kept = |schema: Value| {
            metadata(&tool(json!({ "inputSchema": schema })), &source).get("input_schema").cloned()
        };
        for schema in [
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {"type": "string"}},
                   "properties": {"a": {"$ref": "#/definitions/a"}}, "dependencies": {"a": ["b"]}}),
            json!({"$schema": "http://json-schema.org/draft-04/schema#", "properties": {"a": {"minimum": 1, "exclusiveMinimum": true}}}),
            json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": {"a": {}}, "prefixItems": [{"$ref": "#/$defs/a"}]}),
        ] {
            assert_eq!(kept(schema.clone()), Some(schema));
        }
        let plain = json!({ "type": "object" });
        assert_eq!(kept(json!({ "$schema": "https://example.org/none", "type": "object" })), Some(plain));
        assert_eq!(kept(json!({ "$ref": "https://example.org/none" })), None);
    }

    #[test]
    fn a_name_that_is_no_id_is_told() {
        let source = source(r#"{"mcp_url": "http://x/mcp"}"#);
        let told = of(&tool(json!({ "name": "a/b" })), &source).expect_err("no id");
        assert!(told.contains("id"), "{told}");
    }
}
