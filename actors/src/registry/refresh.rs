//! Fetching again what came from a source: when somebody asks, and by itself where the source has an interval. One
//! definition after the other, so that a source is not flooded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use ractor::RpcReplyPort;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::page::{PageRequest, Sort};
use super::write::{Change, Write};
use super::{Lease, Msg, Reply, State, broken, read, sources};
use crate::audit::{Action, Origin};
use crate::compiled::Compiled;
use crate::definition::{Definition, Kind, Patch};
use crate::effects::Panicked;
use crate::error::{Error, Result};
use crate::query::Filter;

/// How many definitions of a source are looked for at a time.
const PAGE: usize = 1_000;

/// What a refresh came to: the definition as it was, and as it is at its source, if that differs.
pub type Refreshed = (Arc<Compiled>, Option<Definition>);

impl State {
    /// Asks the source of a definition for what it is now.
    pub(super) fn refresh(
        &mut self,
        current: Arc<Compiled>,
        permit: Option<OwnedSemaphorePermit>,
        reply: Reply<Arc<Compiled>>,
    ) {
        let (sources, context) = (self.sources.clone(), self.context.clone());
        let ask = async move {
            let now = sources::refresh(&context.egress, &sources, &current.definition()?).await?;
            Ok((current, now))
        };
        self.effects.run(ask, move |result| Msg::Refreshed { result, permit, reply });
    }

    pub(super) fn refreshed(
        &mut self,
        result: std::result::Result<Result<Refreshed>, Panicked>,
        permit: Option<OwnedSemaphorePermit>,
        reply: Reply<Arc<Compiled>>,
    ) {
        match result.unwrap_or_else(|Panicked| Err(broken())) {
            Ok((current, Some(now))) => {
                let change = Change::Update {
                    kind: current.kind,
                    id: current.id.clone(),
                    patch: Box::new(Patch::of(now)),
                    pin: None,
                    // Whoever wrote meanwhile knew better.
                    if_match: Some(current.etag.clone()),
                };
                self.pin(Write { change, permit, reply });
            }
            Ok((current, None)) => drop(reply.send(Ok(current))),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Sets the clocks of the sources that have an interval.
    pub(super) fn wait_for_refreshes(&mut self) {
        let names: Vec<String> = self
            .sources
            .iter()
            .filter(|source| source.refresh().is_some())
            .map(|source| source.name.clone())
            .collect();
        names.into_iter().for_each(|name| self.wait_for_refresh(name));
    }

    fn wait_for_refresh(&mut self, name: String) {
        let source = self.sources.iter().find(|source| source.name == name);
        let Some(interval) = source.and_then(|source| source.refresh()) else { return };
        self.effects.run(tokio::time::sleep(interval), move |_| Msg::RefreshDue(name));
    }

    /// Looks for what came from a source.
    pub(super) fn refresh_due(&mut self, name: String) {
        let lease = self.lease();
        let look = {
            let name = name.clone();
            async move { of_source(&lease, &name).await }
        };
        self.effects.run(look, move |found| {
            let found = found.unwrap_or_else(|Panicked| Err(broken())).unwrap_or_else(|error| {
                tracing::warn!(%error, source = name, "what came from a source cannot be looked for");
                VecDeque::new()
            });
            Msg::RefreshNext { name, left: found }
        });
    }

    /// Refreshes one of them, and then the others.
    pub(super) fn refresh_next(&mut self, name: String, mut left: VecDeque<(Kind, String)>) {
        let Some((kind, id)) = left.pop_front() else { return self.wait_for_refresh(name) };
        let (lease, myself, trail) = (self.lease(), self.myself.clone(), self.trail.clone());
        let one = async move {
            let current = read::get(&lease, kind, &id).await?;
            let before = current.number;
            let (sender, receiver) = oneshot::channel();
            let reply: Reply<Arc<Compiled>> = RpcReplyPort::from(sender);
            trail.room().await;
            drop(myself.cast(Msg::Refresh { current, permit: None, reply }));
            let now = receiver.await.map_err(|_| broken())??;
            if now.number != before {
                tracing::info!(id, revision = now.number, "its source has changed it");
                let detail = json!({ "revision": now.number });
                let service = Arc::new(Origin::service());
                trail.done(&service, Action::DefinitionRefresh, kind.subject(&id), detail);
            }
            Ok::<_, Error>(())
        };
        self.effects.run(one, move |done| {
            if let Ok(Err(error)) = done {
                tracing::warn!(%error, source = name, "a definition could not be fetched again");
            }
            Msg::RefreshNext { name, left }
        });
    }
}

/// The definitions that came from a source.
async fn of_source(lease: &Lease, name: &str) -> Result<VecDeque<(Kind, String)>> {
    let mut found = VecDeque::new();
    for kind in Kind::ALL {
        let filter = serde_json::json!({ format!("{}.provenance.source", kind.field("metadata")): name });
        let filter = Filter::parse(kind, &filter)?;
        let mut page = PageRequest { limit: PAGE, sort: Sort::default(), after: None };
        loop {
            let turn = Instant::now() + super::SLICE;
            let some = read::search(lease, kind, &filter, &page, turn).await?;
            for text in &some.items {
                found.push_back((kind, Definition::from_stored(kind, text)?.id));
            }
            match some.next {
                Some(after) => page.after = Some(after),
                None => break,
            }
        }
    }
    Ok(found)
}
