//! What stands in each record of an execution, and what is made of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use surrealdb::types::{Object, RecordId, RecordIdKey, SurrealValue, Value};
use uuid::Uuid;

use super::super::{Bound, StoreError};
use crate::artifacts::Pin;
use crate::compiled::{Compiled, Revision};
use crate::definition::{Definition, Kind};
use crate::execution::{Client, Ended, Failure, Options, Outcome, Progress, Snapshot, State};
use crate::journal::{OpenExecution, Record};
use crate::settings::Level;

/// What stands at the end of the name of an attempt that failed, where it is followed by another.
const FAILED: &str = "failed";

#[derive(Debug, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
pub struct RevisionRow {
    id: RecordId,
    pub key: String,
    kind: String,
    definition: String,
    number: u64,
    created_ms: u64,
    pin: Option<String>,
}

/// An execution as it was accepted.
#[derive(Debug)]
pub struct ExecutionRow {
    pub key: String,
    pub input: String,
    /// The name of its idempotency key.
    idempotency: Option<String>,
    pub about: Accepted,
}

/// What no query asks for is one text of the record: the fewer fields that has, the sooner it is written.
#[derive(Debug, Deserialize, Serialize)]
pub struct Accepted {
    pub number: u64,
    kind: String,
    definition: String,
    /// The number of its revision, which `revision` names by what is in it.
    definition_number: Option<u64>,
    pub revision: String,
    priority: u64,
    timeout_ms: Option<u64>,
    client: String,
    traceparent: Option<String>,
    accepted_ms: u64,
    begun: bool,
    idempotency_key: Option<String>,
}

/// The execution under an idempotency key; its name is a hash of that and of the definition's id.
#[derive(Debug, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
pub struct KeyRow {
    id: RecordId,
    pub execution: String,
}

/// That an execution was begun, or that this failed and it has another attempt; its name tells all.
#[derive(Debug, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
struct AttemptRow {
    id: RecordId,
}

/// What is on record of the attempts of one execution.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attempts {
    /// The number of the last.
    last: u32,
    /// How many failed and were followed by another, or were to be.
    retries: u32,
}

