//! PostgreSQL with the same data and the same questions, in the words of its SQL.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::asked::{Asked, Search};
use super::cluster::{Cluster, Installed};
use super::made::{Made, RARE};
use super::table::{
    COMPOUND, CREATE, DISK, EITHER, FIRST_PAGE, FLOOR, FREQUENT, GET, LATER_PAGE, LOAD, LOADED, NEWEST, PAIR,
    PREFIX, RESIDENT, START, TAG, TYPO, Table,
};
use super::{LAST_PAGE, PAGE, STARTS};

const TABLE: &str = "
create table tool (
    id text primary key,
    body jsonb not null,
    tags text[] not null,
    created_ms bigint not null,
    updated_ms bigint not null,
    search tsvector generated always as (
        to_tsvector('simple', id || ' ' || (body->>'tool_description')) || array_to_tsvector(tags)
    ) stored
)";

const INDEXES: [&str; 5] = [
    "create index on tool using gin (body jsonb_path_ops)",
    "create index on tool using gin (tags)",
    "create index on tool using gin (search)",
    "create index on tool (updated_ms, id)",
    "vacuum analyze tool",
];

/// As the manual of pg_trgm has it: the words that there are, so that the one that was meant can be looked up.
const NEAR_WORDS: [&str; 4] = [
    "create extension pg_trgm",
    "create table words as select word from ts_stat('select search from tool') where word !~ '[0-9]'",
    "create index on words using gin (word gin_trgm_ops)",
    "vacuum analyze words",
];

/// Loads, starts again, asks. It blocks, and nothing else runs meanwhile.
pub fn measure(installed: &Installed, made: &Made, asked: &Asked, table: &mut Table) {
    let mut cluster = Cluster::new(installed);
    cluster.start();
    let took = load(&cluster, made);
    table.put(LOAD, format!("{:.0}", made.count as f64 / took.as_secs_f64()));
    table.put(LOADED, cluster.resident_kib() / 1_024);
    let mut starts: Vec<Duration> = (0..STARTS).map(|_| cluster.start()).collect();
    starts.sort_unstable();
    table.put(START, starts[STARTS / 2].as_millis());
    let mut other = Other { cluster, made, asked, table };
    other.ask();
    other.search();
    other.page();
    other.write();
    let Other { cluster, table, .. } = other;
    table.put(RESIDENT, cluster.resident_kib() / 1_024);
    let bytes: u64 = cluster.sql("select pg_database_size('postgres')").parse().unwrap();
    table.put(DISK, bytes / 1_048_576);
}

/// How long it took to copy, index and analyze all.
fn load(cluster: &Cluster<'_>, made: &Made) -> Duration {
    let file = cluster.folder.path().join("copied");
    let mut lines = BufWriter::new(File::create(&file).unwrap());
    for number in 0..made.count {
        let (definition, time) = (made.definition(number), 1_700_000_000_000 + number);
        let (body, tags) = (definition.to_string().replace('\\', r"\\"), tags_of(&definition));
        writeln!(lines, "{}\t{body}\t{tags}\t{time}\t{time}", Made::id(number)).unwrap();
    }
    drop(lines);
    let start = Instant::now();
    cluster.sql(TABLE);
    let copy = r"\copy tool (id, body, tags, created_ms, updated_ms) from 'copied'";
    cluster.sql(copy);
    for statement in INDEXES.iter().chain(&NEAR_WORDS) {
        cluster.sql(statement);
    }
    let took = start.elapsed();
    fs::remove_file(file).unwrap();
    took
}

/// The other that is asked.
struct Other<'a> {
    cluster: Cluster<'a>,
    made: &'a Made,
    asked: &'a Asked,
    table: &'a mut Table,
}

