//! Calls a tool of an MCP server. An executor keeps the connection to the server that it called last, whichever of its
//! tools the next definition names.
//!
//! A server that is a program is started, watched and ended through a launcher, with a working folder of its own; it and
//! what it starts stay from call to call. A call that does not end with its answer ends the connection too, so that
//! nothing of it comes to the next one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use reqwest::Url;
use rmcp::model::{JsonObject, ServerResult};
use rmcp::service::ServiceError;
use serde_json::Value;
use tokio::sync::oneshot::error::RecvError;

use super::Context;
use super::bounds::Bounds;
use super::folder::Folder;
use super::launched::{self, Channel, Launcher, LauncherCommand, Through, not_started};
use super::lines::Lines;
use super::output::Produced;
use super::program;
use super::stop::Stop;
use crate::egress::{Failure, Reach};
use crate::execution::{EGRESS_DENIED, Job, Outcome};
use crate::json;
use crate::log::LogRing;
use crate::mcp::{Bound, Connection, Ears, Way, in_words};
use crate::secrets::Granted;

mod answer;
mod attended;

use attended::{Attended, Process};

/// How much larger than the output a message may be: most servers send it twice, once as a text with escapes.
const TIMES: usize = 4;
const AROUND: usize = 64 * 1024;

/// How long telling a server that a call is cancelled may take.
const CANCELLING: Duration = Duration::from_millis(500);

/// What an executor keeps.
#[derive(Debug)]
pub struct Warm {
    launcher: Launcher,
    folder: Option<Folder>,
    link: Option<Link>,
}

/// A connection to a server.
#[derive(Debug)]
struct Link {
    server: Server,
    connection: Connection,
    /// Of a server that is a program.
    process: Option<Process>,
}

/// What tells one server from another.
#[derive(Debug, PartialEq, Eq)]
enum Server {
    Http { url: String, headers: BTreeMap<String, String>, secrets: Granted },
    Program { path: PathBuf, args: Vec<String>, env: BTreeMap<String, String>, secrets: Granted },
}

/// Why a call has no result.
enum Failed {
    /// The server says so, and is ready for the next one.
    Call(Outcome),
    /// The connection is of no more use.
    Link(Outcome),
}

impl From<Outcome> for Failed {
    fn from(outcome: Outcome) -> Self {
        Self::Link(outcome)
    }
}

impl Warm {
    /// No connection yet.
    pub fn new(command: LauncherCommand) -> Self {
        // A server is a program that this machine's people chose, and may need all that is on it.
        Self { launcher: Launcher::new(command.unsandboxed()), folder: None, link: None }
    }

    /// Calls the tool.
    ///
    /// # Errors
    /// The outcome: the tool failed, or the server cannot be reached or started, ended, took too long or too much.
    pub async fn run(
        &mut self,
        job: &Job,
        context: &Context,
        bounds: Bounds,
        stop: &mut Stop,
    ) -> Result<Produced, Outcome> {
        check_numbers(job)?;
        let server = Server::of(job, context)?;
        let mut lines = Lines::of(job, context);
        if self.link.as_ref().is_some_and(|link| link.server != server) || self.is_gone() {
            self.end().await;
        }
        let result = self.result(server, job, context, &bounds, stop, &mut lines).await;
        lines.finish();
        match result {
            Ok(result) => answer::read(result, &bounds),
            Err(Failed::Call(outcome)) => Err(outcome),
            Err(Failed::Link(outcome)) => {
                let bound = self.link.as_ref().map(|link| link.connection.ears.bound.clone());
                self.end().await;
                Err(match bound {
                    Some(bound) => denied_where(&bound, outcome),
                    None => outcome,
                })
            }
        }
    }

    /// Whether the server ended since its last call.
    fn is_gone(&mut self) -> bool {
        let Some(link) = &self.link else { return false };
        link.connection.is_closed()
            || (link.process.is_some() && self.launcher.ended().now_or_never().is_some())
    }

    /// Ends the connection, and a server that is a program.
    async fn end(&mut self) {
        self.link = None;
        // Also where its start was not over, and the launcher alone knows of it.
        self.launcher.end().await;
        if let Some(folder) = self.folder.take() {
            self.folder = folder.emptied().await;
        }
    }

