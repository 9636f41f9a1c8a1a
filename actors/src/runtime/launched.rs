//! The service's side of a launcher: one process kept warm by an executor, through which its programs are started,
//! watched and ended.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::bounds::Bounds;
use super::sandbox::{Place, Sandbox};
use crate::execution::{Job, Outcome};
use crate::launcher::protocol::{self, Exceeded, Exit, Limits, Reply, Request, Shown, Start};
use crate::launcher::{SCRATCH, WORK, parse_statm};
use crate::settings::{Containment, Level};

/// How long a launcher may take to answer what it answers at once.
const ANSWER: Duration = Duration::from_secs(10);

/// How a launcher is started.
#[derive(Clone, Debug)]
pub struct LauncherCommand {
    /// The program and its first arguments: this binary and [`crate::launcher::SUBCOMMAND`].
    pub program: Vec<OsString>,
    /// The sandbox that programs run in.
    pub sandbox: Arc<Sandbox>,
    /// Whether they do: servers that a definition names are programs of the machine's own.
    pub is_sandboxed: bool,
}

impl LauncherCommand {
    /// The same for programs that see the machine.
    pub fn unsandboxed(&self) -> Self {
        Self { is_sandboxed: false, ..self.clone() }
    }

    /// Whether programs run in jails.
    fn is_jailed(&self) -> bool {
        self.is_sandboxed && self.sandbox.is_isolated()
    }

    /// The jail that a program with this folder runs in.
    fn place(&self, folder: &Path, network: bool) -> Option<Place> {
        self.is_jailed().then(|| Place { folder: folder.to_owned(), network })
    }

    /// Where a program finds its working folder.
    fn seen(&self, folder: &Path) -> String {
        if self.is_jailed() { WORK.to_owned() } else { folder.to_string_lossy().into_owned() }
    }

    /// Whether programs are held to limits.
    fn bounds(&self) -> bool {
        !self.is_sandboxed || self.sandbox.level() != Some(Level::Off)
    }
}

/// A launcher, started at first use, and again at the next use after it failed.
#[derive(Debug)]
pub struct Launcher {
    command: LauncherCommand,
    live: Option<Live>,
    /// A program was started and its end was not told yet.
    is_running: bool,
}

/// A launcher that runs.
#[derive(Debug)]
struct Live {
    /// The jail that it is in.
    place: Option<Place>,
    socket: UnixStream,
    received: Vec<u8>,
    process: Child,
    containment: Containment,
}

/// A program that is to be started.
#[derive(Debug)]
pub struct Program<'a> {
    /// Its absolute path.
    pub path: &'a Path,
    /// Its arguments, without the name.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<&'a str, &'a str>,
    /// Its working folder, on the machine.
    pub folder: &'a Path,
    /// What else it is shown, in a jail.
    pub shown: Vec<Shown>,
    /// Whether it has the machine's network.
    pub network: bool,
    /// What it is given on standard input; else that is empty.
    pub input: Option<String>,
}

/// The ends of the pipes of a program that was started.
#[derive(Debug)]
pub struct Pipes {
    /// Its standard input and what is still to be written to it, where a pipe does not hold all.
    pub rest: Option<Unwritten>,
    /// Its standard output.
    pub stdout: pipe::Receiver,
    /// Its standard error.
    pub stderr: pipe::Receiver,
}

/// A standard input, and what its pipe did not hold.
pub type Unwritten = (pipe::Sender, Vec<u8>);

/// Which descriptors of a warm program are the channel. (A pair of sockets costs nearly twice as much a message as two
/// pipes.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// 3 and 4: its standard input is empty, and what it prints is its log.
    Own,
    /// Standard input and output: only what it prints to standard error is its log.
    Standard,
}

/// The ends of a warm program: what it prints, and a channel of two pipes.
#[derive(Debug)]
pub struct Channel {
    /// What it is asked.
    pub requests: pipe::Sender,
    /// What it answers.
    pub answers: pipe::Receiver,
    /// Standard error, and in the same order standard output where that is not the channel.
    pub log: pipe::Receiver,
}

