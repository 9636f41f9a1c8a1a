//! Archives that are meant to harm, and some that are not.

use std::io::{Cursor, Read, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::EntryType;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;

/// A `.tar.gz` with these entries: name, type, mode, link target, content.
fn tar_gz(entries: &[(&str, EntryType, u32, &str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, kind, mode, target, content) in entries {
        let mut header = tar::Header::new_gnu();
        // By hand: the library refuses to write what must be refused when it is read.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, *content).expect("written");
    }
    builder.into_inner().expect("written").finish().expect("written")
}

/// A `.zip` with these entries: name, mode, content.
fn zip(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, mode, content) in entries {
        let options = SimpleFileOptions::default();
        if mode & 0o170_000 == 0o120_000 {
            let target = str::from_utf8(content).expect("text");
            writer.add_symlink(*name, target, options).expect("written");
        } else {
            writer.start_file(*name, options.unix_permissions(*mode)).expect("written");
            writer.write_all(content).expect("written");
        }
    }
    writer.finish().expect("written").into_inner()
}

fn replaced(mut bytes: Vec<u8>, old: &[u8], new: &[u8]) -> Vec<u8> {
    let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(old)).collect();
    assert!(!places.is_empty(), "it is there");
    for at in places {
        bytes[at..at + new.len()].copy_from_slice(new);
    }
    bytes
}

const FILE: EntryType = EntryType::Regular;
const LINK: EntryType = EntryType::Symlink;
const HARD: EntryType = EntryType::Link;

/// Offers it, and sees that nothing of it is left anywhere.
async fn refused(name: &str, archive: &[u8]) -> Problem {
    let house = House::new();
    house.write(name, archive);
    let problem = house.pin(name).await.expect_err("harmful");
    assert!(house.stored().is_empty(), "{:?}", house.stored());
    let around = fs::read_dir(house.folder.path()).expect("there").count();
    assert_eq!((around, fs::read_dir(house.folder.path().join("data")).expect("there").count()), (2, 1));
    assert!(problem.is_for_good());
    problem
}

#[tokio::test]
async fn archives_are_unpacked_with_plain_modes_only() {
    let content = [
        ("./", EntryType::Directory, 0o700, "", b"".as_slice()),
        ("./bin/", EntryType::Directory, 0o000, "", b""),
        ("./bin/run", FILE, 0o6755, "", b"#!/bin/sh\n"),
        ("bin/data", FILE, 0o600, "", b"data"),
        ("bin/same", HARD, 0o600, "bin/data", b""),
        ("lib/link", LINK, 0o777, "../bin/run", b""),
    ];
    let house = House::new();
    let archive = tar_gz(&content);
    house.write("a.tar.gz", &archive);
    // Two members after each other are one stream.
    let mut tar = Vec::new();
    flate2::read::MultiGzDecoder::new(archive.as_slice()).read_to_end(&mut tar).expect("read");
    let halves = tar.split_at(700);
    let members: Vec<u8> = [halves.0, halves.1]
        .iter()
        .flat_map(|half| {
            let mut member = GzEncoder::new(Vec::new(), Compression::best());
            member.write_all(half).expect("written");
            member.finish().expect("written")
        })
        .collect();
    house.write("b.tgz", members);
    let zipped: [(&str, u32, &[u8]); 3] = [
        ("bin/run", 0o6755, b"#!/bin/sh\n"),
        ("bin/data", 0o600, b"data"),
        ("lib/link", 0o120_777, b"../bin/run"),
    ];
    house.write("c.zip", zip(&zipped));
    for name in ["a.tar.gz", "b.tgz", "c.zip"] {
        let pin = house.pin(name).await.unwrap_or_else(|problem| panic!("{name}: {problem}"));
        assert_eq!(pin, Pin::of(Sha256::new_with_prefix(fs::read(house.source(name)).expect("there"))));
        let lease = house.store.lease(name, &pin).await.expect("kept");
        let run = lease.file(Some("bin/run")).expect("a file");
        assert_eq!(fs::read(&run).expect("readable"), b"#!/bin/sh\n");
        assert_eq!((mode(&run), mode(&lease.folder().join("bin"))), (0o555, 0o755), "{name}");
        assert_eq!(mode(&lease.folder().join("bin/data")), 0o444);
        assert_eq!(lease.file(Some("lib/link")), Ok(run));
    }
    assert_eq!(house.stored().len(), 3);
}

