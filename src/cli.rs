//! The command line: what can be typed, its defaults and its help. What the commands do is in
//! `main` (`serve`, `check-config`) and in [`crate::client`] (all others).

use std::path::PathBuf;

use actors::definition::Kind;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

const SERVICE_URL: &str = "http://127.0.0.1:8000";
const WEBSOCKET_URL: &str = "ws://127.0.0.1:8765";

const EXAMPLES: &str = "\
Examples:
  org-executor                                             start the service
  org-executor import config/catalog                       register a folder of definitions
  org-executor tool list --tag math                        find tools
  org-executor run tool binary-increment-tool '{\"value\":5}'
  org-executor run function weather_lookup:v1.0.0-stable '{\"city\":\"Delhi\"}'

Exit codes of the client commands:
  0    done
  1    the service refused, or the execution failed
  2    nothing was asked, or nothing was answered: bad arguments, no service, a lost connection
  130  left with Ctrl-C; an accepted execution goes on";

const RUN_EXAMPLES: &str = "\
The output goes to stdout; the log and a spinner go to stderr.

Examples:
  org-executor run tool binary-increment-tool '{\"value\":5}'
  org-executor run function weather_lookup:latest @input.json --timeout-ms 2000
  echo '{\"value\":5}' | org-executor --json run tool binary-increment-tool -";

const DEFINITION_EXAMPLES: &str = "\
Examples (the same for `tool` and `function`):
  org-executor tool list --tag math --tag utils
  org-executor tool list --filter '{\"tool_metadata.runtime\":\"python\"}' --limit 20
  org-executor tool get binary-increment-tool
  org-executor tool add tool.json
  org-executor tool rm binary-increment-tool
  org-executor tool register binary-increment-tool";

const IMPORT_EXAMPLES: &str = "\
A file holds one definition or an array of them; what has a `tool_id` is a tool, what has a
`function_id` is a function. A definition that exists already is left as it is.

Examples:
  org-executor import config/catalog
  org-executor import weather.json --url http://10.0.0.5:8000";

/// Registers, finds and runs an organisation's tools and functions.
#[derive(Debug, Parser)]
#[command(name = "org-executor", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
    /// Configuration file of the service [env: ORG_EXECUTOR_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Answer in JSON, for programs
    #[arg(long, global = true)]
    pub json: bool,
}

impl Cli {
    /// The command that was asked for: `serve` when none was.
    pub fn into_command(self) -> Command {
        match self.command {
            None => Command::Serve(self.serve),
            Some(Command::Serve(serve)) => {
                Command::Serve(ServeArgs { insecure: serve.insecure || self.serve.insecure })
            }
            Some(command) => command,
        }
    }
}

/// What the binary can be told to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the service (what happens when no command is given)
    Serve(ServeArgs),
    /// Check the configuration and show what is in force
    CheckConfig {
        /// Show the defaults instead: every key, with its comment
        #[arg(long)]
        default: bool,
    },
    /// A command that talks to a running service.
    #[command(flatten)]
    Client(ClientCommand),
}

/// Options of `serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Allow addresses beyond loopback, although whoever reaches them may run anything
    #[arg(long)]
    pub insecure: bool,
}

/// The commands that talk to a running service.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Run a tool or a function and wait for its output
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Find and change tools
    #[command(after_help = DEFINITION_EXAMPLES)]
    Tool(DefinitionArgs),
    /// Find and change functions
    #[command(after_help = DEFINITION_EXAMPLES)]
    Function(DefinitionArgs),
    /// Register the definitions in a file, or in all *.json of a folder
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(ImportArgs),
}

