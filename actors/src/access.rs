//! Who may do what: a principal has scopes, and may be bound to some ids. Without any key everybody who reaches the
//! service is one principal that may do all of it.
//!
//! `ids` tells which ids a principal may use, `key` what an API key is, `keyring` holds them all, `offline` does so
//! without a service, `jwt` reads the tokens of others.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::error::{Code, Error, Result};
use crate::execution::{Client, now_ms};

mod ids;
mod jwt;
mod key;
mod keyring;
mod offline;

pub use ids::Ids;
pub use jwt::Issuers;
pub use key::{About, Hash, Issued, KeyId, NewKey};
pub use keyring::Keyring;
pub use offline::Offline;
pub(crate) use offline::open_offline;

/// What may be done with the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// See definitions, the principal's own executions and the state of the service.
    Read,
    /// Create, change and remove definitions.
    Write,
    /// Run definitions, follow and cancel the principal's own executions.
    Execute,
    /// All of this, the executions of all, and keys.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Execute, Self::Admin];

    /// The name that stands in keys and tokens.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Execute => "execute",
            Self::Admin => "admin",
        }
    }

    /// The scope of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Some scopes; `admin` has all in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// All of them.
    pub const ALL: Self = Self(1 << Scope::Admin as u8);

    /// Whether this one is among them.
    pub fn has(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8 | Self::ALL.0) != 0
    }

    /// Those that were given, in their order.
    pub fn given(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.0 & (1 << *scope as u8) != 0)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | 1 << scope as u8))
    }
}

/// What a principal may do.
#[derive(Clone, Debug, Default)]
pub struct Grant {
    /// Its scopes.
    pub scopes: Scopes,
    /// The ids that it may use.
    pub ids: Ids,
    /// When it ends, in milliseconds since the epoch.
    pub expires_ms: Option<u64>,
    /// How many requests it may make in a second.
    pub requests_per_second: Option<NonZeroU32>,
    /// How many executions it may have open.
    pub max_open: Option<usize>,
}

/// Who asks, as far as that is known, and what it may do.
#[derive(Debug)]
pub struct Principal {
    /// As whom it stands in records; none where everybody is one principal, and its address stands there.
    client: Option<Client>,
    /// What its issuer calls it, where its token names it.
    subject: Option<Box<str>>,
    grant: Grant,
    rate: Option<DefaultDirectRateLimiter>,
    has_ended: watch::Sender<bool>,
}

impl Principal {
    /// A principal that may do this.
    pub fn new(client: Option<Client>, grant: Grant) -> Self {
        let rate = grant.requests_per_second.map(|rate| RateLimiter::direct(Quota::per_second(rate)));
        Self { client, subject: None, grant, rate, has_ended: watch::Sender::new(false) }
    }

    /// One that may do all.
    pub fn unbound() -> Self {
        Self::new(None, Grant { scopes: Scopes::ALL, ..Grant::default() })
    }

    /// As whom it stands in records, when it comes from this address.
    pub fn client(&self, address: Client) -> Client {
        self.client.unwrap_or(address)
    }

    /// As its issuer calls it.
    #[must_use]
    pub fn called(self, subject: &str) -> Self {
        Self { subject: Some(subject.into()), ..self }
    }

    /// How the audit log calls it, when it comes from this address: a key by its id, who has a token by what stands in
    /// the records of executions and by the subject.
    pub fn name(&self, address: Client) -> String {
        let client = self.client(address);
        self.subject.as_ref().map_or_else(|| client.to_string(), |subject| format!("{client}:{subject}"))
    }

    /// The ids that it may use.
    pub fn ids(&self) -> &Ids {
        &self.grant.ids
    }

    /// How many executions it may have open, where that is told of it.
    pub fn max_open(&self) -> Option<usize> {
        self.grant.max_open
    }

    /// Whether it has one of these scopes.
    pub fn has(&self, scopes: &[Scope]) -> bool {
        scopes.iter().any(|scope| self.grant.scopes.has(*scope))
    }