    async fn result(
        &mut self,
        server: Server,
        job: &Job,
        context: &Context,
        bounds: &Bounds,
        stop: &mut Stop,
        lines: &mut Lines<'_>,
    ) -> Result<ServerResult, Failed> {
        if self.link.is_none() {
            let ears = Ears {
                said: Arc::new(LogRing::new(context.limits.log_lines)),
                line_bytes: context.limits.log_line_bytes,
                bound: Bound::new(message_bytes(bounds)),
            };
            let link = match server {
                Server::Http { .. } => reach(server, ears, context, stop).await?,
                Server::Program { .. } => self.start(server, ears, context, bounds, stop, lines).await?,
            };
            self.link = Some(link);
        }
        self.call(job, bounds, stop, lines).await
    }

    async fn start(
        &mut self,
        server: Server,
        ears: Ears,
        context: &Context,
        bounds: &Bounds,
        stop: &mut Stop,
        lines: &mut Lines<'_>,
    ) -> Result<Link, Outcome> {
        let Server::Program { path, args, env, secrets } = &server else {
            return Err(not_started("it is no program"));
        };
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => stop.or(async { Ok(Folder::made(&context.run_folder).await) }).await?,
        };
        let folder = self.folder.insert(folder).path();
        let program = launched::Program {
            path,
            args: args.clone(),
            env: env
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .chain(secrets.variables())
                .collect(),
            folder,
            shown: Vec::new(),
            network: true,
            input: None,
        };
        let Channel { requests, answers, log } =
            self.launcher.keep(program, Through::Standard, bounds).await?;
        self.launcher.watch(bounds, Some(folder)).await?;
        let said = ears.said.clone();
        let bound = ears.bound.clone();
        let mut process = Process::new(log);
        let mut attended =
            Attended { launcher: &mut self.launcher, process: Some(&mut process), said: &said, stop, lines };
        let connected = attended.through(Connection::over_pipes(answers, requests, ears)).await?;
        match connected {
            Ok(connection) => Ok(Link { server, connection, process: Some(process) }),
            Err(_) if bound.is_exceeded() => Err(bounds.output_too_large()),
            Err(problem) => Err(attended.not_begun(&problem, bounds).await),
        }
    }

    async fn call(
        &mut self,
        job: &Job,
        bounds: &Bounds,
        stop: &mut Stop,
        lines: &mut Lines<'_>,
    ) -> Result<ServerResult, Failed> {
        let Some(link) = &mut self.link else { return Err(unreachable("there is no connection").into()) };
        let ears = &link.connection.ears;
        ears.bound.set(message_bytes(bounds));
        // What was told between two calls is nobody's.
        drop(ears.said.take());
        let is_program = link.process.is_some();
        if is_program {
            self.launcher.watch(bounds, self.folder.as_ref().map(Folder::path)).await?;
        }
        let mut attended = Attended {
            launcher: &mut self.launcher,
            process: link.process.as_mut(),
            said: &ears.said,
            stop,
            lines,
        };
        let (tool, arguments) = asked(job);
        let mut request = match attended.through(link.connection.call(tool, arguments)).await? {
            Ok(request) => request,
            Err(error) => return Err(attended.broken(&in_words(&error), bounds).await.into()),
        };
        let answer = match attended.through(&mut request.rx).await {
            Ok(answer) => answer,
            Err(outcome) => {
                // How that goes does not matter: the connection ends in any case.
                let _ = tokio::time::timeout(CANCELLING, request.cancel(Some("cancelled".into()))).await;
                return Err(outcome.into());
            }
        };
        if ears.bound.is_exceeded() {
            return Err(bounds.output_too_large().into());
        }
        let result = match told(answer) {
            Ok(result) => result,
            Err(problem) => return Err(attended.broken(&problem, bounds).await.into()),
        };
        if is_program {
            self.launcher.rest().await?;
        }
        result.map_err(Failed::Call)
    }
}

