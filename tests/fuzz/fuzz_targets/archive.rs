//! An archive is unpacked: whatever it says, nothing appears outside its folder, no link leads out, nothing special is
//! made, and its bounds hold. Bytes that begin as an archive are taken as they are, a tar is compressed first (else its
//! checksum would refuse every change), and anything else chooses the entries of an archive.
#![no_main]

use std::fs::{self, Metadata};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::{env, process};

use flate2::write::GzEncoder;
use flate2::{Compression, Crc};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use org_executor_fuzz::artifacts::Problem;
use org_executor_fuzz::artifacts::manifest::{Listing, Manifest};
use org_executor_fuzz::artifacts::tree::{MAX_ENTRIES, Tree};
use org_executor_fuzz::artifacts::unpack;

/// How much an archive may hold here, in MiB.
const MIB: u64 = 1;

/// What stands beside the tree and must stay as it is.
const SECRET: &[u8] = b"nobody else's";

/// Where each archive is unpacked: made for it, and removed.
static HOUSE: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = env::temp_dir().canonicalize().expect("there is a folder for what is temporary");
    folder.join(format!("org-executor-fuzz-{}", process::id()))
});

fuzz_target!(|bytes: &[u8]| {
    let (is_zip, archive) = match bytes {
        [b'P', ..] => (true, bytes.to_vec()),
        [0x1f, ..] => (false, bytes.to_vec()),
        tar if tar.get(257..262) == Some(b"ustar") => (false, compressed(tar)),
        _ => match chosen(&mut Unstructured::new(bytes)) {
            Ok(chosen) => chosen,
            Err(_) => return,
        },
    };
    fs::create_dir(&*HOUSE).expect("it was removed");
    unpacked(&HOUSE, is_zip, &archive);
    fs::remove_dir_all(&*HOUSE).expect("all that is in it can be removed");
});

fn unpacked(house: &Path, is_zip: bool, archive: &[u8]) {
    let (file, secret, root) = (house.join("archive"), house.join("secret"), house.join("tree"));
    fs::write(&file, archive).expect("written");
    fs::write(&secret, SECRET).expect("written");
    let mut tree = Tree::new(root.clone(), MIB).expect("it is a new folder");
    let read = if is_zip { unpack::zip(&file, &mut tree) } else { unpack::tar_gz(&file, &mut tree) };
    let ended = read.and_then(|()| tree.finish());
    let mut names: Vec<_> = entries(house).into_iter().map(|(path, _)| path).collect();
    names.sort_unstable();
    assert_eq!(names, [file.clone(), secret.clone(), root.clone()], "nothing appears beside the tree");
    assert_eq!(fs::read(&file).expect("there"), archive, "the archive stays as it was");
    assert_eq!(fs::read(&secret).expect("there"), SECRET, "what is beside the tree stays as it was");
    let (count, size) = walked(&root, ended.is_ok());
    assert!(count <= MAX_ENTRIES && size <= MIB << 20, "{count} entries of {size} bytes");
    match ended {
        Ok(told) => kept(house, &root, told, count, size),
        Err(Problem::NotKept(why)) => panic!("it is no fault of the disk: {why}"),
        Err(_) => {}
    }
}

/// Everything in the tree is plain; how many entries and bytes there are.
fn walked(root: &Path, is_whole: bool) -> (usize, u64) {
    let (mut open, mut count, mut size) = (vec![root.to_owned()], 0, 0);
    while let Some(folder) = open.pop() {
        for (path, about) in entries(&folder) {
            count += 1;
            let mode = about.permissions().mode() & 0o7777;
            if about.is_dir() {
                assert_eq!(mode, 0o755, "{}", path.display());
                open.push(path);
            } else if about.is_symlink() {
                let leads = path.canonicalize();
                let inside = leads.as_ref().is_ok_and(|leads| leads.starts_with(root));
                assert!(inside || !is_whole, "{} leads out or nowhere", path.display());
            } else {
                assert!(about.is_file(), "{} is something special", path.display());
                // What was refused midway is only removed.
                assert!(matches!(mode, 0o444 | 0o555) || !is_whole, "{} {mode:o}", path.display());
                size += about.len();
            }
        }
    }
    (count, size)
}

