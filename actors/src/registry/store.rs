//! The store of definitions and executions: what names SurrealDB is here and below.
//!
//! A record keeps the definition's own JSON text, which is the answer, beside the fields that queries need.
//! Records are addressed by `RecordId`, never by text, so that no id is ever parsed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use surrealdb::Surreal;
use surrealdb::engine::any::{self, Any};
use surrealdb::types::{RecordId, SurrealValue};
use tokio::sync::{Mutex, RwLock};

use crate::artifacts::Pin;
use crate::compiled::Revision;
use crate::definition::{Definition, Kind};
use crate::version;

mod executions;
mod outputs;

use outputs::Outputs;

/// The schema that this version writes.
const SCHEMA_VERSION: u64 = 2;

/// `tags.*` and CONTAINSANY plan an index scan; `tags` or ANYINSIDE would read the whole table.
const SCHEMA: &str = "
    DEFINE TABLE IF NOT EXISTS meta SCHEMALESS;
    DEFINE TABLE IF NOT EXISTS tool SCHEMALESS;
    DEFINE TABLE IF NOT EXISTS `function` SCHEMALESS;
    DEFINE INDEX IF NOT EXISTS tool_tags ON tool FIELDS tags.*;
    DEFINE INDEX IF NOT EXISTS tool_name ON tool FIELDS name;
    DEFINE INDEX IF NOT EXISTS function_tags ON `function` FIELDS tags.*;
    DEFINE INDEX IF NOT EXISTS function_name ON `function` FIELDS name;
";

/// How long a store that was closed may hold its folder's lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A record with this id is there.
    #[error("the record exists already")]
    Exists,
    /// The engine erred; what was being written may or may not be there.
    #[error("{0}")]
    Failed(String),
}

/// Where the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In memory, and gone with the process.
    Memory,
    /// In the folder `store` of this data folder.
    Folder(PathBuf),
}

impl Location {
    /// Reads `store.url`: `mem://` or `surrealkv://FOLDER`.
    pub fn parse(url: &str) -> Option<Self> {
        if url == "mem://" {
            return Some(Self::Memory);
        }
        let folder = url.strip_prefix("surrealkv://").filter(|folder| !folder.is_empty())?;
        Some(Self::Folder(PathBuf::from(folder)))
    }

    fn store_folder(&self) -> Option<PathBuf> {
        match self {
            Self::Memory => None,
            Self::Folder(folder) => Some(folder.join("store")),
        }
    }
}

/// Which records a page is taken from, before the filter has its say on each.
#[derive(Clone, Debug, PartialEq)]
pub enum Candidates {
    /// Every record of the kind.
    All,
    /// Those that have one of these tags.
    Tagged(Vec<String>),
    /// Those with one of these ids.
    Named(Vec<String>),
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    location: Location,
    database: RwLock<Option<Surreal<Any>>>,
    /// It was closed for good.
    is_closed: AtomicBool,
    /// A write failed: what comes after it in the log could be lost with it, so the store is read only until it was
    /// opened again.
    is_suspect: AtomicBool,
    /// One write at a time, so that none follows one that fails.
    writing: Mutex<()>,
    /// Where large outputs go; in memory they stay in their records.
    outputs: Option<Outputs>,
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

const COLUMNS: &str = "key, name, tags, definition, number, created_ms, updated_ms, pin";

impl Store {
    /// Opens the store, making its folder and its schema where they are not there.
    ///
    /// # Errors
    /// A sentence that says what is in the way: another process on the folder, a newer schema, no right to write.
    pub async fn open(location: Location) -> Result<Self, StoreError> {
        let database = connect(&location).await?;
        let outputs = match &location {
            Location::Memory => None,
            Location::Folder(folder) => Some(Outputs::new(folder.join("outputs"))),
        };
        Ok(Self {
            outputs,
            location,
            database: RwLock::new(Some(database)),
            is_closed: AtomicBool::new(false),
            is_suspect: AtomicBool::new(false),
            writing: Mutex::new(()),
        })
    }

    /// Closes the store and opens it again. In memory there is nothing to open again.
    async fn reopen(&self) -> Result<(), StoreError> {
        if self.location == Location::Memory {
            return Ok(());
        }
        drop(self.database.write().await.take());
        self.open_again().await
    }

    /// After a write that failed: opens the store again, as soon as its disk takes what that needs. Until then it can be
    /// read as it is.
    async fn mend(&self) -> Result<(), StoreError> {
        if !self.is_suspect.load(Ordering::Acquire) {
            return Ok(());
        }
        if let Some(folder) = self.location.store_folder() {
            let probing = tokio::task::spawn_blocking(move || probe(&folder)).await;
            let probed = probing.map_err(std::io::Error::other).and_then(|probed| probed);
            probed.map_err(|error| StoreError::Failed(format!("the disk takes nothing: {error}")))?;
            self.reopen().await?;
        }
        self.is_suspect.store(false, Ordering::Release);
        Ok(())
    }

