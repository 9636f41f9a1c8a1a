//! Which system calls programs in a jail may make (seccomp(2)): all that ordinary programs do, none that reach for the
//! kernel's rarer parts, where most of its holes were.
//!
//! The filter is taken on once, by the launcher, and comes down to all that it starts: loading it for each program would
//! cost half as much again as starting the program. So it leaves open the way of mounting that the launcher itself
//! needs; programs lack the right to use them.

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use super::view;

/// Refused as what one may not do.
const FORBIDDEN: &[libc::c_long] = &[
    // Mounts and roots; `mount` and `umount2` are below.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    // Namespaces.
    libc::SYS_setns,
    libc::SYS_unshare,
    // Other processes.
    libc::SYS_kcmp,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    // Files by other ways than paths.
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    // Keys, and memory that outlives its processes: both are shared by all of one user.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_mq_open,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_shmget,
    // Programs in the kernel.
    libc::SYS_bpf,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    // The machine as a whole.
    libc::SYS_acct,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
];

/// Kinds of sockets that may be made; the rest of them lead into rarer parts of the kernel, or to raw frames.
const SOCKETS: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Flags of clone(2) that make namespaces.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

/// The launcher's process id in there. Where it runs as the same user as the programs, the kernel would let them set how it
/// is scheduled and what it may use.
const LAUNCHER: u64 = 1;

/// Calls that set such a thing for the process that is their first argument.
const ON_ONE: &[libc::c_long] = &[
    libc::SYS_prlimit64,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
];

/// Calls that set it for what their first argument says, with what stands for a process and for all of a user
/// (setpriority(2), ioprio_set(2)).
const ON_MANY: &[(libc::c_long, u64, u64)] = &[(libc::SYS_setpriority, 0, 2), (libc::SYS_ioprio_set, 1, 3)];

/// Typing for others at a terminal.
const TERMINAL: [u64; 2] = [libc::TIOCSTI, libc::TIOCLINUX];

/// System calls of x32, which pass as those of x86_64 with this bit (syscall(2) of x86).
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// Takes the filter on, for this process and all that it starts from now on.
///
/// # Errors
/// One sentence: the kernel does not take it.
pub fn apply() -> Result<(), String> {
    let failed = |error: seccompiler::Error| format!("the filter of system calls is not taken: {error}");
    // As if the kernel were older: the C library then takes the call whose flags can be looked at.
    let unknown =
        program(vec![(libc::SYS_clone3, vec![])], libc::ENOSYS).map_err(|error| failed(error.into()))?;
    let forbidden =
        rules().and_then(|rules| program(rules, libc::EPERM)).map_err(|error| failed(error.into()))?;
    seccompiler::apply_filter(&unknown).and_then(|()| seccompiler::apply_filter(&forbidden)).map_err(failed)
}

type Rules = Vec<(libc::c_long, Vec<SeccompRule>)>;

fn program(rules: Rules, errno: libc::c_int) -> Result<BpfProgram, BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let refuse = SeccompAction::Errno(errno.cast_unsigned());
    let filter = SeccompFilter::new(rules.into_iter().collect(), SeccompAction::Allow, refuse, arch)?;
    let mut program = BpfProgram::try_from(filter)?;
    #[cfg(target_arch = "x86_64")]
    {
        const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
        const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
        let unknown = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
        // The number of the call is what the kernel shows first.
        let first = [
            sock_filter { code: LOAD, jt: 0, jf: 0, k: 0 },
            sock_filter { code: AT_LEAST, jt: 0, jf: 1, k: X32 },
            sock_filter { code: RETURN, jt: 0, jf: 0, k: unknown },
        ];
        program.splice(0..0, first);
    }
    Ok(program)
}

fn rules() -> Result<Rules, BackendError> {
    use SeccompCmpArgLen::{Dword, Qword};
    let mut rules: Rules = FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
    let is = |argument, width, operator, value| SeccompCondition::new(argument, width, operator, value);
    let other = SOCKETS.iter().map(|kind| is(0, Dword, SeccompCmpOp::Ne, u64::from(kind.cast_unsigned())));
    rules.push((libc::SYS_socket, vec![SeccompRule::new(other.collect::<Result<_, _>>()?)?]));
    let namespaces = NAMESPACES.iter().map(|flag| {
        let flag = u64::from(flag.cast_unsigned());
        SeccompRule::new(vec![is(0, Qword, SeccompCmpOp::MaskedEq(flag), flag)?])
    });
    rules.push((libc::SYS_clone, namespaces.collect::<Result<_, _>>()?));
    let terminal = TERMINAL.iter().map(|call| SeccompRule::new(vec![is(1, Dword, SeccompCmpOp::Eq, *call)?]));
    rules.push((libc::SYS_ioctl, terminal.collect::<Result<_, _>>()?));
    let other = is(3, Qword, SeccompCmpOp::Ne, view::SHOW_FLAGS.bits())?;
    rules.push((libc::SYS_mount, vec![SeccompRule::new(vec![other])?]));
    let equals = |argument, value| is(argument, Dword, SeccompCmpOp::Eq, value);
    for call in ON_ONE {
        rules.push((*call, vec![SeccompRule::new(vec![equals(0, LAUNCHER)?])?]));
    }
    for (call, process, user) in ON_MANY {
        let one = SeccompRule::new(vec![equals(0, *process)?, equals(1, LAUNCHER)?])?;
        rules.push((*call, vec![one, SeccompRule::new(vec![equals(0, *user)?])?]));
    }
    let detach = u64::from(libc::MNT_DETACH.cast_unsigned());
    rules.push((libc::SYS_umount2, vec![SeccompRule::new(vec![is(1, Dword, SeccompCmpOp::Ne, detach)?])?]));
    Ok(rules)
}
