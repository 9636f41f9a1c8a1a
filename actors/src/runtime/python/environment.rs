//! The interpreters that handlers run in: this machine's own, or that of a virtual environment, of which there is one
//! for each content of a requirements.txt (and interpreter, and arguments of pip).
//!
//! Here is who asks: concurrent callers that want the same environment share one making. It is a task of its own and
//! goes on when who asked for it is gone, since a run may take less long than an installation. `make` makes one
//! and `run` runs what it takes.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::task::JoinSet;

use crate::settings::PythonSettings;
use make::{Machine, Maker, Recipe};

mod make;
mod run;
#[cfg(test)]
mod tests;

/// How many environments are kept on the disk.
const KEPT: usize = 32;

/// How many are made at the same time.
const MAKINGS: usize = 4;

/// How long a making that failed is not tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// How often at most the last use of an environment is written down.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

/// How many sources it is remembered of which environment they need.
const KNOWN: usize = 4_096;

/// Makes and keeps virtual environments, one for each content of a requirements.txt (and interpreter, and pip
/// arguments). Lives in Context; shared by all python executors. What is being made when this is dropped is given up.
#[derive(Debug)]
pub struct Environments {
    shared: Arc<Shared>,
    makings: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct Shared {
    maker: Maker,
    machine: OnceCell<Machine>,
    places: Semaphore,
    again: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The environment that a source needs, by its pin and folder; none where it has no requirements.
    known: HashMap<String, HashMap<PathBuf, Option<String>>>,
    ready: HashMap<String, Ready>,
    coming: HashMap<String, Coming>,
    failed: HashMap<String, (Instant, String)>,
}

/// An environment that is whole.
#[derive(Debug)]
struct Ready {
    python: PathBuf,
    used: SystemTime,
    /// What its marker says of its last use.
    written: SystemTime,
}

/// Becomes an interpreter once the making has ended.
type Coming = watch::Receiver<Option<Result<PathBuf, String>>>;

impl Environments {
    /// With their folders in `folder`. Programs are looked up on `path`, which they get too; the variables that are `hidden`
    /// they do not get.
    pub fn new(settings: &PythonSettings, folder: PathBuf, path: &str, hidden: &BTreeSet<String>) -> Self {
        let shared = Shared {
            maker: Maker::new(settings, folder.join("environments"), path, hidden),
            machine: OnceCell::new(),
            places: Semaphore::new(MAKINGS),
            again: AGAIN,
            state: Mutex::default(),
        };
        Self { shared: Arc::new(shared), makings: Mutex::default() }
    }

    /// The interpreter of this machine. It is asked once for its version; after a failure, again.
    ///
    /// # Errors
    /// One sentence: it is not on the PATH, cannot be run, or is older than 3.8.
    pub async fn available(&self) -> Result<PathBuf, String> {
        Ok(self.shared.machine().await?.python.clone())
    }

    /// The interpreter for a source: the machine's where its folder has no requirements.txt, else that of the
    /// environment for it, which is made first where there is none yet. The pin must change with the source.
    ///
    /// # Errors
    /// One sentence, with the end of what pip said: the environment cannot be made. A later call tries it again, but
    /// not within five seconds.
    pub async fn interpreter(&self, pin: &str, folder: &Path) -> Result<PathBuf, String> {
        let shared = &self.shared;
        if let Some(python) = shared.known(pin, folder) {
            return Ok(python);
        }
        let machine = shared.machine().await?;
        let recipe = shared.read(pin, folder, machine).await?;
        shared.note(pin, folder, recipe.as_ref());
        let Some(recipe) = recipe else { return Ok(machine.python.clone()) };
        let mut coming = self.join(recipe);
        match coming.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(made)) => made.clone(),
            Ok(None) | Err(_) => Err("the making of its environment was broken off".into()),
        }
    }

    /// The folder of the environment that this is the interpreter of; none where it is the machine's.
    pub fn folder_of(&self, interpreter: &Path) -> Option<PathBuf> {
        self.shared.maker.folder_of(interpreter)
    }

    /// What is known of that environment, or its making that is under way, or a new one.
    fn join(&self, recipe: Recipe) -> Coming {
        let shared = &self.shared;
        let key = recipe.key.clone();
        let mut state = shared.state();
        if let Some(python) = state.use_ready(&key, &shared.maker) {
            return watch::channel(Some(Ok(python))).1;
        }
        if let Some((failed, problem)) = state.failed.get(&key)
            && failed.elapsed() < shared.again
        {
            return watch::channel(Some(Err(problem.clone()))).1;
        }
        if let Some(coming) = state.coming.get(&key) {
            return coming.clone();
        }
        let (done, coming) = watch::channel(None);
        state.coming.insert(key.clone(), coming.clone());
        drop(state);
        let entry = Entry { shared: shared.clone(), key };
        let mut makings = self.makings.lock().unwrap_or_else(PoisonError::into_inner);
        while makings.try_join_next().is_some() {}
        makings.spawn(async move {
            let shared = entry.shared.clone();
            let made = shared.make(&recipe).await;
            shared.settle(&recipe.key, &made);
            // Ready or failed first, then no longer coming: who asks in between finds it.
            drop(entry);
            let _ = done.send(Some(made));
            let pruned = tokio::task::spawn_blocking(move || shared.prune(KEPT)).await;
            if let Err(error) = pruned {
                tracing::error!(%error, "the environments that are too many could not be removed");
            }
        });
        coming
    }
}

