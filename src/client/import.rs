//! `import`: registers many definitions at a time, those of files or those that a source of the service lists.
//!
//! A thread reads the files ([`read`]); each kind has a stream of lines to the service ([`stream`]); what became of
//! each definition is printed and counted ([`report`]). What lies between them is bounded, so that a file of any length
//! is imported with little memory.

mod read;
mod report;
mod stream;

use std::path::Path;

use actors::definition::Kind;
use anyhow::{Context, Result, anyhow};
use reqwest::Method;
use tokio::sync::mpsc;

use self::read::{Closed, Found, Input, Place, Reader};
use self::report::Report;
use self::stream::Answers;
use super::service::{Service, definition_path};
use super::{Failure, Refusal};
use crate::cli::ImportArgs;
use crate::tally::Became;

/// How many definitions wait between those who read, send and report.
const ROOM: usize = 256;

/// What there is to tell of one definition.
struct Told {
    place: Place,
    /// Unknown of what is none.
    kind: Option<Kind>,
    id: Option<String>,
    became: Became,
    /// Why it failed.
    why: Option<Refusal>,
}

/// Registers what stands in files, or what a source lists.
pub async fn run(args: &ImportArgs, json: bool) -> Result<(), Failure> {
    let service = Service::new(args.service.base())?;
    match (&args.path, &args.source) {
        (Some(path), _) => files(&service, args, path, json).await,
        (None, Some(source)) => listed(&service, args, source, json).await,
        (None, None) => Err(anyhow!("say what to import: a PATH, or --source").into()),
    }
}

async fn files(service: &Service, args: &ImportArgs, path: &Path, json: bool) -> Result<(), Failure> {
    let inputs = read::inputs(path)?;
    if inputs.is_empty() {
        return Err(anyhow!("{} holds no *.json, *.jsonl or *.ndjson", path.display()).into());
    }
    let total = inputs.iter().map(Input::bytes).sum();
    let (told, hearing) = mpsc::channel(ROOM);
    let (tools, tool_items) = mpsc::channel(ROOM);
    let (functions, function_items) = mpsc::channel(ROOM);
    let failures = told.clone();
    // A thread of its own, since the process ends without it: it may wait for stdin for ever.
    let reader = std::thread::Builder::new().name("read".to_owned()).spawn(move || {
        let give = |found| {
            let taken = match found {
                Found::Definition(item) if item.kind == Kind::Tool => tools.blocking_send(item).is_ok(),
                Found::Definition(item) => functions.blocking_send(item).is_ok(),
                Found::Wrong(place, reason) => failures.blocking_send(Told::wrong(place, reason)).is_ok(),
            };
            taken.then_some(()).ok_or(Closed)
        };
        let mut reader = Reader::new(give);
        inputs.iter().try_for_each(|input| reader.read(input))
    });
    let reader = reader.context("cannot start reading")?;
    let paths = [import_path(Kind::Tool, args, None)?, import_path(Kind::Function, args, None)?];
    let send = async move {
        tokio::try_join!(
            stream::send(service, &paths[0], tool_items, told.clone()),
            stream::send(service, &paths[1], function_items, told.clone()),
        )?;
        match reader.join() {
            Ok(_) => Ok(()),
            Err(_) => Err(anyhow!("reading broke off, and the import is not whole").into()),
        }
    };
    watched(send, hearing, Report::start(args, total, json)).await
}

/// Registers what a source lists of either kind; one that has tools only is none for functions.
async fn listed(service: &Service, args: &ImportArgs, source: &str, json: bool) -> Result<(), Failure> {
    let (told, hearing) = mpsc::channel(ROOM);
    let ask = async move {
        let mut unknown = Vec::new();
        for kind in Kind::ALL {
            let path = import_path(kind, args, Some(source))?;
            let mut answers = match service.lines(Method::POST, &path, None).await {
                Ok(lines) => Answers::new(lines),
                Err(Failure::Refused(refusal)) if refusal.code.as_deref() == Some("not_found") => {
                    unknown.push(refusal);
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            while let Some(answer) = answers.next().await? {
                let place =
                    Place { input: source.into(), line: Some(answer.line), number: answer.line, bytes: 0 };
                // Whoever hears has failed when nobody does, and says so.
                drop(told.send(answer.told(place, kind, None)).await);
            }
        }
        match unknown.pop() {
            Some(refusal) if unknown.len() + 1 == Kind::ALL.len() => Err(Failure::Refused(refusal)),
            _ => Ok(()),
        }
    };
    watched(ask, hearing, Report::start(args, None, json)).await
}

/// Reports what is told until the work is done, or the user leaves.
async fn watched(
    work: impl Future<Output = Result<(), Failure>>,
    mut hearing: mpsc::Receiver<Told>,
    mut report: Report,
) -> Result<(), Failure> {
    let reporting = async {
        let mut some = Vec::with_capacity(ROOM);
        while hearing.recv_many(&mut some, ROOM).await > 0 {
            report.take(some.drain(..))?;
        }
        Ok::<(), Failure>(())
    };
    let outcome = tokio::select! {
        outcome = async { tokio::try_join!(work, reporting) } => Some(outcome),
        Ok(()) = tokio::signal::ctrl_c() => None,
    };
    // What was told before it ended badly.
    let rest: Vec<Told> = std::iter::from_fn(|| hearing.try_recv().ok()).collect();
    report.take(rest)?;
    report.flush()?;
    match outcome {
        Some(Ok(_)) => report.finish(),
        Some(Err(failure)) => Err(failure),
        None => Err(Failure::Left(report.farewell())),
    }
}

/// Where definitions of a kind are imported, encoded.
fn import_path(kind: Kind, args: &ImportArgs, source: Option<&str>) -> Result<String> {
    let mut path = match source {
        Some(source) => definition_path(&format!("{}s/import", kind.name()), source)?,
        None => format!("/{}s/import", kind.name()),
    };
    path.push_str(if args.replace { "?existing=replace" } else { "?existing=keep" });
    if args.dry_run {
        path.push_str("&dry_run=true");
    }
    Ok(path)
}

impl Told {
    /// What is no definition.
    fn wrong(place: Place, reason: String) -> Self {
        let why = Refusal { error: reason, code: None, details: None, text: String::new() };
        Self { place, kind: None, id: None, became: Became::Failed, why: Some(why) }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, ClientCommand, Command};

    fn args(line: &str) -> ImportArgs {
        let words = format!("org-executor import {line}");
        match Cli::try_parse_from(words.split_whitespace()).unwrap().into_command() {
            Command::Client(ClientCommand::Import(args)) => args,
            other => panic!("not import: {other:?}"),
        }
    }

    #[test]
    fn the_address_says_what_becomes_of_what_exists() {
        let path = |line, source| import_path(Kind::Tool, &args(line), source).unwrap();
        assert_eq!(path("x", None), "/tools/import?existing=keep");
        assert_eq!(path("- --replace --dry-run", None), "/tools/import?existing=replace&dry_run=true");
        assert_eq!(path("--source s", Some("pet store")), "/tools/import/pet%20store?existing=keep");
        assert!(import_path(Kind::Function, &args("--source s"), Some("..")).is_err());
    }
}
