//! The working folder of one attempt: made for it alone, and gone with all that is in it when it ended.

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

/// A working folder; removed when this is dropped, if it was not removed before.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    is_removed: bool,
}

impl Folder {
    /// Makes a folder that only this user can enter. The parent is absolute, since programs get it as their working
    /// folder, and is there.
    pub fn make(parent: &Path, uuid: Uuid, attempt: u32) -> io::Result<Self> {
        let path = parent.join(format!("{uuid}-{attempt}"));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path, is_removed: false })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it: at once where it is empty, as most are, else on a thread where that may take its time, since a
    /// program can leave a million files.
    pub async fn remove(mut self) {
        if fs::remove_dir(&self.path).is_ok() {
            self.is_removed = true;
            return;
        }
        let path = self.path.clone();
        let removed = tokio::task::spawn_blocking(move || remove_tree(&path)).await;
        match removed {
            Ok(Ok(())) => self.is_removed = true,
            Ok(Err(error)) => tracing::error!(%error, "a working folder could not be removed"),
            Err(error) => tracing::error!(%error, "removing a working folder failed"),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_removed {
            return;
        }
        let path = std::mem::take(&mut self.path);
        std::thread::spawn(move || {
            for _ in 0..TRIES {
                match remove_tree(&path) {
                    Ok(()) => return,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                    Err(_) => std::thread::sleep(PAUSE),
                }
            }
            tracing::error!("the working folder of an execution that was dropped could not be removed");
        });
    }
}

/// Removes all that is in a folder, and leaves the folder.
pub fn empty(path: &Path) -> io::Result<()> {
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
    async fn a_folder_goes_with_what_its_owner_may_not_enter() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = Folder::make(parent.path(), Uuid::nil(), 1).expect("made");
        let inner = folder.path().join("a/b");
        fs::create_dir_all(&inner).expect("made");
        fs::write(inner.join("file"), "x").expect("written");
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o000)).expect("closed");
        open_up(folder.path());
        assert_eq!(fs::metadata(&inner).expect("there").permissions().mode() & 0o777, 0o700);
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o000)).expect("closed again");
        let path = folder.path().to_owned();
        folder.remove().await;
        assert!(!path.exists());
    }
}
