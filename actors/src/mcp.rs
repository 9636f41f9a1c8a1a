//! MCP servers: the connection to one, which the runtime `mcp` has too, and the tools of one that is a source.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use rmcp::model::Tool;
use tokio::process::{Child, Command};

use crate::egress::{Egress, Reach};
use crate::group::Group;
use crate::log::LogRing;
use crate::settings::SourceSettings;

mod bounded;
mod connection;
mod definition;

pub use bounded::{Bound, Way};
pub use connection::{Connection, Ears, in_words, shortened};

/// How many characters of the name of a tool that is refused are told.
const MAX_SHOWN: usize = 256;

/// How many tools are read of one server.
const MAX_TOOLS: usize = 10_000;

/// A tool of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name on the server, without the source's prefix.
    pub name: String,
    /// The definition that runs it, as a create request has it.
    pub definition: String,
}

/// The tools of a server.
#[derive(Debug, Default, PartialEq)]
pub struct Tools {
    /// Those that a definition can run.
    pub found: Vec<Found>,
    /// Why each of the others cannot be one: its name, and what is wrong with it.
    pub refused: Vec<String>,
}

/// All tools of the MCP server that is this source.
///
/// # Errors
/// What went wrong, to read on after the source's name.
pub async fn tools(egress: &Egress, source: &SourceSettings) -> Result<Tools, String> {
    let limit = Duration::from_millis(source.timeout_ms);
    let found = tokio::time::timeout(limit, listed(egress, source)).await;
    found.unwrap_or_else(|_| Err(format!("took longer than {} ms", source.timeout_ms)))
}

async fn listed(egress: &Egress, source: &SourceSettings) -> Result<Tools, String> {
    let bound = Bound::new(max_bytes(source));
    // What it logs is nobody's: the latest line is kept until the next.
    let ears = Ears { said: Arc::new(LogRing::new(1)), line_bytes: 0, bound: bound.clone() };
    let (connection, program) = connect(egress, source, ears).await?;
    let found = pages(&connection, source).await;
    connection.close().await;
    drop(program);
    match found {
        Err(_) if bound.is_exceeded() => Err(too_large(source)),
        found => found,
    }
}

/// A program that is a server, with all that it started; ended with this.
struct Program {
    _group: Group,
    _child: Child,
}

