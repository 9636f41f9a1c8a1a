//! Nothing that an execution started is left when it ended.
//!
//! A run's program leads a process group, which is ended whole. What left the group (`setsid`, a double fork) becomes
//! a child of this process once its parent is gone, since the service is the subreaper of all that it starts.
//! Such an orphan belongs to the run whose uuid is in its environment, or whose pipes it holds, or, when it was
//! started before every run that is alive now, to one that has ended.

use std::collections::HashMap;
use std::fs;
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use uuid::Uuid;

/// The leaders of the runs that are alive, by their process ids.
static LEADERS: LazyLock<Mutex<HashMap<i32, Leader>>> = LazyLock::new(Mutex::default);

/// Processes that were children of this one before it was the service (`sidecar & exec org-executor`).
static INHERITED: OnceLock<Vec<i32>> = OnceLock::new();

/// A program that a run started.
#[derive(Debug)]
struct Leader {
    /// In clock ticks after boot.
    started: u64,
    /// The variable in its environment that tells its run.
    mark: String,
}

/// Held while a program is started, until it is among the leaders.
static STARTING: RwLock<()> = RwLock::new(());

/// How often a run's orphans are looked for before they are left to the next run's end.
const ROUNDS: u32 = 200;

/// Between two looks: a killed process needs a moment to become an orphan or a zombie.
const PAUSE: Duration = Duration::from_millis(1);

/// Makes orphans children of this process. Must be called once, before anything is started.
pub fn adopt_orphans() {
    INHERITED.get_or_init(children);
    if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
        tracing::warn!(%error, "programs that leave their process group cannot be ended on this machine");
    }
}

/// To be held from before a program is started until its [`Tree`] is made.
pub fn starting() -> RwLockReadGuard<'static, ()> {
    STARTING.read().unwrap_or_else(PoisonError::into_inner)
}

/// The processes of one run.
#[derive(Debug)]
pub struct Tree {
    leader: Pid,
    mark: String,
    pipes: Vec<String>,
}

impl Tree {
    /// The tree under a leader of a new process group, with the links (`pipe:[…]`) of its standard output and error.
    pub fn new(leader: i32, uuid: Uuid, pipes: Vec<String>) -> Self {
        let started = stat(leader).map_or(u64::MAX, |stat| stat.started);
        let mark = format!("ORG_EXECUTION={uuid}");
        leaders().insert(leader, Leader { started, mark: mark.clone() });
        Self { leader: Pid::from_raw(leader), mark, pipes }
    }

    /// Ends the leader and its group. Whether nobody is left in it.
    pub fn kill(&self) -> bool {
        killpg(self.leader, Signal::SIGKILL) == Err(Errno::ESRCH)
    }

    /// Ends and reaps what is left, looking again until nothing is found. The leader must have been waited for.
    pub async fn end(&self) {
        for _ in 0..ROUNDS {
            if self.look() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        tracing::error!(mark = self.mark, "something that this execution started could not be ended");
    }

    /// The run has ended in order: nothing is left to do when this is dropped.
    pub fn close(self) {
        leaders().remove(&self.leader.as_raw());
    }

    /// The same as [`Tree::end`] without an async runtime, for a run that was dropped; this reaps the leader too.
    fn end_blocking(&self) {
        for _ in 0..ROUNDS {
            let _ = waitpid(self.leader, Some(WaitPidFlag::WNOHANG));
            if self.look() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether nothing is left. The group comes first: who dies there may leave an orphan.
    fn look(&self) -> bool {
        let group_is_empty = self.kill();
        self.sweep() && group_is_empty
    }

    /// One look at the orphans: those of this run are ended, the dead are reaped. Whether none was found.
    fn sweep(&self) -> bool {
        let mut clean = true;
        for pid in orphans() {
            let Some(stat) = stat(pid) else { continue };
            let pid = Pid::from_raw(pid);
            if stat.is_zombie {
                // Its children came to this process with its death, maybe after they were looked for.
                let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
                clean = false;
            } else if self.owns(&stat, pid) {
                let _ = kill(pid, Signal::SIGKILL);
                clean = false;
            }
        }
        clean
    }

    fn owns(&self, stat: &Stat, pid: Pid) -> bool {
        stat.group == self.leader.as_raw()
            || holds_any(pid, &self.pipes)
            || (is_marked(pid, &self.mark) && !self.is_of_a_later_attempt(stat))
            || self.is_of_an_ended_run(stat)
    }

    /// A later attempt of the same execution bears the same mark.
    fn is_of_a_later_attempt(&self, stat: &Stat) -> bool {
        let me = self.leader.as_raw();
        leaders()
            .iter()
            .any(|(pid, other)| *pid != me && other.mark == self.mark && other.started <= stat.started)
    }

    /// Nothing that is alive can have started it. In a container of its own the service is process 1, to which
    /// strangers' orphans come as well, and nothing can be told from this.
    fn is_of_an_ended_run(&self, stat: &Stat) -> bool {
        let me = self.leader.as_raw();
        std::process::id() != 1
            && leaders().iter().all(|(pid, other)| *pid == me || stat.started < other.started)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if leaders().remove(&self.leader.as_raw()).is_none() {
            return;
        }
        // By its own id too: the leader may have left its group.
        let _ = kill(self.leader, Signal::SIGKILL);
        self.kill();
        // The rest takes milliseconds, in which the caller's thread has others to serve.
        let rest =
            Self { leader: self.leader, mark: self.mark.clone(), pipes: std::mem::take(&mut self.pipes) };
        std::thread::spawn(move || rest.end_blocking());
    }
}

fn leaders() -> std::sync::MutexGuard<'static, HashMap<i32, Leader>> {
    LEADERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `/proc/PID/stat` tells (proc_pid_stat(5)).
struct Stat {
    parent: i32,
    group: i32,
    started: u64,
    is_zombie: bool,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold anything but ends at the last parenthesis.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse().ok();
    Some(Stat {
        is_zombie: *fields.first()? == "Z",
        parent: number(1)?,
        group: number(2)?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// Children of this process that it did not start itself. Orphans come to the main thread; programs are started
/// from the runtime's threads, so that the main thread's children are few.
fn orphans() -> Vec<i32> {
    let children = children();
    let leaders = leaders();
    let inherited = INHERITED.get().map_or(&[][..], Vec::as_slice);
    children.into_iter().filter(|pid| !leaders.contains_key(pid) && !inherited.contains(pid)).collect()
}

fn children() -> Vec<i32> {
    let me = std::process::id();
    if let Ok(text) = fs::read_to_string(format!("/proc/self/task/{me}/children")) {
        return text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    }
    // A kernel without that file: every process is asked who its parent is.
    let is_child = |pid: &i32| stat(*pid).is_some_and(|stat| stat.parent == me.cast_signed());
    let children = processes().filter(is_child).collect();
    // Among them may be a program that is being started: once its start is over it is among the leaders.
    drop(STARTING.write().unwrap_or_else(PoisonError::into_inner));
    children
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn is_marked(pid: Pid, mark: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}

fn holds_any(pid: Pid, pipes: &[String]) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut links = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    links.any(|link| pipes.iter().any(|pipe| link.as_os_str() == pipe.as_str()))
}
