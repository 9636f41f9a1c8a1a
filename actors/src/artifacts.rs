//! The store of artifacts: the programs that `source_url` names, each kept as a copy by the hash of what it was when it
//! was registered, so that it is known what ran, whatever became of the original.
//!
//! `fetch` brings a source in, `unpack` reads archives, `tree` writes what they hold, and `keep` has all that came, within
//! its budget. Here is who asks: concurrent callers that want the same share one fetch, which is a task of its own.

use std::collections::HashMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, watch};

use crate::egress::{Egress, Reach};
use crate::settings::ArtifactSettings;
pub use fetch::under_roots;
use fetch::{Origin, Rules};
use keep::{Keep, Kept, Shape};

mod fetch;
mod keep;
mod manifest;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;

/// How many sources may come at the same time; this bounds what they take on the disk beyond the budget.
const MAX_FETCHES: usize = 16;

/// What was registered: the SHA-256 of the source's bytes, in lower-case hex. Of an archive it is that of the archive
/// itself; of a folder, that of a listing of what it holds: paths, executable bits and hashes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pin(String);

impl Pin {
    /// How many digits it has.
    pub const LENGTH: usize = 64;

    /// The pin with these digits, if they are 64 in lower-case hex. It becomes a part of paths, so nothing else may be.
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == Self::LENGTH && text.bytes().all(is_digit)).then(|| Self(text.into()))
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn of(hasher: Sha256) -> Self {
        Self(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl TryFrom<String> for Pin {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("a pin is 64 hexadecimal digits in lower case")
    }
}

impl From<Pin> for String {
    fn from(pin: Pin) -> Self {
        pin.0
    }
}

/// Why a source is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// There is no such path, or it leads elsewhere.
    #[error("there is no such source under an allowed root")]
    NotAllowed,
    /// The address is none that is asked.
    #[error("the source {0}")]
    Address(String),
    /// It did not answer, or not to the end.
    #[error("the source {0}")]
    Unreachable(String),
    /// It answered with something else.
    #[error("the source answered with status {0}")]
    Status(u16),
    /// It is something else than it was.
    #[error("the source is not what was registered: its SHA-256 is {}", found.as_str())]
    Mismatch {
        /// What it is now.
        found: Pin,
    },
    /// As it comes.
    #[error("the source is larger than {0} MiB, which is `max_mb`")]
    TooLarge(u64),
    /// As it would be unpacked.
    #[error("the source is larger than {0} MiB when it is unpacked, which is `max_mb`")]
    TooLargeUnpacked(u64),
    /// As it would be unpacked.
    #[error("the source holds more than {} files, folders and links", tree::MAX_ENTRIES)]
    TooManyEntries,
    /// An archive or folder that could harm.
    #[error("the source is refused: its entry {entry:?} {why}")]
    Unsafe {
        /// Its path, as the archive tells it.
        entry: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A damaged archive, or a file that may not be read.
    #[error("the source cannot be read: {0}")]
    Unreadable(String),
    /// This machine's fault: its disk is full, or fails.
    #[error("the source could not be kept here: {0}")]
    NotKept(String),
}

impl Problem {
    /// Whether it stays so as long as the source is what it is. If not, it may be had at another time.
    pub fn is_for_good(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::NotKept(_) => false,
            Self::Status(status) => !matches!(status, 408 | 425 | 429 | 500..),
            Self::NotAllowed
            | Self::Address(_)
            | Self::Mismatch { .. }
            | Self::TooLarge(_)
            | Self::TooLargeUnpacked(_)
            | Self::TooManyEntries
            | Self::Unsafe { .. }
            | Self::Unreadable(_) => true,
        }
    }

    fn unreadable(error: impl ToString) -> Self {
        // It may quote the archive.
        Self::Unreadable(error.to_string().chars().take(300).collect())
    }

    fn not_kept(error: io::Error) -> Self {
        tracing::error!(%error, "an artifact could not be kept");
        Self::NotKept(error.kind().to_string())
    }
}

/// The store. Made once, and shared.
#[derive(Debug)]
pub struct Artifacts {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    rules: Arc<Rules>,
    keep: Keep,
    coming: Mutex<HashMap<Wanted, Coming>>,
    places: Semaphore,
}

/// A source, and what it must be if that is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Wanted {
    source: String,
    pin: Option<Pin>,
}

/// Becomes something once the fetch has ended.
type Coming = watch::Receiver<Option<Result<Arc<Kept>, Problem>>>;

impl Artifacts {
    /// Opens the store in `folder`, which is made if it is missing: what was kept before is found again, and what is
    /// left of interrupted fetches is removed. Local sources come from `roots`, which are looked through in order.
    ///
    /// # Errors
    /// One sentence: the folder cannot be made or read.
    pub fn open(
        settings: &ArtifactSettings,
        folder: PathBuf,
        roots: Vec<PathBuf>,
        egress: Egress,
    ) -> Result<Self, String> {
        let keep = Keep::open(&folder, settings.cache_mb)
            .map_err(|error| format!("the folder {} cannot be used: {error}", folder.display()))?;
        let rules = Arc::new(Rules {
            roots,
            max_mib: settings.max_mb,
            timeout: Duration::from_millis(settings.fetch_timeout_ms),
            egress,
            reach: Reach::of(settings.allow_private),
        });
        let places = Semaphore::new(MAX_FETCHES);
        Ok(Self { shared: Arc::new(Shared { rules, keep, coming: Mutex::default(), places }) })
    }

