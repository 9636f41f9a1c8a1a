//! Brings a source in: from a folder of this machine or by http(s), within the configured bounds, into a folder of its
//! own, in the shape in which it is kept.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Response, StatusCode, Url};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::keep::{Shape, Temporary};
use super::manifest::{Listing, Manifest};
use super::tree::{self, Room, Tree};
use super::{Pin, Problem, unpack};
use crate::egress::{Ask, Egress, Failure, Reach};

/// The name of the bytes that have arrived, until their shape is given to them.
const ARRIVED: &str = "arrived";

/// What may be brought in.
#[derive(Debug)]
pub struct Rules {
    /// The folders that programs may come from, in the order in which they are looked through.
    pub roots: Vec<PathBuf>,
    /// How large a source may be, in MiB, packed or unpacked.
    pub max_mib: u64,
    /// How long it may take to come.
    pub timeout: Duration,
    /// The way to another machine.
    pub egress: Egress,
    /// Which private addresses it may be at.
    pub reach: Reach,
}

/// A source that has come, complete in its folder.
#[derive(Debug)]
pub struct Arrived {
    pub folder: Temporary,
    pub pin: Pin,
    pub shape: Shape,
    /// What it takes of the budget.
    pub bytes: u64,
}

/// Where a source is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A path, below a root or absolute.
    Local(String),
    /// An address.
    Remote(String),
}

impl Origin {
    pub fn of(source: &str) -> Self {
        let path = source.strip_prefix("file://").unwrap_or(source);
        if path.contains("://") { Self::Remote(path.into()) } else { Self::Local(path.into()) }
    }

    /// In which shapes this may be kept. Told by the name alone; a path may also be that of a folder.
    pub fn shapes(&self) -> Vec<Shape> {
        match self {
            Self::Local(path) => {
                let name = Path::new(path).file_name().and_then(|name| name.to_str());
                vec![Shape::of_name(name.unwrap_or_default()), Shape::Folder]
            }
            Self::Remote(address) => {
                let url = Url::parse(address).ok();
                let name = url.as_ref().and_then(|url| url.path_segments()?.next_back());
                vec![Shape::of_name(name.unwrap_or_default())]
            }
        }
    }
}

/// Brings it in. Where `expected` is given and something else comes, it is not even unpacked.
pub async fn fetch(
    origin: Origin,
    expected: Option<Pin>,
    rules: Arc<Rules>,
    folder: Temporary,
) -> Result<Arrived, Problem> {
    let shape = origin.shapes().swap_remove(0);
    let settled = match origin {
        Origin::Local(path) => {
            let copy = move || local(&path, shape, expected.as_ref(), &rules, folder);
            tokio::task::spawn_blocking(copy).await
        }
        Origin::Remote(address) => {
            let place = folder.path().join(ARRIVED);
            let download = download(&address, &place, &rules);
            let late = |_| Problem::Unreachable(format!("took longer than {} ms", rules.timeout.as_millis()));
            let pin = tokio::time::timeout(rules.timeout, download).await.map_err(late)??;
            check(&pin, expected.as_ref())?;
            // A program that came over the net has no mode; whether it can run shows when it does.
            let settle = move || settle(folder, pin, shape, true, rules.max_mib);
            tokio::task::spawn_blocking(settle).await
        }
    };
    settled.unwrap_or_else(|_| Err(Problem::Unreadable("reading it failed".into())))
}

fn check(found: &Pin, expected: Option<&Pin>) -> Result<(), Problem> {
    match expected {
        Some(expected) if found != expected => Err(Problem::Mismatch { found: found.clone() }),
        _ => Ok(()),
    }
}

/// The file or folder of that path under the first root that has it; never anything outside.
pub fn under_roots(path: &str, roots: &[PathBuf]) -> Option<PathBuf> {
    let path = Path::new(path);
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !is_plain && !path.is_absolute() {
        return None;
    }
    roots.iter().find_map(|root| {
        let root = root.canonicalize().ok()?;
        root.join(path).canonicalize().ok().filter(|found| found.starts_with(&root))
    })
}

