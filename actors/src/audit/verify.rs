//! Reads the whole chain of a store, and tells whether it holds.

use serde_json::{Value, json};

use super::{Broken, Head, Problem, Verifier};
use crate::registry::{Store, StoreError};

/// How many entries are read at a time.
const PAGE: u64 = 5_000;

/// What became of reading the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How many entries there are; of a chain that breaks, up to there.
    pub entries: u64,
    /// When the first and the last of them happened, in milliseconds since the epoch.
    pub times: Option<(u64, u64)>,
    /// The last of them.
    pub head: Head,
    /// Up to where entries were removed in order, since they were old.
    pub removed: u64,
    /// Where it breaks, if it does.
    pub broken: Option<Broken>,
    /// What became of the head that somebody noted earlier.
    pub noted: Option<Noted>,
}

/// A head that somebody noted earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Its hash.
    pub hash: String,
    /// Where it is in the chain; none where it is not.
    pub sequence: Option<u64>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_intact(&self) -> bool {
        self.broken.is_none() && self.noted.as_ref().is_none_or(|noted| noted.sequence.is_some())
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let mut report = json!({
            "intact": self.is_intact(), "entries": self.entries, "removed": self.removed,
            "head": { "sequence": self.head.sequence, "hash": self.head.hash },
        });
        if let Some((first, last)) = self.times {
            report["from_ms"] = first.into();
            report["to_ms"] = last.into();
        }
        if let Some(broken) = &self.broken {
            report["broken"] = json!({
                "sequence": broken.sequence, "problem": broken.problem.name(), "message": broken.to_string(),
            });
        }
        if let Some(noted) = &self.noted {
            report["noted"] = json!({ "hash": noted.hash, "sequence": noted.sequence });
        }
        report
    }
}

/// Reads the chain from its beginning to the head that it has now; `noted` is looked for on the way.
///
/// # Errors
/// The store erred.
pub async fn verify(store: &Store, noted: Option<&str>) -> Result<Report, StoreError> {
    loop {
        let (base, head) = store.audit_ends().await?;
        let report = read(store, &base, &head, noted).await?;
        // Old entries may be removed meanwhile, in order.
        if report.broken.is_none() || store.audit_ends().await?.0 == base {
            return Ok(report);
        }
    }
}

async fn read(store: &Store, base: &Head, head: &Head, noted: Option<&str>) -> Result<Report, StoreError> {
    let mut verifier = Verifier::new(base.clone());
    let mut noted = noted
        .map(|hash| Noted { hash: hash.to_owned(), sequence: (base.hash == hash).then_some(base.sequence) });
    let (mut after, mut broken) = (0, None);
    'pages: loop {
        let links = store.audit_entries(after, PAGE).await?;
        let Some(last) = links.last() else { break };
        after = last.sequence;
        for link in &links {
            if link.sequence > head.sequence && verifier.last().sequence == head.sequence {
                // What is written meanwhile is for the next time; its commit has moved the head.
                let is_new = store.audit_ends().await?.1.sequence > head.sequence;
                let inserted = Broken { sequence: head.sequence + 1, problem: Problem::Inserted };
                broken = (!is_new).then_some(inserted);
                break 'pages;
            }
            if let Err(found) = verifier.take(link) {
                broken = Some(found);
                break 'pages;
            }
            if let Some(noted) = noted.as_mut().filter(|noted| noted.hash == link.hash) {
                noted.sequence = Some(link.sequence);
            }
        }
    }
    Ok(Report {
        entries: verifier.entries(),
        times: verifier.times(),
        head: verifier.last().clone(),
        removed: verifier.base().sequence,
        broken: broken.or_else(|| verifier.finish(head).err()),
        noted,
    })
}
