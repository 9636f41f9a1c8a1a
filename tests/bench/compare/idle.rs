//! What it costs when nobody asks for anything.

use std::time::Duration;

use anyhow::Result;

use super::Turns;
use crate::load::websocket;
use crate::report::Pair;
use crate::service::Launch;

/// How long after its start the memory of a process is looked at.
const SETTLED: Duration = Duration::from_secs(1);

/// How many idle connections there are.
const SOCKETS: usize = 5_000;

/// As many starts as there are turns: resident MiB, and milliseconds until it is ready.
pub async fn process(turns: &Turns) -> Result<Vec<Vec<Pair>>> {
    let (mut resident, mut took) = (Vec::new(), Vec::new());
    for _ in 0..turns.pairs {
        let service = Launch::by_default()?.start().await?;
        tokio::time::sleep(SETTLED).await;
        resident.push(Pair { floor: None, service: service.resident_kib()? / 1_024.0 });
        took.push(Pair { floor: None, service: service.took.as_secs_f64() * 1_000.0 });
    }
    Ok(vec![resident, took])
}

pub async fn sessions(turns: &Turns) -> Result<Vec<Vec<Pair>>> {
    let mut pairs = Vec::new();
    for _ in 0..turns.pairs {
        let launch = Launch::by_default()?.set("LOG__LEVEL", "warn,org_executor=info");
        let service = launch.set("WEBSOCKET__UNLIMITED_ADDRESSES", r#"["127.0.0.1"]"#).start().await?;
        // What the first connections set up, of which there is one for all, does not count.
        let first = websocket::idle(service.websocket, "/session", 10).await?;
        tokio::time::sleep(SETTLED).await;
        let before = service.resident_kib()?;
        let sockets = websocket::idle(service.websocket, "/session", SOCKETS).await?;
        tokio::time::sleep(SETTLED).await;
        let each = (service.resident_kib()? - before) / sockets.len() as f64;
        drop((first, sockets));
        pairs.push(Pair { floor: None, service: each });
    }
    Ok(vec![pairs])
}
