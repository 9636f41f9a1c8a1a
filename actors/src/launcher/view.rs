//! What programs in a jail see of the machine: the system's programs and libraries, read-only; a working folder; an
//! empty /tmp; a /proc of their own; and of the service's folders only what their run is shown.

use std::fs::{self, DirBuilder};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::pivot_root;

use super::jail::no;
use super::kernel;
use super::protocol::Plan;

/// The working folder.
pub const WORK: &str = "/work";

/// The folder of the source that runs.
pub const SOURCE: &str = "/source";

/// The folder of the environment that it runs in.
pub const ENVIRONMENT: &str = "/environment";

/// What programs may fill, and what is emptied after them.
pub const SCRATCH: [&str; 2] = ["/tmp", "/dev/shm"];

/// Where the service's folders are, until they are covered.
const HIDDEN: &str = ".hidden";

/// Over which folder of the machine the view is put together: one of which only single files are shown.
const BASE: &str = "/dev";

/// What every program may need, with all that is below. Where the machine has a link, there is the same one.
pub const SYSTEM: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// What libraries read. Not what services keep there, however readable.
const CONFIGURATION: [&str; 24] = [
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/crypto-policies",
    "/etc/fonts",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/inputrc",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/locale.alias",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mailcap",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/perl",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
];

/// What finding other machines takes besides.
const NETWORK: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];

/// The devices that hold nothing of anybody's.
const DEVICES: [&str; 5] = ["/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"];

/// Everybody may write there, and nobody remove what is another's.
pub const SCRATCH_MODE: u32 = 0o1777;

/// How many files /tmp and /dev/shm may hold.
const SCRATCH_FILES: u64 = 65_536;

const NONE: Option<&str> = None;

/// Something of the machine that is shown, held while other things are laid over it.
struct Held {
    source: OwnedFd,
    is_folder: bool,
    at: PathBuf,
}

impl Held {
    /// Takes hold of it; none where the machine does not have it, or does not let this user at it.
    fn take(from: &str, at: PathBuf) -> Result<Option<Self>, String> {
        let source = match nix::fcntl::open(from, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(source) => source,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => return Ok(None),
            Err(error) => return Err(no(from, error)),
        };
        let is_folder = fs::metadata(by_number(&source)).is_ok_and(|about| about.is_dir());
        Ok(Some(Self { source, is_folder, at }))
    }

    /// Shows it below this root.
    fn show(&self, root: &Path) -> Result<(), String> {
        let at = inside(root, &self.at);
        make_target(&at, self.is_folder)?;
        mount(Some(&by_number(&self.source)), &at, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
            .map_err(|error| no(&self.at.to_string_lossy(), error))
    }
}

/// Puts the view together on a file system of its own, in a mount namespace of the caller's, and tells where.
///
/// # Errors
/// One sentence: what cannot be shown.
pub fn build(plan: &Plan, (uid, gid): (u32, u32)) -> Result<PathBuf, String> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .map_err(|error| no("private mounts", error))?;
    // All is held by descriptors first, since the new root covers some of it.
    let mut held = Vec::new();
    let mut links = Vec::new();
    for place in SYSTEM {
        match fs::read_link(place) {
            Ok(target) => links.push((place, target)),
            Err(_) => held.extend(Held::take(place, place.into())?),
        }
    }
    let configuration = CONFIGURATION.iter().chain(NETWORK.iter().filter(|_| plan.network));
    for place in configuration.copied().chain(plan.readable.iter().map(String::as_str)) {
        if !held.iter().any(|held: &Held| held.is_folder && Path::new(place).starts_with(&held.at)) {
            held.extend(Held::take(place, place.into())?);
        }
    }
    let mut kept = Vec::new();
    for (number, place) in plan.kept.iter().enumerate() {
        let at = Path::new("/").join(HIDDEN).join(number.to_string());
        kept.push(Held::take(place, at)?.ok_or_else(|| format!("the folder {place:?} cannot be shown"))?);
    }
    let work = Held::take(&plan.folder, WORK.into())?.ok_or("the working folder is gone")?;
    let devices = DEVICES.iter().map(|device| Held::take(device, (*device).into()));
    let devices = devices.collect::<Result<Vec<_>, _>>()?;

    let root = PathBuf::from(BASE);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("sandbox"), &root, Some("tmpfs"), flags, Some("mode=0755,size=1m,nr_inodes=4096"))
        .map_err(|error| no("file system in memory", error))?;
    for one in held.iter().chain(&kept) {
        one.show(&root)?;
    }
    furnish(&root, &links, (uid, gid))
        .map_err(|error| format!("the sandbox cannot be furnished: {error}"))?;
    for device in devices.iter().flatten() {
        make_target(&inside(&root, &device.at), false)?;
    }
    // With all that is shown so far; what follows may be written, or is a device.
    kernel::make_read_only(&root).map_err(|error| no("read-only mounts", error))?;
    for device in devices.iter().flatten() {
        device.show(&root)?;
    }
    work.show(&root)?;
    let writable = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(NONE, &inside(&root, Path::new(WORK)), NONE, writable, NONE)
        .map_err(|error| no("working folder", error))?;
    Ok(root)
}

