//! Whether a run of entries is a chain: where it breaks first, and how. Pure.

use std::fmt;

use serde_json::{Value, json};

use super::{Action, Entry, Head, Link, hash};

/// Where a chain breaks first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The place.
    pub sequence: u64,
    /// What is wrong there.
    pub problem: Problem,
}

/// How a chain breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The entry, or one before it, is not as it was written.
    Changed,
    /// There is none.
    Missing,
    /// There is one too many.
    Inserted,
    /// Another entry stands there.
    Reordered,
}

impl Problem {
    /// The name that stands in an answer.
    pub fn name(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Missing => "missing",
            Self::Inserted => "inserted",
            Self::Reordered => "reordered",
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sequence = self.sequence;
        match self.problem {
            Problem::Changed => {
                write!(formatter, "the entry {sequence} does not fit the hash before it: it was changed")
            }
            Problem::Missing => write!(formatter, "the entry {sequence} is missing"),
            Problem::Inserted => write!(formatter, "there is an entry too many at {sequence}"),
            Problem::Reordered => write!(formatter, "another entry stands in the place of {sequence}"),
        }
    }
}

/// Takes entries in their order, and tells where the chain breaks.
#[derive(Debug)]
pub struct Verifier {
    /// What was removed in order ends here; the chain begins behind it.
    base: Head,
    last: Head,
    entries: u64,
    first_ms: Option<u64>,
    last_ms: Option<u64>,
    /// Up to where entries were removed in order, as the last entry about that says.
    vouched: Option<Head>,
}

impl Verifier {
    /// Of a chain that begins after `base`.
    pub fn new(base: Head) -> Self {
        Self { last: base.clone(), base, entries: 0, first_ms: None, last_ms: None, vouched: None }
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// The chain breaks here.
    pub fn take(&mut self, link: &Link) -> Result<(), Broken> {
        let sequence = self.last.sequence + 1;
        let broken = |sequence, problem| Err(Broken { sequence, problem });
        if link.sequence > sequence {
            return broken(sequence, Problem::Missing);
        }
        if link.sequence < sequence {
            return broken(link.sequence, Problem::Inserted);
        }
        let Some(entry) = Entry::parse(&link.text) else { return broken(sequence, Problem::Changed) };
        if entry.sequence != sequence {
            return broken(sequence, Problem::Reordered);
        }
        if hash(&self.last.hash, &link.text) != link.hash {
            return broken(sequence, Problem::Changed);
        }
        if entry.action == Action::AuditForget.name() {
            self.vouched = forgotten(&entry);
        }
        self.first_ms.get_or_insert(entry.at_ms);
        self.last_ms = Some(entry.at_ms);
        self.entries += 1;
        self.last = link.head();
        Ok(())
    }

    /// The end of what was read, where the store says that the chain ends at `head`.
    ///
    /// # Errors
    /// It ends elsewhere, or no entry tells of the removal of what stood before its beginning.
    pub fn finish(&self, head: &Head) -> Result<(), Broken> {
        let broken = |sequence, problem| Err(Broken { sequence, problem });
        if self.last.sequence < head.sequence {
            return broken(self.last.sequence + 1, Problem::Missing);
        }
        if self.last.sequence > head.sequence {
            return broken(head.sequence + 1, Problem::Inserted);
        }
        if self.last.hash != head.hash {
            return broken(head.sequence, Problem::Changed);
        }
        if self.base.sequence > 0 && self.vouched.as_ref() != Some(&self.base) {
            return broken(self.base.sequence, Problem::Missing);
        }
        Ok(())
    }

    /// The last entry that was taken.
    pub fn last(&self) -> &Head {
        &self.last
    }

    /// Where the chain begins.
    pub fn base(&self) -> &Head {
        &self.base
    }

    /// How many entries were taken.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// When the first and the last of them happened.
    pub fn times(&self) -> Option<(u64, u64)> {
        self.first_ms.zip(self.last_ms)
    }
}

/// What an entry says about removed entries.
pub fn forget_detail(through: &Head) -> Value {
    json!({ "through": through.sequence, "hash": through.hash })
}

fn forgotten(entry: &Entry) -> Option<Head> {
    let sequence = entry.detail.get("through")?.as_u64()?;
    let hash = entry.detail.get("hash")?.as_str()?.to_owned();
    Some(Head { sequence, hash })
}

#[cfg(test)]
mod tests {
    use super::super::tests::event;
    use super::super::{Event, Origin};
    use super::*;

