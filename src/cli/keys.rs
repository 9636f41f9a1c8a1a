//! `key`: what can be typed.

use clap::{Args, Subcommand};

use super::{ServiceArgs, span_ms};

pub const KEY_EXAMPLES: &str = "\
The key goes to stdout, once; the service keeps a hash of it. Other commands take it from the
environment: ORG_EXECUTOR_KEY. Once there is a key, nobody comes in without one, so the first one has
the scope admin.

Scopes: read (definitions, own executions, the state of the service), write (definitions),
execute (run definitions, follow and cancel own executions), admin (all of this, the executions of
all, keys).

Examples:
  org-executor key create --offline ops --scope admin       the first key, before the service starts
  org-executor key create ci --scope read,execute --id 'build-*' --expires 90d
  org-executor key create web --scope execute --rate 50 --max-open 10
  org-executor key list
  org-executor key revoke 01a2058f4d507178";

/// Options of `key`.
#[derive(Args, Debug)]
pub struct KeyArgs {
    #[command(subcommand)]
    pub command: KeyCommand,
    #[command(flatten)]
    pub service: ServiceArgs,
    /// Work on the store of the configuration, while no service runs on it
    #[arg(long, global = true)]
    pub offline: bool,
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key, and print it this once
    Create(KeyCreateArgs),
    /// List all keys, the oldest first
    List,
    /// Revoke a key: its sessions end
    Revoke {
        /// Its id, as `list` shows it
        id: String,
    },
}

/// Options of `key create`.
#[derive(Args, Debug)]
pub struct KeyCreateArgs {
    /// What to call it
    pub name: String,
    /// What it may do
    #[arg(long = "scope", value_name = "SCOPE", required = true, value_delimiter = ',',
          value_parser = ["read", "write", "execute", "admin"])]
    pub scopes: Vec<String>,
    /// Only ids that this pattern matches: `*` is any text, `?` one character; may be given several times
    #[arg(long = "id", value_name = "PATTERN")]
    pub ids: Vec<String>,
    /// It ends after this time: 30m, 12h, 90d, 4w
    #[arg(long, value_name = "TIME", value_parser = lasting)]
    pub expires: Option<u64>,
    /// At most so many requests in a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// At most so many executions at one time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_open: Option<u32>,
}

/// How long a key lasts, in milliseconds.
fn lasting(text: &str) -> Result<u64, &'static str> {
    span_ms(text).filter(|ms| *ms > 0).ok_or("no time such as 90s, 30m, 12h, 90d or 4w")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_in_its_unit() {
        assert_eq!(lasting("90d"), Ok(90 * 86_400_000));
        for bad in ["", "d", "0s", "5", "-1h", "9999999999999999w", "1y"] {
            assert!(lasting(bad).is_err(), "{bad}");
        }
    }
}
