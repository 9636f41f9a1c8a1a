//! What is forgotten: executions that ended long ago, and the oldest where there are too many.

use crate::execution::now_ms;
use crate::registry::{Lease, StoreError};
use crate::settings::JournalSettings;

/// How many are forgotten in one commit: others write between two.
const BATCH: u64 = 500;

/// Forgets what the settings say. How many those were.
///
/// # Errors
/// The store erred; the rest is tried at the next time.
pub async fn sweep(lease: &Lease, settings: &JournalSettings) -> Result<u64, StoreError> {
    let oldest_ms = now_ms().saturating_sub(settings.keep_hours.saturating_mul(3_600_000));
    let (mut count, mut forgotten) = (lease.outcome_count().await?, 0);
    loop {
        let outcomes = lease.oldest_outcomes(BATCH).await?;
        let surplus = count.saturating_sub(settings.keep_count);
        let keys: Vec<String> = (0..)
            .zip(outcomes)
            .filter(|(place, (_, ended_ms))| *place < surplus || *ended_ms < oldest_ms)
            .map(|(_, (key, _))| key)
            .collect();
        if keys.is_empty() {
            return Ok(forgotten);
        }
        lease.forget(&keys).await?;
        forgotten += keys.len() as u64;
        count = count.saturating_sub(keys.len() as u64);
        tokio::task::yield_now().await;
    }
}