impl Launcher {
    /// Nothing runs yet.
    pub fn new(command: LauncherCommand) -> Self {
        Self { command, live: None, is_running: false }
    }

    /// How programs are kept together here; starts the launcher, in this jail where one is named.
    ///
    /// # Errors
    /// One sentence: why the configured way cannot be had.
    pub async fn containment(&mut self, place: Option<Place>) -> Result<Containment, String> {
        self.live = None;
        let live = Live::start(&self.command, place).await?;
        let containment = live.containment;
        self.live = Some(live);
        Ok(containment)
    }

    /// Starts a program that is watched from its beginning.
    ///
    /// # Errors
    /// The outcome: the launcher failed. That the program could not be started is told by [`Launcher::ended`].
    pub async fn run(&mut self, mut program: Program<'_>, bounds: &Bounds) -> Result<Pipes, Outcome> {
        let failed = |error: std::io::Error| not_started(&error.to_string());
        let watch = self.limits(bounds, Some(program.folder));
        let (stdout, child_stdout) = output_pipe().map_err(failed)?;
        let (stderr, child_stderr) = output_pipe().map_err(failed)?;
        let (rest, child_stdin) = input(program.input.take()).map_err(failed)?;
        self.start(program, bounds, watch, vec![child_stdin, child_stdout, child_stderr]).await?;
        Ok(Pipes { rest, stdout, stderr })
    }

    /// Starts a program that stays for many runs, each of which is watched by [`Launcher::watch`].
    ///
    /// # Errors
    /// The outcome: the launcher failed. That the program could not be started is told by [`Launcher::ended`].
    pub async fn keep(
        &mut self,
        program: Program<'_>,
        through: Through,
        bounds: &Bounds,
    ) -> Result<Channel, Outcome> {
        let failed = |error: std::io::Error| not_started(&error.to_string());
        let (log, child_log) = output_pipe().map_err(failed)?;
        let (child_requests, requests) = nonblocking_pipe().map_err(failed)?;
        make_blocking(&child_requests).map_err(failed)?;
        let requests = pipe::Sender::from_owned_fd_unchecked(requests).map_err(failed)?;
        let (answers, child_answers) = output_pipe().map_err(failed)?;
        let fds = match through {
            Through::Own => {
                let (_, child_stdin) = input(None).map_err(failed)?;
                let child_stderr = child_log.try_clone().map_err(failed)?;
                vec![child_stdin, child_log, child_stderr, child_requests, child_answers]
            }
            Through::Standard => vec![child_requests, child_answers, child_log],
        };
        self.start(program, bounds, None, fds).await?;
        Ok(Channel { requests, answers, log })
    }

