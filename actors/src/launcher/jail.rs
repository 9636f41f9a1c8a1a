//! The jail: namespaces of its own in which the launcher stays as process 1, for as long as its executor keeps it.
//!
//! What is in it sees a root of its own (see [`super::view`]), no process but those that came of this launcher, no
//! network but a loopback device of its own (unless told), no shared memory and no names of the machine's. Programs run
//! as a user that nothing else is, or, where the service is not root, as the service's own user without any of its
//! rights. What they may ask of the kernel is bounded by [`super::filter`], and what they may write by Landlock as well.
//!
//! Making all this takes milliseconds, so it is made once; between programs only what they changed is renewed.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::MntFlags;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Pid, Uid, getgid, getpid, getuid};

use super::protocol::{Plan, Shown};
use super::view::{self, Kept};
use super::{containment, filter, kernel, landlocked};

/// The first of the user ids that jails take, two each: far above those that people and services have, and beside
/// those that launchers take at other levels.
const FIRST_UID: u32 = 0x6000_0000;

/// The user that programs run as, as they see it themselves, where it is not the service's.
const TOOL: u32 = 1_000;

/// Where runs may show folders of their own.
const SLOTS: [&str; 2] = [view::SOURCE, view::ENVIRONMENT];

/// A jail that this process is process 1 of.
pub struct Jail {
    /// The user that programs become; none where they run as the service's own.
    tool: Option<u32>,
    kept: Kept,
    shown: Vec<Shown>,
    landlock: Option<OwnedFd>,
}

/// The users of a jail, as the machine calls them.
#[derive(Clone, Copy)]
struct Users {
    launcher: u32,
    tool: u32,
}

impl Jail {
    /// Makes a jail. None in the process that only waited for its process 1.
    ///
    /// # Errors
    /// One sentence: what this machine does not give.
    pub fn make(plan: &Plan) -> Result<Option<Self>, String> {
        let users = getuid().is_root().then(|| {
            let launcher = FIRST_UID + 2 * getpid().as_raw().cast_unsigned();
            Users { launcher, tool: launcher + 1 }
        });
        let view = match users {
            Some(users) => {
                // The folders may lie where only root gets to, so that the view is put together before root is given up.
                unshare(CloneFlags::CLONE_NEWNS).map_err(|error| no("mount namespace", error))?;
                std::os::unix::fs::chown(&plan.folder, Some(users.tool), Some(users.tool))
                    .map_err(|error| format!("the working folder cannot be given away: {error}"))?;
                Some(view::build(plan, (TOOL, TOOL))?)
            }
            None => None,
        };
        let mut flags = CloneFlags::CLONE_NEWUSER
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP;
        if !plan.network {
            flags |= CloneFlags::CLONE_NEWNET;
        }
        let (go, told) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|error| no("pipe", error))?;
        let maps = Maps::of(users);
        match kernel::fork_into(flags).map_err(|error| no("namespaces", error))? {
            ForkResult::Parent { child } => {
                drop(go);
                wait_outside(child, &maps, told)
            }
            ForkResult::Child => {
                drop(told);
                let mut word = [0];
                if fs::File::from(go).read(&mut word).ok() != Some(1) {
                    // The parent tells what went wrong.
                    std::process::exit(0);
                }
                Self::inside(plan, users, view).map(Some)
            }
        }
    }

    /// In process 1, whose users are known by now.
    fn inside(plan: &Plan, users: Option<Users>, view: Option<PathBuf>) -> Result<Self, String> {
        let root = match (users, view) {
            (Some(_), Some(view)) => {
                // As the machine calls it, this process is still root until it takes the user that is 0 here.
                nix::unistd::setgroups(&[]).map_err(|error| no("own groups", error))?;
                let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
                nix::unistd::setresgid(gid, gid, gid).map_err(|error| no("own group", error))?;
                nix::unistd::setresuid(uid, uid, uid).map_err(|error| no("own user", error))?;
                view
            }
            _ => view::build(plan, (getuid().as_raw(), getgid().as_raw()))?,
        };
        // After the users, since a change of these forgets it.
        containment::end_with_parent();
        let kept = view::enter(&root, plan)?;
        // Names of machines are nobody's business in here.
        kernel::name_host("sandbox").map_err(|error| no("host name", error))?;
        if !plan.network {
            kernel::loopback_up().map_err(|error| no("loopback device", error))?;
        }
        containment::begin_with_bounded_numbers();
        // No further user namespaces, in which a program would have rights again.
        fs::write("/proc/sys/user/max_user_namespaces", "0")
            .map_err(|error| format!("user namespaces cannot be forbidden: {error}"))?;
        let landlock = landlocked::ruleset()?;
        kernel::give_up_rights().map_err(|error| no("rights", error))?;
        filter::apply()?;
        Ok(Self { tool: users.map(|_| TOOL), kept, shown: Vec::new(), landlock })
    }

    /// The user that programs become, as this process calls it.
    pub fn uid(&self) -> Option<u32> {
        self.tool
    }

    /// The rules that a program takes on before it begins.
    pub fn landlock(&self) -> Option<RawFd> {
        self.landlock.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Shows these folders, and no others, to what runs from now on.
    ///
    /// # Errors
    /// One sentence: a folder cannot be shown.
    pub fn show(&mut self, shown: &[Shown]) -> Result<(), String> {
        if self.shown == shown {
            return Ok(());
        }
        for before in std::mem::take(&mut self.shown) {
            let _ = nix::mount::umount2(before.at.as_str(), MntFlags::MNT_DETACH);
        }
        for one in shown {
            if !SLOTS.contains(&one.at.as_str()) {
                return Err(format!("nothing can be shown at {}", one.at));
            }
            self.kept.show(Path::new(&one.from), &one.at).map_err(|error| {
                format!("the folder of the source cannot be shown in the sandbox: {}", error.desc())
            })?;
            self.shown.push(one.clone());
        }
        Ok(())
    }

    /// Empties /tmp and /dev/shm. They stay the same ones: what may be written is told by them (landlock(7)).
    pub fn renew(&self) -> std::io::Result<()> {
        for place in view::SCRATCH {
            for entry in fs::read_dir(place)? {
                let entry = entry?;
                // Whatever a program made of its folders, this process may enter them.
                if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(entry.path())?;
                } else {
                    fs::remove_file(entry.path())?;
                }
            }
            fs::set_permissions(place, fs::Permissions::from_mode(view::SCRATCH_MODE))?;
        }
        Ok(())
    }
}

