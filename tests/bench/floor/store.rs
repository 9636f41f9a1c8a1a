//! Bare inserts into a store on disk, each group synchronised before the next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::execution::{Ended, Outcome};
use actors::journal::Record;
use actors::registry::{Location, Memory, Store};
use anyhow::Result;
use serde_json::json;
use surrealdb::Surreal;
use surrealdb::engine::local::SurrealKv;
use uuid::Uuid;

use crate::service::definition;

/// How many records are inserted at a time: so many that what a commit costs no longer counts.
const RECORDS: usize = 2_000;

/// Records of outcomes, as the journal has them.
pub async fn records(turn: Duration) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let store = Store::open(Location::Folder(folder.path().into()), Memory(512)).await?;
    let outcome = Outcome::succeeded("{}".into());
    let ended =
        Arc::new(Ended { outcome, started_ms: Some(1), ended_ms: 2, attempts: 1, sandbox: None, log: None });
    let (start, mut written) = (Instant::now(), 0);
    while start.elapsed() < turn {
        let records: Vec<Record> =
            (0..RECORDS).map(|_| Record::Ended(Uuid::now_v7(), ended.clone())).collect();
        store.append(&records, &[]).await?;
        written += RECORDS;
    }
    Ok(written as f64 / start.elapsed().as_secs_f64())
}

/// Definitions, each as its text under its id, in a table without an index.
pub async fn definitions(group: usize, turn: Duration) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let place = format!("{}?sync=every", folder.path().join("store").display());
    let database = Surreal::new::<SurrealKv>(place.as_str()).await?;
    database.use_ns("bench").use_db("bench").await?;
    database.query("DEFINE TABLE tool SCHEMALESS").await?.check()?;
    let (start, mut written) = (Instant::now(), 0);
    while start.elapsed() < turn {
        let rows = (written..written + group).map(|number| {
            let id = format!("created-{number:07}");
            json!({ "id": id, "definition": definition(&id).to_string() })
        });
        let rows: Vec<serde_json::Value> = rows.collect();
        let insert = database.query("INSERT INTO tool $rows RETURN NONE").bind(("rows", rows));
        insert.await?.check()?;
        written += group;
    }
    Ok(written as f64 / start.elapsed().as_secs_f64())
}
