//! Reading the definitions out of files: each becomes one line of JSON with the place where it stands. Lines are
//! read as they are needed; a file that is one document is read whole.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actors::definition::Kind;
use anyhow::{Context, Result};
use serde_json::value::RawValue;

use crate::client::ids::identify;
use crate::client::json;

const BUFFER: usize = 256 << 10;

/// The endings of files that hold lines, and nothing but lines.
const LINES: [&str; 2] = ["jsonl", "ndjson"];

/// Where definitions are read.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// Lines where the first one is a whole object, else one document.
    Stdin,
    /// Lines or one document, by its ending.
    File {
        /// Where it is.
        path: PathBuf,
        /// How long it is.
        bytes: u64,
    },
}

/// Where a definition stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub input: Arc<str>,
    /// The line in it where the definition begins.
    pub line: Option<u64>,
    /// The how many-th definition of all files it is.
    pub number: u64,
    /// How many bytes were read for it.
    pub bytes: u64,
}

/// A definition that can be asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Item {
    pub kind: Kind,
    pub id: String,
    /// Its JSON text on one line.
    pub text: String,
    pub place: Place,
}

/// What stands at a place.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A definition.
    Definition(Item),
    /// Something that cannot even be asked for, and why.
    Wrong(Place, String),
}

/// Nobody takes what is read any more.
#[derive(Debug)]
pub struct Closed;

/// Reads one input after the other, and gives what it finds.
pub struct Reader<G> {
    give: G,
    place: Place,
    /// How many bytes were read of all inputs.
    read: u64,
    /// How many of them were read for what was given.
    given: u64,
}

/// Why reading an input ends early.
enum Stop {
    Closed,
    /// No more can be read of it.
    Broken(anyhow::Error),
}

impl From<Closed> for Stop {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.into())
    }
}

impl Input {
    fn name(&self) -> String {
        match self {
            Self::Stdin => "stdin".to_owned(),
            Self::File { path, .. } => path.display().to_string(),
        }
    }

    /// How long it is, where that is known before it is read.
    pub fn bytes(&self) -> Option<u64> {
        match self {
            Self::Stdin => None,
            Self::File { bytes, .. } => Some(*bytes),
        }
    }
}

/// Stdin for `-`, a file as it is, or all files of a folder through and through that may hold definitions, in the order
/// of their names. Links to folders are not followed: they may lead round in circles.
pub fn inputs(path: &Path) -> Result<Vec<Input>> {
    if path == Path::new("-") {
        return Ok(vec![Input::Stdin]);
    }
    let context = || format!("cannot read {}", path.display());
    let about = fs::metadata(path).with_context(context)?;
    if !about.is_dir() {
        return Ok(vec![Input::File { path: path.to_owned(), bytes: about.len() }]);
    }
    let entries = fs::read_dir(path).with_context(context)?;
    let mut entries = entries.collect::<Result<Vec<_>, _>>().with_context(context)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.path();
        let is_folder = entry.file_type().with_context(context)?.is_dir();
        let is_known = has_ending(&path, &["json"]) || has_ending(&path, &LINES);
        if is_folder || (is_known && path.is_file()) {
            found.extend(inputs(&path)?);
        }
    }
    Ok(found)
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    path.extension().is_some_and(|ending| endings.iter().any(|known| ending == *known))
}

impl<G: FnMut(Found) -> Result<(), Closed>> Reader<G> {
    /// Gives what it finds to `give`.
    pub fn new(give: G) -> Self {
        let place = Place { input: "".into(), line: None, number: 0, bytes: 0 };
        Self { give, place, read: 0, given: 0 }
    }

    /// Reads one input to its end, or as far as it can be read.
    pub fn read(&mut self, input: &Input) -> Result<(), Closed> {
        let before = self.read;
        self.place.input = input.name().into();
        self.place.line = None;
        let read = match input {
            Input::Stdin => self.either(io::stdin().lock()),
            Input::File { path, .. } => self.file(path),
        };
        if let Some(bytes) = input.bytes() {
            self.read = before + bytes;
        }
        match read {
            Ok(()) => Ok(()),
            Err(Stop::Closed) => Err(Closed),
            Err(Stop::Broken(error)) => {
                self.place.line = None;
                self.wrong(format!("{error:#}"))
            }
        }
    }

    fn file(&mut self, path: &Path) -> Result<(), Stop> {
        if has_ending(path, &LINES) {
            return self.lines(BufReader::with_capacity(BUFFER, File::open(path)?));
        }
        self.document(&fs::read(path)?)
    }

    /// Takes lines for lines only where the first one is a whole object: anything else may go on below.
    fn either(&mut self, mut reader: impl BufRead) -> Result<(), Stop> {
        let mut head = Vec::new();
        loop {
            let begin = head.len();
            let read = reader.read_until(b'\n', &mut head)?;
            let first = head[begin..].strip_prefix("\u{feff}".as_bytes()).unwrap_or(&head[begin..]);
            let first = first.trim_ascii();
            if read > 0 && first.is_empty() {
                continue;
            }
            if first.starts_with(b"{") && serde_json::from_slice::<&RawValue>(first).is_ok() {
                return self.lines(head.as_slice().chain(reader));
            }
            reader.read_to_end(&mut head)?;
            return self.document(&head);
        }
    }

    fn lines(&mut self, mut reader: impl BufRead) -> Result<(), Stop> {
        let mut bytes = Vec::new();
        for number in 1.. {
            bytes.clear();
            let read = reader.read_until(b'\n', &mut bytes)?;
            if read == 0 {
                break;
            }
            self.place.line = Some(number);
            self.read += read as u64;
            let Ok(text) = std::str::from_utf8(&bytes) else {
                self.wrong("the line is not UTF-8".to_owned())?;
                continue;
            };
            let text = if number == 1 { text.trim_start_matches('\u{feff}') } else { text };
            match text.trim_ascii() {
                "" => {}
                text => self.definition(text)?,
            }
        }
        Ok(())
    }

    fn document(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let text = std::str::from_utf8(bytes).context("it is not UTF-8")?;
        let before = self.read;
        let (mut line, mut counted) = (1, 0);
        for document in json::documents(text).context("it is not JSON")? {
            let document = document.get();
            // It is a part of the text, and the one before lies before it.
            let begin = document.as_ptr().addr() - text.as_ptr().addr();
            line += newlines(&bytes[counted..begin]);
            counted = begin;
            self.place.line = Some(line);
            self.read = before + (begin + document.len()) as u64;
            self.definition(document)?;
        }
        Ok(())
    }

    fn definition(&mut self, text: &str) -> Result<(), Closed> {
        match identify(text) {
            Ok((kind, id)) => {
                let text = if text.contains('\n') { json::compact(text) } else { text.to_owned() };
                let place = self.next_place();
                (self.give)(Found::Definition(Item { kind, id, text, place }))
            }
            Err(error) => self.wrong(error.to_string()),
        }
    }

    fn wrong(&mut self, reason: String) -> Result<(), Closed> {
        let place = self.next_place();
        (self.give)(Found::Wrong(place, reason))
    }

    fn next_place(&mut self) -> Place {
        self.place.number += 1;
        // A file may have shrunk since its length was taken.
        self.place.bytes = self.read.saturating_sub(self.given);
        self.given = self.read;
        self.place.clone()
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests;
