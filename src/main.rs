//! Org Executor: one place where an organisation registers its tools and functions, finds them, and runs them.
//!
//! This is the edge: it knows HTTP, WebSockets and the command line, and only sends messages to the engine.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accept;
mod catalog;
mod cli;
mod client;
mod config;
mod credentials;
mod doors;
mod envelope;
mod reload;
mod rest;
mod serve;
mod tally;
mod telemetry;
mod tls;
mod ws;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use actors::{compiler, launcher};
use clap::Parser;

use crate::cli::{Cli, Command};

/// An execution is some hundred small allocations, made on one thread and freed on another: glibc's allocator took a quarter of
/// the time of a no-op. It asks for no huge pages, which an idle service would mostly leave empty.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The store runs its queries inside the calling task, and deep ones need room.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// How long what still computes may take once the service has ended: its result is nobody's.
const PARTING: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    // Before anything is opened or parsed: a launcher is to be small.
    match std::env::args_os().nth(1) {
        Some(argument) if argument == launcher::SUBCOMMAND => return launcher::main(),
        Some(argument) if argument == compiler::SUBCOMMAND => return compiler::main(),
        _ => {}
    }
    let cli = Cli::parse();
    let (json, file) = (cli.json, cli.config.clone());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().thread_stack_size(STACK_BYTES).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("the runtime cannot be started: {error}")),
    };
    match cli.into_command() {
        Command::CheckConfig { default: true } => show(config::default_text()),
        Command::CheckConfig { default: false } => check_config(file.as_deref()),
        // On a thread of the runtime: what the main thread has for children are orphans, and nothing else.
        Command::Serve(args) => {
            let served = runtime.block_on(runtime.spawn(serve::run(file, args.insecure)));
            runtime.shutdown_timeout(PARTING);
            match served {
                Ok(Ok(())) => ExitCode::SUCCESS,
                Ok(Err(error)) => fail(&format!("{error:#}")),
                Err(error) => fail(&format!("the service panicked: {error}")),
            }
        }
        Command::Client(command) => runtime.block_on(client::run(command, file.as_deref(), json)),
    }
}

/// Shows what is in force; says so where `serve` would want `--insecure` for it.
fn check_config(file: Option<&Path>) -> ExitCode {
    match config::in_force(file) {
        Ok((config, text)) => {
            if let Err(exposed) = config.check_exposure(false) {
                client::note(format_args!("note: {exposed}"));
            }
            show(&text)
        }
        Err(error) => fail(&error.to_string()),
    }
}

/// Prints what was asked for.
fn show(text: &str) -> ExitCode {
    match client::write(text.as_bytes()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}")),
    }
}

fn fail(message: &str) -> ExitCode {
    client::complain(message);
    ExitCode::FAILURE
}
