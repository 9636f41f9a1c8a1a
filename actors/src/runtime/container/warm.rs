//! A container that an executor keeps: reset after each run, or started ahead and dropped after one.
//!
//! A reset keeps the runs of an honest program apart. It does not hold against a program that attacks the shell in its
//! own container; a definition that runs foreign code says `warm_once`.

use std::sync::Arc;
use std::time::Duration;

use bollard::container::{AttachContainerResults, LogOutput};
use futures_util::{FutureExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::agent::{self, Answer, End, Errors, Output};
use super::engine::Engine;
use super::image::Image;
use super::instance::{self, Instance};
use super::{Ended, KILLED, Order, find};
use crate::compiled::Compiled;
use crate::definition::Kind;
use crate::execution::{Job, Outcome};
use crate::runtime::bounds::Bounds;
use crate::runtime::lines::Lines;
use crate::runtime::output::Produced;
use crate::runtime::stop::Stop;
use crate::spec::ContainerMode;

/// After how many runs a container is replaced.
const MAX_RUNS: u32 = 1_000;

/// How long the shell in a new container may take to answer.
const READY: Duration = Duration::from_secs(10);

/// How long a reset may take.
const RESET: Duration = Duration::from_secs(2);

/// How long a container that is being started may take until it can be removed.
const SETTLE: Duration = Duration::from_secs(10);

/// What one executor keeps. Whatever it drops is removed from the engine.
#[derive(Debug, Default)]
pub struct Warm {
    kept: Option<(Key, Agent)>,
    /// The container of the next run, where each has its own.
    ahead: Option<(Key, Starting)>,
}

/// It goes on when it is dropped, and what it made is dropped then: a request that was sent is not taken back.
type Starting = JoinHandle<Result<Agent, Outcome>>;

/// A revision of a definition: no other runs in its container.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    kind: Kind,
    id: String,
    etag: String,
}

impl Warm {
    /// Runs one execution in the container that is there, or in a new one.
    ///
    /// # Errors
    /// The outcome, where there is no output.
    pub(super) async fn run(
        &mut self,
        order: &Order,
        job: &Job,
        engine: &Engine,
        mut lines: Lines<'_>,
        bounds: Bounds,
        stop: &mut Stop,
    ) -> Result<Produced, Outcome> {
        let key = Key::of(&job.definition);
        let start = || tokio::spawn(Agent::start(engine.clone(), job.definition.clone(), bounds));
        let mut agent = match stop.or(self.take(&key).map(Ok)).await? {
            Some(agent) => agent,
            None => stop.or(started(start())).await?,
        };
        let argv = order.argv(&agent.image)?;
        let begun = Instant::now();
        let heard = agent.run(order, &argv, &mut lines, &bounds, stop).await;
        lines.finish();
        let (stdout, end) = match heard {
            Ok(heard) => heard,
            Err(outcome) => {
                agent.instance.remove(agent.stream).await;
                return Err(outcome);
            }
        };
        if job.definition.spec.container.mode == ContainerMode::Drop {
            drop(agent);
            self.ahead = Some((key, start()));
        } else if agent.runs < MAX_RUNS && !end.is_out_of_memory {
            self.kept = Some((key, agent));
        }
        let status = end.status.ok_or_else(|| {
            let program = argv.first().map_or("", String::as_str);
            Outcome::failed("not_startable", format!("the image has no program {program:?}"))
        })?;
        let is_out_of_memory = end.is_out_of_memory;
        Ended { status, is_out_of_memory, took: begun.elapsed() }.check(&bounds, &lines)?;
        Ok(Produced::Bytes(stdout))
    }

    /// Removes what is kept, before the service ends.
    pub async fn close(&mut self) {
        if let Some((_, agent)) = self.kept.take() {
            agent.instance.remove(agent.stream).await;
        }
        if let Some((_, starting)) = self.ahead.take()
            && let Ok(Ok(agent)) = timeout(SETTLE, started(starting)).await
        {
            agent.instance.remove(agent.stream).await;
        }
    }

    /// The container that was kept or started for this definition, if it is fit for another run; any other goes.
    async fn take(&mut self, key: &Key) -> Option<Agent> {
        let (kept, ahead) = (self.kept.take(), self.ahead.take());
        if let Some((of, mut agent)) = kept
            && of == *key
            && agent.is_reset().await
        {
            return Some(agent);
        }
        let (of, starting) = ahead?;
        // One that could not be started is tried anew, now that it is needed.
        let mut agent = if of == *key { started(starting).await.ok()? } else { return None };
        agent.is_reset().await.then_some(agent)
    }
}

async fn started(starting: Starting) -> Result<Agent, Outcome> {
    starting.await.unwrap_or_else(|_| Err(Outcome::failed("internal", "starting the container failed")))
}

impl Key {
    fn of(definition: &Compiled) -> Self {
        Self { kind: definition.kind, id: definition.id.clone(), etag: definition.etag.clone() }
    }
}

/// A container in which a shell waits for what to run.
#[derive(Debug)]
struct Agent {
    instance: Instance,
    image: Image,
    stream: AttachContainerResults,
    output: Output,
    opens_anew: bool,
    runs: u32,
    /// The mark of the run after which the container is being reset.
    resetting: Option<String>,
}

