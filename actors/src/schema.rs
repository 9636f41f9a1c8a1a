//! What an input or output must be: a JSON Schema, or the shorter `api_spec`, which becomes one. Pure.

use std::fmt;

use jsonschema::{PatternOptions, Retrieve, Uri};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::json::{one_line, shortened, type_name};

/// How much of a failing value an error repeats, in characters.
const MAX_MESSAGE_CHARS: usize = 300;

/// A compiled schema.
#[derive(Debug)]
pub struct Schema {
    validator: jsonschema::Validator,
}

/// Where a value does not fit, and why. As text, one sentence that begins with the place:
/// `/value: "x" is not of type "integer"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// A JSON pointer; `/` for the whole.
    pub place: String,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Misfit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", one_line(&self.place), self.reason)
    }
}

impl Schema {
    /// Compiles a JSON Schema (draft 2020-12 unless its `$schema` says otherwise). A `$ref` reaches nothing
    /// outside the schema, and patterns run in linear time.
    ///
    /// # Errors
    /// `invalid`, with what is wrong in the schema.
    pub fn compile(schema: &Value) -> Result<Self> {
        let options =
            jsonschema::options().with_pattern_options(PatternOptions::regex()).with_retriever(Elsewhere);
        let built = options.build(schema);
        let validator = built.map_err(|error| {
            let place = one_line(error.instance_path().as_str());
            Error::invalid(format!("not a JSON Schema: {place}: {}", in_short(&error)))
        })?;
        Ok(Self { validator })
    }

    /// Compiles one side of an `api_spec`: fields `{type, min, max, choices, properties}`, all required.
    ///
    /// # Errors
    /// `invalid`, with the field as its place.
    pub fn of_api_spec(fields: &Value) -> Result<Self> {
        Self::compile(&object_schema(fields)?)
    }

    /// Whether the value fits.
    ///
    /// # Errors
    /// If not, the place and why.
    pub fn check(&self, value: &Value) -> std::result::Result<(), Misfit> {
        self.validator.validate(value).map_err(|error| {
            let path = error.instance_path().as_str();
            let place = if path.is_empty() { "/" } else { path }.to_owned();
            Misfit { place, reason: in_short(&error) }
        })
    }
}

/// What a `$ref` to outside the schema reaches: nothing.
struct Elsewhere;

impl Retrieve for Elsewhere {
    fn retrieve(
        &self,
        _: &Uri<String>,
    ) -> std::result::Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err("a `$ref` reaches nothing outside of its schema".into())
    }
}

/// What the library says is wrong, on one line, and not all of a large value.
fn in_short(error: &jsonschema::ValidationError<'_>) -> String {
    one_line(&shortened(&error.to_string(), MAX_MESSAGE_CHARS))
}

fn object_schema(fields: &Value) -> Result<Value> {
    let fields = fields
        .as_object()
        .ok_or_else(|| Error::invalid(format!("a list of fields is {}, not an object", type_name(fields))))?;
    let mut properties = Map::new();
    for (name, field) in fields {
        properties.insert(name.clone(), field_schema(field).map_err(|error| error.within(name))?);
    }
    let required: Vec<&String> = fields.keys().collect();
    Ok(json!({ "type": "object", "properties": properties, "required": required }))
}

