//! When a run has to end before it is done.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::execution::Outcome;

/// The two reasons for which a run is ended from outside: its time is over, or it was cancelled.
#[derive(Clone, Debug)]
pub struct Stop {
    timeout: Duration,
    deadline: Instant,
    cancelled: watch::Receiver<bool>,
}

impl Stop {
    /// After `timeout` from now, or once `cancelled` holds true.
    pub fn new(timeout: Duration, cancelled: watch::Receiver<bool>) -> Self {
        Self { timeout, deadline: Instant::now() + timeout, cancelled }
    }

    /// Resolves with the outcome once the run has to end; may be dropped and called again.
    pub async fn reached(&mut self) -> Outcome {
        tokio::select! {
            () = tokio::time::sleep_until(self.deadline) => Outcome::timed_out(self.timeout),
            () = cancelled(&mut self.cancelled) => Outcome::cancelled(),
        }
    }

    /// What `work` gives, or the outcome that came first; `work` is dropped then.
    pub async fn or<T>(&mut self, work: impl Future<Output = Result<T, Outcome>>) -> Result<T, Outcome> {
        tokio::select! {
            biased;
            done = work => done,
            // Work that always has something to read must not use up the turns of the clock.
            outcome = tokio::task::unconstrained(self.reached()) => Err(outcome),
        }
    }
}

async fn cancelled(cancelled: &mut watch::Receiver<bool>) {
    // Without a sender nobody can cancel any more.
    if cancelled.wait_for(|cancelled| *cancelled).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::State;

    #[tokio::test]
    async fn a_run_ends_at_its_timeout_or_when_it_is_cancelled() {
        let (cancel, cancelled) = watch::channel(false);
        let mut short = Stop::new(Duration::from_millis(5), cancelled.clone());
        assert_eq!(short.reached().await.state, State::TimedOut);
        let mut long = Stop::new(Duration::from_secs(60), cancelled);
        assert_eq!(long.or(async { Ok(1) }).await, Ok(1));
        cancel.send_replace(true);
        assert_eq!(long.reached().await.state, State::Cancelled);
        let never = std::future::pending::<Result<(), Outcome>>();
        assert_eq!(long.or(never).await.expect_err("cancelled").state, State::Cancelled);
    }
}
