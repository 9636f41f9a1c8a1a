//! What is handed to the journal, and kept until it is known to be on disk.
//!
//! Each record is an insert that leaves alone what is there, so what may not be written is handed in again: to a journal
//! that was replaced at once, after a failure at each look. While writing fails nothing new is taken in and nothing
//! begins, which bounds what is kept.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{Ref, State};
use crate::journal::{self, Receipt, Record};

/// How often it is noted where a recovery begins to read.
const FLOOR: Duration = Duration::from_secs(5);

/// How much may wait to be on disk while executions begin, in bytes.
const MAX_UNWRITTEN: usize = 64 << 20;

/// How long before now no execution that is to come can have its uuid; one that has lowers the floor again.
const SLACK_MS: u64 = 10_000;

/// What is handed to the journal.
#[derive(Debug)]
pub struct Records {
    dispatcher: Ref,
    journal: Option<journal::Ref>,
    unwritten: HashMap<Receipt, Kept>,
    /// How large these are together.
    bytes: usize,
    /// Counts what was handed in: its order.
    next: u64,
    is_failing: bool,
    /// Where a recovery begins to read, as last handed in.
    floor: Option<Uuid>,
    floor_noted: Option<Instant>,
    /// Whether anything was written since.
    is_changed: bool,
}

#[derive(Debug)]
struct Kept {
    order: u64,
    record: Record,
    /// A journal has it and will tell what became of it.
    is_sent: bool,
}

impl Records {
    /// Nothing is to be written, and there is no journal yet.
    pub fn new(dispatcher: Ref) -> Self {
        Self {
            dispatcher,
            journal: None,
            unwritten: HashMap::new(),
            bytes: 0,
            next: 0,
            is_failing: false,
            floor: None,
            floor_noted: None,
            is_changed: false,
        }
    }

    /// Whether the last write failed.
    pub fn is_failing(&self) -> bool {
        self.is_failing
    }

    /// Whether nothing is to begin until more is on disk.
    pub fn is_full(&self) -> bool {
        self.is_failing || self.bytes > MAX_UNWRITTEN
    }

    /// Whether all that was handed in is on disk.
    pub fn is_empty(&self) -> bool {
        self.unwritten.is_empty()
    }

    /// Hands a record in.
    pub fn append(&mut self, record: Record) {
        if let Record::Accepted(accepted) = &record
            && self.floor.is_some_and(|floor| accepted.job.uuid < floor)
        {
            self.append(Record::Floor(accepted.job.uuid));
        }
        if let Record::Floor(uuid) = &record {
            self.floor = Some(*uuid);
        }
        self.is_changed = true;
        let receipt = record.receipt();
        self.bytes += record.bytes();
        let replaced = self.unwritten.insert(receipt, Kept { order: self.next, record, is_sent: false });
        self.bytes -= replaced.map_or(0, |kept| kept.record.bytes());
        self.next += 1;
        if !self.is_failing {
            self.send_one(receipt);
        }
    }

    fn send_one(&mut self, receipt: Receipt) {
        let Some(journal) = &self.journal else { return };
        if let Some(kept) = self.unwritten.get_mut(&receipt) {
            hand_in(journal, &self.dispatcher, &mut [kept]);
        }
    }

    /// Hands in all that no journal has, in the order in which it came.
    fn send_all(&mut self) {
        let Some(journal) = &self.journal else { return };
        let mut kept: Vec<&mut Kept> = self.unwritten.values_mut().filter(|kept| !kept.is_sent).collect();
        kept.sort_by_key(|kept| kept.order);
        if !kept.is_empty() {
            hand_in(journal, &self.dispatcher, &mut kept);
        }
    }

    /// What a journal has and has not told of, in its order.
    #[cfg(test)]
    pub fn sent(&self) -> Vec<Receipt> {
        let mut sent: Vec<_> = self.unwritten.iter().filter(|(_, kept)| kept.is_sent).collect();
        sent.sort_by_key(|(_, kept)| kept.order);
        sent.into_iter().map(|(receipt, _)| *receipt).collect()
    }

