//! Many definitions at a time, as lines of JSON: in with a result for each line, and out.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use actors::access::Scope;
use actors::audit::Action;
use actors::definition::{Definition, Kind};
use actors::error::{Error, Result};
use actors::query::Filter;
use actors::registry::{ImportOptions, Imported, PageRequest, Sort};
use actors::system::Acting;
use futures_util::stream;
use poem::http::StatusCode;
use poem::{Body, Response};
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use super::authorized::Authorized;
use super::body::{JsonLines, Lines};
use super::definitions::Registered;
use super::reply::Reply;
use crate::tally::{Became, Tally};

/// How many lines are written together, and how many bytes of them.
const BATCH_LINES: usize = 500;
const BATCH_BYTES: usize = 1 << 20;

/// How long a batch that is not full waits for the next line.
const BATCH_WAIT: Duration = Duration::from_millis(20);

/// How many bytes of results wait for a client that reads them only after it has sent all of its lines.
const RESULT_BYTES: usize = 64 << 20;

/// How many definitions are read at a time for an export.
const EXPORT_PAGE: usize = 500;

/// Imports and exports.
pub struct Bulk<R>(pub PhantomData<R>);

#[OpenApi(prefix_path = R::MANY)]
impl<R: Registered> Bulk<R> {
    /// Register the definitions of a body of JSON lines, one object each. The answer is JSON lines too: what became of each
    /// line, and at the end how many were created, updated, unchanged, existed or failed.
    #[oai(path = "/import", method = "post")]
    async fn import(
        &self,
        acting: Authorized,
        /// What becomes of a definition whose id is taken: `keep` (the default) leaves it, `replace` puts the new one
        /// in its place.
        existing: Query<Option<String>>,
        /// `true`: nothing is written, and the answer is what an import would give.
        dry_run: Query<Option<String>>,
        body: JsonLines,
    ) -> Reply<200> {
        let may = acting.may(Action::DefinitionImport, R::KIND.name(), &[Scope::Write]);
        let options = may.and_then(|()| options(existing.0.as_deref(), dry_run.0.as_deref()));
        match options {
            Ok(options) => import(acting.0.clone(), R::KIND, options, body.0),
            Err(error) => Reply::refused(&error),
        }
    }

    /// Register all that a configured source lists: the operations of an OpenAPI document as functions, the tools of an MCP
    /// server as tools. The answer is as for a body of JSON lines; a tool that cannot be a definition is one that failed.
    #[oai(path = "/import/:source", method = "post")]
    async fn import_source(
        &self,
        acting: Authorized,
        source: Path<String>,
        /// As above.
        existing: Query<Option<String>>,
        /// As above.
        dry_run: Query<Option<String>>,
    ) -> Reply<200> {
        let options = match options(existing.0.as_deref(), dry_run.0.as_deref()) {
            Ok(options) => options,
            Err(error) => return Reply::refused(&error),
        };
        match acting.list_source(R::KIND, &source).await {
            Ok(definitions) => import_all(acting.0.clone(), R::KIND, options, definitions),
            Err(error) => Reply::refused(&error),
        }
    }

    /// All definitions that a filter matches, as JSON lines in the order of their ids. A broken connection says that it is not
    /// all of them.
    #[oai(path = "/export", method = "get")]
    async fn export(
        &self,
        acting: Authorized,
        /// A filter, as JSON; all definitions unless told.
        filter: Query<Option<String>>,
    ) -> Reply<200> {
        let filter = filter.0.as_deref().unwrap_or("{}");
        let filter = actors::json::parse(filter).and_then(|filter| Filter::parse(R::KIND, &filter));
        match (acting.may(Action::DefinitionRead, R::KIND.name(), &[Scope::Read]), filter) {
            (Ok(()), Ok(filter)) => export(acting.0.clone(), R::KIND, filter),
            (Err(error), _) => Reply::refused(&error),
            (_, Err(error)) => Reply::refused(&error.within("filter")),
        }
    }
}

fn options(existing: Option<&str>, dry_run: Option<&str>) -> Result<ImportOptions> {
    let replace = match existing {
        None | Some("keep") => false,
        Some("replace") => true,
        Some(_) => return Err(Error::invalid("`existing` is `keep` or `replace`").at("existing")),
    };
    let dry_run = match dry_run {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Error::invalid("`dry_run` is `true` or `false`").at("dry_run")),
    };
    Ok(ImportOptions { replace, dry_run })
}

/// An answer of JSON lines.
pub fn json_lines(body: Body) -> Reply<200> {
    let response = Response::builder().status(StatusCode::OK).content_type("application/x-ndjson");
    Reply::response(response.body(body))
}

/// Answers at once, and goes on with the lines in a task of its own.
fn import(acting: Acting, kind: Kind, options: ImportOptions, lines: Lines) -> Reply<200> {
    let (results, written) = results();
    let importer = Importer { acting, kind, options, results, tally: Tally::default() };
    tokio::spawn(importer.run(lines));
    json_lines(written)
}

fn import_all(
    acting: Acting,
    kind: Kind,
    options: ImportOptions,
    definitions: Vec<Result<Definition>>,
) -> Reply<200> {
    let (results, written) = results();
    let mut importer = Importer { acting, kind, options, results, tally: Tally::default() };
    tokio::spawn(async move {
        let mut numbered = (1..).zip(definitions).peekable();
        while numbered.peek().is_some() {
            if importer.write(numbered.by_ref().take(BATCH_LINES).collect()).await.is_none() {
                return;
            }
        }
        importer.finish().await;
    });
    json_lines(written)
}

