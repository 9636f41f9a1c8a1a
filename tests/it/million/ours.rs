//! This service under the measurement, by REST over one connection that stays open.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::asked::{Asked, Search};
use super::made::{Made, RARE};
use super::table::{
    COMPOUND, CREATE, DISK, FIRST_PAGE, FLOOR, FREQUENT, GET, LATER_PAGE, LOAD, LOADED, NEWEST, PAIR, PEAK,
    PREFIX, RESIDENT, START, TAG, TYPO, Table, timed,
};
use super::{LAST_PAGE, PAGE, STARTS};
use crate::cancels::Dice;
use crate::durable::ready;
use crate::service::{Launch, PATIENCE, Service};

/// How large the body of one import gets, which is below what a body may have.
const IMPORT_BYTES: usize = 3_000_000;

struct Ours<'a> {
    service: Service,
    client: reqwest::Client,
    made: &'a Made,
    asked: &'a Asked,
}

/// Loads, starts again, asks.
pub async fn measure(made: &Made, asked: &Asked, table: &mut Table) {
    let mut ours = Ours { service: Service::start().await, client: client(), made, asked };
    // The catalog is there already.
    let (_, catalog) = ours.query("limit=10000", &json!({})).await;
    let catalog: Vec<String> = catalog.iter().map(|item| id_of(item).to_owned()).collect();
    let took = ours.load().await;
    table.put(LOAD, format!("{:.0}", made.count as f64 / took.as_secs_f64()));
    table.put(LOADED, ours.service.resident_kib() / 1_024);
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let took;
        (ours.service, took) = started_again(ours.service).await;
        starts.push(took);
    }
    starts.sort_unstable();
    table.put(START, starts[STARTS / 2].as_millis());
    ours.ask(table).await;
    ours.page(&catalog, table).await;
    ours.write(table).await;
    table.put(RESIDENT, ours.service.resident_kib() / 1_024);
    table.put(PEAK, ours.service.memory_kib("VmHWM") / 1_024);
    table.put(DISK, disk_kib(&ours.service.path("data")) / 1_024);
    assert!(ours.service.stop().await.success());
}

/// Ended as an operator ends it: how long the next one took until it took work.
async fn started_again(mut service: Service) -> (Service, Duration) {
    service.signal(Signal::SIGTERM);
    assert!(service.exit().await.success());
    let folder = service.folder();
    drop(service);
    let start = Instant::now();
    let service = Launch::on(folder).start().await;
    ready(&service).await;
    (service, start.elapsed())
}

