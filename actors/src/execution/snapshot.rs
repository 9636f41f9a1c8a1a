//! What is known of an execution at a moment, and which of them are asked for. Pure.

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::{Client, Ended, State};
use crate::definition::Kind;
use crate::error::{Error, Result};

/// What is known of an execution at a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Its name.
    pub uuid: Uuid,
    /// Tool or function.
    pub kind: Kind,
    /// The exact id of the definition that was accepted.
    pub id: String,
    /// The number of its revision; none where it was accepted by a version that did not note it.
    pub revision: Option<u64>,
    /// To whom it belongs.
    pub client: Client,
    /// The merged and checked input, as JSON text.
    pub input: Arc<str>,
    /// When it was accepted, in milliseconds since the epoch.
    pub accepted_ms: u64,
    /// How far it has come.
    pub progress: Progress,
}

/// How far an execution has come.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// It waits for its turn, or for its next attempt.
    Queued,
    /// It runs, since this time in milliseconds since the epoch, for the so-manieth time.
    Running(u64, u32),
    /// It ended.
    Ended(Arc<Ended>),
}

/// The name of how far an execution has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It waits.
    Queued,
    /// It runs.
    Running,
    /// It ended so.
    Ended(State),
}

impl Phase {
    /// The name that stands in answers and filters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Ended(state) => state.name(),
        }
    }

    /// The phase of that name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "queued" => Some(Self::Queued),
            "running" => Some(Self::Running),
            _ => State::named(name).map(Self::Ended),
        }
    }
}

impl Snapshot {
    /// How far it has come, in a word.
    pub fn phase(&self) -> Phase {
        match &self.progress {
            Progress::Queued => Phase::Queued,
            Progress::Running(..) => Phase::Running,
            Progress::Ended(ended) => Phase::Ended(ended.outcome.state),
        }
    }

    /// As JSON text: `uuid`, `kind`, `id`, `revision`, `state`, `client`, `input`, times in milliseconds since the epoch (`accepted_ms`, and as far
    /// as it has come `started_ms` and `ended_ms`), `attempts`, and of one that ended `output`, or `error` and
    /// `code`, and of a program the level of the `sandbox` that it ran in.
    pub fn to_json(&self) -> String {
        let id_field = self.kind.field("id");
        let mut about = json!({
            "uuid": self.uuid, "kind": self.kind.name(), "state": self.phase().name(), "accepted_ms": self.accepted_ms,
            "client": self.client.to_string(),
        });
        about[&id_field] = self.id.as_str().into();
        if let Some(revision) = self.revision {
            about["revision"] = revision.into();
        }
        let mut output = None;
        match &self.progress {
            Progress::Queued => {}
            Progress::Running(since, attempts) => {
                about["started_ms"] = (*since).into();
                about["attempts"] = (*attempts).into();
            }
            Progress::Ended(ended) => {
                about["started_ms"] = ended.started_ms.into();
                about["ended_ms"] = ended.ended_ms.into();
                about["attempts"] = ended.attempts.into();
                if let Some(level) = ended.sandbox {
                    about["sandbox"] = level.name().into();
                }
                match &ended.outcome.result {
                    Ok(text) => output = Some(text),
                    Err(failure) => {
                        about["error"] = failure.message.as_str().into();
                        about["code"] = (*failure.code).into();
                    }
                }
            }
        }
        // Input and output keep the text of their numbers.
        let mut text = about.to_string();
        text.pop();
        text += &format!(",\"input\":{}", self.input);
        if let Some(output) = output {
            text += &format!(",\"output\":{output}");
        }
        text + "}"
    }
}

/// Which executions are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// How many at most.
    pub limit: usize,
    /// Those before this one.
    pub before: Option<Uuid>,
    /// In this phase.
    pub phase: Option<Phase>,
    /// Of this kind.
    pub kind: Option<Kind>,
    /// Of the definition with exactly this id.
    pub id: Option<String>,
    /// Of this client.
    pub client: Option<Client>,
    /// Accepted at or after this time, in milliseconds since the epoch.
    pub from_ms: Option<u64>,
    /// Accepted before this time, in milliseconds since the epoch.
    pub to_ms: Option<u64>,
}

impl PageRequest {
    /// Whether an execution is one of those asked for.
    pub fn matches(&self, snapshot: &Snapshot) -> bool {
        self.phase.is_none_or(|phase| phase == snapshot.phase())
            && self.kind.is_none_or(|kind| kind == snapshot.kind)
            && self.id.as_ref().is_none_or(|id| *id == snapshot.id)
            && self.client.is_none_or(|client| client == snapshot.client)
            && self.from_ms.is_none_or(|from| snapshot.accepted_ms >= from)
            && self.to_ms.is_none_or(|to| snapshot.accepted_ms < to)
    }

    /// Whether neither this one nor any that was accepted long before it can be asked for. Uuids are nearly in the order
    /// of acceptance.
    pub fn is_reached(&self, snapshot: &Snapshot) -> bool {
        const SLACK_MS: u64 = 60_000;
        self.from_ms.is_some_and(|from| snapshot.accepted_ms + SLACK_MS < from)
    }

    /// Reads the phase that is asked for.
    ///
    /// # Errors
    /// `invalid`, naming the parameter.
    pub fn phase_named(name: &str) -> Result<Phase> {
        Phase::named(name).ok_or_else(|| {
            Error::invalid(format!(
                "`state` is {name:?}, not queued, running, succeeded, failed, timed_out, cancelled or interrupted"
            ))
            .at("state")
        })
    }
}

/// Some of the executions asked for, the newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// What is known of each.
    pub items: Vec<Snapshot>,
    /// Where the next page begins, when there may be more.
    pub next: Option<Uuid>,
}
