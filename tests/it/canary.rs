//! A secret that every service of these tests has, and that no definition asks for: when a service ends, its word must stand
//! nowhere in what it kept or said. A program that printed its parent's environment, or a setting that was logged, would be
//! found so by whatever test it happened in.

use std::path::Path;

/// The variable of the service's environment that holds it.
pub const VARIABLE: &str = "CANARY_OF_THE_TESTS";

/// What must be found nowhere.
pub const WORD: &str = "qcanary8e1f5a3c7b9d";

/// How much of one folder is looked at; only measurements keep more.
const MOST_BYTES: u64 = 256 * 1024 * 1024;

/// Looks for it in a text, and in all files below a folder.
pub fn assert_absent(log: &str, folder: &Path) {
    assert!(!log.contains(WORD), "the canary is in the log");
    let mut left = MOST_BYTES;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // What a program took away meanwhile, or may not be read, holds nothing that was kept.
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.path().symlink_metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() && metadata.len() <= left {
                left -= metadata.len();
                let bytes = std::fs::read(entry.path()).unwrap_or_default();
                assert!(!holds(&bytes), "the canary is in {}", entry.path().display());
            }
        }
    }
}

fn holds(bytes: &[u8]) -> bool {
    let (first, rest) = (WORD.as_bytes()[0], &WORD.as_bytes()[1..]);
    let mut at = 0;
    while let Some(found) = bytes[at..].iter().position(|byte| *byte == first) {
        at += found + 1;
        if bytes[at..].starts_with(rest) {
            return true;
        }
    }
    false
}

#[test]
fn it_is_found_wherever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("below")).unwrap();
    std::fs::write(folder.path().join("below/file"), format!("qqcanary{WORD}.")).unwrap();
    let looks = || std::panic::catch_unwind(|| assert_absent("", folder.path()));
    assert!(looks().is_err());
    std::fs::write(folder.path().join("below/file"), &WORD[1..]).unwrap();
    assert!(looks().is_ok());
}
