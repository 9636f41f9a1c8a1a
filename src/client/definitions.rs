//! `tool` and `function`: list, get, rm, register. Adding is in [`super::import`].

use std::collections::BTreeMap;

use actors::definition::Kind;
use anyhow::{Context, Result, anyhow, bail};
use reqwest::Method;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::service::{Answer, Service, definition_path, encode};
use super::table::{self, Row};
use super::{Failure, import, json, note, print};
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

fn done(answer: &Answer, otherwise: &str, json: bool) -> Result<(), Failure> {
    if json {
        return print(&json::compact(answer.data()));
    }
    print(&table::plain(answer.message().as_deref().unwrap_or(otherwise)))
}

async fn list(service: &Service, kind: Kind, args: &ListArgs, json: bool) -> Result<(), Failure> {
    let filter = args.filter.as_deref().map(|text| json::argument("filter", text)).transpose()?;
    let filter = query(kind, &args.tags, filter.as_deref());
    let (found, more) = collect(service, kind, &filter, args.limit).await?;
    if json {
        let texts: Vec<String> = found.iter().map(|text| json::compact(text.get())).collect();
        return print(&format!("[{}]", texts.join(",")));
    }
    let rows: Vec<Row> = found.iter().map(|text| row(kind, text.get())).collect();
    match rows.as_slice() {
        [] => note(format_args!("no {} found", kind.name())),
        rows => print(&table::draw(rows, table::terminal_width()))?,
    }
    if more {
        note("there are more: raise --limit to see them");
    }
    Ok(())
}

/// Follows the pages until there are none or `limit` is reached; tells whether there are more.
async fn collect(
    service: &Service,
    kind: Kind,
    filter: &str,
    limit: Option<u64>,
) -> Result<(Vec<Box<RawValue>>, bool), Failure> {
    let mut found: Vec<Box<RawValue>> = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let left = limit.map_or(PAGE, |limit| limit.saturating_sub(found.len() as u64));
        if left == 0 {
            return Ok((found, cursor.is_some()));
        }
        let mut path = format!("/{}s?limit={}", kind.name(), left.min(PAGE));
        if let Some(cursor) = &cursor {
            path.push_str(&format!("&cursor={}", encode(cursor)));
        }
        let answer = service.call(Method::POST, &path, Some(filter.to_owned())).await?;
        found.extend(page(&answer)?);
        if answer.next.is_some() && answer.next == cursor {
            return Err(anyhow!("the service gave the same page twice").into());
        }
        match answer.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    // A service that gives more than it was asked for is cut here.
    let most = limit.map_or(usize::MAX, |limit| limit.try_into().unwrap_or(usize::MAX));
    let more = found.len() > most;
    found.truncate(most);
    Ok((found, more))
}

fn page(answer: &Answer) -> Result<Vec<Box<RawValue>>> {
    let Some(data) = &answer.data else {
        bail!("the service answered without a list");
    };
    serde_json::from_str(data.get()).context("the service answered with something else than a list")
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

fn row(kind: Kind, text: &str) -> Row {
    let fields: BTreeMap<String, Value> = serde_json::from_str(text).unwrap_or_default();
    let words = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let field = |name| fields.get(&kind.field(name));
    Row {
        id: field("id").map(words).unwrap_or_default(),
        tags: field("search_tags")
            .and_then(Value::as_array)
            .map(|tags| tags.iter().map(words).collect())
            .unwrap_or_default(),
        description: field("description").map(words).unwrap_or_default(),
    }
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
        assert_eq!((row.id.as_str(), row.tags.len()), ("x", 2));
        assert_eq!(row.description, "");
    }
}
