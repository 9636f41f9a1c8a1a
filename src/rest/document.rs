//! The API's description beyond what the types of the handlers tell: what a parameter or a body may be, which answers an
//! operation has, and which methods a path takes. What the description says is what the service does; `tests/schemathesis`
//! holds one against the other.

use std::collections::BTreeMap;

use actors::access::Scope;
use actors::definition::{Kind, MAX_ID_CHARS, RESERVED_IDS};
use actors::error::Code;
use actors::execution::{Phase, State};
use poem::http::HeaderValue;
use serde_json::{Map, Value, json};

use super::definitions::MAX_LIMIT;
use super::executions::MAX_LIMIT as MAX_EXECUTIONS;
use crate::envelope::CODES;

/// What a whole number may be that says a moment, a place or a revision; and one that says a time in milliseconds.
const MAX_WHOLE: u64 = u64::MAX;
const MAX_TIME: i64 = i64::MAX;

/// What the body of JSON lines is declared as.
const LINES: &str = "application/x-ndjson";

/// The paths that the description leaves out, which all give something.
const UNTOLD: [&str; 4] = ["/openapi.json", "/docs", "/docs/", "/metrics"];

/// The description, and what else follows from it.
#[derive(Debug)]
pub struct Document {
    /// As JSON.
    pub text: String,
    /// The methods of each path. Where two paths fit, the first is the one that is served.
    methods: Vec<(Vec<Segment>, HeaderValue)>,
}

/// A part of a path. A literal one goes before one that may be anything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(String),
    Any,
}

impl Document {
    /// Says the rest. A client may wait for an outcome for so many seconds.
    ///
    /// # Errors
    /// What the types told is no JSON.
    pub fn new(told: &str, patience_s: f64) -> serde_json::Result<Self> {
        let mut document: Value = serde_json::from_str(told)?;
        document["components"]["schemas"]["Done"] = done();
        document["components"]["schemas"]["Refusal"] = refusal();
        let mut methods: BTreeMap<Vec<Segment>, HeaderValue> = BTreeMap::new();
        for path in UNTOLD {
            methods.insert(segments(path), HeaderValue::from_static("GET, HEAD"));
        }
        let paths = document["paths"].as_object_mut().into_iter().flatten();
        for (path, operations) in paths {
            let Some(operations) = operations.as_object_mut() else { continue };
            methods.insert(segments(path), allowed(operations));
            for (method, operation) in operations {
                Operation { method, path, patience_s }.describe(operation);
            }
        }
        Ok(Self { text: serde_json::to_string_pretty(&document)?, methods: methods.into_iter().collect() })
    }

    /// The methods that this path takes, as `Allow` tells them.
    pub fn allow(&self, path: &str) -> Option<&HeaderValue> {
        let asked: Vec<&str> = path.split('/').collect();
        let fits = |known: &[Segment]| {
            known.len() == asked.len()
                && known.iter().zip(&asked).all(|(known, asked)| match known {
                    Segment::Literal(text) => text == asked,
                    Segment::Any => !asked.is_empty(),
                })
        };
        self.methods.iter().find(|(known, _)| fits(known)).map(|(_, methods)| methods)
    }
}

fn segments(path: &str) -> Vec<Segment> {
    let segment = |text: &str| match text.starts_with('{') {
        true => Segment::Any,
        false => Segment::Literal(text.to_owned()),
    };
    path.split('/').map(segment).collect()
}

