//! The comparison: which cases there are, what each is to reach, and how floor and service take turns.

pub mod growth;
mod idle;
pub mod registry;
pub mod runtimes;
pub mod sessions;

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::FutureExt;

use crate::peers::{celery, restate, websocketd};
use crate::report::{self, Goal, Head, Lacking, Measured, Pair, Row};
use crate::service::Durability::{self, Journal, Memory};

use growth::Grown;
use runtimes::{LEVELS, Width};
use sessions::Records;

/// How long both sides work before it counts.
pub const WARM_UP: Duration = Duration::from_millis(300);

/// How long a case may take, beyond its turns.
const CASE_AT_MOST: Duration = Duration::from_secs(600);

/// How long, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Turns {
    pub pairs: usize,
    pub length: Duration,
}

impl Turns {
    /// Floor and service in turn.
    pub async fn beside(
        &self,
        mut floor: impl AsyncFnMut(Duration) -> Result<f64>,
        mut service: impl AsyncFnMut(Duration) -> Result<f64>,
    ) -> Result<Vec<Pair>> {
        floor(WARM_UP).await?;
        service(WARM_UP).await?;
        let mut pairs = Vec::new();
        for _ in 0..self.pairs {
            let floor = Some(floor(self.length).await?);
            pairs.push(Pair { floor, service: service(self.length).await? });
        }
        Ok(pairs)
    }
}

/// What is measured with one set-up: one row, or some.
#[derive(Clone, Copy, Debug)]
enum Case {
    OneShot(Durability),
    Session(Durability, Records),
    /// One request at a time.
    SessionAtOne,
    Latency,
    OpenLoop,
    Binary(&'static str, Width),
    Python(usize),
    Get,
    Create,
    Idle,
    IdleSessions,
    Growth(Grown),
    Celery(Durability),
    Restate,
    Websocketd,
}

impl Case {
    fn all() -> Vec<Self> {
        let mut all = vec![
            Self::OneShot(Memory),
            Self::OneShot(Journal),
            Self::Session(Memory, Records::Two),
            Self::SessionAtOne,
            Self::Session(Journal, Records::Two),
            Self::Session(Journal, Records::Three),
            Self::Latency,
            Self::OpenLoop,
        ];
        all.extend(LEVELS.map(|level| Self::Binary(level, Width::Outstanding)));
        all.extend(LEVELS.map(|level| Self::Binary(level, Width::Sessions)));
        all.extend([1, 16].map(Self::Python));
        all.extend([Self::Get, Self::Create, Self::Idle, Self::IdleSessions]);
        all.extend(Grown::ALL.map(Self::Growth));
        all.extend([Self::Celery(Memory), Self::Celery(Journal), Self::Restate, Self::Websocketd]);
        all
    }

    /// Its rows, in the order in which `measure` gives them.
    fn heads(self) -> Vec<Head> {
        let one = |name: String, unit, beside, goal| vec![Head::new(name, unit, beside, goal)];
        match self {
            Self::OneShot(durability) => {
                let goal = if durability == Memory { 0.8 } else { 0.6 };
                let name = format!("one-shot no-op at 64 {}", durability.adverb());
                one(name, "sessions/s", "bare WebSocket server", Goal::Ratio(goal))
            }
            Self::Session(Memory, _) => {
                let name = "/session no-op at 256 in memory".to_owned();
                one(name, "executions/s", "bare echo of two frames", Goal::AtLeast(80_000.0))
            }
            Self::SessionAtOne => {
                let name = "/session no-op at 1 in memory".to_owned();
                one(name, "executions/s", "bare echo of two frames", Goal::None)
            }
            Self::Session(Journal, records) => {
                let name = format!("/session no-op at 256 journalled {}", records.name());
                one(name, "executions/s", records.beside(), Goal::Ratio(0.5))
            }
            Self::Latency => [("p50", 1.5), ("p99", 5.0)]
                .map(|(part, goal)| {
                    let name = format!("one-shot latency journalled {part}");
                    Head::new(name, "ms", "bare WebSocket server", Goal::AtMost(goal))
                })
                .into(),
            Self::OpenLoop => {
                let name = "open-loop latency at 70 % of the most journalled p99".to_owned();
                one(name, "ms", "its own p50", Goal::RatioAtMost(3.0))
            }
            Self::Binary(level, width) => {
                let name = format!("binary cat at 16 over {} with sandbox {level}", width.name());
                let goal = if width == Width::Outstanding { runtimes::goal(level) } else { Goal::None };
                one(name, "executions/s", "bare spawn-and-reap, 16 at a time", goal)
            }
            Self::Python(open) => {
                let goal = if open == 1 { Goal::Ratio(0.7) } else { Goal::None };
                let name = format!("python no-op at {open} with one interpreter");
                one(name, "executions/s", "one bare process that answers lines", goal)
            }
            Self::Get => {
                let name = "GET /tool/{id} at 64".to_owned();
                one(name, "requests/s", "bare poem handler, same bytes", Goal::Ratio(0.75))
            }
            Self::Create => {
                let name = "POST /tool at 64".to_owned();
                one(name, "definitions/s", "bare inserts in groups of 64", Goal::Ratio(0.5))
            }
            Self::Idle => vec![
                Head::new("idle process resident", "MiB", "", Goal::AtMost(60.0)),
                Head::new("start to ready", "ms", "", Goal::AtMost(500.0)),
            ],
            Self::IdleSessions => {
                one("idle /session connection resident".to_owned(), "KiB", "", Goal::AtMost(16.0))
            }
            Self::Growth(grown) => grown.heads(),
            Self::Celery(durability) => celery::heads(durability),
            Self::Restate => restate::heads(),
            Self::Websocketd => websocketd::heads(),
        }
    }

