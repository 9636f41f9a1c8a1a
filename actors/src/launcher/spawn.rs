//! Starting a program: what happens between clone and exec, in a process that is small enough for it.
//!
//! The place with most of the `unsafe`; the rest is in `kernel.rs`. The child of [`start`] shares this process's memory until it executes the program
//! (CLONE_VM, and CLONE_VFORK so that this process waits meanwhile): nothing is copied, however large the process.
//! So the child allocates nothing, takes no lock, and only makes system calls on what was prepared for it.
#![allow(unsafe_code, reason = "fork, exec and descriptors by number have no safe form")]

use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, clone};
use nix::sys::signal::SigSet;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid};

use super::containment::Contained;
use super::kernel;
use super::protocol::Start;

/// The child's stack until it executes the program; it calls a dozen small functions.
const STACK_BYTES: usize = 64 * 1024;

/// How much less programs get of a busy processor than the service and their launcher (setpriority(2)).
const NICE: i32 = 10;

/// By how much the kernel's limits are above those that the watch keeps, so that who reaches one is seen to.
const SLACK_FILES: u64 = 16;
const SLACK_BYTES: u64 = 1 << 20;
const SLACK_PROCESSES: u64 = 256;

/// The exit status of a child that could not execute the program; its errno tells why.
const NOT_STARTED: isize = 127;

/// All that the child needs, ready to be given to the kernel.
struct Prepared {
    program: CString,
    folder: CString,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    limits: Vec<(libc::__rlimit_resource_t, libc::rlimit)>,
    uid: Option<u32>,
    cgroup: Option<CString>,
    landlock: Option<RawFd>,
    fds: Vec<RawFd>,
}

/// Starts a program in the containment, with its descriptors as 0, 1, 2 and so on.
///
/// # Errors
/// Why the kernel did not start it.
pub fn start(start: &Start, fds: Vec<OwnedFd>, contained: &Contained) -> nix::Result<Pid> {
    let text = |text: &str| CString::new(text).map_err(|_| Errno::EINVAL);
    let texts = |texts: &[String]| texts.iter().map(|one| text(one)).collect::<nix::Result<Vec<_>>>();
    let (args, env) = (texts(&start.args)?, texts(&start.env)?);
    let program = text(&start.program)?;
    let pointers = |first: Option<&CString>, texts: &[CString]| {
        let pointers = first.into_iter().chain(texts).map(|text| text.as_ptr());
        pointers.chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    let limit = |at_most: u64| libc::rlimit { rlim_cur: at_most, rlim_max: at_most };
    let procs = contained.cgroup_procs();
    let mut prepared = Prepared {
        argv: pointers(Some(&program), &args),
        envp: pointers(None, &env),
        folder: text(&start.folder)?,
        limits: vec![(libc::RLIMIT_CORE, limit(0))],
        uid: contained.uid(),
        cgroup: procs
            .map(|path| CString::new(path.as_os_str().as_bytes()))
            .transpose()
            .map_err(|_| Errno::EINVAL)?,
        landlock: contained.landlock(),
        fds: fds.iter().map(AsRawFd::as_raw_fd).collect(),
        program,
    };
    if let Some(bounds) = start.bounds {
        prepared.limits.push((libc::RLIMIT_NOFILE, limit(bounds.files + SLACK_FILES)));
        prepared.limits.push((libc::RLIMIT_FSIZE, limit(bounds.file_bytes + SLACK_BYTES)));
        if prepared.uid.is_some() {
            // The kernel counts processes by user, and this user is this launcher's own.
            prepared.limits.push((libc::RLIMIT_NPROC, limit(bounds.processes + SLACK_PROCESSES)));
        }
    }
    if let Some(uid) = prepared.uid
        && contained.gives_folder()
    {
        std::os::unix::fs::chown(&start.folder, Some(uid), Some(uid))
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
    }
    lift_above(&mut prepared.fds)?;
    let failed = std::cell::Cell::new(0);
    let mut stack = vec![0; STACK_BYTES];
    let child = Box::new(|| {
        failed.set(execute(&prepared));
        NOT_STARTED
    });
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    // SAFETY: this process has one thread and waits until the child has executed the program or ended, so that the
    // stack, `prepared` and `failed` outlive the child's use of them; the closure keeps to what is said above.
    let pid = unsafe { clone(child, &mut stack, flags, Some(libc::SIGCHLD)) }?;
    if failed.get() == 0 {
        return Ok(pid);
    }
    let _ = waitpid(pid, None);
    Err(Errno::from_raw(failed.get()))
}

/// Moves the descriptors, which close by themselves, above those that they are to become, so that no copy hits one
/// that is still to be copied. The numbers belong to `OwnedFd`s of the caller or leak until the next exec.
fn lift_above(fds: &mut [RawFd]) -> nix::Result<()> {
    let floor = i32::try_from(fds.len()).unwrap_or(i32::MAX);
    for fd in fds.iter_mut().filter(|fd| **fd < floor) {
        // SAFETY: duplicating a descriptor touches no memory.
        *fd = Errno::result(unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, floor) })?;
    }
    Ok(())
}

