//! OpenAPI documents: each operation of a 3.0 or 3.1 document becomes a function of the http runtime. Pure.
//!
//! A document is read whole or refused whole, with the place of what is wrong in it. What it describes and this
//! service cannot send (a multipart body, a `matrix` parameter) is registered without a runtime, and its metadata says
//! why under `unsupported`.

use serde_json::Value;

use crate::definition::{Definition, Kind};
use document::{Node, Result};

mod document;
mod input;
mod media;
mod names;
mod operation;
mod output;
mod schema;
#[cfg(test)]
mod tests;

/// How many operations a document may have.
const MAX_OPERATIONS: usize = 10_000;

/// How large all functions of a document may be together, in bytes.
const MAX_TOTAL_BYTES: usize = 128 * 1024 * 1024;

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// A function of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its id without a version.
    pub name: String,
    /// Its method and path.
    pub operation: String,
    /// Whether its name was made of these: then they are what it is known by.
    pub is_made: bool,
    /// Its definition, as JSON text.
    pub definition: String,
}

/// Where a document comes from.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Where the document is.
    pub url: &'a str,
    /// Where its operations are called, instead of at the server that it names.
    pub base_url: Option<&'a str>,
    /// What stands before the names of its operations.
    pub prefix: &'a str,
    /// The source's name, which becomes a tag.
    pub source: &'a str,
}

/// An operation on its way to a function.
pub(crate) struct Operation<'a> {
    /// In lower case.
    method: &'static str,
    path: &'a str,
    /// The path's own part, which holds for all its operations.
    item: Node<'a>,
    node: Node<'a>,
}

/// What holds for all operations of a document.
struct Context<'a> {
    place: &'a Place<'a>,
    root: Node<'a>,
    is_3_0: bool,
    /// `info.version`, where it is a semantic version.
    version: Option<&'a str>,
}

/// All functions of a document, in JSON or YAML.
///
/// # Errors
/// One sentence that reads on after `the source "name" ` and names the place in the document.
pub fn functions(text: &str, place: &Place<'_>) -> std::result::Result<Vec<Found>, String> {
    let document = document::read(text);
    let found = document.and_then(|document| found(&document, place));
    found.map_err(|problem| format!("gave an OpenAPI document that cannot be used: {problem}"))
}

fn found(document: &Value, place: &Place<'_>) -> Result<Vec<Found>> {
    let root = Node::root(document);
    let is_3_0 = is_3_0(&root)?;
    let context = Context { place, version: version(&root)?, root, is_3_0 };
    let operations = operations(&context.root)?;
    let suffix = context.version.map(|version| format!(":{version}")).unwrap_or_default();
    let names = names::all(&operations, place.prefix, &suffix)?;
    let mut bytes = 0;
    let functions = operations.iter().zip(names).map(|(operation, (name, is_made))| {
        let definition = operation::definition(&context, operation, &format!("{name}{suffix}"))?;
        let problem =
            |why: &str| operation.node.wrong(format!("makes a function that cannot be registered: {why}"));
        Definition::parse(Kind::Function, &definition).map_err(|error| {
            let field = error.details().and_then(|details| details["field"].as_str()).unwrap_or("its JSON");
            problem(&format!("{field}: {error}"))
        })?;
        bytes += definition.len();
        if bytes > MAX_TOTAL_BYTES {
            return Err(problem(&format!("with it, all are larger than {MAX_TOTAL_BYTES} bytes")));
        }
        let operation = format!("{} {}", operation.method.to_uppercase(), operation.path);
        Ok(Found { name, operation, is_made, definition })
    });
    functions.collect()
}

/// Whether the document is of OpenAPI 3.0, which has a dialect of JSON Schema of its own.
fn is_3_0(root: &Node<'_>) -> Result<bool> {
    root.object()?;
    if root.get("swagger").is_some() {
        return Err(root.wrong("it is a Swagger 2.0 document; OpenAPI 3.0 and 3.1 are understood"));
    }
    let version = root.needed("openapi")?;
    let is =
        |line: &str| version == line || version.strip_prefix(line).is_some_and(|rest| rest.starts_with('.'));
    match version {
        _ if is("3.0") => Ok(true),
        _ if is("3.1") => Ok(false),
        _ => Err(root.wrong(format!("it is of OpenAPI {version:?}; 3.0 and 3.1 are understood"))),
    }
}

/// A version that is not semantic (`1.0`, `2023-01-15`) says nothing that an id could use, and is passed over.
fn version<'a>(root: &Node<'a>) -> Result<Option<&'a str>> {
    let Some(info) = root.get("info") else { return Err(root.wrong("`info` is missing")) };
    let version = info.object()?.get("version").and_then(Value::as_str);
    // Not `crate::version`, to which `1.0` is a version too: here it would more likely be one of many such.
    Ok(version.filter(|text| semver::Version::parse(text.strip_prefix('v').unwrap_or(text)).is_ok()))
}

fn operations<'a>(root: &Node<'a>) -> Result<Vec<Operation<'a>>> {
    let mut operations = Vec::new();
    for (path, item) in root.members_of("paths")? {
        if path.starts_with("x-") {
            continue;
        }
        if !path.starts_with('/') || path.contains(['?', '#']) {
            return Err(item.wrong("is no path: it begins with `/`, and has no `?` and no `#`"));
        }
        let item = item.resolved()?;
        item.object()?;
        for method in METHODS {
            let Some(node) = item.get(method) else { continue };
            node.object()?;
            operations.push(Operation { method, path, item: item.clone(), node });
            if operations.len() > MAX_OPERATIONS {
                return Err(root.wrong(format!("it has more than {MAX_OPERATIONS} operations")));
            }
        }
    }
    Ok(operations)
}
