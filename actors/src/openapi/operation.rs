//! One operation becomes the definition of a function. Pure.

use reqwest::Url;
use serde_json::{Map, Value, json};

use super::document::{Node, Result};
use super::schema::MAX_BYTES;
use super::{Context, Operation, input, output};
use crate::spec::{Piece, filled, pieces};

/// The definition's JSON text. Metadata that would be too large goes without its output schema, which only checks what
/// the service says of itself.
pub fn definition(context: &Context<'_>, operation: &Operation<'_>, id: &str) -> Result<String> {
    let node = &operation.node;
    let mut metadata = metadata(context, operation)?;
    if size(&metadata) > MAX_BYTES {
        metadata.remove("output_schema");
    }
    if size(&metadata) > MAX_BYTES {
        return Err(node.wrong(format!("its metadata is larger than {MAX_BYTES} bytes")));
    }
    let words = [node.text("summary")?, node.text("description")?].into_iter().flatten().map(str::trim);
    let words: Vec<&str> = words.filter(|text| !text.is_empty()).collect();
    let definition = json!({
        "function_id": id,
        "function_description": words.join("\n\n"),
        "function_search_tags": tags(context, node)?,
        "function_metadata": metadata,
    });
    Ok(definition.to_string())
}

fn size(metadata: &Map<String, Value>) -> usize {
    json!(metadata).to_string().len()
}

fn metadata(context: &Context<'_>, operation: &Operation<'_>) -> Result<Map<String, Value>> {
    let input = input::of(context, operation)?;
    let output = output::of(context, operation)?;
    let mut headers = json!({ "accept": output.accept });
    if let Some(content_type) = input.content_type {
        headers["content-type"] = content_type.into();
    }
    let mut metadata = Map::new();
    let mut put = |key: &str, value: Value| {
        metadata.insert(key.into(), value);
    };
    let too_large = || format!("the schema of its input is larger than {MAX_BYTES} bytes");
    let unsupported =
        input.unsupported.or(output.unsupported).or_else(|| input.schema.is_none().then(too_large));
    match unsupported {
        Some(why) => put("unsupported", why.into()),
        None => {
            put("runtime", "http".into());
            put("protocol", "http".into());
        }
    }
    let url = format!("{}{}", server(context, operation)?, operation.path);
    put("url", url.into());
    put("method", operation.method.to_ascii_uppercase().into());
    put("headers", headers);
    put("parameters", input.parameters.into());
    let facts = [
        ("version", context.version.map(Value::from)),
        ("input_schema", input.schema),
        ("output_schema", output.schema),
        ("output", output.is_text.then(|| json!({ "text": "text" }))),
        ("idempotent", is_idempotent(operation.method).then(|| true.into())),
    ];
    for (key, value) in facts {
        if let Some(value) = value {
            put(key, value);
        }
    }
    if operation.node.flag("deprecated")? == Some(true) {
        put("deprecated", "this operation is deprecated".into());
    }
    Ok(metadata)
}

/// By RFC 9110, 9.2.2.
fn is_idempotent(method: &str) -> bool {
    !matches!(method, "post" | "patch")
}

fn tags(context: &Context<'_>, node: &Node<'_>) -> Result<Vec<String>> {
    let mut tags = Vec::new();
    for tag in node.items_of("tags")? {
        tags.push(tag.value.as_str().ok_or_else(|| tag.wrong("is no string"))?);
    }
    tags.extend(["openapi", context.place.source]);
    let mut unique: Vec<String> = Vec::new();
    for tag in tags {
        if !unique.iter().any(|known| known == tag) {
            unique.push(tag.to_owned());
        }
    }
    Ok(unique)
}

/// Where the operation is called, without a `/` at its end: the source's `base_url`, else the first server of the
/// operation, of its path or of the document, else where the document is.
fn server(context: &Context<'_>, operation: &Operation<'_>) -> Result<String> {
    let place = context.place;
    let of_source = |name: &str, url: &str| {
        Url::parse(url).map_err(|error| format!("the source's `{name}` is not valid: {error}"))
    };
    if let Some(base) = place.base_url {
        return Ok(of_source("base_url", base)?.as_str().trim_end_matches('/').to_owned());
    }
    let mut document = of_source("openapi", place.url)?;
    // A credential for the document is none for what it describes.
    if document.set_username("").is_err() || document.set_password(None).is_err() {
        return Err("the source's `openapi` is no address of a host".into());
    }
    let mut named = None;
    for holder in [&operation.node, &operation.item, &context.root] {
        named = holder.items_of("servers")?.into_iter().next();
        if named.is_some() {
            break;
        }
    }
    let Some(node) = named else { return address(&context.root, &document, "/") };
    address(&node, &document, &without_variables(&node)?)
}

fn without_variables(server: &Node<'_>) -> Result<String> {
    let url = server.needed("url")?;
    let pieces = pieces(url).ok_or_else(|| server.wrong("`url` has a brace that stands alone"))?;
    let mut defaults = Map::new();
    for name in pieces.iter().filter_map(Piece::name) {
        let variable = server.get("variables").and_then(|variables| variables.get(name));
        let variable =
            variable.ok_or_else(|| server.wrong(format!("`url` has {{{name}}}, which is no variable")))?;
        defaults.insert(name.to_owned(), variable.needed("default")?.into());
    }
    Ok(filled(&pieces, |name| defaults[name].as_str().unwrap_or_default().to_owned()))
}

fn address(node: &Node<'_>, document: &Url, server: &str) -> Result<String> {
    let url =
        document.join(server).map_err(|error| node.wrong(format!("{server:?} is no address: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(node.wrong(format!("{server:?} is no address of http or https")));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(node.wrong(format!("{server:?} has a part behind its path")));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}
