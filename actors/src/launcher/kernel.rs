//! System calls that neither the standard library nor nix has a safe form for, and that do not start programs.
#![allow(unsafe_code, reason = "these calls are made by their number")]

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sched::CloneFlags;
use nix::unistd::{ForkResult, Pid};

/// Forks this process, copying it, into new namespaces.
pub fn fork_into(namespaces: CloneFlags) -> nix::Result<ForkResult> {
    let flags = libc::c_long::from(namespaces.bits() | libc::SIGCHLD);
    // SAFETY: without a stack of its own the child goes on with a copy of this one, as after fork(2); there is one
    // thread, so that the child may do all that its parent may.
    let pid = Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    match i32::try_from(pid) {
        Ok(0) => Ok(ForkResult::Child),
        Ok(pid) => Ok(ForkResult::Parent { child: Pid::from_raw(pid) }),
        Err(_) => Err(Errno::EOVERFLOW),
    }
}

/// Makes a mount and all below it read-only, without devices and without programs that change their user
/// (mount_setattr(2), Linux 5.12).
pub fn make_read_only(root: &Path) -> nix::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let root = CString::new(root.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel reads a path and a structure of the size that it is told, both of which outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            root.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop)
}

/// Gives this process's namespace of names (uts_namespaces(7)) a host name.
pub fn name_host(name: &str) -> nix::Result<()> {
    // SAFETY: the kernel reads as many bytes as it is told.
    Errno::result(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Brings up the loopback device of this process's network namespace.
pub fn loopback_up() -> nix::Result<()> {
    // SAFETY: an all-zero request is a valid one; the kernel reads the name and the flags out of it.
    unsafe {
        let socket = Errno::result(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
        let socket = OwnedFd::from_raw_fd(socket);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = libc::c_char::from_ne_bytes([b'l']);
        request.ifr_name[1] = libc::c_char::from_ne_bytes([b'o']);
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0);
        Errno::result(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)).map(drop)
    }
}

/// Nothing that is executed from here on gains a right, not even as user 0; nobody of this user looks into this process.
pub fn give_up_rights() -> nix::Result<()> {
    const NO_ROOT: libc::c_ulong = 0b11;
    const NO_AMBIENT: libc::c_ulong = 0b1100_0000;
    // SAFETY: calls without memory.
    unsafe {
        Errno::result(libc::prctl(libc::PR_SET_SECUREBITS, NO_ROOT | NO_AMBIENT, 0, 0, 0))?;
        Errno::result(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0))?;
        Errno::result(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)).map(drop)
    }
}

/// Takes these rules (landlock(7)) on, in the calling process; in a child that shares memory with its parent too.
pub fn take_on(rules: libc::c_int) -> libc::c_int {
    // SAFETY: a call without memory.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules, 0) };
    if result == 0 { 0 } else { -1 }
}
