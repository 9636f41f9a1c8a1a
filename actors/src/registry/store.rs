//! The store of definitions and executions: what names SurrealDB is here and below.
//!
//! A record keeps the definition's own JSON text, which is the answer, beside the fields that queries need.
//! Records are addressed by `RecordId`, never by text, so that no id is ever parsed.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use surrealdb::Surreal;
use surrealdb::engine::local::Db;
use surrealdb::types::{RecordId, SurrealValue};
use surrealdb_cnf::ConfigMap;
use surrealdb_engine_local::Datastore;
use tokio::sync::{Mutex, RwLock};

use super::search::Search;
use crate::execution::now_ms;

mod audit;
mod definitions;
mod executions;
mod keys;
mod outputs;
mod segment;

pub use definitions::{Change, Noted, Place, Scan, Stored};
use outputs::Outputs;

/// The schema that this version writes.
const SCHEMA_VERSION: u64 = 4;

/// What every store has.
const SCHEMA: &str = "DEFINE TABLE IF NOT EXISTS meta SCHEMALESS;";

/// How long a store that was closed may hold its folder's lock: one of a million definitions, just loaded, was seen to
/// hold it for longer than ten seconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

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

    /// Whether there is anything yet.
    pub fn is_made(&self) -> bool {
        self.store_folder().is_some_and(|folder| folder.is_dir())
    }

    /// Whose its folder is, where there is one.
    pub fn owner(&self) -> Option<nix::unistd::Uid> {
        let about = std::fs::metadata(self.store_folder()?).ok()?;
        Some(nix::unistd::Uid::from_raw(about.uid()))
    }

    fn store_folder(&self) -> Option<PathBuf> {
        match self {
            Self::Memory => None,
            Self::Folder(folder) => Some(folder.join("store")),
        }
    }
}

/// How much memory the engine may take, in MiB. It goes by what its library lets be set: half is for what is written and not
/// yet in a file of its own, of which there may be two parts at a time, and half for blocks of files that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory(pub u64);

impl Memory {
    fn settings(self) -> ConfigMap {
        let bytes = self.0 << 20;
        let settings =
            [("surrealkv_max_memtable_size", bytes / 4), ("surrealkv_block_cache_capacity", bytes / 2)];
        settings
            .into_iter()
            .fold(ConfigMap::empty(), |map, (key, bytes)| map.with_key_value(key, bytes.to_string()))
    }
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    location: Location,
    /// Which folder it was opened in: another one may come to its place.
    folder: Option<(u64, u64)>,
    memory: Memory,
    database: RwLock<Option<Surreal<Db>>>,
    /// It was closed for good.
    is_closed: AtomicBool,
    /// A write failed: what comes after it in the log could be lost with it, so the store is read only until it was
    /// opened again.
    is_suspect: AtomicBool,
    /// One write at a time, so that none follows one that fails.
    writing: Mutex<()>,
    /// One at a time gives the text index what it lacks.
    levelling: Mutex<()>,
    /// Where large outputs go; in memory they stay in their records.
    outputs: Option<Outputs>,
    /// The text index of its definitions.
    search: Arc<Search>,
    /// The latest moment of which something was written: no write is of an earlier one, also where the machine's clock
    /// was set back.
    clock: AtomicU64,
}

impl Store {
    /// Opens the store, making its folder and its schema where they are not there.
    ///
    /// # Errors
    /// A sentence that says what is in the way: another process on the folder, a newer schema, no right to write.
    pub async fn open(location: Location, memory: Memory) -> Result<Self, StoreError> {
        let database = connect(&location, memory).await?;
        let (outputs, search) = match &location {
            Location::Memory => (None, None),
            Location::Folder(folder) => {
                (Some(Outputs::new(folder.join("outputs"))), Some(folder.join("search")))
            }
        };
        let store = Self {
            outputs,
            search: Arc::new(Search::new(search)),
            clock: AtomicU64::new(0),
            folder: location.store_folder().as_deref().and_then(identity),
            location,
            memory,
            database: RwLock::new(Some(database)),
            is_closed: AtomicBool::new(false),
            is_suspect: AtomicBool::new(false),
            writing: Mutex::new(()),
            levelling: Mutex::new(()),
        };
        store.clock.store(store.latest().await?, Ordering::Release);
        Ok(store)
    }

