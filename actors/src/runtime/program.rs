//! Which program runs: an entrypoint on PATH or by its absolute path, or a source with the interpreter that it names.
//! Everything that can be wrong with it is told by a sentence, before anything starts.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Context;
use crate::artifacts::Lease;
use crate::execution::{Job, Outcome};

/// What is started: a program and the arguments that come before the definition's own.
#[derive(Debug)]
pub struct Located {
    /// The program's absolute path: an interpreter of the machine, or the source itself.
    pub path: PathBuf,
    /// An interpreter's flags.
    pub flags: Vec<String>,
    /// The source that an interpreter runs.
    pub file: Option<PathBuf>,
    /// Keeps the source where it is.
    pub lease: Option<Lease>,
}

/// Finds the program.
///
/// # Errors
/// The outcome, with one sentence in the definition's own words.
pub async fn locate(job: &Job, context: &Context) -> Result<Located, Outcome> {
    let spec = &job.definition.spec.program;
    let located = if spec.source.is_some() {
        let lease = context.artifact(job).await?;
        let file = lease.file(spec.entrypoint.as_deref());
        file.and_then(|file| {
            let interpreter = interpreter(&file, &context.path)?;
            let Some((path, flags)) = interpreter else {
                return Ok(Located { path: file, flags: Vec::new(), file: None, lease: Some(lease) });
            };
            context.sandbox.check_shown(&path)?;
            Ok(Located { path, flags, file: Some(file), lease: Some(lease) })
        })
    } else if let Some(entrypoint) = &spec.entrypoint {
        find(entrypoint, &context.path).and_then(|path| {
            context.sandbox.check_shown(&path)?;
            Ok(Located { path, flags: Vec::new(), file: None, lease: None })
        })
    } else {
        Err("the definition names no program: it has neither `entrypoint` nor `source_url`".into())
    };
    located.map_err(|problem| Outcome::failed("not_startable", problem))
}

/// A program by its absolute path, or by its name on this `PATH`.
///
/// # Errors
/// One sentence: it is not there, or is none.
pub fn find(name: &str, path: &str) -> Result<PathBuf, String> {
    if name.starts_with('/') {
        executable(Path::new(name), name)?;
        return Ok(name.into());
    }
    which::which_in(name, Some(path), "/")
        .map_err(|_| format!("the program {name:?} is not on this machine's PATH"))
}

fn executable(path: &Path, name: &str) -> Result<(), String> {
    let about =
        std::fs::metadata(path).map_err(|_| format!("the program {name:?} is not on this machine"))?;
    if about.is_dir() {
        return Err(format!("the program {name:?} is a folder"));
    }
    if about.permissions().mode() & 0o111 == 0 {
        return Err(format!("the program {name:?} is not executable"));
    }
    Ok(())
}

/// What runs a source, with its flags: the interpreter that it names or that its ending tells. None where the source is a
/// program itself.
fn interpreter(file: &Path, path: &str) -> Result<Option<(PathBuf, Vec<String>)>, String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = file.to_str().ok_or("the source's name is not UTF-8")?.to_owned();
    let first_line = first_line(file).map_err(|_| format!("the source {name:?} cannot be read"))?;
    let interpreter = shebang(&first_line).or_else(|| by_ending(&text));
    let Some((interpreter, flags)) = interpreter else {
        executable(file, &name)?;
        return Ok(None);
    };
    let program = find(&interpreter, path).or_else(|problem| match Path::new(&interpreter).file_name() {
        // Machines keep their interpreters in different folders.
        Some(name) => find(&name.to_string_lossy(), path),
        None => Err(problem),
    });
    let program =
        program.map_err(|_| format!("the interpreter {interpreter:?} of {name:?} is not on this machine"))?;
    Ok(Some((program, flags)))
}

fn first_line(file: &Path) -> std::io::Result<String> {
    let mut start = Vec::new();
    File::open(file)?.take(256).read_to_end(&mut start)?;
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

/// The interpreter of a `#!` line and its flags; `env` is looked through.
fn shebang(line: &str) -> Option<(String, Vec<String>)> {
    let mut words = line.strip_prefix("#!")?.split_whitespace().map(str::to_owned).peekable();
    let mut interpreter = words.next()?;
    if interpreter.ends_with("/env") {
        words.next_if(|word| word == "-S");
        interpreter = words.next()?;
    }
    Some((interpreter, words.collect()))
}

fn by_ending(source: &str) -> Option<(String, Vec<String>)> {
    let interpreter = match source.rsplit_once('.')?.1 {
        "py" => "python3",
        "sh" => "sh",
        _ => return None,
    };
    Some((interpreter.into(), Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shebang_names_the_interpreter() {
        let read =
            |line| shebang(line).map(|(interpreter, args)| format!("{interpreter} {}", args.join(" ")));
        assert_eq!(read("#!/bin/sh -e").as_deref(), Some("/bin/sh -e"));
        assert_eq!(read("#!/usr/bin/env python3").as_deref(), Some("python3 "));
        assert_eq!(read("#!/usr/bin/env -S awk -f").as_deref(), Some("awk -f"));
        assert_eq!(read("echo"), None);
        assert_eq!(read("#!"), None);
    }

    #[test]
    fn a_source_is_run_by_what_it_names_or_by_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let source = |name: &str, text: &str| {
            let file = folder.path().join(name);
            std::fs::write(&file, text).expect("written");
            interpreter(&file, "/usr/bin:/bin").map(|found| found.map(|(_, flags)| flags))
        };
        assert_eq!(source("ok.sh", "echo"), Ok(Some(Vec::new())));
        assert_eq!(source("flag", "#!/no/such/folder/sh -e\n"), Ok(Some(vec!["-e".to_owned()])));
        for (name, text, problem) in [
            ("odd", "#!/opt/nothing/here-9\n", "the interpreter \"/opt/nothing/here-9\" of \"odd\" is not"),
            ("data", "x", "\"data\" is not executable"),
        ] {
            let told = source(name, text).expect_err(problem);
            assert!(told.contains(problem), "{told}");
        }
    }

    #[test]
    fn what_is_wrong_with_an_entrypoint_is_said() {
        assert!(find("sh", "/usr/bin:/bin").is_ok());
        for (entrypoint, problem) in [
            ("no-such-program", "not on this machine's PATH"),
            ("/no/such/program", "not on this machine"),
            ("/usr", "is a folder"),
            ("/etc/passwd", "not executable"),
        ] {
            let told = find(entrypoint, "/usr/bin:/bin").expect_err(problem);
            assert!(told.contains(problem), "{told}");
        }
    }
}
