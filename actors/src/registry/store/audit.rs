//! What the store keeps of the audit log: its entries by their place in the chain, and where the chain begins and ends.
//! Entries are only added, and the oldest removed.

use surrealdb::types::{RecordId, RecordIdKey, SurrealValue, Value};

use super::{Bound, Store, StoreError};
use crate::audit::{Head, Link, Old};

/// What holds the audit log; part of the store's schema.
pub const SCHEMA: &str = "DEFINE TABLE IF NOT EXISTS audit SCHEMALESS;";

/// The record that tells where the chain begins and ends.
const ENDS: (&str, &str) = ("meta", "audit");

#[derive(Debug, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
struct EntryRow {
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
        let last: Vec<FoundRow> = self.rows(sql, Vec::new()).await?;
        match last.into_iter().next().and_then(FoundRow::numbered) {
            Some(last) if last.sequence > head.sequence => Ok(last.head()),
            _ => Ok(head),
        }
    }

    /// Entries after that place, in their order, at most so many.
    ///
    /// # Errors
    /// The store erred.
    pub async fn audit_entries(&self, after: u64, limit: u64) -> Result<Vec<Link>, StoreError> {
        let sql = "SELECT * FROM type::record('audit', $after>..) LIMIT $limit";
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let bound = vec![("after", after.into_value()), ("limit", limit.into_value())];
        let rows: Vec<FoundRow> = self.rows(sql, bound).await?;
        Ok(rows.into_iter().filter_map(FoundRow::numbered).collect())
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
        let rows: Vec<EntryRow> = links.iter().map(EntryRow::of).collect();
        let mut bound: Bound = vec![
            ("rows", rows.into_value()),
            ("ends", RecordId::new(ENDS.0, ENDS.1).into_value()),
            ("sequence", head.sequence.into_value()),
            ("hash", head.hash.clone().into_value()),
        ];
        let base = old.map_or_else(Head::genesis, |old| old.through.clone());
        bound.push(("base_sequence", base.sequence.into_value()));
        bound.push(("base_hash", base.hash.into_value()));
        let sql = match old {
            None => {
                "BEGIN; INSERT INTO audit $rows RETURN NONE; \
                 UPSERT $ends SET sequence = $sequence, hash = $hash, \
                 base_sequence = base_sequence ?? $base_sequence, base_hash = base_hash ?? $base_hash RETURN NONE; COMMIT;"
            }
            Some(old) => {
                let places = old.after.sequence + 1..=old.through.sequence;
                let records: Vec<RecordId> = places.map(record).collect();
                bound.push(("old", records.into_value()));
                "BEGIN; INSERT INTO audit $rows RETURN NONE; DELETE $old RETURN NONE; \
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

fn record(sequence: u64) -> RecordId {
    RecordId::new("audit", i64::try_from(sequence).unwrap_or(i64::MAX))
}

impl EntryRow {
    fn of(link: &Link) -> Self {
        Self { id: record(link.sequence), entry: link.text.clone(), hash: link.hash.clone() }
    }
}

impl FoundRow {
    /// None where its name is no place of a chain: whatever else was put there is none of its entries.
    fn numbered(self) -> Option<Link> {
        let RecordIdKey::Number(number) = self.id.key else { return None };
        let text = |value: Option<Value>| match value {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let sequence = u64::try_from(number).ok()?;
        Some(Link { sequence, text: text(self.entry), hash: text(self.hash) })
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
        store.append_audit(&links, &head, None).await.expect("written");
    }

    /// Where a chain of 12 entries is found to be broken after this was done to it.
    async fn broken(statement: &str) -> Option<(u64, Problem)> {
        let store = Store::open(Location::Memory, Memory(128)).await.expect("opens");
        chain(&store, 12).await;
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
    async fn an_end_that_was_cut_off_is_seen_by_who_noted_its_head() {
        let store = Store::open(Location::Memory, Memory(128)).await.expect("opens");
        chain(&store, 12).await;
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
