//! What the journal reads: the open executions at a start, and pages of all that are recorded.

use std::sync::Arc;

use uuid::Uuid;

use crate::compiled::Compiled;
use crate::execution::{Client, Options, Page, PageRequest, Progress};
use crate::registry::{Lease, StoreError};

/// How many records are looked at for one page.
const LOOKED_AT: usize = 10_000;

/// After how many bytes of inputs and outputs a page ends.
const BYTES: usize = 16 << 20;

/// How many are read at a time.
const BATCH: u64 = 500;

/// All that was open when the service or its dispatcher ended.
#[derive(Debug)]
pub struct Recovered {
    /// What was noted as the lowest uuid that could be open.
    pub floor: Option<Uuid>,
    /// The highest number of an open execution.
    pub last: u64,
    /// In the order of acceptance.
    pub executions: Vec<OpenExecution>,
}

/// An execution that was accepted and has no outcome.
#[derive(Debug)]
pub struct OpenExecution {
    /// Its name.
    pub uuid: Uuid,
    /// The revision that was accepted.
    pub definition: Arc<Compiled>,
    /// The merged and checked input.
    pub input: String,
    /// What the request asked for; nobody listens to its log any more.
    pub options: Options,
    /// Who asked.
    pub client: Client,
    /// The client's trace context.
    pub traceparent: Option<String>,
    /// Its place in the order of acceptance.
    pub number: u64,
    /// When it was accepted, in milliseconds since the epoch.
    pub accepted_ms: u64,
    /// How often it may have been begun, as far as that is on record.
    pub attempts: u32,
    /// How many of these failed, and were followed by another or were to be.
    pub retries: u32,
}

/// A page of recorded executions, the newest first. A page ends early, with a `next`, when many were looked at
/// or it is large.
pub async fn list(lease: &Lease, request: &PageRequest) -> Result<Page, StoreError> {
    let (mut page, mut before, mut looked_at, mut bytes) = (Page::default(), request.before, 0, 0);
    loop {
        let batch = lease.executions(before, BATCH).await?;
        let is_last = batch.is_empty();
        for snapshot in batch {
            if page.items.len() == request.limit || looked_at == LOOKED_AT || bytes > BYTES {
                page.next = before;
                return Ok(page);
            }
            looked_at += 1;
            before = Some(snapshot.uuid);
            if request.is_reached(&snapshot) {
                return Ok(page);
            }
            // What is open is known to the dispatcher, and told by it.
            if let Progress::Ended(ended) = &snapshot.progress
                && request.matches(&snapshot)
            {
                bytes += snapshot.input.len() + ended.bytes();
                page.items.push(snapshot);
            }
        }
        if is_last {
            return Ok(page);
        }
    }
}
