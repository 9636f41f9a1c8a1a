//! How often a child may fail, and how long its parent waits before it tries again. Pure: the time is given.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Restart intensity: so many failures within a window are borne, one more is not.
#[derive(Debug)]
pub struct Intensity {
    allowed: usize,
    window: Duration,
    failures: VecDeque<Instant>,
}

/// What a supervisor does about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start a new one at once.
    Restart,
    /// The child cannot be kept alive; whoever depends on it must know.
    GiveUp,
}

impl Intensity {
    /// Bears `allowed` failures within `window`.
    pub fn new(allowed: usize, window: Duration) -> Self {
        Self { allowed, window, failures: VecDeque::new() }
    }

    /// Five failures in ten seconds are borne; the sixth ends the process.
    pub fn of_the_root() -> Self {
        Self::new(5, Duration::from_secs(10))
    }

    /// Counts a failure.
    pub fn record(&mut self, now: Instant) -> Verdict {
        while self.failures.front().is_some_and(|first| now.duration_since(*first) >= self.window) {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        if self.failures.len() > self.allowed { Verdict::GiveUp } else { Verdict::Restart }
    }
}

/// Restarts at once for the first failures in a row, then after a delay that doubles up to a bound. A row is broken
/// by work that was done, or by ten seconds without a failure.
#[derive(Debug, Default)]
pub struct Backoff {
    in_a_row: u32,
    last: Option<Instant>,
}

impl Backoff {
    const AT_ONCE: u32 = 5;
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);
    const QUIET: Duration = Duration::from_secs(10);

    /// Counts a failure and tells how long to wait before the next start.
    pub fn next_delay(&mut self, now: Instant) -> Duration {
        if self.last.is_some_and(|last| now.duration_since(last) >= Self::QUIET) {
            self.in_a_row = 0;
        }
        self.last = Some(now);
        self.in_a_row = self.in_a_row.saturating_add(1);
        match self.in_a_row.checked_sub(Self::AT_ONCE + 1) {
            None => Duration::ZERO,
            Some(late) => Self::LONGEST.min(Self::FIRST * 2_u32.pow(late.min(10))),
        }
    }

    /// A child did its work: the row is broken.
    pub fn succeeded(&mut self) {
        self.in_a_row = 0;
    }

    /// Whether restarts are being delayed.
    pub fn is_degraded(&self) -> bool {
        self.in_a_row > Self::AT_ONCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixth_failure_within_the_window_is_not_borne() {
        let start = Instant::now();
        let mut intensity = Intensity::of_the_root();
        for second in 0..5 {
            assert_eq!(intensity.record(start + Duration::from_secs(second)), Verdict::Restart);
        }
        assert_eq!(intensity.record(start + Duration::from_secs(9)), Verdict::GiveUp);
    }

    #[test]
    fn failures_older_than_the_window_are_forgotten() {
        let start = Instant::now();
        let mut intensity = Intensity::of_the_root();
        for failure in 0..100 {
            assert_eq!(intensity.record(start + Duration::from_secs(2) * failure), Verdict::Restart);
        }
    }

    #[test]
    fn five_in_a_row_restart_at_once_and_then_the_delay_doubles_to_its_bound() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        let delays: Vec<u128> = (0..13).map(|_| backoff.next_delay(now).as_millis()).collect();
        assert_eq!(delays, [0, 0, 0, 0, 0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert!(backoff.is_degraded());
        backoff.succeeded();
        assert!(!backoff.is_degraded());
        assert_eq!(backoff.next_delay(now), Duration::ZERO);
    }

    #[test]
    fn ten_quiet_seconds_break_a_row() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        for failure in 0..100 {
            assert_eq!(backoff.next_delay(start + Duration::from_secs(10) * failure), Duration::ZERO);
        }
    }
}