    async fn start(
        &mut self,
        program: Program<'_>,
        bounds: &Bounds,
        limits: Option<Limits>,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Outcome> {
        let place = self.command.place(program.folder, program.network);
        // A jail is made around one working folder, with or without a network.
        self.live.take_if(|live| live.place != place);
        if self.live.is_none() {
            let started = Live::start(&self.command, place.clone()).await;
            let live = started.map_err(|problem| not_started(&problem))?;
            self.live = Some(live);
        }
        let start = Start {
            program: program.path.to_string_lossy().into_owned(),
            args: program.args,
            env: program.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            folder: self.command.seen(program.folder),
            shown: program.shown,
            bounds: self.command.bounds().then_some(protocol::Bounds {
                files: bounds.files,
                file_bytes: bounds.disk_bytes,
                processes: bounds.processes,
            }),
            limits,
        };
        let live = self.live.as_mut().ok_or_else(lost)?;
        self.is_running = true;
        if live.send(&Request::Start(start), &fds).await.is_none() {
            self.live = None;
            return Err(lost());
        }
        Ok(())
    }

    /// Resolves once the program and all that it started are gone; may be dropped and called again.
    ///
    /// # Errors
    /// The outcome: the program could not be started, or the launcher failed.
    pub async fn ended(&mut self) -> Result<Exit, Outcome> {
        let live = self.live.as_mut().ok_or_else(lost)?;
        let reply = live.receive().await;
        self.is_running = false;
        match reply {
            Some(Reply::Exited(exit)) if exit.is_clean => Ok(exit),
            Some(Reply::Exited(exit)) => {
                // With its namespace, or by the service, goes what it could not end.
                tracing::error!(
                    "a launcher could not end all that an execution started, and is ended itself"
                );
                self.live = None;
                Ok(exit)
            }
            Some(Reply::Failed(reason)) => Err(not_started(&reason)),
            _ => {
                self.live = None;
                Err(lost())
            }
        }
    }

    /// Ends the program, where one runs, with all that it started, and waits until they are gone: how it ended, which may
    /// have been before.
    pub async fn end(&mut self) -> Option<Exit> {
        let live = self.live.as_mut().filter(|_| self.is_running)?;
        let asked = async {
            live.send(&Request::Kill, &[]).await?;
            loop {
                match live.receive().await? {
                    Reply::Exited(exit) => return Some(Some(exit)),
                    Reply::Failed(_) => return Some(None),
                    _ => {}
                }
            }
        };
        let ended = timeout(ANSWER, asked).await.ok().flatten();
        if ended.is_none() {
            tracing::error!("a launcher did not end its program in time, and is ended itself");
            self.live = None;
        }
        self.is_running = false;
        ended.flatten()
    }

    /// Watches the program that is kept, from now on.
    ///
    /// # Errors
    /// The outcome: the launcher failed.
    pub async fn watch(&mut self, bounds: &Bounds, folder: Option<&Path>) -> Result<(), Outcome> {
        match self.limits(bounds, folder) {
            Some(limits) => self.tell(&Request::Watch(limits)).await,
            None => Ok(()),
        }
    }

    /// What a program is watched for.
    fn limits(&self, bounds: &Bounds, folder: Option<&Path>) -> Option<Limits> {
        self.command.bounds().then(|| Limits {
            memory_bytes: bounds.memory_bytes,
            cpu_ms: bounds.cpu.map(|cpu| u64::try_from(cpu.as_millis()).unwrap_or(u64::MAX)),
            processes: bounds.processes,
            files: bounds.files,
            disk_bytes: bounds.disk_bytes,
            folder: folder.map(|folder| self.command.seen(folder)),
        })
    }

    /// Watches it no longer.
    ///
    /// # Errors
    /// The outcome: the launcher failed.
    pub async fn rest(&mut self) -> Result<(), Outcome> {
        self.tell(&Request::Rest).await
    }

    /// Whether the kept program is alone; where it is not, it is ended with all that it started.
    ///
    /// # Errors
    /// The outcome: the launcher failed.
    pub async fn sweep(&mut self) -> Result<bool, Outcome> {
        self.tell(&Request::Sweep).await?;
        let live = self.live.as_mut().ok_or_else(lost)?;
        match timeout(ANSWER, live.receive()).await {
            Ok(Some(Reply::Swept)) => Ok(true),
            Ok(Some(Reply::Exited(_))) => {
                self.is_running = false;
                Ok(false)
            }
            _ => {
                self.live = None;
                Err(lost())
            }
        }
    }

    /// What shows whether the kept program is alone.
    pub fn kept(&self) -> Option<Kept> {
        let live = self.live.as_ref()?;
        Kept::of(live.process.id()?, live.containment, live.place.is_some())
    }

    async fn tell(&mut self, request: &Request) -> Result<(), Outcome> {
        let live = self.live.as_mut().ok_or_else(lost)?;
        if live.send(request, &[]).await.is_none() {
            self.live = None;
            return Err(lost());
        }
        Ok(())
    }
}

impl Live {
    async fn start(command: &LauncherCommand, place: Option<Place>) -> Result<Self, String> {
        let wanted = command.sandbox.wanted(place.as_ref());
        let failed = |error: std::io::Error| format!("the launcher cannot be started: {error}");
        let (socket, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let socket = UnixStream::from_std(socket).map_err(failed)?;
        let (program, args) = command.program.split_first().ok_or("no launcher is configured")?;
        let mut process = Command::new(program);
        // Out of the terminal's group until it has a session of its own: Ctrl-C is for the service.
        process.args(args).env_clear().process_group(0).stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
        let process = process.spawn().map_err(failed)?;
        let containment = Containment::Auto;
        let mut live = Self { place, socket, received: Vec::new(), process, containment };
        let asked = async {
            live.send(&Request::Contain(wanted), &[]).await?;
            live.receive().await
        };
        match timeout(ANSWER, asked).await {
            Ok(Some(Reply::Contained(containment))) => Ok(Self { containment, ..live }),
            Ok(Some(Reply::Failed(problem))) => Err(problem),
            _ => Err("the launcher does not answer".into()),
        }
    }

    /// None when the launcher is gone.
    async fn send(&mut self, request: &Request, fds: &[OwnedFd]) -> Option<()> {
        let bytes = protocol::encode(request);
        let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        let write = || {
            let slices = [IoSlice::new(&bytes)];
            Ok(sendmsg::<()>(self.socket.as_raw_fd(), &slices, control, MsgFlags::MSG_NOSIGNAL, None)?)
        };
        let sent = self.socket.async_io(Interest::WRITABLE, write).await.ok()?;
        self.socket.write_all(&bytes[sent..]).await.ok()
    }

    /// The next reply; none when the launcher is gone. May be dropped and called again.
    async fn receive(&mut self) -> Option<Reply> {
        loop {
            match protocol::decode(&mut self.received) {
                Ok(Some(reply)) => return Some(reply),
                Ok(None) => {}
                Err(_) => return None,
            }
            match self.socket.read_buf(&mut self.received).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

/// How many links the folder of a process's threads has besides those to their folders: its name, and itself.
const LINKS_BESIDE_THREADS: u64 = 2;

/// Whether a kept program is alone, asked of /proc without waking its launcher.
#[derive(Debug)]
pub struct Kept {
    launcher_children: File,
    children: File,
    /// A folder with a folder for each of its threads.
    threads: File,
    /// What it holds, in pages (proc_pid_statm(5)); told in less than half of the time that its `stat` takes.
    memory: File,
    expected: String,
    /// Of a program in a jail, the folders that everybody in it may write, each with its size and mode when it is empty.
    scratch: Vec<(File, (u64, u32))>,
}

impl Kept {
    /// The program below the launcher that the service started as `process`.
    fn of(process: u32, containment: Containment, is_jailed: bool) -> Option<Self> {
        let children = |pid: &str| format!("/proc/{pid}/task/{pid}/children");
        let only_child = |pid: &str| {
            let list = std::fs::read_to_string(children(pid)).ok()?;
            let mut pids = list.split_ascii_whitespace().map(str::to_owned);
            pids.next().filter(|_| pids.next().is_none())
        };
        let process = process.to_string();
        // In a namespace there is one more process between.
        let is_between = containment == Containment::PidNamespace;
        let launcher = if is_between { only_child(&process)? } else { process };
        let program = only_child(&launcher)?;
        Some(Self {
            launcher_children: File::open(children(&launcher)).ok()?,
            children: File::open(children(&program)).ok()?,
            threads: File::open(format!("/proc/{program}/task")).ok()?,
            memory: File::open(format!("/proc/{program}/statm")).ok()?,
            scratch: if is_jailed {
                let empty = |place| empty(Path::new(&format!("/proc/{program}/root{place}")));
                SCRATCH.into_iter().map(empty).collect::<Option<_>>()?
            } else {
                Vec::new()
            },
            expected: program,
        })
    }

    /// The memory that it holds, in bytes, where it certainly has neither a child nor an orphan, and left nothing in /tmp.
    pub fn alone_with(&self) -> Option<u64> {
        // A child of another thread stands in another list. From the leaves to the root, as orphans move.
        let mut buffer = [0; 128];
        let has_one_thread =
            self.threads.metadata().is_ok_and(|about| about.nlink() == LINKS_BESIDE_THREADS + 1);
        if !has_one_thread || !read(&self.children, &mut buffer)?.trim().is_empty() {
            return None;
        }
        if read(&self.launcher_children, &mut buffer)?.trim() != self.expected {
            return None;
        }
        // At the end: as long as there is an orphan, it can write. In memory a folder's size grows and shrinks with each name
        // in it (tmpfs); what cannot be told counts as one more.
        let is_empty =
            |(folder, then): &(File, (u64, u32))| size_and_mode(folder).is_some_and(|now| now == *then);
        if !self.scratch.iter().all(is_empty) {
            return None;
        }
        let (resident, _) = parse_statm(read(&self.memory, &mut buffer)?)?;
        Some(resident)
    }
}

/// This folder with its size and mode, where it is empty.
fn empty(path: &Path) -> Option<(File, (u64, u32))> {
    let folder = File::open(path).ok()?;
    let before = size_and_mode(&folder)?;
    let is_empty = std::fs::read_dir(path).ok()?.next().is_none();
    (is_empty && size_and_mode(&folder)? == before).then_some((folder, before))
}

fn size_and_mode(folder: &File) -> Option<(u64, u32)> {
    folder.metadata().ok().map(|about| (about.len(), about.mode()))
}

/// What a file of /proc says, at the most as much as there is room for.
fn read<'a>(file: &File, buffer: &'a mut [u8]) -> Option<&'a str> {
    let length = file.read_at(buffer, 0).ok()?;
    std::str::from_utf8(&buffer[..length]).ok()
}

/// The outcome of a program that was ended for a limit.
pub fn exceeded(exceeded: Exceeded, bounds: &Bounds) -> Outcome {
    match exceeded {
        Exceeded::Memory => bounds.memory_exceeded(),
        Exceeded::Cpu => bounds.cpu_exceeded(),
        Exceeded::Processes => bounds.processes_exceeded(),
        Exceeded::Files => bounds.files_exceeded(),
        Exceeded::Disk => bounds.disk_exceeded(),
    }
}

/// The environment of a run: what the definition says, its secrets, and after them what they must not hide.
pub fn environment<'a>(job: &'a Job, path: &'a str, uuid: &'a str) -> BTreeMap<&'a str, &'a str> {
    let own = job.definition.spec.program.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut env: BTreeMap<&str, &str> = [("PATH", path)].into_iter().chain(own).collect();
    env.extend(job.secrets.variables());
    env.insert("ORG_EXECUTION", uuid);
    env.insert("ORG_DEFINITION", &job.definition.id);
    if let Some(context) = &job.traceparent {
        env.insert("TRACEPARENT", context);
    }
    env
}

/// A pipe of which the service reads one end.
fn output_pipe() -> std::io::Result<(pipe::Receiver, OwnedFd)> {
    let (reader, writer) = nonblocking_pipe()?;
    make_blocking(&writer)?;
    Ok((pipe::Receiver::from_owned_fd_unchecked(reader)?, writer))
}

/// What a program reads: nothing, or a pipe that holds the input. What does not fit into the pipe is left to be written.
fn input(text: Option<String>) -> std::io::Result<(Option<Unwritten>, OwnedFd)> {
    let Some(text) = text else { return Ok((None, File::open("/dev/null")?.into())) };
    let (reader, writer) = nonblocking_pipe()?;
    make_blocking(&reader)?;
    let mut rest = text.into_bytes();
    let written = match nix::unistd::write(&writer, &rest) {
        Ok(written) => written,
        Err(nix::errno::Errno::EAGAIN) => 0,
        Err(error) => return Err(error.into()),
    };
    rest.drain(..written);
    if rest.is_empty() {
        return Ok((None, reader));
    }
    Ok((Some((pipe::Sender::from_owned_fd_unchecked(writer)?, rest)), reader))
}

fn nonblocking_pipe() -> std::io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?)
}

/// For the end that a program gets, which expects to wait.
fn make_blocking(end: &OwnedFd) -> std::io::Result<()> {
    nix::fcntl::fcntl(end, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(())
}

/// There is no working folder for it, or what it needs cannot be put there.
pub fn no_folder(error: &std::io::Error) -> Outcome {
    Outcome::failed("unavailable", format!("the service cannot write the working folder: {error}"))
}

/// It could not be started.
pub fn not_started(reason: &str) -> Outcome {
    Outcome::failed("not_startable", format!("the program could not be started: {reason}"))
}

fn lost() -> Outcome {
    Outcome::interrupted("the launcher of this execution failed")
}
