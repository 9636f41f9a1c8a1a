//! What was measured, as tables: one for people, and everything for programs.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use crate::picture;

/// Both sides of one turn.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Pair {
    /// Of the floor, where there is one.
    pub floor: Option<f64>,
    pub service: f64,
}

impl Pair {
    pub fn ratio(self) -> Option<f64> {
        self.floor.map(|floor| self.service / floor)
    }
}

/// What has to hold of a median.
#[derive(Clone, Copy, Debug, Serialize)]
pub enum Goal {
    None,
    /// The service beside its floor, at least.
    Ratio(f64),
    /// The same, at most.
    RatioAtMost(f64),
    /// The service alone.
    AtLeast(f64),
    AtMost(f64),
}

/// What a row is about.
#[derive(Clone, Debug, Serialize)]
pub struct Head {
    pub name: String,
    pub unit: &'static str,
    /// What the floor is.
    pub beside: &'static str,
    pub goal: Goal,
}

#[derive(Clone, Debug, Serialize)]
pub enum Measured {
    Pairs(Vec<Pair>),
    /// What is lacking, and how it can be had.
    Skipped(String),
    Failed(String),
}

#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub head: Head,
    pub measured: Measured,
}

/// Why a row is left out: an error that is none.
#[derive(Debug)]
pub struct Lacking(pub String);

impl std::fmt::Display for Lacking {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(&self.0)
    }
}

impl std::error::Error for Lacking {}

pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        even if even % 2 == 0 => Some(f64::midpoint(values[middle - 1], values[middle])),
        _ => Some(values[middle]),
    }
}

impl Head {
    pub fn new(name: impl Into<String>, unit: &'static str, beside: &'static str, goal: Goal) -> Self {
        Self { name: name.into(), unit, beside, goal }
    }
}

impl Row {
    pub fn pairs(&self) -> &[Pair] {
        match &self.measured {
            Measured::Pairs(pairs) => pairs,
            _ => &[],
        }
    }

    pub fn service(&self) -> Option<f64> {
        median(self.pairs().iter().map(|pair| pair.service))
    }

    pub fn floor(&self) -> Option<f64> {
        median(self.pairs().iter().filter_map(|pair| pair.floor))
    }

    pub fn ratio(&self) -> Option<f64> {
        median(self.ratios())
    }

    fn ratios(&self) -> impl Iterator<Item = f64> {
        self.pairs().iter().filter_map(|pair| pair.ratio())
    }

    /// The least ratio and the largest.
    pub fn spread(&self) -> Option<(f64, f64)> {
        Some((self.ratios().reduce(f64::min)?, self.ratios().reduce(f64::max)?))
    }

    /// The goal as a ratio, where it is one or can be one.
    pub fn goal_ratio(&self) -> Option<f64> {
        match self.head.goal {
            Goal::Ratio(goal) => Some(goal),
            Goal::AtLeast(goal) => Some(goal / self.floor()?),
            Goal::None | Goal::RatioAtMost(_) | Goal::AtMost(_) => None,
        }
    }

    /// Whether more of it is better.
    pub fn is_rate(&self) -> bool {
        self.head.unit.ends_with("/s")
    }

    /// None where there is no goal, or no number.
    pub fn is_reached(&self) -> Option<bool> {
        match self.head.goal {
            Goal::None => None,
            Goal::Ratio(goal) => Some(self.ratio()? >= goal),
            Goal::RatioAtMost(goal) => Some(self.ratio()? <= goal),
            Goal::AtLeast(goal) => Some(self.service()? >= goal),
            Goal::AtMost(goal) => Some(self.service()? <= goal),
        }
    }