impl Agent {
    async fn start(engine: Engine, definition: Arc<Compiled>, bounds: Bounds) -> Result<Self, Outcome> {
        let (docker, image) = find(&definition, &engine).await?;
        let network = &definition.spec.container.network;
        let roomier = Bounds { processes: bounds.processes.saturating_add(agent::OWN_PROCESSES), ..bounds };
        let host = instance::host(&engine, &image, network, &roomier)?;
        let body = instance::body(&engine, &image, ["sh", "-s"].map(str::to_owned).into(), true, host);
        let instance = Instance::create(engine, docker, body).await?;
        let stream = instance.attach(true).await.map_err(explain)?;
        instance.start().await.map_err(explain)?;
        let mark = mark();
        let prelude = agent::prelude(&mark, instance::writable(&image));
        let output = Output::default();
        let mut agent = Self { instance, image, stream, output, opens_anew: false, runs: 0, resetting: None };
        agent.write(&prelude).await;
        let answer = timeout(READY, agent.line(&mark)).await.ok().flatten();
        let unfit = |message| Err(Outcome::failed("not_startable", message));
        match answer.as_deref().and_then(Answer::parse) {
            Some(Answer::Foreign) => {
                return unfit(
                    "the engine gives a container no processes of its own, so none can be kept warm",
                );
            }
            None => return unfit("`sh` in the image does not answer as a shell does"),
            Some(answer) => agent.opens_anew = answer == Answer::Anew,
        }
        Ok(agent)
    }

    /// Runs one command to its end: what it printed, and how it ended.
    async fn run(
        &mut self,
        order: &Order,
        argv: &[String],
        lines: &mut Lines<'_>,
        bounds: &Bounds,
        stop: &mut Stop,
    ) -> Result<(Vec<u8>, End), Outcome> {
        let mark = mark();
        let request = agent::request(order, argv, bounds, &mark, self.opens_anew);
        self.runs += 1;
        stop.or(self.write(&request).map(Ok)).await?;
        let (mut ended, mut errors, mut is_heard) = (None, Errors::default(), false);
        loop {
            let frame = tokio::select! {
                frame = self.stream.output.next() => frame,
                outcome = stop.reached() => return Err(outcome),
            };
            match frame {
                Some(Ok(LogOutput::StdOut { message })) => self.output.push(&message),
                Some(Ok(LogOutput::StdErr { message })) if !is_heard => {
                    let (passed, has_come) = errors.push(&message, &mark);
                    lines.write(&passed);
                    is_heard = has_come;
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return stop.or(self.lost(bounds, lines).map(Err)).await,
            }
            if ended.is_none() {
                ended = self.output.take(&mark);
                let printed = ended.as_ref().map_or(self.output.len(), |(stdout, _)| stdout.len());
                if printed > bounds.output_bytes {
                    return Err(bounds.output_too_large());
                }
            }
            if is_heard && let Some((stdout, line)) = ended.take() {
                let odd =
                    || Outcome::failed("container_ended", "the shell in the container was interfered with");
                let end = End::parse(&line).ok_or_else(odd)?;
                self.resetting = Some(mark);
                return Ok((stdout, end));
            }
        }
    }

    /// Whether it is as it was before its last run, and still there.
    async fn is_reset(&mut self) -> bool {
        if let Some(mark) = self.resetting.take() {
            let answer = timeout(RESET, self.line(&mark)).await.ok().flatten();
            if answer.as_deref() != Some("clean") {
                return false;
            }
        }
        // Nothing more is to come, not even the end.
        self.stream.output.next().now_or_never().is_none()
    }

    /// The rest of the line that begins with this mark; none when the container ends before it comes.
    async fn line(&mut self, mark: &str) -> Option<String> {
        loop {
            if let Some((_, line)) = self.output.take(mark) {
                return Some(line);
            }
            if let LogOutput::StdOut { message } = self.stream.output.next().await?.ok()? {
                self.output.push(&message);
            }
        }
    }

    /// What cannot be written is told by what is not answered.
    async fn write(&mut self, text: &str) {
        let input = &mut self.stream.input;
        if input.write_all(text.as_bytes()).await.is_ok() {
            let _ = input.flush().await;
        }
    }

    /// Why the shell fell silent.
    async fn lost(&mut self, bounds: &Bounds, lines: &mut Lines<'_>) -> Outcome {
        match self.instance.exit().await {
            Ok(exit) if exit.is_out_of_memory || exit.status == KILLED => bounds.memory_exceeded(),
            Ok(_) => {
                let (tail, ended) = (lines.tail(), "the container ended before the program did");
                let message = if tail.is_empty() { ended.to_owned() } else { format!("{ended}: {tail}") };
                Outcome::failed("container_ended", message)
            }
            Err(outcome) => outcome,
        }
    }
}

/// A word that no program can guess.
fn mark() -> String {
    Uuid::now_v7().simple().to_string()
}

/// The one program that the definition's author did not ask for.
fn explain(outcome: Outcome) -> Outcome {
    match &outcome.result {
        Err(failure) if failure.message.contains("no program \"sh\"") => Outcome::failed(
            "not_startable",
            "the image has no `sh`, which a warm container needs: the definition must say `container: {\"mode\": \"fresh\"}`",
        ),
        _ => outcome,
    }
}
