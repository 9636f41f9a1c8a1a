//! What the store keeps of definitions: each as it is now, what it was before, and which are gone. What is written here
//! is told to the text index.

use std::collections::HashMap;

use surrealdb::types::{RecordId, SurrealValue, Value};

use super::{Bound, Store, StoreError};
use crate::artifacts::Pin;
use crate::compiled::Revision;
use crate::definition::{Definition, Kind};
use crate::registry::page::{By, Position, Sort};
use crate::registry::search::Entry;
use crate::version;

/// What holds definitions; part of the store's schema. `tags.*` and CONTAINSANY plan an index scan; `tags` or ANYINSIDE
/// would read the whole table.
pub const SCHEMA: &str = "
    DEFINE TABLE IF NOT EXISTS tool SCHEMALESS;
    DEFINE TABLE IF NOT EXISTS `function` SCHEMALESS;
    DEFINE TABLE IF NOT EXISTS history SCHEMALESS;
    DEFINE TABLE IF NOT EXISTS removal SCHEMALESS;
    DEFINE INDEX IF NOT EXISTS tool_tags ON tool FIELDS tags.*;
    DEFINE INDEX IF NOT EXISTS tool_name ON tool FIELDS name;
    DEFINE INDEX IF NOT EXISTS tool_created ON tool FIELDS created_ms, key;
    DEFINE INDEX IF NOT EXISTS tool_updated ON tool FIELDS updated_ms, key;
    DEFINE INDEX IF NOT EXISTS function_tags ON `function` FIELDS tags.*;
    DEFINE INDEX IF NOT EXISTS function_name ON `function` FIELDS name;
    DEFINE INDEX IF NOT EXISTS function_created ON `function` FIELDS created_ms, key;
    DEFINE INDEX IF NOT EXISTS function_updated ON `function` FIELDS updated_ms, key;
";

const COLUMNS: &str = "key, name, tags, definition, number, created_ms, updated_ms, pin";

/// The columns of a [`Stored`].
const STORED: &str = "key, definition, created_ms, updated_ms";

/// The columns of a [`Place`].
const PLACE: &str = "key, created_ms, updated_ms";

/// How many earlier revisions of a definition are kept.
pub const KEPT_REVISIONS: u64 = 100;

/// Which records a page is taken from, before the filter has its say on each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The first id, itself among them.
    pub from: Option<String>,
    /// The last id, itself among them.
    pub to: Option<String>,
}

/// Where a definition stands in each order.
#[derive(Clone, Debug, PartialEq, Eq, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
pub struct Place {
    /// Its id.
    pub key: String,
    /// When it was created, in milliseconds since the epoch.
    pub created_ms: u64,
    /// When it was last written.
    pub updated_ms: u64,
}

/// A definition as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
pub struct Stored {
    /// Its id.
    #[surreal(rename = "key")]
    pub id: String,
    /// Its JSON text.
    #[surreal(rename = "definition")]
    pub text: String,
    /// When it was created, in milliseconds since the epoch.
    pub created_ms: u64,
    /// When it was last written.
    pub updated_ms: u64,
}

/// A change of one definition.
#[derive(Debug)]
pub enum Change {
    /// There is none with its id, and now this one.
    Create(Revision),
    /// It is another revision now; the one before becomes history.
    Replace { before: Box<Revision>, now: Box<Revision> },
}

/// One revision of a definition, without the definition.
#[derive(Clone, Debug, PartialEq, Eq, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
pub struct Noted {
    /// Its number.
    pub number: u64,
    /// When the definition was created.
    pub created_ms: u64,
    /// When this revision was written.
    pub updated_ms: u64,
}

#[derive(Debug, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
struct Row {
    key: String,
    name: String,
    tags: Vec<String>,
    definition: String,
    number: u64,
    created_ms: u64,
    updated_ms: u64,
    pin: Option<String>,
}

