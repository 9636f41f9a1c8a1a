//! External sources: asks those of the configuration for a definition, in order, and reads what they answer. A source is
//! a registry, an OpenAPI document or an MCP server.
//!
//! Where a definition came from stays in its metadata, under `provenance`, so that it can be fetched again; a source that
//! says by an ETag or a date what it gave is asked only for what changed since.

use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{StatusCode, Url};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::definition::{Definition, Kind};
use crate::egress::{self, Ask, Egress, Reach, Unread};
use crate::error::{Code, Error, Result};
use crate::settings::SourceSettings;
use crate::{json, mcp, openapi, version};

mod shapes;

/// The key of the metadata that tells where a definition came from.
const PROVENANCE: &str = "provenance";

/// Where a definition came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Provenance {
    /// The name of the source.
    source: String,
    /// Where in it, without what may be a credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// What the source calls this version of its answer (RFC 9110, 8.8.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    /// When the source's answer was last changed, in the source's words (RFC 9110, 8.8.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_modified: Option<String>,
    /// Which operation of an OpenAPI document it is, where its name was made of that, and may become another one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    operation: Option<String>,
    /// Where the configuration has its operations called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base_url: Option<String>,
}

/// What a source lists.
struct Listed {
    /// Its name, by which it may be asked for.
    name: String,
    /// Which operation of a document it is.
    operation: Option<String>,
    /// Whether that alone is what it is known by.
    is_made: bool,
    /// A definition's JSON text, or why it cannot be one.
    text: std::result::Result<String, Problem>,
}

/// What one source says.
enum Answer {
    /// This.
    Definition(Definition),
    /// It does not have it.
    Nothing,
    /// What it gave before holds.
    Unchanged,
}

/// What a document is, or that it is what it was.
enum Document {
    Text(String, Provenance),
    Missing,
    Unchanged,
}

/// Why a source gave no usable answer; reads on after `the source "name"`.
type Problem = String;

/// Asks each source until one has the definition.
///
/// # Errors
/// `not_found` where all answered that they do not have it, or none is configured for this kind; `source_unavailable`,
/// naming the sources, where some gave no usable answer and no other had it.
pub async fn fetch(egress: &Egress, sources: &[SourceSettings], kind: Kind, id: &str) -> Result<Definition> {
    let mut problems = Vec::new();
    let mut asked = false;
    for source in sources.iter().filter(|source| source.has(kind)) {
        asked = true;
        match in_time(source, ask(egress, source, kind, id, &Provenance::default())).await {
            Ok(Answer::Definition(definition)) => return Ok(definition),
            Ok(Answer::Nothing | Answer::Unchanged) => {}
            Err(error) => problems.push(error.to_string()),
        }
    }
    let name = kind.name();
    Err(if !problems.is_empty() {
        Error::new(Code::SourceUnavailable, problems.join("; "))
    } else if asked {
        Error::new(Code::NotFound, format!("no source has this {name}"))
    } else {
        Error::new(Code::NotFound, format!("no source is configured for a {name}"))
    })
}

/// Asks the source that a definition came from for what it is now; nothing where it is what it was.
///
/// # Errors
/// `conflict` where it did not come from a source, or that one is not configured any more; `not_found` where the source does
/// not have it any more; `source_unavailable` where it gave no usable answer.
pub async fn refresh(
    egress: &Egress,
    sources: &[SourceSettings],
    current: &Definition,
) -> Result<Option<Definition>> {
    let name = current.kind.name();
    let conflict = |message: String| Error::new(Code::Conflict, message);
    let known = provenance(current)
        .ok_or_else(|| conflict(format!("this {name} was not registered from a source")))?;
    let source = sources.iter().find(|source| source.name == known.source && source.has(current.kind));
    let source = source
        .ok_or_else(|| conflict(format!("the source {:?} of this {name} is not configured", known.source)))?;
    match in_time(source, ask(egress, source, current.kind, &current.id, &known)).await? {
        Answer::Unchanged => Ok(None),
        Answer::Definition(now) => {
            // One that was found by its name has a version in its id by now; it stays the one that it is.
            let now = Definition { id: current.id.clone(), ..now };
            Ok(Some(now).filter(|now| !is_same(now, current)))
        }
        Answer::Nothing => {
            let message = format!("the source {:?} does not have this {name} any more", source.name);
            Err(Error::new(Code::NotFound, message))
        }
    }
}

