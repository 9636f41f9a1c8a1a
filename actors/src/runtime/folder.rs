//! The working folder of an executor: empty when a run begins, and empty again when it has ended. It is kept from run to
//! run, since file systems take their time to make and remove folders, and gone with the executor.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

/// How often a folder is removed in which a dying process may still write.
const TRIES: u32 = 50;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(5);

/// How soon it is tried again to make one.
const AGAIN: Duration = Duration::from_millis(250);

/// What only the owner can enter.
const PRIVATE: u32 = 0o700;

/// Removes the working folders below this one that an earlier process left. What bears another name is somebody else's.
pub fn remove_left(parent: &Path) -> io::Result<()> {
    let mut removed = Ok(());
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| Uuid::parse_str(name).is_ok()) {
            let is_folder = entry.file_type()?.is_dir();
            let gone = if is_folder { remove_tree(&entry.path()) } else { fs::remove_file(entry.path()) };
            removed = removed.and(gone);
        }
    }
    removed
}

/// A working folder; removed when this is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes a folder that only this user can enter. The parent is absolute, since programs get it as their working
    /// folder, and is there.
    pub fn make(parent: &Path) -> io::Result<Self> {
        let path = parent.join(Uuid::now_v7().to_string());
        fs::DirBuilder::new().mode(PRIVATE).create(&path)?;
        Ok(Self { path })
    }

    /// Makes one as soon as there can be one: a parent that was removed is made anew, and a full disk is waited for.
    pub async fn made(parent: &Path) -> Self {
        let mut has_told = false;
        loop {
            let made = Self::make(parent).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => fs::create_dir_all(parent).and_then(|()| Self::make(parent)),
                _ => Err(error),
            });
            match made {
                Ok(folder) => return folder,
                Err(error) if !has_told => {
                    let place = parent.display();
                    tracing::warn!(%place, %error, "no working folder can be made; what is to run waits");
                    has_told = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same folder without what the last run left in it; nothing where the run made that impossible. At once where
    /// it is empty, as most are, else on a thread, since a program can leave a million files.
    pub async fn emptied(self) -> Option<Self> {
        if is_empty(&self.path).is_ok_and(|is_empty| is_empty) {
            return Some(self);
        }
        let path = self.path.clone();
        match tokio::task::spawn_blocking(move || empty(&path)).await {
            Ok(Ok(())) => Some(self),
            // It was removed, or made something else: what is there goes, and the next run gets another.
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if fs::remove_dir(&self.path).is_ok() {
            return;
        }
        let path = std::mem::take(&mut self.path);
        let removal = std::thread::Builder::new().spawn(move || remove_patiently(&path));
        if let Err(error) = removal {
            // It goes when the service starts again.
            tracing::error!(%error, "a working folder could not be removed");
        }
    }
}

fn remove_patiently(path: &Path) {
    for _ in 0..TRIES {
        match remove_tree(path) {
            Ok(()) => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                // A program put something else into its place.
                let _ = fs::remove_file(path);
                return;
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
    tracing::error!("a working folder could not be removed");
}

/// Whether it is a folder as it was made, with nothing in it.
fn is_empty(path: &Path) -> io::Result<bool> {
    let about = fs::symlink_metadata(path)?;
    let is_as_made = about.is_dir() && about.permissions().mode() & 0o7777 == PRIVATE;
    Ok(is_as_made && fs::read_dir(path)?.next().is_none())
}

/// Removes all that is in a folder, and leaves the folder as it was made.
fn empty(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { remove_tree(&entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

/// Removes a folder and all that is in it, also what its owner may not enter.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path);
            fs::remove_dir_all(path)
        }
        removed => removed,
    }
}

/// Lets the owner into every folder below; links are not followed.
fn open_up(path: &Path) {
    if !fs::symlink_metadata(path).is_ok_and(|about| about.is_dir()) {
        return;
    }
    // What cannot be opened is told by the removal that follows.
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        open_up(&entry.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_is_made_as_soon_as_it_can_be() {
        let place = tempfile::tempdir().expect("a folder");
        let parent = place.path().join("run");
        let folder = Folder::made(&parent).await;
        assert!(folder.path().starts_with(&parent) && folder.path().is_dir());
        drop(folder);
        fs::remove_dir(&parent).expect("it is empty");
        // Something is in the way.
        fs::write(&parent, "").expect("written");
        let making = Folder::made(&parent);
        tokio::pin!(making);
        assert!(tokio::time::timeout(AGAIN / 2, &mut making).await.is_err());
        fs::remove_file(&parent).expect("removed");
        assert!(making.await.path().is_dir());
    }

    #[tokio::test]
    async fn a_folder_is_emptied_of_what_its_owner_may_not_enter() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = Folder::make(parent.path()).expect("made");
        let path = folder.path().to_owned();
        let inner = path.join("a/b");
        fs::create_dir_all(&inner).expect("made");
        fs::write(inner.join("file"), "x").expect("written");
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o000)).expect("closed");
        open_up(&path.join("a"));
        assert_eq!(fs::metadata(&inner).expect("there").permissions().mode() & 0o777, 0o700);
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o000)).expect("closed again");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("opened");
        let folder = folder.emptied().await.expect("emptied");
        assert!(is_empty(&path).expect("there"));
        drop(folder);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_folder_that_was_replaced_is_given_up_and_nothing_outside_is_touched() {
        let parent = tempfile::tempdir().expect("a folder");
        let outside = tempfile::tempdir().expect("a folder");
        fs::write(outside.path().join("file"), "x").expect("written");
        let folder = Folder::make(parent.path()).expect("made");
        let path = folder.path().to_owned();
        fs::remove_dir(&path).expect("removed");
        std::os::unix::fs::symlink(outside.path(), &path).expect("linked");
        assert!(folder.emptied().await.is_none());
        assert!(outside.path().join("file").exists());
    }
}
