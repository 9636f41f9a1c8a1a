//! Reading definitions and making them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;

use super::Turns;
use crate::floor::Floor;
use crate::load::http;
use crate::report::Pair;
use crate::service::{Durability, Launch, Service, definition};

const CONNECTIONS: usize = 64;

const READ: &str = "read";

/// GETs of one definition in a second.
pub async fn get_rate(address: std::net::SocketAddr, id: &str, turn: Duration) -> Result<f64> {
    let request: Arc<[u8]> = http::request("GET", &format!("/tool/{id}"), "").into();
    http::rate(address, CONNECTIONS, turn, move || request.clone()).await
}

pub async fn get(turns: &Turns) -> Result<Vec<Vec<Pair>>> {
    let service = Launch::new(Durability::Memory)?.start().await?;
    service.rest("POST", "/tool", "application/json", definition(READ).to_string()).await?;
    let answer = service.rest("GET", &format!("/tool/{READ}"), "application/json", String::new()).await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("answer.json");
    std::fs::write(&file, answer)?;
    let floor = Floor::Http { file }.serve().await?;
    let pairs = turns.beside(
        async |turn| get_rate(floor.address, READ, turn).await,
        async |turn| get_rate(service.rest, READ, turn).await,
    );
    Ok(vec![pairs.await?])
}

/// Definitions made in a second, with ids that were not used before.
pub async fn create_rate(service: &Service, made: &Arc<AtomicU64>, turn: Duration) -> Result<f64> {
    let made = made.clone();
    let next = move || {
        let id = format!("created-{:07}", made.fetch_add(1, Ordering::Relaxed));
        http::request("POST", "/tool", &definition(&id).to_string()).into()
    };
    http::rate(service.rest, CONNECTIONS, turn, next).await
}

pub async fn create(turns: &Turns) -> Result<Vec<Vec<Pair>>> {
    let service = Launch::new(Durability::Journal)?.start().await?;
    let made = Arc::default();
    let floor = async |turn: Duration| {
        Floor::Definitions { group: CONNECTIONS, seconds: turn.as_secs_f64() }.rate().await
    };
    Ok(vec![turns.beside(floor, async |turn| create_rate(&service, &made, turn).await).await?])
}
