//! What can be typed about definitions: `tool` and `function`, `import` and `export`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ServiceArgs;

/// Shown below the help of `tool` and `function`.
pub const DEFINITION_EXAMPLES: &str = "\
Examples (the same for `tool` and `function`):
  org-executor tool list --tag math --tag utils
  org-executor tool list --search 'add a number'
  org-executor tool list --filter '{\"tool_metadata.runtime\":\"python\"}' --sort -updated --limit 20
  org-executor tool get binary-increment-tool
  org-executor tool add tool.json
  org-executor tool rm binary-increment-tool
  org-executor tool register binary-increment-tool
  org-executor tool refresh binary-increment-tool
  org-executor tool revisions binary-increment-tool
  org-executor tool rollback binary-increment-tool 2
  org-executor tool export --tag math --output math.jsonl
  org-executor function versions weather_lookup";

/// Shown below the help of `import`.
pub const IMPORT_EXAMPLES: &str = "\
What has a `tool_id` is a tool, what has a `function_id` is a function. A *.json holds one definition,
an array of them, or JSON lines, and is read whole; a *.jsonl or *.ndjson holds lines, and may have any
length; so does stdin where its first line is a whole definition.

A definition that exists already is left as it is, or with --replace put in its place where it differs.
Of more than 50 definitions only those are listed that were updated or failed.

Examples:
  org-executor import config/catalog
  org-executor import --dry-run --replace definitions.jsonl
  org-executor import weather.json --url http://10.0.0.5:8000
  org-executor export | org-executor import - --url http://10.0.0.5:8000
  org-executor import --source petstore";

/// Shown below the help of `export`.
pub const EXPORT_EXAMPLES: &str = "\
A definition a line, the tools first, in the order of their ids: what `import` takes. With --output the
file has its name only once it is whole. `tool export` and `function export` take a filter too.

Examples:
  org-executor export --output all.jsonl
  org-executor export --tag math | wc -l
  org-executor function export --filter '{\"function_metadata.runtime\":\"python\"}'";

/// The orders of a list, as the service names them.
pub const ORDERS: [&str; 7] = ["id", "-id", "created", "-created", "updated", "-updated", "relevance"];

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
        /// As it was in this revision
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        revision: Option<u64>,
    },
    /// Register definitions, each by itself; many are for `import`
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
    /// Fetch a definition again from the source that it came from
    Refresh {
        /// Its id
        id: String,
    },
    /// List the revisions of a definition, the newest first
    Revisions {
        /// Its id
        id: String,
    },
    /// Put an earlier revision in force again, as a new one
    Rollback {
        /// Its id
        id: String,
        /// The number of the revision, as `revisions` shows it
        #[arg(value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        revision: u64,
    },
    /// List the versions of a name, the highest first
    Versions {
        /// The name: an id without its version
        name: String,
    },
    /// Write definitions as JSON lines
    #[command(after_help = EXPORT_EXAMPLES)]
    Export {
        #[command(flatten)]
        select: Selection,
        /// Into this file, which has its name only once it is whole [default: stdout]
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// Which definitions are meant: those for which all holds that is given.
#[derive(Args, Clone, Debug, Default)]
pub struct Selection {
    /// Only what has this tag; given more than once: any of them
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Only what matches this filter, written as MongoDB's: JSON, @FILE, or - for stdin
    #[arg(long, value_name = "JSON")]
    pub filter: Option<String>,
    /// Only what has these words, or nearly, in its id, tags or description
    #[arg(long, value_name = "TEXT")]
    pub search: Option<String>,
}

/// Options of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    pub select: Selection,
    /// In this order; a - before it turns it round [default: id, with --search relevance]
    #[arg(long, value_name = "ORDER", value_parser = ORDERS, allow_hyphen_values = true)]
    pub sort: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

/// Options of `import`.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// A file, a folder that is searched for *.json, *.jsonl and *.ndjson through and through, or - for stdin
    #[arg(required_unless_present = "source")]
    pub path: Option<PathBuf>,
    /// Instead of a path: all that this source of the service's configuration lists
    #[arg(long, value_name = "NAME", conflicts_with = "path")]
    pub source: Option<String>,
    /// Put a definition in the place of the one that exists already
    #[arg(long)]
    pub replace: bool,
    /// Write nothing, and say what an import would do
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// Options of `export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// Only what has this tag; given more than once: any of them
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Into this file, which has its name only once it is whole [default: stdout]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub service: ServiceArgs,
}

#[cfg(test)]
mod tests {
    use actors::registry::Sort;
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, ClientCommand, Command};

    fn parse(line: &str) -> Option<ClientCommand> {
        let words = std::iter::once("org-executor").chain(line.split_whitespace());
        match Cli::try_parse_from(words).ok()?.into_command() {
            Command::Client(command) => Some(command),
            _ => None,
        }
    }

    fn definition(line: &str) -> DefinitionCommand {
        match parse(line) {
            Some(ClientCommand::Tool(args) | ClientCommand::Function(args)) => args.command,
            other => panic!("not about definitions: {other:?}"),
        }
    }

    #[test]
    fn the_orders_are_those_of_the_engine() {
        for order in ORDERS {
            assert!(Sort::parse(order).is_ok(), "{order}");
            let DefinitionCommand::List(list) = definition(&format!("tool list --sort {order}")) else {
                panic!("not list");
            };
            assert_eq!(list.sort.as_deref(), Some(order));
        }
        assert!(parse("tool list --sort age").is_none() && parse("tool list --sort -relevance").is_none());
    }

    #[test]
    fn a_revision_is_a_number_from_one_on() {
        assert!(matches!(
            definition("tool rollback t 2"),
            DefinitionCommand::Rollback { id, revision: 2 } if id == "t"
        ));
        assert!(matches!(
            definition("function get f --revision 7"),
            DefinitionCommand::Get { revision: Some(7), .. }
        ));
        for wrong in ["tool rollback t", "tool rollback t 0", "tool rollback t x", "tool get t --revision -1"]
        {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn an_import_has_a_path_or_a_source_and_not_both() {
        let Some(ClientCommand::Import(args)) = parse("import - --replace --dry-run --url http://h:1") else {
            panic!("not import");
        };
        assert_eq!(args.path, Some(PathBuf::from("-")));
        assert!(args.replace && args.dry_run && args.service.base() == "http://h:1");
        assert!(parse("import --source petstore").is_some());
        assert!(parse("import").is_none() && parse("import x --source petstore").is_none());
    }

    #[test]
    fn an_export_is_of_both_kinds_or_of_one_with_a_filter() {
        let Some(ClientCommand::Export(args)) = parse("export --tag a --tag b -o all.jsonl") else {
            panic!("not export");
        };
        assert_eq!((args.tags.len(), args.output), (2, Some(PathBuf::from("all.jsonl"))));
        let DefinitionCommand::Export { select, output } = definition("tool export --filter {} --search x")
        else {
            panic!("not export");
        };
        assert_eq!(
            (select.filter.as_deref(), select.search.as_deref(), output),
            (Some("{}"), Some("x"), None)
        );
        assert!(parse("export --filter {}").is_none());
    }
}
