//! The WebSocket port: accepts connections, a bounded number, and gives each a task of its own.

use std::sync::Arc;
use std::time::Duration;

use actors::system::System;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::config::WebSocketConfig;
use crate::doors::Doors;
use crate::tls::Stream;

mod connection;
mod frame;
mod handshake;
mod many;
mod socket;
mod wire;

/// How long nothing is accepted after accepting failed.
const PAUSE: Duration = Duration::from_millis(50);

/// What every connection needs.
#[derive(Debug)]
pub struct Edge {
    /// The engine.
    pub system: System,
    /// `[websocket]`.
    pub config: WebSocketConfig,
    /// Who may come in.
    pub doors: Doors,
    /// Turns true when the service shuts down.
    pub closing: watch::Receiver<bool>,
}

/// Serves until `closing` turns true and the connections are closed.
pub async fn serve(
    listener: TcpListener,
    config: WebSocketConfig,
    tls: Option<TlsAcceptor>,
    system: System,
    closing: watch::Receiver<bool>,
) {
    // Beyond the sessions that the engine takes, some connections are let in to be told that it is full.
    let admission = Arc::new(Semaphore::new(config.max_connections + 64));
    let doors = Doors::new(config.bind, &config.allowed_hosts, &config.allowed_origins);
    let edge = Arc::new(Edge { system, config, doors, closing: closing.clone() });
    let mut connections = JoinSet::new();
    let mut closed = closing;
    loop {
        let accepted = tokio::select! {
            _ = closed.wait_for(|closing| *closing) => break,
            accepted = accept(&listener, &admission) => accepted,
        };
        while connections.try_join_next().is_some() {}
        if let Some((stream, peer, permit)) = accepted {
            let edge = edge.clone();
            // Its handshake is a part of the WebSocket's, and has the same time.
            let stream = Stream::new(stream, tls.as_ref());
            connections.spawn(async move {
                connection::serve(stream, peer, &edge).await;
                drop(permit);
            });
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept(
    listener: &TcpListener,
    admission: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, std::net::SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = admission.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Without it only a delay is lost.
            let _ = stream.set_nodelay(true);
            Some((stream, peer, permit))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}
