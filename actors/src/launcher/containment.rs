//! How programs are kept together, so that all of them can be ended however fast they fork: the strongest way that
//! this machine gives.

use std::fs;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, getgid, getpid, getuid};

use super::jail::Jail;
use super::protocol::{Shown, Wanted};
use super::{spawn, tree};
use crate::settings::Containment;

/// The first of the user ids that launchers take, one each: far above those that people and services have.
const FIRST_UID: u32 = 0x7000_0000;

/// The lowest process id that is given twice (RESERVED_PIDS in the kernel), and so the lowest bound.
const FIRST_PID: u64 = 300;

/// How many more than it may have a program gets from the kernel, so that the watch sees who reaches the limit.
const SLACK_PIDS: u64 = 64;

/// How much more of a busy processor launchers get than what they are to end, as setpriority(2) counts.
const SESSION_NICE: &str = "-10";

/// What the names of control groups begin with; the launcher's process id follows.
const CGROUP: &str = "org-executor-";

/// The way that holds for this launcher.
pub enum Contained {
    /// It is process 1 of a namespace of its own. With a /proc of its own it sees nothing else.
    Namespace { has_own_proc: bool },
    /// It is process 1 of a jail.
    Jail(Jail),
    /// All are in this control group.
    Cgroup(Cgroup),
    /// All run as this user.
    Uid(u32),
    /// All are below this process.
    Subreaper,
}

/// Takes a session without a terminal: this ends with its socket, not with Ctrl-C. It was started as the leader of a group
/// for the same reason, and a leader cannot have another session (setsid(2)).
fn own_session() -> nix::Result<()> {
    let around = nix::unistd::getpgid(Some(nix::unistd::getppid()))?;
    nix::unistd::setpgid(Pid::from_raw(0), around)?;
    nix::unistd::setsid().map(drop)
}

impl Contained {
    /// Makes ready the wanted way, or the strongest. None in the process that only waited for the contained one.
    ///
    /// # Errors
    /// One sentence: why the wanted way cannot be had.
    pub fn establish(wanted: &Wanted) -> Result<Option<Self>, String> {
        own_session().map_err(|error| format!("no session of its own: {error}"))?;
        // Programs have sessions of their own, and where the kernel shares the processor among sessions (sched(7)) this one
        // must get its turn to end them, however many flood theirs. Only root may ask for more than an equal part.
        let _ = fs::write("/proc/self/autogroup", SESSION_NICE);
        // The kernel short of memory ends a program before it ends the service.
        let _ = fs::write("/proc/self/oom_score_adj", "300");
        match wanted {
            Wanted::Jail(plan) => Ok(Jail::make(plan)?.map(Self::Jail)),
            Wanted::Together(wanted) => Self::together(*wanted),
        }
    }

    fn together(wanted: Containment) -> Result<Option<Self>, String> {
        let mut problems = Vec::new();
        for level in
            [Containment::PidNamespace, Containment::Cgroup, Containment::Uid, Containment::Subreaper]
        {
            if wanted != Containment::Auto && wanted != level {
                continue;
            }
            let found = match level {
                Containment::PidNamespace => Self::namespace(),
                Containment::Cgroup => Cgroup::make().and_then(|cgroup| Self::adopting(Self::Cgroup(cgroup))),
                Containment::Uid => own_uid().and_then(|uid| Self::adopting(Self::Uid(uid))),
                Containment::Subreaper | Containment::Auto => Self::adopting(Self::Subreaper),
            };
            match found {
                Ok(contained) => return Ok(contained),
                Err(problem) => problems.push(problem),
            }
        }
        Err(problems.join("; "))
    }

    /// Its name.
    pub fn level(&self) -> Containment {
        match self {
            Self::Namespace { .. } | Self::Jail(_) => Containment::PidNamespace,
            Self::Cgroup(_) => Containment::Cgroup,
            Self::Uid(_) => Containment::Uid,
            Self::Subreaper => Containment::Subreaper,
        }
    }

