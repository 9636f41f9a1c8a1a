//! Bare servers, which end when their standard input does: however the benchmark ended, none is left.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use poem::listener::{Acceptor, Listener};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use super::Answers;
use crate::load::websocket;

const ACCEPTED: &str = r#"{"id":1,"success":true,"uuid":"01a2058f-4d50-7178-ba6e-f4ea780dfaa8"}"#;
const OUTCOME: &str = r#"{"id":1,"success":true,"output":{}}"#;

/// Tells the address, and waits for the end.
async fn serve(address: SocketAddr, serving: impl Future<Output = Result<()>>) -> Result<()> {
    println!("{address}");
    let (mut stdin, mut rest) = (tokio::io::stdin(), Vec::new());
    tokio::select! {
        served = serving => served,
        _ = stdin.read_to_end(&mut rest) => Ok(()),
    }
}

pub async fn websocket(answers: Answers) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let accepting = async move {
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(answer(stream, answers));
        }
    };
    serve(address, accepting).await
}

async fn answer(stream: TcpStream, answers: Answers) -> Result<()> {
    stream.set_nodelay(true)?;
    let config = Some(websocket::config());
    let mut socket = tokio_tungstenite::accept_async_with_config(stream, config).await?;
    while let Some(Ok(Message::Text(_))) = socket.next().await {
        match answers {
            // The client is told of the acceptance before there can be an outcome.
            Answers::Once => {
                socket.send(Message::text(ACCEPTED)).await?;
                socket.send(Message::text(OUTCOME)).await?;
                break;
            }
            Answers::Each => {
                socket.feed(Message::text(ACCEPTED)).await?;
                socket.feed(Message::text(OUTCOME)).await?;
                socket.flush().await?;
            }
        }
    }
    socket.close(None).await?;
    while let Some(Ok(_)) = socket.next().await {}
    Ok(())
}

pub async fn http(body: Vec<u8>) -> Result<()> {
    let body: &'static [u8] = body.leak();
    let handler = poem::endpoint::make_sync(move |_| {
        poem::Response::builder().content_type("application/json").body(body)
    });
    let acceptor = poem::listener::TcpListener::bind("127.0.0.1:0").into_acceptor().await?;
    let address = acceptor.local_addr().into_iter().find_map(|address| address.as_socket_addr().copied());
    let address = address.context("no address")?;
    serve(address, async {
        poem::Server::new_with_acceptor(acceptor).run(handler).await?;
        Ok(())
    })
    .await
}
