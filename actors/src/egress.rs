//! The way out: all that this service asks at an address which somebody else chose goes through here. That are functions
//! over HTTP and WebSocket, MCP servers, sources of definitions with their OpenAPI documents, and sources of programs.
//!
//! `address` tells which addresses are refused, `allow` which of those the configuration lets in, `resolve` brings both
//! to a name: it is resolved once, and what was checked is what is connected to. `exchange` follows redirects and checks
//! each. The clients are kept, so that connections are used again; each was made under one rule, and lets nobody else's
//! requests use them.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use reqwest::{Client, Url, redirect};
use tokio::net::TcpStream;
use url::Host;

mod address;
mod allow;
mod exchange;
mod resolve;

pub use allow::{Allow, Allowed};
pub use exchange::{Ask, Body, Unread, beginning, read};
use resolve::{Resolver, Rule, Scope};

/// How often an address may say that the answer is somewhere else.
const MAX_REDIRECTS: usize = 5;

/// How long a connection may take to come about.
pub const CONNECT: Duration = Duration::from_secs(10);

/// Why an address is not asked. Its sentence tells no address that a name resolves to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The host is a name.
    #[error("`{0}` resolves to a private address; `egress.allow` can name it")]
    Name(String),
    /// The host is an address.
    #[error("`{0}` is a private address; `egress.allow` can name it")]
    Address(String),
    /// The scheme is another one than this and its secure twin.
    #[error("its address is neither {0} nor {0}s")]
    Scheme(&'static str),
    /// A redirect gives up what keeps the exchange secret.
    #[error("it redirects from https to http")]
    Downgrade,
    /// A redirect of an MCP server, whose requests may all bear credentials.
    #[error("it redirects to another origin")]
    Elsewhere,
}

impl Denied {
    /// The sentence, for those that have an `allow_private` of their own.
    pub fn with_allow_private(&self) -> String {
        match self {
            Self::Name(_) | Self::Address(_) => format!("{self}, or `allow_private` let it in"),
            Self::Scheme(_) | Self::Downgrade | Self::Elsewhere => self.to_string(),
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It was not asked.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// It redirects to no end.
    #[error("{0}")]
    Astray(String),
    /// It could not be, or gave no answer; to read on after "it cannot be reached: ".
    #[error("{0}")]
    Unreachable(String),
}

impl Failure {
    /// The sentence of a source, which has an `allow_private` of its own; to read on after its name.
    pub fn of_source(&self) -> String {
        match self {
            Self::Denied(denied) => format!("is not asked: {}", denied.with_allow_private()),
            Self::Astray(problem) | Self::Unreachable(problem) => format!("cannot be reached: {problem}"),
        }
    }

    /// What a client says, which may be what it was told here.
    pub fn of(error: &reqwest::Error) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(failure) = error.downcast_ref::<Self>() {
                return failure.clone();
            }
            cause = error.source();
        }
        Self::Unreachable(reason(error))
    }
}

/// Which of the refused addresses may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those of `egress.allow`.
    Listed,
    /// Every one, as its own `allow_private` says.
    Private,
}

impl Reach {
    /// As `allow_private` says.
    pub fn of(allow_private: bool) -> Self {
        if allow_private { Self::Private } else { Self::Listed }
    }
}

/// The way out. A cheap handle; all of them share the connections.
#[derive(Clone, Debug)]
pub struct Egress {
    current: Arc<RwLock<Arc<Current>>>,
}

/// An allow-list, and the clients that were made under it. They go together: a connection that another list has let in
/// is not used any more.
struct Current {
    allow: Arc<Allow>,
    clients: Mutex<HashMap<(Scope, Redirects), Client>>,
}

/// Who follows redirects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Redirects {
    /// `exchange`.
    Ours,
    /// The client itself, within one origin.
    SameOrigin,
}

impl Egress {
    /// With this allow-list.
    ///
    /// # Errors
    /// One sentence: this machine's certificates cannot be read.
    pub fn new(entries: Vec<Allowed>) -> Result<Self, String> {
        let current = Current::new(Allow::new(entries));
        // The one that is used most; whether there can be clients shows at the start.
        current.client(Scope::Port(None), Redirects::Ours).map_err(|failure| failure.to_string())?;
        Ok(Self { current: Arc::new(RwLock::new(Arc::new(current))) })
    }

    /// From now on with this allow-list.
    pub fn allow(&self, entries: Vec<Allowed>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(Current::new(Allow::new(entries)));
    }