/// What was unpacked is found whole again, and what it takes was told.
fn kept(house: &Path, root: &Path, told: u64, count: usize, size: u64) {
    // Second names of one file are counted by the walk, and not by the tree.
    assert!(told <= (MIB << 20) + (MAX_ENTRIES as u64 * 4096), "{told}");
    assert!(told >= count as u64 * 4096, "{told} bytes for {count} entries of {size} bytes");
    let listing = Listing::of(root).expect("it can be read");
    Manifest { bytes: told, listing }.write(house).expect("written");
    assert_eq!(Manifest::bytes(house), Some(told));
    assert!(Manifest::restore(house, root), "the manifest tells what is there");
    assert_eq!(walked(root, true), (count, size), "nothing was removed");
}

fn entries(folder: &Path) -> Vec<(PathBuf, Metadata)> {
    let entries = fs::read_dir(folder).expect("a folder can be read");
    let paths = entries.map(|entry| entry.expect("an entry can be read").path());
    paths.map(|path| (path.clone(), fs::symlink_metadata(path).expect("it is there"))).collect()
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("written to memory")
}

/// An entry of an archive that is made here.
struct Entry {
    name: String,
    kind: u8,
    mode: u32,
    target: String,
    content: Vec<u8>,
}

/// An archive with entries that stand in each other's way. Whether it is a zip.
fn chosen(bytes: &mut Unstructured<'_>) -> Result<(bool, Vec<u8>)> {
    let is_zip = bytes.arbitrary()?;
    let count = bytes.int_in_range(1..=8)?;
    let entries: Vec<Entry> = (0..count).map(|_| entry(bytes)).collect::<Result<_>>()?;
    Ok((is_zip, if is_zip { zip(&entries) } else { tar_gz(&entries) }))
}

fn entry(bytes: &mut Unstructured<'_>) -> Result<Entry> {
    Ok(Entry {
        name: path(bytes)?,
        // Files, both sorts of links and folders most of all; then devices, pipes and what else tar knows.
        kind: *bytes.choose(b"00000012125555034670gxLKS")?,
        mode: *bytes.choose(&[0o644, 0o755, 0o777, 0o6755, 0, 0o120_777, 0o040_755, 0o100_644, 0o010_644])?,
        target: path(bytes)?,
        content: vec![b'x'; bytes.int_in_range(0..=4)? * *bytes.choose(&[1, 1, 1, 300_000])?],
    })
}

fn path(bytes: &mut Unstructured<'_>) -> Result<String> {
    let parts = ["a", "b", "c", "a", "b", "..", ".", "", "secret", "tree", "a\\b", "\u{e9}"];
    let count = bytes.int_in_range(1..=4)?;
    let parts = (0..count).map(|_| bytes.choose(&parts).copied()).collect::<Result<Vec<_>>>()?;
    Ok(parts.join("/"))
}

fn tar_gz(entries: &[Entry]) -> Vec<u8> {
    let mut tar = Vec::new();
    for Entry { name, kind, mode, target, content } in entries {
        let mut header = tar::Header::new_gnu();
        // By hand: the library refuses to write what must be refused when it is read.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(tar::EntryType::new(*kind));
        header.set_mode(mode & 0o7777);
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.extend_from_slice(header.as_bytes());
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    compressed(&tar)
}

/// A zip that stores its entries (APPNOTE.TXT 4.3), written by hand for the same reason.
fn zip(entries: &[Entry]) -> Vec<u8> {
    let (mut zip, mut directory) = (Vec::new(), Vec::new());
    for Entry { name, mode, target, content, .. } in entries {
        let content = if mode & 0o170_000 == 0o120_000 { target.as_bytes() } else { content };
        let mut crc = Crc::new();
        crc.update(content);
        // Version, flags (a name in UTF-8), method, time, date.
        let mut common = words(&[20, 1 << 11, 0, 0, 0x21]);
        common.extend(crc.sum().to_le_bytes());
        common.extend((content.len() as u32).to_le_bytes());
        common.extend((content.len() as u32).to_le_bytes());
        common.extend(words(&[name.len() as u16, 0]));
        let start = zip.len() as u32;
        zip.extend([b"PK\x03\x04", common.as_slice(), name.as_bytes(), content].concat());
        let made_by_unix = words(&[3 << 8 | 20]);
        directory.extend([b"PK\x01\x02", made_by_unix.as_slice(), &common, &words(&[0, 0, 0])].concat());
        directory.extend((mode << 16).to_le_bytes());
        directory.extend([&start.to_le_bytes(), name.as_bytes()].concat());
    }
    let (count, start) = (entries.len() as u16, zip.len() as u32);
    zip.extend(&directory);
    zip.extend([b"PK\x05\x06", words(&[0, 0, count, count]).as_slice()].concat());
    zip.extend([(directory.len() as u32).to_le_bytes(), start.to_le_bytes()].concat());
    zip.extend(words(&[0]));
    zip
}

fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
