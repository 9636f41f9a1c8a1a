//! The audit log's one writer, so that the chain has one order: it takes what the trail gathered and writes it in group
//! commits. It also removes what is too old, and answers who reads the log.
//!
//! Root supervises it. When it dies, what was not written is in the trail still, and its successor reads from the store
//! whether the commit under way was made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::OwnedSemaphorePermit;

use super::chain::forget_detail;
use super::retention::{Old, old};
use super::{Action, Entry, Event, Head, Link, Origin, Report, Trail, verify};
use crate::effects::{Effects, Panicked};
use crate::error::{Error, Result};
use crate::measures;
use crate::registry::{Store, StoreError};
use crate::settings::AuditSettings;

/// A reference to the writer.
pub type Ref = ActorRef<Msg>;

/// How often refusals and old entries are looked at.
const TICK: Duration = Duration::from_secs(1);

/// How soon a commit that failed is tried again.
const AGAIN: Duration = Duration::from_millis(250);

/// How many entries are made before others have their turn.
const AT_ONCE: usize = 64;

/// How often old entries are looked for, where none were found.
const SWEEP: Duration = Duration::from_secs(3_600);

/// What the writer does.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields of a message are named for what they are")]
pub enum Msg {
    /// Answer when all that happened until now is written.
    Flush(RpcReplyPort<()>),
    /// Answer with entries.
    Read { page: PageRequest, permit: OwnedSemaphorePermit, reply: RpcReplyPort<Result<Page>> },
    /// Answer whether the chain holds, and whether this hash is in it.
    Verify { noted: Option<String>, permit: OwnedSemaphorePermit, reply: RpcReplyPort<Result<Report>> },
    /// Something is to be written, or is to be written again.
    Ready,
    /// The commit under way was made, or was not.
    Written(std::result::Result<std::result::Result<Head, String>, Panicked>),
    /// Old entries were looked for.
    Swept(std::result::Result<std::result::Result<Option<Old>, String>, Panicked>),
    /// Time to look at refusals and old entries.
    Tick,
    /// A message whose answer went out elsewhere.
    Settled,
    /// Panic, for a test.
    #[cfg(feature = "faults")]
    Panic,
}

/// Which entries are wanted, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Only those after this one.
    pub after: u64,
    /// Only those that happened then or later, in milliseconds since the epoch.
    pub from_ms: u64,
    /// Only those that happened before then.
    pub to_ms: u64,
    /// How many are looked at.
    pub limit: u64,
}

impl PageRequest {
    /// Whether this one is wanted. One that cannot be read is: it is not left out for that.
    pub fn has(&self, link: &Link) -> bool {
        let at = Entry::parse(&link.text).map(|entry| entry.at_ms);
        at.is_none_or(|at| (self.from_ms..self.to_ms).contains(&at))
    }
}

/// Some entries.
#[derive(Clone, Debug)]
pub struct Page {
    /// Those that are wanted.
    pub links: Vec<Link>,
    /// After which one the next page begins; none where there are no more.
    pub next: Option<u64>,
}

/// What a writer starts with.
#[derive(Clone, Debug)]
pub struct Args {
    /// What is to be recorded.
    pub trail: Arc<Trail>,
    /// Where.
    pub store: Arc<Store>,
    /// `[audit]`.
    pub settings: AuditSettings,
}

/// The actor.
#[derive(Debug)]
pub struct AuditActor;

impl Actor for AuditActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: Ref, args: Args) -> std::result::Result<State, ActorProcessingErr> {
        Ok(State {
            effects: Effects::new(myself),
            args,
            head: None,
            is_writing: false,
            is_removing: false,
            old: None,
            is_sweeping: false,
            swept: None,
            flushes: Vec::new(),
        })
    }

    async fn post_start(&self, _: Ref, state: &mut State) -> std::result::Result<(), ActorProcessingErr> {
        // What a predecessor was writing may be written, and what it had not taken up waits.
        state.write();
        state.arm();
        Ok(())
    }

    async fn handle(
        &self,
        _: Ref,
        message: Msg,
        state: &mut State,
    ) -> std::result::Result<(), ActorProcessingErr> {
        match message {
            Msg::Flush(reply) => state.flush(reply),
            Msg::Read { page, permit, reply } => state.read(page, permit, reply),
            Msg::Verify { noted, permit, reply } => state.verify(noted, permit, reply),
            Msg::Ready => state.write(),
            Msg::Written(result) => state.written(result),
            Msg::Swept(result) => state.swept(result),
            Msg::Tick => state.tick(),
            Msg::Settled => {}
            #[cfg(feature = "faults")]
            Msg::Panic => panic!("a test told the audit log to panic"),
        }
        Ok(())
    }
}