#[derive(Debug, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
struct Gone {
    kind: String,
    key: String,
    at_ms: u64,
}

impl Store {
    /// The definition with this id.
    pub async fn get(&self, kind: Kind, id: &str) -> Result<Option<Revision>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM $record");
        let rows: Vec<Row> = self.rows(&sql, vec![("record", record(kind, id).into_value())]).await?;
        rows.into_iter().next().map(|row| row.revision(kind)).transpose()
    }

    /// Those of these definitions that there are, by their ids.
    pub async fn get_all(&self, kind: Kind, ids: &[&str]) -> Result<HashMap<String, Revision>, StoreError> {
        let rows: Vec<Row> = self.of_these(kind, ids, COLUMNS).await?;
        rows.into_iter().map(|row| Ok((row.key.clone(), row.revision(kind)?))).collect()
    }

    /// The ids of all versions of a name.
    pub async fn versions(&self, kind: Kind, name: &str) -> Result<Vec<String>, StoreError> {
        let sql = format!("SELECT VALUE key FROM {} WHERE name = $name", table(kind));
        self.rows(&sql, vec![("name", name.to_owned().into_value())]).await
    }

    /// Those of these definitions that there are, in the order of the ids given.
    pub async fn named(&self, kind: Kind, ids: &[String]) -> Result<Vec<Stored>, StoreError> {
        let rows: Vec<Stored> = self.of_these(kind, ids, STORED).await?;
        let mut found: HashMap<String, Stored> = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
        Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
    }

    /// Where those of these definitions that there are stand.
    pub async fn places(&self, kind: Kind, ids: &[String]) -> Result<Vec<Place>, StoreError> {
        self.of_these(kind, ids, PLACE).await
    }

    async fn of_these<T: SurrealValue>(
        &self,
        kind: Kind,
        ids: &[impl AsRef<str>],
        columns: &str,
    ) -> Result<Vec<T>, StoreError> {
        let records: Vec<RecordId> = ids.iter().map(|id| record(kind, id.as_ref())).collect();
        let sql = format!("SELECT {columns} FROM $records");
        self.rows(&sql, vec![("records", records.into_value())]).await
    }

    /// The definitions that have of each of these sets at least one tag; nothing where there are more than `most`.
    pub async fn tagged(
        &self,
        kind: Kind,
        sets: &[Vec<String>],
        most: usize,
    ) -> Result<Option<Vec<Stored>>, StoreError> {
        self.few(kind, sets, STORED, most).await
    }

    /// Where they stand; nothing where there are more than `most`.
    pub async fn tagged_places(
        &self,
        kind: Kind,
        sets: &[Vec<String>],
        most: usize,
    ) -> Result<Option<Vec<Place>>, StoreError> {
        self.few(kind, sets, PLACE, most).await
    }

    async fn few<T: SurrealValue>(
        &self,
        kind: Kind,
        sets: &[Vec<String>],
        columns: &str,
        most: usize,
    ) -> Result<Option<Vec<T>>, StoreError> {
        let Statement { from, mut bound } = Statement::tagged(kind, sets);
        bound.push(("limit", (most as u64 + 1).into_value()));
        let found: Vec<T> = self.rows(&format!("SELECT {columns} FROM {from} LIMIT $limit"), bound).await?;
        Ok((found.len() <= most).then_some(found))
    }

    /// A page of a scan in this order, after a position in it.
    pub async fn page(
        &self,
        kind: Kind,
        scan: &Scan,
        sort: Sort,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Vec<Stored>, StoreError> {
        let mut found = Vec::new();
        for statement in Statement::of(kind, scan, sort, after) {
            let mut bound = statement.bound;
            bound.push(("limit", ((limit - found.len()) as u64).into_value()));
            let sql = format!("SELECT {STORED} FROM {} LIMIT $limit", statement.from);
            let rows: Vec<Stored> = self.rows(&sql, bound).await?;
            found.extend(rows);
            if found.len() == limit {
                break;
            }
        }
        Ok(found)
    }

    /// The revisions of a definition that are history, the newest first.
    pub async fn history(&self, kind: Kind, id: &str) -> Result<Vec<Noted>, StoreError> {
        let sql = "SELECT number, created_ms, updated_ms FROM type::record('history', $from..$to)";
        let mut noted: Vec<Noted> = self.rows(sql, history_range(kind, id)).await?;
        noted.sort_unstable_by_key(|noted| std::cmp::Reverse(noted.number));
        Ok(noted)
    }

    /// A revision of a definition that is history.
    pub async fn revision(&self, kind: Kind, id: &str, number: u64) -> Result<Option<Revision>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM $record");
        let record = history_record(kind, id, number).into_value();
        let rows: Vec<Row> = self.rows(&sql, vec![("record", record)]).await?;
        rows.into_iter().next().map(|row| row.revision(kind)).transpose()
    }

    /// Adds a definition.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where its id is taken.
    pub async fn create(&self, revision: &Revision) -> Result<(), StoreError> {
        let definition = &revision.definition;
        let bound = vec![
            ("record", record(definition.kind, &definition.id).into_value()),
            ("row", Row::of(revision).into_value()),
        ];
        let entries = [Entry::Put(definition)];
        self.change("CREATE $record CONTENT $row RETURN NONE", bound, revision.updated_ms, &entries).await
    }

    /// Makes all of these changes or none. They are of one kind and of different definitions.
    pub async fn apply(&self, kind: Kind, changes: &[Change]) -> Result<(), StoreError> {
        let mut writes = Writes::default();
        changes.iter().for_each(|change| writes.add(change));
        let (sql, bound) = writes.statements(kind);
        let now = changes.iter().map(|change| change.now().updated_ms).max().unwrap_or_default();
        let entries: Vec<_> = changes.iter().map(|change| Entry::Put(&change.now().definition)).collect();
        self.change(&sql, bound, now, &entries).await
    }

    /// Removes a definition and its history.
    pub async fn delete(&self, kind: Kind, id: &str) -> Result<(), StoreError> {
        let at_ms = self.now();
        let gone = Gone { kind: kind.name().to_owned(), key: id.to_owned(), at_ms };
        let mut bound = history_range(kind, id);
        bound.push(("record", record(kind, id).into_value()));
        bound.push(("removal", RecordId::new("removal", key_of(kind, id)).into_value()));
        bound.push(("gone", gone.into_value()));
        let sql = "BEGIN; DELETE $record RETURN NONE; \
                   DELETE type::record('history', $from..$to) RETURN NONE; \
                   UPSERT $removal CONTENT $gone RETURN NONE; COMMIT;";
        self.change(sql, bound, at_ms, &[Entry::Remove(kind, id)]).await
    }

    /// Gives the text index what it lacks, if it lacks anything.
    ///
    /// # Errors
    /// The store cannot be read, or the index cannot be written.
    pub async fn level(&self) -> Result<(), StoreError> {
        let _turn = self.levelling.lock().await;
        if self.search.is_level() {
            return Ok(());
        }
        let search = self.search.clone();
        let since = blocking(move || search.open()).await?;
        for kind in Kind::ALL {
            self.level_kind(kind, since).await?;
        }
        let gone: Vec<Gone> = self
            .rows(
                "SELECT kind, key, at_ms FROM removal WHERE at_ms >= $since",
                vec![("since", since.into_value())],
            )
            .await?;
        for gone in &gone {
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == gone.kind);
            if let Some(kind) = kind
                && self.get(kind, &gone.key).await?.is_none()
            {
                self.search.take(gone.at_ms, &[Entry::Remove(kind, &gone.key)]);
            }
        }
        self.search.levelled();
        let search = self.search.clone();
        let clock = blocking(move || search.commit()).await?;
        let forget = "DELETE removal WHERE at_ms < $clock RETURN NONE";
        self.execute(forget, vec![("clock", clock.into_value())]).await
    }

    async fn level_kind(&self, kind: Kind, since: u64) -> Result<(), StoreError> {
        const BATCH: usize = 1_000;
        let sort = Sort { by: By::Updated, descending: false };
        // Those of the very moment of the last commit may lack.
        let mut after = Position { sort, rank: since.saturating_sub(1), id: String::new() };
        let mut given = 0;
        loop {
            let rows = self.page(kind, &Scan::default(), sort, Some(&after), BATCH).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = Position { sort, rank: last.updated_ms, id: last.id.clone() };
            let (is_last, clock) = (rows.len() < BATCH, last.updated_ms);
            given += rows.len() as u64;
            let definitions = rows.iter().map(|row| Definition::from_stored(kind, &row.text));
            // What cannot be read cannot be found; that it is there is told where it is asked for.
            let definitions: Vec<_> = definitions.filter_map(Result::ok).collect();
            let entries: Vec<_> = definitions.iter().map(Entry::Put).collect();
            self.search.take(clock, &entries);
            if given % 50_000 < BATCH as u64 || is_last {
                let search = self.search.clone();
                blocking(move || search.commit()).await?;
            }
            if given >= 50_000 {
                tracing::info!(kind = kind.name(), given, "the text index is given what it lacks");
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// The latest moment of which a write is stored.
    pub async fn latest(&self) -> Result<u64, StoreError> {
        let mut latest = 0;
        for name in Kind::ALL.map(table) {
            let sql =
                format!("SELECT VALUE updated_ms FROM {name} ORDER BY updated_ms DESC, key DESC LIMIT 1");
            let found: Vec<u64> = self.rows(&sql, Vec::new()).await?;
            latest = found.into_iter().fold(latest, u64::max);
        }
        let gone: Vec<u64> = self.rows("SELECT VALUE at_ms FROM removal", Vec::new()).await?;
        Ok(gone.into_iter().fold(latest, u64::max))
    }

    async fn change(
        &self,
        sql: &str,
        bound: Bound,
        clock: u64,
        entries: &[Entry<'_>],
    ) -> Result<(), StoreError> {
        let turn = self.writing.lock().await;
        self.execute_in_turn(sql, bound).await?;
        // Before the next write, so that the index comes along in the order of the writes.
        self.search.take(clock, entries);
        drop(turn);
        Ok(())
    }
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, crate::registry::search::SearchError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StoreError::Failed(error.to_string()))?
        .map_err(|error| StoreError::Failed(error.to_string()))
}

impl Change {
    /// The definition as it is after the change.
    pub fn now(&self) -> &Revision {
        match self {
            Self::Create(now) => now,
            Self::Replace { now, .. } => now,
        }
    }
}

/// What a set of changes inserts, replaces and removes.
#[derive(Default)]
struct Writes {
    created: Vec<Value>,
    replaced: Vec<Value>,
    history: Vec<Value>,
    outdated: Vec<RecordId>,
}

impl Writes {
    fn add(&mut self, change: &Change) {
        let definition = &change.now().definition;
        let row = with_id(record(definition.kind, &definition.id), Row::of(change.now()).into_value());
        match change {
            Change::Create(_) => self.created.push(row),
            Change::Replace { before, now } => {
                self.replaced.push(row);
                let of = |number| history_record(definition.kind, &definition.id, number);
                self.history.push(with_id(of(before.number), Row::of(before).into_value()));
                self.outdated.extend(now.number.checked_sub(KEPT_REVISIONS + 1).map(of));
            }
        }
    }

    fn statements(self, kind: Kind) -> (String, Bound) {
        let (mut statements, mut bound) = (Vec::new(), Bound::new());
        if !self.created.is_empty() {
            statements.push(format!("INSERT INTO {} $created RETURN NONE;", table(kind)));
            bound.push(("created", self.created.into_value()));
        }
        if !self.replaced.is_empty() {
            statements.push("INSERT IGNORE INTO history $history RETURN NONE;".to_owned());
            bound.push(("history", self.history.into_value()));
            statements.push("FOR $row IN $replaced { UPDATE $row.id CONTENT $row RETURN NONE };".to_owned());
            bound.push(("replaced", self.replaced.into_value()));
        }
        if !self.outdated.is_empty() {
            statements.push("DELETE $outdated RETURN NONE;".to_owned());
            bound.push(("outdated", self.outdated.into_value()));
        }
        match statements.as_slice() {
            [one] => (one.clone(), bound),
            many => (format!("BEGIN; {} COMMIT;", many.join(" ")), bound),
        }
    }
}

fn with_id(id: RecordId, row: Value) -> Value {
    let Value::Object(mut row) = row else { return row };
    row.insert("id".to_owned(), id.into_value());
    Value::Object(row)
}

/// A part of a scan: what stands behind FROM, and what is bound in it.
struct Statement {
    from: String,
    bound: Bound,
}

impl Statement {
    /// The parts, one after the other in the order that is wanted. Each is what an index gives in its own order, so
    /// that no more is read than the page has.
    fn of(kind: Kind, scan: &Scan, sort: Sort, after: Option<&Position>) -> Vec<Self> {
        let column = match sort.by {
            By::Id | By::Relevance => None,
            By::Created => Some("created_ms"),
            By::Updated => Some("updated_ms"),
        };
        match (column, after) {
            (None, after) if sort.descending => vec![Self::downwards(kind, scan, after)],
            (None, after) => vec![Self::upwards(kind, scan, after)],
            (Some(column), None) => vec![Self::ordered(kind, scan, sort, column, None)],
            (Some(column), Some(after)) => vec![
                Self::ordered(kind, scan, sort, column, Some((true, after))),
                Self::ordered(kind, scan, sort, column, Some((false, after))),
            ],
        }
    }

    /// By their ids, which are where the records are. A range of records comes in its own order; sorted otherwise, it would
    /// be cut before it is sorted.
    fn upwards(kind: Kind, scan: &Scan, after: Option<&Position>) -> Self {
        let from = scan.from.as_ref().filter(|from| after.is_none_or(|after| **from > after.id));
        let mut bound = Bound::new();
        let mut range = String::new();
        if let Some(from) = from {
            range += "$low";
            bound.push(("low", from.clone().into_value()));
        } else if let Some(after) = after {
            range += "$low>";
            bound.push(("low", after.id.clone().into_value()));
        }
        range += "..";
        if let Some(to) = &scan.to {
            range += "=$high";
            bound.push(("high", to.clone().into_value()));
        }
        let from = match range.as_str() {
            ".." => format!("{} ORDER BY id", table(kind)),
            range => format!("type::record('{}', {range})", kind.name()),
        };
        Self { from, bound }
    }

    /// By their ids from the end, which a range cannot do: what was passed already is passed again, a microsecond each.
    fn downwards(kind: Kind, scan: &Scan, after: Option<&Position>) -> Self {
        let (mut conditions, mut bound) = (Vec::new(), Bound::new());
        let mut add = |condition: &str, name: &'static str, id: &str| {
            conditions.push(format!("id {condition} ${name}"));
            bound.push((name, record(kind, id).into_value()));
        };
        if let Some(after) = after {
            add("<", "after", &after.id);
        }
        if let Some(from) = &scan.from {
            add(">=", "from", from);
        }
        if let Some(to) = &scan.to {
            add("<=", "to", to);
        }
        let from = format!("{}{} ORDER BY id DESC", table(kind), wherever(&conditions));
        Self { from, bound }
    }

    /// Those that have of each of these sets at least one tag.
    fn tagged(kind: Kind, sets: &[Vec<String>]) -> Self {
        let (mut conditions, mut bound) = (Vec::new(), Bound::new());
        for (tags, name) in sets.iter().zip(TAG_NAMES) {
            conditions.push(format!("tags CONTAINSANY ${name}"));
            bound.push((name, tags.clone().into_value()));
        }
        Self { from: format!("{}{}", table(kind), wherever(&conditions)), bound }
    }

    /// By a moment: all; or, after a position, first those of its own moment, then those beyond it.
    fn ordered(kind: Kind, scan: &Scan, sort: Sort, column: &str, after: Option<(bool, &Position)>) -> Self {
        let (mut conditions, mut bound) = (Vec::new(), Bound::new());
        let (direction, beyond) = if sort.descending { (" DESC", "<") } else { ("", ">") };
        let mut order = format!("{column}{direction}, key{direction}");
        if let Some((is_same_moment, after)) = after {
            bound.push(("moment", after.rank.into_value()));
            if is_same_moment {
                conditions.push(format!("{column} = $moment"));
                conditions.push(format!("key {beyond} $after"));
                bound.push(("after", after.id.clone().into_value()));
                order = format!("key{direction}");
            } else {
                conditions.push(format!("{column} {beyond} $moment"));
            }
        }
        if let Some(from) = &scan.from {
            conditions.push("key >= $from".to_owned());
            bound.push(("from", from.clone().into_value()));
        }
        if let Some(to) = &scan.to {
            conditions.push("key <= $to".to_owned());
            bound.push(("to", to.clone().into_value()));
        }
        Self { from: format!("{}{} ORDER BY {order}", table(kind), wherever(&conditions)), bound }
    }
}

/// Names for the sets of tags: how many of them are used, the others are left to the filter.
const TAG_NAMES: [&str; 4] = ["tags_a", "tags_b", "tags_c", "tags_d"];

fn wherever(conditions: &[String]) -> String {
    if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) }
}

