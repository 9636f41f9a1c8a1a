//! Looking at what a program uses while it runs: memory, processor time, processes, open files, its folder.
//!
//! A look costs some microseconds for each process, so that it can be had on every machine, without control groups.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::protocol::{Exceeded, Limits};
use super::tree::{self, Stat};

/// How long a program runs before the first look: most have ended by then.
const FIRST: Duration = Duration::from_millis(5);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Between two looks that take long, be it only for want of a processor.
const LONGEST: Duration = Duration::from_millis(200);

/// Looking takes at most this part of the time, up to that pause.
const SHARE: u32 = 20;

/// How long one look asks for what processes share.
const ASKING: Duration = Duration::from_millis(20);

/// For how long no process must have come before it is asked. Each answer may have to wait for a process that holds its
/// memory's lock, as one does that forks, and a bomb of those, which is told by its number, would keep the look waiting for
/// seconds.
const QUIET: Duration = Duration::from_millis(500);

/// While processes come, what they share counts for each: so many times the limit is too much at once, and the limit itself
/// after this time.
const FORKING: u64 = 4;
const TRUST: Duration = Duration::from_secs(2);

/// A file costs at least this much, however little is in it.
const FILE_BYTES: u64 = 4_096;

/// The watch over one program.
pub struct Watch {
    limits: Limits,
    sees_only_its_own: bool,
    next: Instant,
    next_folder: Instant,
    /// What was used before the watch began.
    cpu_before: Duration,
    /// Who was there at the last look that found too much memory held.
    known: HashSet<Pid>,
    /// When somebody was there who had not been there at the look before.
    grew: Instant,
    /// Since when its memory is not told.
    untold: Option<Instant>,
}

impl Watch {
    /// Begins now: what was used before does not count.
    pub fn begin(limits: Limits, sees_only_its_own: bool) -> Self {
        let next = Instant::now() + FIRST;
        let mut watch = Self {
            limits,
            sees_only_its_own,
            next,
            next_folder: next,
            cpu_before: Duration::ZERO,
            known: HashSet::new(),
            grew: next,
            untold: None,
        };
        if watch.limits.cpu_ms.is_some() {
            watch.cpu_before = cpu(&watch.stats());
        }
        watch
    }

    /// When to look.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// The limit that is exceeded now.
    pub fn look(&mut self) -> Option<Exceeded> {
        let start = Instant::now();
        let stats = self.stats();
        let exceeded = self.judge(&stats);
        let end = Instant::now();
        self.next = end + ((end - start) * SHARE).clamp(PAUSE, LONGEST);
        exceeded
    }

    /// The limit that is exceeded by what is left, now that the program itself has ended.
    pub fn look_last(&mut self) -> Option<Exceeded> {
        self.next_folder = Instant::now();
        self.look()
    }

    fn stats(&self) -> Vec<(Pid, Stat)> {
        let processes = tree::processes(self.sees_only_its_own);
        // A bomb is told by its number alone, however large it has grown.
        let readable = usize::try_from(self.limits.processes).unwrap_or(usize::MAX).saturating_add(1);
        let processes = processes.into_iter().take(readable);
        processes.filter_map(|pid| Some((pid, tree::stat(pid)?))).collect()
    }

    fn judge(&mut self, stats: &[(Pid, Stat)]) -> Option<Exceeded> {
        let limits = &self.limits;
        if stats.iter().map(|(_, stat)| stat.threads).sum::<u64>() > limits.processes {
            return Some(Exceeded::Processes);
        }
        if self.holds_too_much(stats) {
            return Some(Exceeded::Memory);
        }
        let limits = &self.limits;
        let used = limits.cpu_ms.map(|allowed| (cpu(stats).saturating_sub(self.cpu_before), allowed));
        if used.is_some_and(|(used, allowed)| used > Duration::from_millis(allowed)) {
            return Some(Exceeded::Cpu);
        }
        if stats.iter().any(|(pid, _)| tree::open_files(*pid) >= limits.files) {
            return Some(Exceeded::Files);
        }
        self.judge_folder()
    }

    /// Whether the processes hold more memory than they may. What several of them share is counted once only where it
    /// matters, since that costs more.
    fn holds_too_much(&mut self, stats: &[(Pid, Stat)]) -> bool {
        let allowed = self.limits.memory_bytes;
        if stats.iter().map(|(_, stat)| stat.resident_bytes).sum::<u64>() <= allowed {
            self.untold = None;
            return false;
        }
        let start = Instant::now();
        let known = std::mem::replace(&mut self.known, stats.iter().map(|(pid, _)| *pid).collect());
        if !self.known.is_subset(&known) {
            self.grew = start;
        }
        let is_trusted = start - *self.untold.get_or_insert(start) < TRUST;
        if stats.len() > 1 && start - self.grew < QUIET {
            let anonymous = stats.iter().filter_map(|(pid, _)| tree::anonymous_bytes(*pid));
            let times = if is_trusted { FORKING } else { 1 };
            return anonymous.sum::<u64>() > allowed.saturating_mul(times);
        }
        let mut held = 0;
        for (pid, _) in stats {
            // Who has let go of its memory since, because it ends, is not counted with what it held before.
            let now = || tree::stat(*pid).map_or(0, |stat| stat.resident_bytes);
            held += tree::proportional_bytes(*pid).unwrap_or_else(now);
            if held > allowed {
                return true;
            }
            if start.elapsed() > ASKING {
                // The next look sees first whether there are too many of them.
                return !is_trusted;
            }
        }
        self.untold = None;
        false
    }

    fn judge_folder(&mut self) -> Option<Exceeded> {
        let folder = self.limits.folder.as_ref()?;
        let start = Instant::now();
        if start < self.next_folder {
            return None;
        }
        let is_full = remaining(Path::new(folder), self.limits.disk_bytes).is_none();
        let end = Instant::now();
        self.next_folder = end + ((end - start) * SHARE).clamp(PAUSE, LONGEST);
        is_full.then_some(Exceeded::Disk)
    }
}

/// Of what lives now, with what it waited for, and of what this process waited for.
fn cpu(stats: &[(Pid, Stat)]) -> Duration {
    stats.iter().map(|(_, stat)| stat.cpu).sum::<Duration>() + tree::ended_children()
}

/// What is left of `bytes` after all that is in the folder; none where that is more.
fn remaining(folder: &Path, mut bytes: u64) -> Option<u64> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // What vanishes meanwhile takes no room.
        let Ok(about) = entry.metadata() else { continue };
        bytes = bytes.checked_sub(FILE_BYTES.max(about.blocks() * 512))?;
        if about.is_dir() {
            bytes = remaining(&entry.path(), bytes)?;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_counts_with_all_that_is_in_it() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(remaining(folder.path(), 0), Some(0));
        fs::create_dir(folder.path().join("inner")).expect("made");
        fs::write(folder.path().join("inner/file"), vec![1; 100_000]).expect("written");
        assert!(remaining(folder.path(), 1 << 20).is_some_and(|left| left < (1 << 20) - 100_000));
        assert_eq!(remaining(folder.path(), 100_000), None);
        // A link to a large file takes no room.
        std::os::unix::fs::symlink("/proc/kcore", folder.path().join("link")).expect("linked");
        assert!(remaining(folder.path(), 1 << 20).is_some());
    }
}
