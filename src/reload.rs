//! What SIGHUP applies without a restart: the sizes of the pools, the addresses that may be reached, whose tokens are taken,
//! and the certificate.

use std::collections::BTreeMap;

use actors::execution::Runtime;
use actors::settings::{Allowed, AuthSettings, PoolSettings};
use actors::system::System;

use crate::config::Config;
use crate::tls::Tls;

/// What was applied last.
pub struct Reload {
    pools: BTreeMap<Runtime, PoolSettings>,
    allow: Vec<Allowed>,
    auth: AuthSettings,
    tls: Option<Tls>,
}

impl Reload {
    /// What the service started with.
    pub fn new(config: &Config, tls: Option<Tls>) -> Self {
        let engine = &config.engine;
        let (pools, allow, auth) = (engine.pools.clone(), engine.egress.allow.clone(), engine.auth.clone());
        Self { pools, allow, auth, tls }
    }

    /// Applies what has changed. Certificates and sets of keys are read again in any case: their files may have changed. What
    /// cannot be applied stays as it was, and is told.
    pub fn apply(&mut self, system: &System, changed: Config) {
        let mut applied = Vec::new();
        match self.tls.as_ref().map(|tls| tls.reload(&changed.tls)) {
            Some(Ok(())) => {
                applied.push("tls");
                tracing::info!("SIGHUP: the certificate was read again");
            }
            Some(Err(error)) => {
                tracing::error!("SIGHUP: the certificate was left as it is: {error:#}");
                system.record_reload(Err(&format!("the certificate was left as it is: {error:#}")));
            }
            None => {}
        }
        if changed.engine.egress.allow != self.allow {
            self.allow = changed.engine.egress.allow;
            system.allow(self.allow.clone());
            applied.push("egress.allow");
            tracing::info!("SIGHUP: `egress.allow` was changed");
        }
        if changed.engine.pools == self.pools {
            tracing::info!("SIGHUP: the pools are as they were; other sections need a restart");
        } else {
            self.pools = changed.engine.pools;
            system.resize(self.pools.clone());
            applied.push("pools");
            tracing::info!("SIGHUP: the pools were resized; other sections need a restart");
        }
        let issuers = changed.engine.auth.issuers;
        if !issuers.is_empty() || !self.auth.issuers.is_empty() {
            self.auth.issuers = issuers;
            applied.extend(self.trust(system).then_some("auth.issuers"));
        }
        system.record_reload(Ok(&applied));
    }

    /// Has the tokens of the issuers taken, and of no others.
    fn trust(&self, system: &System) -> bool {
        let trusted = system.trust(&self.auth);
        match &trusted {
            Ok(()) => {
                tracing::info!(
                    issuers = self.auth.issuers.len(),
                    "SIGHUP: the keys of the issuers were read again"
                );
            }
            Err(error) => {
                tracing::error!(%error, "SIGHUP: the issuers were left as they are");
                system.record_reload(Err(&format!("the issuers were left as they are: {error}")));
            }
        }
        trusted.is_ok()
    }
}
