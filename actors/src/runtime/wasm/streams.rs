//! Where a guest prints: its output, up to the bound, and its log, as it comes.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio::sync::Notify;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// How much may be written at once: what is written is copied on its way.
const CHUNK: usize = 64 * 1024;

/// How much of a log may wait to be read; a guest that prints faster loses the rest.
const MAX_WAITING: usize = 1 << 20;

/// Takes what is printed.
pub trait Sink: Clone + Send + Sync + Unpin + 'static {
    /// Takes these bytes.
    ///
    /// # Errors
    /// When there is no room: the guest is ended.
    fn take(&self, printed: &[u8]) -> Result<(), Full>;
}

/// There is no room for what was printed.
#[derive(Debug)]
pub struct Full;

impl std::fmt::Display for Full {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("there is no room for the output")
    }
}

impl std::error::Error for Full {}

/// The output of a command.
#[derive(Clone, Debug)]
pub struct Output(Arc<Mutex<Captured>>);

#[derive(Debug)]
struct Captured {
    bytes: Vec<u8>,
    max_bytes: usize,
    is_full: bool,
}

impl Output {
    /// Of at most this size.
    pub fn new(max_bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(Captured { bytes: Vec::new(), max_bytes, is_full: false })))
    }

    /// What was printed; nothing where it was too much.
    pub fn finish(&self) -> Result<Vec<u8>, Full> {
        let mut captured = self.captured();
        if captured.is_full { Err(Full) } else { Ok(std::mem::take(&mut captured.bytes)) }
    }

    fn captured(&self) -> MutexGuard<'_, Captured> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Output {
    fn take(&self, printed: &[u8]) -> Result<(), Full> {
        let mut captured = self.captured();
        if captured.is_full || printed.len() > captured.max_bytes - captured.bytes.len() {
            captured.is_full = true;
            return Err(Full);
        }
        captured.bytes.extend_from_slice(printed);
        Ok(())
    }
}

/// The log of a guest.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    printed: Mutex<Vec<u8>>,
    written: Notify,
}

impl Log {
    /// Everything that waits now.
    pub fn read(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.printed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Resolves once something was written since the last call.
    pub async fn written(&self) {
        self.0.written.notified().await;
    }
}

impl Sink for Log {
    fn take(&self, printed: &[u8]) -> Result<(), Full> {
        let mut waiting = self.0.printed.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_WAITING - waiting.len();
        waiting.extend_from_slice(&printed[..printed.len().min(room)]);
        drop(waiting);
        self.0.written.notify_one();
        Ok(())
    }
}

/// A sink as WASI sees it: always ready.
#[derive(Clone, Debug)]
pub struct Stream<S>(pub S);

impl<S: Sink> IsTerminal for Stream<S> {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl<S: Sink> StdoutStream for Stream<S> {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    // Without this, what is printed would go through a task of its own.
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl<S: Sink> Pollable for Stream<S> {
    async fn ready(&mut self) {}
}

impl<S: Sink> OutputStream for Stream<S> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.take(&bytes).map_err(|full| StreamError::Trap(wasmtime::Error::new(full)))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK)
    }
}

impl<S: Sink> AsyncWrite for Stream<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0.take(bytes).map(|()| bytes.len()).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_whole_or_none() {
        let output = Output::new(4);
        output.take(b"ab").expect("room");
        output.take(b"cd").expect("room");
        assert_eq!(output.finish().expect("fits"), b"abcd");
        let output = Output::new(4);
        output.take(b"abc").expect("room");
        output.take(b"de").expect_err("full");
        output.take(b"f").expect_err("still full");
        output.finish().expect_err("too much was printed");
    }

    #[tokio::test]
    async fn a_log_waits_for_its_reader_and_is_bounded() {
        let log = Log::default();
        log.take(b"ab").expect("always");
        log.written().await;
        assert_eq!(log.read(), b"ab");
        assert!(log.read().is_empty());
        for _ in 0..3 {
            log.take(&vec![b'x'; MAX_WAITING / 2 + 1]).expect("always");
        }
        assert_eq!(log.read().len(), MAX_WAITING);
    }
}