    fn chain(length: u64) -> Vec<Link> {
        let mut head = Head::genesis();
        let links = (1..=length).map(|number| {
            let link = Link::after(&head, &event(&format!("tool/{number}")));
            head = link.head();
            link
        });
        links.collect()
    }

    fn verified(links: &[Link], head: &Head) -> Result<u64, (u64, Problem)> {
        let mut verifier = Verifier::new(Head::genesis());
        let taken = links.iter().try_for_each(|link| verifier.take(link));
        let whole = taken.and_then(|()| verifier.finish(head));
        whole.map(|()| verifier.entries()).map_err(|broken| (broken.sequence, broken.problem))
    }

    #[test]
    fn a_chain_holds() {
        let links = chain(9);
        assert_eq!(verified(&links, &links[8].head()), Ok(9));
        assert_eq!(verified(&[], &Head::genesis()), Ok(0));
    }

    #[test]
    fn whatever_is_changed_is_found_where_it_is() {
        let (links, head) = (chain(9), chain(9)[8].head());
        for at in 0..9 {
            let place = at as u64 + 1;
            let mut changed = links.clone();
            changed[at].text = changed[at].text.replace("ok", "no");
            assert_eq!(verified(&changed, &head), Err((place, Problem::Changed)));
            let mut changed = links.clone();
            changed[at].hash = hash("", "");
            assert_eq!(verified(&changed, &head), Err((place, Problem::Changed)));
            let mut changed = links.clone();
            changed[at].text = "no entry".into();
            assert_eq!(verified(&changed, &head), Err((place, Problem::Changed)));
            // One whose hash is made anew does not fit the next one, and the last one not the head.
            let mut changed = links.clone();
            changed[at].text = changed[at].text.replace("ok", "no");
            let before = at.checked_sub(1).map_or(Head::genesis(), |before| links[before].head());
            changed[at].hash = hash(&before.hash, &changed[at].text);
            assert_eq!(verified(&changed, &head), Err(((place + 1).min(9), Problem::Changed)));
            let mut missing = links.clone();
            missing.remove(at);
            assert_eq!(verified(&missing, &head), Err((place, Problem::Missing)));
            let mut twice = links.clone();
            twice.insert(at + 1, links[at].clone());
            assert_eq!(verified(&twice, &head), Err((place, Problem::Inserted)));
        }
    }

    #[test]
    fn entries_that_change_places_are_found() {
        let links = chain(5);
        let mut swapped = links.clone();
        swapped.swap(1, 3);
        (swapped[1].sequence, swapped[3].sequence) = (2, 4);
        assert_eq!(verified(&swapped, &links[4].head()), Err((2, Problem::Reordered)));
    }

    #[test]
    fn one_that_is_put_in_is_found() {
        let links = chain(5);
        let mut more = links.clone();
        more.push(Link::after(&links[4].head(), &event("tool/forged")));
        assert_eq!(verified(&more, &links[4].head()), Err((6, Problem::Inserted)));
        let forged = Link::after(&links[1].head(), &event("tool/forged"));
        let mut inside = links.clone();
        inside[2] = forged;
        assert_eq!(verified(&inside, &links[4].head()), Err((4, Problem::Changed)));
    }

    #[test]
    fn a_beginning_that_was_removed_is_vouched_for() {
        let mut links = chain(5);
        let (base, last) = (links[2].head(), links[4].head());
        let told = |base: &Head| {
            let origin = std::sync::Arc::new(Origin::service());
            Link::after(&last, &Event::done(origin, Action::AuditForget, "audit", forget_detail(base)))
        };
        let checked = |links: &[Link], base: &Head| {
            let mut verifier = Verifier::new(base.clone());
            links.iter().try_for_each(|link| verifier.take(link))?;
            verifier.finish(&links.last().expect("some").head())
        };
        links.push(told(&base));
        assert_eq!(checked(&links[3..], &base), Ok(()));
        assert_eq!(checked(&links[4..], &base), Err(Broken { sequence: 4, problem: Problem::Missing }));
        // Whoever removes more, and says so beside the chain only, is found.
        let further = links[3].head();
        assert_eq!(checked(&links[4..], &further), Err(Broken { sequence: 4, problem: Problem::Missing }));
        let untold = &links[3..5];
        assert_eq!(checked(untold, &base), Err(Broken { sequence: 3, problem: Problem::Missing }));
    }
}