fn allowed(operations: &Map<String, Value>) -> HeaderValue {
    let mut names: Vec<String> = operations.keys().map(|method| method.to_uppercase()).collect();
    if names.iter().any(|name| name == "GET") {
        names.push("HEAD".into());
    }
    names.sort();
    HeaderValue::from_str(&names.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// One operation of the description.
struct Operation<'a> {
    method: &'a str,
    path: &'a str,
    patience_s: f64,
}

impl Operation<'_> {
    fn describe(&self, operation: &mut Value) {
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        for parameter in parameters.into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap_or_default().to_owned();
            if let Some(schema) = self.parameter(&name) {
                parameter["schema"] = schema;
            }
        }
        if let Some(content) = operation.pointer_mut("/requestBody/content/application~1json") {
            content["schema"] = self.body();
        }
        let responses = operation.get_mut("responses").and_then(Value::as_object_mut);
        let Some(responses) = responses else { return };
        for (status, response) in responses.iter_mut() {
            let schema = if status.starts_with('2') { "Done" } else { "Refusal" };
            let content = json!({ "schema": { "$ref": format!("#/components/schemas/{schema}") } });
            response["content"] = json!({ "application/json; charset=utf-8": content });
        }
        self.answers(responses);
    }

    /// What an operation answers that others do not.
    fn answers(&self, responses: &mut Map<String, Value>) {
        let is_of_lines =
            self.path.contains("/import") || self.path.ends_with("/export") || self.path == "/audit";
        if is_of_lines && let Some(response) = responses.get_mut("200") {
            response["description"] = "Lines of JSON".into();
            response["content"] = json!({ LINES: {} });
        }
        if self.path.ends_with("/execute") {
            let mut waited = responses.get("202").cloned().unwrap_or_default();
            waited["description"] = "With `wait`: how it ended".into();
            responses.insert("200".into(), waited);
            let mut unfit = responses.get("400").cloned().unwrap_or_default();
            unfit["description"] = "`unprocessable`: the input does not fit the definition's schema".into();
            responses.insert("422".into(), unfit);
        }
        if self.path.ends_with("/revisions") || self.path.ends_with("/versions") {
            // A reserved id leads to another path, which takes another method.
            let mut other = responses.get("400").cloned().unwrap_or_default();
            other["description"] = "`method_not_allowed`: the id is a reserved one".into();
            responses.insert("405".into(), other);
        }
        if self.method == "get" && self.kind().is_some() && self.path.ends_with("/{id}") {
            responses.insert("304".into(), json!({ "description": "It is as `If-None-Match` says" }));
            responses["200"]["headers"] = json!({ "ETag": { "schema": { "type": "string" } } });
        }
    }

    fn kind(&self) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| self.path.starts_with(&format!("/{}", kind.name())))
    }

    fn parameter(&self, name: &str) -> Option<Value> {
        let limit = if self.path == "/executions" { MAX_EXECUTIONS } else { MAX_LIMIT };
        Some(match name {
            "id" | "name" if self.kind().is_some() => id(),
            "uuid" => json!({ "type": "string", "format": "uuid" }),
            "number" => json!({ "type": "integer", "minimum": 1, "maximum": MAX_WHOLE }),
            "limit" => json!({ "type": "integer", "minimum": 1, "maximum": limit }),
            "cursor" if self.path == "/executions" => json!({ "type": "string", "format": "uuid" }),
            "sort" => {
                json!({ "type": "string", "enum": ["id", "-id", "created", "-created", "updated", "-updated", "relevance"] })
            }
            "state" => json!({ "type": "string", "enum": states() }),
            "from_ms" | "to_ms" => json!({ "type": "integer", "minimum": 0, "maximum": MAX_WHOLE }),
            "wait" => json!({ "type": "number", "minimum": 0, "maximum": self.patience_s }),
            "timeout_ms" => json!({ "type": "integer", "minimum": 1, "maximum": MAX_TIME }),
            "after" => json!({ "type": "integer", "minimum": 0, "maximum": MAX_WHOLE }),
            "head" => json!({ "type": "string", "pattern": "^[0-9a-f]{64}$" }),
            "priority" => json!({ "type": "integer", "minimum": 0, "maximum": 9 }),
            "Idempotency-Key" => json!({ "type": "string", "minLength": 1, "maxLength": 255 }),
            "existing" => json!({ "type": "string", "enum": ["keep", "replace"] }),
            "dry_run" => json!({ "type": "boolean" }),
            _ => return None,
        })
    }

    fn body(&self) -> Value {
        match (self.method, self.kind()) {
            ("post", None) => key(),
            ("post", Some(kind)) if self.path == format!("/{}", kind.name()) => {
                let mut definition = fields(kind);
                definition["properties"][kind.field("id")] = id();
                definition["required"] = json!([kind.field("id")]);
                definition
            }
            ("put", Some(kind)) => fields(kind),
            // A filter, or the input of an execution.
            _ => json!({ "type": "object" }),
        }
    }
}

