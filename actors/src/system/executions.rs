//! Executions without a session: begun, waited for, looked up, ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use uuid::Uuid;

use super::System;
use crate::dispatcher::{self, Attached, Caller, Cancelled, Notice};
use crate::error::{Code, Error, Result};
use crate::execution::{Job, Key, Outcome, Page, PageRequest, Progress, Snapshot, State};
use crate::journal;

/// How many dispatchers in a row may fail while they are asked.
const FAILURES: u32 = 5;

/// How long a cancelled execution may take until its end is on record.
const ENDED_WITHIN: Duration = Duration::from_secs(30);

/// An execution that was accepted.
#[derive(Debug)]
pub struct Execution {
    /// Its name.
    pub uuid: Uuid,
    /// What its definition has to say to callers, where it is deprecated.
    pub warning: Option<Arc<str>>,
    system: System,
    news: mpsc::UnboundedReceiver<Notice>,
}

impl Execution {
    /// Waits for its end. Where the service shuts down before, the outcome says so, and whether it runs later.
    ///
    /// # Errors
    /// `unavailable`: it goes on, and what becomes of it cannot be followed at the moment.
    pub async fn outcome(mut self) -> Result<Outcome> {
        loop {
            match self.news.recv().await {
                Some(Notice::Finished(_, outcome)) => return Ok(outcome),
                Some(Notice::Postponed(_)) => return Ok(postponed()),
                Some(_) => {}
                // The dispatcher is gone, and its successor may know.
                None => match self.system.attach(self.uuid).await {
                    Ok(Following::News(news)) => self.news = news,
                    Ok(Following::Ended(outcome)) => return Ok(outcome),
                    Err(error) if error.code() == Code::NotFound => {
                        let lost = "the dispatcher failed while it held this execution";
                        return Ok(Outcome::interrupted(lost));
                    }
                    Err(error) => return Err(error),
                },
            }
        }
    }

    /// Waits for its end, for so long; none where it goes on, or may.
    pub async fn outcome_within(self, patience: Duration) -> Option<Outcome> {
        let outcome = tokio::time::timeout(patience, self.outcome()).await.ok()?.ok()?;
        (outcome != postponed()).then_some(outcome)
    }
}

fn postponed() -> Outcome {
    Outcome::interrupted(
        "the service shuts down; the execution is recorded, and runs when it is started again",
    )
}

/// What came of asking for the news of an execution.
#[derive(Debug)]
pub(crate) enum Following {
    /// They come on this way.
    News(mpsc::UnboundedReceiver<Notice>),
    /// It ended so.
    Ended(Outcome),
}

impl System {
    /// Submits an execution without a session: it is there once it is accepted, and goes on when nobody waits for it.
    ///
    /// # Errors
    /// `overloaded`, `draining`, `unavailable`.
    pub(crate) async fn execute(&self, job: Job) -> Result<Execution> {
        let warning = job.definition.spec.deprecated.clone();
        let (sender, mut news) = mpsc::unbounded_channel();
        self.submit(Box::new(job), Caller::Channel(sender)).await?;
        loop {
            match news.recv().await {
                Some(Notice::Accepted(uuid)) => {
                    return Ok(Execution { uuid, warning, system: self.clone(), news });
                }
                Some(Notice::Refused(_, error)) => return Err(error),
                // Its acceptance follows.
                Some(Notice::Known(..)) => {}
                _ => {
                    return Err(Error::unavailable(
                        "the dispatcher failed while it was given this execution",
                    ));
                }
            }
        }
    }

    /// Ends an execution, wherever it is; its caller is told in the usual way.
    ///
    /// # Errors
    /// `unavailable`.
    pub(crate) async fn cancel(&self, uuid: Uuid) -> Result<Cancelled> {
        let dispatcher = self.inner.names.dispatcher();
        let asked = |reply| dispatcher::Msg::Cancel { uuid, reply };
        match self.call::<dispatcher::Msg, _>(&dispatcher, asked).await? {
            Cancelled::Unknown => Ok(match self.recorded(uuid).await? {
                Some(snapshot) if matches!(snapshot.progress, Progress::Ended(_)) => Cancelled::Ended,
                _ => Cancelled::Unknown,
            }),
            cancelled => Ok(cancelled),
        }
    }

    /// Ends an execution, and comes back when that is on record, so that it does not begin again after a crash. What ended by
    /// itself meanwhile was not cancelled.
    ///
    /// # Errors
    /// `unavailable`.
    pub(crate) async fn cancel_for_good(&self, uuid: Uuid) -> Result<Cancelled> {
        let cancelled = self.cancel(uuid).await?;
        if cancelled != Cancelled::Asked {
            return Ok(cancelled);
        }
        let outcome = async {
            match self.attach(uuid).await? {
                Following::News(news) => {
                    Execution { uuid, warning: None, system: self.clone(), news }.outcome().await
                }
                Following::Ended(outcome) => Ok(outcome),
            }
        };
        let late = || Error::unavailable("the execution is being ended, and that is not on record yet");
        let outcome: Result<Outcome> =
            tokio::time::timeout(ENDED_WITHIN, outcome).await.unwrap_or_else(|_| Err(late()));
        Ok(if outcome?.state == State::Cancelled { Cancelled::Asked } else { Cancelled::Ended })
    }

