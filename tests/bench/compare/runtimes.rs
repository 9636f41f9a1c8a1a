//! Programs and interpreters, beside those that no service runs.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{Turns, sessions};
use crate::floor::{Floor, Python};
use crate::load::many;
use crate::report::{Goal, Pair};
use crate::service::{Durability, Launch, numbered, request};

/// The levels of the sandbox.
pub const LEVELS: [&str; 3] = ["off", "limits", "isolated"];

/// How many programs run at a time.
const PROGRAMS: usize = 16;

/// How so many come to run at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// On one connection.
    Outstanding,
    /// Each on a connection of its own.
    Sessions,
}

impl Width {
    pub fn name(self) -> &'static str {
        match self {
            Self::Outstanding => "/session",
            Self::Sessions => "one-shot sessions",
        }
    }
}

pub fn goal(level: &str) -> Goal {
    match level {
        "off" => Goal::Ratio(0.9),
        "limits" => Goal::Ratio(0.75),
        _ => Goal::Ratio(0.6),
    }
}

pub async fn binary(level: &'static str, width: Width, turns: &Turns) -> Result<Vec<Vec<Pair>>> {
    let launch = Launch::new(Durability::Memory)?.set("SANDBOX__LEVEL", level).pool("binary", PROGRAMS);
    let service = launch.start().await?;
    service.create("cat", json!({ "runtime": "binary", "entrypoint": "/bin/cat" })).await?;
    let floor =
        async |turn: Duration| Floor::Spawn { width: PROGRAMS, seconds: turn.as_secs_f64() }.rate().await;
    let (address, input) = (service.websocket, json!({}));
    let ours = async |turn| match width {
        Width::Outstanding => many::rate(address, &numbered("cat", &input), PROGRAMS, turn).await,
        Width::Sessions => sessions::rate(address, "/tool", &request("cat", &input), PROGRAMS, turn).await,
    };
    Ok(vec![turns.beside(floor, ours).await?])
}

/// A tool whose handler does nothing.
pub const NOOP: &str = "def handler(input, context):\n    return {}\n";

pub async fn python(open: usize, turns: &Turns) -> Result<Vec<Vec<Pair>>> {
    let service = Launch::new(Durability::Memory)?.pool("python", 1).start().await?;
    service.put_source("noop.py", NOOP)?;
    service.create("noop", json!({ "source_url": "noop.py" })).await?;
    let mut bare = Python::start()?;
    let text = numbered("noop", &json!({}));
    let pairs = turns.beside(
        async |turn| bare.rate(open, turn).await,
        async |turn| many::rate(service.websocket, &text, open, turn).await,
    );
    Ok(vec![pairs.await?])
}
