//! A container for one execution.

use std::pin::pin;
use std::time::Duration;

use bollard::Docker;
use bollard::container::{AttachContainerResults, LogOutput};
use bollard::models::ContainerCreateBody;
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::engine::Engine;
use super::image::Image;
use super::instance::{self, Exit, Instance};
use super::{Ended, KILLED, Order, cpu_seconds, find};
use crate::execution::{Job, Outcome};
use crate::runtime::bounds::Bounds;
use crate::runtime::lines::Lines;
use crate::runtime::output::Produced;
use crate::runtime::stop::Stop;

/// How long a container that is being started while its execution is ended may take until it can be removed.
const SETTLE: Duration = Duration::from_secs(10);

/// How much longer than its output a container may be there: closing its output is the last that a program does.
const LONGER: Duration = Duration::from_secs(1);

/// Runs one execution in a container of its own.
///
/// # Errors
/// The outcome, where there is no output.
pub async fn run(
    order: &Order,
    job: &Job,
    attempt: u32,
    engine: &Engine,
    mut lines: Lines<'_>,
    bounds: Bounds,
    stop: &mut Stop,
) -> Result<Produced, Outcome> {
    let (docker, image) = stop.or(find(&job.definition, engine)).await?;
    let body = body(order, job, attempt, engine, &image, &bounds)?;
    let mut running = start(engine, docker, body, stop).await?;
    let started = Instant::now();
    let ended = running.until_end(order.stdin.as_deref(), &mut lines, &bounds, stop).await;
    running.instance.remove(running.output).await;
    let (stdout, exit) = ended?;
    // The first process of a container cannot be ended by SIGKILL from within it: it was the kernel, and unless its
    // processor time was over, for its memory. Not every engine tells of that.
    let is_killed = exit.status == KILLED && bounds.cpu.is_none_or(|cpu| started.elapsed() < cpu);
    let is_out_of_memory = exit.is_out_of_memory || is_killed;
    Ended { status: exit.status, is_out_of_memory, took: started.elapsed() }.check(&bounds, &lines)?;
    Ok(Produced::Bytes(stdout))
}

fn body(
    order: &Order,
    job: &Job,
    attempt: u32,
    engine: &Engine,
    image: &Image,
    bounds: &Bounds,
) -> Result<ContainerCreateBody, Outcome> {
    let network = &job.definition.spec.container.network;
    let mut host = instance::host(engine, image, network, bounds)?;
    if let Some(seconds) = cpu_seconds(bounds) {
        // The first process of a container ignores the warning.
        host.ulimits.get_or_insert_default().push(instance::ulimit("cpu", seconds, seconds));
    }
    let mut body = instance::body(engine, image, order.argv(image)?, order.stdin.is_some(), host);
    body.env = Some(order.env.iter().map(|(name, value)| format!("{name}={value}")).collect());
    // For whoever looks at the engine.
    let about = [("execution", job.uuid.to_string()), ("attempt", attempt.to_string())];
    let about = about.map(|(key, value)| (format!("{}.{key}", super::engine::LABEL), value));
    body.labels.get_or_insert_default().extend(about);
    Ok(body)
}

/// Starts a container. When the execution is ended meanwhile, the container is removed before that is told; when this
/// is dropped, it is removed once it is there, since a request that was sent is not taken back.
async fn start(
    engine: &Engine,
    docker: Docker,
    body: ContainerCreateBody,
    stop: &mut Stop,
) -> Result<Running, Outcome> {
    let mut starting = tokio::spawn(Running::start(engine.clone(), docker, body));
    tokio::select! {
        biased;
        started = &mut starting => {
            started.unwrap_or_else(|_| Err(Outcome::failed("internal", "starting the container failed")))
        }
        outcome = stop.reached() => {
            if let Ok(Ok(Ok(running))) = tokio::time::timeout(SETTLE, starting).await {
                running.instance.remove(running.output).await;
            }
            Err(outcome)
        }
    }
}

/// A container that runs.
struct Running {
    instance: Instance,
    output: AttachContainerResults,
    input: Option<AttachContainerResults>,
    /// When it was about to be started.
    since: Instant,
}

impl Running {
    async fn start(engine: Engine, docker: Docker, body: ContainerCreateBody) -> Result<Self, Outcome> {
        let is_fed = body.open_stdin == Some(true);
        let instance = Instance::create(engine, docker, body).await?;
        let output = instance.attach(false).await?;
        // A connection of its own: when a program does not read its input, Podman ends the one on which it came,
        // with what it printed. Both must carry the output, or Podman waits for one that nobody reads.
        let input = if is_fed { Some(instance.attach(true).await?) } else { None };
        let since = Instant::now();
        instance.start().await?;
        Ok(Self { instance, output, input, since })
    }

    /// Feeds and reads the container until it ends.
    async fn until_end(
        &mut self,
        stdin: Option<&str>,
        lines: &mut Lines<'_>,
        bounds: &Bounds,
        stop: &mut Stop,
    ) -> Result<(Vec<u8>, Exit), Outcome> {
        let mut stdout = Vec::new();
        {
            let mut feeding = pin!(feed(self.input.take(), stdin.unwrap_or_default()));
            let mut is_fed = false;
            loop {
                tokio::select! {
                    frame = self.output.output.next() => match frame {
                        Some(Ok(LogOutput::StdOut { message })) => stdout.extend_from_slice(&message),
                        Some(Ok(LogOutput::StdErr { message })) => lines.write(&message),
                        Some(Ok(LogOutput::StdIn { .. } | LogOutput::Console { .. })) => {}
                        Some(Err(_)) | None => break,
                    },
                    () = &mut feeding, if !is_fed => is_fed = true,
                    outcome = stop.reached() => return Err(outcome),
                }
                if stdout.len() > bounds.output_bytes {
                    return Err(bounds.output_too_large());
                }
            }
        }
        lines.finish();
        let heard = self.since.elapsed();
        let exit = stop.or(self.instance.exit()).await?;
        // What a connection that broke did not bring is not known, and what it brought is not all.
        if exit.ran.is_some_and(|ran| ran > heard + LONGER) {
            let message =
                "the connection to the container broke while it ran, or its output was closed early";
            return Err(Outcome::failed("engine_unavailable", message));
        }
        Ok((stdout, exit))
    }
}

/// Writes the input. A program that does not read it is no failure.
async fn feed(input: Option<AttachContainerResults>, text: &str) {
    let Some(AttachContainerResults { mut output, mut input }) = input else { return };
    let write = async {
        let _ = input.write_all(text.as_bytes()).await;
        let _ = input.shutdown().await;
    };
    let discard = async { while let Some(Ok(_)) = output.next().await {} };
    tokio::join!(write, discard);
}
