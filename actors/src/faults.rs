//! Faults on order, for tests: a Unix socket named by `ORG_EXECUTOR_FAULTS` takes one order a line,
//! `panic registry|journal|audit|dispatcher|pools|sessions|pool:RUNTIME|executor:RUNTIME|session`, and answers
//! `ok MILLISECONDS` when the replacement is up, or `error WHY`. Only in builds with the feature `faults`.

use std::time::{Duration, Instant};

use ractor::{ActorId, ActorRef, Message, RpcReplyPort};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;

use crate::execution::Runtime;
use crate::system::System;
use crate::{dispatcher, pool, pools, registry, sessions};

const PATIENCE: Duration = Duration::from_secs(10);

/// Listens for orders, if the environment names a socket.
pub fn listen(system: System) {
    let Some(path) = std::env::var_os("ORG_EXECUTOR_FAULTS") else { return };
    let listener = match UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the socket for faults could not be made"),
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, system.clone()));
        }
    });
}

async fn serve(stream: UnixStream, system: System) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let answer = match obey(&system, &line).await {
            Ok(took) => format!("ok {:.3}\n", took.as_secs_f64() * 1_000.0),
            Err(why) => format!("error {why}\n"),
        };
        if write.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn obey(system: &System, order: &str) -> Result<Duration, String> {
    let names = system.names();
    let target = order.strip_prefix("panic ").ok_or("unknown order")?;
    let runtime = |name: &str| Runtime::named(name).ok_or_else(|| format!("no runtime {name:?}"));
    match target.split_once(':') {
        None if target == "registry" => replace(system, &names.registry(), registry::Msg::Panic).await,
        None if target == "journal" => replace(system, &names.journal(), crate::journal::Msg::Panic).await,
        None if target == "audit" => replace(system, &names.audit(), crate::audit::Msg::Panic).await,
        None if target == "dispatcher" => replace(system, &names.dispatcher(), dispatcher::Msg::Panic).await,
        None if target == "pools" => replace(system, &names.pools(), pools::Msg::Panic).await,
        None if target == "sessions" => replace(system, &names.sessions(), sessions::Msg::Panic).await,
        Some(("pool", name)) => replace(system, &names.pool(runtime(name)?), pool::Msg::Panic).await,
        Some(("executor", name)) => executor(system, &names.pool(runtime(name)?)).await,
        None if target == "session" => {
            let begun = Instant::now();
            ask::<sessions::Msg, _>(system, &names.sessions(), sessions::Msg::PanicSession).await?;
            Ok(begun.elapsed())
        }
        _ => Err(format!("unknown target {target:?}")),
    }
}

/// Has an actor panic, and waits until another one bears its name.
async fn replace<M: Message>(system: &System, name: &str, order: M) -> Result<Duration, String> {
    let actor: ActorRef<M> = system.names().wait_for(name).await.map_err(|error| error.to_string())?;
    let begun = Instant::now();
    actor.cast(order).map_err(|error| error.to_string())?;
    while begun.elapsed() < PATIENCE {
        if system.names().find::<M>(name).is_some_and(|now| now.get_id() != actor.get_id()) {
            return Ok(begun.elapsed());
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    Err("it was not replaced".into())
}

/// Has an executor panic, and waits until the pool has as many as before.
async fn executor(system: &System, pool_name: &str) -> Result<Duration, String> {
    let stats = |reply| pool::Msg::Stats(reply);
    let before = ask(system, pool_name, stats).await?;
    let begun = Instant::now();
    let chosen: Option<ActorId> = ask(system, pool_name, pool::Msg::PanicExecutor).await?;
    chosen.ok_or("the pool has no executor")?;
    while begun.elapsed() < PATIENCE {
        let now = ask(system, pool_name, stats).await?;
        if now.failures > before.failures && now.executors >= before.executors.min(now.min) {
            return Ok(begun.elapsed());
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    Err("it was not replaced".into())
}

async fn ask<M: Message, T: Send + 'static>(
    system: &System,
    name: &str,
    message: impl FnOnce(RpcReplyPort<T>) -> M,
) -> Result<T, String> {
    let actor: ActorRef<M> = system.names().wait_for(name).await.map_err(|error| error.to_string())?;
    let (sender, answer) = oneshot::channel();
    actor.cast(message(sender.into())).map_err(|error| error.to_string())?;
    answer.await.map_err(|error| error.to_string())
}
