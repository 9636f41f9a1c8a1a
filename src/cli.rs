//! The command line: what can be typed, its defaults and its help. What the commands do is in
//! `main` (`serve`, `check-config`) and in [`crate::client`] (all others).

mod audit;
mod definitions;
mod keys;

use std::path::PathBuf;
use std::str::FromStr;

use actors::definition::Kind;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use uuid::Uuid;

use audit::AUDIT_EXAMPLES;
pub use audit::{AuditArgs, AuditCommand};
use definitions::{DEFINITION_EXAMPLES, EXPORT_EXAMPLES, IMPORT_EXAMPLES};
pub use definitions::{DefinitionArgs, DefinitionCommand, ExportArgs, ImportArgs, ListArgs, Selection};
use keys::KEY_EXAMPLES;
pub use keys::{KeyArgs, KeyCommand, KeyCreateArgs};

const SERVICE_URL: &str = "http://127.0.0.1:8000";
const WEBSOCKET_URL: &str = "ws://127.0.0.1:8765";

const EXAMPLES: &str = "\
Examples:
  org-executor                                             start the service
  org-executor import config/catalog                       register a folder of definitions
  org-executor tool list --search 'add a number'           find tools
  org-executor run tool binary-increment-tool '{\"value\":5}'
  org-executor run function weather_lookup:v1.0.0-stable '{\"city\":\"Delhi\"}'
  org-executor execution list --state running              see what runs
  org-executor export --output all.jsonl                   keep a copy of all definitions

A service that asks for a key gets it from the environment: ORG_EXECUTOR_KEY.

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

const EXECUTION_EXAMPLES: &str = "\
An execution is known by its uuid, which it gets when it is accepted; `list` shows it.

Examples:
  org-executor execution list --state failed --since 1h
  org-executor execution list --tool binary-increment-tool --limit 100
  org-executor execution get 01a2058f-4d50-7178-ba6e-f4ea780dfaa8
  org-executor --json execution get 01a2058f-4d50-7178-ba6e-f4ea780dfaa8
  org-executor execution log 01a2058f-4d50-7178-ba6e-f4ea780dfaa8
  org-executor execution cancel 01a2058f-4d50-7178-ba6e-f4ea780dfaa8";

/// The states of an execution, as the service names them.
const STATES: [&str; 7] =
    ["queued", "running", "succeeded", "failed", "timed_out", "cancelled", "interrupted"];

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
    /// Allow addresses beyond loopback without a key, although whoever reaches them may run anything
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
    /// Find, read and cancel executions
    #[command(after_help = EXECUTION_EXAMPLES)]
    Execution(ExecutionArgs),
    /// Register the definitions of a file, a folder, stdin or a source
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(ImportArgs),
    /// Write all definitions as JSON lines
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportArgs),
    /// Make, list and revoke the keys that let clients in
    #[command(after_help = KEY_EXAMPLES)]
    Key(KeyArgs),
    /// Check and print the record of who did what
    #[command(after_help = AUDIT_EXAMPLES)]
    Audit(AuditArgs),
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

/// Options of `execution`.
#[derive(Args, Debug)]
pub struct ExecutionArgs {
    #[command(subcommand)]
    pub command: ExecutionCommand,
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// What can be done with executions.
#[derive(Debug, Subcommand)]
pub enum ExecutionCommand {
    /// List executions, the newest first
    List(ExecutionListArgs),
    /// Show an execution: its state, its times, its input, its output or error
    Get {
        /// Its uuid
        uuid: Uuid,
    },
    /// Print the end of what an execution printed, also while it runs
    Log {
        /// Its uuid
        uuid: Uuid,
    },
    /// End an execution that waits or runs
    Cancel {
        /// Its uuid
        uuid: Uuid,
    },
}

/// Options of `execution list`.
#[derive(Args, Debug)]
pub struct ExecutionListArgs {
    /// Only those in this state
    #[arg(long, value_name = "STATE", value_parser = STATES)]
    pub state: Option<String>,
    /// Only those of the tool with exactly this id
    #[arg(long, value_name = "ID", conflicts_with = "function")]
    pub tool: Option<String>,
    /// Only those of the function with exactly this id
    #[arg(long, value_name = "ID")]
    pub function: Option<String>,
    /// Only those accepted then or later: a time ago (90s, 15m, 2h, 7d), or milliseconds since the epoch
    #[arg(long, value_name = "WHEN")]
    pub since: Option<Moment>,
    /// Only those accepted before then, written as for --since
    #[arg(long, value_name = "WHEN")]
    pub until: Option<Moment>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,
}

/// A moment, as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So many milliseconds since the epoch.
    At(u64),
    /// So many milliseconds ago.
    Ago(u64),
}

