//! The life of the service: configure, start, serve until a signal, drain.

use std::path::PathBuf;
use std::time::Duration;

use actors::system::{Host, System};
use anyhow::{Context, Result, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::config::{self, Config};
use crate::reload::Reload;
use crate::tls::Tls;
use crate::{catalog, rest, telemetry, ws};

/// How long connections may take to close once the engine has drained.
const GOODBYE: Duration = Duration::from_secs(2);

/// Runs the service until it is told to end.
///
/// # Errors
/// What the configuration, the ports or the store have against it, or why the engine could not go on.
pub async fn run(file: Option<PathBuf>, insecure: bool) -> Result<()> {
    // Until all is up there is nothing to load again; without this it would be the end of the process.
    let _hangups = signal(SignalKind::hangup()).context("the signals cannot be heard")?;
    let config = config::load(file.as_deref())?;
    let _log = telemetry::init(&config.log)?;
    let tls = Tls::load(&config.tls)?;
    // Beyond loopback nothing is listened on before it is known that a key is asked for.
    let exposure = config.check_exposure(insecure);
    let early = if exposure.is_ok() { Some(listeners(&config).await?) } else { None };
    rest::metrics::install()?;
    actors::system::adopt_orphans();
    // The file of this program may be replaced while it runs; this name means the program that runs.
    let launcher = vec!["/proc/self/exe".into(), actors::launcher::SUBCOMMAND.into()];
    let host = Host { sessions: config.websocket.max_connections, launcher };
    let system = System::start(config.engine.clone(), host).await.context("the service cannot start")?;
    if system.is_open() {
        exposure?;
    }
    let (rest_listener, websocket_listener) = match early {
        Some(listeners) => listeners,
        None => listeners(&config).await?,
    };
    catalog::install(&system).await.context("the catalog cannot be installed")?;

    let mut signals = Signals::new()?;
    let (close, closing) = watch::channel(false);
    let addresses = (rest_listener.local_addr()?, websocket_listener.local_addr()?);
    let rest = tokio::spawn(rest::serve(
        rest_listener,
        config.rest.clone(),
        tls.as_ref().map(Tls::rest),
        system.clone(),
        closing.clone(),
    ));
    let sockets = tokio::spawn(ws::serve(
        websocket_listener,
        config.websocket.clone(),
        tls.as_ref().map(Tls::websocket),
        system.clone(),
        closing,
    ));
    if tls.is_none() && config.check_exposure(false).is_err() {
        tracing::warn!("there is no TLS: whoever is on the way sees the keys that clients show; see `[tls]`");
    }
    tracing::info!(rest = %addresses.0, websocket = %addresses.1, "ready");

    let mut reload = Reload::new(&config, tls);
    let ending = signals.wait(&system, &mut reload, file).await;
    close.send_replace(true);
    match ending {
        Ending::Asked(name) => {
            tracing::info!(signal = name, "shutting down; a second signal ends at once");
            tokio::select! {
                drained = drain(&system, rest, sockets) => drained,
                name = signals.next() => bail!("ended at once by a second signal ({name})"),
            }
        }
        Ending::Fatal(reason) => {
            tracing::error!(reason, "the service ends");
            bail!("the service ends: {reason}")
        }
    }
}

async fn listeners(config: &Config) -> Result<(TcpListener, TcpListener)> {
    let rest = listen("rest.bind", config.rest.bind).await?;
    Ok((rest, listen("websocket.bind", config.websocket.bind).await?))
}

async fn listen(key: &str, address: std::net::SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{key} = \"{address}\" cannot be listened on"))
}

async fn drain(
    system: &System,
    rest: tokio::task::JoinHandle<()>,
    sockets: tokio::task::JoinHandle<()>,
) -> Result<()> {
    let drained = system.drain().await;
    for server in [rest, sockets] {
        if tokio::time::timeout(GOODBYE, server).await.is_err() {
            tracing::warn!("some connections did not close in time");
        }
    }
    drained.context("the store could not be closed in order")?;
    tracing::info!("ended in order");
    Ok(())
}

/// Why the service ends.
enum Ending {
    Asked(&'static str),
    Fatal(String),
}

/// The signals that the service heeds.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("signals cannot be listened to");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The next signal that asks for the end.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    /// Serves until a signal or a failure that cannot be borne; SIGHUP applies a changed configuration.
    async fn wait(&mut self, system: &System, reload: &mut Reload, file: Option<PathBuf>) -> Ending {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return Ending::Asked("SIGINT"),
                _ = self.terminate.recv() => return Ending::Asked("SIGTERM"),
                reason = system.fatal() => return Ending::Fatal(reason),
                _ = self.hangup.recv() => match config::load(file.as_deref()) {
                    Ok(changed) => reload.apply(system, changed),
                    Err(error) => {
                        tracing::error!(%error, "SIGHUP: the configuration was left as it is");
                        system.record_reload(Err(&error.to_string()));
                    }
                },
            }
        }
    }
}
