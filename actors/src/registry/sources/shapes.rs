//! What registries answer: this project's own shape or that of the org's registries, bare or inside
//! `{"success":true,"data":…}`.

use serde_json::{Map, Value, json};

use crate::definition::{Definition, Kind};
use crate::error::Error;
use crate::execution::Runtime;
use crate::json;

/// Reads an answer in either envelope and either shape.
pub fn read(kind: Kind, id: &str, text: &str, value: &Value) -> std::result::Result<Definition, String> {
    let unusable = |error: Error| format!("gave a definition that cannot be used: {error}");
    let object = value.as_object().ok_or("gave an answer that is no object")?;
    if object.get("success") == Some(&Value::Bool(false)) {
        return Err("answered that it failed".into());
    }
    let data = match object.get("success").and(object.get("data")) {
        Some(_) => json::members(text).map_err(unusable)?.remove("data").map(|raw| raw.get().to_owned()),
        None => None,
    };
    let text = data.as_deref().unwrap_or(text);
    let value = json::parse(text).map_err(unusable)?;
    let object = value.as_object().ok_or("gave a definition that is no object")?;
    let text = match kind {
        Kind::Tool if is_org_shape(object, &ORG_TOOL_KEYS) => org_tool(object).to_string(),
        Kind::Function if is_org_shape(object, &ORG_FUNCTION_KEYS) => org_function(object, id).to_string(),
        _ => text.to_owned(),
    };
    Definition::parse(kind, &text).map_err(unusable)
}

/// Keys that only the org's registries use.
const ORG_TOOL_KEYS: [&str; 9] = [
    "tool_search_description",
    "tool_type",
    "tool_sub_type",
    "tool_runtime_type",
    "tool_api_spec",
    "tool_input_schema",
    "tool_output_schema",
    "tool_source_code_link",
    "tool_man_page_doc_link",
];
const ORG_FUNCTION_KEYS: [&str; 3] = ["function_name", "function_version", "function_protocol_type"];

fn is_org_shape(object: &Map<String, Value>, keys: &[&str]) -> bool {
    keys.iter().any(|key| object.contains_key(*key))
}

/// The org's tool: its typed fields become metadata.
fn org_tool(tool: &Map<String, Value>) -> Value {
    let mut metadata = tool.get("tool_metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    copy(
        tool,
        &mut metadata,
        &[
            ("tool_type", "type"),
            ("tool_sub_type", "subtype"),
            ("tool_api_spec", "api_spec"),
            ("tool_input_schema", "input_schema"),
            ("tool_output_schema", "output_schema"),
            ("tool_data", "data"),
            ("tool_source_code_link", "source_url"),
            ("tool_man_page_doc_link", "man_page"),
        ],
    );
    // A runtime that is none of ours is kept, under a name without a meaning.
    if let Some(runtime) = tool.get("tool_runtime_type").filter(|runtime| !is_blank(runtime)) {
        let ours = runtime.as_str().is_some_and(|name| Runtime::named(name).is_some());
        metadata.entry(if ours { "runtime" } else { "runtime_type" }).or_insert_with(|| runtime.clone());
    }
    json!({
        "tool_id": tool.get("tool_id"),
        "tool_search_tags": tool.get("tool_search_tags").or(tool.get("tool_tags")).cloned().unwrap_or(json!([])),
        "tool_metadata": metadata,
        "tool_description": tool.get("tool_description").or(tool.get("tool_search_description")).cloned().unwrap_or(json!("")),
        "tool_default_params": tool.get("tool_default_params").cloned().unwrap_or(json!({})),
    })
}