/// Copies a file or folder, so that what runs is what was pinned, whatever becomes of the original.
fn local(
    path: &str,
    shape: Shape,
    expected: Option<&Pin>,
    rules: &Rules,
    folder: Temporary,
) -> Result<Arrived, Problem> {
    let found = under_roots(path, &rules.roots).ok_or(Problem::NotAllowed)?;
    if found.is_dir() {
        let mut tree = Tree::new(folder.path().join(Shape::Folder.content()), rules.max_mib)?;
        tree::copy(&found, &mut tree)?;
        let (pin, bytes) = complete(tree, folder.path(), &Shape::Folder)?;
        check(&pin, expected)?;
        return Ok(Arrived { folder, pin, shape: Shape::Folder, bytes });
    }
    let mut original = tree::open_plain(&found).map_err(Problem::unreadable)?;
    let mode = original.metadata().map_err(Problem::unreadable)?.permissions().mode();
    let copy = tree::create(&folder.path().join(ARRIVED)).map_err(Problem::not_kept)?;
    let mut copy = Hashing { to: copy, hasher: Sha256::new() };
    Room::new(rules.max_mib, Problem::TooLarge(rules.max_mib)).copy(&mut original, &mut copy)?;
    let pin = Pin::of(copy.hasher);
    check(&pin, expected)?;
    settle(folder, pin, shape, mode & 0o111 != 0, rules.max_mib)
}

struct Hashing<W> {
    to: W,
    hasher: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Gives the bytes that have arrived their shape.
fn settle(
    folder: Temporary,
    pin: Pin,
    shape: Shape,
    is_executable: bool,
    max_mib: u64,
) -> Result<Arrived, Problem> {
    let (arrived, content) = (folder.path().join(ARRIVED), folder.path().join(shape.content()));
    let bytes = if shape.is_tree() {
        let mut tree = Tree::new(content, max_mib)?;
        if shape == Shape::Zip {
            unpack::zip(&arrived, &mut tree)?;
        } else {
            unpack::tar_gz(&arrived, &mut tree)?;
        }
        fs::remove_file(&arrived).map_err(Problem::not_kept)?;
        complete(tree, folder.path(), &shape)?.1
    } else {
        let mode = Permissions::from_mode(if is_executable { 0o555 } else { 0o444 });
        fs::set_permissions(&arrived, mode).map_err(Problem::not_kept)?;
        fs::rename(&arrived, &content).map_err(Problem::not_kept)?;
        fs::metadata(&content).map_err(Problem::not_kept)?.len()
    };
    Ok(Arrived { folder, pin, shape, bytes })
}

/// Finishes a tree and writes its manifest: its listing's hash, and what it takes of the budget.
fn complete(tree: Tree, home: &Path, shape: &Shape) -> Result<(Pin, u64), Problem> {
    let bytes = tree.finish()?;
    let listing = Listing::of(&home.join(shape.content())).map_err(Problem::not_kept)?;
    let pin = listing.pin();
    Manifest { bytes, listing }.write(home).map_err(Problem::not_kept)?;
    Ok((pin, bytes))
}

/// Streams it to a new file. The hash of what came.
async fn download(address: &str, place: &Path, rules: &Rules) -> Result<Pin, Problem> {
    let mut response = ask(address, rules).await?;
    let mut room = Room::new(rules.max_mib, Problem::TooLarge(rules.max_mib));
    room.holds(response.content_length().unwrap_or_default())?;
    let file = tree::create(place).map_err(Problem::not_kept)?;
    let (mut file, mut hasher) = (tokio::fs::File::from_std(file), Sha256::new());
    let broken = |_| Problem::Unreachable("broke off its answer".into());
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        room.take(chunk.len() as u64)?;
        hasher.update(&chunk);
        file.write_all(&chunk).await.map_err(Problem::not_kept)?;
    }
    file.flush().await.map_err(Problem::not_kept)?;
    Ok(Pin::of(hasher))
}

/// Asks for it, and where it is said to be instead.
async fn ask(address: &str, rules: &Rules) -> Result<Response, Problem> {
    let url =
        Url::parse(address).map_err(|error| Problem::Address(format!("has no valid address: {error}")))?;
    let response = rules.egress.send(Ask::get(url), rules.reach).await.map_err(|failure| match failure {
        Failure::Denied(denied) => {
            Problem::Address(format!("is not fetched: {}", denied.with_allow_private()))
        }
        Failure::Astray(problem) => Problem::Address(format!("is not to be had: {problem}")),
        Failure::Unreachable(problem) => Problem::Unreachable(format!("cannot be reached: {problem}")),
    })?;
    match response.status() {
        StatusCode::OK => Ok(response),
        other => Err(Problem::Status(other.as_u16())),
    }
}
