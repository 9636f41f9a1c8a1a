//! Restate: a handler that returns at once, called over HTTP and waited for.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use super::program;
use crate::compare::Turns;
use crate::kept;
use crate::load::http;
use crate::process::{self, Process, eventually, free_port};
use crate::report::{Goal, Head, Lacking, Pair};
use crate::service::{Durability, Service};

const CONNECTIONS: usize = 64;

/// How long installing it may take.
const INSTALLING: Duration = Duration::from_secs(300);

const PACKAGES: [&str; 2] = ["@restatedev/restate-server", "@restatedev/restate-sdk"];

/// The handler. The function is one that Node.js has from version 22 on.
const HANDLER: &str = "
import * as http2 from 'node:http2';
import * as restate from '@restatedev/restate-sdk';
Promise.withResolvers ??= function () {
  let resolve, reject;
  const promise = new this((...both) => { [resolve, reject] = both; });
  return { promise, resolve, reject };
};
const noop = restate.service({ name: 'bench', handlers: { noop: async () => ({}) } });
http2.createServer(restate.createEndpointHandler({ services: [noop] })).listen(Number(process.argv[2]), '127.0.0.1');
";

pub fn heads() -> Vec<Head> {
    let name = "peer Restate: no-op over REST at 64 journalled";
    vec![Head::new(name, "executions/s", "Restate with a handler in Node.js", Goal::None)]
}

/// Where its packages are, in the target folder.
async fn packages() -> Result<PathBuf> {
    let folder = kept().join("restate");
    std::fs::create_dir_all(&folder)?;
    if !PACKAGES.iter().all(|package| folder.join("node_modules").join(package).is_dir()) {
        let npm = program("npm", "apt-get install npm")?;
        let mut install = Command::new(npm);
        install.args(["install", "--no-audit", "--no-fund", "--ignore-scripts"]).args(PACKAGES);
        let installed = process::output(install.current_dir(&folder), INSTALLING).await;
        installed.map_err(|error| {
            Lacking(format!("`npm install {}` did not work: {error:#}", PACKAGES.join(" ")))
        })?;
    }
    Ok(folder)
}

/// The server itself, in the package for this machine.
fn server(packages: &std::path::Path) -> Result<PathBuf, Lacking> {
    let all = std::fs::read_dir(packages.join("node_modules/@restatedev")).into_iter().flatten().flatten();
    let mut programs = all.map(|package| package.path().join("bin/restate-server"));
    programs
        .find(|program| program.is_file())
        .ok_or_else(|| Lacking("Restate has no server for this machine".into()))
}

struct Restate {
    ingress: SocketAddr,
    // In the order in which they end.
    _server: Process,
    _handler: Process,
    _folder: TempDir,
}

impl Restate {
    async fn start() -> Result<Self> {
        let node = program("node", "apt-get install nodejs")?;
        let packages = packages().await?;
        let folder = tempfile::tempdir()?;
        let quiet = |command: &mut Command| -> Result<Process> {
            Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
        };
        // Beside the packages, where Node.js looks for them.
        let source = packages.join("handler.mjs");
        std::fs::write(&source, HANDLER)?;
        let port = free_port()?;
        let handler = quiet(Command::new(node).arg(source).arg(port.to_string()))?;
        let [ingress, admin, fabric] = [free_port()?, free_port()?, free_port()?].map(loopback);
        let mut command = Command::new(server(&packages)?);
        command.args(["--listen-mode", "tcp", "--no-logo", "--base-dir"]).arg(folder.path());
        command
            .env("RESTATE_DISABLE_TELEMETRY", "true")
            .env("RESTATE_BIND_IP", "127.0.0.1")
            .env("RESTATE_BIND_ADDRESS", fabric.to_string())
            .env("RESTATE_INGRESS__BIND_ADDRESS", ingress.to_string())
            .env("RESTATE_ADMIN__BIND_ADDRESS", admin.to_string())
            .env("RESTATE_LOG_FILTER", "error");
        let restate = Self { ingress, _server: quiet(&mut command)?, _handler: handler, _folder: folder };
        eventually("Restate knows the handler", async || register(admin, port).await).await?;
        let call = http::request("POST", "/bench/noop", "{}");
        eventually("Restate runs the handler", async || {
            let mut connection = http::Connection::open(ingress).await?;
            let (status, answer) = connection.call(&call).await?;
            ensure!((status, answer) == (200, b"{}"), "{status}: {}", String::from_utf8_lossy(answer));
            Ok(())
        })
        .await?;
        Ok(restate)
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

async fn register(admin: SocketAddr, handler: u16) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(process::PATIENCE).build()?;
    let body = json!({ "uri": format!("http://127.0.0.1:{handler}") }).to_string();
    let request = client.post(format!("http://{admin}/deployments")).body(body);
    let answer = request.header("content-type", "application/json").send().await?;
    ensure!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await?);
    Ok(())
}

async fn rate(address: SocketAddr, path: &str, turn: Duration) -> Result<f64> {
    let request: Arc<[u8]> = http::request("POST", path, "{}").into();
    http::rate(address, CONNECTIONS, turn, move || request.clone()).await
}

pub async fn measure(turns: &Turns) -> Result<Vec<Vec<Pair>>> {
    let restate = Restate::start().await?;
    let service = Service::with_noop(Durability::Journal).await?;
    let pairs = turns.beside(
        async |turn| rate(restate.ingress, "/bench/noop", turn).await,
        async |turn| rate(service.rest, "/tool/noop/execute?wait=30", turn).await,
    );
    Ok(vec![pairs.await?])
}
