//! Celery with Redis: a task that does nothing, by two worker processes, whose results are waited for.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use super::program;
use crate::compare::{Turns, runtimes};
use crate::kept;
use crate::load::many;
use crate::process::{self, Process, eventually, free_port};
use crate::report::{Goal, Head, Lacking, Pair};
use crate::service::{Durability, Launch, numbered};

/// How many calls wait for their results, and how many processes work on them.
const OUTSTANDING: usize = 64;
const WORKERS: usize = 2;

/// How long installing it may take.
const INSTALLING: Duration = Duration::from_secs(300);

const APP: &str = "
import os, sys, time
from celery import Celery

app = Celery('noop', broker=os.environ['REDIS'], backend=os.environ['REDIS'])
app.conf.broker_connection_retry_on_startup = True

@app.task
def noop(input):
    return {}

def rate(seconds, outstanding):
    noop.delay({}).get(timeout=60)
    start, done = time.monotonic(), 0
    waiting = [noop.delay({}) for _ in range(outstanding)]
    while waiting:
        assert waiting.pop(0).get(timeout=60) == {}
        done += 1
        if time.monotonic() - start < seconds:
            waiting.append(noop.delay({}))
    return done / (time.monotonic() - start)

if __name__ == '__main__':
    print(rate(float(sys.argv[1]), int(sys.argv[2])))
";

pub fn heads(durability: Durability) -> Vec<Head> {
    let beside = match durability {
        Durability::Memory => "Celery and Redis as they come",
        Durability::Journal => "Celery and Redis with appendfsync always",
    };
    let name = format!("peer Celery: python no-op at {OUTSTANDING} {}", durability.adverb());
    vec![Head::new(name, "executions/s", beside, Goal::None)]
}

/// Its environment, made in the target folder.
async fn environment() -> Result<PathBuf> {
    let folder = kept().join("celery");
    let mut import = Command::new(folder.join("bin/python"));
    import.args(["-c", "import celery, redis, packaging"]);
    if process::output(&mut import, process::PATIENCE).await.is_err() {
        let mut venv = Command::new("python3");
        let made = process::output(venv.args(["-m", "venv"]).arg(&folder), INSTALLING).await;
        let mut pip = Command::new(folder.join("bin/pip"));
        pip.args(["--quiet", "install", "celery", "redis", "packaging"]);
        let installed = match made {
            Ok(_) => process::output(&mut pip, INSTALLING).await,
            Err(error) => Err(error),
        };
        installed.map_err(|error| Lacking(format!("`pip install celery redis` did not work: {error:#}")))?;
    }
    Ok(folder.join("bin"))
}

/// A worker and its Redis.
struct Celery {
    bin: PathBuf,
    url: String,
    // In the order in which they end.
    _worker: Process,
    _redis: Process,
    folder: TempDir,
}

impl Celery {
    async fn start(durability: Durability) -> Result<Self> {
        let redis = program("redis-server", "apt-get install redis-server")?;
        let bin = environment().await?;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("noop.py"), APP)?;
        let port = free_port()?;
        let mut command = Command::new(redis);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(folder.path());
        if durability == Durability::Journal {
            command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        }
        let quiet = |command: &mut Command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        };
        quiet(&mut command);
        let redis = Process::spawn(&mut command)?;
        eventually("redis listens", async || {
            Ok(tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?)
        })
        .await?;
        let url = format!("redis://127.0.0.1:{port}/0");
        let mut command = Command::new(bin.join("celery"));
        command.args(["-A", "noop", "worker", "--loglevel", "error", "--concurrency", &WORKERS.to_string()]);
        quiet(command.env("REDIS", &url).current_dir(folder.path()));
        let worker = Process::spawn(&mut command)?;
        Ok(Self { bin, url, _worker: worker, _redis: redis, folder })
    }

    async fn rate(&self, turn: Duration) -> Result<f64> {
        let mut command = Command::new(self.bin.join("python"));
        command.arg("noop.py").arg(turn.as_secs_f64().to_string()).arg(OUTSTANDING.to_string());
        command.env("REDIS", &self.url).current_dir(self.folder.path());
        Ok(process::output(&mut command, process::PATIENCE * 2).await?.parse()?)
    }
}

pub async fn measure(durability: Durability, turns: &Turns) -> Result<Vec<Vec<Pair>>> {
    let celery = Celery::start(durability).await?;
    let service = Launch::new(durability)?.pool("python", WORKERS).start().await?;
    service.put_source("noop.py", runtimes::NOOP)?;
    service.create("noop", json!({ "source_url": "noop.py" })).await?;
    let text = numbered("noop", &json!({}));
    let pairs = turns.beside(
        async |turn| celery.rate(turn).await,
        async |turn| many::rate(service.websocket, &text, OUTSTANDING, turn).await,
    );
    Ok(vec![pairs.await?])
}
