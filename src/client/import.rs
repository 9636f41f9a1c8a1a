//! Registering what files hold: `import PATH` and `tool add FILE`.

use std::fs;
use std::path::{Path, PathBuf};

use actors::definition::Kind;
use anyhow::{Context, Result, anyhow};
use console::style;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::service::Service;
use super::{Failure, Refusal, complain, json, print, table};
use crate::cli::ImportArgs;

/// What became of one definition.
enum Registered {
    Created,
    Exists,
    Failed(Refusal),
}

/// How many became what.
#[derive(Debug, Default)]
struct Tally {
    created: usize,
    existing: usize,
    failed: usize,
}

/// The ids of a definition of either kind.
#[derive(Debug, Default, Deserialize)]
struct Ids {
    tool_id: Option<String>,
    function_id: Option<String>,
}

/// `import`: registers all definitions of a file or folder; what exists already stays as it is.
pub async fn folder(args: &ImportArgs, json: bool) -> Result<(), Failure> {
    let service = Service::new(args.service.base())?;
    let files = files(&args.path)?;
    if files.is_empty() {
        return Err(anyhow!("{} holds no *.json", args.path.display()).into());
    }
    let mut tally = Tally::default();
    for file in files {
        let place = file.display().to_string();
        let text = fs::read_to_string(&file).map_err(anyhow::Error::from);
        let documents = text.and_then(|text| Ok(json::documents(&text)?));
        match documents {
            Ok(documents) => {
                for document in documents {
                    import(&service, &document, &place, &mut tally, json).await?;
                }
            }
            Err(error) => tally.fail(&place, &format!("{error:#}"), json)?,
        }
    }
    tally.finish(json)
}

async fn import(
    service: &Service,
    document: &RawValue,
    place: &str,
    tally: &mut Tally,
    json: bool,
) -> Result<(), Failure> {
    let (kind, id) = match identify(document) {
        Ok(found) => found,
        Err(error) => return tally.fail(place, &format!("{error:#}"), json),
    };
    let registered = register(service, kind, document).await?;
    tally.count(&registered);
    if json {
        let line = match &registered {
            Registered::Created => json!({"result": "created", "kind": kind, "id": id}),
            Registered::Exists => json!({"result": "exists", "kind": kind, "id": id}),
            Registered::Failed(refusal) => {
                json!({"result": "failed", "kind": kind, "id": id, "file": place,
                       "error": refusal.error, "code": refusal.code})
            }
        };
        return print(&line.to_string());
    }
    let name = format!("{} {}", kind.name(), table::plain(&id));
    match &registered {
        Registered::Created => print(&format!("{} {name}", style("created       ").green())),
        Registered::Exists => print(&format!("{} {name}", style("exists already").dim())),
        Registered::Failed(refusal) => {
            let failed = style("failed        ").red();
            print(&format!("{failed} {name} in {place}: {}", refusal.sentence()))
        }
    }
}

impl Tally {
    fn count(&mut self, registered: &Registered) {
        match registered {
            Registered::Created => self.created += 1,
            Registered::Exists => self.existing += 1,
            Registered::Failed(_) => self.failed += 1,
        }
    }

    /// Reports what could not even be asked for.
    fn fail(&mut self, place: &str, reason: &str, json: bool) -> Result<(), Failure> {
        self.failed += 1;
        if json {
            return print(&json!({"result": "failed", "file": place, "error": reason}).to_string());
        }
        let failed = style("failed        ").red();
        print(&format!("{failed} {place}: {reason}"))
    }

    fn finish(&self, json: bool) -> Result<(), Failure> {
        let Self { created, existing, failed } = self;
        print(&if json {
            json!({"created": created, "exists": existing, "failed": failed}).to_string()
        } else {
            format!("{created} created, {existing} existed already, {failed} failed")
        })?;
        if *failed > 0 {
            return Err(Failure::Partly);
        }
        Ok(())
    }
}

