//! Media types: which of those that a document offers is sent, or can be read. Pure.

use super::document::{Node, Result};

/// How a body is written, the better before the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// JSON, or a range that allows it.
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// Some text.
    Text,
    /// What is neither written nor read here.
    Other,
}

/// One of the media types of a `content`.
pub struct Media<'a> {
    pub format: Format,
    /// The name to send it under; a range that allows JSON is sent as JSON.
    pub name: &'a str,
    pub schema: Option<Node<'a>>,
}

/// The best of a `content`: JSON itself before what is like JSON; nothing where there is none.
pub fn best<'a>(holder: &Node<'a>) -> Result<Option<Media<'a>>> {
    holder.object()?;
    let mut best: Option<((Format, bool), &str, Node<'a>)> = None;
    for (name, node) in holder.members_of("content")? {
        let rank = (format(name), essence(name) != "application/json");
        if best.as_ref().is_none_or(|(other, _, _)| rank < *other) {
            best = Some((rank, name, node));
        }
    }
    let Some(((format, _), name, node)) = best else { return Ok(None) };
    node.object()?;
    let name = if format == Format::Json && name.contains('*') { "application/json" } else { name };
    Ok(Some(Media { format, name, schema: node.get("schema") }))
}

fn essence(name: &str) -> String {
    name.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn format(name: &str) -> Format {
    match essence(name).as_str() {
        "application/json" | "*/*" | "application/*" => Format::Json,
        "application/x-www-form-urlencoded" => Format::Form,
        name if name.ends_with("+json") => Format::Json,
        name if name.starts_with("text/") => Format::Text,
        _ => Format::Other,
    }
}
