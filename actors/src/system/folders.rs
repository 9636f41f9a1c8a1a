//! The folders of a system beside its store.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::registry::Location;

/// Where the service keeps what is not in the store.
#[derive(Debug)]
pub struct Folders {
    /// The programs of the catalog, the first root that a source is looked for in.
    pub catalog: PathBuf,
    /// What holds all of them.
    pub data: PathBuf,
    /// The working folders of what runs.
    pub run: PathBuf,
    /// With a store in memory these folders go with it.
    temporary: Option<PathBuf>,
}

impl Folders {
    /// The folders in the data folder; with a store in memory, in a temporary one.
    pub(super) fn of(location: &Location) -> Result<Self> {
        let (parent, temporary) = match location {
            Location::Folder(folder) => (folder.clone(), None),
            Location::Memory => {
                let folder = std::env::temp_dir().join(format!("org-executor-{}", uuid::Uuid::now_v7()));
                (folder.clone(), Some(folder))
            }
        };
        let catalog = parent.join("catalog");
        std::fs::create_dir_all(&catalog)
            .map_err(|error| Error::unavailable(format!("the data folder cannot be written: {error}")))?;
        Ok(Self { catalog, run: parent.join("run"), data: parent, temporary })
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        if let Some(folder) = &self.temporary
            && let Err(error) = std::fs::remove_dir_all(folder)
        {
            tracing::warn!(%error, "the temporary data folder could not be removed");
        }
    }
}
