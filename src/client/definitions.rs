//! `tool` and `function`: list, get, rm, register. Adding is in [`super::import`].

use std::collections::BTreeMap;

use actors::definition::Kind;
use anyhow::Result;
use reqwest::Method;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::pages::List;
use super::service::{Service, definition_path};
use super::{Failure, done, import, json, print, table};
use crate::cli::{DefinitionArgs, DefinitionCommand, ListArgs};

/// What is asked for at a time; the API's own default.
const PAGE: u64 = 1_000;

/// Does what was asked with the definitions of one kind.
pub async fn run(kind: Kind, args: DefinitionArgs, json: bool) -> Result<(), Failure> {
    let service = Service::new(args.service.base())?;
    match args.command {
        DefinitionCommand::List(args) => list(&service, kind, &args, json).await,
        DefinitionCommand::Add { file } => import::file(&service, kind, &file, json).await,
        DefinitionCommand::Get { id } => {
            let path = definition_path(kind.name(), &id)?;
            let answer = service.call(Method::GET, &path, None).await?;
            let layout = if json { json::compact } else { json::pretty };
            print(&layout(answer.data()))
        }
        DefinitionCommand::Rm { id } => {
            let path = definition_path(kind.name(), &id)?;
            let answer = service.call(Method::DELETE, &path, None).await?;
            done(&answer, &format!("{} deleted", kind.title()), json)
        }
        DefinitionCommand::Register { id } => {
            let path = definition_path(&format!("{}/register", kind.name()), &id)?;
            let answer = service.call(Method::POST, &path, None).await?;
            done(&answer, &format!("{} registered", kind.title()), json)
        }
    }
}

async fn list(service: &Service, kind: Kind, args: &ListArgs, json: bool) -> Result<(), Failure> {
    let filter = args.filter.as_deref().map(|text| json::argument("filter", text)).transpose()?;
    let list = List {
        method: Method::POST,
        path: format!("/{}s", kind.name()),
        parameters: Vec::new(),
        body: Some(query(kind, &args.tags, filter.as_deref())),
        page: PAGE,
    };
    let found = list.collect(service, args.limit).await?;
    found.print(kind.name(), json, |texts| {
        let rows: Vec<[String; 3]> = texts.iter().map(|text| row(kind, text.get())).collect();
        Ok(table::draw(["ID", "TAGS", "DESCRIPTION"], &rows, table::terminal_width()))
    })
}

/// The body of the query: the filter and the tags, both where both are given.
fn query(kind: Kind, tags: &[String], filter: Option<&RawValue>) -> String {
    let tags = (!tags.is_empty()).then(|| json!({ kind.field("search_tags"): { "$in": tags } }).to_string());
    match (tags, filter) {
        (None, None) => "{}".to_owned(),
        (Some(tags), None) => tags,
        (None, Some(filter)) => filter.get().to_owned(),
        (Some(tags), Some(filter)) => format!(r#"{{"$and":[{},{tags}]}}"#, filter.get()),
    }
}

/// Its id, its tags and its description.
fn row(kind: Kind, text: &str) -> [String; 3] {
    let fields: BTreeMap<String, Value> = serde_json::from_str(text).unwrap_or_default();
    let words = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let field = |name| fields.get(&kind.field(name));
    let tags = |value: &Value| {
        let tags = value.as_array().map(|tags| tags.iter().map(words).collect::<Vec<_>>());
        tags.unwrap_or_default().join(", ")
    };
    [
        field("id").map(words).unwrap_or_default(),
        field("search_tags").map(tags).unwrap_or_default(),
        field("description").map(words).unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_joins_tags_and_filter() {
        let tags = ["math".to_owned(), "a\"b".to_owned()];
        let filter = json::argument("filter", r#"{"function_metadata.n":18446744073709551616}"#);
        let filter = filter.unwrap();
        assert_eq!(query(Kind::Tool, &[], None), "{}");
        assert_eq!(query(Kind::Tool, &tags, None), r#"{"tool_search_tags":{"$in":["math","a\"b"]}}"#);
        assert_eq!(query(Kind::Function, &[], Some(&filter)), filter.get());
        assert_eq!(
            query(Kind::Function, &tags[..1], Some(&filter)),
            r#"{"$and":[{"function_metadata.n":18446744073709551616},{"function_search_tags":{"$in":["math"]}}]}"#
        );
    }

    #[test]
    fn a_row_shows_what_there_is() {
        let row = row(Kind::Tool, r#"{"tool_id":"x","tool_search_tags":["a","b"],"tool_metadata":{}}"#);
        assert_eq!(row, ["x", "a, b", ""]);
    }
}