    /// Opens a store that is not open; several that ask at once open it once.
    async fn open_again(&self) -> Result<(), StoreError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(StoreError::Failed("the store is closed".into()));
        }
        let mut database = self.database.write().await;
        if database.is_none() {
            self.wait_for_lock().await?;
            *database = Some(connect(&self.location).await?);
            tracing::info!("the store is open again");
        }
        Ok(())
    }

    /// Closes the store: waits until what was written is on disk and the folder can be opened by another process.
    ///
    /// # Errors
    /// When the folder's lock is still held after ten seconds.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.is_closed.store(true, Ordering::Release);
        drop(self.database.write().await.take());
        self.wait_for_lock().await
    }

    /// There is no close in the library: when the last handle is gone, its background tasks let the lock go.
    async fn wait_for_lock(&self) -> Result<(), StoreError> {
        let Some(folder) = self.location.store_folder() else { return Ok(()) };
        let deadline = tokio::time::Instant::now() + LOCK_TIMEOUT;
        while tokio::time::Instant::now() < deadline {
            if is_unlocked(&folder) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(StoreError::Failed(format!(
            "the store's lock was not released within {} s",
            LOCK_TIMEOUT.as_secs()
        )))
    }

    /// The definition with this id.
    pub async fn get(&self, kind: Kind, id: &str) -> Result<Option<Revision>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM $record");
        let rows: Vec<Row> = self.rows(&sql, vec![("record", record(kind, id).into_value())]).await?;
        rows.into_iter().next().map(|row| row.revision(kind)).transpose()
    }

    /// The ids of all versions of a name.
    pub async fn versions(&self, kind: Kind, name: &str) -> Result<Vec<String>, StoreError> {
        let sql = format!("SELECT VALUE key FROM {} WHERE name = $name", table(kind));
        self.rows(&sql, vec![("name", name.to_owned().into_value())]).await
    }

    /// A page of candidates in the order of their ids, each as its id and its JSON text: those after an id, or all
    /// of `Candidates::Named`.
    pub async fn page(
        &self,
        kind: Kind,
        candidates: &Candidates,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let (name, table) = (kind.name(), table(kind));
        let after_value = after.unwrap_or_default().to_owned().into_value();
        let limit_value = (limit as u64).into_value();
        let mut bound = vec![("after", after_value), ("limit", limit_value)];
        let from = match candidates {
            Candidates::All if after.is_some() => format!("type::record('{name}', $after>..)"),
            Candidates::All => format!("{table} ORDER BY id"),
            Candidates::Tagged(tags) => {
                bound.push(("tags", tags.clone().into_value()));
                format!("{table} WHERE tags CONTAINSANY $tags AND key > $after ORDER BY key")
            }
            Candidates::Named(ids) => {
                let records: Vec<RecordId> = ids.iter().map(|id| record(kind, id)).collect();
                bound.push(("records", records.into_value()));
                "$records ORDER BY key".to_owned()
            }
        };
        let rows: Vec<Row> = self.rows(&format!("SELECT {COLUMNS} FROM {from} LIMIT $limit"), bound).await?;
        Ok(rows.into_iter().map(|row| (row.key, row.definition)).collect())
    }

    /// Adds a definition.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where its id is taken.
    pub async fn create(&self, revision: &Revision) -> Result<(), StoreError> {
        self.write("CREATE $record CONTENT $row RETURN NONE", revision).await
    }

    /// Replaces a definition that is there.
    pub async fn replace(&self, revision: &Revision) -> Result<(), StoreError> {
        self.write("UPDATE $record CONTENT $row RETURN NONE", revision).await
    }

    /// Removes a definition.
    pub async fn delete(&self, kind: Kind, id: &str) -> Result<(), StoreError> {
        self.execute("DELETE $record RETURN NONE", vec![("record", record(kind, id).into_value())]).await
    }

    async fn write(&self, sql: &str, revision: &Revision) -> Result<(), StoreError> {
        let definition = &revision.definition;
        let bound = vec![
            ("record", record(definition.kind, &definition.id).into_value()),
            ("row", Row::of(revision).into_value()),
        ];
        self.execute(sql, bound).await
    }

    /// Writes. After a failure what was being written may or may not be there.
    async fn execute(&self, sql: &str, bound: Bound) -> Result<(), StoreError> {
        let _turn = self.writing.lock().await;
        self.mend().await?;
        let written = self.query(sql, bound).await.map(|_| ());
        if matches!(written, Err(StoreError::Failed(_))) {
            self.is_suspect.store(true, Ordering::Release);
        }
        written
    }

    async fn rows<T: SurrealValue>(&self, sql: &str, bound: Bound) -> Result<Vec<T>, StoreError> {
        Ok(self.query(sql, bound).await?.take(0)?)
    }

    /// Whether the store is open; one that is being reopened is not.
    pub fn is_open(&self) -> bool {
        self.database.try_read().is_ok_and(|database| database.is_some())
    }

    async fn query(&self, sql: &str, bound: Bound) -> Result<surrealdb::IndexedResults, StoreError> {
        let mut database = self.database.read().await;
        if database.is_none() {
            // It could not be reopened when it failed; whoever comes next tries again.
            drop(database);
            self.open_again().await?;
            database = self.database.read().await;
        }
        let database = database.as_ref().ok_or_else(|| StoreError::Failed("the store is closed".into()))?;
        let query = bound.into_iter().fold(database.query(sql), |query, pair| query.bind(pair));
        // A statement that failed is `Ok` until it is checked.
        Ok(query.await?.check()?)
    }
}

