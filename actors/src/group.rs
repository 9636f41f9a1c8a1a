//! A program that this service starts by itself, not through a launcher, ends with all that stays in its group.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Child;

/// A group of processes, which is ended with this.
#[derive(Debug)]
pub struct Group(Pid);

impl Group {
    /// The group that this child leads, which was not waited for yet, so that its number is nobody else's.
    pub fn of(child: &Child) -> Self {
        Self(Pid::from_raw(child.id().expect("it was not waited for").cast_signed()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}