    /// Brings the source in, keeps it by its hash, and says which it is. With a `sha256` it must be that one, and
    /// what is kept of it already is enough.
    ///
    /// # Errors
    /// It is not to be had, or is something else.
    pub async fn pin(&self, source: &str, sha256: Option<&str>) -> Result<Pin, Problem> {
        let Some(expected) = sha256 else {
            return Ok(self.bring(source, None).await?.pin.clone());
        };
        match Pin::parse(&expected.to_ascii_lowercase()) {
            Some(pin) => Ok(self.lease(source, &pin).await?.kept.pin.clone()),
            // What is no hash is no source's hash.
            None => Err(Problem::Mismatch { found: self.bring(source, None).await?.pin.clone() }),
        }
    }

    /// The artifact with that pin. Where it is not kept any more it is brought in again, and must be the same. While
    /// the lease is held it is not evicted.
    ///
    /// # Errors
    /// It is not to be had any more, or is something else now.
    pub async fn lease(&self, source: &str, pin: &Pin) -> Result<Lease, Problem> {
        let kept = match self.shared.keep.find(pin, &Origin::of(source).shapes()) {
            Some(kept) => kept,
            None => self.bring(source, Some(pin)).await?,
        };
        Ok(Lease { kept, source: source.into() })
    }

    async fn bring(&self, source: &str, pin: Option<&Pin>) -> Result<Arc<Kept>, Problem> {
        let mut coming = self.shared.join(Wanted { source: source.into(), pin: pin.cloned() });
        match coming.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(arrival)) => arrival.clone(),
            Ok(None) | Err(_) => Err(Problem::NotKept("its fetch was broken off".into())),
        }
    }
}

impl Shared {
    /// The fetch of it that is under way, or a new one. It goes on when who asked for it is gone.
    fn join(self: &Arc<Self>, wanted: Wanted) -> Coming {
        let mut coming = self.coming();
        if let Some(fetch) = coming.get(&wanted) {
            return fetch.clone();
        }
        let (done, fetch) = watch::channel(None);
        coming.insert(wanted.clone(), fetch.clone());
        drop(coming);
        let entry = Entry { shared: self.clone(), wanted };
        tokio::spawn(async move {
            let arrival = entry.shared.arrive(&entry.wanted).await;
            // Kept first, then no longer coming: who asks in between finds it.
            drop(entry);
            let _ = done.send(Some(arrival));
        });
        fetch
    }

    fn coming(&self) -> MutexGuard<'_, HashMap<Wanted, Coming>> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn arrive(self: &Arc<Self>, wanted: &Wanted) -> Result<Arc<Kept>, Problem> {
        let origin = Origin::of(&wanted.source);
        if let Some(pin) = wanted.pin.clone() {
            let (shared, shapes) = (self.clone(), origin.shapes());
            let look = tokio::task::spawn_blocking(move || shared.keep.look(&pin, &shapes));
            if let Ok(Some(kept)) = look.await {
                return Ok(kept);
            }
        }
        let _place = self.places.acquire().await;
        let folder = self.keep.temporary().map_err(Problem::not_kept)?;
        let arrived = fetch::fetch(origin, wanted.pin.clone(), self.rules.clone(), folder).await?;
        let shared = self.clone();
        let add = move || {
            tracing::info!(pin = arrived.pin.as_str(), bytes = arrived.bytes, "an artifact has arrived");
            shared.keep.add(arrived.folder, arrived.pin, arrived.shape, arrived.bytes)
        };
        match tokio::task::spawn_blocking(add).await {
            Ok(added) => added.map_err(Problem::not_kept),
            Err(_) => Err(Problem::NotKept("keeping it failed".into())),
        }
    }
}

/// A fetch's entry in the table of those that are under way; it goes with the fetch, however that ends.
struct Entry {
    shared: Arc<Shared>,
    wanted: Wanted,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shared.coming().remove(&self.wanted);
    }
}

/// The right to use an artifact, which stays where it is as long as this is held.
#[derive(Clone, Debug)]
pub struct Lease {
    kept: Arc<Kept>,
    source: Arc<str>,
}

impl Lease {
    /// The file, or the one that `entrypoint` names inside the folder.
    ///
    /// # Errors
    /// One sentence: there is no such file inside, or none is named.
    pub fn file(&self, entrypoint: Option<&str>) -> Result<PathBuf, String> {
        let source = &self.source;
        let Some(inside) = entrypoint else {
            return match &self.kept.shape {
                Shape::File(_) => Ok(self.kept.content.clone()),
                _ => {
                    Err(format!("the source {source:?} is a folder, and no `entrypoint` inside it is named"))
                }
            };
        };
        let folder = self.folder();
        let mut parts = Path::new(inside).components();
        let is_plain = parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        let found = folder.join(inside).canonicalize().ok();
        let found = found.filter(|found| is_plain && found.starts_with(folder));
        match found {
            Some(found) if found.is_file() => Ok(found),
            Some(_) => Err(format!("{inside:?} in the source {source:?} is a folder")),
            None => Err(format!("the source {source:?} has no {inside:?}")),
        }
    }

    /// What it is.
    pub fn pin(&self) -> &Pin {
        &self.kept.pin
    }

    /// The folder that holds it: that of the archive's or folder's content, or one with the single file.
    pub fn folder(&self) -> &Path {
        self.kept.folder()
    }
}
