//! The clock of running guests: a thread that advances wasmtime's epoch once each millisecond while anything runs,
//! and sleeps while nothing does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::EngineWeak;

/// Between two ticks.
pub const TICK: Duration = Duration::from_millis(1);

/// How many ticks it goes on after the last guest ended: waking the thread for each of many quick calls would cost
/// more than they do.
const LINGER: u32 = 50;

/// The clock; its thread ends with it.
#[derive(Debug)]
pub struct Ticker {
    state: Arc<State>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct State {
    running: AtomicUsize,
    is_parked: AtomicBool,
    is_over: AtomicBool,
}

/// While one of these lives, the clock ticks.
#[derive(Debug)]
pub struct Running(Arc<Ticker>);

impl Ticker {
    /// Starts the clock of this engine, which it does not keep alive.
    ///
    /// # Errors
    /// When there can be no other thread.
    pub fn start(engine: EngineWeak) -> std::io::Result<Arc<Self>> {
        let state = Arc::<State>::default();
        let shared = state.clone();
        let name = "wasm-ticker".to_owned();
        let handle = thread::Builder::new().name(name).spawn(move || shared.tick(&engine))?;
        Ok(Arc::new(Self { state, thread: handle.thread().clone() }))
    }

    /// A guest begins to run.
    pub fn running(self: &Arc<Self>) -> Running {
        // Counted first and looked at second, as the thread does it the other way round: one of the two sees the other.
        self.state.running.fetch_add(1, Ordering::SeqCst);
        if self.state.is_parked.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(self.clone())
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.state.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl State {
    fn tick(&self, engine: &EngineWeak) {
        let mut idle = 0;
        while !self.is_over.load(Ordering::SeqCst) {
            thread::sleep(TICK);
            let Some(engine) = engine.upgrade() else { return };
            engine.increment_epoch();
            idle = if self.is_idle() { idle + 1 } else { 0 };
            if idle == LINGER {
                drop(engine);
                self.park();
                idle = 0;
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.running.load(Ordering::SeqCst) == 0
    }

    fn park(&self) {
        self.is_parked.store(true, Ordering::SeqCst);
        while self.is_idle() && !self.is_over.load(Ordering::SeqCst) {
            thread::park();
        }
        self.is_parked.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(what: impl Fn() -> bool) {
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while !what() {
            assert!(std::time::Instant::now() < end, "it takes too long");
            thread::yield_now();
        }
    }

    #[test]
    fn it_sleeps_while_nothing_runs_wakes_when_something_does_and_ends_with_its_engine() {
        let engine = wasmtime::Engine::default();
        let ticker = Ticker::start(engine.weak()).expect("a thread");
        let state = ticker.state.clone();
        until(|| state.is_parked.load(Ordering::SeqCst));
        let running = ticker.running();
        until(|| !state.is_parked.load(Ordering::SeqCst));
        drop(running);
        until(|| state.is_parked.load(Ordering::SeqCst));
        drop(ticker);
        // The thread holds the only other reference.
        until(|| Arc::strong_count(&state) == 1);
    }
}
