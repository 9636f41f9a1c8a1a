//! The bounds of one run: what its definition asks for, within what the configuration allows.

use std::time::Duration;

use crate::execution::{Job, Outcome};
use crate::settings::LimitSettings;

/// The bounds of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How long it may run.
    pub timeout: Duration,
    /// How much it may put out.
    pub output_bytes: usize,
    /// How much memory it may hold, with all that it started.
    pub memory_bytes: u64,
    /// How much processor time it may use; none where only the timeout bounds it.
    pub cpu: Option<Duration>,
    /// How many processes and threads it may have at one time.
    pub processes: u64,
    /// How many files one of its processes may have open.
    pub files: u64,
    /// How much it may write into its working folder.
    pub disk_bytes: u64,
}

const MIB: u64 = 1 << 20;

impl Bounds {
    /// The bounds of this job; a request can only shorten the time.
    pub fn of(job: &Job, limits: &LimitSettings) -> Self {
        let asked = &job.definition.spec.limits;
        let millis = Duration::from_millis;
        let own = asked.timeout.unwrap_or(millis(limits.timeout_ms)).min(millis(limits.max_timeout_ms));
        let bytes = asked.output_bytes.unwrap_or(limits.output_bytes).min(limits.max_output_bytes);
        Self {
            timeout: job.options.timeout.map_or(own, |shorter| shorter.min(own)),
            output_bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            memory_bytes: asked.memory_mb.unwrap_or(limits.memory_mb).min(limits.max_memory_mb) * MIB,
            cpu: asked.cpu,
            processes: asked.processes.unwrap_or(limits.processes).min(limits.max_processes),
            files: asked.files.unwrap_or(limits.files).min(limits.max_files),
            disk_bytes: limits.disk_mb * MIB,
        }
    }

    /// It put out too much.
    pub fn output_too_large(&self) -> Outcome {
        let message = format!("the output is larger than {} bytes", self.output_bytes);
        Outcome::failed("output_too_large", message)
    }

    /// It, with all that it started, held too much memory.
    pub fn memory_exceeded(&self) -> Outcome {
        let message = format!("the execution used more than {} MiB of memory", self.memory_bytes / MIB);
        Outcome::failed("memory_exceeded", message)
    }

    /// It used too much processor time.
    pub fn cpu_exceeded(&self) -> Outcome {
        let allowed = self.cpu.unwrap_or_default().as_millis();
        Outcome::failed(
            "cpu_exceeded",
            format!("the execution used more than {allowed} ms of processor time"),
        )
    }

    /// It had too many processes.
    pub fn processes_exceeded(&self) -> Outcome {
        let message = format!("the execution had more than {} processes and threads", self.processes);
        Outcome::failed("processes_exceeded", message)
    }

    /// One of its processes had as many files open as it may.
    pub fn files_exceeded(&self) -> Outcome {
        Outcome::failed(
            "files_exceeded",
            format!("the execution had {} files open in one process", self.files),
        )
    }

    /// It wrote too much into its working folder.
    pub fn disk_exceeded(&self) -> Outcome {
        let message = format!("the execution wrote more than {} MiB of files", self.disk_bytes / MIB);
        Outcome::failed("disk_exceeded", message)
    }
}