    /// The pairs of each of its rows.
    async fn measure(self, turns: &Turns) -> Result<Vec<Vec<Pair>>> {
        match self {
            Self::OneShot(durability) => sessions::one_shot(durability, turns).await,
            Self::Session(durability, records) => sessions::many(durability, records, 256, turns).await,
            Self::SessionAtOne => sessions::many(Memory, Records::Two, 1, turns).await,
            Self::Latency => sessions::latency(turns).await,
            Self::OpenLoop => sessions::open_loop(turns).await,
            Self::Binary(level, width) => runtimes::binary(level, width, turns).await,
            Self::Python(open) => runtimes::python(open, turns).await,
            Self::Get => registry::get(turns).await,
            Self::Create => registry::create(turns).await,
            Self::Idle => idle::process(turns).await,
            Self::IdleSessions => idle::sessions(turns).await,
            Self::Growth(grown) => growth::measure(grown, turns).await,
            Self::Celery(durability) => celery::measure(durability, turns).await,
            Self::Restate => restate::measure(turns).await,
            Self::Websocketd => websocketd::measure(turns).await,
        }
    }

    /// As `measure`, whatever happens in it.
    async fn measure_in_time(self, turns: &Turns) -> Result<Vec<Vec<Pair>>> {
        let rows = self.heads().len() as u32;
        let limit = CASE_AT_MOST + turns.length * turns.pairs as u32 * 4 * rows;
        let measuring = AssertUnwindSafe(self.measure(turns)).catch_unwind();
        match tokio::time::timeout(limit, measuring).await {
            Ok(Ok(measured)) => measured,
            Ok(Err(_)) => bail!("a panic"),
            Err(_) => bail!("not done after {limit:?}"),
        }
    }
}

/// Measures all cases with a row that is chosen. What was measured is written after each, so that a run that is ended early
/// leaves what it had.
pub async fn run(turns: &Turns, is_chosen: impl Fn(&str) -> bool, folder: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for case in Case::all() {
        let heads = case.heads();
        if !heads.iter().any(|head| is_chosen(&head.name)) {
            continue;
        }
        let measured = case.measure_in_time(turns).await;
        for (index, head) in heads.into_iter().enumerate() {
            let measured = match &measured {
                Ok(rows) => Measured::Pairs(rows.get(index).cloned().unwrap_or_default()),
                Err(error) => match error.downcast_ref() {
                    Some(Lacking(what)) => Measured::Skipped(what.clone()),
                    None => Measured::Failed(format!("{error:#}")),
                },
            };
            let row = Row { head, measured };
            if is_chosen(&row.head.name) {
                eprintln!("{}", row.line());
                rows.push(row);
            }
        }
        report::write(folder, &rows)?;
    }
    Ok(rows)
}