impl Server {
    fn of(job: &Job, context: &Context) -> Result<Self, Outcome> {
        let failed = |problem: String| Outcome::failed("not_startable", problem);
        let spec = &job.definition.spec;
        let secrets = job.secrets.clone();
        if let Some(url) = &spec.api.url {
            return Ok(Self::Http { url: url.clone(), headers: spec.api.headers.clone(), secrets });
        }
        let entrypoint = spec.program.entrypoint.as_ref().ok_or_else(|| {
            failed("the definition names no MCP server: it has neither `url` nor `entrypoint`".into())
        })?;
        let path = program::find(entrypoint, &context.path).map_err(failed)?;
        let input = job.input.members();
        let args = spec.program.args.iter().map(|template| template.render(&input)).collect();
        // It serves many executions, so that it is told of none. Many servers keep what they fetch below their home.
        let mut env: BTreeMap<String, String> = [("PATH".to_owned(), context.path.clone())].into();
        env.extend(std::env::var("HOME").ok().map(|home| ("HOME".to_owned(), home)));
        env.extend(spec.program.env.clone());
        Ok(Self::Program { path, args, env, secrets })
    }
}

/// Connects to a server over HTTP.
async fn reach(server: Server, ears: Ears, context: &Context, stop: &mut Stop) -> Result<Link, Outcome> {
    let Server::Http { url, headers, secrets } = &server else { return Err(unreachable("it has no url")) };
    super::api::check_headers(headers)?;
    let headers = &*secrets.headers(headers)?;
    let address = Url::parse(url).map_err(|error| unreachable(&format!("its url is not valid: {error}")))?;
    let connecting = async {
        context.egress.admit(&address, Reach::Listed).await.map_err(|failure| match failure {
            Failure::Denied(denied) => {
                Outcome::failed(EGRESS_DENIED, format!("the MCP server is not called: {denied}"))
            }
            Failure::Astray(problem) | Failure::Unreachable(problem) => unreachable(&problem),
        })?;
        let way = Way { egress: context.egress.clone(), reach: Reach::Listed };
        let bound = ears.bound.clone();
        let connected = Connection::over_http(way, url, headers, ears).await;
        connected.map_err(|problem| denied_where(&bound, unreachable(&problem)))
    };
    let connection = stop.or(connecting).await?;
    Ok(Link { server, connection, process: None })
}

/// Refuses a number that the library would hand on as another one.
fn check_numbers(job: &Job) -> Result<(), Outcome> {
    let Some(number) = json::rounded(&job.input.text) else { return Ok(()) };
    let number = json::shown(number);
    let message = format!("the number {number} cannot be given to an MCP server without being rounded");
    Err(Outcome::failed("invalid_input", message))
}

/// The tool and its arguments.
fn asked(job: &Job) -> (String, JsonObject) {
    let tool = job.definition.spec.api.tool.as_ref().unwrap_or(&job.definition.id);
    let arguments = match job.input.value() {
        Value::Object(arguments) => arguments,
        // An input is an object.
        _ => JsonObject::new(),
    };
    (tool.clone(), arguments)
}

/// What an answer says: a result, or the outcome where the server refused the call.
///
/// # Errors
/// There is none: why the connection is of no more use.
fn told(
    answer: Result<Result<ServerResult, ServiceError>, RecvError>,
) -> Result<Result<ServerResult, Outcome>, String> {
    match answer {
        Ok(Ok(result)) => Ok(Ok(result)),
        Ok(Err(error @ ServiceError::McpError(_))) => {
            Ok(Err(Outcome::failed("mcp_error", format!("the MCP server: {}", in_words(&error)))))
        }
        Ok(Err(error)) => Err(in_words(&error)),
        Err(_) => Err(in_words(&ServiceError::TransportClosed)),
    }
}

/// The outcome of a connection that ended, which is another one where it led to what may not be reached.
fn denied_where(bound: &Bound, outcome: Outcome) -> Outcome {
    match outcome.result {
        Err(failure) if bound.is_denied() => Outcome::failed(EGRESS_DENIED, failure.message),
        result => Outcome { result, ..outcome },
    }
}

fn message_bytes(bounds: &Bounds) -> usize {
    bounds.output_bytes.saturating_mul(TIMES).saturating_add(AROUND)
}

fn unreachable(reason: &str) -> Outcome {
    Outcome::failed("service_unavailable", format!("the MCP server cannot be reached: {reason}"))
}
