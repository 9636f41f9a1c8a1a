//! The launcher: our own binary started again under a hidden subcommand, before it opened anything.
//!
//! What must happen between fork and exec cannot happen in a large process, so an executor keeps one of these, small
//! and single-threaded. It takes a program and the ends of its pipes over the socket that is its standard input,
//! starts the program with its limits, watches it, ends all that is left of it, and tells how it ended. Data flows
//! between service and program directly. When its socket closes, also because the service died, it ends its tree
//! and exits.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

mod containment;
mod filter;
mod inbox;
mod jail;
mod kernel;
mod landlocked;
pub mod protocol;
mod spawn;
mod tree;
mod view;
mod watch;

use containment::Contained;
use inbox::Inbox;
use protocol::{Exceeded, Exit, Limits, Reply, Request};
use watch::Watch;

pub use tree::parse_statm;
pub use view::{ENVIRONMENT, SCRATCH, SOURCE, SYSTEM, WORK};

/// The subcommand under which the binary is a launcher.
pub const SUBCOMMAND: &str = "launcher";

/// How much less a program that is looked at gets of a busy processor, as setpriority(2) counts.
const SESSION_NICE: &str = "10";

/// How long what was killed may take to be gone before it is told that something is left.
const ENDING: Duration = Duration::from_secs(5);

/// When those that are to end and have not are told again.
const AGAIN: Duration = Duration::from_millis(10);

/// Between two looks at what is left.
const PAUSE: Duration = Duration::from_millis(1);

