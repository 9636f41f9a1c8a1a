//! Nothing that an execution started is left when it ended.
//!
//! A run's program leads a process group, which is ended whole. What left the group (`setsid`, a double fork) becomes
//! a child of this process once its parent is gone, since the service is the subreaper of all that it starts.
//! Such an orphan belongs to the run whose uuid is in its environment, or whose pipes it holds, or, when it was
//! started before every run that is alive now, to one that has ended.

use std::collections::HashMap;
use std::fs;
use std::sync::{LazyLock, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use uuid::Uuid;

/// The leaders of the runs that are alive, and when each was started, in clock ticks after boot.
static LEADERS: LazyLock<Mutex<HashMap<i32, u64>>> = LazyLock::new(Mutex::default);

/// Held while a program is started, until it is among the leaders.
static STARTING: RwLock<()> = RwLock::new(());

/// How often a run's orphans are looked for before they are left to the next run's end.
const ROUNDS: u32 = 200;

/// Between two looks: a killed process needs a moment to become an orphan or a zombie.
const PAUSE: Duration = Duration::from_millis(1);

/// Makes orphans children of this process. Must be called once, before anything is started.
pub fn adopt_orphans() {
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
        leaders().insert(leader, started);
        Self { leader: Pid::from_raw(leader), mark: format!("ORG_EXECUTION={uuid}"), pipes }
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

    /// The same without an async runtime, for a run that was dropped; this waits for the leader too.
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
                let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
            } else if self.owns(&stat, pid) {
                let _ = kill(pid, Signal::SIGKILL);
                clean = false;
            }
        }
        clean
    }

    fn owns(&self, stat: &Stat, pid: Pid) -> bool {
        stat.group == self.leader.as_raw()
            || is_marked(pid, &self.mark)
            || holds_any(pid, &self.pipes)
            || leaders()
                .iter()
                .all(|(leader, started)| *leader == self.leader.as_raw() || stat.started < *started)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if leaders().remove(&self.leader.as_raw()).is_none() {
            return;
        }
        self.end_blocking();
    }
}

impl Tree {
    /// The run has ended in order: nothing is left to do when this is dropped.
    pub fn close(self) {
        leaders().remove(&self.leader.as_raw());
    }
}

fn leaders() -> std::sync::MutexGuard<'static, HashMap<i32, u64>> {
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
    let me = std::process::id();
    let listed = fs::read_to_string(format!("/proc/self/task/{me}/children"));
    let children: Vec<i32> = match listed {
        Ok(text) => text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect(),
        // A kernel without that file: every process is asked who its parent is.
        Err(_) => {
            let is_child = |pid: &i32| stat(*pid).is_some_and(|stat| stat.parent == me.cast_signed());
            let children = processes().filter(is_child).collect();
            // Among them may be a program that is being started: once its start is over it is among the leaders.
            drop(STARTING.write().unwrap_or_else(PoisonError::into_inner));
            children
        }
    };
    let leaders = leaders();
    children.into_iter().filter(|pid| !leaders.contains_key(pid)).collect()
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