    /// What is known of an execution.
    ///
    /// # Errors
    /// `not_found`; `unavailable`.
    pub(crate) async fn execution(&self, uuid: Uuid) -> Result<Snapshot> {
        let dispatcher = self.inner.names.dispatcher();
        let find = |reply| dispatcher::Msg::Find { uuid, reply };
        let known: Option<Box<Snapshot>> = self.call::<dispatcher::Msg, _>(&dispatcher, find).await?;
        let found = match known {
            Some(snapshot) => Some(snapshot),
            None => self.recorded(uuid).await?,
        };
        found.map(|snapshot| *snapshot).ok_or_else(unknown)
    }

    /// The end of what an execution printed until now.
    ///
    /// # Errors
    /// `not_found`; `unavailable`.
    pub(crate) async fn execution_log(&self, uuid: Uuid) -> Result<String> {
        let dispatcher = self.inner.names.dispatcher();
        let log = |reply| dispatcher::Msg::Log { uuid, reply };
        if let Some(log) = self.call::<dispatcher::Msg, _>(&dispatcher, log).await? {
            return Ok(log);
        }
        Ok(match self.execution(uuid).await?.progress {
            Progress::Ended(ended) => ended.log.as_deref().unwrap_or_default().to_owned(),
            _ => String::new(),
        })
    }

    /// A page of executions, the newest first.
    ///
    /// # Errors
    /// `unavailable`.
    pub(crate) async fn executions(&self, request: PageRequest) -> Result<Page> {
        let dispatcher = self.inner.names.dispatcher();
        // What is open first: what ends meanwhile is found again among those that ended.
        let page = request.clone();
        let open: Page = self
            .call::<dispatcher::Msg, _>(&dispatcher, |reply| dispatcher::Msg::List { page, reply })
            .await?;
        let (limit, page) = (request.limit, request);
        let ended: Page = self
            .call::<journal::Msg, _>(&self.inner.names.journal(), |reply| journal::Msg::List { page, reply })
            .await??;
        // Each is complete down to where its next page begins; both are, down to the later of these.
        let complete = open.next.max(ended.next);
        let mut items: BTreeMap<Uuid, Snapshot> = BTreeMap::new();
        for snapshot in open.items.into_iter().chain(ended.items) {
            items.insert(snapshot.uuid, snapshot);
        }
        let mut page = Page { items: Vec::new(), next: complete };
        for (uuid, snapshot) in items.into_iter().rev() {
            if complete.is_some_and(|complete| uuid < complete) {
                break;
            }
            if page.items.len() == limit {
                page.next = page.items.last().map(|last: &Snapshot| last.uuid);
                break;
            }
            page.items.push(snapshot);
        }
        Ok(page)
    }

    /// The news of an execution that was begun elsewhere or before.
    ///
    /// # Errors
    /// `not_found`; `unavailable`.
    pub(crate) async fn attach(&self, uuid: Uuid) -> Result<Following> {
        let (sender, news) = mpsc::unbounded_channel();
        match self.follow(uuid, Caller::Channel(sender)).await? {
            None => Ok(Following::News(news)),
            Some(outcome) => Ok(Following::Ended(outcome)),
        }
    }

    /// Sends the news of an execution to this caller; the outcome where it ended already.
    ///
    /// # Errors
    /// `not_found`; `unavailable`.
    pub(crate) async fn follow(&self, uuid: Uuid, caller: Caller) -> Result<Option<Outcome>> {
        let attach = || {
            let caller = caller.clone();
            let attach = move |reply| dispatcher::Msg::Attach { uuid, caller, reply };
            async { self.call::<dispatcher::Msg, _>(&self.inner.names.dispatcher(), attach).await }
        };
        let mut attached = attach().await;
        // One that fails as well has a successor; the sixth in a row ends the process.
        for _ in 0..FAILURES {
            if !attached.as_ref().is_err_and(|error| error.code() == Code::Unavailable) {
                break;
            }
            attached = attach().await;
        }
        match attached? {
            Attached::Open => Ok(None),
            Attached::Ended(ended) => Ok(Some(ended.outcome.clone())),
            Attached::Unknown => match self.recorded(uuid).await?.map(|snapshot| snapshot.progress) {
                Some(Progress::Ended(ended)) => Ok(Some(ended.outcome.clone())),
                _ => Err(unknown()),
            },
        }
    }

    /// The execution that is recorded under an idempotency key.
    pub(super) async fn recorded_under(&self, key: Key) -> Result<Option<Box<Snapshot>>> {
        let journal = self.inner.names.journal();
        self.call::<journal::Msg, _>(&journal, |reply| journal::Msg::FindKey { key, reply }).await?
    }

    async fn recorded(&self, uuid: Uuid) -> Result<Option<Box<Snapshot>>> {
        let journal = self.inner.names.journal();
        self.call::<journal::Msg, _>(&journal, |reply| journal::Msg::Find { uuid, reply }).await?
    }
}

pub(super) fn unknown() -> Error {
    Error::new(Code::NotFound, "there is no execution with this uuid")
}
