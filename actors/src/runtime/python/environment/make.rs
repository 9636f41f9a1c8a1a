//! Makes a virtual environment with `venv` and `pip`, in the folder that bears its hash: the paths inside are
//! absolute, so it cannot be made elsewhere and moved. A marker, written last, tells a whole one from what was left.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};
use tokio::process::Command;
use uuid::Uuid;

use super::run::{Ended, run};
use crate::runtime::folder;
use crate::settings::PythonSettings;

/// The file whose presence says that an environment is whole, and whose mtime says when it was used last.
pub const MARKER: &str = "ready";

/// How the names of folders begin that are being removed.
const GONE: &str = ".gone-";

/// The oldest version that the worker runs in.
const OLDEST: (u32, u32) = (3, 8);

/// What the interpreter is asked, in words that every version understands. Where a name on the PATH is only a script
/// that chooses one (pyenv), the answer names the real one.
const QUESTION: &str =
    "import sys; print('python=%d.%d.%d=%s' % (tuple(sys.version_info[:3]) + (sys.executable,)))";

/// How long the answer may take.
const ASK: Duration = Duration::from_secs(10);

/// How large a requirements.txt may be.
const MAX_REQUIREMENTS: u64 = 1 << 20;

/// This machine's interpreter.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its absolute path.
    pub python: PathBuf,
    /// As it tells it itself: `3.11.7`.
    pub version: String,
}

/// What an environment is made of.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The hash of all that decides what is in it, in hex.
    pub key: String,
    python: PathBuf,
    folder: PathBuf,
    wheels: Option<PathBuf>,
}

impl Recipe {
    /// The recipe for the sources in this folder; none where they require nothing.
    pub fn read(
        folder: &Path,
        pin: &str,
        machine: &Machine,
        pip_args: &[String],
    ) -> Result<Option<Self>, String> {
        let file = folder.join("requirements.txt");
        let unreadable = |error: io::Error| format!("its requirements.txt cannot be read: {}", error.kind());
        match fs::metadata(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
            Ok(about) if about.len() > MAX_REQUIREMENTS => {
                return Err(format!("its requirements.txt is larger than {MAX_REQUIREMENTS} bytes"));
            }
            Ok(_) => {}
        }
        let text = fs::read(&file).map_err(unreadable)?;
        let wheels = Some(folder.join("wheels")).filter(|wheels| wheels.is_dir());
        let mut hasher = Sha256::new();
        let python = machine.python.as_os_str().as_encoded_bytes();
        let parts = [python, machine.version.as_bytes(), &text];
        for part in parts.into_iter().chain(pip_args.iter().map(String::as_bytes)) {
            // With its length, so that no part can pass for the end of another.
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        if wheels.is_some() || reaches_out(&String::from_utf8_lossy(&text)) {
            // What it gets from beside it is told by the pin alone.
            hasher.update(pin.as_bytes());
        }
        let key = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Some(Self { key, python: machine.python.clone(), folder: folder.to_owned(), wheels }))
    }
}

/// Whether requirements may name other files: `-r`, `-c`, `-f` and their like, or a path.
fn reaches_out(text: &str) -> bool {
    text.lines().map(str::trim).filter(|line| !line.starts_with('#')).any(|line| {
        line.starts_with(['-', '.']) && !line.starts_with("--hash")
            || line.contains('/')
            || line.contains("file:")
    })
}

/// Makes environments, each in a folder of its own.
#[derive(Debug)]
pub struct Maker {
    program: String,
    pip_args: Vec<String>,
    limit: Duration,
    folder: PathBuf,
    path: String,
    /// Variables that hold secrets.
    hidden: BTreeSet<String>,
}

impl Maker {
    /// The folder of an environment with this interpreter.
    pub fn folder_of(&self, interpreter: &Path) -> Option<PathBuf> {
        let key = interpreter.strip_prefix(&self.folder).ok()?.components().next()?;
        Some(self.folder.join(key))
    }