/// What the writer holds.
#[derive(Debug)]
pub struct State {
    args: Args,
    effects: Effects<Msg>,
    /// The head of the chain on disk; none where that has to be read.
    head: Option<Head>,
    is_writing: bool,
    /// Whether the commit under way removes something.
    is_removing: bool,
    /// What the next commit removes.
    old: Option<Old>,
    is_sweeping: bool,
    /// When old entries were looked for last, and there were none left.
    swept: Option<Instant>,
    /// Who waits until so many entries are written.
    flushes: Vec<(u64, RpcReplyPort<()>)>,
}

impl State {
    fn write(&mut self) {
        if std::mem::replace(&mut self.is_writing, true) {
            return;
        }
        let (args, head, old) = (self.args.clone(), self.head.take(), self.old.take());
        self.is_removing = old.is_some();
        let commit = async move {
            commit(&args.store, &args.trail, head, old).await.map_err(|error| error.to_string())
        };
        self.effects.run(commit, Msg::Written);
    }

    fn written(&mut self, result: std::result::Result<std::result::Result<Head, String>, Panicked>) {
        self.is_writing = false;
        match result.unwrap_or_else(|Panicked| Err("the writer failed on a batch".into())) {
            Ok(head) => {
                self.head = Some(head);
                self.answer_flushes();
                if self.is_removing {
                    // There may be more.
                    self.sweep();
                }
                if self.old.is_some() {
                    // Found while this was being written.
                    return self.write();
                }
                let trail = self.args.trail.clone();
                self.effects.run(async move { trail.ready().await }, |_| Msg::Ready);
            }
            // Whether it is on disk is found out before it is tried again.
            Err(problem) => {
                measures::audit_failed();
                let waiting = self.args.trail.waiting();
                tracing::error!(problem, waiting, "entries of the audit log could not be written yet");
                self.effects.run(tokio::time::sleep(AGAIN), |_| Msg::Ready);
            }
        }
    }

    fn flush(&mut self, reply: RpcReplyPort<()>) {
        self.args.trail.close_refusals(true);
        self.flushes.push((self.args.trail.hurry(), reply));
        self.answer_flushes();
    }

    fn answer_flushes(&mut self) {
        let written = self.args.trail.written();
        for (_, reply) in self.flushes.extract_if(.., |(entries, _)| *entries <= written) {
            drop(reply.send(()));
        }
    }

    fn arm(&mut self) {
        self.effects.run(tokio::time::sleep(TICK), |_| Msg::Tick);
    }

    fn tick(&mut self) {
        self.args.trail.close_refusals(false);
        self.sweep();
        self.arm();
    }

    /// Looks for what is too old, unless that was done lately.
    fn sweep(&mut self) {
        let Some(head) = self.head.clone() else { return };
        let is_bounded = self.args.settings.keep_days > 0 || self.args.store.is_in_memory();
        let pause = if self.args.store.is_in_memory() { TICK } else { SWEEP };
        let is_due = self.swept.is_none_or(|swept| swept.elapsed() >= pause);
        if !is_bounded || !is_due || self.is_sweeping || self.old.is_some() {
            return;
        }
        self.is_sweeping = true;
        let args = self.args.clone();
        let look = async move {
            old(&args.store, args.settings.keep_days, &head).await.map_err(|error| error.to_string())
        };
        self.effects.run(look, Msg::Swept);
    }

    fn swept(&mut self, result: std::result::Result<std::result::Result<Option<Old>, String>, Panicked>) {
        self.is_sweeping = false;
        match result.unwrap_or_else(|Panicked| Err("the look panicked".into())) {
            Ok(Some(old)) => {
                self.old = Some(old);
                self.write();
            }
            Ok(None) => self.swept = Some(Instant::now()),
            Err(problem) => {
                self.swept = Some(Instant::now());
                tracing::warn!(problem, "old entries of the audit log could not be looked for");
            }
        }
    }

    fn read(&mut self, page: PageRequest, permit: OwnedSemaphorePermit, reply: RpcReplyPort<Result<Page>>) {
        let store = self.args.store.clone();
        let read = async move {
            let mut links = store.audit_entries(page.after, page.limit).await?;
            let next = links.last().map(|last| last.sequence);
            links.retain(|link| page.has(link));
            Ok(Page { links, next })
        };
        self.answer(read, permit, reply);
    }

