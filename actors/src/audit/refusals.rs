//! Refusals that come often: the first is recorded at once, and those like it that follow within a second are one more
//! entry with their number. So a stranger who knocks and knocks does not fill the disk. Pure: the time is given.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Action, Door, Event, Origin};

/// How long refusals gather.
const WINDOW: Duration = Duration::from_secs(1);

/// How many kinds of refusal of strangers, and of principals that are known, are told apart in one window. Beyond that
/// they are counted together.
const STRANGERS: usize = 32;
const KNOWN: usize = 256;

/// What makes refusals like each other.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Like {
    principal: Arc<str>,
    address: Option<IpAddr>,
    door: Door,
    action: Action,
    result: &'static str,
}

/// Refusals that are like each other.
#[derive(Debug)]
struct Open {
    last: Event,
    /// How many came that are in no entry.
    more: u64,
    until: Instant,
}

/// The refusals of the last moment.
#[derive(Debug, Default)]
pub struct Refusals {
    open: HashMap<Like, Open>,
    strangers: usize,
}

impl Refusals {
    /// Takes one in: it is given back where it is to be recorded at once.
    pub fn take(&mut self, event: Event, now: Instant) -> Option<Event> {
        let is_stranger = event.origin.is_stranger();
        let mut like = Like {
            principal: event.origin.principal.clone(),
            address: event.origin.address,
            door: event.origin.door,
            action: event.action,
            result: event.result,
        };
        let known = self.open.len() - self.strangers;
        let is_full = if is_stranger { self.strangers >= STRANGERS } else { known >= KNOWN };
        let mut event = event;
        if is_full && !self.open.contains_key(&like) {
            like = Like { principal: "others".into(), address: None, ..like };
            event.origin =
                Arc::new(Origin { principal: like.principal.clone(), address: None, door: like.door });
        }
        if let Some(open) = self.open.get_mut(&like) {
            open.more += 1;
            if open.last.subject != event.subject {
                event.subject.clear();
            }
            open.last = event;
            return None;
        }
        self.strangers += usize::from(event.origin.is_stranger());
        self.open.insert(like, Open { last: event.clone(), more: 0, until: now + WINDOW });
        Some(event)
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Ends the windows that are over, or all of them: the entries that they come to.
    pub fn close(&mut self, now: Instant, all: bool) -> Vec<Event> {
        let over = self.open.extract_if(|_, open| all || open.until <= now);
        let mut entries = Vec::new();
        for (_, open) in over {
            self.strangers -= usize::from(open.last.origin.is_stranger());
            if open.more > 0 {
                let mut event = open.last;
                event.detail.add("count", open.more);
                entries.push(event);
            }
        }
        entries.sort_by_key(|event| event.at_ms);
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::super::Entry;
    use super::*;
    use crate::error::{Code, Error};

    fn refusal(address: [u8; 4], subject: &str) -> Event {
        let origin = Arc::new(Origin::stranger(IpAddr::from(address), Door::Rest));
        let error = Error::new(Code::Unauthorized, "no");
        Event::refused(origin, Action::Enter, subject, error.code(), &error)
    }

    fn count(event: &Event) -> Option<u64> {
        Entry::parse(&event.text(1))?.detail["count"].as_u64()
    }

    #[test]
    fn the_first_is_recorded_and_the_others_are_counted() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        assert!(refusals.take(refusal([1, 1, 1, 1], "a"), now).is_some());
        for _ in 0..1_000 {
            assert_eq!(refusals.take(refusal([1, 1, 1, 1], "a"), now), None);
        }
        assert!(refusals.take(refusal([2, 2, 2, 2], "a"), now).is_some());
        assert!(refusals.close(now, false).is_empty());
        let closed = refusals.close(now + WINDOW, false);
        assert_eq!(closed.len(), 1);
        assert_eq!((count(&closed[0]), closed[0].subject.as_str()), (Some(1_000), "a"));
        assert!(refusals.is_empty());
        assert!(refusals.take(refusal([1, 1, 1, 1], "a"), now + WINDOW).is_some());
    }

    #[test]
    fn a_number_of_different_things_names_none_of_them() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        for subject in ["a", "b", "c"] {
            refusals.take(refusal([1, 1, 1, 1], subject), now);
        }
        assert_eq!(refusals.close(now, true)[0].subject, "");
    }

    #[test]
    fn many_addresses_are_counted_together() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let mut recorded = 0;
        for address in 0..10_000_u32 {
            recorded += usize::from(refusals.take(refusal(address.to_be_bytes(), "a"), now).is_some());
        }
        assert_eq!(recorded, STRANGERS + 1);
        let closed = refusals.close(now, true);
        assert_eq!(closed.len(), 1);
        assert_eq!(&*closed[0].origin.principal, "others");
        assert_eq!(count(&closed[0]), Some(10_000 - recorded as u64));
        assert_eq!(refusals.strangers, 0);
    }
}
