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
    /// The program's absolute path.
    pub path: PathBuf,
    /// Arguments before the definition's own: an interpreter's flags and the source.
    pub first_args: Vec<String>,
    /// Keeps the source where it is.
    _lease: Option<Lease>,
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
        file.and_then(|file| interpreted(&file, &context.path)).map(|(path, first_args)| Located {
            path,
            first_args,
            _lease: Some(lease),
        })
    } else if let Some(entrypoint) = &spec.entrypoint {
        find(entrypoint, &context.path).map(|path| Located { path, first_args: Vec::new(), _lease: None })
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

/// What runs a source: the interpreter that it names or that its ending tells, or the source itself.
fn interpreted(file: &Path, path: &str) -> Result<(PathBuf, Vec<String>), String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = file.to_str().ok_or("the source's name is not UTF-8")?.to_owned();
    let first_line = first_line(file).map_err(|_| format!("the source {name:?} cannot be read"))?;
    let interpreter = shebang(&first_line).or_else(|| by_ending(&text));
    let Some((interpreter, mut first_args)) = interpreter else {
        executable(file, &name)?;
        return Ok((file.to_owned(), Vec::new()));
    };
    let program = find(&interpreter, path).or_else(|problem| match Path::new(&interpreter).file_name() {
        // Machines keep their interpreters in different folders.
        Some(name) => find(&name.to_string_lossy(), path),
        None => Err(problem),
    });
    let program =
        program.map_err(|_| format!("the interpreter {interpreter:?} of {name:?} is not on this machine"))?;
    first_args.push(text);
    Ok((program, first_args))
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
            interpreted(&file, "/usr/bin:/bin").map(|(program, args)| (program, args.len()))
        };
        assert_eq!(source("ok.sh", "echo").expect("sh").1, 1);
        assert_eq!(source("flag", "#!/no/such/folder/sh -e\n").expect("sh, elsewhere").1, 2);
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