    /// Whether /proc shows this process and what it started, and nothing else.
    pub fn sees_only_its_own(&self) -> bool {
        matches!(self, Self::Namespace { has_own_proc: true } | Self::Jail(_))
    }

    /// Whether /proc calls processes by the same numbers as this process does.
    pub fn sees_its_own(&self) -> bool {
        !matches!(self, Self::Namespace { has_own_proc: false })
    }

    /// The user that programs run as, where it is not this process's own.
    pub fn uid(&self) -> Option<u32> {
        match self {
            Self::Uid(uid) => Some(*uid),
            Self::Jail(jail) => jail.uid(),
            _ => None,
        }
    }

    /// Whether the working folder has to be given to that user: that of a jail is given away once.
    pub fn gives_folder(&self) -> bool {
        matches!(self, Self::Uid(_))
    }

    /// The rules that a program takes on before it begins.
    pub fn landlock(&self) -> Option<RawFd> {
        match self {
            Self::Jail(jail) => jail.landlock(),
            _ => None,
        }
    }

    /// Shows a program what it is to see.
    ///
    /// # Errors
    /// One sentence: it cannot be shown.
    pub fn show(&mut self, shown: &[Shown]) -> Result<(), String> {
        match self {
            Self::Jail(jail) => jail.show(shown),
            _ => Ok(()),
        }
    }

    /// Takes away what programs left where all of them may write. Whether nothing is left.
    pub fn renew(&self) -> bool {
        match self {
            Self::Jail(jail) => jail.renew().is_ok(),
            _ => true,
        }
    }

    /// The file that a program writes itself into before it begins.
    pub fn cgroup_procs(&self) -> Option<PathBuf> {
        match self {
            Self::Cgroup(cgroup) => Some(cgroup.path.join("cgroup.procs")),
            _ => None,
        }
    }

    /// Has the kernel itself bound how many processes there are, where it can: no program forks faster than that.
    pub fn bound(&self, processes: u64) {
        if self.sees_only_its_own() && has_own_pid_max() {
            let _ = fs::write("/proc/sys/kernel/pid_max", (FIRST_PID + processes + SLACK_PIDS).to_string());
        }
    }

    /// Tells all of them to end. Some may be gone already; who is left is found at the next look.
    pub fn kill_all(&self) {
        match self {
            // To all in the namespace but process 1, in one go: who is just forking gets it too.
            Self::Namespace { .. } | Self::Jail(_) => drop(kill(Pid::from_raw(-1), Signal::SIGKILL)),
            Self::Cgroup(cgroup) => drop(fs::write(cgroup.path.join("cgroup.kill"), "1")),
            Self::Uid(uid) => spawn::kill_all_of(*uid),
            Self::Subreaper => {
                for pid in tree::processes(false) {
                    let _ = kill(pid, Signal::SIGKILL);
                }
            }
        }
    }

    /// Orphans of what it starts come to this process.
    fn adopting(contained: Self) -> Result<Option<Self>, String> {
        nix::sys::prctl::set_child_subreaper(true)
            .map_err(|error| format!("orphans cannot be adopted: {}", error.desc()))?;
        Ok(Some(contained))
    }

    fn namespace() -> Result<Option<Self>, String> {
        let (uid, gid) = (getuid(), getgid());
        let namespaces = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
        if unshare(namespaces).is_err() {
            // Who may not make namespaces may in a user namespace of its own, where the machine lets people.
            unshare(namespaces | CloneFlags::CLONE_NEWUSER)
                .map_err(|error| format!("no process namespace can be made: {}", error.desc()))?;
            let written = fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))
                .and_then(|()| fs::write("/proc/self/setgroups", "deny"))
                .and_then(|()| fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")));
            written.map_err(|error| format!("the user namespace cannot be set up: {error}"))?;
        }
        let forked =
            spawn::fork().map_err(|error| format!("process 1 cannot be started: {}", error.desc()))?;
        if let ForkResult::Parent { child } = forked {
            only_wait(child);
            return Ok(None);
        }
        end_with_parent();
        let has_own_proc = mount_proc();
        if has_own_proc {
            begin_with_bounded_numbers();
        }
        Ok(Some(Self::Namespace { has_own_proc }))
    }
}

