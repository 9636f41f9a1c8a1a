//! How far programs are kept apart from this machine and from each other: which level holds, and what programs see.
//!
//! The level is settled once, when the service starts, by making a jail and looking whether it holds. From then on it
//! does not change: where a jail cannot be made later, nothing runs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::Serialize;

use super::folder::Folder;
use super::launched::{Launcher, LauncherCommand};
use crate::launcher::protocol::{Plan, Shown, Wanted};
use crate::launcher::{ENVIRONMENT, SOURCE, SYSTEM, WORK};
use crate::settings::{Containment, Level, SandboxSettings, Settings};

/// What programs in a folder of the `PATH` have beside that folder: libraries, and what version managers keep.
const BESIDE: [&str; 8] = ["bin", "lib", "lib32", "lib64", "libexec", "plugins", "version", "versions"];

/// How the folders on a `PATH` are called that have something beside them.
const HOLDERS: [&str; 3] = ["bin", "sbin", "shims"];

const MIB: u64 = 1 << 20;

/// The level that holds, and how it came to that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The level.
    pub level: Level,
    /// Why it is not a stronger one, where the strongest was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How programs are kept together, so that all of them can be ended.
    #[serde(skip)]
    pub containment: Containment,
}

/// The sandbox of this service.
#[derive(Debug)]
pub struct Sandbox {
    settings: SandboxSettings,
    containment: Containment,
    readable: Vec<PathBuf>,
    kept: Vec<PathBuf>,
    held: OnceLock<Result<Held, String>>,
}

impl Sandbox {
    /// With what may be found on this `PATH`, and with these folders of the service, of which programs are shown what
    /// they run.
    pub fn new(settings: &Settings, path: &str, kept: Vec<PathBuf>) -> Self {
        let mut readable = beside(path);
        readable.extend(settings.sandbox.readable.iter().cloned());
        Self {
            settings: settings.sandbox.clone(),
            containment: settings.limits.containment,
            readable,
            kept,
            held: OnceLock::new(),
        }
    }

    /// Finds out which level this machine gives, with a launcher in a folder of its own below `run`.
    ///
    /// # Errors
    /// One sentence: the level that was asked for by its name cannot be had.
    pub async fn settle(&self, launcher: &LauncherCommand, run: &Path) -> Result<(), String> {
        let asked = self.settings.level;
        let jail = match asked {
            Level::Auto | Level::Isolated => Some(Self::try_jail(launcher, run).await),
            Level::Limits | Level::Off => None,
        };
        let held = match jail {
            Some(Ok(containment)) => Ok(Held { level: Level::Isolated, reason: None, containment }),
            Some(Err(problem)) if asked == Level::Isolated => {
                return Err(format!(
                    "`sandbox.level` is \"isolated\", which this machine does not give: {problem}"
                ));
            }
            weaker => {
                let level = if asked == Level::Off { Level::Off } else { Level::Limits };
                let reason = weaker.and_then(Result::err);
                let containment = Launcher::new(launcher.unsandboxed()).containment(None).await;
                containment.map(|containment| Held { level, reason, containment })
            }
        };
        match &held {
            Ok(Held { level, reason: Some(reason), .. }) => {
                tracing::warn!(
                    level = level.name(),
                    reason,
                    "programs run in a weaker sandbox than could be"
                );
            }
            Ok(held) => tracing::info!(level = held.level.name(), "programs run in a sandbox of this level"),
            Err(problem) => tracing::error!(problem, "no program can be started"),
        }
        // Whoever was first has found the same.
        let _ = self.held.set(held);
        Ok(())
    }

    async fn try_jail(launcher: &LauncherCommand, run: &Path) -> Result<Containment, String> {
        let folder = Folder::make(run).map_err(|error| format!("no working folder can be made: {error}"))?;
        let place = Place { folder: folder.path().to_owned(), network: false };
        Launcher::new(launcher.clone()).containment(Some(place)).await
    }

    /// What holds.
    ///
    /// # Errors
    /// One sentence: no program can be started.
    pub fn held(&self) -> Result<&Held, &str> {
        match self.held.get() {
            Some(held) => held.as_ref().map_err(String::as_str),
            None => Err("the sandbox is not settled yet"),
        }
    }

    /// The level that holds; none where no program can be started.
    pub fn level(&self) -> Option<Level> {
        self.held().ok().map(|held| held.level)
    }

    /// Whether programs run in jails.
    pub fn is_isolated(&self) -> bool {
        self.level() == Some(Level::Isolated)
    }

    /// Whether programs have the machine's network, where their definition says so or says nothing.
    ///
    /// # Errors
    /// One sentence: the definition's word cannot be kept.
    pub fn network(&self, asked: Option<bool>) -> Result<bool, String> {
        match (self.is_isolated(), asked) {
            (true, Some(true)) => self.check_network().map(|()| true),
            (true, _) => Ok(false),
            (false, Some(false)) => {
                Err("`network: false` can be kept only at the level \"isolated\" of the sandbox, \
                                         which does not hold here"
                    .into())
            }
            (false, _) => Ok(true),
        }
    }

    /// Whether what is kept apart may have a network where its definition asks for one.
    ///
    /// # Errors
    /// One sentence: the configuration does not allow it.
    pub fn check_network(&self) -> Result<(), String> {
        if self.settings.network {
            return Ok(());
        }
        Err("the definition asks for a network, which `sandbox.network` does not allow".into())
    }

