//! Packages from npm, each in a folder of the test's own.

use std::process::Command;

use tempfile::TempDir;

/// The folder with this package; where it cannot be had, that is said, and there is none.
pub fn installed(package: &str) -> Option<TempDir> {
    let folder = tempfile::tempdir().unwrap();
    let quiet = ["install", "--no-audit", "--no-fund", "--loglevel=error"];
    let soon = ["--fetch-retries=0", "--fetch-timeout=20000", package];
    let install = Command::new("npm").args(quiet).args(soon).current_dir(folder.path()).output();
    match install {
        Ok(output) if output.status.success() => Some(folder),
        other => {
            println!("skipped: npm cannot install {package}: {other:?}");
            None
        }
    }
}