    /// With their folders in `folder`.
    pub fn new(settings: &PythonSettings, folder: PathBuf, path: &str, hidden: &BTreeSet<String>) -> Self {
        Self {
            program: settings.interpreter.clone(),
            pip_args: settings.pip_args.clone(),
            limit: Duration::from_millis(settings.install_timeout_ms),
            folder,
            path: path.to_owned(),
            hidden: hidden.clone(),
        }
    }

    /// What pip gets besides the requirements.
    pub fn pip_args(&self) -> &[String] {
        &self.pip_args
    }

    /// Asks this machine's interpreter for its version.
    pub async fn ask(&self) -> Result<Machine, String> {
        let name = Path::new(&self.program).file_name().unwrap_or(OsStr::new(&self.program));
        let found = which::which_in(&self.program, Some(&self.path), "/")
            .map_err(|_| format!("the interpreter {name:?} is not on this machine's PATH"))?;
        let mut command = self.command(&found);
        command.args(["-c", QUESTION]).current_dir("/");
        let ended = match tokio::time::timeout(ASK, run(command)).await {
            Ok(ended) => ended.map_err(|error| format!("the interpreter {name:?} cannot be run: {error}"))?,
            Err(_) => {
                return Err(format!(
                    "the interpreter {name:?} did not tell its version within {} s",
                    ASK.as_secs()
                ));
            }
        };
        let told = ended.tail.lines().find_map(|line| line.strip_prefix("python="));
        let Some((version, executable)) = told.and_then(|told| told.split_once('=')) else {
            return Err(format!("the interpreter {name:?} does not tell its version: {}", ended.status));
        };
        let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
        if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST {
            let (major, minor) = OLDEST;
            return Err(format!(
                "the interpreter {name:?} is Python {version}, and {major}.{minor} is the oldest that can be used"
            ));
        }
        let python = Some(PathBuf::from(executable)).filter(|path| path.is_absolute()).unwrap_or(found);
        Ok(Machine { python, version: version.to_owned() })
    }

    /// The interpreter of the environment, which is made where there is none that is whole.
    pub async fn make(&self, recipe: &Recipe) -> Result<PathBuf, String> {
        let home = self.folder.join(&recipe.key);
        let python = home.join("bin/python");
        let not_made = |error: &dyn std::fmt::Display| format!("its environment cannot be made: {error}");
        let place = home.clone();
        match tokio::task::spawn_blocking(move || prepare(&place)).await {
            Ok(Ok(true)) => return Ok(python),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => return Err(not_made(&error.kind())),
            Err(error) => return Err(not_made(&error)),
        }
        let started = Instant::now();
        let installed = tokio::time::timeout(self.limit, self.install(recipe, &home)).await;
        let problem = match installed {
            Ok(Ok(())) => match tokio::task::spawn_blocking(move || finish(&home)).await {
                Ok(Ok(())) => {
                    let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                    tracing::info!(key = recipe.key, millis, "a Python environment was made");
                    return Ok(python);
                }
                Ok(Err(error)) => error.kind().to_string(),
                Err(error) => error.to_string(),
            },
            Ok(Err(problem)) => problem,
            Err(_) => {
                let millis = self.limit.as_millis();
                format!("it took longer than {millis} ms, which is `install_timeout_ms`")
            }
        };
        tracing::warn!(key = recipe.key, problem, "a Python environment could not be made");
        // Nobody makes it anew before this making is settled.
        let home = self.folder.join(&recipe.key);
        let removed = tokio::task::spawn_blocking(move || folder::remove_tree(&home)).await;
        if !matches!(removed, Ok(Ok(()))) {
            tracing::error!(key = recipe.key, "what is left of a Python environment could not be removed");
        }
        Err(not_made(&problem))
    }