/// Serves the socket that is standard input, to its end.
pub fn main() -> ExitCode {
    let Ok(socket) = spawn::take_stdin() else {
        eprintln!("error: `{SUBCOMMAND}` is started by the service, not by hand");
        return ExitCode::FAILURE;
    };
    match serve(socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: the launcher failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(socket: OwnedFd) -> nix::Result<()> {
    let mut inbox = Inbox::new(socket);
    let wanted = match inbox.wait()? {
        Some((Request::Contain(wanted), _)) => wanted,
        _ => return Ok(()),
    };
    let contained = match Contained::establish(&wanted) {
        Ok(Some(contained)) => contained,
        // The process that waited for the contained one: all is done, and its descriptors are closed already.
        Ok(None) => std::process::exit(0),
        Err(problem) => return inbox.send(&Reply::Failed(problem)),
    };
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    inbox.send(&Reply::Contained(contained.level()))?;
    Launcher { inbox, contained, signals, program: None, is_killing: false, bound: None }.run()
}

struct Launcher {
    inbox: Inbox,
    contained: Contained,
    signals: SignalFd,
    program: Option<Program>,
    /// All are to end, and are told so until they have.
    is_killing: bool,
    /// How many processes the kernel was told to allow.
    bound: Option<u64>,
}

/// The program that was started.
struct Program {
    pid: Pid,
    /// Set once it was waited for.
    status: Option<WaitStatus>,
    watch: Option<Watch>,
    /// Its session gets less of a busy processor than others.
    is_yielding: bool,
    exceeded: Option<Exceeded>,
    /// The launcher's own count of what ended children used, when the program was started.
    cpu_before: Duration,
}

impl Launcher {
    fn run(mut self) -> nix::Result<()> {
        loop {
            let (has_request, has_signal) = self.wait()?;
            if has_signal {
                // The kernel tells several of one kind once.
                let _ = self.signals.read_signal();
                self.reap();
                self.finish_if_over()?;
            }
            if has_request {
                if !self.inbox.receive()? {
                    self.end_all();
                    return Ok(());
                }
                while let Some((request, fds)) = self.inbox.next() {
                    self.handle(request, fds)?;
                }
            }
            if self.is_killing {
                self.contained.kill_all();
            }
            self.sample();
        }
    }

    fn wait(&self) -> nix::Result<(bool, bool)> {
        let next = self.program.as_ref().and_then(|program| program.watch.as_ref()).map(Watch::next);
        let next = if self.is_killing { Some(Instant::now() + AGAIN) } else { next };
        let timeout = next.map_or(PollTimeout::NONE, |next| {
            let millis = next.saturating_duration_since(Instant::now()).as_micros().div_ceil(1_000);
            PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [
            PollFd::new(self.inbox.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
        Ok((fds[0].any().unwrap_or(false), fds[1].any().unwrap_or(false)))
    }

    fn handle(&mut self, request: Request, fds: Vec<OwnedFd>) -> nix::Result<()> {
        match request {
            Request::Contain(_) => Ok(()),
            Request::Start(start) => {
                let cpu_before = tree::ended_children();
                let processes = start.bounds.map(|bounds| bounds.processes);
                if let Some(processes) = processes
                    && self.bound != Some(processes)
                {
                    self.contained.bound(processes);
                    self.bound = Some(processes);
                }
                if let Err(problem) = self.contained.show(&start.shown) {
                    return self.inbox.send(&Reply::Failed(problem));
                }
                match spawn::start(&start, fds, &self.contained) {
                    Ok(pid) => {
                        let watch = start.limits.map(|limits| self.watch(limits));
                        self.program = Some(Program {
                            pid,
                            status: None,
                            watch,
                            is_yielding: false,
                            exceeded: None,
                            cpu_before,
                        });
                        Ok(())
                    }
                    Err(error) => self.inbox.send(&Reply::Failed(error.desc().to_owned())),
                }
            }
            Request::Watch(limits) => {
                let watch = self.watch(limits);
                if let Some(program) = &mut self.program {
                    program.watch = Some(watch);
                }
                Ok(())
            }
            Request::Rest => {
                if let Some(program) = &mut self.program {
                    program.watch = None;
                }
                self.yield_as_session(false);
                Ok(())
            }
            Request::Sweep => self.sweep(),
            Request::Kill => {
                self.contained.kill_all();
                self.is_killing = self.program.is_some();
                Ok(())
            }
        }
    }

    fn watch(&self, limits: Limits) -> Watch {
        Watch::begin(limits, self.contained.sees_only_its_own())
    }

    /// Waits for all that has ended. Whether nobody is left: orphans come to this process, so who has no child is
    /// alone.
    fn reap(&mut self) -> bool {
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(status) => status,
                Err(Errno::EINTR) => continue,
                Err(error) => return error == Errno::ECHILD,
            };
            let Some(pid) = status.pid() else { return false };
            if let Some(program) = &mut self.program
                && program.pid == pid
            {
                program.status = Some(status);
            }
        }
    }

    /// The program has ended: ends what it left, and tells.
    fn finish_if_over(&mut self) -> nix::Result<()> {
        let Some(mut program) = self.program.take_if(|program| program.status.is_some()) else {
            return Ok(());
        };
        if program.status.is_none_or(|status| !matches!(status, WaitStatus::Exited(_, 0))) {
            // It may have failed for want of what it had used up, before that was seen.
            let last_look = || program.watch.as_mut().and_then(Watch::look_last);
            program.exceeded = program.exceeded.or_else(last_look);
        }
        let is_clean = self.end_all() && self.contained.renew();
        self.is_killing = false;
        let (code, signal) = match program.status {
            Some(WaitStatus::Exited(_, code)) => (Some(code), None),
            Some(WaitStatus::Signaled(_, signal, _)) => (None, Some(signal as i32)),
            _ => (None, None),
        };
        let cpu = tree::ended_children().saturating_sub(program.cpu_before);
        let cpu_ms = u64::try_from(cpu.as_millis()).unwrap_or(u64::MAX);
        self.inbox.send(&Reply::Exited(Exit { code, signal, exceeded: program.exceeded, cpu_ms, is_clean }))
    }

    /// Ends all that there is, and waits for it. Whether nothing is left.
    fn end_all(&mut self) -> bool {
        let deadline = Instant::now() + ENDING;
        loop {
            if self.reap() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            self.contained.kill_all();
            self.pause();
        }
    }

    /// Tells that nothing but the program is there; else ends all, the program too, since it may hold the dead among its
    /// children, and what it forked may have been about to fork.
    fn sweep(&mut self) -> nix::Result<()> {
        let Some(keep) = self.program.as_ref().map(|program| program.pid) else { return Ok(()) };
        self.reap();
        let is_alone = tree::processes(self.contained.sees_only_its_own()).iter().all(|pid| *pid == keep);
        if is_alone && self.contained.renew() {
            return self.inbox.send(&Reply::Swept);
        }
        self.contained.kill_all();
        self.is_killing = true;
        Ok(())
    }

    /// Until a child ended, or for a moment.
    fn pause(&self) {
        let mut fds = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::from(PAUSE.as_millis() as u8));
        while let Ok(Some(_)) = self.signals.read_signal() {}
    }

    /// Looks at what the program uses, if it is time; ends all where it is too much.
    fn sample(&mut self) {
        let Some(program) = &mut self.program else { return };
        let Some(watch) = &mut program.watch else { return };
        if Instant::now() < watch.next() {
            return;
        }
        let exceeded = watch.look();
        program.exceeded = program.exceeded.or(exceeded);
        if program.exceeded.is_some() {
            // Again at each look, until the program is gone.
            self.contained.kill_all();
        }
        self.yield_as_session(true);
    }

    /// Where the kernel shares the processor among sessions, what counts beside another one is the niceness of the whole
    /// session (sched(7), "The autogroup feature"); where it does not, there is no such file. A program that ends at once
    /// is not worth it.
    fn yield_as_session(&mut self, yields: bool) {
        let Some(program) = self.program.as_mut().filter(|program| program.is_yielding != yields) else {
            return;
        };
        if !self.contained.sees_its_own() {
            return;
        }
        let nice = if yields { SESSION_NICE } else { "0" };
        // One that is gone, or has left the session, is as it is; but of those who are not root the kernel takes ten of
        // these a second, and the next look tries again.
        let written = std::fs::write(format!("/proc/{}/autogroup", program.pid), nice);
        let is_for_later = written.is_err_and(|error| error.raw_os_error() == Some(Errno::EAGAIN as i32));
        if !is_for_later {
            program.is_yielding = yields;
        }
    }
}
