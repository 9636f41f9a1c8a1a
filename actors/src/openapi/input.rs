//! What an operation takes: its parameters and its body become one object, each of them a property. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::document::{Node, Result};
use super::media::{Format, Media, best};
use super::schema::{Side, Translator, Waiting};
use super::{Context, Operation};
use crate::spec::{BODY, Piece, Position, Style, is_reserved_header, pieces};

/// The input of an operation.
pub struct Input {
    /// What it must be; nothing where that is larger than a function may be.
    pub schema: Option<Value>,
    /// Where its properties go, for the key `parameters`.
    pub parameters: Map<String, Value>,
    /// The content type of the body.
    pub content_type: Option<String>,
    /// Why it cannot be sent.
    pub unsupported: Option<String>,
}

/// Of the headers, these are told elsewhere in the document, and a parameter of that name means nothing.
const TOLD_ELSEWHERE: [&str; 3] = ["accept", "authorization", "content-type"];

/// Reads parameters and body.
pub fn of(context: &Context<'_>, operation: &Operation<'_>) -> Result<Input> {
    let mut reader = Reader {
        translator: Translator::new(Side::Input, context.is_3_0),
        waiting: Vec::new(),
        properties: Map::new(),
        required: Vec::new(),
        parameters: Map::new(),
        unsupported: None,
    };
    let parameters = parameters(operation)?;
    check_path(operation, &parameters)?;
    for ((position, name), node) in &parameters {
        reader.parameter(*position, name, node)?;
    }
    let content_type = reader.body(operation)?;
    let mut schema = json!({
        "type": "object",
        "properties": reader.properties,
        "additionalProperties": false,
    });
    if !reader.required.is_empty() {
        schema["required"] = reader.required.into();
    }
    let schema = reader.translator.finish(schema, reader.waiting)?;
    Ok(Input { schema, parameters: reader.parameters, content_type, unsupported: reader.unsupported })
}

type Parameters<'a> = BTreeMap<(Position, &'a str), Node<'a>>;

/// Those of the path and those of the operation, which go first.
fn parameters<'a>(operation: &Operation<'a>) -> Result<Parameters<'a>> {
    let mut all = listed(&operation.item)?;
    all.extend(listed(&operation.node)?);
    Ok(all)
}

fn listed<'a>(holder: &Node<'a>) -> Result<Parameters<'a>> {
    let mut all = BTreeMap::new();
    for node in holder.items_of("parameters")? {
        let node = node.resolved()?;
        let (name, place) = (node.needed("name")?, node.needed("in")?);
        let unknown =
            || node.wrong(format!("`in` is {place:?}, not \"path\", \"query\", \"header\" or \"cookie\""));
        let position = Position::named(place).ok_or_else(unknown)?;
        let is_ignored =
            TOLD_ELSEWHERE.iter().any(|told| told.eq_ignore_ascii_case(name)) || is_reserved_header(name);
        if position == Position::Header && is_ignored {
            continue;
        }
        if all.contains_key(&(position, name)) {
            return Err(node.wrong(format!("the {place} parameter {name:?} stands twice")));
        }
        all.insert((position, name), node);
    }
    Ok(all)
}

/// The placeholders of the path are its parameters.
fn check_path(operation: &Operation<'_>, parameters: &Parameters<'_>) -> Result<()> {
    let path = operation.path;
    let pieces = pieces(path)
        .ok_or_else(|| operation.item.wrong(format!("the path {path:?} has a brace that stands alone")))?;
    let placeholders: Vec<&str> = pieces.iter().filter_map(Piece::name).collect();
    if let Some(name) = placeholders.iter().find(|name| !parameters.contains_key(&(Position::Path, **name))) {
        return Err(operation.node.wrong(format!("the path has {{{name}}}, which is no parameter")));
    }
    let lost = |((position, name), _): &(&(Position, &str), &Node<'_>)| {
        *position == Position::Path && !placeholders.contains(name)
    };
    match parameters.iter().find(lost) {
        Some(((_, name), node)) => Err(node.wrong(format!("the path {path:?} has no {{{name}}}"))),
        None => Ok(()),
    }
}

