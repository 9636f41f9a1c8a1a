//! Accepts connections for poem: a bounded number, without Nagle's delay, and with a pause when the process has no
//! descriptor left, where poem's own listener would spin.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use poem::http::uri::Scheme;
use poem::listener::Acceptor;
use poem::web::{LocalAddr, RemoteAddr};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;

use crate::tls::Stream;

/// How long nothing is accepted after accepting failed.
const PAUSE: Duration = Duration::from_millis(50);

/// A listener that holds so many connections at most, each for so long without a byte; further ones wait in the
/// kernel's queue.
pub struct Limited {
    listener: TcpListener,
    admission: Arc<Semaphore>,
    idle: Duration,
    tls: Option<TlsAcceptor>,
}

impl Limited {
    /// Takes over a bound listener.
    pub fn new(
        listener: TcpListener,
        max_connections: usize,
        idle: Duration,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        Self { listener, admission: Arc::new(Semaphore::new(max_connections)), idle, tls }
    }
}

impl Acceptor for Limited {
    type Io = Admitted;

    fn local_addr(&self) -> Vec<LocalAddr> {
        self.listener.local_addr().map(|address| LocalAddr(address.into())).into_iter().collect()
    }

    async fn accept(&mut self) -> io::Result<(Admitted, LocalAddr, RemoteAddr, Scheme)> {
        let permit = self.admission.clone().acquire_owned().await.map_err(io::Error::other)?;
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // Without it only a delay is lost.
                    let _ = stream.set_nodelay(true);
                    let local = LocalAddr(stream.local_addr()?.into());
                    let quiet = Box::pin(tokio::time::sleep(self.idle));
                    let scheme = if self.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
                    let stream = Stream::new(stream, self.tls.as_ref());
                    let io = Admitted { stream, idle: self.idle, quiet, _permit: permit };
                    return Ok((io, local, RemoteAddr(peer.into()), scheme));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// A connection with its place among the admitted ones. It errs when no byte has come or gone for long: poem's own idle
/// timeout waits for a request that is half sent, and hyper has no timer there.
pub struct Admitted {
    stream: Stream,
    idle: Duration,
    quiet: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Admitted {
    /// Passes on what the stream gave; nothing for too long is an error.
    fn watched<T>(&mut self, context: &mut Context<'_>, given: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if given.is_ready() {
            let next = Instant::now() + self.idle;
            self.quiet.as_mut().reset(next);
            return given;
        }
        self.quiet.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Admitted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let given = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.watched(context, given)
    }
}

impl AsyncWrite for Admitted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let given = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watched(context, given)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
