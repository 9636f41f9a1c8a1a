//! What the registry reads: one definition, the version that a name means, a page of those that a filter matches.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Lease;
use super::store::{Candidates, StoreError};
use crate::compiled::Compiled;
use crate::definition::{Kind, check_id};
use crate::error::{Error, Result};
use crate::query::Filter;
use crate::version;

/// How many definitions are read from the store at a time.
const BATCH: usize = 200;

/// After how many bytes of definitions a page ends.
const MAX_PAGE_BYTES: usize = 16 * 1024 * 1024;

/// How long a query works before it lets others have a turn.
const TURN: Duration = Duration::from_millis(1);

/// Which part of the matches is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// How many at most.
    pub limit: usize,
    /// Those whose id follows this one.
    pub after: Option<String>,
}

/// Some of the matches, in the order of their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The definitions' JSON texts.
    pub items: Vec<String>,
    /// Where the next page begins, when there is more (or when the time for one query was over).
    pub next: Option<String>,
}

/// The definition of exactly this id.
pub async fn get(lease: &Lease, kind: Kind, id: &str) -> Result<Arc<Compiled>> {
    // An id that cannot be registered cannot be found either.
    check_id(id).map_err(|_| kind.not_registered())?;
    match lease.get(kind, id).await.map_err(|error| unavailable(&error))? {
        Some(revision) => Compiled::new(&revision),
        None => Err(kind.not_registered()),
    }
}

/// The definition of this id, or else the version that it means.
pub async fn resolve(lease: &Lease, kind: Kind, id: &str) -> Result<Arc<Compiled>> {
    let missing = match get(lease, kind, id).await {
        Err(error) if error.code() == crate::error::Code::NotFound => error,
        found => return found,
    };
    let Some(request) = version::parse_request(id) else { return Err(missing) };
    let ids = lease.versions(kind, request.name()).await.map_err(|error| unavailable(&error))?;
    match version::pick(&request, ids.iter().map(String::as_str)) {
        Some(id) => get(lease, kind, id).await,
        None => Err(missing),
    }
}

/// The ids of all versions of a name, the highest first.
pub async fn versions(lease: &Lease, kind: Kind, name: &str) -> Result<Vec<String>> {
    let ids = lease.versions(kind, name).await.map_err(|error| unavailable(&error))?;
    if ids.is_empty() { Err(kind.not_registered()) } else { Ok(version::descending(ids)) }
}

/// The definitions that the filter matches. The store narrows by an index where the filter lets it; the filter
/// decides on each candidate. A page ends early, with a `next`, when it is large or the time is over.
pub async fn search(
    lease: &Lease,
    kind: Kind,
    filter: &Filter,
    page: &PageRequest,
    deadline: Instant,
) -> Result<Page> {
    let mut walk = Walk::new(filter, page.after.clone());
    let (mut found, mut bytes) = (Page::default(), 0);
    let mut worked_since = Instant::now();
    let mut after = page.after.clone();
    while let Some(rows) = walk.next(lease, kind).await? {
        for (id, text) in rows {
            let document =
                serde_json::from_str(&text).map_err(|error| Error::unavailable(error.to_string()))?;
            if filter.matches(&document) {
                if found.items.len() == page.limit || bytes > MAX_PAGE_BYTES || Instant::now() >= deadline {
                    found.next = after;
                    return Ok(found);
                }
                bytes += text.len();
                found.items.push(text);
            }
            after = Some(id);
            // Filtering is work without a wait: let others have their turn.
            if worked_since.elapsed() > TURN {
                tokio::task::yield_now().await;
                worked_since = Instant::now();
            }
        }
        if Instant::now() >= deadline && !walk.is_over {
            found.next = after;
            return Ok(found);
        }
    }
    Ok(found)
}

/// The way through the candidates, a batch at a time, in the order of their ids.
struct Walk {
    candidates: Candidates,
    after: Option<String>,
    is_over: bool,
}

impl Walk {
    fn new(filter: &Filter, after: Option<String>) -> Self {
        let candidates = match (filter.id_hint(), filter.tags_hint()) {
            (Some(mut ids), _) => {
                ids.sort_unstable();
                ids.dedup();
                ids.retain(|id| after.as_ref().is_none_or(|after| id > after));
                Candidates::Named(ids)
            }
            (None, Some(tags)) => Candidates::Tagged(tags),
            (None, None) => Candidates::All,
        };
        Self { candidates, after, is_over: false }
    }

    async fn next(&mut self, lease: &Lease, kind: Kind) -> Result<Option<Vec<(String, String)>>> {
        if self.is_over {
            return Ok(None);
        }
        let batch = match &mut self.candidates {
            Candidates::Named(ids) => {
                let rest = ids.split_off(ids.len().min(BATCH));
                let batch = Candidates::Named(std::mem::replace(ids, rest));
                self.is_over = ids.is_empty();
                batch
            }
            others => others.clone(),
        };
        let rows = lease
            .page(kind, &batch, self.after.as_deref(), BATCH)
            .await
            .map_err(|error| unavailable(&error))?;
        if !matches!(batch, Candidates::Named(_)) {
            self.is_over = rows.len() < BATCH;
            self.after = rows.last().map(|(id, _)| id.clone());
        }
        Ok(Some(rows))
    }
}

/// What a caller is told of a store that erred; the details are for the log.
pub fn unavailable(error: &StoreError) -> Error {
    tracing::error!(%error, "the store failed");
    Error::unavailable("the store cannot be read at the moment")
}
