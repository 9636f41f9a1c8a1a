//! What the store keeps of executions: each as it was accepted, the revision that it runs, that it was begun, and how it
//! ended. Records are only added, and removed when they are old. An output that is large is a file, and its record names it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use surrealdb::types::{Object, RecordId, SurrealValue};
use tokio::sync::MutexGuard;
use uuid::Uuid;

use super::{Outputs, Store, StoreError};
use crate::compiled::Compiled;
use crate::execution::{Key, Progress, Snapshot};
use crate::journal::{Record, Recovered};

mod rows;
#[cfg(test)]
mod tests;

use rows::{Attempts, ExecutionRow, KeyRow, OutcomeRow, OutputRow, RevisionRow, Rows, uuid};

/// What holds executions; part of the store's schema.
pub const SCHEMA: &str = "
    DEFINE TABLE IF NOT EXISTS revision SCHEMALESS;
    DEFINE TABLE IF NOT EXISTS execution SCHEMALESS;
    DEFINE TABLE IF NOT EXISTS attempt SCHEMALESS;
    DEFINE TABLE IF NOT EXISTS outcome SCHEMALESS;
    DEFINE TABLE IF NOT EXISTS idempotency SCHEMALESS;
    DEFINE TABLE IF NOT EXISTS output SCHEMALESS;
    DEFINE INDEX IF NOT EXISTS output_hash ON output FIELDS hash;
";

/// How large an output may be that is kept in its record, in bytes; a larger one is a file.
const LARGE: usize = 64 << 10;

/// After how many bytes of inputs and outputs no more executions are read for a page.
const PAGE_BYTES: usize = 16 << 20;

/// How many records are read at a time.
const PAGE: u64 = 5_000;

/// When an execution ended.
#[derive(Debug, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
struct EndRow {
    key: String,
    ended_ms: u64,
}

/// How long the input of an execution is, in characters.
#[derive(Debug, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
struct SizeRow {
    key: String,
    length: u64,
}

impl Store {
    /// Writes all of these or none, and comes back when they are on disk. What is there already stays as it is.
    ///
    /// # Errors
    /// The store erred: the records may or may not be there.
    pub async fn append(&self, records: &[Record], revisions: &[Arc<Compiled>]) -> Result<(), StoreError> {
        let (_turn, files) = self.keep_outputs(records).await?;
        let (sql, bound) = Rows::of(records, revisions, &files).statements();
        self.execute(&sql, bound).await
    }

    /// Writes the large outputs of these to files. The turn is held until their records are written.
    async fn keep_outputs(
        &self,
        records: &[Record],
    ) -> Result<(Option<MutexGuard<'_, ()>>, HashMap<Uuid, String>), StoreError> {
        let mut files = HashMap::new();
        let large: Vec<_> = records.iter().filter_map(large_output).collect();
        let Some(outputs) = self.outputs.as_ref().filter(|_| !large.is_empty()) else {
            return Ok((None, files));
        };
        let turn = outputs.turn().await;
        for (uuid, output) in large {
            let kept = outputs.keep(output.clone()).await;
            let hash =
                kept.map_err(|error| StoreError::Failed(format!("an output cannot be kept: {error}")))?;
            files.insert(uuid, hash);
        }
        Ok((Some(turn), files))
    }

    /// Removes files that no record names: what was left when the service ended between the two. Those that are
    /// left, with their sizes.
    ///
    /// # Errors
    /// The store or the disk erred.
    pub async fn sweep_outputs(&self) -> Result<HashMap<String, u64>, StoreError> {
        let Some(outputs) = &self.outputs else { return Ok(HashMap::new()) };
        let _turn = outputs.turn().await;
        let all = outputs.all().await.map_err(|error| StoreError::Failed(error.to_string()))?;
        let mut left: HashMap<_, _> = all.into_iter().map(|kept| (kept.hash, kept.bytes)).collect();
        let hashes: Vec<String> = left.keys().cloned().collect();
        for some in hashes.chunks(500) {
            for hash in self.remove_unnamed(outputs, some.to_vec()).await? {
                left.remove(&hash);
            }
        }
        Ok(left)
    }

