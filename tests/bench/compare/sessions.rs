//! No-ops over WebSockets: one on each connection, many on one, and how long one takes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{Turns, WARM_UP};
use crate::floor::{Answers, Floor};
use crate::load::{self, many, websocket};
use crate::report::Pair;
use crate::service::{Durability, Service, numbered, request};

/// What part of the highest rate an open loop has.
const OPEN_LOOP: f64 = 0.7;

/// How many records of the journal an execution makes.
#[derive(Clone, Copy, Debug)]
pub enum Records {
    /// Of an idempotent definition: accepted, ended.
    Two,
    /// Of another one, whose attempt is one too.
    Three,
}

impl Records {
    pub fn name(self) -> &'static str {
        match self {
            Self::Two => "idempotent",
            Self::Three => "not idempotent",
        }
    }

    pub fn beside(self) -> &'static str {
        match self {
            Self::Two => "bare inserts of 2,000 records, by 2 records each",
            Self::Three => "bare inserts of 2,000 records, by 3 records each",
        }
    }

    fn count(self) -> f64 {
        match self {
            Self::Two => 2.0,
            Self::Three => 3.0,
        }
    }

    fn tool(self) -> &'static str {
        match self {
            Self::Two => "noop",
            Self::Three => "noop-once",
        }
    }
}

/// One-shot sessions in a second, `width` at a time.
pub async fn rate(
    address: SocketAddr,
    path: &'static str,
    text: &str,
    width: usize,
    turn: Duration,
) -> Result<f64> {
    let text: Arc<str> = text.into();
    let work = move || {
        let text = text.clone();
        async move { websocket::one_shot(address, path, &text).await }
    };
    load::rate(width, turn, work).await
}

pub async fn one_shot(durability: Durability, turns: &Turns) -> Result<Vec<Vec<Pair>>> {
    let floor = Floor::Websocket { answers: Answers::Once }.serve().await?;
    let service = Service::with_noop(durability).await?;
    let text = request("noop", &json!({}));
    let rate = async |address, turn| rate(address, "/tool", &text, 64, turn).await;
    let (floor, service) = (floor.address, service.websocket);
    let pairs = turns.beside(async |turn| rate(floor, turn).await, async |turn| rate(service, turn).await);
    Ok(vec![pairs.await?])
}

/// `open` requests on one connection.
pub async fn many(
    durability: Durability,
    records: Records,
    open: usize,
    turns: &Turns,
) -> Result<Vec<Vec<Pair>>> {
    let echo = Floor::Websocket { answers: Answers::Each }.serve().await?;
    let service = Service::with_noop(durability).await?;
    let text = numbered(records.tool(), &json!({}));
    let ours = async |turn| many::rate(service.websocket, &text, open, turn).await;
    let floor = async |turn: Duration| match durability {
        Durability::Memory => many::rate(echo.address, &text, open, turn).await,
        Durability::Journal => {
            let inserted = Floor::Records { seconds: turn.as_secs_f64() }.rate().await?;
            Ok(inserted / records.count())
        }
    };
    Ok(vec![turns.beside(floor, ours).await?])
}

pub async fn latency(turns: &Turns) -> Result<Vec<Vec<Pair>>> {
    let floor = Floor::Websocket { answers: Answers::Once }.serve().await?;
    let service = Service::with_noop(Durability::Journal).await?;
    let text = request("noop", &json!({}));
    let took = async |address, turn| {
        load::closed_loop(turn, async || websocket::one_shot(address, "/tool", &text).await).await
    };
    for address in [floor.address, service.websocket] {
        took(address, WARM_UP).await?;
    }
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for _ in 0..turns.pairs {
        let bare = took(floor.address, turns.length).await?;
        let ours = took(service.websocket, turns.length).await?;
        for (pairs, part) in [(&mut p50, 0.5), (&mut p99, 0.99)] {
            pairs.push(Pair { floor: Some(bare.quantile(part)), service: ours.quantile(part) });
        }
    }
    Ok(vec![p50, p99])
}

pub async fn open_loop(turns: &Turns) -> Result<Vec<Vec<Pair>>> {
    let service = Service::with_noop(Durability::Journal).await?;
    let (address, text) = (service.websocket, request("noop", &json!({})));
    rate(address, "/tool", &text, 64, WARM_UP).await?;
    let most = rate(address, "/tool", &text, 64, turns.length).await?;
    let text: Arc<str> = text.into();
    let mut pairs = Vec::new();
    for _ in 0..turns.pairs {
        let work = || {
            let text = text.clone();
            async move { websocket::one_shot(address, "/tool", &text).await }
        };
        let took = load::open_loop(most * OPEN_LOOP, turns.length, work).await?;
        pairs.push(Pair { floor: Some(took.quantile(0.5)), service: took.quantile(0.99) });
    }
    Ok(vec![pairs])
}
