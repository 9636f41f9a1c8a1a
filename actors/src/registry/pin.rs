//! What a definition's source is when it is registered: brought in and named by its hash, so that this is what runs.

use serde::Deserialize;

use crate::artifacts::{Artifacts, Pin, Problem};
use crate::error::{Error, Result};

/// The source that a definition's metadata names.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Source {
    #[serde(rename = "source_url")]
    url: String,
    sha256: Option<String>,
    runtime: Option<String>,
}

impl Source {
    /// The source, where there is one that a run will need.
    pub fn of(metadata: &str) -> Option<Self> {
        // What has a wrong type is refused when the definition is compiled.
        let source: Self = serde_json::from_str(metadata).ok()?;
        let needs = |runtime: &str| !matches!(runtime, "container" | "http" | "websocket" | "mcp");
        source.runtime.as_deref().is_none_or(needs).then_some(source)
    }

    /// Brings it in. One that cannot be had now is none, and is looked for again at the first run.
    ///
    /// # Errors
    /// `invalid`: it can be had, and is not what may be run.
    pub async fn pin(&self, artifacts: &Artifacts) -> Result<Option<Pin>> {
        match artifacts.pin(&self.url, self.sha256.as_deref()).await {
            Ok(pin) => Ok(Some(pin)),
            Err(problem @ Problem::Mismatch { .. }) => Err(Error::invalid(problem.to_string()).at("sha256")),
            Err(problem) if problem.is_for_good() => {
                Err(Error::invalid(problem.to_string()).at("source_url"))
            }
            Err(problem) => {
                tracing::warn!(%problem, "registered without its source");
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_found_where_a_run_needs_it() {
        let url = |metadata: &str| Source::of(metadata).map(|source| source.url);
        assert_eq!(url(r#"{"source_url":"a.py"}"#).as_deref(), Some("a.py"));
        assert_eq!(url(r#"{"source_url":"a.wasm","runtime":"wasm","other":[1]}"#).as_deref(), Some("a.wasm"));
        assert_eq!(url(r#"{"source_url":"a.tar","runtime":"container"}"#), None);
        assert_eq!(url(r#"{"source_url":5}"#), None);
        assert_eq!(url("{}"), None);
    }
}
