//! A folder that is filled with what others chose, trusting nothing that they say: not the sizes, not the paths, not
//! the links.
//!
//! A [`Tree`] holds plain files and folders only until all of them are written, and gets its links last, so that
//! nothing can be written through a link. All of this blocks.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::Problem;

/// How many files, folders and links a source may hold.
pub const MAX_ENTRIES: usize = 10_000;

/// How many folders deep a path may be.
const MAX_DEPTH: usize = 32;

/// How long a link's target may be, as for the kernel.
pub const MAX_TARGET: u64 = 4096;

/// How many bytes may still come.
#[derive(Debug)]
pub struct Room {
    left: u64,
    full: Problem,
}

impl Room {
    /// So many MiB; `full` is told where there is more.
    pub fn new(mib: u64, full: Problem) -> Self {
        Self { left: mib.saturating_mul(1 << 20), full }
    }

    /// Copies all that comes, counting what really comes. How much it was.
    pub fn copy(&mut self, from: &mut dyn Read, to: &mut dyn Write) -> Result<u64, Problem> {
        let mut buffer = [0; 64 << 10];
        let mut copied = 0;
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => return Ok(copied),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Problem::unreadable(error)),
            };
            self.take(count as u64)?;
            to.write_all(&buffer[..count]).map_err(Problem::not_kept)?;
            copied += count as u64;
        }
    }

    /// Whether so many would still fit.
    pub fn holds(&self, count: u64) -> Result<(), Problem> {
        if count <= self.left { Ok(()) } else { Err(self.full.clone()) }
    }

    /// Counts bytes that are copied elsewhere.
    pub fn take(&mut self, count: u64) -> Result<(), Problem> {
        self.left = self.left.checked_sub(count).ok_or_else(|| self.full.clone())?;
        Ok(())
    }
}

/// A path inside a tree: relative, plain parts only.
#[derive(Debug)]
pub struct Place {
    name: String,
    path: PathBuf,
    depth: usize,
}

impl Place {
    /// The place of that name, if it is safe.
    pub fn of(name: &[u8]) -> Result<Self, Problem> {
        let lossy = || String::from_utf8_lossy(name).into_owned();
        let name = str::from_utf8(name).map_err(|_| unsafe_entry(lossy(), "has a name that is not UTF-8"))?;
        let why = if name.starts_with('/') {
            "has an absolute path"
        } else if name.contains('\0') {
            "has a NUL in its path"
        } else if name.contains('\\') {
            "has a backslash in its path"
        } else if name.split('/').any(|part| part == "..") {
            "has `..` in its path"
        } else if name.split('/').any(|part| part.len() > 255) {
            "has a name that is too long"
        } else {
            let parts = name.split('/').filter(|part| !matches!(*part, "" | "."));
            let depth = parts.clone().count();
            if depth <= MAX_DEPTH {
                return Ok(Self { name: name.to_owned(), path: parts.collect(), depth });
            }
            "is too many folders deep"
        };
        Err(unsafe_entry(name, why))
    }

    /// Says what is wrong with the entry.
    pub fn refuse(&self, why: &'static str) -> Problem {
        unsafe_entry(self.name.as_str(), why)
    }
}

fn unsafe_entry(entry: impl Into<String>, why: &'static str) -> Problem {
    let entry: String = entry.into();
    Problem::Unsafe { entry: entry.chars().take(200).collect(), why }
}

/// A folder that is being filled.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    room: Room,
    /// How many entries were named, and how many files, folders and links that made: one path can need many folders,
    /// and a folder can be named many times.
    seen: usize,
    made: usize,
    bytes: u64,
    links: Vec<(Place, String)>,
}

impl Tree {
    /// An empty one in a new folder, for at most `mib` MiB of content.
    pub fn new(root: PathBuf, mib: u64) -> Result<Self, Problem> {
        make_folder(&root).map_err(Problem::not_kept)?;
        let room = Room::new(mib, Problem::TooLargeUnpacked(mib));
        Ok(Self { root, room, seen: 0, made: 0, bytes: 0, links: Vec::new() })
    }

    /// Makes the links, last of all, and checks where each leads. How many bytes the tree takes, with its entries.
    pub fn finish(self) -> Result<u64, Problem> {
        let root = self.root.canonicalize().map_err(Problem::not_kept)?;
        for (place, target) in &self.links {
            std::os::unix::fs::symlink(target, root.join(&place.path))
                .map_err(|error| already(place, error))?;
        }
        for (place, _) in &self.links {
            match root.join(&place.path).canonicalize() {
                Ok(found) if found.starts_with(&root) => {}
                Ok(_) => return Err(place.refuse(LEADS_OUT)),
                Err(_) => return Err(place.refuse("is a link that leads nowhere")),
            }
        }
        Ok(self.bytes + self.made as u64 * 4096)
    }

    /// To be called for each entry, whatever becomes of it.
    pub fn count(&mut self) -> Result<(), Problem> {
        self.seen += 1;
        if self.seen > MAX_ENTRIES { Err(Problem::TooManyEntries) } else { Ok(()) }
    }

    fn made(&mut self) -> Result<(), Problem> {
        self.made += 1;
        if self.made > MAX_ENTRIES { Err(Problem::TooManyEntries) } else { Ok(()) }
    }

