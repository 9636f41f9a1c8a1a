//! Reads archives into a [`Tree`], which checks what they hold. Here is what is to be minded of each format, so that
//! neither memory nor time can be had for a few bytes. All of this blocks.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use tar::EntryType;
use zip::ZipArchive;
use zip::read::{ArchiveOffset, Config};

use super::Problem;
use super::tree::{MAX_ENTRIES, MAX_TARGET, Place, SPECIAL, Tree};

/// How much of a tar may be read on the way from one entry to the next: its header, long name and attributes, which
/// the library keeps in memory.
const MAX_TAR_HEADER: u64 = 256 << 10;

/// How much may follow a tar's last entry.
const MAX_TAR_END: u64 = 4 << 20;

/// How large the directory of a zip may be, which the library keeps in memory.
const MAX_ZIP_DIRECTORY: u64 = 16 << 20;

/// The fixed part of the record that ends a zip, and with the longest comment.
const ZIP_END: usize = 22;
const MAX_ZIP_END: u64 = ZIP_END as u64 + 0xFFFF;

/// Unpacks a `.tar.gz`.
pub fn tar_gz(archive: &Path, tree: &mut Tree) -> Result<(), Problem> {
    let file = File::open(archive).map_err(Problem::not_kept)?;
    let left = Rc::new(Cell::new(0));
    let stream = Metered { from: MultiGzDecoder::new(BufReader::new(file)), left: left.clone() };
    let mut archive = tar::Archive::new(stream);
    let mut entries = archive.entries().map_err(Problem::unreadable)?;
    loop {
        left.set(MAX_TAR_HEADER);
        let Some(entry) = entries.next() else { break };
        // Content is bounded by the tree.
        left.set(u64::MAX);
        tree.count()?;
        tar_entry(entry.map_err(Problem::unreadable)?, tree)?;
    }
    // To its end, where the checksum is.
    let mut rest = archive.into_inner();
    left.set(MAX_TAR_END);
    io::copy(&mut rest, &mut io::sink()).map_err(Problem::unreadable)?;
    Ok(())
}

fn tar_entry(mut entry: tar::Entry<'_, impl Read>, tree: &mut Tree) -> Result<(), Problem> {
    let kind = entry.header().entry_type();
    if kind == EntryType::XGlobalHeader {
        return Ok(());
    }
    let name = entry.path_bytes().into_owned();
    let place = Place::of(&name)?;
    let target = entry.link_name_bytes().map(|target| target.into_owned()).unwrap_or_default();
    match kind {
        EntryType::Directory => tree.folder(&place),
        // How archivers of old wrote a folder.
        EntryType::Regular if name.ends_with(b"/") => tree.folder(&place),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let mode = entry.header().mode().map_err(Problem::unreadable)?;
            tree.file(&place, mode & 0o111 != 0, &mut entry)
        }
        EntryType::Symlink => tree.link(place, &target),
        EntryType::Link => tree.hard_link(&place, &target),
        _ => Err(place.refuse(SPECIAL)),
    }
}

/// Reads no more than it is allowed at the time.
struct Metered<R> {
    from: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        let left = self.left.get().checked_sub(count as u64);
        self.left.set(left.ok_or_else(|| io::Error::other("the headers of its entries are too large"))?);
        Ok(count)
    }
}

/// Unpacks a `.zip`.
pub fn zip(archive: &Path, tree: &mut Tree) -> Result<(), Problem> {
    let mut file = File::open(archive).map_err(Problem::not_kept)?;
    check_directory(&mut file)?;
    // No search for the directory: it is where it was just found.
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut zip = ZipArchive::with_config(config, BufReader::new(file)).map_err(Problem::unreadable)?;
    if zip.has_duplicate_names() {
        return Err(Problem::Unreadable("two of its entries have the same name".into()));
    }
    for index in 0..zip.len() {
        tree.count()?;
        let mut entry = zip.by_index(index).map_err(Problem::unreadable)?;
        let place = Place::of(entry.name().map_err(Problem::unreadable)?.as_bytes())?;
        let mode = entry.unix_mode().unwrap_or(0o644);
        match mode & 0o170_000 {
            _ if entry.is_dir() => tree.folder(&place)?,
            0o040_000 => tree.folder(&place)?,
            0o120_000 => {
                let mut target = Vec::new();
                let mut text = (&mut entry).take(MAX_TARGET + 1);
                text.read_to_end(&mut target).map_err(Problem::unreadable)?;
                tree.link(place, &target)?;
            }
            0 | 0o100_000 => tree.file(&place, mode & 0o111 != 0, &mut entry)?,
            _ => return Err(place.refuse(SPECIAL)),
        }
    }
    Ok(())
}

/// Looks at the record that ends a zip, before the library reserves memory for as many entries as it promises or looks
/// for another directory than the one that all readers see (APPNOTE.TXT 4.3.16).
fn check_directory(file: &mut File) -> Result<(), Problem> {
    let mut end = Vec::new();
    let length = file.metadata().map_err(Problem::not_kept)?.len();
    let start = length.saturating_sub(MAX_ZIP_END);
    file.seek(SeekFrom::Start(start)).and_then(|_| file.read_to_end(&mut end)).map_err(Problem::not_kept)?;
    let unusual =
        |why: &str| Err(Problem::Unreadable(format!("it is no ZIP archive that is read here: {why}")));
    let Some(at) = end.windows(4).rposition(|four| four == b"PK\x05\x06") else {
        return unusual("it has no directory");
    };
    let Some(record) = end.get(at..at + ZIP_END) else { return unusual("its end is missing") };
    let short = |at: usize| u16::from_le_bytes([record[at], record[at + 1]]);
    let long = |at: usize| u64::from(short(at)) | u64::from(short(at + 2)) << 16;
    let (entries, size, offset, comment) = (short(10), long(12), long(16), usize::from(short(20)));
    if usize::from(entries) > MAX_ENTRIES {
        return Err(Problem::TooManyEntries);
    }
    if short(4) != 0 || short(6) != 0 || short(8) != entries {
        return unusual("it has several parts");
    }
    if at + ZIP_END + comment > end.len() {
        return unusual("its end is missing");
    }
    if offset + size != start + at as u64 {
        return unusual("its directory does not end where the archive does, or is a ZIP64 one");
    }
    if size > MAX_ZIP_DIRECTORY {
        return unusual("its directory is too large");
    }
    Ok(())
}
