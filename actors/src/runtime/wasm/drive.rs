//! Runs a guest to its end without ever keeping a worker of the service: a quick one ends where it began, one that
//! has used up its first ticks or has much memory goes on in a thread where it may take its time.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::host::Yielded;
use super::streams::Log;
use super::ticker::Running;
use crate::execution::Outcome;
use crate::runtime::lines::Lines;
use crate::runtime::stop::Stop;

/// How long a guest that was told to end may take: it looks at each tick, but not within one long copy of memory.
const END: Duration = Duration::from_millis(500);

/// A guest on its way; it owns its store. Dropping it ends it.
pub type Guest<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a guest runs under.
pub struct Drive<'a, 'lines> {
    /// The clock.
    pub running: Running,
    /// Whether it has used up its first ticks, or is large.
    pub yielded: Yielded,
    /// What it prints besides its output.
    pub log: Log,
    /// Where that goes.
    pub lines: &'a mut Lines<'lines>,
    /// When it has to end.
    pub stop: &'a mut Stop,
}

impl Drive<'_, '_> {
    /// Runs the guest to its end, and its log with it.
    ///
    /// # Errors
    /// The outcome, where it had to end before: the guest is gone then.
    pub async fn until_end<T: Send + 'static>(mut self, guest: Guest<T>) -> Result<T, Outcome> {
        let log = self.log.clone();
        let begun = if self.yielded.get() { Ok(Progress::Yielded(guest)) } else { self.begin(guest).await };
        let ended = match begun {
            Ok(Progress::Ended(ended)) => Ok(ended),
            Ok(Progress::Yielded(guest)) => {
                Thread::start(guest, self.running).until_end(&log, self.lines, self.stop).await
            }
            Err(outcome) => Err(outcome),
        };
        self.lines.write(&log.read());
        self.lines.finish();
        ended
    }

    /// Runs it here, until it ends or has used up its first ticks.
    async fn begin<T>(&mut self, mut guest: Guest<T>) -> Result<Progress<T>, Outcome> {
        loop {
            let turn = poll_fn(|context| match guest.as_mut().poll(context) {
                Poll::Ready(ended) => Poll::Ready(Some(ended)),
                Poll::Pending if self.yielded.get() => Poll::Ready(None),
                // It waits for WASI.
                Poll::Pending => Poll::Pending,
            });
            tokio::select! {
                biased;
                ended = turn => break Ok(ended.map_or_else(|| Progress::Yielded(guest), Progress::Ended)),
                outcome = self.stop.reached() => break Err(outcome),
                () = self.log.written() => self.lines.write(&self.log.read()),
            }
        }
    }
}

enum Progress<T> {
    Ended(T),
    Yielded(Guest<T>),
}

/// A guest in a thread of its own.
struct Thread<T> {
    /// When this goes, the guest ends at its next tick.
    alive: oneshot::Sender<()>,
    handle: JoinHandle<Option<T>>,
}

impl<T: Send + 'static> Thread<T> {
    fn start(guest: Guest<T>, running: Running) -> Self {
        let (alive, gone) = oneshot::channel::<()>();
        let runtime = Handle::current();
        let handle = tokio::task::spawn_blocking(move || {
            // The clock must tick until the guest is gone: it looks around at ticks only.
            let _running = running;
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = gone => None,
                    ended = guest => Some(ended),
                }
            })
        });
        Self { alive, handle }
    }

    async fn until_end(mut self, log: &Log, lines: &mut Lines<'_>, stop: &mut Stop) -> Result<T, Outcome> {
        loop {
            tokio::select! {
                biased;
                ended = &mut self.handle => return ended_as(ended),
                outcome = stop.reached() => {
                    drop(self.alive);
                    if tokio::time::timeout(END, self.handle).await.is_err() {
                        tracing::warn!("a WebAssembly guest that was told to end still runs");
                    }
                    return Err(outcome);
                }
                () = log.written() => lines.write(&log.read()),
            }
        }
    }
}

fn ended_as<T>(ended: Result<Option<T>, tokio::task::JoinError>) -> Result<T, Outcome> {
    match ended {
        Ok(Some(ended)) => Ok(ended),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Nobody told it to end, so that the service itself ends.
        Ok(None) | Err(_) => Err(Outcome::interrupted("the service is ending")),
    }
}
