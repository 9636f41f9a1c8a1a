//! Secrets: named in definitions, given to their executions when these run, and taken out of all that comes back.
//!
//! The configuration says where the value of each is, and which definitions may have it: none unless told, since who can
//! write a definition can have it do anything with what it is given. A value is held in memory only, for as long as an
//! execution or a warm worker needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::access::Ids;
use crate::compiled::Compiled;
use crate::execution::Outcome;
use crate::settings::SecretSettings;

mod forms;
mod granted;
mod redactor;
mod secret;
mod source;

pub use granted::{Granted, UNAVAILABLE};
pub use redactor::{Redactor, Stream};

use secret::Secret;
use source::Place;

/// All secrets of the configuration.
#[derive(Debug)]
pub struct Secrets {
    sources: BTreeMap<String, Source>,
    /// The variables of the service's environment that have values.
    hidden: BTreeSet<String>,
}

/// Where one is, and who may have it.
#[derive(Debug)]
struct Source {
    place: Place,
    trim: bool,
    /// How long what a command printed is good.
    cache: Duration,
    users: Option<Ids>,
    printed: Mutex<Option<(Instant, Arc<Secret>)>>,
}

impl Secrets {
    /// Those of `[secrets]`; no value is read yet.
    ///
    /// # Errors
    /// One sentence: what one of them lacks.
    pub fn new(settings: &BTreeMap<String, SecretSettings>) -> Result<Self, String> {
        let source = |(name, settings): (&String, &SecretSettings)| {
            let users = settings.users().map_err(|problem| format!("secrets.{name} {problem}"))?;
            let (place, cache) = (Place::of(settings), Duration::from_millis(settings.cache_ms));
            let source = Source { place, trim: settings.trim, cache, users, printed: Mutex::default() };
            Ok((name.clone(), source))
        };
        let sources: BTreeMap<_, _> = settings.iter().map(source).collect::<Result<_, String>>()?;
        let hidden = settings.values().filter_map(|settings| settings.env.clone()).collect();
        Ok(Self { sources, hidden })
    }

    /// Keeps programs of this process's own user from reading its environment and its memory (prctl(2),
    /// PR_SET_DUMPABLE), where there are secrets at all. Root reads them in any case.
    pub fn guard(&self) {
        if self.sources.is_empty() {
            return;
        }
        if let Err(error) = nix::sys::prctl::set_dumpable(false) {
            tracing::warn!(%error, "programs of the same user can read the environment of this service");
        }
    }

    /// The variables of the service's environment that nothing that it starts may get.
    pub fn hidden(&self) -> &BTreeSet<String> {
        &self.hidden
    }

    /// What this definition asks for.
    ///
    /// # Errors
    /// The outcome: `not_startable` where it may not have one of them, `secret_unavailable` where a value cannot be had.
    pub async fn grant(&self, definition: &Compiled) -> Result<Granted, Outcome> {
        let mut given = Vec::new();
        for (used, name) in &definition.spec.secrets {
            let source = self.sources.get(name).filter(|source| source.is_for(&definition.id));
            // Whether there is one that it may not have is nothing to its author.
            let source = source.ok_or_else(|| {
                let message = format!(
                    "the secret {name:?} is not there for this definition: `[secrets]` of the configuration \
                     has none of that name with this id among its `definitions`"
                );
                Outcome::failed("not_startable", message)
            })?;
            let secret = source.value(&self.hidden).await.map_err(|problem| {
                tracing::warn!(secret = name, id = definition.id, problem, "a secret cannot be had");
                Outcome::failed(UNAVAILABLE, format!("the secret {name:?} {problem}"))
            })?;
            given.push((used.clone(), name.clone(), secret));
        }
        Granted::new(given)
    }
}

impl Source {
    fn is_for(&self, id: &str) -> bool {
        self.users.as_ref().is_some_and(|users| users.has(id))
    }