    /// The executions with an output in a file, the oldest first, with its hash.
    ///
    /// # Errors
    /// The store erred.
    pub async fn oldest_outputs(&self, limit: u64) -> Result<Vec<(String, String)>, StoreError> {
        let sql = "SELECT * FROM output ORDER BY id LIMIT $limit";
        let rows: Vec<OutputRow> = self.rows(sql, vec![("limit", limit.into_value())]).await?;
        Ok(rows.into_iter().map(|row| (row.key, row.hash)).collect())
    }

    /// Removes those of these files that no record names, and tells which.
    async fn remove_unnamed(
        &self,
        outputs: &Outputs,
        mut hashes: Vec<String>,
    ) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT VALUE hash FROM output WHERE hash IN $hashes";
        let named: HashSet<String> =
            self.rows(sql, vec![("hashes", hashes.clone().into_value())]).await?.into_iter().collect();
        hashes.retain(|hash| !named.contains(hash));
        for hash in &hashes {
            outputs.remove(hash).await.map_err(|error| StoreError::Failed(error.to_string()))?;
        }
        Ok(hashes)
    }

    /// With its output, where that is a file. Of one that cannot be read, the outcome says so.
    async fn with_output(&self, mut outcome: OutcomeRow) -> OutcomeRow {
        let (Some(hash), Some(outputs)) = (&outcome.about.output_hash, &self.outputs) else {
            return outcome;
        };
        match outputs.read(hash).await {
            Ok(output) => outcome.output = Some(output),
            Err(error) => {
                tracing::error!(uuid = outcome.key, hash, %error, "an output cannot be read");
                outcome.about.code = Some("output_unreadable".into());
                outcome.about.message = Some("the execution succeeded, but its output cannot be read".into());
            }
        }
        outcome
    }

    /// What was accepted and has not ended, in the order of acceptance.
    ///
    /// # Errors
    /// The store erred, or a record cannot be read.
    pub async fn open_executions(&self) -> Result<Recovered, StoreError> {
        let floor = self.floor().await?;
        let before = floor
            .map_or_else(String::new, |floor| Uuid::from_u128(floor.as_u128().saturating_sub(1)).to_string());
        let ended: HashSet<String> = self.all_keys("outcome", &before).await?.into_iter().collect();
        let attempts = Attempts::of_names(self.all_keys("attempt", &before).await?);
        // Most have ended, and their inputs may be large: only what is open is read.
        let mut keys = self.all_keys("execution", &before).await?;
        keys.retain(|key| !ended.contains(key));
        let mut rows: Vec<ExecutionRow> = Vec::with_capacity(keys.len());
        for some in keys.chunks(200) {
            rows.extend(self.recorded(some).await?);
        }
        rows.sort_by_key(|row| row.about.number);
        let revisions = self.revisions(rows.iter().map(|row| row.about.revision.as_str())).await?;
        let last = rows.last().map_or(0, |row| row.about.number);
        let executions = rows.into_iter().map(|row| {
            let attempts = attempts.get(&row.key).copied().unwrap_or_default();
            row.open(&revisions, attempts)
        });
        Ok(Recovered { floor, last, executions: executions.collect::<Result<_, _>>()? })
    }

    /// One execution as it is recorded.
    ///
    /// # Errors
    /// The store erred, or the record cannot be read.
    pub async fn execution(&self, uuid: Uuid) -> Result<Option<Box<Snapshot>>, StoreError> {
        let rows = self.recorded(&[uuid.to_string()]).await?;
        let found = self.with_outcomes(rows, usize::MAX).await?;
        Ok(found.into_iter().next().map(Box::new))
    }

    /// The execution under an idempotency key; none where it is on record that this one could not be taken in.
    ///
    /// # Errors
    /// The store erred, or the record cannot be read.
    pub async fn execution_of(&self, key: &Key) -> Result<Option<Box<Snapshot>>, StoreError> {
        let record = RecordId::new("idempotency", &*key.0).into_value();
        let rows: Vec<KeyRow> = self.rows("SELECT * FROM $record", vec![("record", record)]).await?;
        match rows.first() {
            Some(row) => {
                let found = self.execution(uuid(&row.execution)?).await?;
                let is_unrecorded = |found: &Snapshot| matches!(&found.progress, Progress::Ended(ended) if ended.outcome.is_unrecorded());
                Ok(found.filter(|found| !is_unrecorded(found)))
            }
            None => Ok(None),
        }
    }

    /// Recorded executions, the newest first: those before a uuid, at most so many, and fewer where they are large. There
    /// are none only when there are no more.
    ///
    /// # Errors
    /// The store erred, or a record cannot be read.
    pub async fn executions(&self, before: Option<Uuid>, limit: u64) -> Result<Vec<Snapshot>, StoreError> {
        // A range of records is cut before it is sorted, and cannot be read from its end. So what came after is passed, a
        // microsecond each.
        let before_it = if before.is_some() { "WHERE id < $before" } else { "" };
        let sql = format!(
            "SELECT record::id(id) AS key, length FROM (SELECT id, string::len(input) AS length FROM execution \
             {before_it} ORDER BY id DESC LIMIT $limit)"
        );
        let before = before.map_or_else(String::new, |uuid| uuid.to_string());
        let before = RecordId::new("execution", before).into_value();
        let bound = vec![("before", before), ("limit", limit.into_value())];
        let sizes: Vec<SizeRow> = self.rows(&sql, bound).await?;
        // Only as many as a page has room for, and one at least.
        let mut bytes = 0;
        let fits = |size: &SizeRow| {
            let fits = bytes <= PAGE_BYTES;
            bytes += usize::try_from(size.length).unwrap_or(usize::MAX);
            fits
        };
        let keys: Vec<String> = sizes.into_iter().take_while(fits).map(|size| size.key).collect();
        let mut rows = self.recorded(&keys).await?;
        rows.sort_by(|left, right| right.key.cmp(&left.key));
        self.with_outcomes(rows, PAGE_BYTES).await
    }

    /// The records of these executions.
    async fn recorded(&self, keys: &[String]) -> Result<Vec<ExecutionRow>, StoreError> {
        let records: Vec<_> = keys.iter().map(|key| RecordId::new("execution", key.as_str())).collect();
        let found = self.rows("SELECT * FROM $records", vec![("records", records.into_value())]).await?;
        found.into_iter().map(ExecutionRow::read).collect()
    }

    /// How many outcomes there are.
    ///
    /// # Errors
    /// The store erred.
    pub async fn outcome_count(&self) -> Result<u64, StoreError> {
        let counts: Vec<u64> =
            self.rows("SELECT VALUE count FROM (SELECT count() FROM outcome GROUP ALL)", Vec::new()).await?;
        Ok(counts.first().copied().unwrap_or(0))
    }

    /// The executions that ended, in the order of their uuids and so of their beginnings, with the time of their end.
    ///
    /// # Errors
    /// The store erred.
    pub async fn oldest_outcomes(&self, limit: u64) -> Result<Vec<(String, u64)>, StoreError> {
        // Without their outputs.
        let sql = "SELECT record::id(id) AS key, ended_ms \
                   FROM (SELECT id, ended_ms FROM outcome ORDER BY id LIMIT $limit)";
        let rows: Vec<EndRow> = self.rows(sql, vec![("limit", limit.into_value())]).await?;
        Ok(rows.into_iter().map(|row| (row.key, row.ended_ms)).collect())
    }

    /// Removes all that is recorded of executions that ended.
    ///
    /// # Errors
    /// The store erred; some of it may be gone.
    pub async fn forget(&self, keys: &[String]) -> Result<(), StoreError> {
        let records = |table: &'static str| {
            keys.iter().map(|key| RecordId::new(table, key.as_str())).collect::<Vec<_>>().into_value()
        };
        let sql = "SELECT VALUE idempotency FROM $executions";
        let idempotency: Vec<Option<String>> =
            self.rows(sql, vec![("executions", records("execution"))]).await?;
        let hashes: Vec<String> =
            self.rows("SELECT VALUE hash FROM $outputs", vec![("outputs", records("output"))]).await?;
        let idempotency: Vec<RecordId> =
            idempotency.into_iter().flatten().map(|key| RecordId::new("idempotency", key)).collect();
        let bound = vec![
            ("executions", records("execution")),
            ("outcomes", records("outcome")),
            ("outputs", records("output")),
            ("keys", keys.to_vec().into_value()),
            ("idempotency", idempotency.into_value()),
        ];
        let tables = ["executions", "outcomes", "outputs", "idempotency"];
        let deletes = tables.map(|table| format!("DELETE ${table} RETURN NONE;"));
        // Of attempts, all whose names begin with the key and a colon.
        let attempts = "FOR $key IN $keys { LET $from = $key + ':'; LET $to = $key + ';'; \
                        DELETE type::record('attempt', $from..$to) RETURN NONE };";
        let sql = &format!("BEGIN; {attempts} {} COMMIT;", deletes.join(" "));
        let Some(outputs) = self.outputs.as_ref().filter(|_| !hashes.is_empty()) else {
            return self.execute(sql, bound).await;
        };
        let _turn = outputs.turn().await;
        self.execute(sql, bound).await?;
        self.remove_unnamed(outputs, hashes).await.map(drop)
    }

    async fn floor(&self) -> Result<Option<Uuid>, StoreError> {
        let record = RecordId::new("meta", "journal").into_value();
        let found: Vec<Option<String>> =
            self.rows("SELECT VALUE floor FROM $record", vec![("record", record)]).await?;
        Ok(found.into_iter().flatten().next().and_then(|floor| floor.parse().ok()))
    }

    /// The names of all records of a table after one, read page by page.
    async fn all_keys(&self, table: &str, after: &str) -> Result<Vec<String>, StoreError> {
        let sql = format!("SELECT VALUE record::id(id) FROM type::record('{table}', $after>..) LIMIT $limit");
        let (mut found, mut after) = (Vec::new(), after.to_owned());
        loop {
            let bound = vec![("after", after.into_value()), ("limit", PAGE.into_value())];
            let keys: Vec<String> = self.rows(&sql, bound).await?;
            let is_last = (keys.len() as u64) < PAGE;
            let Some(last) = keys.last() else { return Ok(found) };
            after = last.clone();
            found.extend(keys);
            if is_last {
                return Ok(found);
            }
        }
    }

    async fn revisions<'a>(
        &self,
        keys: impl Iterator<Item = &'a str>,
    ) -> Result<HashMap<String, Arc<Compiled>>, StoreError> {
        let keys: HashSet<&str> = keys.collect();
        let records: Vec<RecordId> = keys.into_iter().map(|key| RecordId::new("revision", key)).collect();
        let mut found = HashMap::new();
        for some in records.chunks(200) {
            let rows: Vec<RevisionRow> =
                self.rows("SELECT * FROM $records", vec![("records", some.to_vec().into_value())]).await?;
            for row in rows {
                let key = row.key.clone();
                found.insert(key, row.compiled()?);
            }
        }
        Ok(found)
    }

    async fn with_outcomes(
        &self,
        rows: Vec<ExecutionRow>,
        max_bytes: usize,
    ) -> Result<Vec<Snapshot>, StoreError> {
        let records: Vec<RecordId> =
            rows.iter().map(|row| RecordId::new("outcome", row.key.as_str())).collect();
        let found: Vec<Object> =
            self.rows("SELECT * FROM $records", vec![("records", records.into_value())]).await?;
        let mut outcomes = BTreeMap::new();
        for record in found {
            let row = OutcomeRow::read(record)?;
            outcomes.insert(row.key.clone(), row);
        }
        let (mut snapshots, mut bytes) = (Vec::with_capacity(rows.len()), 0);
        for row in rows {
            if bytes > max_bytes {
                break;
            }
            let outcome = match outcomes.remove(&row.key) {
                Some(outcome) => Some(self.with_output(outcome).await),
                None => None,
            };
            bytes +=
                row.input.len() + outcome.as_ref().and_then(|row| row.output.as_ref()).map_or(0, String::len);
            snapshots.push(row.snapshot(outcome)?);
        }
        Ok(snapshots)
    }
}

/// The output that this record is to be written without, and whose it is.
fn large_output(record: &Record) -> Option<(Uuid, &Arc<str>)> {
    let Record::Ended(uuid, ended) = record else { return None };
    let output = ended.outcome.result.as_ref().ok()?;
    (output.len() > LARGE).then_some((*uuid, output))
}
