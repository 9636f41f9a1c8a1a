//! What the registry reads: one definition, what an id means, the revisions of one, and pages of matches.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Lease;
use super::page::{By, Page, PageRequest, Position, Sort};
use super::search::{Found, Hit, MAX_FOUND, SearchError, View};
use super::store::{Noted, Place, Scan, StoreError, Stored};
use crate::compiled::Compiled;
use crate::definition::{Kind, check_id};
use crate::error::{Error, Result};
use crate::query::{Filter, Text};
use crate::version;

/// How many definitions are read from the store at a time.
const BATCH: usize = 200;

/// After how many bytes of definitions a page ends.
const MAX_PAGE_BYTES: usize = 16 * 1024 * 1024;

/// How long a query works before it lets others have a turn.
const TURN: Duration = Duration::from_millis(1);

/// How many definitions with a tag are few: all of them are had within milliseconds.
const FEW: usize = 2_000;

/// How many hits a search asks for beyond what a page has room for: some of them may not match the rest of the filter.
const MORE_HITS: usize = 100;

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

/// The revisions of a definition that there are, the newest first; it is the one that is in force.
pub async fn revisions(lease: &Lease, kind: Kind, id: &str) -> Result<Vec<Noted>> {
    let current = get(lease, kind, id).await?;
    let mut history = lease.history(kind, id).await.map_err(|error| unavailable(&error))?;
    let (number, created_ms) = (current.number, current.created_ms);
    // A write may have come between the two reads.
    history.retain(|noted| noted.created_ms == created_ms && noted.number < number);
    history.insert(0, Noted { number, created_ms, updated_ms: current.updated_ms });
    Ok(history)
}

/// One revision of a definition.
pub async fn revision(lease: &Lease, kind: Kind, id: &str, number: u64) -> Result<Arc<Compiled>> {
    let current = get(lease, kind, id).await?;
    if current.number == number {
        return Ok(current);
    }
    let found = lease.revision(kind, id, number).await.map_err(|error| unavailable(&error))?;
    match found.filter(|found| found.created_ms == current.created_ms) {
        Some(revision) => Compiled::new(&revision),
        None => Err(no_revision(kind, number)),
    }
}

/// What a caller is told of a revision that there is not, or not any more.
pub fn no_revision(kind: Kind, number: u64) -> Error {
    let message = format!("{} has no revision {number}, or it is not kept any more", kind.title());
    Error::new(crate::error::Code::NotFound, message)
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
    let mut walk = Walk::new(lease, kind, filter, page, deadline).await?;
    let (mut found, mut bytes) = (Page::default(), 0);
    let mut worked_since = Instant::now();
    let (mut after, mut has_looked) = (walk.after.clone(), false);
    while let Some(candidates) = walk.next(lease, kind, deadline).await? {
        for (rank, stored) in candidates {
            let document =
                serde_json::from_str(&stored.text).map_err(|error| Error::unavailable(error.to_string()))?;
            if filter.matches(&document) {
                // A page that ends says where: it looks at one at least, however late its turn came.
                let is_late = has_looked && Instant::now() >= deadline;
                if found.items.len() == page.limit || bytes > MAX_PAGE_BYTES || is_late {
                    found.next = walk.cursor(lease, after);
                    return Ok(found);
                }
                bytes += stored.text.len();
                found.items.push(stored.text);
            }
            after = Some(Position { sort: page.sort, rank, id: stored.id });
            has_looked = true;
            // Filtering is work without a wait: let others have their turn.
            if worked_since.elapsed() > TURN {
                tokio::task::yield_now().await;
                worked_since = Instant::now();
            }
        }
        if has_looked && Instant::now() >= deadline && !walk.is_over() {
            found.next = walk.cursor(lease, after);
            return Ok(found);
        }
    }
    Ok(found)
}

/// The way through the candidates, some at a time, in the order of the page.
struct Walk {
    sort: Sort,
    after: Option<Position>,
    candidates: Candidates,
    /// How many are read at a time.
    batch: usize,
}

/// Where the candidates come from. The narrowest way that the filter allows is taken.
enum Candidates {
    /// These, which are read already, each with its rank, in the order of the page.
    Read(Vec<(u64, Stored)>),
    /// These, each with its rank, in the order of the page.
    Named(VecDeque<(u64, String)>),
    /// What the text index finds, the best first: in one view of it, also over several pages.
    Ranked { text: Text, view: Option<Arc<View>>, hits: VecDeque<Hit>, asked: usize, is_all: bool },
    /// Records in the order of an index.
    Scan { scan: Scan, is_over: bool },
}