/// Who is who, for the files in which the kernel takes it.
struct Maps {
    users: String,
    groups: String,
    /// Who may not choose groups for others has to say that it will not.
    denies_groups: bool,
}

impl Maps {
    fn of(users: Option<Users>) -> Self {
        match users {
            Some(Users { launcher, tool }) => {
                let map = format!("0 {launcher} 1\n{TOOL} {tool} 1\n");
                Self { users: map.clone(), groups: map, denies_groups: false }
            }
            None => {
                let (uid, gid) = (getuid(), getgid());
                Self {
                    users: format!("{uid} {uid} 1\n"),
                    groups: format!("{gid} {gid} 1\n"),
                    denies_groups: true,
                }
            }
        }
    }

    fn write(&self, process: Pid) -> std::io::Result<()> {
        if self.denies_groups {
            fs::write(format!("/proc/{process}/setgroups"), "deny")?;
        }
        fs::write(format!("/proc/{process}/gid_map"), &self.groups)?;
        fs::write(format!("/proc/{process}/uid_map"), &self.users)
    }
}

/// In the process outside: tells the kernel who is who in there, and waits for process 1.
fn wait_outside(child: Pid, maps: &Maps, told: OwnedFd) -> Result<Option<Jail>, String> {
    let go = maps.write(child).and_then(|()| fs::File::from(told).write_all(&[1]));
    if let Err(error) = go {
        let _ = kill(child, Signal::SIGKILL);
        let _ = waitpid(child, None);
        return Err(format!("the users of a namespace cannot be told: {error}"));
    }
    containment::only_wait(child);
    Ok(None)
}

/// A sentence of what this machine does not give.
pub fn no(what: &str, error: Errno) -> String {
    format!("no {what}: {}", error.desc())
}
