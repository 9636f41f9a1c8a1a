//! What a service holds of the machine: processes, descriptors, folders.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::service::Service;

/// How long sockets and folders may take to go.
const SETTLING: Duration = Duration::from_secs(2);

/// A count at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// Children of children included, and the dead that nobody reaped.
    processes: usize,
    descriptors: usize,
    /// Working folders of executors, with all that is in them.
    folders: usize,
}

impl Census {
    /// A count that did not change for a while. `run` is where working folders are made.
    pub async fn settled(service: &Service, run: &Path) -> Self {
        let deadline = Instant::now() + SETTLING;
        let mut last = Self::take(service, run);
        let mut same = 0;
        while same < 5 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let next = Self::take(service, run);
            same = if next == last { same + 1 } else { 0 };
            last = next;
        }
        last
    }

    fn take(service: &Service, run: &Path) -> Self {
        Self {
            processes: descendants(service.pid()).len(),
            descriptors: entries(Path::new(&format!("/proc/{}/fd", service.pid()))),
            folders: below(run),
        }
    }

    /// Asserts that nothing is left of an execution beyond this count.
    pub async fn assert_restored(self, service: &Service, run: &Path, uuid: Option<&str>) {
        let deadline = Instant::now() + SETTLING;
        loop {
            let now = Self::take(service, run);
            let left = uuid.map(processes_of).unwrap_or_default();
            if left.is_empty() && now.within(self) {
                return;
            }
            let seen = describe(descendants(service.pid()).iter().chain(&left));
            let late = Instant::now() > deadline;
            assert!(!late, "before {self:?}, after {now:?}, left {left:?}{seen}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn within(self, before: Self) -> bool {
        self.processes <= before.processes
            && self.descriptors <= before.descriptors
            && self.folders <= before.folders
    }
}

/// The processes that run for an execution, told by their environment.
pub fn processes_of(uuid: &str) -> Vec<u32> {
    processes_with("ORG_EXECUTION", uuid)
}

/// The processes that have this variable in their environment.
pub fn processes_with(name: &str, value: &str) -> Vec<u32> {
    let mark = format!("{name}={value}");
    let has_it = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    all_processes().into_iter().filter(has_it).collect()
}

fn descendants(ancestor: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> =
        all_processes().into_iter().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|p| p.1 == parent).map(|p| p.0));
        next += 1;
    }
    found.split_off(1)
}

fn all_processes() -> Vec<u32> {
    let names = fs::read_dir("/proc").unwrap().flatten();
    names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in brackets and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

fn below(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| 1 + if entry.path().is_symlink() { 0 } else { below(&entry.path()) }).sum()
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

fn describe<'a>(pids: impl Iterator<Item = &'a u32>) -> String {
    let line = |pid: &u32| {
        let command = fs::read(PathBuf::from(format!("/proc/{pid}/cmdline"))).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        format!("\n  {pid} {command}")
    };
    pids.map(line).collect()
}
