//! What the store keeps of the audit log: its entries in blocks, each by the place of its last one, and where the chain begins
//! and ends. Blocks are only added, and the oldest removed. One record for each entry would cost more than what it tells of.

use surrealdb::types::{RecordId, RecordIdKey, SurrealValue, Value};

use super::{Bound, Store, StoreError};
use crate::audit::{Head, Link, Old};

/// What holds the audit log; part of the store's schema.
pub const SCHEMA: &str = "DEFINE TABLE IF NOT EXISTS audit SCHEMALESS;";

/// How many entries one block has at most.
const BLOCK: usize = 250;

/// The record that tells where the chain begins and ends.
const ENDS: (&str, &str) = ("meta", "audit");

/// A block: the texts of its entries, a line each, and in the same order their hashes.
#[derive(Debug, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
struct BlockRow {
    id: RecordId,
    entry: String,
    hash: String,
}

/// As it is read: who tampers with the store may leave anything.
#[derive(Debug, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
struct FoundRow {
    id: RecordId,
    entry: Option<Value>,
    hash: Option<Value>,
}

#[derive(Debug, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
struct EndsRow {
    id: RecordId,
    sequence: u64,
    hash: String,
    base_sequence: u64,
    base_hash: String,
}

impl Store {
    /// Where the chain begins, which is after what was removed in order, and where it ends, as was noted with its last
    /// entry.
    ///
    /// # Errors
    /// The store erred.
    pub async fn audit_ends(&self) -> Result<(Head, Head), StoreError> {
        let record = RecordId::new(ENDS.0, ENDS.1).into_value();
        let rows: Vec<EndsRow> = self.rows("SELECT * FROM $record", vec![("record", record)]).await?;
        Ok(match rows.into_iter().next() {
            Some(row) => (
                Head { sequence: row.base_sequence, hash: row.base_hash },
                Head { sequence: row.sequence, hash: row.hash },
            ),
            None => (Head::genesis(), Head::genesis()),
        })
    }

    /// After which entry the next one is written. Whoever took the note of the end away, or set it back, is found, but
    /// does not stop the log.
    ///
    /// # Errors
    /// The store erred.
    pub async fn audit_head(&self) -> Result<Head, StoreError> {
        let (_, head) = self.audit_ends().await?;
        let sql = "SELECT * FROM audit ORDER BY id DESC LIMIT 1";
        let rows: Vec<FoundRow> = self.rows(sql, Vec::new()).await?;
        let last = rows.into_iter().next().and_then(|row| row.links().pop());
        Ok(last.filter(|last| last.sequence > head.sequence).map_or(head, |last| last.head()))
    }

    /// Entries after that place, in their order, at most so many.
    ///
    /// # Errors
    /// The store erred.
    pub async fn audit_entries(&self, after: u64, limit: u64) -> Result<Vec<Link>, StoreError> {
        let blocks = self.audit_blocks(after, limit).await?;
        let links = blocks.into_iter().flatten().filter(|link| link.sequence > after);
        Ok(links.take(usize::try_from(limit).unwrap_or(usize::MAX)).collect())
    }

    /// The blocks that hold them, whole, and no more than are needed.
    ///
    /// # Errors
    /// The store erred.
    pub async fn audit_blocks(&self, after: u64, limit: u64) -> Result<Vec<Vec<Link>>, StoreError> {
        let sql = "SELECT * FROM type::record('audit', $after>..) LIMIT $limit";
        let (mut blocks, mut place, mut missing) = (Vec::new(), after, limit);
        while missing > 0 {
            // Where each is full, so many are enough.
            let asked = missing.div_ceil(BLOCK as u64) + 1;
            let bound = vec![("after", number(place).into_value()), ("limit", asked.into_value())];
            let rows: Vec<FoundRow> = self.rows(sql, bound).await?;
            let (begun, mut is_end) = (place, (rows.len() as u64) < asked);
            for row in rows {
                place = row.place().unwrap_or(place);
                let links = row.links();
                if missing > 0 && !links.is_empty() {
                    missing = missing
                        .saturating_sub(links.iter().filter(|link| link.sequence > after).count() as u64);
                    blocks.push(links);
                }
            }
            // Records that are no blocks stand behind all that are.
            is_end |= place == begun;
            if is_end {
                break;
            }
        }
        Ok(blocks)
    }

