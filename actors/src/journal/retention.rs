//! What is forgotten: executions that ended long ago, and the oldest where there are too many or their outputs
//! take too much room.

use crate::dispatcher;
use crate::execution::now_ms;
use crate::names::Names;
use crate::registry::{Lease, StoreError};
use crate::settings::JournalSettings;

/// How many are forgotten in one commit: others write between two.
const BATCH: u64 = 500;

/// Forgets what the settings say, and has the dispatcher forget it. How many those were.
///
/// # Errors
/// The store erred; the rest is tried at the next time.
pub async fn sweep(lease: &Lease, names: &Names, settings: &JournalSettings) -> Result<u64, StoreError> {
    let oldest_ms = now_ms().saturating_sub(settings.keep_hours.saturating_mul(3_600_000));
    let (mut count, mut forgotten) = (lease.outcome_count().await?, 0);
    loop {
        // Those that were accepted first may have ended last: of twice as many, the ones that ended first.
        let mut outcomes = lease.oldest_outcomes(2 * BATCH).await?;
        outcomes.sort_by_key(|(_, ended_ms)| *ended_ms);
        let surplus = count.saturating_sub(settings.keep_count);
        let keys: Vec<String> = (0..BATCH)
            .zip(outcomes)
            .filter(|(place, (_, ended_ms))| *place < surplus || *ended_ms < oldest_ms)
            .map(|(_, (key, _))| key)
            .collect();
        if keys.is_empty() {
            break;
        }
        forget(lease, names, &keys).await?;
        forgotten += keys.len() as u64;
        count = count.saturating_sub(keys.len() as u64);
        tokio::task::yield_now().await;
    }
    Ok(forgotten + make_room(lease, names, settings.keep_output_mb.saturating_mul(1 << 20)).await?)
}

async fn forget(lease: &Lease, names: &Names, keys: &[String]) -> Result<(), StoreError> {
    lease.forget(keys).await?;
    let uuids = keys.iter().filter_map(|key| key.parse().ok()).collect();
    names.tell(&names.dispatcher(), dispatcher::Msg::Forgotten(uuids));
    Ok(())
}

/// Forgets the oldest executions with a large output until these take no more than so many bytes. How many those were.
async fn make_room(lease: &Lease, names: &Names, bytes: u64) -> Result<u64, StoreError> {
    let mut forgotten = 0;
    loop {
        let mut files = lease.sweep_outputs().await?;
        let mut taken: u64 = files.values().sum();
        if taken <= bytes {
            return Ok(forgotten);
        }
        let mut keys = Vec::new();
        for (key, hash) in lease.oldest_outputs(BATCH).await? {
            if taken <= bytes {
                break;
            }
            // Where a later execution has the same output, its file stays for now, and the next round looks again.
            taken -= files.remove(&hash).unwrap_or(0);
            keys.push(key);
        }
        if keys.is_empty() {
            return Ok(forgotten);
        }
        forget(lease, names, &keys).await?;
        forgotten += keys.len() as u64;
        tokio::task::yield_now().await;
    }
}