    /// In a table; also what the progress says of it.
    pub fn line(&self) -> String {
        let Head { name, unit, beside, goal } = &self.head;
        let goal = match goal {
            Goal::None => String::new(),
            Goal::Ratio(goal) => format!("≥ {goal:.2} of it"),
            Goal::RatioAtMost(goal) => format!("≤ {goal:.1} of it"),
            Goal::AtLeast(goal) => format!("≥ {}", number(*goal)),
            Goal::AtMost(goal) => format!("≤ {}", number(*goal)),
        };
        let told = |value: Option<f64>| value.map(number).unwrap_or_default();
        let (service, reached) = match &self.measured {
            Measured::Pairs(_) => {
                let reached = self.is_reached().map(|is_reached| if is_reached { "yes" } else { "no" });
                (told(self.service()), reached.unwrap_or_default())
            }
            Measured::Skipped(why) => (format!("skipped: {}", cell(why)), ""),
            Measured::Failed(why) => (format!("failed: {}", cell(why)), "no"),
        };
        let spread = self.spread().map(|(least, most)| format!("{least:.2} to {most:.2}"));
        let ratio = self.ratio().map(|ratio| format!("{ratio:.2}"));
        let (ratio, spread) = (ratio.unwrap_or_default(), spread.unwrap_or_default());
        let floor = told(self.floor());
        format!(
            "| {name} | {unit} | {beside} | {floor} | {service} | {ratio} | {spread} | {goal} | {reached} |"
        )
    }
}

/// With three significant digits at least.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => count(value),
    }
}

/// Without a fraction, and with commas between thousands.
pub fn count(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut grouped = String::from(if value < 0.0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A text that does not break its table.
fn cell(text: &str) -> String {
    text.replace(['\n', '\r'], " ").replace('|', "/")
}

/// The table of a comparison.
pub fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| what | unit | floor | floor, median | service, median | ratio, median | ratio, least to most | goal | reached |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in rows {
        table.push_str(&row.line());
        table.push('\n');
    }
    table
}

/// Writes a comparison as a table, with all pairs, and as a picture.
pub fn write(folder: &Path, rows: &[Row]) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("compare.md"), table(rows))?;
    std::fs::write(folder.join("compare.json"), serde_json::to_string_pretty(&json!({ "rows": rows }))?)?;
    picture::bars(&folder.join("compare.svg"), rows)
}

/// How something changes with something else.
#[derive(Clone, Debug, Serialize)]
pub struct Curve {
    /// The name of its picture's file.
    pub file: &'static str,
    pub title: &'static str,
    pub x: &'static str,
    pub y: &'static str,
    pub lines: Vec<Line>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

impl Curve {
    /// A line for each name, with no point yet.
    pub fn new(
        file: &'static str,
        title: &'static str,
        x: &'static str,
        y: &'static str,
        names: &[&str],
    ) -> Self {
        let lines = names.iter().map(|&name| Line { name: name.to_owned(), points: Vec::new() });
        Self { file, title, x, y, lines: lines.collect() }
    }

    /// Adds a point to each line.
    pub fn push(&mut self, x: f64, values: &[f64]) {
        for (line, &y) in self.lines.iter_mut().zip(values) {
            line.points.push((x, y));
        }
    }

    pub fn table(&self) -> String {
        let names: Vec<&str> = self.lines.iter().map(|line| line.name.as_str()).collect();
        let mut table = format!("### {}\n\n| {} | {} |\n", self.title, self.x, names.join(" | "));
        let _ = writeln!(table, "| --- |{}", " --- |".repeat(names.len()));
        let rows = self.lines.iter().map(|line| line.points.len()).max().unwrap_or_default();
        for index in 0..rows {
            let x = self.lines.iter().find_map(|line| Some(line.points.get(index)?.0)).unwrap_or_default();
            let values = self.lines.iter().map(|line| line.points.get(index));
            let values = values.map(|point| point.map(|point| number(point.1)).unwrap_or_default());
            let values: Vec<String> = values.collect();
            let _ = writeln!(table, "| {} | {} |", count(x), values.join(" | "));
        }
        let _ = writeln!(table, "\n{}", self.y);
        table
    }
}

/// Writes curves as tables, as numbers and as pictures; with each that failed, why.
pub fn write_curves(folder: &Path, curves: &[Curve], failed: &[String]) -> Result<String> {
    std::fs::create_dir_all(folder)?;
    let mut text = String::new();
    for curve in curves {
        picture::curve(&folder.join(format!("{}.svg", curve.file)), curve)?;
        let _ = writeln!(text, "{}", curve.table());
    }
    for failed in failed {
        let _ = writeln!(text, "failed: {failed}\n");
    }
    std::fs::write(folder.join("curves.md"), &text)?;
    let all: Value = json!({ "curves": curves, "failed": failed });
    std::fs::write(folder.join("curves.json"), serde_json::to_string_pretty(&all)?)?;
    Ok(text)
}