/// The states of an execution.
fn states() -> Vec<&'static str> {
    let phases = [Phase::Queued, Phase::Running].into_iter().chain(State::ALL.map(Phase::Ended));
    phases.map(Phase::name).collect()
}

fn id() -> Value {
    json!({
        "type": "string", "minLength": 1, "maxLength": MAX_ID_CHARS,
        "pattern": r"^[^/\u0000-\u001f\u007f-\u009f]+$",
        "not": { "enum": RESERVED_IDS }
    })
}

/// What a definition has besides its id.
fn fields(kind: Kind) -> Value {
    json!({
        "type": "object",
        "properties": {
            kind.field("search_tags"): { "type": "array", "items": { "type": "string" } },
            kind.field("metadata"): { "type": "object", "description": "How it runs, its schemas, and whatever else" },
            kind.field("description"): { "type": "string" },
            kind.field("default_params"): { "type": "object", "description": "The input's defaults" }
        },
        "additionalProperties": false
    })
}

fn key() -> Value {
    // What is null is as if it was not there.
    let positive = json!({ "type": "integer", "nullable": true, "minimum": 1, "maximum": u32::MAX });
    let scopes = json!({ "type": "string", "enum": Scope::ALL.map(Scope::name) });
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "minLength": 1, "maxLength": 100 },
            "scopes": { "type": "array", "minItems": 1, "items": scopes },
            "ids": {
                "type": "array", "nullable": true, "minItems": 1, "items": { "type": "string", "minLength": 1 }
            },
            "expires_ms": { "type": "integer", "nullable": true, "minimum": 1, "description": "Not in the past" },
            "requests_per_second": positive, "max_open": positive
        },
        "required": ["name", "scopes"],
        "additionalProperties": false
    })
}

/// The envelope of what succeeded.
fn done() -> Value {
    json!({
        "type": "object",
        "properties": { "success": { "type": "boolean", "enum": [true] }, "data": {} },
        "required": ["success", "data"]
    })
}

/// The envelope of what did not.
fn refusal() -> Value {
    json!({
        "type": "object",
        "properties": {
            "success": { "type": "boolean", "enum": [false] },
            "error": { "type": "string", "description": "One sentence" },
            "code": { "type": "string", "enum": CODES.map(Code::as_str) },
            "details": { "type": "object" }
        },
        "required": ["success", "error", "code"]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Document {
        let told = json!({ "paths": {
            "/tool": { "post": { "requestBody": { "content": { "application/json": { "schema": {} } } } } },
            "/tool/{id}": { "get": {}, "put": {}, "delete": {} },
            "/tool/register/{id}": { "post": {} },
            "/tool/{id}/execute": { "post": { "responses": { "202": {}, "400": {} } } }
        } });
        Document::new(&told.to_string(), 54.0).expect("a document")
    }

    #[test]
    fn a_path_is_told_its_methods() {
        let document = document();
        let allow = |path: &str| document.allow(path).map(|value| value.to_str().expect("text").to_owned());
        for (path, methods) in [
            ("/tool", Some("POST")),
            ("/tool/x", Some("DELETE, GET, HEAD, PUT")),
            ("/tool/register/execute", Some("POST")),
            ("/tool/x/execute", Some("POST")),
            ("/metrics", Some("GET, HEAD")),
            ("/tool/", None),
            ("/tool/x/y", None),
            ("/", None),
        ] {
            assert_eq!(allow(path).as_deref(), methods, "{path}");
        }
    }

    #[test]
    fn what_the_types_do_not_tell_is_told() {
        let document: Value = serde_json::from_str(&document().text).expect("JSON");
        let body =
            &document["paths"]["/tool"]["post"]["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body["required"], json!(["tool_id"]));
        let execute = &document["paths"]["/tool/{id}/execute"]["post"];
        assert!(execute["responses"]["200"].is_object() && execute["responses"]["422"].is_object());
        assert!(execute.get("requestBody").is_none(), "{execute}");
    }
}
