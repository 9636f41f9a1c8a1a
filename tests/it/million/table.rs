//! What was measured: how long things took, and the table of it all.

use std::fmt;
use std::time::{Duration, Instant};

/// How long a thing is repeated before it counts, and while it does.
pub const WARM_UP: Duration = Duration::from_secs(1);
pub const TURN: Duration = Duration::from_secs(5);

/// The rows, by what is measured, in the order in which they are printed.
pub const ROWS: [&str; 19] = [
    LOAD, LOADED, START, FLOOR, GET, TAG, COMPOUND, PAIR, EITHER, FREQUENT, TYPO, PREFIX, FIRST_PAGE,
    LATER_PAGE, CREATE, NEWEST, RESIDENT, PEAK, DISK,
];
pub const LOAD: &str = "load, definitions/s";
pub const LOADED: &str = "resident after the load, MiB";
pub const START: &str = "start until ready, ms (median of 3)";
pub const FLOOR: &str = "nothing: `GET /healthz`, `select 1`";
pub const GET: &str = "GET by id";
pub const TAG: &str = "tag query, 50 hits";
pub const COMPOUND: &str = "compound query";
pub const PAIR: &str = "search, two words, top 10";
pub const EITHER: &str = "search, either of two words, top 10";
pub const FREQUENT: &str = "search, two frequent words, top 10";
pub const TYPO: &str = "search, a typo, top 10";
pub const PREFIX: &str = "search, a prefix, top 10";
pub const FIRST_PAGE: &str = "page 1 of 50";
pub const LATER_PAGE: &str = "page 1,000 of 50, or the last";
pub const CREATE: &str = "create";
pub const NEWEST: &str = "the newest 50";
pub const RESIDENT: &str = "resident after the queries, MiB";
pub const PEAK: &str = "resident at most since the start, MiB";
pub const DISK: &str = "on disk, MiB";

/// How long the repetitions of one thing took, the shortest first.
pub struct Timing(Vec<Duration>);

impl Timing {
    pub fn new(mut took: Vec<Duration>) -> Self {
        assert!(!took.is_empty(), "nothing was timed");
        took.sort_unstable();
        Self(took)
    }

    /// The time that this part of the repetitions stayed below.
    pub fn quantile(&self, part: f64) -> Duration {
        self.0[((self.0.len() - 1) as f64 * part).round() as usize]
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [half, most] = [0.5, 0.99].map(|part| self.quantile(part).as_secs_f64() * 1_000.0);
        write!(formatter, "{half:.2} / {most:.2}")?;
        // So few say little of what one in a hundred takes.
        if self.0.len() < 500 { write!(formatter, " ({})", self.0.len()) } else { Ok(()) }
    }
}

/// Repeats what says how long it took, each time with another number.
pub async fn timed(mut work: impl AsyncFnMut(usize) -> Duration) -> Timing {
    let (start, mut number) = (Instant::now(), 0);
    while start.elapsed() < WARM_UP {
        work(number).await;
        number += 1;
    }
    let (start, mut took) = (Instant::now(), Vec::new());
    while start.elapsed() < TURN {
        took.push(work(number).await);
        number += 1;
    }
    Timing::new(took)
}

/// A row for each measured thing, a column for each size of either.
#[derive(Default)]
pub struct Table {
    columns: Vec<(String, Vec<(&'static str, String)>)>,
}

impl Table {
    /// What comes next belongs to this column.
    pub fn column(&mut self, name: String) {
        println!("{name}");
        self.columns.push((name, Vec::new()));
    }

    pub fn put(&mut self, row: &'static str, cell: impl fmt::Display) {
        println!("  {row}: {cell}");
        let (_, cells) = self.columns.last_mut().expect("a column");
        cells.push((row, cell.to_string()));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |formatter: &mut fmt::Formatter<'_>, first: &str, cells: &[&str]| {
            writeln!(formatter, "| {first} | {} |", cells.join(" | "))
        };
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        line(formatter, "times: p50 / p99 in ms", &names)?;
        line(formatter, "---", &vec!["---:"; names.len()])?;
        for row in ROWS {
            let cell = |cells: &[(&str, String)]| {
                cells
                    .iter()
                    .find(|(name, _)| *name == row)
                    .map_or_else(|| "–".to_owned(), |(_, cell)| cell.clone())
            };
            let cells: Vec<String> = self.columns.iter().map(|(_, cells)| cell(cells)).collect();
            line(formatter, row, &cells.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

/// With its thousands set apart: `1,000,000`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
