//! What the store keeps of executions: each as it was accepted, the revision that it runs, that it was begun, and how it
//! ended. Records are only added, and removed when they are old. An output that is large is a file, and its record names it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use surrealdb::types::{RecordId, SurrealValue};
use tokio::sync::MutexGuard;
use uuid::Uuid;

use super::{Bound, Outputs, Store, StoreError};
use crate::artifacts::Pin;
use crate::compiled::{Compiled, Revision};
use crate::definition::{Definition, Kind};
use crate::execution::{Client, Ended, Failure, Key, Options, Outcome, Progress, Snapshot, State};
use crate::journal::{OpenExecution, Record, Recovered};
use crate::settings::Level;

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

/// How many attempts of one execution may be on record.
const ATTEMPTS: u32 = 8;

/// How large an output may be that is kept in its record, in bytes; a larger one is a file.
const LARGE: usize = 64 << 10;

/// After how many bytes of inputs and outputs no more executions are read for a page.
const PAGE_BYTES: usize = 16 << 20;

/// How many records are read at a time.
const PAGE: u64 = 5_000;

#[derive(Debug, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
struct RevisionRow {
    id: RecordId,
    key: String,
    kind: String,
    definition: String,
    number: u64,
    created_ms: u64,
    pin: Option<String>,
}

#[derive(Debug, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
struct ExecutionRow {
    id: RecordId,
    key: String,
    number: u64,
    kind: String,
    definition: String,
    /// The number of its revision, which `revision` names by what is in it.
    definition_number: Option<u64>,
    revision: String,
    input: String,
    priority: u64,
    timeout_ms: Option<u64>,
    client: String,
    traceparent: Option<String>,
    accepted_ms: u64,
    begun: bool,
    idempotency_key: Option<String>,
    idempotency: Option<String>,
}

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

/// The execution under an idempotency key; its name is a hash of that and of the definition's id.
#[derive(Debug, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
struct KeyRow {
    id: RecordId,
    execution: String,
}

#[derive(Debug, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
struct AttemptRow {
    id: RecordId,
    execution: String,
    number: u64,
}

#[derive(Debug, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
struct OutcomeRow {
    id: RecordId,
    key: String,
    state: String,
    output: Option<String>,
    /// The hash of an output that is a file.
    output_hash: Option<String>,
    code: Option<String>,
    message: Option<String>,
    started_ms: Option<u64>,
    ended_ms: u64,
    attempts: u64,
    sandbox: Option<String>,
    log: Option<String>,
}

/// Which file holds the output of an execution.
#[derive(Debug, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
struct OutputRow {
    id: RecordId,
    key: String,
    hash: String,
}