impl Row {
    fn of(revision: &Revision) -> Self {
        let definition = &revision.definition;
        Self {
            key: definition.id.clone(),
            name: version::split(&definition.id).map_or(definition.id.as_str(), |(name, _)| name).to_owned(),
            tags: definition.tags.clone(),
            definition: definition.to_json(),
            number: revision.number,
            created_ms: revision.created_ms,
            updated_ms: revision.updated_ms,
            pin: revision.pin.as_ref().map(|pin| pin.as_str().to_owned()),
        }
    }

    fn revision(self, kind: Kind) -> Result<Revision, StoreError> {
        let definition = Definition::from_stored(kind, &self.definition).map_err(|error| {
            StoreError::Failed(format!("the record {:?} cannot be read: {error}", self.key))
        })?;
        Ok(Revision {
            definition,
            number: self.number,
            created_ms: self.created_ms,
            updated_ms: self.updated_ms,
            pin: self.pin.as_deref().and_then(Pin::parse),
        })
    }
}

/// `function` is a word of the query language, and a name only between backticks.
fn table(kind: Kind) -> String {
    format!("`{}`", kind.name())
}

fn record(kind: Kind, id: &str) -> RecordId {
    RecordId::new(kind.name(), id)
}

/// Kind and id in one text; neither has a control character.
fn key_of(kind: Kind, id: &str) -> String {
    format!("{}\u{1}{id}", kind.name())
}

/// Numbers have as many digits as a u64 may need, so that their order is that of their texts.
fn history_record(kind: Kind, id: &str, number: u64) -> RecordId {
    RecordId::new("history", format!("{}\u{1}{number:020}", key_of(kind, id)))
}

/// From the first revision of a definition to behind the last.
fn history_range(kind: Kind, id: &str) -> Bound {
    let key = key_of(kind, id);
    vec![("from", format!("{key}\u{1}").into_value()), ("to", format!("{key}\u{2}").into_value())]
}

#[cfg(test)]
mod tests;
