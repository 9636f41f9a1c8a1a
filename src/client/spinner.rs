//! What a person sees while an execution runs: a spinner, or a bar once there is progress. On stderr
//! and only on a terminal; log lines are printed in any case.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::frame::Progress;
use super::{note, table};

/// What is shown where the end is not known.
pub const SPINNER: &str = "{spinner:.cyan} {elapsed} {wide_msg}";
/// What is shown where it is.
pub const BAR: &str = "{spinner:.cyan} {elapsed} [{bar:24.cyan}] {percent}% {wide_msg}";
const STEPS: u64 = 1_000;

/// A line at the bottom of the terminal, gone when it is dropped.
pub struct Spinner {
    bar: ProgressBar,
    state: String,
}

impl Spinner {
    /// Begins to turn.
    pub fn start(state: String) -> Self {
        let bar = ProgressBar::new_spinner().with_style(style(SPINNER));
        bar.set_message(state.clone());
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, state }
    }

    /// Says what is going on from now on.
    pub fn set_state(&mut self, state: String) {
        self.bar.set_message(state.clone());
        self.state = state;
    }

    /// Prints a line of the log above, and keeps it in sight.
    pub fn log(&self, line: &str) {
        let line = line.trim_end_matches(['\r', '\n']);
        self.bar.suspend(|| note(line));
        self.mention(line);
    }

    /// Shows how far it is.
    pub fn progress(&self, progress: &Progress) {
        if let Some(fraction) = progress.fraction {
            if self.bar.length().is_none() {
                self.bar.set_length(STEPS);
                self.bar.set_style(style(BAR));
            }
            // Between 0 and STEPS, since the fraction is between 0 and 1.
            self.bar.set_position((fraction * STEPS as f64).round() as u64);
        }
        if let Some(message) = &progress.message {
            self.mention(message);
        }
    }

    /// The news first: it is the end that a narrow terminal loses.
    fn mention(&self, text: &str) {
        self.bar.set_message(format!("{} · {}", table::plain(text), self.state));
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// One of the templates above.
pub fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates above are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        style(SPINNER);
        style(BAR);
    }
}
