//! `tool` and `function`: list, get, rm, register, refresh. Adding is in [`super::add`], what has to do with
//! revisions and versions in [`super::revisions`].

use std::collections::BTreeMap;

use actors::definition::Kind;
use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};

use super::pages::List;
use super::service::{Service, definition_path};
use super::{Failure, add, done, export, json, print, revisions, table};
use crate::cli::{DefinitionArgs, DefinitionCommand, ListArgs, Selection};

/// What is asked for at a time; the API's own default.
const PAGE: u64 = 1_000;

/// Does what was asked with the definitions of one kind.
pub async fn run(kind: Kind, args: DefinitionArgs, json: bool) -> Result<(), Failure> {
    let service = Service::new(args.service.base())?;
    match args.command {
        DefinitionCommand::List(args) => list(&service, kind, &args, json).await,
        DefinitionCommand::Add { file } => add::run(&service, kind, &file, json).await,
        DefinitionCommand::Get { id, revision } => {
            let path = match revision {
                Some(number) => revisions::path(kind, &id, number)?,
                None => definition_path(kind.name(), &id)?,
            };
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
        DefinitionCommand::Refresh { id } => {
            let path = definition_path(&format!("{}/refresh", kind.name()), &id)?;
            let answer = service.call(Method::POST, &path, None).await?;
            done(&answer, &format!("{} refreshed", kind.title()), json)
        }
        DefinitionCommand::Revisions { id } => revisions::list(&service, kind, &id, json).await,
        DefinitionCommand::Rollback { id, revision } => {
            revisions::roll_back(&service, kind, &id, revision, json).await
        }
        DefinitionCommand::Versions { name } => revisions::versions(&service, kind, &name, json).await,
        DefinitionCommand::Export { select, output } => {
            export::run(&service, &[kind], &select, output.as_deref(), json).await
        }
    }
}

async fn list(service: &Service, kind: Kind, args: &ListArgs, json: bool) -> Result<(), Failure> {
    let list = List {
        method: Method::POST,
        path: format!("/{}s", kind.name()),
        parameters: args.sort.iter().map(|sort| ("sort", sort.clone())).collect(),
        body: Some(filter(kind, &args.select)?),
        page: PAGE,
    };
    let found = list.collect(service, args.limit).await?;
    found.print(kind.name(), json, |texts| {
        let rows: Vec<[String; 3]> = texts.iter().map(|text| row(kind, text.get())).collect();
        Ok(table::draw(["ID", "TAGS", "DESCRIPTION"], &rows, table::terminal_width()))
    })
}

/// The JSON text of a filter that matches what is selected: of all that is given, each has to hold.
pub fn filter(kind: Kind, select: &Selection) -> Result<String> {
    let given = select.filter.as_deref().map(|text| json::argument("filter", text)).transpose()?;
    let tags =
        (!select.tags.is_empty()).then(|| json!({ kind.field("search_tags"): { "$in": select.tags } }));
    let text = select.search.as_ref().map(|text| json!({ "$text": { "$search": text } }));
    let given = given.map(|given| given.get().to_owned());
    let made = [tags, text].into_iter().flatten().map(|condition| condition.to_string());
    let mut conditions: Vec<String> = given.into_iter().chain(made).collect();
    Ok(match conditions.len() {
        0 => "{}".to_owned(),
        1 => conditions.remove(0),
        _ => format!(r#"{{"$and":[{}]}}"#, conditions.join(",")),
    })
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
    fn the_filter_joins_what_is_given() {
        let mut select = Selection::default();
        let joined = |kind, select: &Selection| filter(kind, select).unwrap();
        assert_eq!(joined(Kind::Tool, &select), "{}");
        select.tags = vec!["math".to_owned(), "a\"b".to_owned()];
        assert_eq!(joined(Kind::Tool, &select), r#"{"tool_search_tags":{"$in":["math","a\"b"]}}"#);
        let given = r#"{"function_metadata.n":18446744073709551616}"#;
        select.filter = Some(given.to_owned());
        select.tags.pop();
        assert_eq!(
            joined(Kind::Function, &select),
            r#"{"$and":[{"function_metadata.n":18446744073709551616},{"function_search_tags":{"$in":["math"]}}]}"#
        );
        select.tags.clear();
        assert_eq!(joined(Kind::Function, &select), given);
        select.filter = None;
        select.search = Some("add \"one\"".to_owned());
        assert_eq!(joined(Kind::Tool, &select), r#"{"$text":{"$search":"add \"one\""}}"#);
        select.filter = Some("{".to_owned());
        assert!(filter(Kind::Tool, &select).is_err());
    }

    #[test]
    fn a_row_shows_what_there_is() {
        let row = row(Kind::Tool, r#"{"tool_id":"x","tool_search_tags":["a","b"],"tool_metadata":{}}"#);
        assert_eq!(row, ["x", "a, b", ""]);
    }
}