/// All that a source lists of a kind: each as a definition, or why it cannot be one.
///
/// # Errors
/// `not_found` where there is no such source, or it lists none of this kind; `source_unavailable`.
pub async fn list(
    egress: &Egress,
    sources: &[SourceSettings],
    name: &str,
    kind: Kind,
) -> Result<Vec<Result<Definition>>> {
    let source = sources.iter().find(|source| source.name == name);
    let source = source.filter(|source| source.lists(kind)).ok_or_else(|| {
        let message = format!("there is no source {name:?} that lists its {}s", kind.name());
        Error::new(Code::NotFound, message)
    })?;
    let listing = async {
        let parsed = listed(egress, source, kind, &Provenance::default()).await?;
        let (found, provenance) = parsed.unwrap_or_default();
        let definition = |listed: Listed| listed.definition(kind, &provenance).map_err(Error::invalid);
        Ok(found.into_iter().map(definition).collect())
    };
    in_time(source, listing).await
}

async fn in_time<T>(
    source: &SourceSettings,
    answer: impl Future<Output = std::result::Result<T, Problem>>,
) -> Result<T> {
    let name = &source.name;
    let answered = tokio::time::timeout(Duration::from_millis(source.timeout_ms), answer).await;
    let problem = match answered {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(problem)) => format!("the source {name:?} {problem}"),
        Err(_) => format!("the source {name:?} took longer than {} ms", source.timeout_ms),
    };
    Err(Error::new(Code::SourceUnavailable, problem))
}

/// One source's answer: of its registry first, then of what it lists.
async fn ask(
    egress: &Egress,
    source: &SourceSettings,
    kind: Kind,
    id: &str,
    known: &Provenance,
) -> std::result::Result<Answer, Problem> {
    if let Some(template) = source.url(kind) {
        match document(egress, source, &template.replace("{id}", &egress::escaped(id)), known).await? {
            Document::Text(text, provenance) => {
                return read(kind, id, &text, &provenance).map(Answer::Definition);
            }
            Document::Unchanged => return Ok(Answer::Unchanged),
            Document::Missing => {}
        }
    }
    if !source.lists(kind) {
        return Ok(Answer::Nothing);
    }
    let Some((found, provenance)) = listed(egress, source, kind, known).await? else {
        return Ok(Answer::Unchanged);
    };
    // What is known by its operation is that one, whatever its name has become, and no other that has its name now.
    let place = match &known.operation {
        Some(operation) => found.iter().position(|listed| listed.operation.as_ref() == Some(operation)),
        None => {
            let is_it = |text: &String| Definition::parse(kind, text).is_ok_and(|it| it.id == id);
            let has_id = |listed: &Listed| listed.text.as_ref().is_ok_and(is_it);
            found.iter().position(has_id).or_else(|| found.iter().position(|listed| listed.name == id))
        }
    };
    let Some(place) = place else { return Ok(Answer::Nothing) };
    let found = &found[place];
    let Some(operation) = &known.operation else {
        return found.definition(kind, &provenance).map(Answer::Definition);
    };
    let provenance = Provenance { operation: Some(operation.clone()), ..provenance };
    let definition = with_provenance(kind, found.text.as_ref().map_err(Clone::clone)?, &provenance)?;
    // What a version is called by stays what it was when the document has another one.
    let of = |id| version::split(id).map(|(_, version)| version);
    if of(id).is_some() && of(id) != of(&definition.id) {
        return Ok(Answer::Nothing);
    }
    Ok(Answer::Definition(Definition { id: id.to_owned(), ..definition }))
}

impl Listed {
    fn definition(&self, kind: Kind, provenance: &Provenance) -> std::result::Result<Definition, Problem> {
        let operation = self.operation.clone().filter(|_| self.is_made);
        let text = self.text.as_ref().map_err(Clone::clone)?;
        with_provenance(kind, text, &Provenance { operation, ..provenance.clone() })
    }
}

