//! The store's engine writes each commit to its log first, which it reads again when it is opened.
//!
//! It goes on behind whatever stands at the end of the log's last segment (surrealkv 0.21.4, `wal/manager.rs`). Where a
//! process was killed as it wrote there, that is a part of a record, and the next reading takes all that stands behind it for
//! damage and drops it (`wal/recovery.rs`), though it was on disk and told. Hence each opening begins a segment.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// How the names of segments end, after twenty digits.
const SUFFIX: &str = ".wal";

/// Has the engine of the store in this folder, which is not open, write into a new segment.
///
/// # Errors
/// The folder cannot be read or written.
pub fn begin(store: &Path) -> io::Result<()> {
    let log = store.join("wal");
    let entries = match fs::read_dir(&log) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut last = None;
    for entry in entries {
        let entry = entry?;
        let number =
            entry.file_name().to_str().and_then(|name| name.strip_suffix(SUFFIX)?.parse::<u64>().ok());
        if let Some(number) = number {
            last = last.max(Some((number, entry.metadata()?.len())));
        }
    }
    // An empty one will do.
    let Some((number, 1..)) = last else { return Ok(()) };
    File::create_new(log.join(format!("{:020}{SUFFIX}", number + 1)))?;
    // Else a power cut could take its name away with what was written into it.
    File::open(&log)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::tests::revision;
    use super::super::{Location, Memory, Store};
    use super::*;
    use crate::definition::Kind;

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).expect("made");
        for entry in fs::read_dir(from).expect("read") {
            let entry = entry.expect("read");
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            if from.is_dir() {
                copy(&from, &to);
            } else {
                fs::copy(from, to).expect("copied");
            }
        }
    }

    /// The folder as it is when the process is killed now.
    fn killed(folder: &Path) -> tempfile::TempDir {
        let left = tempfile::tempdir().expect("a folder");
        copy(folder, left.path());
        left
    }

    async fn open(folder: &Path) -> Store {
        Store::open(Location::Folder(folder.into()), Memory(128)).await.expect("opens")
    }

    async fn create(store: &Store, id: &str) {
        store.create(&revision(id)).await.expect("created");
    }

    async fn has(store: &Store, id: &str) -> bool {
        store.get(Kind::Tool, id).await.expect("read").is_some()
    }

    fn segments(folder: &Path) -> Vec<std::path::PathBuf> {
        let log = Location::Folder(folder.into()).store_folder().expect("a folder").join("wal");
        let mut all: Vec<_> =
            fs::read_dir(log).expect("read").map(|entry| entry.expect("read").path()).collect();
        all.sort();
        all
    }

    #[tokio::test]
    async fn what_is_written_after_a_record_that_is_torn_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(folder.path()).await;
        create(&store, "a").await;
        create(&store, "torn").await;
        let torn = killed(folder.path());
        let last = File::options()
            .write(true)
            .open(segments(torn.path()).pop().expect("a segment"))
            .expect("opened");
        let length = last.metadata().expect("there").len();
        last.set_len(length - 5).expect("cut");
        let store = open(torn.path()).await;
        assert!(has(&store, "a").await);
        create(&store, "b").await;
        let again = killed(torn.path());
        let store = open(again.path()).await;
        assert!(has(&store, "a").await && has(&store, "b").await);
        create(&store, "c").await;
        let store = open(killed(again.path()).path()).await;
        assert!(has(&store, "a").await && has(&store, "b").await && has(&store, "c").await);
    }

    #[test]
    fn an_empty_segment_is_begun_once() {
        let folder = tempfile::tempdir().expect("a folder");
        begin(folder.path()).expect("there is no log yet");
        let log = folder.path().join("wal");
        fs::create_dir(&log).expect("made");
        begin(folder.path()).expect("the log is empty");
        fs::write(log.join("00000000000000000009.wal"), "x").expect("written");
        for _ in 0..2 {
            begin(folder.path()).expect("begun");
        }
        let mut names: Vec<_> =
            fs::read_dir(&log).expect("read").map(|entry| entry.expect("read").file_name()).collect();
        names.sort();
        assert_eq!(names, ["00000000000000000009.wal", "00000000000000000010.wal"]);
    }
}
