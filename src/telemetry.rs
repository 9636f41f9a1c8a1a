//! The service's own log: one line an event on stderr, for a person or for a machine.
//!
//! What executions write is not here; it belongs to their record. A line bears the fields of the span in
//! which it was written, so that whatever happened to one execution is found by its uuid.

use std::io::{BufWriter, IsTerminal, stderr};

use anyhow::{Context, anyhow};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

use crate::config::{LogConfig, LogFormat};

/// Libraries that tell of their own inner life at `info`: these begin their targets, and are heard from
/// `warn` on unless a directive of the filter names them.
const NOISY: [&str; 9] = [
    "h2",
    "hyper",
    "poem",
    "ractor",
    "reqwest",
    "surrealdb",
    "surrealkv",
    "tokio_tungstenite",
    "tungstenite",
];

/// What is not heard unless a directive of the filter names it: it repeats the messages of MCP servers, and their
/// addresses, which may hold a credential. What matters of them is told with the execution or the source.
const SILENT: &str = "rmcp=off";

/// How many lines may wait for who reads the log; more are dropped, so that nothing else waits for that.
const LINES: usize = 10_000;

/// Begins to log, until the guard that it gives is dropped: then what waits is written, where that takes no longer than a second.
///
/// # Errors
/// `RUST_LOG` is no filter, or the process logs already.
pub fn init(config: &LogConfig) -> anyhow::Result<WorkerGuard> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(wanted) if !wanted.is_empty() => {
            filter(&wanted).with_context(|| format!("RUST_LOG = {wanted:?} is no log filter"))?
        }
        _ => filter(&config.level).with_context(|| format!("log.level = {:?}", config.level))?,
    };
    let terminal = stderr().is_terminal();
    let human = match config.format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    // It warns at each orderly end that a handle was dropped outside the runtime, after it was closed inside.
    let filter = filter.add_directive("surrealkv::lsm=error".parse()?);
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES)
        .thread_name("log")
        .finish(BufWriter::new(stderr()));
    // A line that cannot be written is lost; the library would tell so on stderr, and panic where that is what is broken.
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).log_internal_errors(false);
    let begun = if human {
        let colourless = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        log.with_ansi(terminal && !colourless).try_init()
    } else {
        log.json().with_current_span(true).with_span_list(false).try_init()
    };
    begun.map_err(|error| anyhow!("the log cannot begin: {error}"))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(guard)
}

/// A panic is one line of the log like any other. It bears no backtrace: to name the frames of a program of this
/// size takes a quarter of a second, for which the part that failed would be away.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("no message");
    tracing::error!(place, message, "panicked");
}

/// Whether `text` can stand as `log.level`. `RUST_LOG` may be more: there a lone word that is no level
/// names a target, which in a configuration would let `inof` pass and silence everything else.
pub fn is_level(text: &str) -> bool {
    let word = |directive: &str| {
        directive.chars().all(|character| character.is_alphanumeric() || "_:- ".contains(character))
    };
    !text.trim().is_empty()
        && filter(text).is_ok()
        && text.split(',').all(|directive| !word(directive) || level(directive).is_some())
}

/// The filter that `directives` asks for. The noisy libraries are named first, and a later directive for
/// the same target, or a longer one, wins over them. Where less than `warn` is asked for, they get no more.
fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
    let asked = directives.split(',').filter_map(level).next_back();
    let quiet = asked.unwrap_or(LevelFilter::OFF).min(LevelFilter::WARN);
    let mut all: Vec<String> = NOISY.iter().map(|target| format!("{target}={quiet}")).collect();
    all.push(SILENT.to_owned());
    all.push(directives.to_owned());
    EnvFilter::builder().parse(all.join(","))
}

/// The level that a directive sets for all targets, if it is one of that kind.
fn level(directive: &str) -> Option<LevelFilter> {
    directive.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What is logged under `directives`, as JSON lines.
    fn logged(directives: &str, events: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().expect("no panic").write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter(directives).expect("a filter"))
            .with_writer(move || writer.clone())
            .json()
            .with_current_span(true)
            .with_span_list(false)
            .finish();
        tracing::subscriber::with_default(subscriber, events);
        let bytes = lines.0.lock().expect("no panic").clone();
        String::from_utf8(bytes).expect("text")
    }

    fn speak() {
        tracing::info!(target: "actors::pool", "ours at info");
        tracing::info!(target: "surrealdb_core::kvs", "theirs at info");
        tracing::warn!(target: "surrealdb_core::kvs", "theirs at warn");
        tracing::error!(target: "ractor::actor", "theirs at error");
    }

    #[test]
    fn a_noisy_library_is_heard_from_warn_on() {
        let log = logged("info", speak);
        assert!(log.contains("ours at info"));
        assert!(!log.contains("theirs at info"));
        assert!(log.contains("theirs at warn"));
    }

    #[test]
    fn a_noisy_library_is_heard_when_it_is_asked_for() {
        for directives in ["info,surrealdb=debug", "info,surrealdb_core::kvs=info"] {
            assert!(logged(directives, speak).contains("theirs at info"), "{directives}");
        }
    }

    #[test]
    fn a_library_that_repeats_messages_is_heard_only_when_it_is_asked_for() {
        let speak = || tracing::error!(target: "rmcp::service", "a message");
        assert_eq!(logged("trace", speak), "");
        assert!(logged("info,rmcp=error", speak).contains("a message"));
    }

    #[test]
    fn a_noisy_library_is_never_louder_than_the_level() {
        assert_eq!(logged("off", speak), "");
        let log = logged("error", speak);
        assert!(!log.contains("theirs at warn"));
        assert!(log.contains("theirs at error"));
        assert!(!logged("actors=info", speak).contains("theirs"));
    }

    #[test]
    fn a_line_bears_the_fields_of_its_span() {
        let log = logged("info", || {
            let span = tracing::info_span!("execution", uuid = "0197");
            span.in_scope(|| tracing::info!("ended"));
        });
        assert_eq!(log.lines().count(), 1);
        assert!(log.contains(r#""span":{"uuid":"0197","name":"execution"}"#), "{log}");
    }

    #[test]
    fn a_misspelt_level_is_no_target() {
        for good in ["info", "OFF", "info,actors=debug", "warn,[execution{uuid=1}]=trace"] {
            assert!(is_level(good), "{good}");
        }
        for bad in ["", " ", "inof", "info,actors", "actors=loud"] {
            assert!(!is_level(bad), "{bad}");
        }
    }
}