    /// What a launcher is to be.
    pub(super) fn wanted(&self, place: Option<&Place>) -> Wanted {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        match place {
            Some(Place { folder, network }) => Wanted::Jail(Plan {
                readable: self.readable.iter().map(text).collect(),
                kept: self.kept.iter().map(text).collect(),
                folder: text(folder),
                tmp_bytes: self.settings.tmp_mb * MIB,
                network: *network,
            }),
            None if self.level() == Some(Level::Off) => Wanted::Together(Containment::Subreaper),
            None => Wanted::Together(self.containment),
        }
    }

    /// Whether a program of the machine is where a jail shows it.
    ///
    /// # Errors
    /// One sentence: it is not, and what can be done.
    pub fn check_shown(&self, program: &Path) -> Result<(), String> {
        if !self.is_isolated() {
            return Ok(());
        }
        let is_shown = |path: &Path| {
            SYSTEM.iter().any(|folder| path.starts_with(folder))
                || self.readable.iter().any(|folder| path.starts_with(folder))
        };
        let real = program.canonicalize().unwrap_or_else(|_| program.to_owned());
        if is_shown(program) && is_shown(&real) {
            return Ok(());
        }
        let name = program.display();
        Err(format!(
            "the program \"{name}\" is not shown in the sandbox: its folder can be added to `sandbox.readable`"
        ))
    }
}

/// What a jail was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The working folder, on the machine.
    pub folder: PathBuf,
    /// Whether it has the machine's network.
    pub network: bool,
}

/// Where a program finds what the service keeps for it.
#[derive(Debug)]
pub struct View<'a> {
    is_isolated: bool,
    places: Vec<(&'a Path, &'static str)>,
}

impl<'a> View<'a> {
    /// Of a program with this working folder, source and environment.
    pub fn new(
        sandbox: &Sandbox,
        folder: &'a Path,
        source: Option<&'a Path>,
        environment: Option<&'a Path>,
    ) -> Self {
        let shown = source.map(|folder| (folder, SOURCE)).into_iter();
        let shown = shown.chain(environment.map(|folder| (folder, ENVIRONMENT)));
        Self { is_isolated: sandbox.is_isolated(), places: shown.chain([(folder, WORK)]).collect() }
    }

    /// Where the program sees this.
    pub fn path(&self, path: &Path) -> PathBuf {
        if !self.is_isolated {
            return path.to_owned();
        }
        let found = self.places.iter().find_map(|(from, at)| Some((path.strip_prefix(from).ok()?, at)));
        match found {
            Some((rest, at)) if rest.as_os_str().is_empty() => PathBuf::from(at),
            Some((rest, at)) => Path::new(at).join(rest),
            None => path.to_owned(),
        }
    }

    /// The same as text.
    pub fn text(&self, path: &Path) -> String {
        self.path(path).to_string_lossy().into_owned()
    }

    /// What a jail has to show besides its working folder.
    pub fn shown(&self) -> Vec<Shown> {
        if !self.is_isolated {
            return Vec::new();
        }
        let shown = self.places.iter().filter(|(_, at)| *at != WORK);
        shown
            .map(|(from, at)| Shown { from: from.to_string_lossy().into_owned(), at: (*at).to_owned() })
            .collect()
    }
}

/// What belongs to the programs on this `PATH`, beyond the system's own.
fn beside(path: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for folder in std::env::split_paths(&OsString::from(path)) {
        let is_system = SYSTEM.iter().any(|system| folder.starts_with(system));
        if is_system || !folder.is_absolute() || !folder.is_dir() {
            continue;
        }
        let holder = folder.file_name().and_then(|name| name.to_str()).filter(|name| HOLDERS.contains(name));
        let parent = holder.and_then(|_| folder.parent());
        let others = parent.map(|parent| BESIDE.map(|name| parent.join(name))).into_iter().flatten();
        found.extend([folder.clone()].into_iter().chain(others.filter(|place| place.exists())));
    }
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_path_only_programs_and_their_libraries_are_shown() {
        let home = tempfile::tempdir().expect("a folder");
        for folder in ["bin", "lib", "secrets", "versions"] {
            std::fs::create_dir(home.path().join(folder)).expect("made");
        }
        let text = home.path().display();
        let shown = beside(&format!("/usr/bin:{text}/bin:{text}/none:relative:{text}/secrets"));
        assert_eq!(shown, ["bin", "lib", "secrets", "versions"].map(|name| home.path().join(name)));
        assert_eq!(beside(&format!("{text}/lib")), [home.path().join("lib")]);
    }

    #[test]
    fn a_program_in_a_jail_sees_its_places_by_their_names_there() {
        let (folder, source) = (Path::new("/data/run/1"), Path::new("/data/artifacts/2"));
        let places = vec![(source, SOURCE), (folder, WORK)];
        let jail = View { is_isolated: true, places: places.clone() };
        assert_eq!(jail.text(&folder.join("input.json")), "/work/input.json");
        assert_eq!(jail.text(source), "/source");
        assert_eq!(jail.text(Path::new("/usr/bin/env")), "/usr/bin/env");
        assert_eq!(jail.shown(), [Shown { from: "/data/artifacts/2".into(), at: "/source".into() }]);
        let open = View { is_isolated: false, places };
        assert_eq!(open.text(source), "/data/artifacts/2");
        assert!(open.shown().is_empty());
    }
}