impl Other<'_> {
    /// Lets scripts take turns, prepared once each.
    fn put(&mut self, row: &'static str, scripts: &[String]) {
        self.table.put(row, self.cluster.bench(scripts, "prepared"));
    }

    /// What only reads, without searches and pages.
    fn ask(&mut self) {
        let (made, asked) = (self.made, self.asked);
        self.put(FLOOR, &["select 1;".to_owned()]);
        let set = |count| format!("\\set n random(0, {})\n", count - 1);
        let one = "select body from tool where id = 'tool-' || lpad(cast(:n as text), 7, '0');";
        self.put(GET, &[set(made.count) + one]);
        let of_tag = |tag: &str| format!("select body from tool where tags @> array[{tag}]");
        let found = self.cluster.definitions(&of_tag(&format!("'{}'", Made::rare_tag(0))));
        assert_eq!(found.len(), RARE as usize);
        let any_tag = of_tag("'team-' || lpad(cast(:n as text), 5, '0')") + ";";
        self.put(TAG, &[set(made.rare_tags()) + &any_tag]);
        let mut scripts = Vec::new();
        for compound in &asked.compounds {
            let ([first, second], size) = (&compound.tags, compound.size);
            let filter = format!(
                "tags && array['{first}', '{second}'] and body @> '{{\"tool_metadata\": {{\"runtime\": \"python\"}}}}' \
                 and (body->'tool_metadata'->>'size')::numeric >= {size}"
            );
            let found = self.cluster.sql(&format!("select id from tool where {filter} order by id"));
            let hits: Vec<String> = compound.hits.iter().map(|number| Made::id(*number)).collect();
            assert_eq!(found.lines().collect::<Vec<_>>(), hits, "{filter}");
            scripts.push(format!("select body from tool where {filter};"));
        }
        self.put(COMPOUND, &scripts);
    }

    fn search(&mut self) {
        let asked = self.asked;
        let query = |text: String| format!("to_tsquery('simple', '{text}') as query");
        let all = |search: &Search| query(search.typed.replace(' ', " & "));
        let either = |search: &Search| query(search.typed.replace(' ', " | "));
        let beginning = |search: &Search| query(format!("{}:*", search.typed));
        let near = |search: &Search| {
            let typed = &search.typed;
            format!(
                "(select to_tsquery('simple', word) as query from words where word % '{typed}' \
                 order by similarity(word, '{typed}') desc limit 1) as nearest"
            )
        };
        let pairs_either: Vec<Search> = asked.pairs.iter().map(Search::either).collect();
        for (row, scripts) in [
            (PAIR, self.searches(&asked.pairs, all)),
            (EITHER, self.searches(&pairs_either, either)),
            (FREQUENT, self.searches(&asked.frequent, all)),
            (TYPO, self.searches(&asked.typos, near)),
            (PREFIX, self.searches(&asked.prefixes, beginning)),
        ] {
            self.put(row, &scripts);
        }
    }

    /// The scripts of searches, after a look whether each finds what is meant.
    fn searches(&self, searches: &[Search], query: impl Fn(&Search) -> String) -> Vec<String> {
        let script = |search: &Search| {
            let statement = format!(
                "select body from tool, {} where search @@ query order by ts_rank(search, query) desc limit 10",
                query(search)
            );
            let found = self.cluster.definitions(&statement);
            let first = found.first().unwrap_or_else(|| panic!("nothing for {:?}", search.typed));
            assert!(search.is_met_by(first), "{:?} gives {first}", search.typed);
            statement + ";"
        };
        searches.iter().map(script).collect()
    }

    /// The first page and a late one, each by where the one before it ended.
    fn page(&mut self) {
        let pages = LAST_PAGE.min(self.made.count as usize / PAGE);
        for (row, page) in [(FIRST_PAGE, 1), (LATER_PAGE, pages)] {
            let first = ((page - 1) * PAGE) as u64;
            let after = if first == 0 { String::new() } else { Made::id(first - 1) };
            let statement = format!("select body from tool where id > '{after}' order by id limit {PAGE}");
            let found = self.cluster.definitions(&statement);
            let ids: Vec<&str> = found.iter().map(|body| body["tool_id"].as_str().unwrap()).collect();
            assert_eq!(ids, (first..first + PAGE as u64).map(Made::id).collect::<Vec<_>>(), "page {page}");
            self.put(row, &[statement + ";"]);
        }
    }

    /// Creates some, each in a transaction of its own, and looks for the newest.
    fn write(&mut self) {
        let made = self.made;
        let scripts: Vec<String> = (made.count..made.count + 20)
            .map(|number| {
                let definition = made.definition(number);
                let body = definition.to_string().replace(&Made::id(number), "tool-:n").replace('\'', "''");
                let mut script = "\\set n random(100000000, 1000000000000)\n".to_owned();
                let now = "extract(epoch from clock_timestamp()) * 1000";
                let tags = tags_of(&definition);
                write!(script, "insert into tool values ('tool-:n', '{body}', '{tags}', {now}, {now});")
                    .unwrap();
                script
            })
            .collect();
        self.table.put(CREATE, self.cluster.bench(&scripts, "simple"));
        let created: u64 =
            self.cluster.sql("select count(*) from tool where id = body->>'tool_id'").parse().unwrap();
        assert!(created > made.count, "{created} definitions");
        let newest = format!("select body from tool order by updated_ms desc, id desc limit {PAGE}");
        assert_eq!(self.cluster.definitions(&newest).len(), PAGE);
        self.put(NEWEST, &[newest + ";"]);
    }
}

/// As PostgreSQL writes arrays.
fn tags_of(definition: &Value) -> String {
    let tags = definition["tool_search_tags"].as_array().unwrap();
    format!("{{{}}}", tags.iter().map(|tag| tag.as_str().unwrap()).collect::<Vec<_>>().join(","))
}
