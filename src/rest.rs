//! The REST port: routes, doors, limits. A handler parses, sends one message to the engine, and renders the answer.

use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use actors::audit::Door;
use actors::error::{Code, Error};
use actors::system::{Acting, System};
use poem::endpoint::make;
use poem::http::{StatusCode, header};
use poem::{Endpoint, EndpointExt, Request, Response, Route, get};
use poem_openapi::OpenApiService;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::accept::{Accept, Limits};
use crate::config::RestConfig;
use crate::credentials::bearer;
use crate::doors::Doors;

mod audit;
mod authorized;
mod body;
mod bulk;
mod connection;
mod definitions;
mod document;
mod executions;
mod keys;
pub mod metrics;
mod reply;
mod status;
mod wire;

use audit::Audit;
use bulk::Bulk;
use connection::Port;
use definitions::{Definitions, Functions, Queries, Tools};
use document::Document;
use executions::{Executions, Runs};
use keys::Keys;
use reply::refuse;
use status::Status;
use wire::Patience;

/// How long open requests may take once the service shuts down.
const GRACE: Duration = Duration::from_secs(10);

/// Serves until `closing` turns true and the open requests are answered.
pub async fn serve(
    listener: TcpListener,
    config: RestConfig,
    tls: Option<TlsAcceptor>,
    system: System,
    closing: watch::Receiver<bool>,
) {
    let limits = Limits {
        all: config.max_connections,
        per_address: config.max_connections_per_address,
        unlimited: config.unlimited_addresses.clone(),
    };
    let patience = Patience {
        header: Duration::from_millis(config.header_timeout_ms),
        idle: Duration::from_millis(config.idle_timeout_ms),
    };
    let mut accept = Accept::new(listener, "rest", limits, tls.is_some());
    let port = Arc::new(Port { routes: routes(&config, &system), tls, patience });
    let (mut connections, mut closed) = (JoinSet::new(), closing.clone());
    while let Some((stream, peer, place)) = accept.next_until(&mut closed, &mut connections).await {
        let (port, mut closing) = (port.clone(), closing.clone());
        connections.spawn(async move {
            let closing = async move {
                // An error means that the sender is gone, and the service with it.
                let _ = closing.wait_for(|closing| *closing).await;
            };
            connection::serve(stream, peer, port, closing).await;
            drop(place);
        });
    }
    drop(accept);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all).await.is_err() {
        tracing::warn!("some requests were not answered in time");
    }
}

fn routes(config: &RestConfig, system: &System) -> impl Endpoint<Output = Response> + use<> {
    let definitions = (Definitions::<Tools>(PhantomData), Definitions::<Functions>(PhantomData));
    let queries = (Queries::<Tools>(PhantomData), Queries::<Functions>(PhantomData));
    // A connection is given up when it is quiet for longer, also while its client waits for an outcome.
    let patience = Duration::from_millis(config.idle_timeout_ms / 10 * 9);
    let runs = (Runs::<Tools>::new(patience), Runs::<Functions>::new(patience));
    let bulk = (Bulk::<Tools>(PhantomData), Bulk::<Functions>(PhantomData));
    let tools = (definitions.0, queries.0, runs.0, bulk.0);
    let functions = (definitions.1, queries.1, runs.1, bulk.1);
    let apis = (tools, functions, Executions, Keys, Audit, Status::new(system.clone()));
    let service = OpenApiService::new(apis, "Org Executor", env!("CARGO_PKG_VERSION"))
        .description("Registers, finds and runs an organisation's tools and functions.");
    let told = service.spec();
    let document = Document::new(&told, patience.as_secs_f64()).expect("poem tells JSON");
    let page = service.swagger_ui_html().replace(&told, &document.text);
    let document = Arc::new(document);
    let (shown, known) = (document.clone(), document);
    let doors = Arc::new(Doors::new(config.bind, &config.allowed_hosts, &config.allowed_origins));
    let body_patience = Duration::from_millis(config.body_timeout_ms);
    let limit = body::Limit { bytes: config.body_bytes, patience: body_patience };
    let (measured, guarding) = (system.clone(), system.clone());
    Route::new()
        .at("/openapi.json", get(make(move |_| std::future::ready(json(&shown.text)))))
        .at(
            "/metrics",
            get(make(move |request: Request| {
                let system = measured.clone();
                async move {
                    match authorized::of(&request).and_then(Acting::may_measure) {
                        Ok(()) => metrics::render(&system).await,
                        Err(error) => refuse(&error),
                    }
                }
            })),
        )
        .nest("/docs", Route::new().at("/", get(make(move |_| std::future::ready(html(&page))))))
        .nest("/", service)
        .catch_all_error(|error| std::future::ready(from_poem(error)))
        .data(limit)
        .around(move |endpoint, request| {
            let (doors, system, known) = (doors.clone(), guarding.clone(), known.clone());
            async move {
                let uri = request.uri().clone();
                let mut response = guarded(&*endpoint, request, &doors, &system).await?;
                if response.status() == StatusCode::METHOD_NOT_ALLOWED
                    && let Some(methods) = known.allow(uri.path())
                {
                    response.headers_mut().insert(header::ALLOW, methods.clone());
                }
                Ok(response)
            }
        })
}

