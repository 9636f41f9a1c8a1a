//! A schema of the document becomes a JSON Schema (draft 2020-12) that stands by itself: what it refers to goes into
//! its `$defs`, each part once, so that recursion stays recursion. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::document::{Node, Result};
use super::names::unique;
use crate::schema::Schema;

/// How many bytes of JSON Schema one function may bring.
pub const MAX_BYTES: usize = 256 * 1024;

/// In how many parts of an `allOf`, and of theirs, a property is looked for.
const MAX_PARTS: usize = 64;

/// Which way the value goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// To the service: nobody has to give what is `readOnly`.
    Input,
    /// From it: it need not give what is `writeOnly`.
    Output,
}

/// Keywords that say nothing to a validator, or that hold only where the schema stood.
const DROPPED: [&str; 12] = [
    "$anchor",
    "$comment",
    "$defs",
    "$dynamicAnchor",
    "$id",
    "$schema",
    "$vocabulary",
    "definitions",
    "discriminator",
    "externalDocs",
    "nullable",
    "xml",
];

/// Makes one schema out of schemas of the document.
pub struct Translator {
    side: Side,
    /// OpenAPI 3.0 has a dialect of its own; 3.1 is JSON Schema.
    is_3_0: bool,
    /// What was referred to, by its place, and its name in `$defs`.
    names: BTreeMap<String, String>,
    taken: BTreeSet<String>,
}

/// What is still to be made of the schemas that were referred to.
pub type Waiting<'a> = Vec<(String, Node<'a>)>;

impl Translator {
    pub fn new(side: Side, is_3_0: bool) -> Self {
        Self { side, is_3_0, names: BTreeMap::new(), taken: BTreeSet::new() }
    }

    /// Gives a schema its `$defs`. Nothing where they are larger than a function may be.
    pub fn finish(mut self, mut schema: Value, mut waiting: Waiting<'_>) -> Result<Option<Value>> {
        let (mut definitions, mut bytes) = (Map::new(), schema.to_string().len());
        while let Some((name, node)) = waiting.pop() {
            let definition = self.schema(&node, &mut waiting)?;
            bytes += name.len() + definition.to_string().len();
            if bytes > MAX_BYTES {
                return Ok(None);
            }
            definitions.insert(name, definition);
        }
        if !definitions.is_empty() {
            schema["$defs"] = definitions.into();
        }
        Ok(Some(schema))
    }

