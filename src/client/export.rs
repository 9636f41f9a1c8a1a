//! `export`, `tool export` and `function export`: definitions as lines of JSON, to stdout or into a file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use actors::definition::Kind;
use anyhow::{Context, Result};
use console::Term;
use reqwest::Method;
use serde_json::json;

use super::counter::Counter;
use super::service::{Service, encode};
use super::{Failure, definitions, is_read, print};
use crate::cli::{ExportArgs, Selection};

pub const NOT_WHOLE: &str = "the export is not whole";

/// Writes the definitions of both kinds, the tools first.
pub async fn all(args: &ExportArgs, json: bool) -> Result<(), Failure> {
    let service = Service::new(args.service.base())?;
    let select = Selection { tags: args.tags.clone(), ..Selection::default() };
    run(&service, &Kind::ALL, &select, args.output.as_deref(), json).await
}

/// Writes what is selected of these kinds.
pub async fn run(
    service: &Service,
    kinds: &[Kind],
    select: &Selection,
    output: Option<&Path>,
    json: bool,
) -> Result<(), Failure> {
    let filters = kinds.iter().map(|kind| Ok((*kind, definitions::filter(*kind, select)?)));
    let filters = filters.collect::<Result<Vec<_>>>()?;
    let mut output = Output::open(output)?;
    let leaving = {
        let is_stdout = output.path.is_none();
        async move {
            // Writing to stdout may wait for its reader; Ctrl-C is to end that too, as it does by itself.
            if is_stdout { std::future::pending().await } else { tokio::signal::ctrl_c().await }
        }
    };
    let exported = tokio::select! {
        exported = copy(service, &filters, &mut output) => exported?,
        Ok(()) = leaving => return Err(Failure::Left("left; nothing of the export is kept".to_owned())),
    };
    let Some(path) = output.finish()? else { return Ok(()) };
    print(&if json {
        json!({ "exported": exported, "file": path }).to_string()
    } else {
        format!("{exported} exported to {}", path.display())
    })
}

/// Copies what the service gives: how many definitions that were.
async fn copy(service: &Service, filters: &[(Kind, String)], output: &mut Output) -> Result<u64, Failure> {
    let is_seen = output.path.is_none() && Term::stdout().is_term();
    let mut counter = if is_seen { Counter::hidden() } else { Counter::start(None) };
    let mut count = 0;
    for (kind, filter) in filters {
        let path = format!("/{}s/export?filter={}", kind.name(), encode(filter));
        let mut lines = service.lines(Method::GET, &path, None).await?;
        let write = |chunk: &[u8]| {
            count += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
            let is_read = output.write(chunk)?;
            counter.show(count, 0, 0);
            Ok(is_read)
        };
        if !lines.copy(NOT_WHOLE, write).await? {
            return Ok(count);
        }
    }
    Ok(count)
}

/// Where an export goes.
struct Output {
    to: Box<dyn Write>,
    /// What was asked for; none for stdout.
    path: Option<PathBuf>,
    beside: Option<Beside>,
}

/// A file that is written beside the one that it becomes at its end; it is removed where it does not get there.
struct Beside {
    file: File,
    path: PathBuf,
    target: PathBuf,
}

impl Output {
    fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self { to: Box::new(io::stdout()), path: None, beside: None });
        };
        let context = || format!("cannot write {}", path.display());
        // A pipe or a device stays what it is.
        if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            let to = File::options().write(true).open(path).with_context(context)?;
            return Ok(Self { to: Box::new(to), path: Some(path.to_owned()), beside: None });
        }
        let beside = Beside::of(path).with_context(context)?;
        let to = Box::new(beside.file.try_clone().with_context(context)?);
        Ok(Self { to, path: Some(path.to_owned()), beside: Some(beside) })
    }

    /// Writes; `false` where the reader has left (`… | head`), which is no error.
    fn write(&mut self, bytes: &[u8]) -> Result<bool> {
        is_read(self.to.write_all(bytes)).with_context(|| self.context())
    }

    /// Makes it whole, under its own name: the path that was asked for, none for stdout.
    fn finish(mut self) -> Result<Option<PathBuf>> {
        is_read(self.to.flush()).with_context(|| self.context())?;
        if let Some(beside) = self.beside.take() {
            beside.take_place().with_context(|| self.context())?;
        }
        Ok(self.path)
    }

    fn context(&self) -> String {
        self.path.as_ref().map_or_else(
            || "cannot write to stdout".to_owned(),
            |path| format!("cannot write {}", path.display()),
        )
    }
}

impl Beside {
    fn of(path: &Path) -> io::Result<Self> {
        // A link goes on leading to its file.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mut name = target.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = target.with_file_name(name);
        let file = File::options().write(true).create_new(true).open(&path)?;
        Ok(Self { file, path, target })
    }

    fn take_place(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, &self.target)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Once it took its place there is nothing left to remove, and otherwise its name says what it is.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_has_its_name_only_once_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("all.jsonl");
        fs::write(&path, "old\n").unwrap();
        let mut output = Output::open(Some(&path)).unwrap();
        assert!(output.write(b"new\n").unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old\n");
        assert_eq!(output.finish().unwrap(), Some(path.clone()));
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(names(folder.path()), ["all.jsonl"]);
    }

    #[test]
    fn what_is_not_finished_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("all.jsonl");
        let mut output = Output::open(Some(&path)).unwrap();
        assert!(output.write(b"half").unwrap());
        assert_eq!(names(folder.path()).len(), 1);
        drop(output);
        assert!(names(folder.path()).is_empty());
        assert!(Output::open(Some(&folder.path().join("no/all.jsonl"))).is_err());
    }

    #[test]
    fn a_device_is_written_into_and_a_link_stays_a_link() {
        let mut output = Output::open(Some(Path::new("/dev/null"))).unwrap();
        assert!(output.write(b"gone\n").unwrap() && output.beside.is_none());
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let mut output = Output::open(Some(&link)).unwrap();
        assert!(output.write(b"line\n").unwrap());
        output.finish().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "line\n");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
