//! What became of the definitions, as it is printed: a line for each while they are few, for people only what is
//! worth a look when they are many, and how many became what.

use console::style;
use serde_json::json;

use super::Told;
use crate::cli::ImportArgs;
use crate::client::counter::Counter;
use crate::client::{Failure, print, table};
use crate::tally::{Became, Tally};

/// So many are few.
const FEW: usize = 50;

/// Counts and prints what is told.
pub struct Report {
    json: bool,
    replace: bool,
    dry_run: bool,
    /// The first ones, until it is known whether they are few. The kinds come each in its own stream; few are
    /// printed in the order in which they stand.
    held: Vec<Told>,
    tally: Tally,
    counter: Counter,
    /// How many bytes have their answer.
    bytes: u64,
}

impl Report {
    /// Begins, with `total` bytes to come where that is known.
    pub fn start(args: &ImportArgs, total: Option<u64>, json: bool) -> Self {
        Self {
            json,
            replace: args.replace,
            dry_run: args.dry_run,
            held: Vec::new(),
            tally: Tally::default(),
            counter: Counter::start(total),
            bytes: 0,
        }
    }

    /// Takes what is told.
    pub fn take(&mut self, some: impl IntoIterator<Item = Told>) -> Result<(), Failure> {
        for told in some {
            self.tally.count(told.became);
            self.bytes += told.place.bytes;
            self.held.push(told);
        }
        self.counter.show(self.tally.all(), self.tally.failed, self.bytes);
        if self.tally.all() > FEW as u64 { self.flush() } else { Ok(()) }
    }

    /// Prints what was held.
    pub fn flush(&mut self) -> Result<(), Failure> {
        let is_long = self.tally.all() > FEW as u64;
        let mut held = std::mem::take(&mut self.held);
        held.sort_by_key(|told| (told.place.number, told.kind.map(|kind| kind.name())));
        let lines = held.iter().filter_map(|told| match self.json {
            true => Some(told.json()),
            false => (!is_long || told.is_news()).then(|| told.line()),
        });
        let lines: Vec<String> = lines.collect();
        if lines.is_empty() {
            return Ok(());
        }
        self.counter.suspend(|| print(&lines.join("\n")))
    }

    /// Prints how many became what.
    pub fn finish(self) -> Result<(), Failure> {
        let Self { json, replace, dry_run, tally, counter, .. } = self;
        drop(counter);
        print(&if json { tally.json(dry_run).to_string() } else { tally.sentence(replace, dry_run) })?;
        if tally.failed > 0 { Err(Failure::Partly) } else { Ok(()) }
    }

    /// For whoever leaves before the end.
    pub fn farewell(&self) -> String {
        if self.dry_run {
            return "left; nothing is written".to_owned();
        }
        let so_far = self.tally.sentence(self.replace, false);
        format!("left; so far {so_far}; what was on its way may be registered too")
    }
}

impl Told {
    /// Whether it is worth a line among many.
    fn is_news(&self) -> bool {
        matches!(self.became, Became::Updated | Became::Failed)
    }

    /// Where it stands, for a person.
    fn place(&self) -> String {
        let input = table::plain(&self.place.input);
        self.place.line.map_or(input.clone(), |line| format!("{input}:{line}"))
    }

    /// For a person: one line.
    fn line(&self) -> String {
        let name = match (self.kind, &self.id) {
            (Some(kind), Some(id)) => Some(format!("{} {}", kind.name(), table::plain(id))),
            _ => None,
        };
        let became = match self.became {
            Became::Created => style("created       ").green(),
            Became::Updated => style("updated       ").yellow(),
            Became::Unchanged => style("unchanged     ").dim(),
            Became::Exists => style("exists already").dim(),
            Became::Failed => style("failed        ").red(),
        };
        match (name, &self.why) {
            (Some(name), None) => format!("{became} {name}"),
            (Some(name), Some(why)) => format!("{became} {name} in {}: {}", self.place(), why.sentence()),
            (None, why) => {
                let why = why.as_ref().map_or_else(|| "it has no id".to_owned(), |why| why.sentence());
                format!("{became} {}: {why}", self.place())
            }
        }
    }

    /// For a program: one document.
    fn json(&self) -> String {
        let mut line = json!({ "result": self.became });
        let mut put = |name: &str, value: serde_json::Value| {
            if !value.is_null() {
                line[name] = value;
            }
        };
        put("kind", json!(self.kind));
        put("id", json!(self.id));
        if let Some(why) = &self.why {
            put("file", json!(*self.place.input));
            put("line", json!(self.place.line));
            put("error", json!(why.error));
            put("code", json!(why.code));
            put("details", json!(why.details));
        }
        line.to_string()
    }
}

impl Tally {
    fn sentence(&self, replace: bool, dry_run: bool) -> String {
        let Self { created, updated, unchanged, exists, failed } = self;
        let before = if dry_run { "nothing is written, it would be: " } else { "" };
        let existing = match replace {
            true => format!("{updated} updated, {unchanged} unchanged"),
            false => format!("{exists} existed already"),
        };
        format!("{before}{created} created, {existing}, {failed} failed")
    }
}

#[cfg(test)]
mod tests {
    use actors::definition::Kind;
    use console::strip_ansi_codes;

    use super::*;
    use crate::client::Refusal;
    use crate::client::import::read::Place;

    fn told(became: Became, why: Option<&str>) -> Told {
        let place = Place { input: "a/b.jsonl".into(), line: Some(3), number: 1, bytes: 0 };
        let why = why.map(Refusal::parse);
        Told { place, kind: Some(Kind::Function), id: Some("f:v1".to_owned()), became, why }
    }

    #[test]
    fn a_failure_names_its_file_and_line() {
        let failed = told(Became::Failed, Some(r#"{"error":"no","code":"invalid","details":{"field":"x"}}"#));
        assert_eq!(
            strip_ansi_codes(&failed.line()),
            r#"failed         function f:v1 in a/b.jsonl:3: no (invalid) {"field":"x"}"#
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&failed.json()).unwrap(),
            json!({"result": "failed", "kind": "function", "id": "f:v1", "file": "a/b.jsonl", "line": 3,
                   "error": "no", "code": "invalid", "details": {"field": "x"}})
        );
        let mut place = failed.place;
        place.line = None;
        let wrong = Told::wrong(place, "it is not JSON".to_owned());
        assert_eq!(strip_ansi_codes(&wrong.line()), "failed         a/b.jsonl: it is not JSON");
    }

    #[test]
    fn what_went_well_names_itself_and_no_more() {
        assert_eq!(strip_ansi_codes(&told(Became::Exists, None).line()), "exists already function f:v1");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&told(Became::Updated, None).json()).unwrap(),
            json!({"result": "updated", "kind": "function", "id": "f:v1"})
        );
        let news = [Became::Updated, Became::Failed];
        for became in [Became::Created, Became::Updated, Became::Unchanged, Became::Exists, Became::Failed] {
            assert_eq!(told(became, None).is_news(), news.contains(&became), "{became:?}");
        }
    }

    #[test]
    fn the_summary_tells_what_can_have_happened() {
        let mut tally = Tally { created: 3, exists: 2, ..Tally::default() };
        tally.count(Became::Failed);
        assert_eq!(tally.sentence(false, false), "3 created, 2 existed already, 1 failed");
        let tally = Tally { updated: 4, unchanged: 5, ..Tally::default() };
        assert_eq!(
            tally.sentence(true, true),
            "nothing is written, it would be: 0 created, 4 updated, 5 unchanged, 0 failed"
        );
        assert_eq!(tally.all(), 9);
    }
}
