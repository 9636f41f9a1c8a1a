//! A hundred thousand executions in one process: `cargo test --test it soak:: -- --ignored --nocapture`. What it prints is
//! the measurement; what it asserts is that nothing grows with the number of executions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::json;
use tokio::task::JoinSet;

use crate::program::tool;
use crate::service::{Launch, Service, request};
use crate::socket::Talk;

const EXECUTIONS: usize = 100_000;

/// After how many what is kept warm is there, and memory has its size.
const SETTLED: usize = 10_000;

const WIDTH: usize = 16;

/// Runs executions up to `until`, of each runtime in turn.
async fn run(service: &Service, done: &Arc<AtomicUsize>, until: usize) {
    let texts: Arc<Vec<String>> = Arc::new(
        ["cat", "handler", "measure-json"].iter().map(|id| request("tool", id, json!({}))).collect(),
    );
    let mut workers = JoinSet::new();
    for _ in 0..WIDTH {
        let (address, texts, done) = (service.websocket, texts.clone(), done.clone());
        workers.spawn(async move {
            loop {
                let number = done.fetch_add(1, Ordering::Relaxed);
                if number >= until {
                    return;
                }
                let talk = Talk::hold(address, "/tool", &texts[number % texts.len()]).await.unwrap();
                assert!(talk.output().is_object(), "{:?}", talk.frames);
            }
        });
    }
    workers.join_all().await;
    done.store(until, Ordering::Relaxed);
}

/// Resident memory in KiB, and open descriptors.
fn held(service: &Service) -> (u64, usize) {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", service.pid())).unwrap().count();
    (service.resident_kib(), descriptors)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a soak of some minutes"]
async fn a_hundred_thousand_executions_leave_memory_and_descriptors_as_they_were() {
    let mut launch = Launch::new().memory();
    for runtime in ["BINARY", "PYTHON", "WASM"] {
        launch = launch.set(&format!("POOLS__{runtime}__MIN"), 4).set(&format!("POOLS__{runtime}__MAX"), 4);
    }
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("handler.py"), "def handler(input):\n    return {}\n").unwrap();
    let service = launch.set("ARTIFACTS__ROOTS", json!([root.path()])).start().await;
    service.create(&tool("cat", json!({ "runtime": "binary", "entrypoint": "/bin/cat" }))).await;
    service.create(&tool("handler", json!({ "source_url": "handler.py" }))).await;
    let (done, start) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    run(&service, &done, SETTLED).await;
    let (before, descriptors) = held(&service);
    println!("after {SETTLED:>6}: {before} KiB resident, {descriptors} descriptors");
    for step in 1..=9 {
        run(&service, &done, SETTLED + step * (EXECUTIONS - SETTLED) / 9).await;
        let (resident, open) = held(&service);
        let count = done.load(Ordering::Relaxed);
        println!(
            "after {count:>6}: {resident} KiB resident, {open} descriptors, {:.0} s",
            start.elapsed().as_secs_f64()
        );
    }
    let (after, open) = held(&service);
    assert!(after < before + 10 * 1024, "memory grew from {before} to {after} KiB");
    assert!(open <= descriptors, "descriptors grew from {descriptors} to {open}");
}