/// Reads lines, has them written, and tells what became of each.
struct Importer {
    acting: Acting,
    kind: Kind,
    options: ImportOptions,
    results: Results,
    tally: Tally,
}

/// A line, by its number, as a definition or with what is wrong with it.
type Read = (u64, Result<Definition>);

impl Importer {
    async fn run(mut self, mut lines: Lines) {
        let (mut number, mut batch, mut bytes) = (0, Vec::new(), 0);
        loop {
            let next = if batch.is_empty() {
                Some(lines.next().await)
            } else {
                // What a cancelled wait had read of a line stays with `lines`.
                tokio::time::timeout(BATCH_WAIT, lines.next()).await.ok()
            };
            let mut is_last = false;
            match next {
                None => {}
                Some(Ok(None)) => is_last = true,
                Some(Ok(Some(line))) => {
                    number += 1;
                    bytes += line.as_ref().map_or(0, String::len);
                    match line {
                        Ok(line) if line.trim().is_empty() => {}
                        line => {
                            batch.push((number, line.and_then(|line| Definition::parse(self.kind, &line))))
                        }
                    }
                    if batch.len() < BATCH_LINES && bytes < BATCH_BYTES {
                        continue;
                    }
                }
                Some(Err(error)) => {
                    batch.push((number + 1, Err(error)));
                    is_last = true;
                }
            }
            bytes = 0;
            if self.write(std::mem::take(&mut batch)).await.is_none() {
                return;
            }
            if is_last {
                break;
            }
        }
        self.finish().await;
    }

    async fn finish(self) {
        let summary = json!({ "success": true, "data": self.tally.json(self.options.dry_run) });
        self.results.send(&summary).await;
    }

    /// Writes a batch and tells of each of its lines; nothing where nobody listens any more.
    async fn write(&mut self, batch: Vec<Read>) -> Option<()> {
        let mut told: Vec<(u64, Option<String>, Option<Error>)> = Vec::with_capacity(batch.len());
        let mut definitions = Vec::with_capacity(batch.len());
        for (number, read) in batch {
            match read {
                Ok(definition) => {
                    told.push((number, Some(definition.id.clone()), None));
                    definitions.push(definition);
                }
                Err(error) => told.push((number, None, Some(error))),
            }
        }
        let count = definitions.len();
        let mut answers = match definitions.is_empty() {
            true => Vec::new(),
            false => match self.acting.import(self.kind, definitions, self.options).await {
                Ok(answers) => answers,
                Err(error) => vec![Err(error); count],
            },
        }
        .into_iter();
        for (number, id, error) in told {
            let answer = match error {
                Some(error) => Err(error),
                None => {
                    answers.next().unwrap_or_else(|| Err(Error::unavailable("there was no answer for it")))
                }
            };
            self.tally.count(Became::from(&answer));
            self.results.send(&line_of(number, id, answer)).await?;
        }
        Some(())
    }
}

fn line_of(number: u64, id: Option<String>, answer: Result<Imported>) -> Value {
    let mut line = json!({ "line": number });
    if let Some(id) = id {
        line["id"] = id.into();
    }
    line["result"] = json!(Became::from(&answer));
    if let Err(error) = answer {
        line["error"] = error.to_string().into();
        line["code"] = error.code().as_str().into();
        if let Some(details) = error.details() {
            line["details"] = details.clone();
        }
    }
    line
}

/// The lines of an answer. A client may send all of its own before it reads, so many of these can wait.
struct Results {
    lines: mpsc::UnboundedSender<String>,
    room: Arc<Semaphore>,
}

impl Results {
    /// Waits for room; nothing where the client is gone.
    async fn send(&self, line: &Value) -> Option<()> {
        let line = format!("{line}\n");
        let length = u32::try_from(line.len()).unwrap_or(u32::MAX).min(RESULT_BYTES as u32);
        let room = tokio::select! {
            room = self.room.acquire_many(length) => room.ok()?,
            () = self.lines.closed() => return None,
        };
        room.forget();
        self.lines.send(line).ok()
    }
}

fn results() -> (Results, Body) {
    let (lines, waiting) = mpsc::unbounded_channel::<String>();
    let room = Arc::new(Semaphore::new(RESULT_BYTES));
    let written = stream::unfold((waiting, room.clone()), |(mut waiting, room)| async {
        let mut some = waiting.recv().await?;
        while some.len() < 64 << 10
            && let Ok(line) = waiting.try_recv()
        {
            some.push_str(&line);
        }
        room.add_permits(some.len());
        Some((Ok::<_, std::io::Error>(some.into_bytes()), (waiting, room)))
    });
    (Results { lines, room }, Body::from_bytes_stream(written))
}

/// A page at a time, as the client takes it.
fn export(acting: Acting, kind: Kind, filter: Filter) -> Reply<200> {
    let first = PageRequest { limit: EXPORT_PAGE, sort: Sort::default(), after: None };
    let pages = stream::unfold(Some(first), move |page| {
        let (acting, filter) = (acting.clone(), filter.clone());
        async move {
            let page = page?;
            match acting.query(kind, filter, page.clone()).await {
                Ok(found) => {
                    let text = found.items.iter().fold(String::new(), |text, item| text + item + "\n");
                    let next = found.next.map(|after| PageRequest { after: Some(after), ..page });
                    Some((Ok(text.into_bytes()), next))
                }
                Err(error) => {
                    tracing::warn!(%error, "an export broke off");
                    Some((Err(std::io::Error::other(error.to_string())), None))
                }
            }
        }
    });
    json_lines(Body::from_bytes_stream(pages))
}
