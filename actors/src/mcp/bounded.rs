//! What a connection to an MCP server is not let do: a message may be so large, on either way, and a redirect may lead to
//! what may be reached. Both are told apart from a connection that ended otherwise.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::{StreamExt, TryStreamExt};
use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use rmcp::model::ClientJsonRpcMessage;
use rmcp::transport::common::client_side_sse::BoxedSseResponse;
use rmcp::transport::streamable_http_client::{
    StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse, StreamableHttpResponseLimits,
};
use tokio::io::{AsyncRead, ReadBuf};

use crate::egress::{Egress, Failure, Reach};

/// The bound of one connection, which each call may set anew.
#[derive(Debug)]
pub struct Bound {
    max_bytes: AtomicUsize,
    is_exceeded: AtomicBool,
    is_denied: AtomicBool,
}

impl Bound {
    /// A message has this many bytes at most.
    pub fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self { max_bytes: max_bytes.into(), is_exceeded: false.into(), is_denied: false.into() })
    }

    /// From now on it has this many.
    pub fn set(&self, max_bytes: usize) {
        self.max_bytes.store(max_bytes, Ordering::Relaxed);
    }

    /// Whether a message was larger.
    pub fn is_exceeded(&self) -> bool {
        self.is_exceeded.load(Ordering::Acquire)
    }

    /// Whether the server led to where nothing may go.
    pub fn is_denied(&self) -> bool {
        self.is_denied.load(Ordering::Acquire)
    }

    fn max_bytes(&self) -> usize {
        self.max_bytes.load(Ordering::Relaxed)
    }

    fn exceed(&self) {
        self.is_exceeded.store(true, Ordering::Release);
    }
}

/// A stream of lines, one message each, that errs at a line that is too long.
#[derive(Debug)]
pub struct Lines<R> {
    inner: R,
    bound: Arc<Bound>,
    /// How much was read of the line under way.
    length: usize,
}

impl<R> Lines<R> {
    /// The lines of this stream.
    pub fn new(inner: R, bound: Arc<Bound>) -> Self {
        Self { inner, bound, length: 0 }
    }

    fn count(&mut self, read: &[u8]) -> io::Result<()> {
        for piece in read.split_inclusive(|byte| *byte == b'\n') {
            self.length += piece.len();
            if self.length > self.bound.max_bytes() {
                self.bound.exceed();
                return Err(io::Error::other("a message is too large"));
            }
            if piece.ends_with(b"\n") {
                self.length = 0;
            }
        }
        Ok(())
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Lines<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        Poll::Ready(self.count(&buffer.filled()[before..]))
    }
}

/// The way to a server over HTTP. Each message asks whether it may go there still.
#[derive(Clone, Debug)]
pub struct Way {
    pub egress: Egress,
    pub reach: Reach,
}

impl Way {
    fn client(&self, uri: &str) -> Result<reqwest::Client> {
        let url = Url::parse(uri).map_err(io::Error::other)?;
        Ok(self.egress.client(&url, self.reach).map_err(io::Error::other)?)
    }
}

/// A client over HTTP that refuses what is too large, and notes it.
#[derive(Clone, Debug)]
pub struct Client {
    way: Way,
    bound: Arc<Bound>,
}

type Headers = HashMap<HeaderName, HeaderValue>;
type Result<T> = std::result::Result<T, StreamableHttpError<reqwest::Error>>;

impl Client {
    /// On this way.
    pub fn new(way: Way, bound: Arc<Bound>) -> Self {
        Self { way, bound }
    }

    /// The same events; one that is too large ends them with an error, which the library only logs.
    fn noting(&self, events: BoxedSseResponse) -> BoxedSseResponse {
        let bound = self.bound.clone();
        let note = move |error: &_| {
            if is_too_large(error) {
                bound.exceed();
            }
        };
        events.inspect_err(note).boxed()
    }
}

/// The library's type of this error is private; its sentence is not.
fn is_too_large(error: &impl std::fmt::Display) -> bool {
    error.to_string().contains("exceeded the maximum size")
}

impl StreamableHttpClient for Client {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        token: Option<String>,
        headers: Headers,
    ) -> Result<StreamableHttpPostResponse> {
        let limits = StreamableHttpResponseLimits::default();
        self.post_message_with_response_limits(uri, message, session, token, headers, limits).await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        token: Option<String>,
        headers: Headers,
        mut limits: StreamableHttpResponseLimits,
    ) -> Result<StreamableHttpPostResponse> {
        limits.max_sse_event_size = self.bound.max_bytes();
        limits.max_json_response_size = self.bound.max_bytes();
        let inner = self.way.client(&uri)?;
        match inner.post_message_with_response_limits(uri, message, session, token, headers, limits).await {
            Ok(StreamableHttpPostResponse::Sse(events, session)) => {
                Ok(StreamableHttpPostResponse::Sse(self.noting(events), session))
            }
            Err(error @ StreamableHttpError::ResponseBodyTooLarge { .. }) => {
                self.bound.exceed();
                Err(error)
            }
            Err(StreamableHttpError::Client(error)) => {
                if matches!(Failure::of(&error), Failure::Denied(_)) {
                    self.bound.is_denied.store(true, Ordering::Release);
                }
                Err(StreamableHttpError::Client(error))
            }
            answered => answered,
        }
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        token: Option<String>,
        headers: Headers,
    ) -> Result<()> {
        self.way.client(&uri)?.delete_session(uri, session, token, headers).await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        token: Option<String>,
        headers: Headers,
    ) -> Result<BoxedSseResponse> {
        let max_bytes = self.bound.max_bytes();
        let inner = self.way.client(&uri)?;
        inner.get_stream_with_max_sse_event_size(uri, session, last_event, token, headers, max_bytes).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_line_that_is_too_long_ends_the_stream_and_is_noted() {
        let bound = Bound::new(4);
        let mut lines = Lines::new(&b"abc\nabc\nabc"[..], bound.clone());
        let mut read = Vec::new();
        lines.read_to_end(&mut read).await.expect("all are short");
        assert_eq!((read.len(), bound.is_exceeded()), (11, false));
        let mut lines = Lines::new(&b"abc\nabcd\n"[..], bound.clone());
        lines.read_to_end(&mut read).await.expect_err("too long");
        assert!(bound.is_exceeded());
    }
}
