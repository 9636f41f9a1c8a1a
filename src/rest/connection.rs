//! One REST connection: hyper reads its requests, the routes answer them. Poem's own server does the same, but does not tell
//! a stream when a request begins and ends, which its deadlines need.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use poem::http::uri::Scheme;
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Endpoint, Response};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::wire::{Open, Patience, Requests, Wire};
use crate::tls::Stream;

/// How many requests one HTTP/2 connection may have open.
const MAX_STREAMS: u32 = 64;

/// How many streams of HTTP/2 may wait that their client gave up at once.
const MAX_RESET_STREAMS: usize = 20;

/// How large the header of a request of HTTP/2 may be, in bytes.
const MAX_HEADER_BYTES: u32 = 16 << 10;

/// What every connection needs.
pub struct Port<E> {
    pub routes: E,
    pub tls: Option<TlsAcceptor>,
    pub patience: Patience,
}

/// Serves one connection to its end. Once `closing` is done it answers what is open, and ends.
pub async fn serve<E>(stream: TcpStream, peer: SocketAddr, port: Arc<Port<E>>, closing: impl Future)
where
    E: Endpoint<Output = Response> + 'static,
{
    let Ok(local) = stream.local_addr() else { return };
    let scheme = if port.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
    let requests = Arc::new(Requests::default());
    let wire = Wire::new(Stream::new(stream, port.tls.as_ref()), requests.clone(), port.patience);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        // Before the first wait: from here on the header is whole.
        let open = requests.begin(request.version());
        let (port, scheme) = (port.clone(), scheme.clone());
        async move {
            let request = (request, LocalAddr(local.into()), RemoteAddr(peer.into()), scheme).into();
            let response: hyper::Response<_> = port.routes.get_response(request).await.into();
            Ok::<_, Infallible>(response.map(|body| Answer { body, _open: open }))
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(wire), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = closing => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}

/// The body of an answer, which keeps its request open until it is written.
struct Answer<B> {
    body: B,
    _open: Open,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
