//! Outputs that are too large for a record: each a file whose name is the hash of what it holds, so that equal outputs
//! are kept once. A file is on disk before the record that names it is written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

/// What begins the name of a file that is being written.
const PART: &str = ".part-";

/// The folder of large outputs.
#[derive(Debug)]
pub struct Outputs {
    folder: PathBuf,
    /// Between writing a file and its record nobody may find that no record names it.
    turn: Mutex<()>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The hash of what it holds.
    pub hash: String,
    /// Its size.
    pub bytes: u64,
}

impl Outputs {
    /// In this folder, which is made when it is needed.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, turn: Mutex::new(()) }
    }

    /// Held while files and their records are written, or removed.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Keeps an output, and gives its hash once it is on disk.
    pub async fn keep(&self, output: std::sync::Arc<str>) -> io::Result<String> {
        let folder = self.folder.clone();
        blocking(move || write(&folder, output.as_bytes())).await
    }

    /// The output of this hash.
    ///
    /// # Errors
    /// It is gone, or holds something else.
    pub async fn read(&self, hash: &str) -> io::Result<String> {
        let (path, hash) = (self.folder.join(hash), hash.to_owned());
        blocking(move || {
            let held = fs::read(&path)?;
            if hash_of(&held) != hash {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it holds something else"));
            }
            String::from_utf8(held).map_err(io::Error::other)
        })
        .await
    }

    /// All files. Whoever asks has the turn, so what is half written was left by a crash, and is removed.
    pub async fn all(&self) -> io::Result<Vec<Kept>> {
        let folder = self.folder.clone();
        blocking(move || list(&folder)).await
    }

    /// Removes a file; one that is gone is no error.
    pub async fn remove(&self, hash: &str) -> io::Result<()> {
        let path = self.folder.join(hash);
        blocking(move || match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn hash_of(held: &[u8]) -> String {
    format!("{:x}", Sha256::digest(held))
}

fn write(folder: &Path, output: &[u8]) -> io::Result<String> {
    let hash = hash_of(output);
    let path = folder.join(&hash);
    // What was written before may not have reached the disk.
    if fs::metadata(&path).is_ok_and(|file| file.len() == output.len() as u64) {
        let held = fs::read(&path)?;
        if held == output {
            File::open(&path)?.sync_all()?;
            return Ok(hash);
        }
    }
    if let Some(parent) = folder.parent()
        && !folder.exists()
    {
        super::private_folder(folder)?;
        File::open(parent)?.sync_all()?;
    }
    let part = folder.join(format!("{PART}{}", Uuid::now_v7()));
    let written = (|| {
        let mut file = File::create(&part)?;
        file.write_all(output)?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // It is gone already where only its folder could not be synced; the error above is the one that counts.
        let _ = fs::remove_file(&part);
    }
    written.map(|()| hash)
}

fn list(folder: &Path) -> io::Result<Vec<Kept>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // What is no file, such as `lost+found`, is none of these.
        if !entry.file_type()?.is_file() {
            continue;
        }
        if name.starts_with(PART) {
            fs::remove_file(entry.path())?;
        } else {
            all.push(Kept { hash: name, bytes: entry.metadata()?.len() });
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn equal_outputs_are_kept_once_and_a_damaged_one_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("outputs");
        let outputs = Outputs::new(place.clone());
        assert_eq!(outputs.all().await.expect("none yet"), []);
        let hash = outputs.keep("\"large\"".into()).await.expect("kept");
        assert_eq!(outputs.keep("\"large\"".into()).await.expect("kept"), hash);
        let other = outputs.keep("\"other\"".into()).await.expect("kept");
        assert_eq!(outputs.all().await.expect("listed").len(), 2);
        assert_eq!(outputs.read(&hash).await.expect("read"), "\"large\"");
        fs::write(place.join(".part-1"), "\"la").expect("written");
        assert_eq!(outputs.all().await.expect("listed").len(), 2);
        assert!(!place.join(".part-1").exists());
        // One that a crash left half written, or a disk damaged.
        fs::write(place.join(&hash), "\"larg").expect("written");
        assert_eq!(outputs.read(&hash).await.expect_err("damaged").kind(), io::ErrorKind::InvalidData);
        outputs.keep("\"large\"".into()).await.expect("written anew");
        assert_eq!(outputs.read(&hash).await.expect("read"), "\"large\"");
        outputs.remove(&other).await.expect("removed");
        outputs.remove(&other).await.expect("gone already");
        assert_eq!(outputs.read(&other).await.expect_err("gone").kind(), io::ErrorKind::NotFound);
    }
}
