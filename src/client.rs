//! The client commands: each asks a running service over its public doors, as any other client does.
//!
//! Results go to stdout; what is only for the person in front of it goes to stderr. Here are the
//! dispatch, the ways a command can end and the printing; the commands are in the modules below.

mod add;
mod audit;
mod counter;
mod definitions;
mod execute;
mod executions;
mod export;
mod frame;
mod ids;
mod import;
mod json;
mod key;
mod lines;
mod pages;
mod revisions;
mod service;
mod spinner;
mod table;
mod time;

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use actors::definition::Kind;
use anyhow::Context;
use console::style;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::ClientCommand;

/// Does one client command, prints what comes of it and says how the process shall exit. With `json`
/// stdout carries JSON only, one document a line. `file` is the configuration, for what is done without a service.
pub async fn run(command: ClientCommand, file: Option<&Path>, json: bool) -> ExitCode {
    let result = match command {
        ClientCommand::Run(args) => execute::run(&args, json).await,
        ClientCommand::Tool(args) => definitions::run(Kind::Tool, args, json).await,
        ClientCommand::Function(args) => definitions::run(Kind::Function, args, json).await,
        ClientCommand::Execution(args) => executions::run(args, json).await,
        ClientCommand::Import(args) => import::run(&args, json).await,
        ClientCommand::Export(args) => export::all(&args, json).await,
        ClientCommand::Key(args) => key::run(args, file, json).await,
        ClientCommand::Audit(args) => audit::run(args, file, json).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

/// How a command ends that does not end well.
#[derive(Debug)]
enum Failure {
    /// The service refused, or what it ran failed.
    Refused(Refusal),
    /// Some of many were refused; each has been reported where it happened.
    Partly,
    /// Nothing was asked, or nothing was answered.
    Unanswered(anyhow::Error),
    /// The user left; the text says what goes on without them.
    Left(String),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Unanswered(error)
    }
}

impl Failure {
    fn report(&self, json: bool) -> ExitCode {
        match self {
            Self::Refused(refusal) => {
                complain(refusal.sentence());
                if json && print(&refusal.text).is_err() {
                    return ExitCode::from(2);
                }
                ExitCode::from(1)
            }
            Self::Partly => ExitCode::from(1),
            Self::Unanswered(error) => {
                complain(format!("{error:#}"));
                ExitCode::from(2)
            }
            Self::Left(text) => {
                note(text);
                ExitCode::from(130)
            }
        }
    }
}

/// The service's `{"success":false,…}`, from either door.
#[derive(Debug)]
struct Refusal {
    /// One sentence.
    error: String,
    /// The name of the error in the contract, such as `not_found`.
    code: Option<String>,
    /// Which field or position is meant.
    details: Option<Value>,
    /// The whole of it on one line.
    text: String,
}

impl Refusal {
    /// Reads the error out of an envelope or a frame that is known to be one.
    fn parse(text: &str) -> Self {
        #[derive(Default, Deserialize)]
        struct Fields {
            error: Option<Value>,
            code: Option<Value>,
            details: Option<Value>,
        }
        let words = |value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let fields: Fields = serde_json::from_str(text).unwrap_or_default();
        Self {
            error: fields.error.map_or_else(|| "it failed, and no reason was given".to_owned(), words),
            code: fields.code.map(words),
            details: fields.details,
            text: json::compact(text),
        }
    }

    /// For a person: one line.
    fn sentence(&self) -> String {
        let mut sentence = table::plain(&self.error);
        if let Some(code) = &self.code {
            sentence.push_str(&format!(" ({code})"));
        }
        if let Some(details) = &self.details {
            sentence.push_str(&format!(" {details}"));
        }
        sentence
    }
}

/// Prints a line to stdout. A reader that left (`… | head`) is no error.
fn print(text: &str) -> Result<(), Failure> {
    write(format!("{text}\n").as_bytes())?;
    Ok(())
}

/// Writes to stdout; `false` where the reader has left (`… | head`), which is no error.
pub fn write(bytes: &[u8]) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    is_read(out.write_all(bytes).and_then(|()| out.flush())).context("cannot write to stdout")
}

/// Whether somebody reads what was written: one that has left (`… | head`) is no error.
fn is_read(written: io::Result<()>) -> io::Result<bool> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true),
    }
}

/// Prints what a call has done, or `otherwise` where the service does not say.
fn done(answer: &service::Answer, otherwise: &str, json: bool) -> Result<(), Failure> {
    if json {
        return print(&json::compact(answer.data()));
    }
    print(&table::plain(answer.message().as_deref().unwrap_or(otherwise)))
}

/// Says something to the person in front of it. There is nobody to tell when that fails.
pub fn note(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Says what went wrong, likewise.
pub fn complain(text: impl Display) {
    let error = style("error:").red().bold().for_stderr();
    note(format_args!("{error} {text}"));
}

/// Why the service at `base` cannot be reached, in a sentence that says what to do about it.
fn unreachable(base: &str, error: &(dyn Error + 'static)) -> anyhow::Error {
    let causes = || std::iter::successors(Some(error), |&error| error.source());
    let refused = causes().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    });
    if refused {
        anyhow::anyhow!("no service at {base}: start it with `org-executor serve`")
    } else {
        anyhow::anyhow!("cannot reach a service at {base}: {}", cause(error))
    }
}

/// What lies at the bottom of an error.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    std::iter::successors(Some(error), |&error| error.source()).last().unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_its_reason_its_code_and_where() {
        let refusal = Refusal::parse(
            r#"{"success":false, "error":"unknown field","code":"invalid","details":{"field":"x"}}"#,
        );
        assert_eq!(refusal.sentence(), r#"unknown field (invalid) {"field":"x"}"#);
        assert!(refusal.text.starts_with(r#"{"success":false,"error""#));
    }

    #[test]
    fn a_refusal_without_a_reason_still_says_something() {
        assert_eq!(Refusal::parse(r#"{"success":false}"#).sentence(), "it failed, and no reason was given");
    }

    #[test]
    fn a_refused_connection_names_the_command_that_helps() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(
            unreachable("ws://h:1", &refused).to_string(),
            "no service at ws://h:1: start it with `org-executor serve`"
        );
        let other = io::Error::other("name unknown");
        assert!(unreachable("ws://h:1", &other).to_string().ends_with("name unknown"));
    }
}