impl Walk {
    async fn new(
        lease: &Lease,
        kind: Kind,
        filter: &Filter,
        page: &PageRequest,
        deadline: Instant,
    ) -> Result<Self> {
        let (sort, mut after) = (page.sort, page.after.clone());
        let plan = filter.plan();
        let candidates = match (plan.text, plan.ids) {
            (Some(text), _) if sort.by == By::Relevance => {
                let view = after.as_mut().map(|after| held(lease, after)).transpose()?;
                let asked = page.limit + MORE_HITS;
                Candidates::Ranked { text, view, hits: VecDeque::new(), asked, is_all: false }
            }
            (Some(text), _) => {
                let (_, found) = hits(lease, kind, &text, None, MAX_FOUND, deadline).await?;
                let ids = found.hits.into_iter().map(|hit| hit.id).collect();
                Candidates::Named(ordered(lease, kind, ids, sort, after.as_ref()).await?)
            }
            (None, Some(ids)) => Candidates::Named(ordered(lease, kind, ids, sort, after.as_ref()).await?),
            (None, None) => match tagged(lease, kind, &plan.tags, sort, after.as_ref()).await? {
                Some(candidates) => candidates,
                None => Candidates::Scan { scan: Scan { from: plan.from, to: plan.to }, is_over: false },
            },
        };
        // One more than the page has tells whether there is a next one.
        Ok(Self { sort, after, candidates, batch: BATCH.min(page.limit + 1) })
    }

    /// What a cursor says of a position. Where it stands in a view of the text index, that is held, and named with it.
    fn cursor(&self, lease: &Lease, position: Option<Position>) -> Option<Position> {
        let mut position = position?;
        if let Candidates::Ranked { view: Some(view), .. } = &self.candidates {
            position.rank |= u64::from(lease.search().hold(view)) << 32;
        }
        Some(position)
    }

    /// Whether nothing comes any more.
    fn is_over(&self) -> bool {
        match &self.candidates {
            Candidates::Read(rows) => rows.is_empty(),
            Candidates::Named(ids) => ids.is_empty(),
            Candidates::Ranked { hits, is_all, .. } => hits.is_empty() && *is_all,
            Candidates::Scan { is_over, .. } => *is_over,
        }
    }

    /// The next candidates, each with its rank in the order of the page.
    async fn next(
        &mut self,
        lease: &Lease,
        kind: Kind,
        deadline: Instant,
    ) -> Result<Option<Vec<(u64, Stored)>>> {
        if self.is_over() {
            return Ok(None);
        }
        // Where the filter refuses many, more are looked at each time.
        let batch = self.batch;
        self.batch = BATCH.min(batch * 2);
        match &mut self.candidates {
            Candidates::Read(rows) => Ok(Some(std::mem::take(rows))),
            Candidates::Named(ids) => {
                let some: Vec<_> = ids.drain(..ids.len().min(batch)).collect();
                named(lease, kind, some).await.map(Some)
            }
            Candidates::Ranked { text, view, hits: found, asked, is_all } => {
                if found.is_empty() {
                    let (seen, answer) = hits(lease, kind, text, view.take(), *asked, deadline).await?;
                    *view = Some(seen);
                    (*found, *is_all) = (answer.hits.into(), answer.is_all);
                    *asked = (*asked * 10).min(MAX_FOUND);
                    if let Some(after) = &self.after {
                        found.retain(|hit| follows(hit, after));
                    }
                }
                let some: Vec<_> = found.drain(..found.len().min(batch)).collect();
                if let Some(last) = some.last() {
                    let (rank, id) = (u64::from(last.score.to_bits()), last.id.clone());
                    self.after = Some(Position { sort: self.sort, rank, id });
                }
                let some = some.into_iter().map(|hit| (u64::from(hit.score.to_bits()), hit.id)).collect();
                named(lease, kind, some).await.map(Some)
            }
            Candidates::Scan { scan, is_over } => {
                let page = lease.page(kind, scan, self.sort, self.after.as_ref(), batch).await;
                let rows = page.map_err(|error| unavailable(&error))?;
                *is_over = rows.len() < batch;
                let rows: Vec<_> = rows.into_iter().map(|row| (rank(&row, self.sort), row)).collect();
                if let Some((rank, row)) = rows.last() {
                    self.after = Some(Position { sort: self.sort, rank: *rank, id: row.id.clone() });
                }
                Ok(Some(rows))
            }
        }
    }
}

fn rank(stored: &Stored, sort: Sort) -> u64 {
    sort.rank(stored.created_ms, stored.updated_ms)
}

/// The view that a cursor names; the position is one in it then.
fn held(lease: &Lease, position: &mut Position) -> Result<Arc<View>> {
    let number = (position.rank >> 32) as u32;
    position.rank &= u64::from(u32::MAX);
    lease.search().held(number).ok_or_else(|| {
        let message = "the search that `cursor` goes on with is not held any more; begin again without it";
        Error::invalid(message).at("cursor")
    })
}

/// Scores are never negative, so their bits have their order.
fn follows(hit: &Hit, after: &Position) -> bool {
    let order = u64::from(hit.score.to_bits()).cmp(&after.rank).reverse();
    order.then_with(|| hit.id.cmp(&after.id)) == Ordering::Greater
}

