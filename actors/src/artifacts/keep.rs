//! What is kept, and where: `<folder>/<sha256><shape>/`, with a single file under its own name, or an unpacked archive
//! or copied folder in `tree/` beside a `manifest` that tells what it holds.
//!
//! The map and the folder change together, under one lock. Who holds an [`Arc`] of something kept keeps it from being
//! evicted: outside the map, arcs are made under that lock or from one that is held.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::Pin;
use super::manifest::{Manifest, restore_file};

/// How the names of folders begin in which something arrives or goes.
const TEMPORARY: &str = ".incoming-";

/// How often at most the last use of an artifact is written down.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

/// How long a kept file's name may be.
const MAX_NAME: usize = 100;

/// What is made of a source's bytes. The same bytes are kept once for each shape: the ending of a file's name chooses
/// its interpreter, and one file can be an archive in two ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A file of that name, in plain characters.
    File(String),
    /// An unpacked archive.
    Zip,
    /// An unpacked archive.
    TarGz,
    /// A copied folder.
    Folder,
}

impl Shape {
    /// What a file's name says.
    pub fn of_name(name: &str) -> Self {
        let has = |ending: &str| {
            let start = name.len().checked_sub(ending.len()).and_then(|start| name.get(start..));
            start.is_some_and(|found| found.eq_ignore_ascii_case(ending))
        };
        if has(".zip") {
            Self::Zip
        } else if has(".tar.gz") || has(".tgz") {
            Self::TarGz
        } else {
            Self::File(plain(name))
        }
    }

    /// Whether it is a folder of files, with a manifest beside it.
    pub fn is_tree(&self) -> bool {
        !matches!(self, Self::File(_))
    }

    /// The name of the content in the artifact's own folder.
    pub fn content(&self) -> &str {
        match self {
            Self::File(name) => name,
            Self::Zip | Self::TarGz | Self::Folder => "tree",
        }
    }

    /// The name of the folder for an artifact of this shape. A hash has no dot and no hyphen, so it can be read back.
    fn place(&self, pin: &Pin) -> String {
        let pin = pin.as_str();
        match self {
            Self::File(name) => format!("{pin}-{name}"),
            Self::Zip => format!("{pin}.zip"),
            Self::TarGz => format!("{pin}.tar.gz"),
            Self::Folder => format!("{pin}.folder"),
        }
    }

    fn read(place: &str) -> Option<(Pin, Self)> {
        let (pin, rest) = place.split_at_checked(Pin::LENGTH)?;
        let shape = match rest {
            ".zip" => Self::Zip,
            ".tar.gz" => Self::TarGz,
            ".folder" => Self::Folder,
            _ => Self::File(rest.strip_prefix('-').filter(|name| plain(name) == *name)?.to_owned()),
        };
        Some((Pin::parse(pin)?, shape))
    }
}

/// A name in letters, digits, `.`, `_` and `-` that is no option, not hidden and not too long; its end, which may
/// choose an interpreter, stays.
fn plain(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let mut name: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    name.drain(..name.len().saturating_sub(MAX_NAME));
    if name.is_empty() {
        return "file".into();
    }
    if name.starts_with(['.', '-']) {
        name.replace_range(..1, "_");
    }
    name
}

/// Something that is kept.
#[derive(Debug)]
pub struct Kept {
    pub pin: Pin,
    pub shape: Shape,
    /// The file, or the folder of what was unpacked.
    pub content: PathBuf,
    /// The folder made for it.
    home: PathBuf,
    bytes: u64,
    /// When it was used last, and what its folder says of that, in nanoseconds since 1970.
    used: AtomicU64,
    written: AtomicU64,
    /// Whether it is what it was. Of what was found at a start this is found out when somebody first wants it.
    is_whole: OnceLock<bool>,
}

