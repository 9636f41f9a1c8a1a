//! What a launcher that was killed leaves: its programs become children of this process, which is subreaper to all that
//! it starts, and are ended.

use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// Between two looks at the orphans.
const PAUSE: Duration = Duration::from_millis(250);

/// Processes that were children of this one before it was the service (`sidecar & exec org-executor`).
static INHERITED: OnceLock<Vec<i32>> = OnceLock::new();

/// Makes orphans children of this process, and ends them from now on. Must be called once, before anything is
/// started.
pub fn adopt_orphans() {
    INHERITED.get_or_init(children);
    if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
        tracing::warn!(%error, "what a launcher that was killed leaves cannot be ended on this machine");
        return;
    }
    tokio::spawn(async {
        loop {
            tokio::time::sleep(PAUSE).await;
            sweep();
        }
    });
}

/// Ends and reaps the orphans there are. In a container of its own the service is process 1, to which strangers'
/// orphans come as well: those are only reaped.
fn sweep() {
    for pid in orphans().into_iter().map(Pid::from_raw) {
        if std::process::id() != 1 {
            let _ = kill(pid, Signal::SIGKILL);
        }
        let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
    }
}

/// Orphans come to the main thread. What this process starts itself is started from the runtime's threads.
fn orphans() -> Vec<i32> {
    let inherited = INHERITED.get().map_or(&[][..], Vec::as_slice);
    children().into_iter().filter(|pid| !inherited.contains(pid)).collect()
}

/// The children of the main thread. A kernel without this file has no orphans that could be told from others.
fn children() -> Vec<i32> {
    let me = std::process::id();
    let list = fs::read_to_string(format!("/proc/self/task/{me}/children")).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