/// In the child: becomes the program. Comes back only with the errno of what failed.
fn execute(prepared: &Prepared) -> i32 {
    let failed = |result: libc::c_int| result == -1;
    let errno = Errno::last_raw;
    // SAFETY: system calls on memory that `Prepared` holds; none allocates or locks.
    unsafe {
        // A session of its own: where the kernel shares the processor among sessions, whoever floods his has one part of
        // it, and the launcher that is to end him another.
        if failed(libc::setsid()) {
            return errno();
        }
        for (number, fd) in (0..).zip(&prepared.fds) {
            if failed(libc::dup2(*fd, number)) {
                return errno();
            }
        }
        if let Some(procs) = &prepared.cgroup
            && !joined(procs)
        {
            return errno();
        }
        for (resource, limit) in &prepared.limits {
            // A limit above the one that holds for this process already cannot be set, and need not be.
            libc::setrlimit(*resource, limit);
        }
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
        if failed(libc::chdir(prepared.folder.as_ptr())) {
            return errno();
        }
        if let Some(uid) = prepared.uid
            && failed(become_user(uid))
        {
            return errno();
        }
        // The launcher's own lock would keep it from showing anything, so each program takes it on.
        if let Some(rules) = prepared.landlock
            && failed(kernel::take_on(rules))
        {
            return errno();
        }
        let nothing: libc::sigset_t = *SigSet::empty().as_ref();
        libc::sigprocmask(libc::SIG_SETMASK, &nothing, std::ptr::null_mut());
        // The runtime of Rust ignores it, and what is ignored stays so over exec.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::execve(prepared.program.as_ptr(), prepared.argv.as_ptr(), prepared.envp.as_ptr());
    }
    errno()
}

/// Writes the calling process into a control group.
fn joined(procs: &CStr) -> bool {
    // SAFETY: as in `execute`.
    unsafe {
        let file = libc::open(procs.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        let written = file >= 0 && libc::write(file, c"0".as_ptr().cast(), 1) == 1;
        let errno = Errno::last_raw();
        if file >= 0 {
            libc::close(file);
        }
        Errno::set_raw(errno);
        written
    }
}

/// The system call itself: the C library's function would tell all threads of the memory's owner.
fn become_user(uid: u32) -> libc::c_int {
    // SAFETY: as in `execute`.
    unsafe {
        let groups = libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>());
        let group = libc::syscall(libc::SYS_setresgid, uid, uid, uid);
        let user = libc::syscall(libc::SYS_setresuid, uid, uid, uid);
        if groups == 0 && group == 0 && user == 0 { 0 } else { -1 }
    }
}

/// Runs this in a child that shares memory as in [`start`], and waits for it.
fn in_child(mut work: impl FnMut() -> isize) -> nix::Result<()> {
    let mut stack = vec![0; STACK_BYTES];
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    // SAFETY: as in `start`; this process waits until the child has ended.
    let pid = unsafe { clone(Box::new(&mut work), &mut stack, flags, Some(libc::SIGCHLD)) }?;
    waitpid(pid, None).map(drop)
}

/// Whether a process can become this user.
///
/// # Errors
/// Why not.
pub fn can_become(uid: u32) -> nix::Result<()> {
    let failed = std::cell::Cell::new(0);
    in_child(|| {
        if become_user(uid) != 0 {
            failed.set(Errno::last_raw());
        }
        0
    })?;
    if failed.get() == 0 { Ok(()) } else { Err(Errno::from_raw(failed.get())) }
}

/// Ends all processes of a user, in one go: who is just forking gets the signal too.
pub fn kill_all_of(uid: u32) {
    // A child that cannot be made now is made at the next try.
    let _ = in_child(|| {
        if become_user(uid) == 0 {
            // SAFETY: a system call without memory; as that user it reaches that user's processes only.
            unsafe { libc::kill(-1, libc::SIGKILL) };
        }
        0
    });
}

/// Forks this process, copying it.
pub fn fork() -> nix::Result<ForkResult> {
    // SAFETY: there is one thread, so that the child may do all that its parent may.
    unsafe { nix::unistd::fork() }
}

/// The socket that is standard input, moved elsewhere; standard input is empty afterwards.
///
/// # Errors
/// Standard input is no socket.
pub fn take_stdin() -> nix::Result<OwnedFd> {
    let socket = nix::fcntl::fcntl(std::io::stdin(), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3)).map(own)?;
    nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::SockType)?;
    let nothing = std::fs::File::open("/dev/null").map_err(|_| Errno::ENOENT)?;
    nix::unistd::dup2_stdin(&nothing)?;
    Ok(socket)
}

/// A descriptor that the kernel just gave.
pub fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: its number was just given to this process and is nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Closes every descriptor but standard error, in a process that only waits from now on.
pub fn close_all() {
    // SAFETY: whoever holds these in this copy of the process is never run again.
    unsafe {
        libc::syscall(libc::SYS_close_range, 0, 1, 0);
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
    }
}
