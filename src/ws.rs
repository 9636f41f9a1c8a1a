//! The WebSocket port: gives each connection a task of its own.

use std::sync::Arc;

use actors::system::System;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::accept::{Accept, Limits};
use crate::config::WebSocketConfig;
use crate::doors::Doors;
use crate::tls::Stream;

mod connection;
mod frame;
mod handshake;
mod many;
mod socket;
mod wire;

/// Beyond the sessions that the engine takes, so many connections are let in to be told that it is full.
const BEYOND: usize = 64;

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
    let limits = Limits {
        all: config.max_connections + BEYOND,
        per_address: config.max_connections_per_address,
        unlimited: config.unlimited_addresses.clone(),
    };
    let mut accept = Accept::new(listener, "websocket", limits, tls.is_some());
    let doors = Doors::new(config.bind, &config.allowed_hosts, &config.allowed_origins);
    let edge = Arc::new(Edge { system, config, doors, closing: closing.clone() });
    let mut connections = JoinSet::new();
    let mut closed = closing;
    while let Some((stream, peer, place)) = accept.next_until(&mut closed, &mut connections).await {
        let edge = edge.clone();
        // Its handshake is a part of the WebSocket's, and has the same time.
        let stream = Stream::new(stream, tls.as_ref());
        connections.spawn(async move {
            connection::serve(stream, peer, &edge).await;
            drop(place);
        });
    }
    drop(accept);
    while connections.join_next().await.is_some() {}
}