    /// Refuses what needs one of these scopes.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn may(&self, scopes: &[Scope]) -> Result<()> {
        if self.has(scopes) {
            return Ok(());
        }
        let names: Vec<String> = scopes.iter().map(|scope| format!("`{scope}`")).collect();
        Err(Error::new(Code::Forbidden, format!("this needs the scope {}", names.join(" or "))))
    }

    /// Counts a request against its rate, where it may still make one.
    ///
    /// # Errors
    /// `unauthorized`; `overloaded`, with the time after which there is room for one again.
    pub fn count_request(&self) -> Result<()> {
        self.is_good()?;
        let Some(Err(until)) = self.rate.as_ref().map(RateLimiter::check) else { return Ok(()) };
        let pause = until.wait_time_from(DefaultClock::default().now());
        let rate = self.grant.requests_per_second.map_or(0, NonZeroU32::get);
        let message = format!("this key may make {rate} requests in a second; try again later");
        Err(Error::new(Code::Overloaded, message).after(pause))
    }

    /// Refuses one that was ended, or whose time is over.
    ///
    /// # Errors
    /// `unauthorized`.
    pub fn is_good(&self) -> Result<()> {
        let unauthorized = |message| Err(Error::new(Code::Unauthorized, message));
        if *self.has_ended.borrow() {
            return unauthorized("this key was revoked");
        }
        match self.grant.expires_ms {
            Some(at) if at <= now_ms() => unauthorized("this key has expired"),
            _ => Ok(()),
        }
    }

    /// It may do nothing any more: what it has open ends.
    pub fn end(&self) {
        self.has_ended.send_replace(true);
    }

    /// Waits until it was ended or its time is over.
    pub async fn ended(&self) {
        const LOOK_MS: u64 = 60_000;
        let mut ended = self.has_ended.subscribe();
        let expired = async {
            let Some(at) = self.grant.expires_ms else { return std::future::pending().await };
            loop {
                let left = at.saturating_sub(now_ms());
                if left == 0 {
                    return;
                }
                // The machine's clock may be set meanwhile.
                tokio::time::sleep(Duration::from_millis(left.min(LOOK_MS))).await;
            }
        };
        tokio::select! {
            // The sender is a part of this principal.
            _ = ended.wait_for(|ended| *ended) => {}
            () = expired => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_has_all_scopes_in_it() {
        let some: Scopes = [Scope::Read, Scope::Execute].into_iter().collect();
        assert_eq!(Scope::ALL.map(|scope| some.has(scope)), [true, false, true, false]);
        assert_eq!(Scope::ALL.map(|scope| Scopes::ALL.has(scope)), [true; 4]);
        assert_eq!(Scope::ALL.map(|scope| Scopes::default().has(scope)), [false; 4]);
        assert_eq!(some.given().collect::<Vec<_>>(), [Scope::Read, Scope::Execute]);
        for scope in Scope::ALL {
            assert_eq!(Scope::named(scope.name()), Some(scope));
        }
    }

    #[test]
    fn what_needs_a_scope_is_refused_by_its_name() {
        let grant = Grant { scopes: [Scope::Read].into_iter().collect(), ..Grant::default() };
        let reader = Principal::new(None, grant);
        assert!(reader.may(&[Scope::Execute, Scope::Read]).is_ok());
        let refused = reader.may(&[Scope::Write]).expect_err("no such scope");
        assert_eq!(
            (refused.code(), refused.to_string().as_str()),
            (Code::Forbidden, "this needs the scope `write`")
        );
    }

    #[test]
    fn who_asks_too_often_is_told_when_to_come_back() {
        let grant = Grant { requests_per_second: NonZeroU32::new(2), ..Grant::default() };
        let often = Principal::new(None, grant);
        assert!(often.count_request().is_ok() && often.count_request().is_ok());
        let refused = often.count_request().expect_err("the third in a row");
        assert_eq!(refused.code(), Code::Overloaded);
        assert!(refused.retry_after_ms().is_some_and(|pause| pause <= 500), "{refused:?}");
    }

    #[tokio::test]
    async fn one_that_ended_is_good_for_nothing() {
        let principal = Principal::unbound();
        assert!(principal.is_good().is_ok());
        principal.end();
        principal.ended().await;
        assert_eq!(principal.is_good().expect_err("ended").code(), Code::Unauthorized);
        let soon = Principal::new(None, Grant { expires_ms: Some(now_ms() + 20), ..Grant::default() });
        assert!(soon.is_good().is_ok());
        soon.ended().await;
        assert_eq!(soon.is_good().expect_err("expired").to_string(), "this key has expired");
    }
}