    fn current(&self) -> Arc<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether this address may be reached at this moment, by who has no name for it.
    pub fn reaches(&self, address: SocketAddr) -> bool {
        let allow = self.current().allow.clone();
        let port = Some(address.port()).filter(|port| allow.names_port(*port));
        Rule { allow, scope: Scope::Port(port) }.lets_in(address.ip())
    }

    /// Whether this address may be asked over HTTP at this moment. Its host is resolved, and not connected to.
    ///
    /// # Errors
    /// It is denied, or does not resolve.
    pub async fn admit(&self, url: &Url, reach: Reach) -> Result<(), Failure> {
        addresses(&self.current().rule(url, "http", reach)?, url).await.map(drop)
    }

    /// A client for requests to this address, which follows redirects within its origin. It is to be used at once and not
    /// kept.
    ///
    /// # Errors
    /// It is denied, or no client can be made.
    pub fn client(&self, url: &Url, reach: Reach) -> Result<Client, Failure> {
        let current = self.current();
        let rule = current.rule(url, "http", reach)?;
        current.client(rule.scope, Redirects::SameOrigin)
    }

    /// A connection for a WebSocket at this address.
    ///
    /// # Errors
    /// It is denied, or cannot be reached.
    pub async fn connect(&self, url: &Url, reach: Reach) -> Result<TcpStream, Failure> {
        let rule = self.current().rule(url, "ws", reach)?;
        let addresses = addresses(&rule, url).await?;
        let connected = async {
            let stream = TcpStream::connect(&addresses[..]).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        connected.await.map_err(|error: std::io::Error| Failure::Unreachable(error.to_string()))
    }
}

/// Where an address leads, checked.
async fn addresses(rule: &Rule, url: &Url) -> Result<Vec<SocketAddr>, Failure> {
    let none = || Failure::Unreachable("its address has no host".into());
    let port = url.port_or_known_default().ok_or_else(none)?;
    let found = match url.host().ok_or_else(none)? {
        Host::Ipv4(address) => vec![address.into()],
        Host::Ipv6(address) => vec![address.into()],
        Host::Domain(name) => rule.resolve(name).await?,
    };
    Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

impl Current {
    fn new(allow: Allow) -> Self {
        Self { allow: Arc::new(allow), clients: Mutex::default() }
    }

    /// The rule for this address, which has this scheme or its secure twin; a host that is an address has passed it.
    fn rule(&self, url: &Url, scheme: &'static str, reach: Reach) -> Result<Rule, Denied> {
        if url.scheme() != scheme && url.scheme().strip_suffix('s') != Some(scheme) {
            return Err(Denied::Scheme(scheme));
        }
        let scope = match reach {
            Reach::Private => Scope::Any,
            Reach::Listed => {
                Scope::Port(url.port_or_known_default().filter(|port| self.allow.names_port(*port)))
            }
        };
        let rule = Rule { allow: self.allow.clone(), scope };
        rule.check(url)?;
        Ok(rule)
    }

    /// The client for a rule. There are as many as ports that the list names, and few more.
    fn client(&self, scope: Scope, redirects: Redirects) -> Result<Client, Failure> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&(scope, redirects)) {
            return Ok(client.clone());
        }
        let policy = match redirects {
            Redirects::Ours => redirect::Policy::none(),
            Redirects::SameOrigin => redirect::Policy::custom(within_origin),
        };
        let client = Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT)
            .redirect(policy)
            .dns_resolver(Resolver(Rule { allow: self.allow.clone(), scope }))
            .user_agent(concat!("org-executor/", env!("CARGO_PKG_VERSION")))
            .build();
        let client =
            client.map_err(|error| Failure::Unreachable(format!("no HTTP client can be made: {error}")))?;
        clients.insert((scope, redirects), client.clone());
        Ok(client)
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Current").field("allow", &self.allow).finish_non_exhaustive()
    }
}

fn within_origin(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let is_same = attempt.previous().last().is_some_and(|last| last.origin() == attempt.url().origin());
    if !is_same {
        attempt.error(Failure::Denied(Denied::Elsewhere))
    } else if attempt.previous().len() > MAX_REDIRECTS {
        attempt.error(exchange::too_often())
    } else {
        attempt.follow()
    }
}

/// The whole chain of causes, without the address, which may hold a credential.
pub fn reason(error: &reqwest::Error) -> String {
    if let Some(status) = error.status() {
        return format!("it answered {status}");
    }
    let mut cause = std::error::Error::source(error);
    let mut text = match cause {
        None => "the request failed".to_owned(),
        Some(_) => String::new(),
    };
    while let Some(inner) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// A text as one segment of a path, or as a part of a query: what RFC 3986 leaves unreserved stays, and `:`, which both
/// may hold.
pub fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
