//! What is measured, as Prometheus reads it.

use std::collections::BTreeMap;

use serde_json::json;

use crate::program::{shell, tool};
use crate::service::Launch;

/// Every sample by its name and labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?} is no sample"));
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line:?} has no number")))
        })
        .collect()
}

#[tokio::test]
async fn what_was_done_is_counted_and_timed() {
    let service = Launch::new().executors(2).start().await;
    service.create(&tool("good", shell("printf 1"))).await;
    service.create(&tool("bad", shell("exit 3"))).await;
    for (tool, times) in [("good", 5), ("bad", 3)] {
        for _ in 0..times {
            service.run("tool", tool, json!({})).await;
        }
    }
    let (status, text) = service.rest_text("GET", "/metrics", "").await;
    assert_eq!(status, 200, "{text}");
    let samples = samples(&text);
    let value = |name: &str| *samples.get(name).unwrap_or_else(|| panic!("{name} is not in\n{text}"));
    assert_eq!(value(r#"executions_accepted_total{kind="tool"}"#), 8.0);
    assert_eq!(value(r#"executions_ended_total{kind="tool",id="good",state="succeeded"}"#), 5.0);
    assert_eq!(value(r#"executions_ended_total{kind="tool",id="bad",state="failed"}"#), 3.0);
    for stage in ["accept", "queue", "run", "end"] {
        assert_eq!(value(&format!(r#"execution_stage_seconds_count{{stage="{stage}"}}"#)), 8.0, "{text}");
    }
    assert!(value("journal_batch_records_sum") >= 16.0, "each was accepted and ended\n{text}");
    assert!(value("journal_commit_seconds_sum") > 0.0);
    assert_eq!(value(r#"queue_depth{runtime="binary"}"#), 0.0);
    assert_eq!(value(r#"pool_executors{runtime="binary"}"#), 2.0);
    assert_eq!(value(r#"actor_restarts{part="dispatcher"}"#), 0.0);
    assert!(value("store_bytes") > 0.0 && value("process_resident_memory_bytes") > 1e6, "{text}");
}