/// What is in the view besides what the machine has.
fn furnish(root: &Path, links: &[(&str, PathBuf)], (uid, gid): (u32, u32)) -> std::io::Result<()> {
    for place in [WORK, SOURCE, ENVIRONMENT, "/proc", "/tmp", "/dev/shm", "/etc", "/var", "/run", "/root"] {
        folder(&inside(root, Path::new(place)))?;
    }
    for (place, target) in links {
        symlink(target, inside(root, Path::new(place)))?;
    }
    for (place, target) in [("var/tmp", "/tmp"), ("var/run", "/run")] {
        // Something in it may be shown.
        if !root.join(place).exists() {
            symlink(target, root.join(place))?;
        }
    }
    for (name, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        symlink(target, root.join("dev").join(name))?;
    }
    let users = format!("root:x:0:0:root:/root:/bin/sh\ntool:x:{uid}:{gid}:tool:{WORK}:/bin/sh\n");
    fs::write(root.join("etc/passwd"), users)?;
    fs::write(root.join("etc/group"), format!("root:x:0:\ntool:x:{gid}:\n"))?;
    if !root.join("etc/hosts").exists() {
        fs::write(root.join("etc/hosts"), "127.0.0.1 localhost sandbox\n::1 localhost sandbox\n")?;
    }
    Ok(())
}

/// Makes the view this process's root, with a /proc of its namespace and an empty /tmp, and covers what programs are not
/// to see.
///
/// # Errors
/// One sentence: what this machine does not give.
pub fn enter(root: &Path, plan: &Plan) -> Result<Kept, String> {
    // Mounts that came from a namespace with more rights can be moved only as a whole: as a mount of this one's own.
    mount(Some(root), root, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .map_err(|error| no("own root", error))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), &root.join("proc"), Some("proc"), flags, NONE)
        .map_err(|error| no("/proc of its own", error))?;
    for place in SCRATCH {
        scratch(&inside(root, Path::new(place)), plan.tmp_bytes).map_err(|error| no("/tmp", error))?;
    }
    std::env::set_current_dir(root).map_err(|error| format!("the new root cannot be entered: {error}"))?;
    pivot_root(".", ".").map_err(|error| no("root of its own", error))?;
    // The old root lies over the new one now.
    umount2(".", MntFlags::MNT_DETACH).map_err(|error| no("way to leave the machine's files", error))?;
    std::env::set_current_dir("/").map_err(|error| format!("the new root cannot be entered: {error}"))?;
    let is_own = fs::read_link("/proc/self").is_ok_and(|link| link == Path::new("1"));
    if !is_own {
        return Err("/proc shows another namespace".into());
    }
    Kept::cover(&plan.kept)
}

/// An empty file system in memory, which everybody may write.
fn scratch(at: &Path, bytes: u64) -> nix::Result<()> {
    let options = format!("mode={SCRATCH_MODE:o},size={bytes},nr_inodes={SCRATCH_FILES}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmp"), at, Some("tmpfs"), flags, Some(options.as_str()))
}

/// How [`Kept::show`] mounts: the only way that stays open behind the filter.
pub const SHOW_FLAGS: MsFlags = MsFlags::MS_BIND;

/// The service's folders, of which runs are shown parts. They lie covered, so that only who holds them open gets there.
pub struct Kept {
    folders: Vec<(PathBuf, OwnedFd)>,
    home: OwnedFd,
}

impl Kept {
    fn cover(kept: &[String]) -> Result<Self, String> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let open = |path: &Path| {
            nix::fcntl::open(path, flags, Mode::empty()).map_err(|error| no(&path.to_string_lossy(), error))
        };
        let hidden = Path::new("/").join(HIDDEN);
        let mut folders = Vec::new();
        for (number, place) in kept.iter().enumerate() {
            folders.push((PathBuf::from(place), open(&hidden.join(number.to_string()))?));
        }
        let home = open(Path::new("/"))?;
        if !kept.is_empty() {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
            mount(Some("nothing"), &hidden, Some("tmpfs"), flags, Some("mode=0000,size=4k,nr_inodes=2"))
                .map_err(|error| no("way to hide the service's folders", error))?;
        }
        Ok(Self { folders, home })
    }

    /// Shows a part of these folders, read-only as they are.
    pub fn show(&self, from: &Path, at: &str) -> nix::Result<()> {
        let found = self.folders.iter().find_map(|(place, fd)| Some((from.strip_prefix(place).ok()?, fd)));
        let (part, fd) = found.ok_or(Errno::ENOENT)?;
        if !part.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(Errno::EINVAL);
        }
        // From where it is held open: by its path it cannot be reached any more.
        nix::unistd::fchdir(fd)?;
        let part = if part.as_os_str().is_empty() { Path::new(".") } else { part };
        let shown = mount(Some(part), at, NONE, SHOW_FLAGS, NONE);
        nix::unistd::fchdir(&self.home)?;
        shown
    }
}

fn by_number(fd: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

fn inside(root: &Path, place: &Path) -> PathBuf {
    root.join(place.strip_prefix("/").unwrap_or(place))
}

fn folder(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// What something can be laid over.
fn make_target(at: &Path, is_folder: bool) -> Result<(), String> {
    if at.exists() {
        return Ok(());
    }
    let made = if is_folder {
        folder(at)
    } else {
        at.parent().map_or(Ok(()), folder).and_then(|()| fs::File::create_new(at).map(drop))
    };
    made.map_err(|error| format!("there is no place for {}: {error}", at.display()))
}