    /// The places of the first blocks, at most so many, and the last entry of the last of them that is not after `through`.
    ///
    /// # Errors
    /// The store erred.
    pub async fn audit_places(
        &self,
        through: u64,
        limit: u64,
    ) -> Result<(Vec<u64>, Option<Head>), StoreError> {
        let sql = "SELECT VALUE id FROM type::record('audit', ..=$through) LIMIT $limit";
        let bound = vec![("through", number(through).into_value()), ("limit", limit.into_value())];
        let ids: Vec<RecordId> = self.rows(sql, bound).await?;
        let places: Vec<u64> = ids.iter().filter_map(place).collect();
        let Some(last) = places.last() else { return Ok((places, None)) };
        let blocks = self.audit_blocks(last - 1, 1).await?;
        Ok((places, blocks.first().and_then(|block| block.last()).map(Link::head)))
    }

    /// Adds to the chain, which then has this head, and removes what is old: all of it or nothing.
    ///
    /// # Errors
    /// The store erred, or there is an entry at such a place: whether it is written is unknown.
    pub async fn append_audit(
        &self,
        links: &[Link],
        head: &Head,
        old: Option<&Old>,
    ) -> Result<(), StoreError> {
        let rows: Vec<BlockRow> = links.chunks(BLOCK).map(BlockRow::of).collect();
        let before = links.first().map_or(head.sequence, |link| link.sequence.saturating_sub(1));
        let mut bound: Bound = vec![
            ("rows", rows.into_value()),
            ("before", number(before).into_value()),
            ("ends", RecordId::new(ENDS.0, ENDS.1).into_value()),
            ("sequence", head.sequence.into_value()),
            ("hash", head.hash.clone().into_value()),
        ];
        let base = old.map_or_else(Head::genesis, |old| old.through.clone());
        bound.push(("base_sequence", base.sequence.into_value()));
        bound.push(("base_hash", base.hash.into_value()));
        let sql = match old {
            None => {
                "BEGIN; \
                 IF array::len(SELECT VALUE id FROM type::record('audit', $before>..) LIMIT 1) > 0 { THROW 'there is one' }; \
                 INSERT INTO audit $rows RETURN NONE; \
                 UPSERT $ends SET sequence = $sequence, hash = $hash, \
                 base_sequence = base_sequence ?? $base_sequence, base_hash = base_hash ?? $base_hash RETURN NONE; COMMIT;"
            }
            Some(old) => {
                let records: Vec<RecordId> = old.blocks.iter().copied().map(record).collect();
                bound.push(("old", records.into_value()));
                "BEGIN; \
                 IF array::len(SELECT VALUE id FROM type::record('audit', $before>..) LIMIT 1) > 0 { THROW 'there is one' }; \
                 INSERT INTO audit $rows RETURN NONE; DELETE $old RETURN NONE; \
                 UPSERT $ends SET sequence = $sequence, hash = $hash, \
                 base_sequence = $base_sequence, base_hash = $base_hash RETURN NONE; COMMIT;"
            }
        };
        self.execute(sql, bound).await
    }

    /// Whether it keeps nothing on disk.
    pub fn is_in_memory(&self) -> bool {
        self.location == super::Location::Memory
    }

    /// Does whatever a statement says, for a test that tampers with what is stored.
    ///
    /// # Errors
    /// The store erred.
    #[cfg(any(test, feature = "faults"))]
    pub async fn tamper(&self, statement: &str) -> Result<(), StoreError> {
        self.execute(statement, Vec::new()).await
    }
}