async fn connect(
    egress: &Egress,
    source: &SourceSettings,
    ears: Ears,
) -> Result<(Connection, Option<Program>), String> {
    let unreached = |problem: String| format!("cannot be reached: {problem}");
    if let Some(url) = &source.mcp_url {
        let parsed = Url::parse(url).map_err(|error| format!("has no valid address: {error}"))?;
        let reach = Reach::of(source.allow_private);
        egress.admit(&parsed, reach).await.map_err(|failure| failure.of_source())?;
        let way = Way { egress: egress.clone(), reach };
        let connection = Connection::over_http(way, url, &source.headers, ears).await.map_err(unreached)?;
        return Ok((connection, None));
    }
    let (name, args) = source.mcp_command.split_first().ok_or("names no MCP server")?;
    let mut command = Command::new(name);
    command.args(args).env_clear().process_group(0).kill_on_drop(true);
    command.envs(["PATH", "HOME"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("cannot be started: {error}"))?;
    let (read, write) = child.stdout.take().zip(child.stdin.take()).expect("both are pipes");
    let program = Program { _group: Group::of(&child), _child: child };
    let connection = Connection::over_pipes(read, write, ears).await.map_err(unreached)?;
    Ok((connection, Some(program)))
}

/// All pages of the list. A server that never comes to an end is ended by its number of tools, or by the time.
async fn pages(connection: &Connection, source: &SourceSettings) -> Result<Tools, String> {
    let mut list = List::default();
    let mut cursor = None;
    loop {
        let page = connection.page(cursor).await;
        let (tools, next) = page.map_err(|problem| format!("gave no list of its tools: {problem}"))?;
        list.add(&tools, source)?;
        // Some say by an empty cursor that there is no more.
        match next.filter(|next| !next.is_empty()) {
            Some(next) => cursor = Some(next),
            None => return Ok(list.tools),
        }
    }
}

/// What was listed so far.
#[derive(Default)]
struct List {
    tools: Tools,
    count: usize,
    bytes: usize,
}

impl List {
    fn add(&mut self, tools: &[Tool], source: &SourceSettings) -> Result<(), String> {
        self.count += tools.len();
        if self.count > MAX_TOOLS {
            return Err(format!("has more than {MAX_TOOLS} tools"));
        }
        for tool in tools {
            // The first of a name is the one that is called by it.
            let definition = if self.tools.found.iter().any(|found| found.name == tool.name) {
                Err("it is listed twice".to_owned())
            } else {
                definition::of(tool, source)
            };
            match definition {
                Ok(definition) => {
                    self.bytes += definition.len();
                    self.tools.found.push(Found { name: tool.name.to_string(), definition });
                }
                Err(problem) => {
                    let name = crate::json::shortened(&tool.name, MAX_SHOWN);
                    let problem = format!("the tool {name:?}: {problem}");
                    self.bytes += problem.len();
                    self.tools.refused.push(problem);
                }
            }
        }
        if self.bytes > max_bytes(source) { Err(too_large(source)) } else { Ok(()) }
    }
}

fn max_bytes(source: &SourceSettings) -> usize {
    usize::try_from(source.max_bytes).unwrap_or(usize::MAX)
}

fn too_large(source: &SourceSettings) -> String {
    format!("answered with more than {} bytes", source.max_bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn source() -> SourceSettings {
        serde_json::from_value(json!({ "name": "demo", "mcp_url": "http://x/mcp", "max_bytes": 1_000 }))
            .expect("settings")
    }

    fn named(name: &str) -> Tool {
        serde_json::from_value(json!({ "name": name, "inputSchema": {} })).expect("a tool")
    }

    #[test]
    fn a_tool_that_cannot_be_a_definition_is_told_by_its_name() {
        let mut list = List::default();
        list.add(&[named("a/b"), named("good"), named("good")], &source()).expect("within bounds");
        let Tools { found, refused } = list.tools;
        assert_eq!(found.into_iter().map(|found| found.name).collect::<Vec<_>>(), ["good"]);
        assert!(refused[0].starts_with("the tool \"a/b\": ") && refused[0].contains('/'), "{refused:?}");
        assert_eq!(refused[1..], ["the tool \"good\": it is listed twice"]);
    }

    #[test]
    fn a_list_is_bounded_in_number_and_in_size() {
        let add = |tools: Vec<Tool>| List::default().add(&tools, &source()).expect_err("too many");
        assert!(add(vec![named("a"); MAX_TOOLS + 1]).contains("more than 10000 tools"));
        let many = (0..100).map(|number| named(&format!("a{number}"))).collect();
        assert!(add(many).contains("more than 1000 bytes"));
    }

    #[tokio::test]
    async fn a_server_that_cannot_be_had_is_told() {
        let told = async |settings: serde_json::Value| {
            let source: SourceSettings = serde_json::from_value(settings).expect("settings");
            let egress = Egress::new(Vec::new()).expect("a client");
            tools(&egress, &source).await.expect_err("no server")
        };
        assert!(told(json!({ "name": "a" })).await.contains("names no MCP server"));
        assert!(told(json!({ "name": "a", "mcp_url": "nonsense" })).await.contains("no valid address"));
        let private = told(json!({ "name": "a", "mcp_url": "http://127.0.0.1:1/mcp" })).await;
        assert!(private.contains("`allow_private`"), "{private}");
        let command = |words: &[&str]| json!({ "name": "a", "mcp_command": words, "timeout_ms": 300 });
        assert!(told(command(&["/no/such/program"])).await.contains("cannot be started"));
        assert!(told(command(&["true"])).await.contains("closed the connection"));
        assert!(told(command(&["sleep", "60"])).await.contains("longer than 300 ms"));
    }
}