#[tokio::test]
async fn paths_and_links_that_lead_out_are_refused() {
    let deep = format!("{}x", "d/".repeat(32));
    for (entries, sentence) in [
        (vec![("../x", FILE, "")], "has `..` in its path"),
        (vec![("a/../../x", FILE, "")], "has `..` in its path"),
        (vec![("/tmp/x", FILE, "")], "has an absolute path"),
        (vec![("a\\..\\x", FILE, "")], "has a backslash"),
        (vec![(deep.as_str(), FILE, "")], "too many folders deep"),
        (vec![(".", FILE, "")], "has no name"),
        (vec![("l", LINK, "/etc"), ("l/x", FILE, "")], "leads out"),
        (vec![("l", LINK, "..")], "leads out"),
        (vec![("a/l", LINK, "../../x")], "leads out"),
        (vec![("l", LINK, "a"), ("a", LINK, ".."), ("l/x", FILE, "")], "leads out"),
        // Each looks harmless by its text.
        (vec![("a/b/x", FILE, ""), ("a/b/up", LINK, "../.."), ("m", LINK, "a/b/up/..")], "leads out"),
        (vec![("l", LINK, "a"), ("l/x", FILE, ""), ("a/y", FILE, "")], "in the way"),
        (vec![("l/x", FILE, ""), ("a/y", FILE, ""), ("l", LINK, "a")], "in the way"),
        (vec![("l", LINK, "l")], "leads nowhere"),
        (vec![("l", LINK, "none")], "leads nowhere"),
        (vec![("h", HARD, "/etc/passwd")], "hard link to a path outside"),
        (vec![("h", HARD, "../../outside")], "hard link to a path outside"),
        (vec![("l", LINK, "/etc/passwd"), ("h", HARD, "l")], "leads out"),
        (vec![("x", FILE, ""), ("l", LINK, "x"), ("h", HARD, "l")], "hard link to no file"),
        (vec![("h", HARD, "later"), ("later", FILE, "")], "hard link to no file"),
        (vec![("dev", EntryType::Char, "")], "neither a file nor"),
        (vec![("dev", EntryType::Block, "")], "neither a file nor"),
        (vec![("pipe", EntryType::Fifo, "")], "neither a file nor"),
        (vec![("x", FILE, ""), ("./x", FILE, "")], "in the way"),
        (vec![("x", FILE, ""), ("x/y", FILE, "")], "in the way"),
        (vec![("x/y", FILE, ""), ("x", FILE, "")], "in the way"),
        (vec![("x", FILE, ""), ("x", HARD, "x")], "in the way"),
    ] {
        let entries: Vec<_> = entries
            .iter()
            .map(|(name, kind, target)| (*name, *kind, 0o644, *target, b"".as_slice()))
            .collect();
        let problem = refused("x.tar.gz", &tar_gz(&entries)).await;
        assert!(problem.to_string().contains(sentence), "{entries:?}: {problem}");
    }
    for (entries, sentence) in [
        (vec![("../x", 0o644, "")], "has `..` in its path"),
        (vec![("/x", 0o644, "")], "has an absolute path"),
        (vec![("a\\x", 0o644, "")], "has a backslash"),
        (vec![("l", 0o120_777, "/etc")], "leads out"),
        (vec![("l", 0o120_777, ".."), ("l/x", 0o644, "")], "leads out"),
        (vec![(deep.as_str(), 0o644, "")], "too many folders deep"),
    ] {
        let entries: Vec<_> =
            entries.iter().map(|(name, mode, text)| (*name, *mode, text.as_bytes())).collect();
        let problem = refused("x.zip", &zip(&entries)).await;
        assert!(problem.to_string().contains(sentence), "{entries:?}: {problem}");
    }
    // What the writer does not write: a NUL, one name twice, a device.
    let pair = zip(&[("aa", 0o644, b"1"), ("ab", 0o644, b"2")]);
    let nul = refused("x.zip", &replaced(pair.clone(), b"ab", b"a\0")).await;
    assert!(nul.to_string().contains("NUL"), "{nul}");
    let twice = refused("x.zip", &replaced(pair.clone(), b"ab", b"aa")).await;
    assert!(twice.to_string().contains("the same name"), "{twice}");
    let device = replaced(pair, &(0o100_644_u32 << 16).to_le_bytes(), &(0o020_644_u32 << 16).to_le_bytes());
    let device = refused("x.zip", &device).await;
    assert!(device.to_string().contains("neither a file nor"), "{device}");
}

