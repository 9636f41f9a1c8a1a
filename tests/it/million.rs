//! What a registry of many definitions costs, beside PostgreSQL with the same data and the same questions. This is a
//! measurement of up to an hour: `DEFINITIONS=10000,100000,1000000 cargo test --test it million:: -- --ignored --nocapture
//! --test-threads 1`. It prints one table; what it asserts is that the answers are right.
//!
//! `made` is the data, `asked` the questions, `ours` and `postgres` (with its `cluster`) are who is asked, `table` is what came of it. Both are
//! asked over one connection, one question after the other, this service by HTTP over loopback and PostgreSQL by its own
//! protocol over a socket; a row of the table says what a question costs that asks nothing.

use asked::Asked;
use cluster::Installed;
use made::Made;
use table::{Table, grouped};

mod asked;
mod cluster;
mod made;
mod ours;
mod postgres;
mod table;

/// How many definitions there are unless told.
const DEFINITIONS: &str = "10000";

/// How many definitions a page has, and which one is late.
const PAGE: usize = 50;
const LAST_PAGE: usize = 1_000;

/// How often either is started again.
const STARTS: usize = 3;

fn sizes() -> Vec<u64> {
    let told = std::env::var("DEFINITIONS").unwrap_or_else(|_| DEFINITIONS.to_owned());
    told.split(',').map(|size| size.trim().parse().expect("a number of definitions")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of up to an hour"]
async fn a_million_definitions_beside_postgresql() {
    let (mut table, installed) = (Table::default(), Installed::find());
    for count in sizes() {
        let made = Made::new(count);
        let asked = Asked::new(&made);
        table.column(format!("ours, {}", grouped(count)));
        ours::measure(&made, &asked, &mut table).await;
        if let Some(installed) = &installed {
            table.column(format!("PostgreSQL, {}", grouped(count)));
            postgres::measure(installed, &made, &asked, &mut table);
        }
    }
    println!("\n{table}");
}