type Bound = Vec<(&'static str, surrealdb::types::Value)>;

impl From<surrealdb::Error> for StoreError {
    fn from(error: surrealdb::Error) -> Self {
        if error.is_already_exists() { Self::Exists } else { Self::Failed(error.to_string()) }
    }
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

async fn connect(location: &Location) -> Result<Surreal<Any>, StoreError> {
    let url = match location.store_folder() {
        None => "mem://".to_owned(),
        Some(folder) => {
            let place = folder.display().to_string();
            let made = std::fs::create_dir_all(&folder);
            made.map_err(|error| StoreError::Failed(format!("the folder {place} cannot be made: {error}")))?;
            if !is_unlocked(&folder) {
                return Err(StoreError::Failed(format!("the store {place} is in use by another process")));
            }
            format!("surrealkv://{place}?sync={}", sync())
        }
    };
    let database = any::connect(url).await?;
    database.use_ns("org").use_db("executor").await?;
    database.query(SCHEMA).await?.check()?;
    database.query(executions::SCHEMA).await?.check()?;
    check_version(&database).await?;
    Ok(database)
}

/// When a commit is on disk: before it is answered. A test has it otherwise, to show that it would notice.
fn sync() -> String {
    let every = "every".to_owned();
    #[cfg(feature = "faults")]
    return std::env::var("ORG_EXECUTOR_STORE_SYNC").unwrap_or(every);
    #[cfg(not(feature = "faults"))]
    every
}

/// Refuses a store that a newer version wrote; notes the version in a new one.
async fn check_version(database: &Surreal<Any>) -> Result<(), StoreError> {
    let record = RecordId::new("meta", "schema");
    let select = database.query("SELECT VALUE version FROM $record").bind(("record", record.clone()));
    let found: Vec<u64> = select.await?.check()?.take(0)?;
    match found.first() {
        Some(version) if *version > SCHEMA_VERSION => Err(StoreError::Failed(format!(
            "the store has schema {version}, written by a newer version of this service, which knows {SCHEMA_VERSION}"
        ))),
        Some(&SCHEMA_VERSION) => Ok(()),
        // An older one has all that it needs once the tables above are defined.
        _ => {
            let upsert = database.query("UPSERT $record CONTENT { version: $version } RETURN NONE");
            upsert.bind(("record", record)).bind(("version", SCHEMA_VERSION)).await?.check()?;
            Ok(())
        }
    }
}

/// Whether the disk takes as much as opening the store may need: its log is written anew where its end is broken.
fn probe(folder: &Path) -> std::io::Result<()> {
    let mut bytes = 1 << 20;
    for entry in std::fs::read_dir(folder.join("wal")).into_iter().flatten().flatten() {
        bytes += entry.metadata().map_or(0, |about| about.len());
    }
    let file = folder.join("probe");
    let probed = std::fs::File::create(&file).and_then(|mut probe| {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        nix::fcntl::posix_fallocate(&probe, 0, bytes)?;
        std::io::Write::write_all(&mut probe, &[1; 4_096])?;
        probe.sync_all()
    });
    std::fs::remove_file(&file)?;
    probed
}

/// Whether nobody holds the folder's lock file; a folder without one is free.
fn is_unlocked(folder: &Path) -> bool {
    let Ok(file) = std::fs::OpenOptions::new().read(true).write(true).open(folder.join("LOCK")) else {
        return true;
    };
    file.try_lock().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(kind: Kind, id: &str, tags: &[&str]) -> Revision {
        let tags = serde_json::Value::from(tags.to_vec());
        let body = format!(
            r#"{{"{0}_id":{1},"{0}_tags":{tags},"{0}_metadata":{{"a":[18446744073709551615,9007199254740993,1e308,0.1,-0.0]}}}}"#,
            kind.name(),
            crate::json::quote(id),
        );
        let definition = Definition::parse(kind, &body).expect("valid");
        Revision { definition, number: 1, created_ms: 2, updated_ms: 3, pin: None }
    }

    async fn memory() -> Store {
        Store::open(Location::Memory).await.expect("opens")
    }

    #[tokio::test]
    async fn what_was_stored_comes_back_byte_for_byte() {
        let store = memory().await;
        for id in ["a", "weather_lookup:v1.0.0-stable", "⟨x⟩", "`x`", "a'; DELETE tool; --", "日本", "a b"]
        {
            let stored = revision(Kind::Tool, id, &["x", "y'"]);
            store.create(&stored).await.expect("created");
            assert!(matches!(store.create(&stored).await, Err(StoreError::Exists)));
            assert_eq!(store.get(Kind::Tool, id).await.expect("read"), Some(stored));
            assert_eq!(store.get(Kind::Function, id).await.expect("read"), None);
        }
        store.delete(Kind::Tool, "a").await.expect("deleted");
        assert_eq!(store.get(Kind::Tool, "a").await.expect("read"), None);
    }

    #[tokio::test]
    async fn pages_follow_the_ids_and_candidates_are_narrowed() {
        let store = memory().await;
        for (id, tags) in [("a", ["x", "y"]), ("b", ["y", "z"]), ("c", ["x", "z"]), ("d:v1.0.0", ["x", "x"])]
        {
            store.create(&revision(Kind::Function, id, &tags)).await.expect("created");
        }
        let page = async |candidates: Candidates, after: Option<&str>, limit| {
            let rows = store.page(Kind::Function, &candidates, after, limit).await.expect("read");
            rows.into_iter().map(|(id, _)| id).collect::<Vec<_>>()
        };
        assert_eq!(page(Candidates::All, None, 3).await, ["a", "b", "c"]);
        assert_eq!(page(Candidates::All, Some("c"), 3).await, ["d:v1.0.0"]);
        let tagged = |tags: &[&str]| Candidates::Tagged(tags.iter().map(|tag| (*tag).into()).collect());
        assert_eq!(page(tagged(&["x"]), None, 2).await, ["a", "c"]);
        assert_eq!(page(tagged(&["x", "z"]), Some("a"), 9).await, ["b", "c", "d:v1.0.0"]);
        let named = Candidates::Named(vec!["c".into(), "a".into(), "none".into()]);
        assert_eq!(page(named, None, 9).await, ["a", "c"]);
        assert_eq!(store.versions(Kind::Function, "d").await.expect("read"), ["d:v1.0.0"]);
    }

    #[tokio::test]
    async fn the_tags_query_is_planned_over_its_index() {
        let store = memory().await;
        store.create(&revision(Kind::Tool, "a", &["x"])).await.expect("created");
        for (filter, index) in
            [("tags CONTAINSANY $tags AND key > $after", "tool_tags"), ("name = 'a'", "tool_name")]
        {
            let sql = format!("SELECT {COLUMNS} FROM tool WHERE {filter} EXPLAIN");
            let bound =
                vec![("tags", vec!["x".to_owned(), "y".to_owned()].into_value()), ("after", "".into_value())];
            let plan: Option<surrealdb::types::Value> =
                store.query(&sql, bound).await.expect("planned").take(0).expect("a plan");
            let plan = format!("{plan:?}");
            assert!(plan.contains(index) && !plan.contains("TableScan"), "{plan}");
        }
    }

    #[tokio::test]
    async fn a_folder_is_kept_reopened_and_refused_to_a_second_user() {
        let folder = tempfile::tempdir().expect("a folder");
        let location = Location::Folder(folder.path().into());
        let store = Store::open(location.clone()).await.expect("opens");
        store.create(&revision(Kind::Tool, "a", &[])).await.expect("created");
        let refused = Store::open(location.clone()).await.expect_err("in use");
        assert!(refused.to_string().contains("in use by another process"), "{refused}");
        store.reopen().await.expect("reopens");
        assert!(store.get(Kind::Tool, "a").await.expect("read").is_some());
        store.close().await.expect("closes");
        let again = Store::open(location).await.expect("opens again");
        assert!(again.get(Kind::Tool, "a").await.expect("read").is_some());
    }
}