/// The org's function; its id is `name:version-tag`.
fn org_function(function: &Map<String, Value>, asked: &str) -> Value {
    let mut metadata =
        function.get("function_metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    copy(
        function,
        &mut metadata,
        &[
            ("function_type", "type"),
            ("function_sub_type", "subtype"),
            ("function_protocol_type", "protocol"),
            ("function_url", "url"),
            ("function_api_spec", "api_spec"),
            ("function_man_page", "man_page"),
        ],
    );
    if let Some(calling) = function.get("function_calling_data").and_then(Value::as_object) {
        copy(calling, &mut metadata, &[("method", "method"), ("headers", "headers")]);
    }
    let version = |key: &str| function.get("function_version").and_then(|version| version.get(key)?.as_str());
    let full_version = match (version("version"), version("tag")) {
        (Some(version), Some(tag)) if !tag.is_empty() => format!("{version}-{tag}"),
        (Some(version), _) => version.to_owned(),
        _ => String::new(),
    };
    let id = match function.get("function_name").and_then(Value::as_str) {
        Some(name) if full_version.is_empty() => name.to_owned(),
        Some(name) => {
            let id = format!("{name}:{full_version}");
            // The registries write `1.0.0` and `v1.0.0` alike; the id that was asked for decides.
            let with_v = format!("{name}:v{full_version}");
            if with_v == asked { with_v } else { id }
        }
        None => String::new(),
    };
    if !full_version.is_empty() {
        metadata.entry("version").or_insert(full_version.into());
    }
    json!({
        "function_id": id,
        "function_search_tags": function.get("function_search_tags").or(function.get("function_tags")).cloned().unwrap_or(json!([])),
        "function_metadata": metadata,
        "function_description": function.get("function_description").cloned().unwrap_or(json!("")),
        "function_default_params": function.get("function_default_params").cloned().unwrap_or(json!({})),
    })
}

fn copy(from: &Map<String, Value>, to: &mut Map<String, Value>, names: &[(&str, &str)]) {
    for (source, target) in names {
        if let Some(value) = from.get(*source).filter(|value| !is_blank(value)) {
            to.entry(*target).or_insert_with(|| value.clone());
        }
    }
}

/// The registries write what they do not know as null or as an empty text.
fn is_blank(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_value(kind: Kind, id: &str, value: &Value) -> std::result::Result<Definition, String> {
        read(kind, id, &value.to_string(), value)
    }

    #[test]
    fn both_shapes_are_read_in_both_envelopes() {
        let own = json!({"tool_id": "t", "tool_tags": ["a"], "tool_metadata": {"runtime": "binary"}});
        let org = json!({
            "tool_id": "t", "tool_tags": ["a"], "tool_search_description": "d", "tool_runtime_type": "binary",
            "tool_type": "math", "tool_sub_type": "", "tool_input_schema": {"type": "object"}, "tool_data": {"x": 1},
            "tool_man_page_doc_link": null
        });
        for shape in [own, org] {
            for value in [shape.clone(), json!({"success": true, "data": shape})] {
                let definition = read_value(Kind::Tool, "t", &value).expect("read");
                assert_eq!((definition.id.as_str(), &definition.tags[..]), ("t", &["a".to_owned()][..]));
                assert!(definition.metadata.contains(r#""runtime":"binary""#), "{}", definition.metadata);
                assert!(!definition.metadata.contains("man_page"), "{}", definition.metadata);
            }
        }
    }

    #[test]
    fn a_function_of_the_orgs_registry_gets_its_id_from_name_and_version() {
        let function = json!({
            "function_name": "weather_lookup", "function_version": {"version": "1.0.0", "tag": "stable"},
            "function_protocol_type": "http", "function_url": "http://x/", "function_tags": ["w"],
            "function_calling_data": {"method": "GET", "headers": {"a": "b"}},
            "function_api_spec": {"input": {"city": {"type": "string"}}}
        });
        for id in ["weather_lookup:1.0.0-stable", "weather_lookup:v1.0.0-stable"] {
            let definition = read_value(Kind::Function, id, &function).expect("read");
            assert_eq!(definition.id, id);
            for part in [r#""method":"GET""#, r#""protocol":"http""#, r#""version":"1.0.0-stable""#] {
                assert!(definition.metadata.contains(part), "{}", definition.metadata);
            }
        }
    }

    #[test]
    fn unusable_answers_say_why() {
        for (value, why) in [
            (json!([]), "no object"),
            (json!({"success": false, "error": "x"}), "failed"),
            (json!({"success": true, "data": 5}), "no object"),
            (json!({"tool_id": "t", "colour": 1}), "colour"),
        ] {
            let error = read_value(Kind::Tool, "t", &value).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }
}