impl Moment {
    /// In milliseconds since the epoch.
    pub fn ms(self, now_ms: u64) -> u64 {
        match self {
            Self::At(ms) => ms,
            Self::Ago(ms) => now_ms.saturating_sub(ms),
        }
    }
}

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let moment = span_ms(text).map(Self::Ago).or_else(|| text.parse().ok().map(Self::At));
        moment.ok_or("neither a time ago, such as 90s, 15m, 2h or 7d, nor milliseconds since the epoch")
    }
}

/// A span of time such as 90s, 15m, 2h, 7d or 4w, in milliseconds.
fn span_ms(text: &str) -> Option<u64> {
    let units = [('s', 1_000), ('m', 60_000), ('h', 3_600_000), ('d', 86_400_000), ('w', 604_800_000)];
    let (number, ms) = units.into_iter().find_map(|(unit, ms)| Some((text.strip_suffix(unit)?, ms)))?;
    number.parse::<u64>().ok()?.checked_mul(ms)
}

fn kind_parser() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.map(Kind::name))
        .map(|name| if name == Kind::Tool.name() { Kind::Tool } else { Kind::Function })
}

/// The key that the commands show to the service; it stands in no argument, since others see those.
pub fn key() -> Option<String> {
    std::env::var("ORG_EXECUTOR_KEY").ok().map(|key| key.trim().to_owned()).filter(|key| !key.is_empty())
}

fn or_environment(given: Option<&String>, variable: &str, default: &str) -> String {
    let environment = || std::env::var(variable).ok().filter(|url| !url.is_empty());
    given.cloned().or_else(environment).unwrap_or_else(|| default.to_owned())
}

#[cfg(test)]
mod tests {
    use actors::execution::Phase;
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

    #[test]
    fn an_execution_is_named_by_a_uuid_and_nothing_else() {
        const UUID: &str = "01a2058f-4d50-7178-ba6e-f4ea780dfaa8";
        let Command::Client(ClientCommand::Execution(args)) = parse(&format!("execution get {UUID}")) else {
            panic!("not execution");
        };
        assert!(matches!(args.command, ExecutionCommand::Get { uuid } if uuid.to_string() == UUID));
        for verb in ["get", "log", "cancel"] {
            assert!(Cli::try_parse_from(["org-executor", "execution", verb, UUID]).is_ok(), "{verb}");
            for wrong in ["", "x", "..", "01a2058f-4d50"] {
                assert!(
                    Cli::try_parse_from(["org-executor", "execution", verb, wrong]).is_err(),
                    "{verb} {wrong}"
                );
            }
        }
    }

    #[test]
    fn executions_are_listed_by_what_the_service_can_filter() {
        let line = "execution list --state timed_out --tool t --since 15m --until 1700000000000";
        let Command::Client(ClientCommand::Execution(ExecutionArgs {
            command: ExecutionCommand::List(list),
            ..
        })) = parse(line)
        else {
            panic!("not execution list");
        };
        assert_eq!((list.state.as_deref(), list.tool.as_deref()), (Some("timed_out"), Some("t")));
        assert_eq!(
            (list.since, list.until),
            (Some(Moment::Ago(900_000)), Some(Moment::At(1_700_000_000_000)))
        );
        assert_eq!(list.limit, 20);
        for wrong in ["--state done", "--tool t --function f", "--since soon", "--limit 0"] {
            let words = "org-executor execution list".split(' ').chain(wrong.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_states_are_those_of_the_engine() {
        for state in STATES {
            assert_eq!(Phase::named(state).map(Phase::name), Some(state));
        }
    }

    #[test]
    fn a_moment_is_a_time_ago_or_one_since_the_epoch() {
        for (text, moment) in [
            ("0", Moment::At(0)),
            ("90s", Moment::Ago(90_000)),
            ("2h", Moment::Ago(7_200_000)),
            ("7d", Moment::Ago(604_800_000)),
            ("1w", Moment::Ago(604_800_000)),
        ] {
            assert_eq!(text.parse::<Moment>(), Ok(moment), "{text}");
        }
        for wrong in ["", "s", "-1", "1.5h", "2 h", "3y", "18446744073709551615w"] {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
        assert_eq!((Moment::Ago(5).ms(7), Moment::Ago(9).ms(7), Moment::At(9).ms(7)), (2, 0, 9));
    }
}
