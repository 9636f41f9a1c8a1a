//! What becomes of many definitions, one after the other: the words of the REST API, which the client hears, and how many
//! became what.

use actors::error::Result;
use actors::registry::Imported;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What became of a definition.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Became {
    /// It is new.
    Created,
    /// It replaced another one.
    Updated,
    /// It is there already, as it is here.
    Unchanged,
    /// One with its id is there already, and stays.
    Exists,
    /// It was refused.
    Failed,
}

/// How many became what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// New ones.
    pub created: u64,
    /// Those that replaced another one.
    pub updated: u64,
    /// Those that were there as they are.
    pub unchanged: u64,
    /// Those whose id was taken.
    pub exists: u64,
    /// Those that were refused.
    pub failed: u64,
}

impl From<&Result<Imported>> for Became {
    fn from(answer: &Result<Imported>) -> Self {
        match answer {
            Ok(Imported::Created) => Self::Created,
            Ok(Imported::Updated) => Self::Updated,
            Ok(Imported::Unchanged) => Self::Unchanged,
            Ok(Imported::Exists) => Self::Exists,
            Err(_) => Self::Failed,
        }
    }
}

impl Tally {
    /// Counts one more.
    pub fn count(&mut self, became: Became) {
        *match became {
            Became::Created => &mut self.created,
            Became::Updated => &mut self.updated,
            Became::Unchanged => &mut self.unchanged,
            Became::Exists => &mut self.exists,
            Became::Failed => &mut self.failed,
        } += 1;
    }

    /// All that were counted.
    pub fn all(&self) -> u64 {
        self.created + self.updated + self.unchanged + self.exists + self.failed
    }

    /// The sum, as JSON.
    pub fn json(&self, dry_run: bool) -> Value {
        let Self { created, updated, unchanged, exists, failed } = self;
        json!({
            "created": created, "updated": updated, "unchanged": unchanged, "exists": exists, "failed": failed,
            "dry_run": dry_run
        })
    }
}