/// Lets in what the doors let in, and notes on whose behalf; everything else gets its answer here.
async fn guarded<E>(
    endpoint: &E,
    mut request: Request,
    doors: &Doors,
    system: &System,
) -> poem::Result<Response>
where
    E: Endpoint<Output = Response>,
{
    // HTTP/2 carries the host in the request's target.
    let authority = request.uri().authority().map(|authority| authority.as_str());
    if let Err(error) = doors.check_headers(request.headers(), authority) {
        if let Ok(address) = address_of(&request) {
            system.record_shut(address, Door::Rest, &error);
        }
        return Ok(refuse(&error));
    }
    if !is_public(request.uri().path()) {
        match admitted(&request, system) {
            Ok(acting) => request.set_data(acting),
            Err(error) => return Ok(refuse(&error)),
        };
    }
    endpoint.call(request).await
}

/// What tells nothing about anybody: whether the service lives, and what its API is.
fn is_public(path: &str) -> bool {
    ["/healthz", "/readyz", "/openapi.json", "/docs"].contains(&path) || path.starts_with("/docs/")
}

/// On whose behalf a request is made.
fn admitted(request: &Request, system: &System) -> Result<Acting, Error> {
    let acting = system.acting_for(bearer(request.headers()), address_of(request)?, Door::Rest)?;
    acting.count_request()?;
    Ok(acting)
}

fn address_of(request: &Request) -> Result<IpAddr, Error> {
    let address = request.remote_addr().as_socket_addr().map(SocketAddr::ip);
    address.ok_or_else(|| Error::unavailable("the client has no address"))
}

fn json(text: &str) -> Response {
    Response::builder().content_type("application/json; charset=utf-8").body(text.to_owned())
}

fn html(page: &str) -> Response {
    Response::builder().content_type("text/html; charset=utf-8").body(page.to_owned())
}

/// What poem itself refuses, in this service's envelope. It names no path and repeats no input.
fn from_poem(error: poem::Error) -> Response {
    if error.is_from_response() {
        // It is this service's own already.
        return error.into_response();
    }
    let (code, message) = match error.status() {
        StatusCode::NOT_FOUND => (Code::NotFound, "there is nothing at this path".to_owned()),
        StatusCode::METHOD_NOT_ALLOWED => {
            (Code::MethodNotAllowed, "this path does not take this method; /docs tells which".to_owned())
        }
        StatusCode::PAYLOAD_TOO_LARGE => (Code::TooLarge, "the body is too large".to_owned()),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => (Code::UnsupportedMediaType, body::MEDIA_TYPE.to_owned()),
        status if status.is_client_error() => (Code::Invalid, error.to_string()),
        _ => {
            tracing::error!(%error, "a request failed");
            (Code::Unavailable, "the service failed on this request".to_owned())
        }
    };
    refuse(&Error::new(code, message))
}
