//! Whether a rate stays what it is when a hundred times as much is stored, or open.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{Turns, WARM_UP, registry, sessions};
use crate::load::{many, websocket};
use crate::report::{Goal, Head, Pair};
use crate::service::{Durability, Service, numbered, request};

/// What there is more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grown {
    Executions,
    Definitions,
    Sessions,
}

#[derive(Clone, Copy, Debug)]
enum Load {
    OneShot,
    Session,
    Get,
}

/// A service with something in it.
pub struct Filled {
    pub service: Service,
    idle: Vec<websocket::Socket>,
}

impl Grown {
    pub const ALL: [Self; 3] = [Self::Executions, Self::Definitions, Self::Sessions];

    fn few(self) -> usize {
        match self {
            Self::Executions | Self::Definitions => 1_000,
            Self::Sessions => 50,
        }
    }

    fn many(self) -> usize {
        self.few() * 100
    }

    fn name(self) -> &'static str {
        match self {
            Self::Executions => "100000 stored executions",
            Self::Definitions => "100000 definitions",
            Self::Sessions => "5000 idle sessions",
        }
    }

    fn beside(self) -> &'static str {
        match self {
            Self::Executions | Self::Definitions => "the same with 1,000",
            Self::Sessions => "the same with 50",
        }
    }

    pub fn heads(self) -> Vec<Head> {
        let head = |load: Load| {
            let name = format!("growth: {} with {}", load.name(), self.name());
            Head::new(name, load.unit(), self.beside(), Goal::Ratio(0.9))
        };
        Load::ALL.map(head).into()
    }

    /// A new service with so much of it.
    pub async fn filled(self, count: usize) -> Result<Filled> {
        // Only a journal stores executions.
        let durability = if self == Self::Executions { Durability::Journal } else { Durability::Memory };
        let service = Service::with_noop(durability).await?;
        let mut filled = Filled { service, idle: Vec::new() };
        filled.fill(self, 0, count).await?;
        Ok(filled)
    }
}

impl Filled {
    /// Adds to what was there already.
    pub async fn fill(&mut self, grown: Grown, there: usize, count: usize) -> Result<()> {
        let address = self.service.websocket;
        let text = numbered("noop", &json!({}));
        match grown {
            Grown::Executions => many::finish(address, &text, count - there).await,
            Grown::Definitions => self.service.import(there..count).await,
            Grown::Sessions => {
                self.idle.extend(websocket::idle(address, "/session", count - there).await?);
                Ok(())
            }
        }
    }
}

impl Load {
    const ALL: [Self; 3] = [Self::OneShot, Self::Session, Self::Get];

    fn name(self) -> &'static str {
        match self {
            Self::OneShot => "one-shot no-op",
            Self::Session => "/session no-op",
            Self::Get => "GET /tool/{id}",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::OneShot => "sessions/s",
            Self::Session => "executions/s",
            Self::Get => "requests/s",
        }
    }

    async fn rate(self, service: &Service, turn: Duration) -> Result<f64> {
        let (address, input) = (service.websocket, json!({}));
        match self {
            Self::OneShot => sessions::rate(address, "/tool", &request("noop", &input), 64, turn).await,
            Self::Session => many::rate(address, &numbered("noop", &input), 256, turn).await,
            Self::Get => registry::get_rate(service.rest, "noop", turn).await,
        }
    }
}

pub async fn measure(grown: Grown, turns: &Turns) -> Result<Vec<Vec<Pair>>> {
    let large = grown.filled(grown.many()).await?;
    let mut small = grown.filled(grown.few()).await?;
    let mut rows = Vec::new();
    for load in Load::ALL {
        let mut pairs = Vec::new();
        for _ in 0..turns.pairs {
            if grown == Grown::Executions {
                // The one before has many executions too, by having been measured.
                small = grown.filled(grown.few()).await?;
            }
            load.rate(&small.service, WARM_UP).await?;
            let floor = Some(load.rate(&small.service, turns.length).await?);
            load.rate(&large.service, WARM_UP).await?;
            pairs.push(Pair { floor, service: load.rate(&large.service, turns.length).await? });
        }
        rows.push(pairs);
    }
    Ok(rows)
}