/// One field of an `api_spec`. `min` and `max` bound a number's value, a string's length in characters, an
/// array's length in items.
fn field_schema(field: &Value) -> Result<Value> {
    let object = field
        .as_object()
        .ok_or_else(|| Error::invalid(format!("a field is {}, not an object", type_name(field))))?;
    let declared = object.get("type").and_then(Value::as_str).unwrap_or("any");
    let (name, bounds) = match declared {
        "string" | "str" => (Some("string"), Some(("minLength", "maxLength"))),
        "integer" | "int" => (Some("integer"), Some(("minimum", "maximum"))),
        "number" | "float" => (Some("number"), Some(("minimum", "maximum"))),
        "boolean" | "bool" => (Some("boolean"), None),
        "array" | "list" => (Some("array"), Some(("minItems", "maxItems"))),
        "object" | "dict" => (Some("object"), None),
        "null" => (Some("null"), None),
        "any" => (None, None),
        _ => return Err(Error::invalid(format!("unknown type {declared:?}"))),
    };
    let mut schema = match object.get("properties") {
        Some(properties) => object_schema(properties).map_err(|error| error.within("properties"))?,
        None => json!({}),
    };
    if let Some(name) = name {
        schema["type"] = name.into();
    }
    for (key, at_least) in [("min", true), ("max", false)] {
        let Some(bound) = object.get(key).filter(|bound| !bound.is_null()) else { continue };
        let (min, max) =
            bounds.ok_or_else(|| Error::invalid(format!("{declared} has no `{key}`")).at(key))?;
        schema[if at_least { min } else { max }] = bound.clone();
    }
    if let Some(choices) = object.get("choices").filter(|choices| !choices.is_null()) {
        schema["enum"] = choices.clone();
    }
    Ok(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_place() {
        let schema = Schema::compile(&json!({
            "type": "object", "required": ["value"],
            "properties": {"value": {"type": "integer"}, "list": {"items": {"type": "string"}}}
        }))
        .expect("a schema");
        assert!(schema.check(&json!({"value": 5})).is_ok());
        let place = |value| schema.check(&value).expect_err("does not fit").to_string();
        assert!(place(json!({"value": "x"})).starts_with("/value: "));
        assert!(place(json!({"value": 1, "list": ["a", 2]})).starts_with("/list/1: "));
        assert!(place(json!({})).starts_with("/: \"value\" is a required property"));
    }

    #[test]
    fn a_key_with_line_breaks_and_colons_is_a_place_too() {
        let schema = json!({"properties": {"a: b\nc": {"type": "integer"}}});
        let schema = Schema::compile(&schema).expect("a schema");
        let misfit = schema.check(&json!({"a: b\nc": "x\ny"})).expect_err("no integer");
        assert_eq!(misfit.place, "/a: b\nc");
        assert!(misfit.to_string().starts_with("/a: b\u{fffd}c: \"x"), "{misfit}");
        let error = Schema::compile(&json!({"properties": {"a\nb": {"type": 5}}})).expect_err("no type");
        assert!(!error.to_string().contains('\n'), "{error}");
    }

    #[test]
    fn a_remote_reference_is_not_fetched() {
        for reference in ["http://127.0.0.1:1/schema.json", "file:///etc/passwd"] {
            let error = Schema::compile(&json!({"$ref": reference})).expect_err("it is elsewhere");
            assert!(error.to_string().contains("reaches nothing outside"), "{error}");
        }
    }

    #[test]
    fn an_api_spec_requires_all_its_fields_and_allows_integers() {
        let schema = Schema::of_api_spec(&json!({
            "city": {"type": "string", "min": 1, "max": 5},
            "days": {"type": "integer", "min": 1, "max": 7},
            "unit": {"type": "string", "choices": ["C", "F"]},
            "place": {"type": "object", "properties": {"lat": {"type": "number"}}}
        }))
        .expect("a schema");
        let good = json!({"city": "Delhi", "days": 3, "unit": "C", "place": {"lat": 1.5}});
        assert_eq!(schema.check(&good), Ok(()));
        for (pointer, bad) in [
            ("/city", json!("Too long")),
            ("/days", json!(1.5)),
            ("/days", json!(8)),
            ("/unit", json!("K")),
            ("/place/lat", json!("x")),
        ] {
            let mut value = good.clone();
            *value.pointer_mut(pointer).expect("there") = bad;
            let misfit = schema.check(&value).expect_err(pointer);
            assert_eq!(misfit.place, pointer, "{misfit}");
        }
        let mut lacking = good;
        lacking.as_object_mut().expect("an object").remove("place");
        assert!(schema.check(&lacking).is_err());
    }
}
