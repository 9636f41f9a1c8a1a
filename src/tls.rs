//! TLS on both ports, where a certificate is configured: the certificate and its key, read again on SIGHUP, and the stream of a
//! connection, whose handshake is made when it is first read.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll, ready};

use actors::cryptography::provider;
use anyhow::{Context as _, Result, bail};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use crate::config::TlsConfig;

/// What both ports show to their clients; none without a certificate.
#[derive(Clone)]
pub struct Tls {
    certificate: Arc<Certificate>,
    rest: TlsAcceptor,
    websocket: TlsAcceptor,
}

/// The certificate that is in force.
#[derive(Debug)]
struct Certificate(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Tls")
    }
}

impl Tls {
    /// Reads the certificate and its key, where the configuration names them.
    ///
    /// # Errors
    /// Which file cannot be read, or does not fit the other one.
    pub fn load(config: &TlsConfig) -> Result<Option<Self>> {
        if config.certificate.is_empty() {
            return Ok(None);
        }
        let certificate = Arc::new(Certificate(RwLock::new(read(config)?)));
        let acceptor = |protocols: &[&[u8]]| {
            let builder = ServerConfig::builder_with_provider(provider().clone());
            let builder = builder.with_safe_default_protocol_versions().context("TLS cannot be set up")?;
            let mut server = builder.with_no_client_auth().with_cert_resolver(certificate.clone());
            server.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Ok::<_, anyhow::Error>(TlsAcceptor::from(Arc::new(server)))
        };
        let (rest, websocket) = (acceptor(&[b"h2", b"http/1.1"])?, acceptor(&[b"http/1.1"])?);
        Ok(Some(Self { certificate, rest, websocket }))
    }

    /// Shows what the files have now to whoever connects from now on.
    ///
    /// # Errors
    /// As for `load`; then it stays as it was.
    pub fn reload(&self, config: &TlsConfig) -> Result<()> {
        if config.certificate.is_empty() {
            bail!("`tls.certificate` was taken away, which needs a restart");
        }
        *self.certificate.0.write().unwrap_or_else(PoisonError::into_inner) = read(config)?;
        Ok(())
    }

    /// How REST connections are accepted.
    pub fn rest(&self) -> TlsAcceptor {
        self.rest.clone()
    }

    /// How WebSocket connections are accepted.
    pub fn websocket(&self) -> TlsAcceptor {
        self.websocket.clone()
    }
}

fn read(config: &TlsConfig) -> Result<Arc<CertifiedKey>> {
    let (certificate, key) = (Path::new(&config.certificate), Path::new(&config.key));
    let unreadable = |what: &str, file: &Path| format!("tls.{what} = {file:?} cannot be read");
    for (what, file) in [("certificate", certificate), ("key", key)] {
        // Whoever reads of a pipe waits for who writes to it.
        if !file.metadata().with_context(|| unreadable(what, file))?.is_file() {
            bail!("tls.{what} = {file:?} is no file");
        }
    }
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| unreadable("certificate", certificate))?;
    if chain.is_empty() {
        bail!("tls.certificate = {certificate:?} has no certificate in it");
    }
    let key_der = PrivateKeyDer::from_pem_file(key).with_context(|| unreadable("key", key))?;
    let certified = CertifiedKey::from_der(chain, key_der, provider());
    let certified =
        certified.with_context(|| format!("tls.key = {key:?} is not the key of {certificate:?}"))?;
    Ok(Arc::new(certified))
}

/// A connection, with TLS or without.
pub enum Stream {
    /// Without.
    Plain(TcpStream),
    /// The handshake goes on.
    Opening(Box<Accept<TcpStream>>),
    /// It was made.
    Open(Box<TlsStream<TcpStream>>),
    /// It failed: nothing can be read or written.
    Failed,
}

impl Stream {
    /// Of a connection that was accepted.
    pub fn new(stream: TcpStream, tls: Option<&TlsAcceptor>) -> Self {
        match tls {
            Some(acceptor) => Self::Opening(Box::new(acceptor.accept(stream))),
            None => Self::Plain(stream),
        }
    }

    /// Waits until the handshake is made.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self::Opening(accept) = self else { return Poll::Ready(Ok(())) };
        match ready!(Pin::new(accept).poll(context)) {
            Ok(stream) => {
                *self = Self::Open(Box::new(stream));
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                *self = Self::Failed;
                Poll::Ready(Err(error))
            }
        }
    }
}

/// Does this with the stream inside, once its handshake is made.
macro_rules! with_stream {
    ($stream:ident, $context:ident, $inner:ident => $work:expr) => {{
        let stream = $stream.get_mut();
        ready!(stream.poll_open($context))?;
        match stream {
            Self::Plain($inner) => {
                let $inner = Pin::new($inner);
                $work
            }
            Self::Open($inner) => {
                let $inner = Pin::new(&mut **$inner);
                $work
            }
            Self::Opening(_) | Self::Failed => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }};
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        with_stream!(self, context, inner => inner.poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        with_stream!(self, context, inner => inner.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        with_stream!(self, context, inner => inner.poll_write_vectored(context, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Open(stream) => stream.is_write_vectored(),
            Self::Opening(_) | Self::Failed => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_stream!(self, context, inner => inner.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        match stream {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Open(stream) => Pin::new(&mut **stream).poll_shutdown(context),
            // There is nothing to say goodbye to.
            Self::Opening(_) | Self::Failed => Poll::Ready(Ok(())),
        }
    }
}