/// All that have the tags, where these are few: then they are at hand in any order. Where they are many, they are soon met on the
/// way through all definitions.
async fn tagged(
    lease: &Lease,
    kind: Kind,
    sets: &[Vec<String>],
    sort: Sort,
    after: Option<&Position>,
) -> Result<Option<Candidates>> {
    if sets.is_empty() {
        return Ok(None);
    }
    if sets.iter().any(Vec::is_empty) {
        return Ok(Some(Candidates::Read(Vec::new())));
    }
    if let Some(rows) = lease.tagged(kind, sets, BATCH).await.map_err(|error| unavailable(&error))? {
        let rows = rows.into_iter().map(|row| ((rank(&row, sort), row.id.clone()), row)).collect();
        let rows = in_order(rows, sort, after);
        return Ok(Some(Candidates::Read(rows.map(|((rank, _), row)| (rank, row)).collect())));
    }
    let places = lease.tagged_places(kind, sets, FEW).await.map_err(|error| unavailable(&error))?;
    Ok(places.map(|places| Candidates::Named(placed(places, sort, after))))
}

async fn named(lease: &Lease, kind: Kind, ids: Vec<(u64, String)>) -> Result<Vec<(u64, Stored)>> {
    let (ranks, ids): (Vec<_>, Vec<_>) = ids.into_iter().unzip();
    let rows = lease.named(kind, &ids).await.map_err(|error| unavailable(&error))?;
    let mut ranks = ids.iter().zip(ranks);
    let with_rank = |row: Stored| {
        // Some of them may not be there; those that are come in their order.
        let rank = ranks.find(|(id, _)| **id == row.id).map_or(0, |(_, rank)| rank);
        (rank, row)
    };
    Ok(rows.into_iter().map(with_rank).collect())
}

/// These ids in the order of the page, those after its position.
async fn ordered(
    lease: &Lease,
    kind: Kind,
    mut ids: Vec<String>,
    sort: Sort,
    after: Option<&Position>,
) -> Result<VecDeque<(u64, String)>> {
    ids.sort_unstable();
    ids.dedup();
    let mut places = Vec::with_capacity(ids.len());
    if matches!(sort.by, By::Id | By::Relevance) {
        places.extend(ids.into_iter().map(|key| Place { key, created_ms: 0, updated_ms: 0 }));
    } else {
        for some in ids.chunks(BATCH) {
            places.extend(lease.places(kind, some).await.map_err(|error| unavailable(&error))?);
        }
    }
    Ok(placed(places, sort, after))
}

fn placed(places: Vec<Place>, sort: Sort, after: Option<&Position>) -> VecDeque<(u64, String)> {
    let rank = |place: &Place| sort.rank(place.created_ms, place.updated_ms);
    let ranked = places.into_iter().map(|place| ((rank(&place), place.key), ())).collect();
    in_order(ranked, sort, after).map(|(place, ())| place).collect()
}

/// What follows a position, by rank and id.
fn in_order<T>(
    mut ranked: Vec<((u64, String), T)>,
    sort: Sort,
    after: Option<&Position>,
) -> impl Iterator<Item = ((u64, String), T)> + use<T> {
    ranked.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
    if sort.descending {
        ranked.reverse();
    }
    let after = after.map(|after| (after.rank, after.id.clone()));
    let beyond = if sort.descending { Ordering::Less } else { Ordering::Greater };
    ranked.into_iter().filter(move |(place, _)| after.as_ref().is_none_or(|after| place.cmp(after) == beyond))
}

/// What the text index finds in this view of it, or in one in which all is found that was written before.
async fn hits(
    lease: &Lease,
    kind: Kind,
    text: &Text,
    view: Option<Arc<View>>,
    limit: usize,
    deadline: Instant,
) -> Result<(Arc<View>, Found)> {
    let search = lease.search().clone();
    if view.is_none() && !search.is_level() {
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, lease.level()).await {
            Ok(levelled) => levelled.map_err(|error| unavailable(&error))?,
            Err(_) => return Err(Error::unavailable("the text index is being made; try again later")),
        }
    }
    let text = text.clone();
    let find = move || {
        let view = match view {
            Some(view) => view,
            None => {
                // Also where nothing waits: what waited may be in a commit that is not over.
                search.commit()?;
                Arc::new(search.view()?)
            }
        };
        let found = search.find(&view, kind, &text, limit)?;
        Ok::<_, SearchError>((view, found))
    };
    let found = tokio::task::spawn_blocking(find).await;
    found
        .map_err(|error| error.to_string())
        .and_then(|found| found.map_err(|error| error.to_string()))
        .map_err(|error| {
            tracing::error!(error, "the text index failed");
            Error::unavailable("the text index cannot be read at the moment")
        })
}

/// What a caller is told of a store that erred; the details are for the log.
pub fn unavailable(error: &StoreError) -> Error {
    tracing::error!(%error, "the store failed");
    Error::unavailable("the store cannot be read at the moment")
}