#[tokio::test]
async fn bombs_are_stopped_by_what_comes_out_not_by_what_is_told() {
    let zeros = vec![0; 4 << 20];
    let bomb = tar_gz(&[("zeros", FILE, 0o644, "", &zeros)]);
    assert!(bomb.len() < 100 << 10);
    assert_eq!(refused("x.tar.gz", &bomb).await, Problem::TooLargeUnpacked(1));
    let bomb = zip(&[("zeros", 0o644, &zeros)]);
    assert_eq!(refused("x.zip", &bomb).await, Problem::TooLargeUnpacked(1));
    let lying = replaced(bomb, &(4_u32 << 20).to_le_bytes(), &9_u32.to_le_bytes());
    let lying = refused("x.zip", &lying).await;
    assert!(lying.to_string().contains("larger than its declared"), "{lying}");
    // Many that fit, but not together.
    let part: [(&str, u32, &[u8]); 3] = [
        ("a", 0o644, &zeros[..400 << 10]),
        ("b", 0o644, &zeros[..400 << 10]),
        ("c", 0o644, &zeros[..400 << 10]),
    ];
    assert_eq!(refused("x.zip", &zip(&part)).await, Problem::TooLargeUnpacked(1));
    let hard = ["a", "b"].map(|name| (name, HARD, 0o644, "zeros", b"".as_slice()));
    let hard = [[("zeros", FILE, 0o644, "", &zeros[..400 << 10])].as_slice(), &hard].concat();
    assert_eq!(refused("x.tgz", &tar_gz(&hard)).await, Problem::TooLargeUnpacked(1));
    // A name that would be read into memory.
    let name = tar_gz(&[("long", EntryType::GNULongName, 0o644, "", &zeros), ("x", FILE, 0o644, "", b"")]);
    let name = refused("x.tar.gz", &name).await;
    assert!(name.to_string().contains("headers of its entries are too large"), "{name}");
}

#[tokio::test]
async fn too_many_entries_are_refused_however_they_come() {
    let names: Vec<String> = (0..10_001).map(|number| format!("n{number}")).collect();
    let again: Vec<_> =
        names.iter().map(|_| ("d/", EntryType::Directory, 0o755, "", b"".as_slice())).collect();
    assert_eq!(refused("x.tgz", &tar_gz(&again)).await, Problem::TooManyEntries);
    // Few entries can need many folders. The links cost nothing here, since they would be made last.
    let folders: Vec<String> = (0..100).map(|number| format!("f{number}/{}x", "d/".repeat(30))).collect();
    let links = names[..8_000].iter().map(|name| (name.as_str(), LINK, 0o777, "x", b"".as_slice()));
    let folders = folders.iter().map(|name| (name.as_str(), FILE, 0o644, "", b"".as_slice()));
    assert_eq!(
        refused("x.tgz", &tar_gz(&links.chain(folders).collect::<Vec<_>>())).await,
        Problem::TooManyEntries
    );
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), 0o644, b"".as_slice())).collect();
    assert_eq!(refused("x.zip", &zip(&many)).await, Problem::TooManyEntries);
}

#[tokio::test]
async fn damaged_archives_are_told() {
    let tar = tar_gz(&[("x", FILE, 0o644, "", &[7; 3_000])]);
    let zipped = zip(&[("x", 0o644, &[7; 3_000])]);
    let end = zipped.len() - 22;
    // It promises more entries than there are, and a directory that is elsewhere.
    let mut promising = zipped.clone();
    promising[end + 8..end + 12].copy_from_slice(&[0x10, 0x27, 0x10, 0x27]);
    let mut elsewhere = zipped.clone();
    elsewhere[end + 12] += 1;
    let mut zip64 = zipped.clone();
    zip64[end + 8..end + 20].copy_from_slice(&[0xff; 12]);
    let mut checksum = tar.clone();
    let at = checksum.len() - 6;
    checksum[at] ^= 1;
    for (name, archive) in [
        ("x.tar.gz", b"no gzip".to_vec()),
        ("x.tar.gz", tar[..tar.len() - 9].to_vec()),
        ("x.tar.gz", checksum),
        ("x.tar.gz", [tar.as_slice(), b"and more"].concat()),
        ("x.zip", b"no zip".to_vec()),
        ("x.zip", Vec::new()),
        ("x.zip", zipped[..zipped.len() - 1].to_vec()),
        ("x.zip", promising),
        ("x.zip", elsewhere),
    ] {
        let problem = refused(name, &archive).await;
        assert!(matches!(problem, Problem::Unreadable(_)), "{name}: {problem:?}");
    }
    assert_eq!(refused("x.zip", &zip64).await, Problem::TooManyEntries);
}