    fn verify(
        &mut self,
        noted: Option<String>,
        permit: OwnedSemaphorePermit,
        reply: RpcReplyPort<Result<Report>>,
    ) {
        let store = self.args.store.clone();
        self.answer(async move { verify(&store, noted.as_deref()).await }, permit, reply);
    }

    fn answer<T: Send + 'static>(
        &mut self,
        read: impl Future<Output = std::result::Result<T, StoreError>> + Send + 'static,
        permit: OwnedSemaphorePermit,
        reply: RpcReplyPort<Result<T>>,
    ) {
        self.effects.run(read, move |result| {
            let result =
                result.unwrap_or_else(|Panicked| Err(StoreError::Failed("the reader panicked".into())));
            drop(reply.send(result.map_err(|error| {
                tracing::error!(%error, "the audit log cannot be read");
                Error::unavailable("the audit log cannot be read at the moment")
            })));
            drop(permit);
            Msg::Settled
        });
    }
}

/// Writes what waits, all of it or nothing, and removes what is old with it: the head that there is then.
pub(super) async fn commit(
    store: &Store,
    trail: &Trail,
    head: Option<Head>,
    old: Option<Old>,
) -> std::result::Result<Head, StoreError> {
    let head = match head {
        Some(head) => head,
        None => {
            let head = store.audit_head().await?;
            trail.settle(&head);
            head
        }
    };
    let events: Vec<Arc<Event>> = trail.front();
    let (mut links, mut last) = (Vec::with_capacity(events.len() + 1), head);
    let forgetting = old.as_ref().map(|old| {
        let detail = forget_detail(&old.through);
        Arc::new(Event::done(Arc::new(Origin::service()), Action::AuditForget, "audit", detail))
    });
    for (place, event) in forgetting.iter().chain(&events).enumerate() {
        if place % AT_ONCE == AT_ONCE - 1 {
            // Others have something to do meanwhile.
            tokio::task::yield_now().await;
        }
        let link = Link::after(&last, event);
        last = link.head();
        links.push(link);
    }
    if links.is_empty() {
        return Ok(last);
    }
    trail.begin(last.clone(), events.len());
    store.append_audit(&links, &last, old.as_ref()).await?;
    trail.settle(&last);
    Ok(last)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::event;
    use super::*;
    use crate::registry::{Location, Memory};

    /// A store at this place.
    pub async fn opened(location: Location) -> Arc<Store> {
        Arc::new(Store::open(location, Memory(128)).await.expect("opens"))
    }

    /// Has these written.
    pub async fn written(store: &Store, trail: &Trail, subjects: impl IntoIterator<Item = u64>) -> Head {
        subjects.into_iter().for_each(|subject| trail.add(event(&subject.to_string())));
        let mut head = None;
        while trail.waiting() > 0 {
            head = Some(commit(store, trail, head, None).await.expect("written"));
        }
        head.expect("something was written")
    }

    #[tokio::test]
    async fn a_successor_knows_whether_a_commit_was_made() {
        let (store, trail) = (opened(Location::Memory).await, Trail::new(true));
        written(&store, &trail, 1..=3).await;
        // It died after the commit, before it could say so.
        trail.add(event("4"));
        let (_, head) = store.audit_ends().await.expect("read");
        let link = Link::after(&head, &event("4"));
        trail.begin(link.head(), 1);
        store.append_audit(std::slice::from_ref(&link), &link.head(), None).await.expect("written");
        assert_eq!(commit(&store, &trail, None, None).await.expect("nothing to do"), link.head());
        // It died before the commit.
        trail.add(event("5"));
        trail.begin(Link::after(&link.head(), &event("5")).head(), 1);
        let head = commit(&store, &trail, None, None).await.expect("written");
        assert_eq!((head.sequence, trail.waiting(), trail.written()), (5, 0, 5));
        let report = verify(&store, Some(&link.hash)).await.expect("read");
        assert!(report.is_intact() && report.entries == 5, "{report:?}");
        assert_eq!(report.noted.and_then(|noted| noted.sequence), Some(4));
    }

    #[tokio::test]
    async fn a_head_that_is_out_of_date_writes_nothing() {
        let (store, trail) = (opened(Location::Memory).await, Trail::new(true));
        let head = written(&store, &trail, 1..=2).await;
        trail.add(event("3"));
        commit(&store, &trail, Some(Head::genesis()), None).await.expect_err("there is a first entry");
        let now = commit(&store, &trail, None, None).await.expect("written");
        assert_eq!(now.sequence, head.sequence + 1);
        assert!(verify(&store, None).await.expect("read").is_intact());
    }
}
