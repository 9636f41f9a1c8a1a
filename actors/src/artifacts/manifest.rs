//! What a kept folder holds, so that it is known after a restart whether it still does. All of this blocks.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Pin;
use super::tree::open_plain;

/// Everything in a folder, by path: `d` for a folder; `f`, `x` (an executable one) or `l` (a link), and the SHA-256 of
/// the content or target.
#[derive(Debug, PartialEq, Eq)]
pub struct Listing(BTreeMap<PathBuf, String>);

impl Listing {
    /// What is there now.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let mut entries = BTreeMap::new();
        walk(folder, &mut |inner, path, about| {
            entries.insert(inner, describe(path, about)?);
            Ok(about.is_dir())
        })?;
        Ok(Self(entries))
    }

    /// In the order of the paths, each entry ended by a NUL.
    fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for (path, what) in &self.0 {
            text.extend_from_slice(what.as_bytes());
            text.push(b' ');
            text.extend_from_slice(path.as_os_str().as_bytes());
            text.push(0);
        }
        text
    }

    fn read(text: &[u8]) -> Option<Self> {
        let lines = text.split(|byte| *byte == 0).filter(|line| !line.is_empty());
        let entries = lines.map(|line| {
            // A folder's letter is followed by its path, any other by a space and 64 digits first.
            let length = if line.starts_with(b"d ") { 1 } else { 2 + Pin::LENGTH };
            let (what, path) = line.split_at_checked(length)?;
            let path = PathBuf::from(OsStr::from_bytes(path.strip_prefix(b" ")?));
            Some((path, str::from_utf8(what).ok()?.to_owned()))
        });
        entries.collect::<Option<_>>().map(Self)
    }

    /// The hash of the whole, which is that of a folder.
    pub fn pin(&self) -> Pin {
        Pin::of(Sha256::new_with_prefix(self.text()))
    }

    /// Whether all of it is there as it was. What else is there is removed: a program that ran left it, such as
    /// Python its `__pycache__`.
    fn restore(&self, folder: &Path) -> io::Result<bool> {
        let mut found = 0;
        walk(folder, &mut |inner, path, about| {
            match self.0.get(&inner) {
                Some(what) if *what == describe(path, about)? => found += 1,
                Some(_) => return Ok(false),
                None => {
                    remove(path, about)?;
                    return Ok(false);
                }
            }
            Ok(about.is_dir())
        })?;
        Ok(found == self.0.len())
    }
}

/// Leaves only that file in its folder. Whether it has that hash.
pub fn restore_file(folder: &Path, name: &str, pin: &Pin) -> io::Result<bool> {
    let mut is_whole = false;
    walk(folder, &mut |inner, path, about| {
        if inner.as_os_str() == name {
            is_whole = hash(path)? == *pin;
        } else {
            remove(path, about)?;
        }
        Ok(false)
    })?;
    Ok(is_whole)
}

/// Shows everything in a folder: its path inside, its path, and what it is; goes into a folder where told so. Links
/// are not followed.
fn walk(
    folder: &Path,
    visit: &mut dyn FnMut(PathBuf, &Path, &Metadata) -> io::Result<bool>,
) -> io::Result<()> {
    let mut open = vec![PathBuf::new()];
    while let Some(above) = open.pop() {
        for entry in fs::read_dir(folder.join(&above))? {
            let entry = entry?;
            let (inner, path) = (above.join(entry.file_name()), entry.path());
            if visit(inner.clone(), &path, &fs::symlink_metadata(&path)?)? {
                open.push(inner);
            }
        }
    }
    Ok(())
}

fn remove(path: &Path, about: &Metadata) -> io::Result<()> {
    if about.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn describe(path: &Path, about: &Metadata) -> io::Result<String> {
    let (kind, content) = if about.is_dir() {
        return Ok("d".into());
    } else if about.is_symlink() {
        ("l", Pin::of(Sha256::new_with_prefix(fs::read_link(path)?.as_os_str().as_bytes())))
    } else if about.permissions().mode() & 0o111 != 0 {
        ("x", hash(path)?)
    } else {
        ("f", hash(path)?)
    };
    Ok(format!("{kind} {}", content.as_str()))
}

/// The SHA-256 of a plain file.
fn hash(path: &Path) -> io::Result<Pin> {
    let mut hasher = Sha256::new();
    io::copy(&mut open_plain(path)?, &mut hasher)?;
    Ok(Pin::of(hasher))
}

/// The file beside a kept tree: what the tree takes of the budget and the listing's hash in its first line, then the
/// listing.
#[derive(Debug)]
pub struct Manifest {
    /// What it takes of the budget.
    pub bytes: u64,
    /// What it holds.
    pub listing: Listing,
}

impl Manifest {
    const NAME: &str = "manifest";

    /// Writes it into the folder that has the tree.
    pub fn write(&self, home: &Path) -> io::Result<()> {
        let head = format!("{} {}\n", self.bytes, self.listing.pin().as_str());
        fs::write(home.join(Self::NAME), [head.into_bytes(), self.listing.text()].concat())
    }

    /// What the tree takes of the budget, without reading more than that.
    pub fn bytes(home: &Path) -> Option<u64> {
        let mut head = Vec::new();
        File::open(home.join(Self::NAME)).ok()?.take(32).read_to_end(&mut head).ok()?;
        String::from_utf8_lossy(&head).split_once(' ')?.0.parse().ok()
    }

    /// Whether the tree holds what its manifest tells, after what else it holds was removed.
    pub fn restore(home: &Path, tree: &Path) -> bool {
        let told = || {
            let text = fs::read(home.join(Self::NAME)).ok()?;
            let (head, text) = text.split_at_checked(text.iter().position(|byte| *byte == b'\n')? + 1)?;
            let listing = Listing::read(text)?;
            // A part of it would be taken for all, and the rest be removed.
            head.trim_ascii_end().ends_with(listing.pin().as_str().as_bytes()).then_some(listing)
        };
        told().is_some_and(|listing| listing.restore(tree).unwrap_or(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("a folder/empty")).expect("made");
        fs::write(folder.path().join("a folder/line\nbreak"), "abc").expect("written");
        std::os::unix::fs::symlink("a folder", folder.path().join("l")).expect("linked");
        let listing = Listing::of(folder.path()).expect("read");
        assert_eq!(Listing::read(&listing.text()).as_ref(), Some(&listing));
        assert_eq!(listing.0.len(), 4);
        for damaged in [b"f 0".as_slice(), b"d", b"x", b"dx\0"] {
            assert_eq!(Listing::read(damaged), None);
        }
    }

    #[test]
    fn a_damaged_manifest_removes_nothing() {
        let home = tempfile::tempdir().expect("a folder");
        let tree = home.path().join("tree");
        fs::create_dir_all(tree.join("a")).expect("made");
        fs::write(tree.join("a/b"), "abc").expect("written");
        let manifest = Manifest { bytes: 3, listing: Listing::of(&tree).expect("read") };
        manifest.write(home.path()).expect("written");
        assert_eq!(Manifest::bytes(home.path()), Some(3));
        assert!(Manifest::restore(home.path(), &tree));
        let text = fs::read(home.path().join("manifest")).expect("there");
        let first_entry = text.iter().position(|byte| *byte == 0).expect("an entry");
        for length in [0, 5, first_entry + 1, text.len() - 1] {
            fs::write(home.path().join("manifest"), &text[..length]).expect("written");
            let is_whole = Manifest::restore(home.path(), &tree);
            // Without the last NUL it says the same.
            assert_eq!(is_whole, length == text.len() - 1);
            assert!(tree.join("a/b").exists());
        }
    }
}