/// `tool add`: registers the definitions of a file or of stdin; one that exists is an error.
pub async fn file(service: &Service, kind: Kind, name: &str, json: bool) -> Result<(), Failure> {
    let documents = json::read(name)
        .and_then(|text| json::documents(&text).with_context(|| format!("{name} is not JSON")))?;
    if documents.is_empty() {
        return Err(anyhow!("{name} holds no definition").into());
    }
    let alone = documents.len() == 1;
    let mut refused = false;
    for document in documents {
        let path = format!("/{}", kind.name());
        let answer = service.call(Method::POST, &path, Some(document.get().to_owned())).await;
        let id = Ids::of(&document).unwrap_or_default().get(kind);
        let id = table::plain(&id.unwrap_or_else(|| "a definition without an id".to_owned()));
        match answer {
            Ok(answer) if json => print(&json::compact(answer.data()))?,
            Ok(_) => print(&format!("created {} {id}", kind.name()))?,
            Err(Failure::Refused(refusal)) if !alone => {
                refused = true;
                complain(format_args!("{id}: {}", refusal.sentence()));
                if json {
                    print(&refusal.text)?;
                }
            }
            Err(failure) => return Err(failure),
        }
    }
    if refused {
        return Err(Failure::Partly);
    }
    Ok(())
}

/// Registers one definition. A connection that fails is an error, a refusal a result.
async fn register(service: &Service, kind: Kind, document: &RawValue) -> Result<Registered, Failure> {
    let path = format!("/{}", kind.name());
    let body = Some(document.get().to_owned());
    match service.call(Method::POST, &path, body).await {
        Ok(_) => Ok(Registered::Created),
        Err(Failure::Refused(refusal)) if refusal.code.as_deref() == Some("conflict") => {
            Ok(Registered::Exists)
        }
        Err(Failure::Refused(refusal)) => Ok(Registered::Failed(refusal)),
        Err(failure) => Err(failure),
    }
}

impl Ids {
    fn of(document: &RawValue) -> Result<Self> {
        // An array would be taken for the fields in their order.
        if !document.get().starts_with('{') {
            return Err(anyhow!("a definition is a JSON object"));
        }
        Ok(serde_json::from_str(document.get())?)
    }

    fn get(self, kind: Kind) -> Option<String> {
        match kind {
            Kind::Tool => self.tool_id,
            Kind::Function => self.function_id,
        }
    }
}

/// Tells a tool from a function.
fn identify(document: &RawValue) -> Result<(Kind, String)> {
    let ids = Ids::of(document)?;
    match (ids.tool_id, ids.function_id) {
        (Some(id), None) => Ok((Kind::Tool, id)),
        (None, Some(id)) => Ok((Kind::Function, id)),
        (None, None) => Err(anyhow!("it has neither a tool_id nor a function_id")),
        (Some(_), Some(_)) => Err(anyhow!("it has both a tool_id and a function_id")),
    }
}

/// A file as it is, or all `*.json` below a folder in the order of their names. Links to folders are
/// not followed: they may lead round in circles.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("cannot read {}", path.display());
    if !fs::metadata(path).with_context(context)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).with_context(context)?;
    let mut entries = entries.collect::<Result<Vec<_>, _>>().with_context(context)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.path();
        if entry.file_type().with_context(context)?.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|ending| ending == "json") && path.is_file() {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identified(text: &str) -> Result<(Kind, String)> {
        identify(&json::documents(text).unwrap()[0])
    }

    #[test]
    fn a_definition_is_known_by_its_id() {
        assert_eq!(
            identified(r#"{"tool_id":"x","tool_metadata":{}}"#).unwrap(),
            (Kind::Tool, "x".to_owned())
        );
        assert_eq!(identified(r#"{"function_id":"f:v1"}"#).unwrap(), (Kind::Function, "f:v1".to_owned()));
    }

    #[test]
    fn what_is_no_definition_says_why() {
        for (text, reason) in [
            ("{}", "neither"),
            (r#"{"tool_id":"x","function_id":"y"}"#, "both"),
            (r#"{"tool_id":5}"#, "invalid type"),
            (r#"[["a","b"]]"#, "a JSON object"),
            ("7", "a JSON object"),
        ] {
            let error = identified(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
