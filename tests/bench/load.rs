//! Load: how often something is done in a second, and how long it takes.

pub mod http;
pub mod many;
pub mod websocket;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::task::JoinSet;

/// How many requests of an open loop may be under way; more say that the rate cannot be kept.
const MOST_OPEN: usize = 4_096;

/// Repeats `work` in `width` tasks for a turn: how often it was done in a second.
pub async fn rate<F>(
    width: usize,
    turn: Duration,
    work: impl Fn() -> F + Send + Sync + 'static,
) -> Result<f64>
where
    F: Future<Output = Result<()>> + Send,
{
    let (work, done, start) = (Arc::new(work), Arc::new(AtomicU64::new(0)), Instant::now());
    let mut tasks = JoinSet::new();
    for _ in 0..width {
        let (work, done) = (work.clone(), done.clone());
        tasks.spawn(async move {
            while start.elapsed() < turn {
                work().await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    all(tasks).await?;
    Ok(done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
}

/// Waits for all of them, or for the first that fails.
pub async fn all<T: 'static>(mut tasks: JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut results = Vec::new();
    while let Some(result) = tasks.join_next().await {
        results.push(result??);
    }
    Ok(results)
}

/// How long each of a number of calls took, sorted.
pub struct Took(Vec<Duration>);

impl Took {
    /// In milliseconds: what this part of the calls stayed below.
    pub fn quantile(&self, part: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * part) as usize).map_or(f64::NAN, |took| took.as_secs_f64() * 1_000.0)
    }
}

impl From<Vec<Duration>> for Took {
    fn from(mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        Self(took)
    }
}

/// One client, one call after the other.
pub async fn closed_loop(turn: Duration, mut work: impl AsyncFnMut() -> Result<()>) -> Result<Took> {
    let (start, mut took) = (Instant::now(), Vec::new());
    while took.is_empty() || start.elapsed() < turn {
        let began = Instant::now();
        work().await?;
        took.push(began.elapsed());
    }
    Ok(took.into())
}

/// Calls at evenly spaced moments, whether or not earlier ones have ended. Each is timed from the moment at which it was
/// meant to begin, so that one that comes late because of those before it counts as slow.
pub async fn open_loop<F>(per_second: f64, turn: Duration, work: impl Fn() -> F) -> Result<Took>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (moments, mut begin) = tokio::sync::mpsc::unbounded_channel();
    // The timer of the runtime is too coarse.
    let pace = std::thread::spawn(move || {
        let start = Instant::now();
        for number in 0..(per_second * turn.as_secs_f64()) as u32 {
            let moment = start + Duration::from_secs_f64(f64::from(number) / per_second);
            std::thread::sleep(moment.saturating_duration_since(Instant::now()));
            if moments.send(moment).is_err() {
                return;
            }
        }
    });
    let mut tasks = JoinSet::new();
    let mut took = Vec::new();
    while let Some(moment) = begin.recv().await {
        while let Some(ended) = tasks.try_join_next() {
            took.push(Result::flatten(ended.map_err(anyhow::Error::from))?);
        }
        ensure!(tasks.len() < MOST_OPEN, "{MOST_OPEN} calls are under way at {per_second:.0}/s");
        let call = work();
        tasks.spawn(async move { call.await.map(|()| moment.elapsed()) });
    }
    took.extend(all(tasks).await?);
    let _ = pace.join();
    Ok(took.into())
}