/// What a batch inserts.
#[derive(Default)]
struct Rows {
    revisions: Vec<RevisionRow>,
    executions: Vec<ExecutionRow>,
    keys: Vec<KeyRow>,
    attempts: Vec<AttemptRow>,
    outcomes: Vec<OutcomeRow>,
    outputs: Vec<OutputRow>,
    floor: Option<String>,
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
        let (Some(hash), Some(outputs)) = (&outcome.output_hash, &self.outputs) else { return outcome };
        match outputs.read(hash).await {
            Ok(output) => outcome.output = Some(output),
            Err(error) => {
                tracing::error!(uuid = outcome.key, hash, %error, "an output cannot be read");
                outcome.code = Some("output_unreadable".into());
                outcome.message = Some("the execution succeeded, but its output cannot be read".into());
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
        let ended: HashSet<String> =
            self.all("SELECT VALUE key FROM", "outcome", &before, Clone::clone).await?.into_iter().collect();
        let mut attempts = HashMap::<String, u32>::new();
        for row in self
            .all::<AttemptRow>("SELECT * FROM", "attempt", &before, |row| {
                format!("{}:{}", row.execution, row.number)
            })
            .await?
        {
            *attempts.entry(row.execution).or_default() += 1;
        }
        // Most have ended, and their inputs may be large: only what is open is read.
        let mut keys: Vec<String> =
            self.all("SELECT VALUE key FROM", "execution", &before, Clone::clone).await?;
        keys.retain(|key| !ended.contains(key));
        let mut rows: Vec<ExecutionRow> = Vec::with_capacity(keys.len());
        for some in keys.chunks(200) {
            rows.extend(self.recorded(some).await?);
        }
        rows.sort_by_key(|row| row.number);
        let revisions = self.revisions(rows.iter().map(|row| row.revision.as_str())).await?;
        let last = rows.last().map_or(0, |row| row.number);
        let executions = rows.into_iter().map(|row| {
            let attempts = attempts.get(&row.key).copied().unwrap_or(0);
            row.open(&revisions, attempts)
        });
        Ok(Recovered { floor, last, executions: executions.collect::<Result<_, _>>()? })
    }

    /// One execution as it is recorded.
    ///
    /// # Errors
    /// The store erred, or the record cannot be read.
    pub async fn execution(&self, uuid: Uuid) -> Result<Option<Box<Snapshot>>, StoreError> {
        let record = RecordId::new("execution", uuid.to_string()).into_value();
        let rows: Vec<ExecutionRow> = self.rows("SELECT * FROM $record", vec![("record", record)]).await?;
        let found = self.with_outcomes(rows, usize::MAX).await?;
        Ok(found.into_iter().next().map(Box::new))
    }

    /// The execution under an idempotency key.
    ///
    /// # Errors
    /// The store erred, or the record cannot be read.
    pub async fn execution_of(&self, key: &Key) -> Result<Option<Box<Snapshot>>, StoreError> {
        let record = RecordId::new("idempotency", &*key.0).into_value();
        let rows: Vec<KeyRow> = self.rows("SELECT * FROM $record", vec![("record", record)]).await?;
        match rows.first() {
            Some(row) => self.execution(uuid(&row.execution)?).await,
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
            "SELECT key, length FROM (SELECT id, key, string::len(input) AS length FROM execution {before_it} \
             ORDER BY id DESC LIMIT $limit)"
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
        self.rows("SELECT * FROM $records", vec![("records", records.into_value())]).await
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
        let sql =
            "SELECT key, ended_ms FROM (SELECT id, key, ended_ms FROM outcome ORDER BY id LIMIT $limit)";
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
        let attempts: Vec<RecordId> = keys
            .iter()
            .flat_map(|key| {
                (1..=ATTEMPTS).map(move |number| RecordId::new("attempt", format!("{key}:{number}")))
            })
            .collect();
        let bound = vec![
            ("executions", records("execution")),
            ("outcomes", records("outcome")),
            ("outputs", records("output")),
            ("attempts", attempts.into_value()),
            ("idempotency", idempotency.into_value()),
        ];
        let tables = ["executions", "attempts", "outcomes", "outputs", "idempotency"];
        let deletes = tables.map(|table| format!("DELETE ${table} RETURN NONE;"));
        let sql = &format!("BEGIN; {} COMMIT;", deletes.join(" "));
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

    /// All records of a table after a key, read page by page.
    async fn all<T: SurrealValue>(
        &self,
        select: &str,
        table: &str,
        after: &str,
        key: impl Fn(&T) -> String,
    ) -> Result<Vec<T>, StoreError> {
        let (mut found, mut after) = (Vec::new(), after.to_owned());
        loop {
            let sql = format!("{select} type::record('{table}', $after>..) LIMIT $limit");
            let bound = vec![("after", after.into_value()), ("limit", PAGE.into_value())];
            let rows: Vec<T> = self.rows(&sql, bound).await?;
            let is_last = (rows.len() as u64) < PAGE;
            let Some(last) = rows.last() else { return Ok(found) };
            after = key(last);
            found.extend(rows);
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
        let outcomes: Vec<OutcomeRow> =
            self.rows("SELECT * FROM $records", vec![("records", records.into_value())]).await?;
        let mut outcomes: BTreeMap<String, OutcomeRow> =
            outcomes.into_iter().map(|row| (row.key.clone(), row)).collect();
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

impl Rows {
    fn of(records: &[Record], revisions: &[Arc<Compiled>], files: &HashMap<Uuid, String>) -> Self {
        let mut rows = Self {
            revisions: revisions.iter().map(|compiled| RevisionRow::of(compiled)).collect(),
            ..Self::default()
        };
        for record in records {
            match record {
                Record::Accepted(accepted) => {
                    let row = ExecutionRow::of(accepted);
                    rows.keys.extend(row.idempotency.as_ref().map(|key| KeyRow {
                        id: RecordId::new("idempotency", key.as_str()),
                        execution: row.key.clone(),
                    }));
                    rows.executions.push(row);
                }
                Record::Attempt(uuid, number) => rows.attempts.push(AttemptRow {
                    id: RecordId::new("attempt", format!("{uuid}:{number}")),
                    execution: uuid.to_string(),
                    number: u64::from(*number),
                }),
                Record::Ended(uuid, ended) => {
                    let file = files.get(uuid).cloned();
                    rows.outputs.extend(file.clone().map(|hash| OutputRow {
                        id: RecordId::new("output", uuid.to_string()),
                        key: uuid.to_string(),
                        hash,
                    }));
                    rows.outcomes.push(OutcomeRow::of(*uuid, ended, file));
                }
                Record::Floor(uuid) => rows.floor = Some(uuid.to_string()),
            }
        }
        rows
    }

    fn statements(self) -> (String, Bound) {
        let (mut statements, mut bound) = (Vec::new(), Vec::new());
        let mut insert = |table: &'static str, is_empty: bool, rows: surrealdb::types::Value| {
            if !is_empty {
                statements.push(format!("INSERT IGNORE INTO {table} ${table} RETURN NONE;"));
                bound.push((table, rows));
            }
        };
        insert("revision", self.revisions.is_empty(), self.revisions.into_value());
        insert("execution", self.executions.is_empty(), self.executions.into_value());
        insert("idempotency", self.keys.is_empty(), self.keys.into_value());
        insert("attempt", self.attempts.is_empty(), self.attempts.into_value());
        insert("output", self.outputs.is_empty(), self.outputs.into_value());
        insert("outcome", self.outcomes.is_empty(), self.outcomes.into_value());
        if let Some(floor) = self.floor {
            statements.push("UPSERT meta:journal CONTENT { floor: $floor } RETURN NONE;".to_owned());
            bound.push(("floor", floor.into_value()));
        }
        match statements.as_slice() {
            [one] => (one.clone(), bound),
            many => (format!("BEGIN; {} COMMIT;", many.join(" ")), bound),
        }
    }
}

impl RevisionRow {
    fn of(compiled: &Compiled) -> Self {
        Self {
            id: RecordId::new("revision", &*compiled.fingerprint),
            key: compiled.fingerprint.to_string(),
            kind: compiled.kind.name().to_owned(),
            definition: String::from_utf8_lossy(&compiled.json).into_owned(),
            number: compiled.number,
            created_ms: compiled.created_ms,
            pin: compiled.pin.get().map(|pin| pin.as_str().to_owned()),
        }
    }

    fn compiled(self) -> Result<Arc<Compiled>, StoreError> {
        let unreadable = |error: crate::error::Error| {
            StoreError::Failed(format!("the revision {:?} cannot be read: {error}", self.key))
        };
        let definition = Definition::from_stored(kind(&self.kind)?, &self.definition).map_err(unreadable)?;
        let revision = Revision {
            definition,
            number: self.number,
            created_ms: self.created_ms,
            updated_ms: self.created_ms,
            pin: self.pin.as_deref().and_then(Pin::parse),
        };
        Compiled::new(&revision).map_err(unreadable)
    }
}

/// The output that this record is to be written without, and whose it is.
fn large_output(record: &Record) -> Option<(Uuid, &Arc<str>)> {
    let Record::Ended(uuid, ended) = record else { return None };
    let output = ended.outcome.result.as_ref().ok()?;
    (output.len() > LARGE).then_some((*uuid, output))
}

fn kind(name: &str) -> Result<Kind, StoreError> {
    [Kind::Tool, Kind::Function]
        .into_iter()
        .find(|kind| kind.name() == name)
        .ok_or_else(|| StoreError::Failed(format!("there is no kind {name:?}")))
}

fn uuid(text: &str) -> Result<Uuid, StoreError> {
    text.parse().map_err(|_| StoreError::Failed(format!("{text:?} is no uuid")))
}

fn client(text: &str) -> Result<Client, StoreError> {
    text.parse().map_err(|_| StoreError::Failed(format!("{text:?} is no client")))
}

impl ExecutionRow {
    fn of(accepted: &crate::journal::Accepted) -> Self {
        let job = &accepted.job;
        Self {
            id: RecordId::new("execution", job.uuid.to_string()),
            key: job.uuid.to_string(),
            number: accepted.number,
            kind: job.definition.kind.name().to_owned(),
            definition: job.definition.id.clone(),
            definition_number: Some(job.definition.number),
            revision: job.definition.fingerprint.to_string(),
            input: job.input.text.clone(),
            priority: u64::from(job.options.priority),
            timeout_ms: job.options.timeout.map(|timeout| timeout.as_millis() as u64),
            client: job.client.to_string(),
            traceparent: job.traceparent.clone(),
            accepted_ms: accepted.accepted_ms,
            begun: accepted.is_begun,
            idempotency_key: job.options.idempotency_key.as_deref().map(str::to_owned),
            idempotency: job.key().map(|key| key.0.to_string()),
        }
    }

    fn open(
        self,
        revisions: &HashMap<String, Arc<Compiled>>,
        attempts: u32,
    ) -> Result<OpenExecution, StoreError> {
        let missing = || StoreError::Failed(format!("the revision of the execution {} is missing", self.key));
        let definition = revisions.get(&self.revision).cloned().ok_or_else(missing)?;
        let client = client(&self.client)?;
        let options = Options {
            stream: false,
            timeout: self.timeout_ms.map(Duration::from_millis),
            priority: u8::try_from(self.priority).unwrap_or(Options::default().priority),
            idempotency_key: self.idempotency_key.map(Into::into),
        };
        Ok(OpenExecution {
            uuid: uuid(&self.key)?,
            definition,
            input: self.input,
            options,
            client,
            traceparent: self.traceparent,
            number: self.number,
            accepted_ms: self.accepted_ms,
            attempts: attempts + u32::from(self.begun),
        })
    }

    fn snapshot(self, outcome: Option<OutcomeRow>) -> Result<Snapshot, StoreError> {
        let progress = match outcome {
            Some(outcome) => Progress::Ended(Arc::new(outcome.ended()?)),
            None => Progress::Queued,
        };
        Ok(Snapshot {
            uuid: uuid(&self.key)?,
            kind: kind(&self.kind)?,
            id: self.definition,
            revision: self.definition_number,
            client: client(&self.client)?,
            input: self.input.into(),
            accepted_ms: self.accepted_ms,
            progress,
        })
    }
}

impl OutcomeRow {
    fn of(uuid: Uuid, ended: &Ended, output_hash: Option<String>) -> Self {
        let (output, failure) = match &ended.outcome.result {
            Ok(_) if output_hash.is_some() => (None, None),
            Ok(output) => (Some(output.to_string()), None),
            Err(failure) => (None, Some(failure)),
        };
        Self {
            id: RecordId::new("outcome", uuid.to_string()),
            key: uuid.to_string(),
            state: ended.outcome.state.name().to_owned(),
            output,
            output_hash,
            code: failure.map(|failure| failure.code.clone().into_owned()),
            message: failure.map(|failure| failure.message.clone()),
            started_ms: ended.started_ms,
            ended_ms: ended.ended_ms,
            attempts: u64::from(ended.attempts),
            sandbox: ended.sandbox.map(|level| level.name().to_owned()),
            log: ended.log.as_deref().map(str::to_owned),
        }
    }

    fn ended(self) -> Result<Ended, StoreError> {
        let state = State::named(&self.state)
            .ok_or_else(|| StoreError::Failed(format!("there is no state {:?}", self.state)))?;
        let result = match self.output {
            Some(output) => Ok(output.into()),
            None => Err(Failure {
                code: self.code.unwrap_or_default().into(),
                message: self.message.unwrap_or_default(),
            }),
        };
        Ok(Ended {
            outcome: Outcome { state, result },
            started_ms: self.started_ms,
            ended_ms: self.ended_ms,
            attempts: u32::try_from(self.attempts).unwrap_or(u32::MAX),
            sandbox: self.sandbox.as_deref().and_then(Level::named),
            log: self.log.map(Into::into),
        })
    }
}
