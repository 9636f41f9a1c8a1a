//! The processes below the launcher, as /proc shows them.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::unistd::{Pid, SysconfVar, sysconf};

/// What `/proc/PID/stat` tells (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Processor time of the process and of the children that it waited for.
    pub cpu: Duration,
    /// Its threads.
    pub threads: u64,
    /// The memory that it holds, shared memory included.
    pub resident_bytes: u64,
}

/// The processes below this one; with a /proc of its own namespace that is all that there are.
pub fn processes(sees_only_its_own: bool) -> Vec<Pid> {
    let me = Pid::this();
    if sees_only_its_own {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw));
        return pids.filter(|pid| *pid != me).collect();
    }
    // /proc/self has the number by which this /proc calls this process.
    let own = fs::read_link("/proc/self").ok().and_then(|link| link.to_str()?.parse().ok());
    let mut found: Vec<i32> = own.map(children).unwrap_or_default();
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(children(pid));
        next += 1;
    }
    found.into_iter().map(Pid::from_raw).collect()
}

fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// What a process uses now; none when it is gone.
pub fn stat(pid: Pid) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads such a line.
fn parse(text: &str) -> Option<Stat> {
    // The command's name may hold anything but ends at the last parenthesis; the field after it is the third.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = number(14)? + number(15)? + number(16)? + number(17)?;
    Some(Stat {
        cpu: Duration::from_nanos(ticks * 1_000_000_000 / setting(SysconfVar::CLK_TCK, 100)),
        threads: number(20)?,
        resident_bytes: number(24)? * page_bytes(),
    })
}

fn page_bytes() -> u64 {
    setting(SysconfVar::PAGE_SIZE, 4_096)
}

/// What the `statm` of a process says of its memory (proc_pid_statm(5)), in bytes: what is resident, and what of it is backed
/// by files or shared.
pub fn parse_statm(text: &str) -> Option<(u64, u64)> {
    let mut bytes = text
        .split_ascii_whitespace()
        .skip(1)
        .map_while(|pages| Some(pages.parse::<u64>().ok()? * page_bytes()));
    Some((bytes.next()?, bytes.next()?))
}

fn setting(name: SysconfVar, usual: u64) -> u64 {
    sysconf(name)
        .ok()
        .flatten()
        .and_then(|value| u64::try_from(value).ok())
        .filter(|value| *value > 0)
        .unwrap_or(usual)
}

/// The memory of a process with its part of what it shares; dearer to ask for than [`stat`].
pub fn proportional_bytes(pid: Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1_024)
}

/// The memory of a process that is backed by no file, with all that it shares with its parent since it was forked
/// (proc_pid_statm(5)). Unlike [`proportional_bytes`] it is told at once.
pub fn anonymous_bytes(pid: Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let (resident, shared) = parse_statm(&text)?;
    Some(resident.saturating_sub(shared))
}

/// How many files a process has open.
pub fn open_files(pid: Pid) -> u64 {
    let folder = format!("/proc/{pid}/fd");
    match fs::metadata(&folder) {
        // Since Linux 6.2 the size tells.
        Ok(about) if about.len() > 0 => about.len(),
        Ok(_) => fs::read_dir(folder).map_or(0, |entries| entries.count() as u64),
        Err(_) => 0,
    }
}

/// The processor time of all ended children that were waited for, with theirs.
pub fn ended_children() -> Duration {
    let duration = |time: TimeVal| {
        let micros = time.tv_sec() * 1_000_000 + time.tv_usec();
        Duration::from_micros(u64::try_from(micros).unwrap_or_default())
    };
    getrusage(UsageWho::RUSAGE_CHILDREN)
        .map_or(Duration::ZERO, |usage| duration(usage.user_time()) + duration(usage.system_time()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_past_a_strange_name() {
        let line = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 5 6 7 8 20 5 3 0 100 2000000 50 184 1 1";
        let stat = parse(line).expect("a stat line");
        let ticks = setting(SysconfVar::CLK_TCK, 100);
        assert_eq!(stat.cpu, Duration::from_nanos(26 * 1_000_000_000 / ticks));
        assert_eq!((stat.threads, stat.resident_bytes), (3, 50 * page_bytes()));
        assert_eq!(parse("7 (a"), None);
    }

    #[test]
    fn this_process_is_seen() {
        let stat = stat(Pid::this()).expect("alive");
        assert!(stat.threads > 0 && stat.resident_bytes > 0);
        assert!(proportional_bytes(Pid::this()).is_none_or(|bytes| bytes > 0));
        assert!(anonymous_bytes(Pid::this()).is_some_and(|bytes| bytes > 0));
        assert!(open_files(Pid::this()) > 0);
    }
}