/// Options of `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// What to run
    #[arg(value_parser = kind_parser())]
    pub kind: Kind,
    /// Its id; `name`, `name:latest` and `name:^1.2` find a version
    pub id: String,
    /// The input: JSON, @FILE, or - for stdin
    #[arg(value_name = "JSON", default_value = "{}")]
    pub input: String,
    /// Give up sooner than the definition says
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout_ms: Option<u64>,
    /// Place in the queue: 0 to 9, 9 goes first [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    pub priority: Option<u8>,
    /// Where the service listens for executions [env: ORG_EXECUTOR_WS] [default: ws://127.0.0.1:8765]
    #[arg(long, value_name = "URL")]
    ws: Option<String>,
}

impl RunArgs {
    /// The base address of the WebSocket listener: the option, else the environment, else the default.
    pub fn base(&self) -> String {
        or_environment(self.ws.as_ref(), "ORG_EXECUTOR_WS", WEBSOCKET_URL)
    }
}

/// Where the REST API is.
#[derive(Args, Debug)]
pub struct ServiceArgs {
    /// Where the service answers [env: ORG_EXECUTOR_URL] [default: http://127.0.0.1:8000]
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
}

impl ServiceArgs {
    /// The base address of the REST API: the option, else the environment, else the default.
    pub fn base(&self) -> String {
        or_environment(self.url.as_ref(), "ORG_EXECUTOR_URL", SERVICE_URL)
    }
}

/// Options of `tool` and `function`.
#[derive(Args, Debug)]
pub struct DefinitionArgs {
    #[command(subcommand)]
    pub command: DefinitionCommand,
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// What can be done with the definitions of one kind.
#[derive(Debug, Subcommand)]
pub enum DefinitionCommand {
    /// List definitions, all of them unless told
    List(ListArgs),
    /// Show a definition
    Get {
        /// Its id
        id: String,
    },
    /// Register definitions
    Add {
        /// One object, an array of objects, or JSON lines; - for stdin
        file: String,
    },
    /// Remove a definition
    Rm {
        /// Its id
        id: String,
    },
    /// Fetch a definition from the configured sources and keep it
    Register {
        /// Its id there
        id: String,
    },
}

/// Options of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Only what has this tag; given more than once: any of them
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Only what matches this filter, written as MongoDB's: JSON, @FILE, or - for stdin
    #[arg(long, value_name = "JSON")]
    pub filter: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

/// Options of `import`.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// A file, or a folder that is searched for *.json through and through
    pub path: PathBuf,
    #[command(flatten)]
    pub service: ServiceArgs,
}

fn kind_parser() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.map(Kind::name))
        .map(|name| if name == Kind::Tool.name() { Kind::Tool } else { Kind::Function })
}

fn or_environment(given: Option<&String>, variable: &str, default: &str) -> String {
    let environment = || std::env::var(variable).ok().filter(|url| !url.is_empty());
    given.cloned().or_else(environment).unwrap_or_else(|| default.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Command {
        let words = std::iter::once("org-executor").chain(line.split_whitespace());
        Cli::try_parse_from(words).unwrap().into_command()
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_is_serve_and_takes_its_options() {
        assert!(matches!(parse("--insecure --config x.toml"), Command::Serve(ServeArgs { insecure: true })));
        assert!(matches!(parse("--insecure serve"), Command::Serve(ServeArgs { insecure: true })));
    }

    #[test]
    fn run_knows_both_kinds_and_no_third() {
        let Command::Client(ClientCommand::Run(run)) = parse("run function f:v1 - --priority 9") else {
            panic!("not run");
        };
        assert_eq!((run.kind, run.input.as_str()), (Kind::Function, "-"));
        assert!(Cli::try_parse_from(["org-executor", "run", "task", "x"]).is_err());
        assert!(Cli::try_parse_from(["org-executor", "run", "tool", "x", "--priority", "10"]).is_err());
    }

    #[test]
    fn the_address_may_stand_before_and_after_the_inner_command() {
        for line in ["tool --url http://h:1 list", "tool list --url http://h:1"] {
            let Command::Client(ClientCommand::Tool(args)) = parse(line) else {
                panic!("not tool");
            };
            assert_eq!(args.service.base(), "http://h:1");
        }
    }
}