impl Kept {
    fn new(home: PathBuf, pin: Pin, shape: Shape, bytes: u64, used: u64, is_whole: OnceLock<bool>) -> Self {
        let content = home.join(shape.content());
        let (used, written) = (AtomicU64::new(used), AtomicU64::new(used));
        Self { pin, shape, content, home, bytes, used, written, is_whole }
    }

    /// The folder that holds the content and nothing else.
    pub fn folder(&self) -> &Path {
        if self.shape.is_tree() { &self.content } else { &self.home }
    }

    fn is_certain(&self) -> bool {
        self.is_whole.get() == Some(&true)
    }

    /// Notes that it is used. From time to time its folder's mtime tells it to a later process.
    fn note_use(self: &Arc<Self>) {
        let now = now();
        self.used.store(now, Ordering::Relaxed);
        let written = self.written.load(Ordering::Relaxed);
        let is_due = Duration::from_nanos(now.saturating_sub(written)) >= TOUCH_EVERY;
        if is_due && self.written.compare_exchange(written, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            let kept = self.clone();
            tokio::task::spawn_blocking(move || {
                // Only the order of eviction after a restart depends on it.
                let _ = File::open(&kept.home).and_then(|home| home.set_modified(SystemTime::now()));
            });
        }
    }

    /// Compares the content with what it was, and removes what else has come to be there.
    fn look(&self) -> bool {
        if self.shape.is_tree() {
            Manifest::restore(&self.home, &self.content)
        } else {
            restore_file(&self.home, self.shape.content(), &self.pin).unwrap_or(false)
        }
    }

    /// The same bytes came as a file that is executable, and before as one that is not.
    fn take_over_mode(&self, arrived: &Path) -> io::Result<()> {
        if self.shape.is_tree() {
            return Ok(());
        }
        let mode = fs::metadata(arrived.join(self.shape.content()))?.permissions();
        if mode.mode() & 0o111 == 0 { Ok(()) } else { fs::set_permissions(&self.content, mode) }
    }
}

fn now() -> u64 {
    nanos(SystemTime::now())
}

fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|age| u64::try_from(age.as_nanos()).ok())
        .unwrap_or_default()
}

/// A folder that goes with all that is in it, unless it is put in its place.
#[derive(Debug)]
pub struct Temporary(PathBuf);

impl Temporary {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Moves it to where it stays, open to all.
    fn put(self, place: &Path) -> io::Result<()> {
        fs::set_permissions(&self.0, Permissions::from_mode(0o755))?;
        fs::rename(&self.0, place)
        // What this drops is no longer there.
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "what is left of an artifact could not be removed");
        }
    }
}

/// All that is kept.
#[derive(Debug)]
pub struct Keep {
    folder: PathBuf,
    budget: u64,
    /// By the name of its folder.
    kept: Mutex<HashMap<String, Arc<Kept>>>,
}

