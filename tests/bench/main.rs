//! How fast the service is, beside floors that nothing which does the same can pass, and beside others who do the like; how
//! what it costs grows. `cargo bench` measures all of the first, `cargo bench -- curves` the second.
//!
//! `compare` and `curves` are what is measured, in `load` is who asks, in `floor`, `peers` and `service` who answers.

mod compare;
mod curves;
mod floor;
mod load;
mod peers;
mod picture;
mod process;
mod report;
mod service;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use compare::Turns;
use floor::Floor;

/// The stacks that the store wants.
const STACK_BYTES: usize = 10 << 20;

#[derive(Parser)]
#[command(name = "bench", about = "Measures Org Executor beside floors and beside others")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// What `cargo bench` says; it means nothing here.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Floor and service in turn, with the goal of each row; the default.
    Compare(Comparing),
    /// How what it costs grows, as pictures and tables.
    Curves(Curving),
    #[command(hide = true, subcommand)]
    Floor(Floor),
}

#[derive(Args)]
struct Chosen {
    /// Only what has one of these in its name.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where tables and pictures go; `bench` in the target folder unless told.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Parser)]
struct Comparing {
    #[command(flatten)]
    chosen: Chosen,
    /// How many turns floor and service have each.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// How long a turn is.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

#[derive(Parser)]
struct Curving {
    #[command(flatten)]
    chosen: Chosen,
    /// The most definitions, executions and sessions.
    #[arg(long, default_value_t = 100_000)]
    most: usize,
    /// How long each point is measured.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

impl Chosen {
    fn has(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }

    fn folder(&self) -> PathBuf {
        self.out.clone().unwrap_or_else(kept)
    }
}

/// A folder of the target folder: for results, and for others that are installed to be measured beside.
fn kept() -> PathBuf {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    temporary.parent().unwrap_or(temporary).join("bench")
}

fn main() -> ExitCode {
    match measure(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: Arguments) -> Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.thread_stack_size(STACK_BYTES).enable_all().build()?;
    let done = runtime.block_on(async {
        match arguments.command {
            // It has no children, and may be ended at any time.
            Some(Command::Floor(floor)) => floor.run().await,
            command => tokio::select! {
                done = run(command) => done,
                interrupted = interrupted() => interrupted,
            },
        }
    });
    // A read of standard input may be waiting.
    runtime.shutdown_background();
    done
}

/// Fails once the process is asked to end, so that what it started ends with it.
async fn interrupted() -> Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminated.recv() => {}
        pressed = tokio::signal::ctrl_c() => pressed?,
    }
    bail!("interrupted")
}

async fn run(command: Option<Command>) -> Result<()> {
    let by_default = || Comparing::try_parse_from(["compare"]).context("defaults");
    match command {
        None => compare(by_default()?).await,
        Some(Command::Compare(comparing)) => compare(comparing).await,
        Some(Command::Curves(curving)) => draw(curving).await,
        Some(Command::Floor(floor)) => floor.run().await,
    }
}

async fn compare(comparing: Comparing) -> Result<()> {
    let turns = Turns { pairs: comparing.pairs.max(1), length: Duration::from_secs_f64(comparing.seconds) };
    let (chosen, folder) = (&comparing.chosen, comparing.chosen.folder());
    let rows = compare::run(&turns, |name| chosen.has(name), &folder).await?;
    println!("{}", report::table(&rows));
    eprintln!("written to {}", folder.display());
    Ok(())
}

async fn draw(curving: Curving) -> Result<()> {
    let turn = Duration::from_secs_f64(curving.seconds);
    let (chosen, folder) = (&curving.chosen, curving.chosen.folder());
    let text = curves::run(turn, curving.most, |name| chosen.has(name), &folder).await?;
    println!("{text}");
    eprintln!("written to {}", folder.display());
    Ok(())
}