struct Reader<'a> {
    translator: Translator,
    waiting: Waiting<'a>,
    properties: Map<String, Value>,
    required: Vec<String>,
    parameters: Map<String, Value>,
    unsupported: Option<String>,
}

impl<'a> Reader<'a> {
    fn parameter(&mut self, position: Position, name: &str, node: &Node<'a>) -> Result<()> {
        let property = self.property(position, name);
        let media = best(node)?;
        let mut told = match &media {
            Some(media) => self.content(position, name, media),
            None => self.style(position, name, node)?,
        };
        let mut schema = self.schema(media.map_or_else(|| node.get("schema"), |media| media.schema))?;
        if let (Some(about), Some(schema)) = (node.text("description")?, schema.as_object_mut()) {
            schema.entry("description").or_insert_with(|| about.into());
        }
        if position == Position::Path || node.flag("required")? == Some(true) {
            self.required.push(property.clone());
        }
        if property != name {
            told.insert("name".into(), name.into());
        }
        let told = if told.is_empty() {
            position.name().into()
        } else {
            told.insert("in".into(), position.name().into());
            told.into()
        };
        self.parameters.insert(property.clone(), told);
        self.properties.insert(property, schema);
        Ok(())
    }

    /// The parameter's name, unless it is that of another property.
    fn property(&self, position: Position, name: &str) -> String {
        let mut property = name.to_owned();
        while property == BODY || self.properties.contains_key(&property) {
            property = format!("{}_{property}", position.name());
        }
        property
    }

    /// How it is written, as far as that is not what goes without saying.
    fn style(&mut self, position: Position, name: &str, node: &Node<'_>) -> Result<Map<String, Value>> {
        let styles = position.styles();
        let mut style = styles[0];
        if let Some(named) = node.text("style")? {
            match styles.iter().find(|style| style.name() == named) {
                Some(known) => style = *known,
                None => {
                    self.cannot(format!("its {} parameter {name:?} has the style {named:?}", position.name()))
                }
            }
        }
        let mut told = Map::new();
        if style != styles[0] {
            told.insert("style".into(), style.name().into());
        }
        if let Some(explode) = node.flag("explode")?.filter(|explode| *explode != style.explodes()) {
            told.insert("explode".into(), explode.into());
        }
        Ok(told)
    }

    /// The same of a parameter that is a document of its own.
    fn content(&mut self, position: Position, name: &str, media: &Media<'_>) -> Map<String, Value> {
        if media.format != Format::Json {
            self.cannot(format!("its {} parameter {name:?} is {}", position.name(), media.name));
        }
        Map::from_iter([("style".to_owned(), Style::Json.name().into())])
    }

    /// It cannot be sent, at first for this reason.
    fn cannot(&mut self, why: String) {
        self.unsupported.get_or_insert(why);
    }

    /// The content type of the body, where there is one.
    fn body(&mut self, operation: &Operation<'a>) -> Result<Option<String>> {
        let Some(node) = operation.node.get("requestBody") else { return Ok(None) };
        let node = node.resolved()?;
        let Some(media) = best(&node)? else { return Ok(None) };
        if !matches!(media.format, Format::Json | Format::Form) {
            self.cannot(format!("its body is {}", media.name));
        }
        let schema = self.schema(media.schema)?;
        self.properties.insert(BODY.into(), schema);
        if node.flag("required")? == Some(true) {
            self.required.push(BODY.into());
        }
        Ok(Some(media.name.to_owned()))
    }

    fn schema(&mut self, node: Option<Node<'a>>) -> Result<Value> {
        node.map_or_else(|| Ok(json!({})), |node| self.translator.schema(&node, &mut self.waiting))
    }
}