impl Ours<'_> {
    /// How long the imports took together.
    async fn load(&self) -> Duration {
        let (mut lines, mut count, mut took) = (String::new(), 0, Duration::ZERO);
        for number in 0..self.made.count {
            lines += &self.made.definition(number).to_string();
            lines.push('\n');
            count += 1;
            if lines.len() > IMPORT_BYTES || number + 1 == self.made.count {
                took += self.import(std::mem::take(&mut lines), count).await;
                count = 0;
            }
        }
        took
    }

    async fn import(&self, lines: String, count: u64) -> Duration {
        let start = Instant::now();
        let request = self.client.post(self.service.url("/tools/import"));
        let request = request.header("content-type", "application/x-ndjson").body(lines);
        let answer = request.send().await.unwrap().text().await.unwrap();
        let took = start.elapsed();
        let last = answer.lines().last().unwrap_or_default();
        let told: Value = serde_json::from_str(last).expect(last);
        assert_eq!((&told["success"], &told["data"]["created"]), (&json!(true), &json!(count)), "{last}");
        took
    }

    /// One call: how long until its whole answer was there, and the answer.
    async fn call(&self, method: reqwest::Method, path: &str, body: Option<&Value>) -> (Duration, Value) {
        let body = body.map(Value::to_string);
        let start = Instant::now();
        let mut request = self.client.request(method, self.service.url(path));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        let took = start.elapsed();
        assert!(status.is_success(), "{path}: {text}");
        (took, serde_json::from_str(&text).expect(&text))
    }

    /// What a query finds.
    async fn query(&self, parameters: &str, filter: &Value) -> (Duration, Vec<Value>) {
        let (took, mut answer) = self.page_of(parameters, filter).await;
        let Value::Array(found) = answer["data"].take() else { panic!("no array: {answer}") };
        (took, found)
    }

    async fn page_of(&self, parameters: &str, filter: &Value) -> (Duration, Value) {
        self.call(reqwest::Method::POST, &format!("/tools?{parameters}"), Some(filter)).await
    }

    /// What only reads, without pages.
    async fn ask(&self, table: &mut Table) {
        let (get, dice) = (reqwest::Method::GET, &mut Dice(1));
        let floor = timed(async |_| self.call(get.clone(), "/healthz", None).await.0);
        table.put(FLOOR, floor.await);
        let one = timed(async |_| {
            let id = Made::id(dice.roll(self.made.count));
            let (took, answer) = self.call(get.clone(), &format!("/tool/{id}"), None).await;
            assert_eq!(answer["data"]["tool_id"], id.as_str());
            took
        });
        table.put(GET, one.await);
        let tag = timed(async |_| {
            let tag = Made::rare_tag(dice.roll(self.made.rare_tags()));
            let (took, found) = self.query("", &json!({ "tool_search_tags": tag })).await;
            assert_eq!(found.len(), RARE as usize, "{tag}");
            took
        });
        table.put(TAG, tag.await);
        let compound = timed(async |turn| {
            let compound = &self.asked.compounds[turn % self.asked.compounds.len()];
            let (took, found) = self.query("", &compound.filter()).await;
            let mut found: Vec<&str> = found.iter().map(id_of).collect();
            found.sort_unstable();
            let hits: Vec<String> = compound.hits.iter().map(|number| Made::id(*number)).collect();
            assert_eq!(found, hits, "{}", compound.filter());
            took
        });
        table.put(COMPOUND, compound.await);
        for (row, searches) in [
            (PAIR, &self.asked.pairs),
            (FREQUENT, &self.asked.frequent),
            (TYPO, &self.asked.typos),
            (PREFIX, &self.asked.prefixes),
        ] {
            self.search(row, searches, table).await;
        }
    }

    async fn search(&self, row: &'static str, searches: &[Search], table: &mut Table) {
        let search = timed(async |turn| {
            let search = &searches[turn % searches.len()];
            let (took, found) = self.query("limit=10", &search.filter()).await;
            let first = found.first().unwrap_or_else(|| panic!("{row}: nothing for {:?}", search.typed));
            assert!(search.is_met_by(first), "{row}: {:?} gives {first}", search.typed);
            assert!(found.len() <= 10, "{} hits", found.len());
            took
        });
        table.put(row, search.await);
    }

    /// The first page of all there is, and a late one, to which `next` leads.
    async fn page(&self, catalog: &[String], table: &mut Table) {
        let pages = LAST_PAGE.min(self.made.count as usize / PAGE);
        let mut ids = catalog.to_vec();
        ids.extend((0..(pages * PAGE) as u64).map(Made::id));
        ids.sort_unstable();
        let expected = |page: usize| &ids[(page - 1) * PAGE..page * PAGE];
        let mut parameters = format!("limit={PAGE}");
        for page in 1..=pages {
            if page == 1 || page == pages {
                let timing = timed(async |_| {
                    let (took, found) = self.query(&parameters, &json!({})).await;
                    assert_eq!(found.iter().map(id_of).collect::<Vec<_>>(), expected(page), "page {page}");
                    took
                });
                table.put(if page == 1 { FIRST_PAGE } else { LATER_PAGE }, timing.await);
            }
            let (_, answer) = self.page_of(&parameters, &json!({})).await;
            if page < pages {
                let next = answer["next"].as_str().unwrap_or_else(|| panic!("no page after {page}"));
                parameters = format!("limit={PAGE}&cursor={next}");
            }
        }
    }

    /// Creates some, and looks for the newest.
    async fn write(&self, table: &mut Table) {
        let mut last = 0;
        let create = timed(async |turn| {
            last = self.made.count + turn as u64;
            let definition = self.made.definition(last);
            let (took, answer) = self.call(reqwest::Method::POST, "/tool", Some(&definition)).await;
            assert_eq!(answer["data"]["id"], Made::id(last).as_str());
            took
        });
        table.put(CREATE, create.await);
        let newest = timed(async |_| {
            let (took, found) = self.query(&format!("sort=-updated&limit={PAGE}"), &json!({})).await;
            assert_eq!((found.len(), id_of(&found[0])), (PAGE, Made::id(last).as_str()));
            took
        });
        table.put(NEWEST, newest.await);
    }
}

fn id_of(definition: &Value) -> &str {
    definition["tool_id"].as_str().expect("an id")
}

/// Its one connection stays open.
fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(1).tcp_nodelay(true);
    client.timeout(PATIENCE).build().unwrap()
}

/// What a folder takes on disk.
fn disk_kib(folder: &Path) -> u64 {
    let output = Command::new("du").arg("-sk").arg(folder).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("what du says")
}
