//! Large outputs: files beside the store, kept once, read back after a crash, and forgotten when they take too much room.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::durable::killed;
use crate::program::tool;
use crate::service::{Launch, PATIENCE, Service};

/// How large the outputs are: more than a record takes.
const BYTES: usize = 100_000;

/// Prints that many times a letter.
async fn create(service: &Service) {
    let script = format!("head -c {BYTES} /dev/zero | tr '\\0' \"$1\"");
    let metadata = json!({
        "runtime": "binary", "entrypoint": "sh", "args": ["-c", script, "sh", "{{letter}}"], "output": "text",
    });
    service.create(&tool("large", metadata)).await;
}

async fn print(service: &Service, letter: char) -> String {
    let body = json!({ "letter": letter.to_string() }).to_string();
    let (status, answer) = service.rest("POST", "/tool/large/execute?wait=20", &body).await;
    assert_eq!(status, 200, "{answer}");
    answer["data"]["uuid"].as_str().unwrap().to_owned()
}

async fn output(service: &Service, uuid: &str) -> Value {
    service.rest("GET", &format!("/execution/{uuid}"), "").await.1["data"]["output"]["stdout"].clone()
}

fn files(service: &Service) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(service.path("data/outputs")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn a_large_output_is_kept_once_and_survives() {
    let service = Launch::new().start().await;
    create(&service).await;
    let (first, second) = (print(&service, 'a').await, print(&service, 'a').await);
    print(&service, 'b').await;
    assert_eq!(files(&service).len(), 2, "equal outputs are one file");
    let (service, _) = killed(service).await;
    let expected = Value::from("a".repeat(BYTES));
    for uuid in [&first, &second] {
        assert!(output(&service, uuid).await == expected, "the output of {uuid} came back");
    }
    let (_, page) = service.rest("GET", "/executions?limit=3", "").await;
    assert_eq!(page["data"].as_array().unwrap().len(), 3);
    // What the disk lost is told as what it is.
    for file in files(&service) {
        std::fs::write(file, "damaged").unwrap();
    }
    let (status, answer) = service.rest("GET", &format!("/execution/{first}"), "").await;
    let told = (&answer["data"]["state"], &answer["data"]["code"]);
    assert_eq!((status, told), (200, (&json!("succeeded"), &json!("output_unreadable"))), "{answer}");
}

#[tokio::test]
async fn large_outputs_are_forgotten_when_they_take_too_much_room() {
    let launch = Launch::new().set("JOURNAL__KEEP_OUTPUT_MB", 1).set("JOURNAL__SWEEP_MS", 50);
    let service = launch.start().await;
    create(&service).await;
    // Left by a crash between a file and its record.
    let mut last = print(&service, 'a').await;
    std::fs::write(service.path("data/outputs/orphan"), "x").unwrap();
    for letter in 'b'..='z' {
        last = print(&service, letter).await;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = files(&service);
        let bytes: u64 = left.iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum();
        let has_orphan = left.iter().any(|file| file.ends_with("orphan"));
        if bytes <= 1 << 20 && !has_orphan {
            assert!(!left.is_empty(), "the newest stay");
            break;
        }
        assert!(Instant::now() < deadline, "{bytes} bytes are left in {} files", left.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(output(&service, &last).await == "z".repeat(BYTES), "the newest is there");
    let (_, page) = service.rest("GET", "/executions?limit=1000", "").await;
    let left = page["data"].as_array().unwrap().len();
    assert!((1..=20).contains(&left), "{left} executions are left");
}
