//! `audit`: what can be typed.

use clap::{Args, Subcommand};

use super::{Moment, ServiceArgs};

pub const AUDIT_EXAMPLES: &str = "\
Every change, execution and refusal is an entry, chained to the one before it by its hash. Note the head
that `verify` prints somewhere else: who can write the store could cut off the end of the chain, and
`verify --head` tells whether that head is still in it.

Examples:
  org-executor audit verify
  org-executor audit verify --head 5f0c…e1        the head that was noted the last time
  org-executor audit verify --offline             on the store, while no service runs
  org-executor audit export --from 7d > week.jsonl
  org-executor audit export | jq 'select(.result == \"forbidden\")'";

/// Options of `audit`.
#[derive(Args, Debug)]
pub struct AuditArgs {
    #[command(subcommand)]
    pub command: AuditCommand,
    #[command(flatten)]
    pub service: ServiceArgs,
    /// Work on the store of the configuration, while no service runs on it
    #[arg(long, global = true)]
    pub offline: bool,
}

/// What can be done with the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check the whole chain, and print how long it is and its head
    Verify {
        /// A head that was noted earlier: check that it is in the chain
        #[arg(long, value_name = "HASH", value_parser = hash)]
        head: Option<String>,
    },
    /// Print the entries as JSON lines
    Export {
        /// Only those that happened then or later: a time ago (90s, 15m, 2h, 7d), or milliseconds since the epoch
        #[arg(long, value_name = "TIME")]
        from: Option<Moment>,
        /// Only those that happened before then, written as for --from
        #[arg(long, value_name = "TIME")]
        to: Option<Moment>,
    },
}

fn hash(text: &str) -> Result<String, &'static str> {
    if actors::audit::is_hash(text) { Ok(text.to_owned()) } else { Err("a head is 64 hexadecimal digits") }
}
