//! Which program runs: an entrypoint on PATH or by its absolute path, or a source under an allowed root with the
//! interpreter that it names. Everything that can be wrong with it is told by a sentence, before anything starts.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::spec::ProgramSpec;

/// What is started: a program and the arguments that come before the definition's own.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// The program's absolute path.
    pub path: PathBuf,
    /// Arguments before the definition's own: an interpreter's flags and the source.
    pub first_args: Vec<String>,
}

/// Finds the program.
///
/// # Errors
/// One sentence, in the definition's own words.
pub fn locate(spec: &ProgramSpec, roots: &[PathBuf], path: &str) -> Result<Program, String> {
    match (&spec.source, &spec.entrypoint) {
        (Some(source), entrypoint) => {
            from_source(source, entrypoint.as_deref(), spec.sha256.as_deref(), roots, path)
        }
        (None, Some(entrypoint)) => {
            let path = find(entrypoint, path)?;
            Ok(Program { path, first_args: Vec::new() })
        }
        (None, None) => {
            Err("the definition names no program: it has neither `entrypoint` nor `source_url`".into())
        }
    }
}

fn find(name: &str, path: &str) -> Result<PathBuf, String> {
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

fn from_source(
    source: &str,
    entrypoint: Option<&str>,
    sha256: Option<&str>,
    roots: &[PathBuf],
    path: &str,
) -> Result<Program, String> {
    let relative = source.strip_prefix("file://").unwrap_or(source);
    if relative.contains("://") {
        return Err("a `source_url` of another machine is not available yet".into());
    }
    let mut file = under_roots(relative, roots)
        .ok_or_else(|| format!("the source {source:?} is under no allowed root"))?;
    if let Some(inside) = entrypoint {
        let inner = under_roots(inside, std::slice::from_ref(&file));
        file = inner.ok_or_else(|| format!("the source {source:?} has no {inside:?}"))?;
    }
    if file.is_dir() {
        return Err(format!("the source {source:?} is a folder, and no `entrypoint` inside it is named"));
    }
    let text = file.to_str().ok_or("the source's path is not UTF-8")?.to_owned();
    if let Some(expected) = sha256 {
        check_hash(&file, expected).map_err(|problem| format!("the source {source:?} {problem}"))?;
    }
    let first_line = first_line(&file).map_err(|_| format!("the source {source:?} cannot be read"))?;
    let interpreter = shebang(&first_line).or_else(|| by_ending(&text));
    let Some((interpreter, mut first_args)) = interpreter else {
        executable(&file, source)?;
        return Ok(Program { path: file, first_args: Vec::new() });
    };
    let program = find(&interpreter, path).or_else(|problem| match Path::new(&interpreter).file_name() {
        // Machines keep their interpreters in different folders.
        Some(name) => find(&name.to_string_lossy(), path),
        None => Err(problem),
    });
    let path = program
        .map_err(|_| format!("the interpreter {interpreter:?} of {source:?} is not on this machine"))?;
    first_args.push(text);
    Ok(Program { path, first_args })
}

/// The file or folder of that relative path under the first root that has it; never anything outside.
fn under_roots(relative: &str, roots: &[PathBuf]) -> Option<PathBuf> {
    let path = Path::new(relative);
    roots.iter().find_map(|root| {
        let root = root.canonicalize().ok()?;
        let is_plain = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        let joined = if is_plain || path.is_absolute() { root.join(path) } else { return None };
        joined.canonicalize().ok().filter(|found| found.starts_with(&root))
    })
}

fn check_hash(file: &Path, expected: &str) -> Result<(), String> {
    let mut hasher = Sha256::new();
    let copied = File::open(file).and_then(|mut file| std::io::copy(&mut file, &mut hasher));
    copied.map_err(|_| "cannot be read".to_owned())?;
    let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found == expected {
        Ok(())
    } else {
        Err(format!("is not what was registered: its SHA-256 is {found}"))
    }
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

    fn spec(source: Option<&str>, entrypoint: Option<&str>) -> ProgramSpec {
        ProgramSpec {
            source: source.map(Into::into),
            entrypoint: entrypoint.map(Into::into),
            ..ProgramSpec::default()
        }
    }

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
    fn what_is_wrong_with_a_program_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let roots = [folder.path().join("root")];
        std::fs::create_dir_all(roots[0].join("inner")).expect("made");
        for (name, text) in
            [("ok.sh", "echo"), ("odd", "#!/opt/nothing/here-9\n"), ("data", "x"), ("../outside.sh", "echo")]
        {
            std::fs::write(roots[0].join(name), text).expect("written");
        }
        std::os::unix::fs::symlink("../outside.sh", roots[0].join("link.sh")).expect("linked");
        let look = |spec: &ProgramSpec| {
            locate(spec, &roots, "/usr/bin:/bin").map(|program| program.first_args.len())
        };
        assert_eq!(look(&spec(Some("ok.sh"), None)), Ok(1));
        assert_eq!(look(&spec(None, Some("sh"))), Ok(0));
        std::fs::write(roots[0].join("inner/main.sh"), "echo").expect("written");
        assert_eq!(look(&spec(Some("inner"), Some("main.sh"))), Ok(1));
        for (source, entrypoint, problem) in [
            (None, Some("no-such-program"), "not on this machine's PATH"),
            (None, Some("/no/such/program"), "not on this machine"),
            (None, Some("/usr"), "is a folder"),
            (None, Some("/etc/passwd"), "not executable"),
            (None, None, "names no program"),
            (Some("odd"), None, "the interpreter \"/opt/nothing/here-9\" of \"odd\" is not on this machine"),
            (Some("data"), None, "not executable"),
            (Some("inner"), None, "is a folder"),
            (Some("inner"), Some("none.sh"), "has no \"none.sh\""),
            (Some("../outside.sh"), None, "under no allowed root"),
            (Some("link.sh"), None, "under no allowed root"),
            (Some("/etc/passwd"), None, "under no allowed root"),
            (Some("https://example.org/x.sh"), None, "not available yet"),
        ] {
            let told = look(&spec(source, entrypoint)).expect_err(problem);
            assert!(told.contains(problem), "{told}");
        }
    }

    #[test]
    fn a_source_that_was_changed_does_not_run() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a.sh"), "abc").expect("written");
        let mut spec = spec(Some("a.sh"), None);
        // The SHA-256 of "abc", from FIPS 180-2, appendix B.1.
        spec.sha256 = Some("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".into());
        let roots = [folder.path().to_owned()];
        assert!(locate(&spec, &roots, "/usr/bin:/bin").is_ok());
        std::fs::write(folder.path().join("a.sh"), "abd").expect("written");
        assert!(locate(&spec, &roots, "/usr/bin:/bin").expect_err("changed").contains("SHA-256"));
    }
}
