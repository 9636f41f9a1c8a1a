//! What is counted and timed, under the names that `/metrics` shows. Without a recorder each of these does nothing; the
//! recorder is there before the first of them.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::definition::Kind;
use crate::error::Code;
use crate::execution::{Runtime, State};

/// How many definitions have a row of their own; those that come later share `other`.
const DEFINITIONS: usize = 200;

/// Says what each is, for whoever reads `/metrics`.
pub fn describe() {
    describe_counter!("executions_accepted_total", "Executions that were taken in");
    describe_counter!(
        "executions_refused_total",
        "Executions that were not taken in, by the code that said why"
    );
    describe_counter!("executions_ended_total", "Executions that ended, by state and definition");
    describe_histogram!(
        "execution_stage_seconds",
        Unit::Seconds,
        "How long executions are in each stage: accept (until on record), queue, run, end (until on record)"
    );
    describe_histogram!("journal_batch_records", Unit::Count, "Records in one commit of the journal");
    describe_histogram!(
        "journal_commit_seconds",
        Unit::Seconds,
        "How long one commit of the journal takes, its fsync with it"
    );
    describe_counter!("journal_failures_total", "Commits of the journal that failed");
    describe_counter!("audit_failures_total", "Commits of the audit log that failed");
    describe_gauge!("queue_depth", Unit::Count, "Executions that wait, by runtime");
    describe_gauge!("queue_age_seconds", Unit::Seconds, "How long the oldest of them has waited");
    describe_gauge!("executions_running", Unit::Count, "Executions that an executor holds, by runtime");
    describe_gauge!("pool_executors", Unit::Count, "Executors, by runtime");
    describe_gauge!("pool_idle", Unit::Count, "Executors without work, by runtime");
    describe_gauge!("sessions", Unit::Count, "Connections");
    describe_gauge!("actor_restarts", Unit::Count, "How often each part was started again");
    describe_gauge!("store_bytes", Unit::Bytes, "What the store takes on disk");
    describe_gauge!("process_resident_memory_bytes", Unit::Bytes, "Resident memory of this process");
}

/// A stage of an execution.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// From its submission until it is on record.
    Accept,
    /// From then until it begins.
    Queue,
    /// From then until its program is gone.
    Run,
    /// From then until its outcome is on record.
    End,
}

/// An execution left a stage.
pub fn left(stage: Stage, after: Duration) {
    STAGES[stage as usize].record(after);
}

/// Found once, since each execution passes through all of them; in the order of [`Stage`].
static STAGES: LazyLock<[Histogram; 4]> = LazyLock::new(|| {
    ["accept", "queue", "run", "end"].map(|stage| histogram!("execution_stage_seconds", "stage" => stage))
});

/// An execution was taken in.
pub fn accepted(kind: Kind) {
    ACCEPTED[kind as usize].increment(1);
}

static ACCEPTED: LazyLock<[Counter; 2]> =
    LazyLock::new(|| Kind::ALL.map(|kind| counter!("executions_accepted_total", "kind" => kind.name())));

/// An execution was not taken in.
pub fn refused(code: Code) {
    counter!("executions_refused_total", "code" => code.as_str()).increment(1);
}

/// The counters of executions that ended, by definition and state: which definitions have rows of their own.
#[derive(Default)]
pub struct Definitions {
    rows: [HashMap<String, Ended>; 2],
    others: [Ended; 2],
}

/// The counters of one row, each found once.
type Ended = HashMap<State, Counter>;

impl fmt::Debug for Definitions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Definitions").field("rows", &self.count()).finish_non_exhaustive()
    }
}

impl Definitions {
    fn count(&self) -> usize {
        self.rows.iter().map(HashMap::len).sum()
    }

    /// An execution of this one ended.
    pub fn ended(&mut self, kind: Kind, id: &str, state: State) {
        let has_room = self.count() < DEFINITIONS;
        let rows = &mut self.rows[kind as usize];
        let (id, row) = match rows.get_mut(id) {
            Some(row) => (id, row),
            None if has_room => (id, rows.entry(id.to_owned()).or_default()),
            None => ("other", &mut self.others[kind as usize]),
        };
        let found = || {
            let (kind, id, state) = (kind.name(), id.to_owned(), state.name());
            counter!("executions_ended_total", "kind" => kind, "id" => id, "state" => state)
        };
        row.entry(state).or_insert_with(found).increment(1);
    }
}

/// The journal wrote a batch, or failed to.
pub fn committed(records: usize, took: Duration, is_written: bool) {
    histogram!("journal_batch_records").record(records as f64);
    histogram!("journal_commit_seconds").record(took);
    if !is_written {
        counter!("journal_failures_total").increment(1);
    }
}

/// The audit log failed to write a batch.
pub fn audit_failed() {
    counter!("audit_failures_total").increment(1);
}

/// What waits and runs on a runtime at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Executions that wait.
    pub queued: usize,
    /// How long the oldest of them has waited.
    pub oldest: Duration,
    /// Executions that an executor holds.
    pub running: usize,
    /// Executors.
    pub executors: usize,
    /// Those without work.
    pub idle: usize,
}

/// Sets the gauges of a runtime.
pub fn load(runtime: Runtime, load: Load) {
    let set = |name: &'static str, value: f64| gauge!(name, "runtime" => runtime.name()).set(value);
    set("queue_depth", load.queued as f64);
    set("queue_age_seconds", load.oldest.as_secs_f64());
    set("executions_running", load.running as f64);
    set("pool_executors", load.executors as f64);
    set("pool_idle", load.idle as f64);
}

/// Sets the gauge of how often a part was started again.
pub fn restarts(part: String, times: u64) {
    gauge!("actor_restarts", "part" => part).set(times as f64);
}

/// Sets the gauges of the process.
pub fn process(sessions: usize, store_bytes: u64, resident_bytes: u64) {
    gauge!("sessions").set(sessions as f64);
    gauge!("store_bytes").set(store_bytes as f64);
    gauge!("process_resident_memory_bytes").set(resident_bytes as f64);
}