    /// Now, and never before what was written already; in milliseconds since the epoch.
    pub fn now(&self) -> u64 {
        let now = now_ms();
        self.clock.fetch_max(now, Ordering::AcqRel).max(now)
    }

    /// The text index of its definitions.
    pub fn search(&self) -> &Arc<Search> {
        &self.search
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
            // What was being written when it failed may be there.
            self.search.distrust();
        }
        self.is_suspect.store(false, Ordering::Release);
        Ok(())
    }

    /// Opens a store that is not open; several that ask at once open it once.
    async fn open_again(&self) -> Result<(), StoreError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(StoreError::Failed("the store is closed".into()));
        }
        self.check_place()?;
        let mut database = self.database.write().await;
        if database.is_none() {
            self.wait_for_lock().await?;
            *database = Some(connect(&self.location, self.memory).await?);
            tracing::info!("the store is open again");
        }
        Ok(())
    }

    /// Closes the store: waits until what was written is on disk and the folder can be opened by another process.
    ///
    /// # Errors
    /// When the folder's lock is still held after a minute.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.is_closed.store(true, Ordering::Release);
        let search = self.search.clone();
        let closed = tokio::task::spawn_blocking(move || search.close()).await;
        closed.map_err(|error| StoreError::Failed(error.to_string()))?;
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

    /// Writes. After a failure what was being written may or may not be there.
    async fn execute(&self, sql: &str, bound: Bound) -> Result<(), StoreError> {
        let _turn = self.writing.lock().await;
        self.execute_in_turn(sql, bound).await
    }

    /// The same, by who holds the turn.
    async fn execute_in_turn(&self, sql: &str, bound: Bound) -> Result<(), StoreError> {
        self.check_place()?;
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

    /// Whether the store is open where it was made; one that is being reopened is not.
    pub fn is_open(&self) -> bool {
        self.database.try_read().is_ok_and(|database| database.is_some()) && self.check_place().is_ok()
    }

    /// What is written into a folder that was removed is gone with this process.
    fn check_place(&self) -> Result<(), StoreError> {
        let is_there = || self.location.store_folder().as_deref().and_then(identity) == self.folder;
        if self.folder.is_none() || is_there() {
            return Ok(());
        }
        Err(StoreError::Failed("its folder was removed or replaced while the service ran".into()))
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

async fn connect(location: &Location, memory: Memory) -> Result<Surreal<Db>, StoreError> {
    let url = match location.store_folder() {
        None => "mem://".to_owned(),
        Some(folder) => {
            let place = folder.display().to_string();
            let made = private_folder(&folder);
            made.map_err(|error| StoreError::Failed(format!("the folder {place} cannot be made: {error}")))?;
            if !is_unlocked(&folder) {
                return Err(StoreError::Failed(format!("the store {place} is in use by another process")));
            }
            if has_files(&folder.join("sstables")) && !has_files(&folder.join("manifest")) {
                let lacks = "has tables and no manifest that names them: a part of it is missing";
                return Err(StoreError::Failed(format!("the store {place} {lacks}")));
            }
            let begun = segment::begin(&folder);
            begun.map_err(|error| StoreError::Failed(format!("the log of the store {place}: {error}")))?;
            format!("surrealkv://{place}?sync={}", sync())
        }
    };
    let unopened = |error| StoreError::Failed(format!("the store {url} cannot be opened: {error}"));
    let database = opened(&url, memory).await.map_err(unopened)?;
    database.use_ns("org").use_db("executor").await?;
    database.query(SCHEMA).await?.check()?;
    database.query(definitions::SCHEMA).await?.check()?;
    database.query(executions::SCHEMA).await?.check()?;
    database.query(keys::SCHEMA).await?.check()?;
    database.query(audit::SCHEMA).await?.check()?;
    check_version(&database).await?;
    Ok(database)
}

/// What the library's own `connect` does, with the engine's settings: it takes none.
async fn opened(url: &str, memory: Memory) -> Result<Surreal<Db>, StoreError> {
    let failed = |error: &dyn std::fmt::Display| StoreError::Failed(error.to_string());
    let builder = Datastore::builder().with_config(memory.settings());
    // Its upkeep writes, and begins after the first write is there that tells the version of what is stored.
    let datastore = builder.without_maintenance_tasks().build_with_path(url).await;
    let datastore = datastore.map_err(|error| failed(&error))?;
    datastore.check_version().await.map_err(|error| failed(&error))?;
    datastore.bootstrap().await.map_err(|error| failed(&error))?;
    datastore.start_maintenance_tasks();
    Ok(Surreal::<Db>::unstable_from_datastore(datastore, None).await?)
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
async fn check_version(database: &Surreal<Db>) -> Result<(), StoreError> {
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

/// Makes a folder that nobody but this user may look into, or makes it so: what executions were given and put out is in it.
pub(super) fn private_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mode = std::fs::metadata(folder)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode & 0o700))
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

/// What no other folder of this machine has: its device and its inode.
fn identity(folder: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(folder).ok().map(|about| (about.dev(), about.ino()))
}

fn has_files(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
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
    use crate::compiled::Revision;
    use crate::definition::{Definition, Kind};

    pub(super) fn revision(id: &str) -> Revision {
        let body = format!(r#"{{"tool_id":"{id}"}}"#);
        let definition = Definition::parse(Kind::Tool, &body).expect("valid");
        Revision { definition, number: 1, created_ms: 2, updated_ms: 3, pin: None }
    }

    #[tokio::test]
    async fn a_folder_is_kept_reopened_and_refused_to_a_second_user() {
        let folder = tempfile::tempdir().expect("a folder");
        let location = Location::Folder(folder.path().into());
        let store = Store::open(location.clone(), Memory(128)).await.expect("opens");
        store.create(&revision("a")).await.expect("created");
        let refused = Store::open(location.clone(), Memory(128)).await.expect_err("in use");
        assert!(refused.to_string().contains("in use by another process"), "{refused}");
        store.reopen().await.expect("reopens");
        assert!(store.get(Kind::Tool, "a").await.expect("read").is_some());
        store.close().await.expect("closes");
        let again = Store::open(location, Memory(128)).await.expect("opens again");
        assert!(again.get(Kind::Tool, "a").await.expect("read").is_some());
    }

    #[tokio::test]
    async fn nothing_is_written_into_a_folder_that_was_removed_or_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(Location::Folder(folder.path().into()), Memory(128)).await.expect("opens");
        store.create(&revision("a")).await.expect("created");
        assert!(store.is_open());
        std::fs::rename(folder.path().join("store"), folder.path().join("moved")).expect("moved");
        for _ in 0..2 {
            let refused = store.create(&revision("b")).await.expect_err("it is gone");
            assert!(refused.to_string().contains("removed or replaced"), "{refused}");
            assert!(!store.is_open());
            std::fs::create_dir_all(folder.path().join("store")).expect("another one");
        }
        std::fs::remove_dir(folder.path().join("store")).expect("empty still");
        std::fs::rename(folder.path().join("moved"), folder.path().join("store")).expect("moved back");
        store.create(&revision("b")).await.expect("it is there again");
    }

    #[tokio::test]
    async fn a_store_that_is_not_whole_is_not_taken_for_a_new_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let location = Location::Folder(folder.path().into());
        let store = folder.path().join("store");
        std::fs::create_dir_all(store.join("sstables")).expect("made");
        std::fs::write(store.join("sstables/00000000000000000001.sst"), "x").expect("written");
        let refused = Store::open(location.clone(), Memory(128)).await.expect_err("no manifest");
        assert!(refused.to_string().contains("no manifest"), "{refused}");
        assert!(store.join("sstables/00000000000000000001.sst").exists());
    }
}