    async fn value(&self, hidden: &BTreeSet<String>) -> Result<Arc<Secret>, String> {
        let read = async || self.place.read(self.trim, hidden).await.map(Arc::new);
        if !matches!(self.place, Place::Command(_)) {
            return read().await;
        }
        // Held meanwhile, so that of many executions at once one asks.
        let mut printed = self.printed.lock().await;
        if let Some((when, secret)) = &*printed
            && when.elapsed() < self.cache
        {
            return Ok(secret.clone());
        }
        *printed = None;
        let secret = read().await?;
        *printed = Some((Instant::now(), secret.clone()));
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::compiled::Revision;
    use crate::definition::{Definition, Kind};

    fn secrets(settings: Value) -> Secrets {
        Secrets::new(&serde_json::from_value(settings).expect("settings")).expect("secrets")
    }

    fn definition(id: &str, names: Value) -> Arc<Compiled> {
        let body = json!({ "tool_id": id, "tool_metadata": { "runtime": "binary", "secrets": names } });
        let definition = Definition::parse(Kind::Tool, &body.to_string()).expect("valid");
        let revision = Revision { definition, number: 1, created_ms: 1, updated_ms: 1, pin: None };
        Compiled::new(&revision).expect("compiles")
    }

    async fn told(
        secrets: &Secrets,
        definition: &Compiled,
    ) -> Result<Vec<(String, String)>, (String, String)> {
        match secrets.grant(definition).await {
            Ok(granted) => Ok(granted.variables().map(|(name, value)| (name.into(), value.into())).collect()),
            Err(outcome) => {
                let failure = outcome.result.expect_err("a failure");
                Err((failure.code.into_owned(), failure.message))
            }
        }
    }

    #[tokio::test]
    async fn only_definitions_that_the_configuration_names_get_a_secret() {
        let all = secrets(json!({
            "closed": { "env": "CARGO_PKG_NAME" },
            "open": { "env": "CARGO_PKG_NAME", "definitions": ["deploy-*"] },
        }));
        let given = told(&all, &definition("deploy-1", json!({ "TOKEN": "open" }))).await.expect("allowed");
        assert_eq!(given, [("TOKEN".to_owned(), env!("CARGO_PKG_NAME").to_owned())]);
        let refusals = [("other", "open"), ("deploy-1", "closed"), ("deploy-1", "absent")]
            .map(async |(id, name)| told(&all, &definition(id, json!([name]))).await.expect_err(name));
        for (refusal, name) in refusals.into_iter().zip(["open", "closed", "absent"]) {
            let (code, message) = refusal.await;
            assert_eq!(code, "not_startable");
            assert_eq!(message.replace(name, "x"), told_of("x"));
        }
    }

    fn told_of(name: &str) -> String {
        format!(
            "the secret {name:?} is not there for this definition: `[secrets]` of the configuration has none of that \
             name with this id among its `definitions`"
        )
    }

    #[tokio::test]
    async fn a_command_is_asked_again_only_after_its_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let count = format!("echo x >> {0}/asked; echo value-$(wc -l < {0}/asked)", folder.path().display());
        let asked = |cache_ms: u64| {
            secrets(
                json!({ "a": { "command": ["sh", "-c", count], "definitions": ["*"], "cache_ms": cache_ms } }),
            )
        };
        let definition = definition("t", json!(["a"]));
        let value = async |secrets: &Secrets| told(secrets, &definition).await.expect("a value")[0].1.clone();
        let kept = asked(600_000);
        assert_eq!([value(&kept).await, value(&kept).await], ["value-1", "value-1"]);
        let fresh = asked(0);
        assert_eq!([value(&fresh).await, value(&fresh).await], ["value-2", "value-3"]);
    }

    #[tokio::test]
    async fn a_value_that_cannot_be_had_is_told_by_its_name() {
        let all = secrets(json!({ "a": { "command": ["false"], "definitions": ["*"] } }));
        let (code, message) = told(&all, &definition("t", json!(["a"]))).await.expect_err("no value");
        assert_eq!(code, UNAVAILABLE);
        assert_eq!(message, "the secret \"a\" has a command that ended with exit status: 1");
    }
}