/// In the process outside a namespace: its process 1 has the socket, and this one nothing to do but to be its parent.
pub fn only_wait(child: Pid) {
    spawn::close_all();
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// In process 1: should its parent be killed, nothing of it stays.
pub fn end_with_parent() {
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
}

/// In process 1, with a /proc of its own: the numbers below are given once only, in the first round; without them the bound
/// is exact from the start.
pub fn begin_with_bounded_numbers() {
    if has_own_pid_max() {
        let _ = fs::write("/proc/sys/kernel/ns_last_pid", FIRST_PID.to_string());
    }
}

/// Whether the highest process id is a namespace's own, as since Linux 6.14; before, it is the whole machine's.
fn has_own_pid_max() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(14))
}

/// Gives this mount namespace a /proc that shows this process namespace.
fn mount_proc() -> bool {
    const NONE: Option<&str> = None;
    let private = mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if private.and_then(|()| mount(Some("proc"), "/proc", Some("proc"), flags, NONE)).is_err() {
        return false;
    }
    let is_own = fs::read_link("/proc/self").is_ok_and(|link| link == Path::new("1"));
    if !is_own {
        let _ = umount2("/proc", MntFlags::MNT_DETACH);
    }
    is_own
}

/// A user id that nothing else runs as.
fn own_uid() -> Result<u32, String> {
    if !getuid().is_root() {
        return Err("another user id can only be taken by root".into());
    }
    let uid = FIRST_UID + getpid().as_raw().cast_unsigned();
    spawn::can_become(uid).map_err(|error| format!("no other user id can be taken: {}", error.desc()))?;
    Ok(uid)
}

/// A control group (version 2) of this launcher's own, gone when it is dropped.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    fn make() -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let place = place(&mounts, &own).ok_or("there is no control group file system of version 2")?;
        let cgroup = Self { path: place.join(format!("{CGROUP}{}", getpid())) };
        remove_stale(&place);
        fs::create_dir(&cgroup.path).map_err(|error| format!("no control group can be made: {error}"))?;
        if !cgroup.path.join("cgroup.kill").exists() {
            return Err("the kernel cannot kill a control group (Linux 5.14 can)".into());
        }
        Ok(cgroup)
    }
}

/// Removes the control groups of launchers that were killed.
fn remove_stale(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(CGROUP)?.parse::<i32>().ok());
        if pid.is_some_and(|pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)) {
            let _ = fs::write(entry.path().join("cgroup.kill"), "1");
            let _ = fs::remove_dir(entry.path());
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

/// The folder of this process's own control group of version 2.
fn place(mountinfo: &str, own: &str) -> Option<PathBuf> {
    // The file system's type stands behind a lone dash (proc_pid_mountinfo(5)).
    let is_cgroup2 = |line: &&str| line.split(" - ").nth(1).is_some_and(|rest| rest.starts_with("cgroup2 "));
    let mount = mountinfo.lines().find(is_cgroup2)?.split(' ').nth(4)?;
    let group = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(Path::new(mount).join(group.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_control_group_is_found_among_mounts_of_both_versions() {
        let mounts = "31 24 0:27 / /sys/fs/cgroup/memory rw shared:5 - cgroup cgroup rw,memory\n\
                      32 24 0:28 / /sys/fs/cgroup/unified rw shared:6 - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/a\n0::/user.slice/b\n";
        assert_eq!(place(mounts, own), Some("/sys/fs/cgroup/unified/user.slice/b".into()));
        assert_eq!(place(mounts, "4:memory:/a\n"), None);
        assert_eq!(place("", own), None);
    }
}