impl Shared {
    async fn machine(self: &Arc<Self>) -> Result<&Machine, String> {
        let ask = || async {
            let shared = self.clone();
            // In a task, as all that starts processes: the main thread's children are taken for orphans.
            let asked = tokio::spawn(async move { shared.maker.ask().await }).await;
            asked.unwrap_or_else(|_| Err("the interpreter could not be asked for its version".into()))
        };
        self.machine.get_or_try_init(ask).await
    }

    async fn read(
        self: &Arc<Self>,
        pin: &str,
        folder: &Path,
        machine: &Machine,
    ) -> Result<Option<Recipe>, String> {
        let (shared, machine) = (self.clone(), machine.clone());
        let (pin, folder) = (pin.to_owned(), folder.to_owned());
        let read = move || Recipe::read(&folder, &pin, &machine, shared.maker.pip_args());
        tokio::task::spawn_blocking(read)
            .await
            .unwrap_or_else(|_| Err("its requirements.txt could not be read".into()))
    }

    async fn make(&self, recipe: &Recipe) -> Result<PathBuf, String> {
        let Ok(_place) = self.places.acquire().await else {
            return Err("environments are no longer made".into());
        };
        self.maker.make(recipe).await
    }

    fn known(&self, pin: &str, folder: &Path) -> Option<PathBuf> {
        let mut state = self.state();
        match state.known.get(pin)?.get(folder)?.clone() {
            None => Some(self.machine.get()?.python.clone()),
            Some(key) => state.use_ready(&key, &self.maker),
        }
    }

    fn note(&self, pin: &str, folder: &Path, recipe: Option<&Recipe>) {
        let mut state = self.state();
        if state.known.len() >= KNOWN {
            // Looked up again, they cost one small file each.
            state.known.clear();
        }
        let folders = state.known.entry(pin.to_owned()).or_default();
        folders.insert(folder.to_owned(), recipe.map(|recipe| recipe.key.clone()));
    }

    fn settle(&self, key: &str, made: &Result<PathBuf, String>) {
        let mut state = self.state();
        state.failed.retain(|_, (failed, _)| failed.elapsed() < self.again);
        match made {
            Ok(python) => {
                let now = SystemTime::now();
                let ready = Ready { python: python.clone(), used: now, written: now };
                state.ready.insert(key.to_owned(), ready);
            }
            Err(problem) => {
                state.failed.insert(key.to_owned(), (Instant::now(), problem.clone()));
            }
        }
    }

    /// Removes what was not used for longest, down to `kept` environments, and what was never finished. What is being
    /// made stays, and what a process runs in.
    fn prune(&self, kept: usize) {
        let now = SystemTime::now();
        let mut found = self.maker.list();
        found.sort_by_key(|(_, used)| *used);
        let whole = found.iter().filter(|(_, used)| used.is_some()).count();
        let mut surplus = whole.saturating_sub(kept);
        let running = if surplus > 0 { self.maker.running() } else { Vec::new() };
        for (key, used) in found {
            if used.is_some() && (surplus == 0 || running.contains(&key)) {
                continue;
            }
            let mut state = self.state();
            let is_wanted = state.ready.get(&key).is_some_and(|ready| ready.used >= now);
            if is_wanted || state.coming.contains_key(&key) {
                continue;
            }
            // Out of the way while nobody can begin to make it again; removing its files takes longer.
            let Some(gone) = self.maker.put_aside(&key) else { continue };
            state.ready.remove(&key);
            drop(state);
            surplus -= usize::from(used.is_some());
            self.maker.remove(&gone);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn use_ready(&mut self, key: &str, maker: &Maker) -> Option<PathBuf> {
        let ready = self.ready.get_mut(key)?;
        ready.used = SystemTime::now();
        if ready.used.duration_since(ready.written).is_ok_and(|age| age >= TOUCH_EVERY) {
            ready.written = ready.used;
            let marker = maker.marker(key);
            tokio::task::spawn_blocking(move || make::touch(&marker));
        }
        Some(ready.python.clone())
    }
}

/// A making's entry in the table of those that are under way; it goes with the making, however that ends.
struct Entry {
    shared: Arc<Shared>,
    key: String,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shared.state().coming.remove(&self.key);
    }
}