fn number(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

fn record(sequence: u64) -> RecordId {
    RecordId::new("audit", number(sequence))
}

/// None where its name is no place of a chain: whatever else was put there is none of its entries.
fn place(id: &RecordId) -> Option<u64> {
    let RecordIdKey::Number(number) = id.key else { return None };
    u64::try_from(number).ok()
}

impl BlockRow {
    /// Of entries that follow each other; an entry's text is one line.
    fn of(links: &[Link]) -> Self {
        let lines = |line: fn(&Link) -> &str| links.iter().map(line).collect::<Vec<_>>().join("\n");
        Self {
            id: record(links.last().map_or(0, |link| link.sequence)),
            entry: lines(|link| &link.text),
            hash: lines(|link| &link.hash),
        }
    }
}

impl FoundRow {
    fn place(&self) -> Option<u64> {
        place(&self.id)
    }

    /// Its entries, whose last one stands at its place.
    fn links(self) -> Vec<Link> {
        let Some(place) = self.place() else { return Vec::new() };
        let text = |value: Option<Value>| match value {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let (texts, hashes) = (text(self.entry), text(self.hash));
        let mut hashes = hashes.split('\n');
        let first = (place + 1).saturating_sub(texts.split('\n').count() as u64);
        let links = (first..).zip(texts.split('\n'));
        links
            .map(|(sequence, text)| Link {
                sequence,
                text: text.to_owned(),
                hash: hashes.next().unwrap_or_default().to_owned(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::{Location, Memory};
    use super::*;
    use crate::audit::{Action, Door, Event, Origin, Problem, verify};

    async fn chain(store: &Store, length: u64) {
        chain_by(store, length, usize::MAX).await;
    }

    /// Adds so many entries, and so many of them with each commit.
    async fn chain_by(store: &Store, length: u64, commit: usize) {
        let origin = Arc::new(Origin::stranger("127.0.0.1".parse().expect("an address"), Door::Rest));
        let (_, mut head) = store.audit_ends().await.expect("read");
        let events = (1..=length).map(|number| {
            Event::done(origin.clone(), Action::DefinitionCreate, format!("tool/{number}\n"), json!({}))
        });
        let links: Vec<Link> = events
            .map(|event| {
                let link = Link::after(&head, &event);
                head = link.head();
                link
            })
            .collect();
        for links in links.chunks(commit) {
            store.append_audit(links, &links[links.len() - 1].head(), None).await.expect("written");
        }
    }

    /// Where a chain of 12 entries is found to be broken after this was done to it.
    async fn broken(statement: &str) -> Option<(u64, Problem)> {
        broken_by(1, statement).await
    }

    async fn broken_by(commit: usize, statement: &str) -> Option<(u64, Problem)> {
        let store = Store::open(Location::Memory, Memory(128)).await.expect("opens");
        chain_by(&store, 12, commit).await;
        assert_eq!(verify(&store, None).await.expect("read").broken, None);
        store.tamper(statement).await.expect(statement);
        let broken = verify(&store, None).await.expect("read").broken;
        broken.map(|broken| (broken.sequence, broken.problem))
    }

    #[tokio::test]
    async fn whatever_is_done_to_the_store_is_found_at_its_place() {
        for (statement, found) in [
            (
                "UPDATE audit:5 SET entry = string::replace(entry, 'create', 'delete')",
                Some((5, Problem::Changed)),
            ),
            ("UPDATE audit:5 SET hash = 'x'", Some((5, Problem::Changed))),
            ("UPDATE audit:5 SET entry = 5", Some((5, Problem::Changed))),
            ("UPDATE audit:5 UNSET entry", Some((5, Problem::Changed))),
            ("DELETE audit:1", Some((1, Problem::Missing))),
            ("DELETE audit:5", Some((5, Problem::Missing))),
            ("DELETE audit:12", Some((12, Problem::Missing))),
            ("DELETE audit", Some((1, Problem::Missing))),
            (
                "CREATE audit:13 SET entry = (SELECT VALUE entry FROM ONLY audit:12), hash = 'x'",
                Some((13, Problem::Inserted)),
            ),
            ("CREATE audit:0 SET entry = '', hash = ''", None),
            ("CREATE audit:foreign SET entry = '', hash = ''", None),
            (
                "BEGIN; LET $a = (SELECT * FROM ONLY audit:3); LET $b = (SELECT * FROM ONLY audit:8);
                 UPDATE audit:3 SET entry = $b.entry, hash = $b.hash;
                 UPDATE audit:8 SET entry = $a.entry, hash = $a.hash; COMMIT;",
                Some((3, Problem::Reordered)),
            ),
            ("UPDATE meta:audit SET sequence = 11", Some((12, Problem::Inserted))),
            ("UPDATE meta:audit SET base_sequence = 4, base_hash = 'x'", Some((1, Problem::Inserted))),
            ("DELETE meta:audit", Some((1, Problem::Inserted))),
        ] {
            assert_eq!(broken(statement).await, found, "{statement}");
        }
    }

    #[tokio::test]
    async fn whatever_is_done_to_a_block_is_found_at_its_place() {
        for (statement, found) in [
            (
                "UPDATE audit:8 SET entry = string::replace(entry, 'tool/6', 'tool/7')",
                Some((6, Problem::Changed)),
            ),
            ("UPDATE audit:8 SET hash = string::replace(hash, '\n', '')", Some((5, Problem::Changed))),
            ("UPDATE audit:8 SET entry = 5", Some((5, Problem::Missing))),
            ("UPDATE audit:8 UNSET hash", Some((5, Problem::Changed))),
            ("DELETE audit:8", Some((5, Problem::Missing))),
            ("CREATE audit:7 SET entry = '', hash = ''", Some((5, Problem::Missing))),
            (
                "UPDATE audit:8 SET entry = string::join('\n', entry, entry), hash = string::join('\n', hash, hash)",
                Some((1, Problem::Inserted)),
            ),
            (
                "UPDATE audit:8 SET entry = array::join(array::reverse(string::split(entry, '\n')), '\n')",
                Some((5, Problem::Reordered)),
            ),
        ] {
            assert_eq!(broken_by(4, statement).await, found, "{statement}");
        }
    }

    #[tokio::test]
    async fn blocks_are_read_from_any_entry_on_and_removed_whole() {
        let store = Store::open(Location::Memory, Memory(128)).await.expect("opens");
        chain_by(&store, 12, 4).await;
        let numbers = |links: Vec<Link>| links.iter().map(|link| link.sequence).collect::<Vec<_>>();
        for after in 0..12 {
            let links = store.audit_entries(after, 5).await.expect("read");
            assert_eq!(numbers(links), (after + 1..=12).take(5).collect::<Vec<_>>());
        }
        let (places, last) = store.audit_places(11, 10).await.expect("read");
        assert_eq!((places, last.map(|head| head.sequence)), (vec![4, 8], Some(8)));
        // Another block over the same entries.
        let before = store.audit_entries(9, 1).await.expect("read").remove(0).head();
        let links = [Link::after(
            &before,
            &crate::audit::Event::done(Arc::new(Origin::service()), Action::ServiceStop, "", json!({})),
        )];
        store.append_audit(&links, &links[0].head(), None).await.expect_err("it is within the last block");
        assert!(verify(&store, None).await.expect("read").is_intact());
    }

    #[tokio::test]
    async fn an_end_that_was_cut_off_is_seen_by_who_noted_its_head() {
        let store = Store::open(Location::Memory, Memory(128)).await.expect("opens");
        chain_by(&store, 12, 1).await;
        let (_, head) = store.audit_ends().await.expect("read");
        let cut = "BEGIN; DELETE audit:11, audit:12; \
                   UPDATE meta:audit SET sequence = 10, hash = (SELECT VALUE hash FROM ONLY audit:10); COMMIT;";
        store.tamper(cut).await.expect("written");
        assert!(verify(&store, None).await.expect("read").is_intact());
        chain(&store, 5).await;
        let report = verify(&store, Some(&head.hash)).await.expect("read");
        assert!(!report.is_intact() && report.broken.is_none(), "{report:?}");
        assert_eq!(report.noted.and_then(|noted| noted.sequence), None);
    }

    #[tokio::test]
    async fn a_long_chain_is_read_in_pages() {
        let store = Store::open(Location::Memory, Memory(128)).await.expect("opens");
        for _ in 0..6 {
            chain(&store, 2_000).await;
        }
        let report = verify(&store, None).await.expect("read");
        assert_eq!((report.entries, report.head.sequence, report.is_intact()), (12_000, 12_000, true));
        let some = store.audit_entries(9_999, 3).await.expect("read");
        assert_eq!(some.iter().map(|link| link.sequence).collect::<Vec<_>>(), [10_000, 10_001, 10_002]);
    }
}