/// What a source lists; nothing where it is what it was.
async fn listed(
    egress: &Egress,
    source: &SourceSettings,
    kind: Kind,
    known: &Provenance,
) -> std::result::Result<Option<(Vec<Listed>, Provenance)>, Problem> {
    if kind == Kind::Tool {
        let mcp::Tools { found, refused } = mcp::tools(egress, source).await?;
        // They are asked for by their ids, which have the prefix.
        let listed = |text| Listed { name: String::new(), operation: None, is_made: false, text };
        let texts = found.into_iter().map(|found| Ok(found.definition)).chain(refused.into_iter().map(Err));
        let found = texts.map(listed).collect();
        let url = source.mcp_url.as_deref().map(without_credentials);
        return Ok(Some((found, Provenance { source: source.name.clone(), url, ..Provenance::default() })));
    }
    let url = source.openapi.as_deref().ok_or("lists no functions")?;
    // What a source said of its document says nothing of functions that are called elsewhere now.
    let is_moved = known.base_url != source.base_url;
    let known = if is_moved { &Provenance::default() } else { known };
    let (text, provenance) = match document(egress, source, url, known).await? {
        Document::Text(text, provenance) => {
            (text, Provenance { base_url: source.base_url.clone(), ..provenance })
        }
        Document::Unchanged => return Ok(None),
        Document::Missing => return Err("has no document at its address".into()),
    };
    let place = openapi::Place {
        url,
        base_url: source.base_url.as_deref(),
        prefix: &source.prefix,
        source: &source.name,
    };
    let found = openapi::functions(&text, &place)?;
    let listed = |found: openapi::Found| Listed {
        name: found.name,
        operation: Some(found.operation),
        is_made: found.is_made,
        text: Ok(found.definition),
    };
    Ok(Some((found.into_iter().map(listed).collect(), provenance)))
}

/// Fetches a document, unless it is what it was.
async fn document(
    egress: &Egress,
    source: &SourceSettings,
    url: &str,
    known: &Provenance,
) -> std::result::Result<Document, Problem> {
    let shown = without_credentials(url);
    let url = Url::parse(url).map_err(|error| format!("has no valid address: {error}"))?;
    let mut asked = Ask { headers: headers(source)?, ..Ask::get(url) };
    // What a source said of another address says nothing of this one.
    if known.url.as_ref() == Some(&shown) {
        conditional(&mut asked.headers, known);
    }
    let answered = egress.send(asked, Reach::of(source.allow_private)).await;
    let response = answered.map_err(|failure| failure.of_source())?;
    match response.status() {
        StatusCode::NOT_MODIFIED => return Ok(Document::Unchanged),
        StatusCode::NOT_FOUND => return Ok(Document::Missing),
        status if status.is_success() => {}
        status => return Err(format!("answered with status {}", status.as_u16())),
    }
    let said = |name| response.headers().get(name).and_then(|value| Some(value.to_str().ok()?.to_owned()));
    let provenance = Provenance {
        source: source.name.clone(),
        url: Some(shown),
        etag: said(header::ETAG),
        last_modified: said(header::LAST_MODIFIED),
        ..Provenance::default()
    };
    let max_bytes = usize::try_from(source.max_bytes).unwrap_or(usize::MAX);
    let body = egress::read(response, max_bytes).await.map_err(|unread| match unread {
        Unread::TooLarge => format!("answered with more than {max_bytes} bytes"),
        Unread::Broken(_) => "broke off its answer".to_owned(),
    })?;
    let text = String::from_utf8(body).map_err(|_| "gave an answer that is not UTF-8")?;
    Ok(Document::Text(text, provenance))
}

fn conditional(headers: &mut HeaderMap, known: &Provenance) {
    for (name, value) in
        [(header::IF_NONE_MATCH, &known.etag), (header::IF_MODIFIED_SINCE, &known.last_modified)]
    {
        // What cannot be said is not asked for: the whole document comes then.
        if let Some(Ok(value)) = value.as_deref().map(HeaderValue::from_str) {
            headers.append(name, value);
        }
    }
}