    async fn install(&self, recipe: &Recipe, home: &Path) -> Result<(), String> {
        let told = |what: &str, ended: &Ended| {
            let folder = |path: &Path| format!("{}/", path.display());
            let said = ended.tail.replace(&folder(home), "").replace(&folder(&recipe.folder), "");
            format!("{what} ended with {}: {said}", ended.status)
        };
        let mut command = self.command(&recipe.python);
        command.args(["-m", "venv"]).arg(home).current_dir(&self.folder);
        let ended = run(command).await.map_err(|error| format!("the interpreter cannot be run: {error}"))?;
        if !ended.status.success() {
            let lacks = ["ensurepip is not", "No module named ensurepip", "No module named venv"];
            if lacks.iter().any(|words| ended.tail.contains(words)) {
                let lacking =
                    "this machine's Python lacks `venv` or `ensurepip`; Debian has them in python3-venv";
                return Err(lacking.into());
            }
            return Err(told("`python -m venv`", &ended));
        }
        let mut command = self.command(&home.join("bin/python"));
        command.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input"]);
        command.arg("--progress-bar=off").arg("-r").arg(recipe.folder.join("requirements.txt"));
        if let Some(wheels) = &recipe.wheels {
            command.arg("--find-links").arg(wheels);
        }
        // Not in the sources' folder: building what lies there would leave files in it.
        command.args(&self.pip_args).current_dir(home);
        let ended = run(command).await.map_err(|error| format!("pip cannot be run: {error}"))?;
        if ended.status.success() { Ok(()) } else { Err(told("`pip install`", &ended)) }
    }

    /// A command that gets of this process's environment only what pip is steered by: code of strangers runs in it.
    fn command(&self, program: &Path) -> Command {
        let steers = |name: &str| {
            ["HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"].contains(&name)
                || name.starts_with("PIP_")
                || name.to_ascii_lowercase().ends_with("_proxy")
        };
        let passes = |name: &str| steers(name) && !self.hidden.contains(name);
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(passes)))
            .env("PATH", &self.path);
        command
    }

    /// The file that tells of the last use.
    pub fn marker(&self, key: &str) -> PathBuf {
        self.folder.join(key).join(MARKER)
    }

    /// All that is there, with the time of its last use where it is whole.
    pub fn list(&self) -> Vec<(String, Option<SystemTime>)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let with_use = names.map(|key| {
            let about = fs::metadata(self.marker(&key)).ok().filter(|_| !key.starts_with(GONE));
            (key, about.and_then(|about| about.modified().ok()))
        });
        with_use.collect()
    }

    /// The environments whose interpreters are running: what they have not loaded yet they still need.
    pub fn running(&self) -> Vec<String> {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let commands = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
        let keys = commands.filter_map(|command| {
            let program = command.split(|byte| *byte == 0).next()?;
            let inside = Path::new(std::str::from_utf8(program).ok()?).strip_prefix(&self.folder).ok()?;
            Some(inside.iter().next()?.to_str()?.to_owned())
        });
        keys.collect()
    }

    /// Gives an environment another name, under which nobody looks for it.
    pub fn put_aside(&self, key: &str) -> Option<PathBuf> {
        let gone = self.folder.join(format!("{GONE}{}", Uuid::now_v7()));
        match fs::rename(self.folder.join(key), &gone) {
            Ok(()) => Some(gone),
            Err(error) => {
                tracing::error!(key, %error, "a Python environment could not be removed");
                None
            }
        }
    }

    /// Removes what was put aside.
    pub fn remove(&self, gone: &Path) {
        if let Err(error) = folder::remove_tree(gone) {
            tracing::error!(%error, "a Python environment could not be removed");
        }
    }
}

/// Whether there is a whole environment; if not, its place is free afterwards.
fn prepare(home: &Path) -> io::Result<bool> {
    let marker = home.join(MARKER);
    // The interpreter is a link to the machine's, which may be gone.
    if marker.exists() && home.join("bin/python").exists() {
        touch(&marker);
        return Ok(true);
    }
    match folder::remove_tree(home) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(home)?;
    Ok(false)
}

/// Marks an environment as whole, once all of it is on the disk.
fn finish(home: &Path) -> io::Result<()> {
    nix::unistd::syncfs(File::open(home)?)?;
    File::create(home.join(MARKER))?.sync_all()
}

/// Writes down that an environment is used now.
pub fn touch(marker: &Path) {
    // Only the order in which environments are removed depends on it.
    let _ = File::open(marker).and_then(|file| file.set_modified(SystemTime::now()));
}