    /// There is a new journal: what an older one had may be lost.
    pub fn replaced(&mut self, journal: journal::Ref) {
        self.journal = Some(journal);
        self.unwritten.values_mut().for_each(|kept| kept.is_sent = false);
        self.send_all();
    }

    /// The journal, when there is one.
    pub fn journal(&self) -> Option<journal::Ref> {
        self.journal.clone()
    }

    /// Where a recovery begins to read, as it was found.
    pub fn found_floor(&mut self, floor: Option<Uuid>) {
        self.floor = floor;
    }

    fn written(&mut self, receipts: &[Receipt]) {
        receipts.iter().for_each(|receipt| self.forget(receipt));
        if std::mem::take(&mut self.is_failing) {
            tracing::info!("executions are recorded again");
            self.send_all();
        }
    }

    fn forget(&mut self, receipt: &Receipt) {
        self.bytes -= self.unwritten.remove(receipt).map_or(0, |kept| kept.record.bytes());
    }

    /// Those may be on disk or not. What was accepted is not handed in again: its caller is told that it was not.
    fn failed(&mut self, receipts: &[Receipt]) {
        self.is_failing = true;
        for receipt in receipts {
            match receipt {
                Receipt::Accepted(_) => self.forget(receipt),
                _ => {
                    if let Some(kept) = self.unwritten.get_mut(receipt) {
                        kept.is_sent = false;
                    }
                }
            }
        }
    }

    /// Tries again what could not be written, and now and then notes where a recovery begins to read.
    pub fn tick(&mut self, now: Instant, lowest: Option<Uuid>) {
        let is_due = self.floor_noted.is_none_or(|noted| now.duration_since(noted) >= FLOOR);
        if self.is_failing || (is_due && self.is_changed) {
            let horizon = uuid_of(crate::execution::now_ms().saturating_sub(SLACK_MS));
            let floor = lowest.map_or(horizon, |lowest| lowest.min(horizon));
            self.floor_noted = Some(now);
            // While writing fails it is also what shows that it works again.
            self.append(Record::Floor(floor));
            self.is_changed = false;
        }
        self.send_all();
    }
}

/// A journal that is gone has a successor, which gets all that is not written.
fn hand_in(journal: &journal::Ref, dispatcher: &Ref, kept: &mut [&mut Kept]) {
    let records = kept.iter().map(|kept| kept.record.clone()).collect();
    let is_sent = journal.cast(journal::Msg::Append { records, dispatcher: dispatcher.clone() }).is_ok();
    kept.iter_mut().for_each(|kept| kept.is_sent = is_sent);
}

/// The lowest uuid of a time in milliseconds since the epoch.
fn uuid_of(millis: u64) -> Uuid {
    Uuid::from_u128(u128::from(millis) << 80)
}

impl State {
    pub(super) fn journal_replaced(&mut self, journal: journal::Ref) {
        let Some(records) = &mut self.records else { return };
        records.replaced(journal);
        if self.held.is_some() {
            self.recover();
        }
    }

    pub(super) fn journalled(&mut self, receipts: Vec<Receipt>, is_written: bool) {
        let Some(records) = &mut self.records else { return };
        let was_full = records.is_full();
        if is_written {
            records.written(&receipts);
        } else {
            records.failed(&receipts);
        }
        let has_room = was_full && !records.is_full();
        for receipt in receipts {
            match receipt {
                Receipt::Accepted(uuid) if is_written => self.accepted(uuid),
                Receipt::Accepted(uuid) => self.not_accepted(uuid),
                Receipt::Attempt(uuid, attempt) if is_written => self.attempt_recorded(uuid, attempt),
                Receipt::Ended(uuid) if is_written => self.ended(uuid),
                Receipt::Attempt(..) | Receipt::Retry(..) | Receipt::Ended(_) | Receipt::Floor => {}
            }
        }
        if has_room {
            self.schedule_all();
        }
        self.answer_drain();
    }
}
