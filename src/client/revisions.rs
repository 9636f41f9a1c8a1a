//! What a definition was and is: its revisions, going back to one, and the versions of a name.

use actors::definition::Kind;
use actors::execution::now_ms;
use anyhow::{Context, Result};
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use super::service::{Answer, Service, definition_path};
use super::{Failure, done, json, note, print, table, time};

/// Prints the revisions of a definition, the newest first.
pub async fn list(service: &Service, kind: Kind, id: &str, json: bool) -> Result<(), Failure> {
    let path = format!("{}/revisions", definition_path(kind.name(), id)?);
    let answer = service.call(Method::GET, &path, None).await?;
    if json {
        return print(&json::compact(answer.data()));
    }
    let now = now_ms();
    let revisions: Vec<Revision> = read(&answer, "revisions")?;
    let rows: Vec<[String; 3]> = revisions.iter().map(|revision| revision.row(now)).collect();
    print(&table::draw(["REVISION", "WRITTEN", "IN FORCE"], &rows, table::terminal_width()))
}

/// Prints the versions of a name, the highest first.
pub async fn versions(service: &Service, kind: Kind, name: &str, json: bool) -> Result<(), Failure> {
    let path = format!("{}/versions", definition_path(kind.name(), name)?);
    let answer = service.call(Method::GET, &path, None).await?;
    if json {
        return print(&json::compact(answer.data()));
    }
    let versions: Vec<Value> = read(&answer, "versions")?;
    if versions.is_empty() {
        note(format_args!("no version of {} found", table::plain(name)));
        return Ok(());
    }
    let rows: Vec<[String; 3]> = versions.iter().map(|version| version_row(kind, version)).collect();
    print(&table::draw(["ID", "VERSION", "LATEST"], &rows, table::terminal_width()))
}

/// Makes an earlier revision the one in force again.
pub async fn roll_back(
    service: &Service,
    kind: Kind,
    id: &str,
    number: u64,
    json: bool,
) -> Result<(), Failure> {
    let answer = service.call(Method::PUT, &path(kind, id, number)?, None).await?;
    done(&answer, &format!("{} rolled back to revision {number}", kind.title()), json)
}

/// Where a revision of a definition is, encoded.
pub fn path(kind: Kind, id: &str, number: u64) -> Result<String> {
    Ok(format!("{}/revisions/{number}", definition_path(kind.name(), id)?))
}

fn read<'a, T: Deserialize<'a>>(answer: &'a Answer, what: &str) -> Result<T> {
    serde_json::from_str(answer.data())
        .with_context(|| format!("the service answered with something else than {what}"))
}

/// What the service tells of a revision.
#[derive(Deserialize)]
struct Revision {
    revision: u64,
    written_ms: u64,
    in_force: bool,
}

impl Revision {
    fn row(&self, now: u64) -> [String; 3] {
        let written = format!("{} ago", time::age(now.saturating_sub(self.written_ms)));
        [self.revision.to_string(), written, yes(self.in_force)]
    }
}

fn version_row(kind: Kind, version: &Value) -> [String; 3] {
    let text = |name: &str| version[name].as_str().unwrap_or_default().to_owned();
    [text(&kind.field("id")), text("version"), yes(version["latest"] == true)]
}

fn yes(is_so: bool) -> String {
    if is_so { "yes".to_owned() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_revision_is_shown_with_its_age() {
        let text = r#"{"revision":3,"etag":"\"x\"","written_ms":1000,"in_force":true}"#;
        let mut revision: Revision = serde_json::from_str(text).unwrap();
        assert_eq!(revision.row(7_201_000), ["3", "2h ago", "yes"]);
        revision.in_force = false;
        assert_eq!(revision.row(0), ["3", "0s ago", ""]);
    }

    #[test]
    fn a_version_is_shown_with_its_id() {
        let version = json!({ "function_id": "f:v1.2.0", "version": "v1.2.0", "latest": true });
        assert_eq!(version_row(Kind::Function, &version), ["f:v1.2.0", "v1.2.0", "yes"]);
    }

    #[test]
    fn a_revision_has_an_address() {
        assert_eq!(path(Kind::Tool, "a b", 7).unwrap(), "/tool/a%20b/revisions/7");
        assert!(path(Kind::Tool, "..", 7).is_err());
    }
}
