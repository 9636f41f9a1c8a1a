//! The stream of a REST connection, which errs when its client takes too long: to get through the TLS handshake and the
//! header of a request, and without a byte. Hyper has timers of its own for a part of that: none runs before it knows the
//! version of HTTP.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::tls::Stream;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until the header of a request is whole: of the first since the connection was accepted, of a later one since its
    /// first byte.
    pub header: Duration,
    /// Without a byte in either direction. On HTTP/2 bytes that belong to no request do not count.
    pub idle: Duration,
}

/// The requests of a connection, as its stream has to know them.
#[derive(Debug, Default)]
pub struct Requests {
    begun: AtomicUsize,
    open: AtomicUsize,
    /// One connection carries many requests at a time, and frames that belong to none.
    is_http2: AtomicBool,
}

/// A request whose answer is not written yet.
#[derive(Debug)]
pub struct Open(Arc<Requests>);

impl Requests {
    /// The header of a request is whole.
    pub fn begin(self: &Arc<Self>, version: Version) -> Open {
        self.is_http2.store(version == Version::HTTP_2, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Release);
        Open(self.clone())
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::Acquire)
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    fn is_http2(&self) -> bool {
        self.is_http2.load(Ordering::Relaxed)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The stream.
pub struct Wire {
    stream: Stream,
    requests: Arc<Requests>,
    patience: Patience,
    /// When the header that is awaited began.
    header: Option<Instant>,
    /// How many requests had begun when that was looked at last.
    begun: usize,
    /// When something went to or fro.
    moved: Instant,
    alarm: Pin<Box<Sleep>>,
}

impl Wire {
    /// Of a connection that was accepted just now.
    pub fn new(stream: Stream, requests: Arc<Requests>, patience: Patience) -> Self {
        let now = Instant::now();
        let alarm = Box::pin(tokio::time::sleep_until(now + patience.header));
        Self { stream, requests, patience, header: Some(now), begun: 0, moved: now, alarm }
    }

    /// A request that has begun since is one whose header is whole.
    fn look(&mut self) {
        let begun = self.requests.begun();
        if begun != self.begun {
            (self.begun, self.header, self.moved) = (begun, None, Instant::now());
        }
    }

    /// Bytes came: of a request that is open, or of the header of the next.
    fn received(&mut self) {
        self.look();
        let now = Instant::now();
        if !self.requests.is_open() {
            if self.requests.is_http2() {
                return;
            }
            self.header.get_or_insert(now);
        }
        self.moved = now;
    }

    /// Nothing came or went: errs where that has been so for too long.
    fn wait<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.look();
        let idle = self.moved + self.patience.idle;
        let deadline = self.header.map_or(idle, |since| idle.min(since + self.patience.header));
        self.alarm.as_mut().reset(deadline);
        self.alarm.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Passes on what writing gave.
    fn written(
        &mut self,
        context: &mut Context<'_>,
        given: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match given {
            Poll::Ready(given) => {
                self.moved = Instant::now();
                Poll::Ready(given)
            }
            Poll::Pending => self.wait(context),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(given) => {
                self.received();
                Poll::Ready(given)
            }
            Poll::Pending => self.wait(context),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let given = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, given)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let given = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.written(context, given)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