impl Keep {
    /// Finds what was kept before; what has no meaning any more is removed.
    pub fn open(folder: &Path, budget_mib: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o755))?;
        let folder = folder.canonicalize()?;
        let mut kept = HashMap::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((pin, shape)) = Shape::read(&name) else {
                if name.starts_with(TEMPORARY) {
                    drop(Temporary(entry.path()));
                }
                continue;
            };
            match found(entry.path(), pin, shape) {
                Some(found) => drop(kept.insert(name, Arc::new(found))),
                None => drop(Temporary(entry.path())),
            }
        }
        Ok(Self { folder, budget: budget_mib.saturating_mul(1 << 20), kept: Mutex::new(kept) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Kept>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first of these shapes that is kept and certain. Cheap.
    pub fn find(&self, pin: &Pin, shapes: &[Shape]) -> Option<Arc<Kept>> {
        let kept = self.lock();
        let found =
            shapes.iter().find_map(|shape| kept.get(&shape.place(pin)).filter(|found| found.is_certain()));
        found.inspect(|found| found.note_use()).cloned()
    }

    /// The same, where what was found at the start is looked at first; what is no longer what it was is dropped. Blocks.
    pub fn look(&self, pin: &Pin, shapes: &[Shape]) -> Option<Arc<Kept>> {
        for shape in shapes {
            let place = shape.place(pin);
            let Some(found) = self.lock().get(&place).cloned() else { continue };
            // Who looks at the same time waits for the first.
            if !found.is_whole.get_or_init(|| found.look()) {
                tracing::warn!(place, "a kept artifact is no longer what it was, and is dropped");
            }
            let mut kept = self.lock();
            // Meanwhile it may have come again.
            let is_same = kept.get(&place).is_some_and(|now| Arc::ptr_eq(now, &found));
            if is_same && !found.is_certain() {
                let gone = self.drop_from(&mut kept, &place);
                drop(kept);
                drop(gone);
                continue;
            }
            if let Some(now) = kept.get(&place).filter(|now| now.is_certain()) {
                now.note_use();
                return Some(now.clone());
            }
        }
        None
    }

    /// A folder in which something may arrive; only this user enters it.
    pub fn temporary(&self) -> io::Result<Temporary> {
        let path = self.temporary_path();
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Temporary(path))
    }

    fn temporary_path(&self) -> PathBuf {
        self.folder.join(format!("{TEMPORARY}{}", Uuid::now_v7()))
    }

    /// Keeps what has arrived, unless it is here, and lets go of what the budget does not hold. Blocks.
    pub fn add(&self, arrived: Temporary, pin: Pin, shape: Shape, bytes: u64) -> io::Result<Arc<Kept>> {
        let place = shape.place(&pin);
        let home = self.folder.join(&place);
        let mut gone = Vec::new();
        let mut kept = self.lock();
        if let Some(here) = kept.get(&place).filter(|here| here.is_certain()).cloned() {
            drop(kept);
            here.take_over_mode(arrived.path())?;
            here.note_use();
            return Ok(here);
        }
        // It was not looked at since the start, and what has just come is certain.
        gone.extend(self.drop_from(&mut kept, &place));
        arrived.put(&home)?;
        let new = Arc::new(Kept::new(home, pin, shape, bytes, now(), OnceLock::from(true)));
        kept.insert(place, new.clone());
        self.evict(&mut kept, &mut gone);
        drop(kept);
        // Only now: removing takes its time.
        drop(gone);
        Ok(new)
    }

    /// Lets go of what was not used for longest until the rest fits; what somebody holds stays.
    fn evict(&self, kept: &mut HashMap<String, Arc<Kept>>, gone: &mut Vec<Temporary>) {
        let mut total: u64 = kept.values().map(|kept| kept.bytes).sum();
        while total > self.budget {
            let free = kept.iter().filter(|(_, kept)| Arc::strong_count(kept) == 1);
            let Some((place, oldest)) = free.min_by_key(|(_, kept)| kept.used.load(Ordering::Relaxed)) else {
                return;
            };
            total = total.saturating_sub(oldest.bytes);
            let place = place.clone();
            gone.extend(self.drop_from(kept, &place));
        }
    }

    /// Takes it from the map and moves its folder out of the way.
    fn drop_from(&self, kept: &mut HashMap<String, Arc<Kept>>, place: &str) -> Option<Temporary> {
        kept.remove(place);
        let path = self.temporary_path();
        match fs::rename(self.folder.join(place), &path) {
            Ok(()) => Some(Temporary(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(place, %error, "an artifact could not be removed");
                None
            }
        }
    }
}

/// What an earlier process kept there, if it is complete.
fn found(home: PathBuf, pin: Pin, shape: Shape) -> Option<Kept> {
    let about = fs::symlink_metadata(&home).ok().filter(fs::Metadata::is_dir)?;
    let used = nanos(about.modified().ok()?);
    let bytes = if shape.is_tree() {
        Manifest::bytes(&home)?
    } else {
        fs::symlink_metadata(home.join(shape.content())).ok().filter(fs::Metadata::is_file)?.len()
    };
    Some(Kept::new(home, pin, shape, bytes, used, OnceLock::new()))
}
