//! websocketd: a program for each connection, its lines as messages.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;

use anyhow::Result;
use serde_json::json;
use tokio::process::Command;

use super::program;
use crate::compare::{Turns, sessions};
use crate::process::{Process, eventually, free_port};
use crate::report::{Goal, Head, Pair};
use crate::service::{Durability, Launch, request};

const SESSIONS: usize = 16;

/// Sent and sent back: what a client takes for an outcome.
const LINE: &str = r#"{"success":true,"output":{}}"#;

pub fn heads() -> Vec<Head> {
    let name = format!("peer websocketd: binary cat at {SESSIONS} over one-shot sessions with sandbox off");
    vec![Head::new(name, "sessions/s", "websocketd and head -n 1", Goal::None)]
}

pub async fn measure(turns: &Turns) -> Result<Vec<Vec<Pair>>> {
    let port = free_port()?;
    let mut command = Command::new(program("websocketd", "apt-get install websocketd")?);
    command.args(["--address", "127.0.0.1", "--loglevel", "error", "--port", &port.to_string()]);
    command.args(["head", "-n", "1"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _websocketd = Process::spawn(&mut command)?;
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    eventually("websocketd listens", async || Ok(tokio::net::TcpStream::connect(peer).await?)).await?;
    let launch = Launch::new(Durability::Memory)?.set("SANDBOX__LEVEL", "off").pool("binary", SESSIONS);
    let service = launch.start().await?;
    service.create("cat", json!({ "runtime": "binary", "entrypoint": "/bin/cat" })).await?;
    let text = request("cat", &json!({}));
    let pairs = turns.beside(
        async |turn| sessions::rate(peer, "/", LINE, SESSIONS, turn).await,
        async |turn| sessions::rate(service.websocket, "/tool", &text, SESSIONS, turn).await,
    );
    Ok(vec![pairs.await?])
}