/// A registry's answer, which is for the id that was asked.
fn read(
    kind: Kind,
    id: &str,
    text: &str,
    provenance: &Provenance,
) -> std::result::Result<Definition, Problem> {
    let value = json::parse(text).map_err(|error| format!("gave an answer that is {error}"))?;
    let definition = shapes::read(kind, id, text, &value)?;
    if definition.id != id {
        return Err(format!("answered for another id, {:?}", definition.id));
    }
    with_provenance(kind, &definition.to_json(), provenance)
}

/// The definition, which tells in its metadata where it came from.
fn with_provenance(
    kind: Kind,
    text: &str,
    provenance: &Provenance,
) -> std::result::Result<Definition, Problem> {
    let unusable = |error: Error| format!("gave a definition that cannot be used: {error}");
    let mut definition = Definition::parse(kind, text).map_err(unusable)?;
    let provenance = serde_json::to_string(provenance).map_err(|error| error.to_string())?;
    definition.metadata = replaced(&definition.metadata, Some(&provenance)).map_err(unusable)?;
    Ok(definition)
}

/// The metadata, as it was written, with another provenance or none, which stands last.
fn replaced(metadata: &str, provenance: Option<&str>) -> Result<String> {
    let mut kept = Vec::new();
    // The order of the keys is the source's.
    for (key, value) in json::ordered_members(metadata)? {
        if key != PROVENANCE {
            kept.push(format!("{}:{}", json::quote(&key), value.get()));
        }
    }
    kept.extend(provenance.map(|provenance| format!("{}:{provenance}", json::quote(PROVENANCE))));
    Ok(format!("{{{}}}", kept.join(",")))
}

fn provenance(definition: &Definition) -> Option<Provenance> {
    let metadata: Value = serde_json::from_str(&definition.metadata).ok()?;
    serde_json::from_value(metadata.get(PROVENANCE)?.clone()).ok()
}

/// Whether two definitions are the same, wherever they came from.
fn is_same(left: &Definition, right: &Definition) -> bool {
    let bare = |definition: &Definition| {
        let metadata = replaced(&definition.metadata, None).unwrap_or_default();
        Definition { metadata, ..definition.clone() }
    };
    bare(left) == bare(right)
}

/// An address without user, password, query and fragment: each may hold a credential.
fn without_credentials(url: &str) -> String {
    let Ok(mut url) = reqwest::Url::parse(url) else { return String::new() };
    // An address that cannot have them has none.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// What a source is asked with.
fn headers(source: &SourceSettings) -> std::result::Result<HeaderMap, Problem> {
    let mut headers = HeaderMap::new();
    for (name, value) in &source.headers {
        let name =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("has a header named {name:?}"))?;
        let mut value =
            HeaderValue::from_str(value).map_err(|_| format!("has a bad value for the header {name}"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provenance_stands_last_and_the_rest_keeps_its_text() {
        let given = Provenance { source: "s".into(), etag: Some("\"1\"".into()), ..Provenance::default() };
        let text = r#"{"tool_id":"t","tool_metadata":{"z":1.50,"provenance":{"source":"theirs"},"a":18446744073709551615}}"#;
        let definition = with_provenance(Kind::Tool, text, &given).expect("usable");
        let metadata = r#"{"z":1.50,"a":18446744073709551615,"provenance":{"source":"s","etag":"\"1\""}}"#;
        assert_eq!(definition.metadata, metadata);
        assert_eq!(provenance(&definition), Some(given));
        let other = Provenance { source: "t".into(), ..Provenance::default() };
        assert!(is_same(&definition, &with_provenance(Kind::Tool, text, &other).expect("usable")));
        let changed = text.replace("1.50", "1.5");
        assert!(!is_same(&definition, &with_provenance(Kind::Tool, &changed, &other).expect("usable")));
    }

    #[test]
    fn an_address_is_told_without_its_credentials() {
        let shown = without_credentials("https://user:secret@a.example:8443/tools/x?token=secret#secret");
        assert_eq!(shown, "https://a.example:8443/tools/x");
    }
}