    /// The schema at this place; what it refers to is left waiting.
    pub fn schema<'a>(&mut self, node: &Node<'a>, waiting: &mut Waiting<'a>) -> Result<Value> {
        self.schema_in(node, None, waiting)
    }

    /// As [`Self::schema`], of one that is a part of another's `allOf`.
    fn schema_in<'a>(
        &mut self,
        node: &Node<'a>,
        whole: Option<&Node<'a>>,
        waiting: &mut Waiting<'a>,
    ) -> Result<Value> {
        if node.value.is_boolean() {
            return Ok(node.value.clone());
        }
        let mut schema = Map::new();
        if let Some(target) = node.target()? {
            // A circle of nothing but references would mean nothing.
            node.resolved()?;
            schema.insert("$ref".into(), format!("#/$defs/{}", self.name(&target, waiting)).into());
            if self.is_3_0 {
                return Ok(schema.into());
            }
        }
        for (key, inner) in node.members()? {
            match key {
                "$ref" => {}
                key if DROPPED.contains(&key) || key.starts_with("x-") => {}
                "$dynamicRef" | "$recursiveRef" => {
                    return Err(inner.wrong(format!("`{key}` is not understood")));
                }
                "example" => {
                    schema.entry("examples").or_insert_with(|| json!([inner.value]));
                }
                "required" => {
                    schema.insert(key.into(), self.required(whole.unwrap_or(node), node, &inner)?);
                }
                "pattern" if !is_pattern(inner.value) => {}
                "allOf" => {
                    let parts = inner.items()?.into_iter();
                    let parts = parts.map(|part| self.schema_in(&part, Some(node), waiting));
                    schema.insert(key.into(), Value::Array(parts.collect::<Result<_>>()?));
                }
                _ => {
                    schema.insert(key.into(), self.keyword(key, &inner, waiting)?);
                }
            }
        }
        bounds(&mut schema);
        let is_nullable = self.is_3_0 && node.flag("nullable")? == Some(true);
        Ok(if is_nullable { nullable(schema) } else { schema.into() })
    }

    /// Keywords that hold schemas are followed; the value of any other is data.
    fn keyword<'a>(&mut self, key: &str, node: &Node<'a>, waiting: &mut Waiting<'a>) -> Result<Value> {
        match key {
            "properties" | "patternProperties" | "dependentSchemas" => {
                let members = node.members()?.into_iter();
                let members =
                    members.map(|(name, inner)| Ok((name.to_owned(), self.schema(&inner, waiting)?)));
                Ok(Value::Object(members.collect::<Result<_>>()?))
            }
            "anyOf" | "oneOf" | "prefixItems" => {
                let items = node.items()?.into_iter();
                Ok(Value::Array(items.map(|inner| self.schema(&inner, waiting)).collect::<Result<_>>()?))
            }
            "additionalProperties"
            | "contains"
            | "contentSchema"
            | "else"
            | "if"
            | "items"
            | "not"
            | "propertyNames"
            | "then"
            | "unevaluatedItems"
            | "unevaluatedProperties" => self.schema(node, waiting),
            _ => Ok(node.value.clone()),
        }
    }

    /// The name in `$defs` of what stands there: the last word of its place, made unique.
    fn name<'a>(&mut self, target: &Node<'a>, waiting: &mut Waiting<'a>) -> String {
        if let Some(name) = self.names.get(&target.pointer) {
            return name.clone();
        }
        let word = target.pointer.rsplit('/').next().unwrap_or_default();
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_') { c } else { '_' };
        let word: String = word.chars().map(plain).collect();
        let name = unique(word, &self.taken);
        self.taken.insert(name.clone());
        self.names.insert(target.pointer.clone(), name.clone());
        waiting.push((name.clone(), target.clone()));
        name
    }

    /// The names that this side has to give. A part of an `allOf` may name a property that stands in another part.
    fn required(&self, whole: &Node<'_>, part: &Node<'_>, list: &Node<'_>) -> Result<Value> {
        let mut kept = Vec::new();
        for item in list.items()? {
            let name = item.value.as_str().ok_or_else(|| item.wrong("is no string"))?;
            if !self.is_hidden(part, name)? && !self.is_hidden(whole, name)? {
                kept.push(name);
            }
        }
        Ok(kept.into())
    }

    /// Whether a property goes the other way only, as the schema or one of its parts tells.
    fn is_hidden(&self, schema: &Node<'_>, name: &str) -> Result<bool> {
        let flag = match self.side {
            Side::Input => "readOnly",
            Side::Output => "writeOnly",
        };
        let is_set = |node: &Node<'_>| node.value.get(flag) == Some(&Value::Bool(true));
        let (mut parts, mut seen) = (vec![schema.clone()], BTreeSet::new());
        while let Some(part) = parts.pop().filter(|_| seen.len() < MAX_PARTS) {
            if !seen.insert(part.pointer.clone()) {
                continue;
            }
            match part.get("properties").and_then(|properties| properties.get(name)) {
                Some(property) if is_set(&property) || is_set(&property.resolved()?) => return Ok(true),
                _ => {}
            }
            for inner in part.items_of("allOf")? {
                parts.push(inner.resolved()?);
            }
        }
        Ok(false)
    }
}

/// Whether a pattern is one that is checked here. Others (look-around, back-references) are left to the service.
fn is_pattern(pattern: &Value) -> bool {
    !pattern.is_string() || Schema::compile(&json!({ "pattern": pattern })).is_ok()
}

/// In OpenAPI 3.0, `exclusiveMinimum: true` makes another bound of `minimum`.
fn bounds(schema: &mut Map<String, Value>) {
    for (bound, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
        let Some(Value::Bool(is_exclusive)) = schema.get(exclusive) else { continue };
        let is_exclusive = *is_exclusive;
        schema.remove(exclusive);
        if is_exclusive && let Some(value) = schema.remove(bound) {
            schema.insert(exclusive.into(), value);
        }
    }
}

/// The same, and null.
fn nullable(mut schema: Map<String, Value>) -> Value {
    let is_simple = !["allOf", "anyOf", "oneOf", "not", "const"].iter().any(|key| schema.contains_key(*key));
    match schema.get("type") {
        Some(Value::String(name)) if is_simple => {
            let both = json!([name, "null"]);
            schema.insert("type".into(), both);
            if let Some(Value::Array(values)) = schema.get_mut("enum")
                && !values.contains(&Value::Null)
            {
                values.push(Value::Null);
            }
            schema.into()
        }
        _ => json!({ "anyOf": [schema, { "type": "null" }] }),
    }
}
