//! Executions by their uuid.

use actors::dispatcher::Cancelled;
use actors::error::{Code, Error, Result};
use actors::system::System;
use poem_openapi::OpenApi;
use poem_openapi::param::Path;
use serde_json::json;
use uuid::Uuid;

use super::reply::Reply;

/// What was accepted.
pub struct Executions {
    system: System,
}

impl Executions {
    /// Of this system.
    pub fn new(system: System) -> Self {
        Self { system }
    }

    async fn cancelled(&self, uuid: &str) -> Result<String> {
        let uuid: Uuid = uuid.parse().map_err(|_| Error::invalid("the uuid is not valid").at("uuid"))?;
        match self.system.cancel(uuid).await? {
            Cancelled::Asked => Ok(json!({ "message": "Execution cancelled", "uuid": uuid }).to_string()),
            Cancelled::Ended => Err(Error::new(Code::Conflict, "the execution has ended already")),
            Cancelled::Unknown => Err(Error::new(Code::NotFound, "there is no execution with this uuid")),
        }
    }
}

#[OpenApi]
impl Executions {
    /// Ends an execution, whether it waits or runs. Its client gets a last frame with the code `cancelled`, once
    /// all that it started is gone. 409 where it has ended already.
    #[oai(path = "/execution/:uuid", method = "delete")]
    async fn cancel(&self, uuid: Path<String>) -> Reply<200> {
        match self.cancelled(&uuid).await {
            Ok(data) => Reply::data(&data),
            Err(error) => Reply::refused(&error),
        }
    }
}
