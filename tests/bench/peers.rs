//! Others who do the like, each as it comes: measured where it is there, or can be installed into the target folder.

pub mod celery;
pub mod restate;
pub mod websocketd;

use std::path::PathBuf;

use crate::report::Lacking;

/// Where a program of this machine is.
fn program(name: &str, install: &str) -> Result<PathBuf, Lacking> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| Lacking(format!("there is no {name} (install with `{install}`)")))
}
