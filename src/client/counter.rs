//! What a person sees while many definitions go in or out: how many, how fast, how many failed, and a bar
//! where the end is known. On stderr and only on a terminal.

use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar};

use super::spinner::{BAR, SPINNER, style};

/// How often the numbers change; more than that nobody can read.
const PAUSE: Duration = Duration::from_millis(100);

/// A line at the bottom of the terminal, gone when it is dropped.
pub struct Counter {
    bar: ProgressBar,
    begun: Instant,
    told: Option<Instant>,
}

impl Counter {
    /// Begins to count; towards `total`, where the end is known.
    pub fn start(total: Option<u64>) -> Self {
        let bar = match total.filter(|total| *total > 0) {
            Some(total) => ProgressBar::new(total).with_style(style(BAR)),
            None => ProgressBar::new_spinner().with_style(style(SPINNER)),
        };
        bar.enable_steady_tick(PAUSE);
        Self { bar, begun: Instant::now(), told: None }
    }

    /// Counts for nobody: what is counted goes to the terminal itself.
    pub fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), begun: Instant::now(), told: None }
    }

    /// Shows how many are done, and how far on the way to the total that is.
    pub fn show(&mut self, done: u64, failed: u64, position: u64) {
        if self.told.is_some_and(|told| told.elapsed() < PAUSE) {
            return;
        }
        self.told = Some(Instant::now());
        self.bar.set_message(message(done, failed, self.begun.elapsed()));
        if self.bar.length().is_some() {
            self.bar.set_position(position);
        }
    }

    /// Does what prints, with the line out of its way.
    pub fn suspend<R>(&self, print: impl FnOnce() -> R) -> R {
        self.bar.suspend(print)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn message(done: u64, failed: u64, elapsed: Duration) -> String {
    // The share of the first moment says nothing about the rate.
    let rate = if elapsed < PAUSE { 0.0 } else { done as f64 / elapsed.as_secs_f64() };
    let mut message = format!("{} definitions, {}/s", HumanCount(done), HumanCount(rate as u64));
    if failed > 0 {
        message.push_str(&format!(", {} failed", HumanCount(failed)));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_the_rate_and_the_failures_are_told() {
        let elapsed = Duration::from_secs(4);
        assert_eq!(message(48_000, 0, elapsed), "48,000 definitions, 12,000/s");
        assert_eq!(message(5, 1_200, elapsed), "5 definitions, 1/s, 1,200 failed");
        assert_eq!(message(1, 0, Duration::ZERO), "1 definitions, 0/s");
    }
}
