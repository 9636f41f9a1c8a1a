//! `/metrics`, in the form that Prometheus reads.

use std::sync::OnceLock;
use std::time::Duration;

use actors::measures;
use actors::system::System;
use anyhow::{Context, Result};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use poem::Response;

use crate::accept;

/// The upper ends of the buckets of times, in seconds.
const SECONDS: [f64; 14] =
    [0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0];

/// The upper ends of the buckets of a batch's size.
const RECORDS: [f64; 8] = [1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 500.0, 2_000.0];

/// How often what was measured is taken into the buckets, so that it takes no room until somebody asks.
const UPKEEP: Duration = Duration::from_secs(5);

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Begins to measure.
///
/// # Errors
/// Something else in this process measures already.
pub fn install() -> Result<()> {
    let suffix = |suffix: &str| Matcher::Suffix(suffix.to_owned());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(suffix("_seconds"), &SECONDS)
        .and_then(|builder| builder.set_buckets_for_metric(suffix("_records"), &RECORDS))
        .context("the buckets of the metrics")?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).context("the metrics cannot be recorded")?;
    measures::describe();
    accept::describe();
    let handle = RECORDER.get_or_init(|| handle).clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            handle.run_upkeep();
        }
    });
    Ok(())
}

/// All that was measured until now.
pub async fn render(system: &System) -> Response {
    system.measure().await;
    let text = RECORDER.get().map_or_else(String::new, PrometheusHandle::render);
    Response::builder().content_type("text/plain; version=0.0.4; charset=utf-8").body(text)
}
