//! What goes on after the service or its dispatcher ended: all that was accepted and has no outcome.

use std::sync::Arc;
use std::time::Duration;

use super::admission::entry;
use super::losses::MAX_ATTEMPTS;
use super::{Msg, Open, State};
use crate::audit::{Action, Detail, Origin};
use crate::effects::Panicked;
use crate::error::{Error, Result};
use crate::execution::{Input, Job, Outcome};
use crate::journal::{self, OpenExecution, Recovered};
use crate::secrets::Granted;

/// How soon the journal is asked again when it could not answer.
const AGAIN: Duration = Duration::from_millis(250);

impl State {
    /// Asks the journal what is open.
    pub(super) fn recover(&mut self) {
        let Some(journal) = self.records.as_ref().and_then(|records| records.journal()) else { return };
        let ask = async move {
            let (sender, answer) = tokio::sync::oneshot::channel();
            let lost = || Error::unavailable("the journal failed while it was asked what is open");
            journal.cast(journal::Msg::Recover(sender.into())).map_err(|_| lost())?;
            answer.await.map_err(|_| lost())?
        };
        self.effects.run(ask, Msg::Recovered);
    }

    pub(super) fn recovered(&mut self, result: std::result::Result<Result<Recovered>, Panicked>) {
        // Two journals in a row are both asked; the first answer is taken.
        if self.held.is_none() {
            return;
        }
        let recovered =
            match result.unwrap_or_else(|Panicked| Err(Error::unavailable("the question panicked"))) {
                Ok(recovered) => recovered,
                Err(error) => {
                    tracing::error!(%error, "what is open could not be read yet");
                    let again = async move { tokio::time::sleep(AGAIN).await };
                    self.effects.run(again, |_| Msg::RecoverAgain);
                    return;
                }
            };
        let held = self.held.take().unwrap_or_default();
        if let Some(records) = &mut self.records {
            records.found_floor(recovered.floor);
        }
        self.next_number = recovered.last + 1;
        if !recovered.executions.is_empty() {
            tracing::info!(open = recovered.executions.len(), "executions of the last run go on");
        }
        for execution in recovered.executions {
            self.take_up(execution);
        }
        self.schedule_all();
        held.into_iter().for_each(|message| self.serve(message));
    }

    fn take_up(&mut self, execution: OpenExecution) {
        let runtime = execution.definition.runtime();
        let job = Arc::new(Job {
            uuid: execution.uuid,
            runtime: runtime.as_ref().copied().unwrap_or(crate::execution::Runtime::Binary),
            definition: execution.definition,
            input: Input { text: execution.input },
            options: execution.options,
            client: execution.client,
            origin: Arc::new(Origin::recorded(execution.client)),
            max_open: None,
            traceparent: execution.traceparent,
            log: None,
            kept: Arc::default(),
            secrets: Granted::default(),
        });
        let (uuid, attempts) = (job.uuid, execution.attempts);
        let mut open = Open::new(job.clone(), execution.number, execution.accepted_ms);
        open.is_recorded = true;
        (open.attempts, open.recorded_attempt, open.written_attempt) = (attempts, attempts, attempts);
        open.retries = execution.retries;
        let begins = open.begins();
        // What was lost with the service is counted from now on.
        open.records_attempts = true;
        if let Some(key) = job.key() {
            self.keys.insert(key, uuid);
        }
        self.open.insert(uuid, open);
        self.count_open(job.client);
        self.trail.done(&job.origin, Action::ExecutionResume, uuid, Detail::of(&job));
        let lane = self.lanes.get_mut(&job.runtime);
        let problem = match (runtime, lane) {
            (Err(error), _) => {
                Some(Outcome::interrupted(format!("the definition cannot run any more: {error}")))
            }
            _ if attempts > 0 && !job.definition.spec.idempotent => {
                Some(Outcome::interrupted("the service ended while this execution was running or about to"))
            }
            _ if begins >= MAX_ATTEMPTS => Some(Outcome::crash_loop(begins)),
            (Ok(runtime), None) => {
                Some(Outcome::interrupted(format!("the runtime {runtime} is not available")))
            }
            (Ok(_), Some(lane)) => {
                self.queued_bytes += job.input.text.len();
                lane.queue.restore(entry(&job));
                None
            }
        };
        if let Some(outcome) = problem {
            self.conclude(uuid, outcome);
        }
    }
}
