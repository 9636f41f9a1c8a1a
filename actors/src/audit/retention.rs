//! What is forgotten: the oldest entries, where the settings do not keep them for ever, and in memory those beyond a number.

use super::{Entry, Head, Link, Verifier};
use crate::execution::now_ms;
use crate::registry::{Store, StoreError};

/// How many entries are removed in one commit, or a few more, since blocks go as a whole.
const FORGET: u64 = 5_000;

/// How many entries a store in memory keeps at least.
const IN_MEMORY: u64 = 10_000;

/// How many blocks of it are removed in one commit.
const FORGET_BLOCKS: u64 = 1_000;

/// Entries that are too old.
#[derive(Clone, Debug)]
pub struct Old {
    /// Where the chain began before.
    pub after: Head,
    /// The last of them.
    pub through: Head,
    /// The places of the blocks that hold them.
    pub blocks: Vec<u64>,
}

/// The first entries that need not be kept, as many as are removed at a time; none where all are kept.
///
/// # Errors
/// The store erred.
pub async fn old(store: &Store, keep_days: u64, head: &Head) -> std::result::Result<Option<Old>, StoreError> {
    let (after, _) = store.audit_ends().await?;
    // Forgetting is an entry of its own: a few beyond the number wait for others, or the log would never come to rest.
    if store.is_in_memory() && head.sequence.saturating_sub(after.sequence) > IN_MEMORY + FORGET {
        let (blocks, through) = store.audit_places(head.sequence - IN_MEMORY, FORGET_BLOCKS).await?;
        return Ok(through.map(|through| Old { after, through, blocks }));
    }
    if keep_days == 0 {
        return Ok(None);
    }
    let oldest_ms = now_ms().saturating_sub(keep_days.saturating_mul(86_400_000));
    let is_old = |link: &Link| {
        let entry = Entry::parse(&link.text);
        entry.is_some_and(|entry| entry.at_ms < oldest_ms && link.sequence < head.sequence)
    };
    // Mostly the first one is not old, and the others need not be read.
    if !store.audit_entries(after.sequence, 1).await?.first().is_some_and(is_old) {
        return Ok(None);
    }
    // A chain that is broken stays as it is: what is wrong with it is not to vanish with age.
    let mut verifier = Verifier::new(after.clone());
    let mut goes = |block: &&Vec<Link>| block.iter().all(|link| is_old(link) && verifier.take(link).is_ok());
    let found = store.audit_blocks(after.sequence, FORGET).await?;
    let lasts: Vec<&Link> = found.iter().take_while(&mut goes).filter_map(|block| block.last()).collect();
    let blocks = lasts.iter().map(|last| last.sequence).collect();
    Ok(lasts.last().map(|last| Old { through: last.head(), after, blocks }))
}

#[cfg(test)]
mod tests {
    use super::super::tests::event;
    use super::super::writer::commit;
    use super::super::writer::tests::{opened, written};
    use super::super::{Event, Trail, verify};
    use super::*;
    use crate::registry::Location;

    #[tokio::test]
    async fn what_is_old_goes_and_the_rest_still_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, trail) = (opened(Location::Folder(folder.path().into())).await, Trail::new(true));
        written(&store, &trail, 1..=5).await;
        trail.add(Event { at_ms: now_ms(), ..event("new") });
        let head = commit(&store, &trail, None, None).await.expect("written");
        assert!(old(&store, 0, &head).await.expect("read").is_none());
        let found = old(&store, 1, &head).await.expect("read").expect("five are of 1970");
        assert_eq!((found.after.sequence, found.through.sequence), (0, 5));
        let noted = found.through.hash.clone();
        commit(&store, &trail, None, Some(found)).await.expect("written");
        let report = verify(&store, Some(&noted)).await.expect("read");
        assert_eq!((report.entries, report.removed, report.is_intact()), (2, 5, true), "{report:?}");
        let links = store.audit_entries(0, 10).await.expect("read");
        assert_eq!(links.iter().map(|link| link.sequence).collect::<Vec<_>>(), [6, 7]);
        assert!(old(&store, 1, &links[1].head()).await.expect("read").is_none());
    }

    #[tokio::test]
    async fn a_log_in_memory_comes_to_rest() {
        let (store, trail) = (opened(Location::Memory).await, Trail::new(true));
        let full = written(&store, &trail, 1..=IN_MEMORY + FORGET).await;
        assert!(old(&store, 0, &full).await.expect("read").is_none());
        let head = written(&store, &trail, 1..=1).await;
        let found = old(&store, 0, &head).await.expect("read").expect("one too many");
        assert!((FORGET..=FORGET + 500).contains(&found.through.sequence), "{found:?}");
        let head = commit(&store, &trail, Some(head), Some(found)).await.expect("written");
        assert!(
            old(&store, 0, &head).await.expect("read").is_none(),
            "that it forgot is no reason to forget"
        );
        assert!(verify(&store, None).await.expect("read").is_intact());
    }

    #[tokio::test]
    async fn a_broken_chain_does_not_age() {
        let (store, trail) = (opened(Location::Memory).await, Trail::new(true));
        let mut head = Head::genesis();
        for subject in 1..=5 {
            head = written(&store, &trail, [subject]).await;
        }
        store.tamper("UPDATE audit:3 SET entry = 'x'").await.expect("written");
        let found = old(&store, 1, &head).await.expect("read").expect("two are old and whole");
        assert_eq!(found.through.sequence, 2);
    }
}