    /// Makes a folder, and those above it. It may be there.
    pub fn folder(&mut self, place: &Place) -> Result<(), Problem> {
        let mut path = self.root.clone();
        for part in &place.path {
            path.push(part);
            match make_folder(&path) {
                Ok(()) => self.made()?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_folder(&path) => {}
                Err(error) => return Err(already(place, error)),
            }
        }
        Ok(())
    }

    /// Where a new file or link goes; the folders above it are made.
    fn spot(&mut self, place: &Place) -> Result<PathBuf, Problem> {
        let Some(above) = place.path.parent().filter(|_| place.depth > 0) else {
            return Err(place.refuse("has no name"));
        };
        self.folder(&Place { name: place.name.clone(), path: above.to_owned(), depth: place.depth - 1 })?;
        self.made()?;
        Ok(self.root.join(&place.path))
    }

    /// Makes a new file.
    pub fn file(
        &mut self,
        place: &Place,
        is_executable: bool,
        content: &mut dyn Read,
    ) -> Result<(), Problem> {
        let spot = self.spot(place)?;
        let mut file = create(&spot).map_err(|error| already(place, error))?;
        self.bytes += self.room.copy(content, &mut file)?;
        seal(&file, is_executable).map_err(Problem::not_kept)
    }

    /// A second name of a file that came before. It counts as a copy, since a listing reads it once more.
    pub fn hard_link(&mut self, place: &Place, target: &[u8]) -> Result<(), Problem> {
        let target = Place::of(target)
            .map_err(|_| place.refuse("is a hard link to a path outside, or that is not plain"))?;
        let first = self.root.join(&target.path);
        let about = fs::symlink_metadata(&first).ok().filter(fs::Metadata::is_file);
        let about = about.ok_or_else(|| place.refuse("is a hard link to no file that comes before it"))?;
        self.room.take(about.len())?;
        let spot = self.spot(place)?;
        fs::hard_link(first, spot).map_err(|error| already(place, error))
    }

    /// A symbolic link, made at the end. Its target must stay inside by its text here, and in fact once it is made.
    pub fn link(&mut self, place: Place, target: &[u8]) -> Result<(), Problem> {
        let text =
            str::from_utf8(target).ok().filter(|text| !text.is_empty() && !text.contains(['\0', '\\']));
        let Some(target) = text.filter(|text| text.len() as u64 <= MAX_TARGET) else {
            return Err(place.refuse("is a link with a target that is not plain text"));
        };
        let climbs_out = || {
            let mut depth = place.depth - 1;
            target.split('/').any(|part| match part {
                "" | "." => false,
                ".." => match depth.checked_sub(1) {
                    Some(above) => {
                        depth = above;
                        false
                    }
                    None => true,
                },
                _ => {
                    depth += 1;
                    false
                }
            })
        };
        self.spot(&place)?;
        if target.starts_with('/') || climbs_out() {
            return Err(place.refuse(LEADS_OUT));
        }
        let target = target.to_owned();
        self.links.push((place, target));
        Ok(())
    }
}

const LEADS_OUT: &str = "is a link that leads out";

/// A folder that everybody may enter, once those above it are open.
fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|about| about.is_dir())
}

/// A new file; never one that is there, and never through a link.
pub fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Nobody writes it any more, everybody may read it; no other bit of its mode is taken over.
pub fn seal(file: &File, is_executable: bool) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(if is_executable { 0o555 } else { 0o444 }))
}

/// Opens a file to be copied: no link, and nothing on which opening or reading could wait.
pub fn open_plain(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no plain file")) }
}

/// Something was in the way, if it is no fault of the disk.
fn already(place: &Place, error: io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            place.refuse("is in the way of another")
        }
        io::ErrorKind::InvalidFilename => place.refuse("has a path that is too long"),
        _ => Problem::not_kept(error),
    }
}

/// Copies a folder of this machine. Whether a file is executable is taken over, and links that stay inside.
pub fn copy(from: &Path, tree: &mut Tree) -> Result<(), Problem> {
    let mut open = vec![PathBuf::new()];
    while let Some(inner) = open.pop() {
        for entry in fs::read_dir(from.join(&inner)).map_err(Problem::unreadable)? {
            let entry = entry.map_err(Problem::unreadable)?;
            let name = inner.join(entry.file_name());
            let place = Place::of(name.as_os_str().as_encoded_bytes())?;
            tree.count()?;
            let kind = entry.file_type().map_err(Problem::unreadable)?;
            if kind.is_dir() {
                tree.folder(&place)?;
                open.push(name);
            } else if kind.is_symlink() {
                let target = fs::read_link(entry.path()).map_err(Problem::unreadable)?;
                tree.link(place, target.as_os_str().as_encoded_bytes())?;
            } else if kind.is_file() {
                let mut file = open_plain(&entry.path()).map_err(Problem::unreadable)?;
                let mode = file.metadata().map_err(Problem::unreadable)?.permissions().mode();
                tree.file(&place, mode & 0o111 != 0, &mut file)?;
            } else {
                return Err(place.refuse(SPECIAL));
            }
        }
    }
    Ok(())
}

/// What is wrong with a device, a pipe or a socket.
pub const SPECIAL: &str = "is neither a file nor a folder nor a link";
