//! Whether the service lives, can take work, and what its tree looks like at this moment.

use actors::error::{Code, Error};
use actors::system::System;
use poem_openapi::OpenApi;
use serde_json::json;

use super::authorized::Authorized;
use super::reply::Reply;

/// The state of the service.
pub struct Status {
    system: System,
}

impl Status {
    /// Shows this system.
    pub fn new(system: System) -> Self {
        Self { system }
    }
}

#[OpenApi]
impl Status {
    /// Whether the process lives.
    #[oai(path = "/healthz", method = "get")]
    async fn healthz(&self) -> Reply<200> {
        Reply::data(r#"{"status":"alive"}"#)
    }

    /// Whether work can be taken, with the runtimes that this machine can run and why it cannot run the others; 503
    /// with the reason where none can be taken.
    #[oai(path = "/readyz", method = "get")]
    async fn readyz(&self) -> Reply<200> {
        match self.system.why_not_ready().await {
            None => {
                let readiness = serde_json::to_value(self.system.readiness().await);
                let mut data = readiness.unwrap_or_else(|error| json!({ "error": error.to_string() }));
                data["status"] = "ready".into();
                Reply::data(&data.to_string())
            }
            Some(reason) if self.system.is_draining() => Reply::refused(&Error::new(Code::Draining, reason)),
            Some(reason) => Reply::refused(&Error::unavailable(reason)),
        }
    }

    /// The live supervision tree, the queues and the pools.
    #[oai(path = "/system", method = "get")]
    async fn system(&self, acting: Authorized) -> Reply<200> {
        let picture = match acting.picture().await {
            Ok(picture) => serde_json::to_value(picture),
            Err(error) => return Reply::refused(&error),
        };
        let picture = picture.unwrap_or_else(|error| json!({ "error": error.to_string() }));
        Reply::data(&json!({ "version": env!("CARGO_PKG_VERSION"), "tree": picture }).to_string())
    }
}
