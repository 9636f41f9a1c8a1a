//! `tool add` and `function add`: each definition by itself, and one that exists is an error. Many are
//! for [`super::import`].

use actors::definition::Kind;
use anyhow::{Context, anyhow};
use reqwest::Method;

use super::ids::Ids;
use super::service::Service;
use super::{Failure, complain, json, print, table};

/// Registers the definitions of a file or of stdin.
pub async fn run(service: &Service, kind: Kind, name: &str, json: bool) -> Result<(), Failure> {
    let text = json::read(name)?;
    let documents = json::documents(&text).with_context(|| format!("{name} is not JSON"))?;
    if documents.is_empty() {
        return Err(anyhow!("{name} holds no definition").into());
    }
    let alone = documents.len() == 1;
    let mut refused = false;
    for document in documents {
        let path = format!("/{}", kind.name());
        let answer = service.call(Method::POST, &path, Some(document.get().to_owned())).await;
        let id = Ids::of(document.get()).unwrap_or_default().get(kind);
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