/// How an execution ended.
#[derive(Debug)]
pub struct OutcomeRow {
    pub key: String,
    pub output: Option<String>,
    log: Option<String>,
    ended_ms: u64,
    pub about: End,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct End {
    state: String,
    /// The hash of an output that is a file.
    pub output_hash: Option<String>,
    pub code: Option<String>,
    pub message: Option<String>,
    started_ms: Option<u64>,
    attempts: u64,
    sandbox: Option<String>,
}

/// Which file holds the output of an execution.
#[derive(Debug, SurrealValue)]
#[surreal(crate = "surrealdb::types")]
pub struct OutputRow {
    id: RecordId,
    pub key: String,
    pub hash: String,
}

/// A record as it is read.
#[derive(Debug)]
struct Found {
    key: String,
    fields: Object,
}

/// What a batch inserts.
#[derive(Default)]
pub struct Rows {
    revisions: Vec<RevisionRow>,
    executions: Vec<ExecutionRow>,
    keys: Vec<KeyRow>,
    attempts: Vec<AttemptRow>,
    outcomes: Vec<OutcomeRow>,
    outputs: Vec<OutputRow>,
    floor: Option<String>,
}

impl Rows {
    /// What these records are in the store; `files` has the hashes of outputs that are kept outside of it.
    pub fn of(records: &[Record], revisions: &[Arc<Compiled>], files: &HashMap<Uuid, String>) -> Self {
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
                Record::Attempt(uuid, number) => rows
                    .attempts
                    .push(AttemptRow { id: RecordId::new("attempt", format!("{uuid}:{number}")) }),
                Record::Retry(uuid, number) => rows
                    .attempts
                    .push(AttemptRow { id: RecordId::new("attempt", format!("{uuid}:{number}:{FAILED}")) }),
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

    /// What inserts them, all or none.
    pub fn statements(self) -> (String, Bound) {
        let (mut statements, mut bound) = (Vec::new(), Vec::new());
        let mut insert = |table: &'static str, is_empty: bool, rows: Value| {
            if !is_empty {
                statements.push(format!("INSERT IGNORE INTO {table} ${table} RETURN NONE;"));
                bound.push((table, rows));
            }
        };
        insert("revision", self.revisions.is_empty(), self.revisions.into_value());
        let executions: Vec<Value> = self.executions.into_iter().map(ExecutionRow::record).collect();
        insert("execution", executions.is_empty(), executions.into_value());
        insert("attempt", self.attempts.is_empty(), self.attempts.into_value());
        insert("output", self.outputs.is_empty(), self.outputs.into_value());
        let outcomes: Vec<Value> = self.outcomes.into_iter().map(OutcomeRow::record).collect();
        insert("outcome", outcomes.is_empty(), outcomes.into_value());
        if !self.keys.is_empty() {
            // The key of one that could not be taken in is free, and names another one.
            let update = "ON DUPLICATE KEY UPDATE execution = $input.execution";
            statements.push(format!("INSERT INTO idempotency $idempotency {update} RETURN NONE;"));
            bound.push(("idempotency", self.keys.into_value()));
        }
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

    pub fn compiled(self) -> Result<Arc<Compiled>, StoreError> {
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

fn kind(name: &str) -> Result<Kind, StoreError> {
    [Kind::Tool, Kind::Function]
        .into_iter()
        .find(|kind| kind.name() == name)
        .ok_or_else(|| StoreError::Failed(format!("there is no kind {name:?}")))
}

/// The uuid in a record.
pub fn uuid(text: &str) -> Result<Uuid, StoreError> {
    text.parse().map_err(|_| StoreError::Failed(format!("{text:?} is no uuid")))
}

fn client(text: &str) -> Result<Client, StoreError> {
    text.parse().map_err(|_| StoreError::Failed(format!("{text:?} is no client")))
}

impl Attempts {
    /// Of each execution, from the names of their records.
    pub fn of_names(names: Vec<String>) -> HashMap<String, Self> {
        let mut all = HashMap::<String, Self>::new();
        for name in names {
            let mut parts = name.split(':');
            let (key, number, end) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
            let Some(number) = number.and_then(|number| number.parse().ok()) else { continue };
            let attempts = all.entry(key.to_owned()).or_default();
            attempts.last = attempts.last.max(number);
            attempts.retries += u32::from(end == Some(FAILED));
        }
        all
    }
}

/// A record with this name and these fields; those that are not there take no room.
fn record<const N: usize>(table: &str, key: String, fields: [(&str, Option<Value>); N]) -> Value {
    let mut record = Object::new();
    record.insert("id", RecordId::new(table, key));
    for (name, value) in fields {
        if let Some(value) = value {
            record.insert(name, value);
        }
    }
    record.into_value()
}

/// As the text of a record.
fn about(what: &impl Serialize) -> Option<Value> {
    Some(Value::String(serde_json::to_string(what).expect("texts and numbers are JSON")))
}

impl Found {
    fn of(mut fields: Object) -> Result<Self, StoreError> {
        match fields.remove("id") {
            Some(Value::RecordId(RecordId { key: RecordIdKey::String(key), .. })) => Ok(Self { key, fields }),
            id => Err(StoreError::Failed(format!("a record of an execution has the id {id:?}"))),
        }
    }

    /// Takes a field that is a text out.
    fn text(&mut self, name: &str) -> Option<String> {
        match self.fields.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    fn lacks(&self, name: &str) -> StoreError {
        StoreError::Failed(format!("the record of the execution {} has no {name}", self.key))
    }

    /// What no query asks for. Records of schema 3 and before have a field for each of that.
    fn about<T: DeserializeOwned>(mut self) -> Result<T, StoreError> {
        let read = match self.text("about") {
            Some(about) => serde_json::from_str(&about),
            None => serde_json::from_value(Value::Object(self.fields).into_json_value()),
        };
        let key = self.key;
        read.map_err(|error| {
            StoreError::Failed(format!("the record of the execution {key} cannot be read: {error}"))
        })
    }
}

impl ExecutionRow {
    fn of(accepted: &crate::journal::Accepted) -> Self {
        let job = &accepted.job;
        Self {
            key: job.uuid.to_string(),
            input: job.input.text.clone(),
            idempotency: job.key().map(|key| key.0.to_string()),
            about: Accepted {
                number: accepted.number,
                kind: job.definition.kind.name().to_owned(),
                definition: job.definition.id.clone(),
                definition_number: Some(job.definition.number),
                revision: job.definition.fingerprint.to_string(),
                priority: u64::from(job.options.priority),
                timeout_ms: job.options.timeout.map(|timeout| timeout.as_millis() as u64),
                client: job.client.to_string(),
                traceparent: job.traceparent.clone(),
                accepted_ms: accepted.accepted_ms,
                begun: accepted.is_begun,
                idempotency_key: job.options.idempotency_key.as_deref().map(str::to_owned),
            },
        }
    }

    fn record(self) -> Value {
        let fields = [
            ("input", Some(Value::String(self.input))),
            ("idempotency", self.idempotency.map(Value::String)),
            ("about", about(&self.about)),
        ];
        record("execution", self.key, fields)
    }

    pub fn read(fields: Object) -> Result<Self, StoreError> {
        let mut found = Found::of(fields)?;
        let input = found.text("input").ok_or_else(|| found.lacks("input"))?;
        let (key, idempotency) = (found.key.clone(), found.text("idempotency"));
        Ok(Self { key, input, idempotency, about: found.about()? })
    }

    pub fn open(
        self,
        revisions: &HashMap<String, Arc<Compiled>>,
        attempts: Attempts,
    ) -> Result<OpenExecution, StoreError> {
        let (key, about) = (self.key, self.about);
        let missing = || StoreError::Failed(format!("the revision of the execution {key} is missing"));
        let definition = revisions.get(&about.revision).cloned().ok_or_else(missing)?;
        let client = client(&about.client)?;
        let options = Options {
            stream: false,
            timeout: about.timeout_ms.map(Duration::from_millis),
            priority: u8::try_from(about.priority).unwrap_or(Options::default().priority),
            idempotency_key: about.idempotency_key.map(Into::into),
        };
        Ok(OpenExecution {
            uuid: uuid(&key)?,
            definition,
            input: self.input,
            options,
            client,
            traceparent: about.traceparent,
            number: about.number,
            accepted_ms: about.accepted_ms,
            attempts: attempts.last.max(u32::from(about.begun)),
            retries: attempts.retries,
        })
    }

    pub fn snapshot(self, outcome: Option<OutcomeRow>) -> Result<Snapshot, StoreError> {
        let progress = match outcome {
            Some(outcome) => Progress::Ended(Arc::new(outcome.ended()?)),
            None => Progress::Queued,
        };
        Ok(Snapshot {
            uuid: uuid(&self.key)?,
            kind: kind(&self.about.kind)?,
            id: self.about.definition,
            revision: self.about.definition_number,
            client: client(&self.about.client)?,
            input: self.input.into(),
            accepted_ms: self.about.accepted_ms,
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
            key: uuid.to_string(),
            output,
            log: ended.log.as_deref().map(str::to_owned),
            ended_ms: ended.ended_ms,
            about: End {
                state: ended.outcome.state.name().to_owned(),
                output_hash,
                code: failure.map(|failure| failure.code.clone().into_owned()),
                message: failure.map(|failure| failure.message.clone()),
                started_ms: ended.started_ms,
                attempts: u64::from(ended.attempts),
                sandbox: ended.sandbox.map(|level| level.name().to_owned()),
            },
        }
    }

    fn record(self) -> Value {
        let fields = [
            ("output", self.output.map(Value::String)),
            ("log", self.log.map(Value::String)),
            ("ended_ms", Some(self.ended_ms.into_value())),
            ("about", about(&self.about)),
        ];
        record("outcome", self.key, fields)
    }

    pub fn read(fields: Object) -> Result<Self, StoreError> {
        let mut found = Found::of(fields)?;
        let (key, output, log) = (found.key.clone(), found.text("output"), found.text("log"));
        let ended_ms = found.fields.remove("ended_ms").and_then(|ended_ms| u64::from_value(ended_ms).ok());
        let ended_ms = ended_ms.ok_or_else(|| found.lacks("ended_ms"))?;
        Ok(Self { key, output, log, ended_ms, about: found.about()? })
    }

    fn ended(self) -> Result<Ended, StoreError> {
        let state = State::named(&self.about.state)
            .ok_or_else(|| StoreError::Failed(format!("there is no state {:?}", self.about.state)))?;
        let result = match self.output {
            Some(output) => Ok(output.into()),
            None => Err(Failure {
                code: self.about.code.unwrap_or_default().into(),
                message: self.about.message.unwrap_or_default(),
            }),
        };
        Ok(Ended {
            outcome: Outcome { state, result },
            started_ms: self.about.started_ms,
            ended_ms: self.ended_ms,
            attempts: u32::try_from(self.about.attempts).unwrap_or(u32::MAX),
            sandbox: self.about.sandbox.as_deref().and_then(Level::named),
            log: self.log.map(Into::into),
        })
    }
}
