//! What a query gives beside what the filter says of each definition: a service that holds them narrows by its indexes, and
//! must lose none. Random filters over ids, tags and metadata; `PAIRS` says how many pairs of a filter and a definition
//! there are, and mingo is the third to be asked.

use std::collections::{BTreeMap, BTreeSet};

use actors::definition::Kind;
use actors::query::Filter;
use serde_json::{Value, json};

use crate::cancels::Dice;
use crate::filters::{Maker, NAMES, Peer, below_metadata, is_apart};
use crate::service::Launch;

/// How many definitions the service holds, and how many pairs there are unless told.
const DEFINITIONS: usize = 200;
const PAIRS: usize = 50_000;

const TAGS: [&str; 6] = ["red", "green", "blue", "round", "flat", "rare"];

fn definition(dice: &mut Maker, at: usize) -> Value {
    let mut tags: Vec<&str> = TAGS[..5].iter().copied().filter(|_| dice.roll(3) == 0).collect();
    if at.is_multiple_of(20) {
        tags.push("rare");
    }
    // Some are there twice.
    if dice.roll(10) == 0 {
        tags.extend(tags.first().copied());
    }
    let description = ["x", "y", ""][at % 3];
    json!({
        "tool_id": format!("{}-{at:03}", ["d", "e", "f.g"][at % 3]),
        "tool_search_tags": tags,
        "tool_metadata": dice.object(2),
        "tool_description": description,
        "tool_default_params": {},
    })
}

fn tag(dice: &mut Maker) -> Value {
    let tags = ["red", "green", "blue", "round", "flat", "rare", "none"];
    json!(tags[dice.roll(tags.len())])
}

/// A condition that an index may serve, or looks as if.
fn indexed(dice: &mut Maker) -> Value {
    let id = |dice: &mut Maker| {
        let at = dice.roll(DEFINITIONS + 5);
        json!(format!("{}-{at:03}", ["d", "e", "f.g"][at % 3]))
    };
    let some = |dice: &mut Maker, one: fn(&mut Maker) -> Value| {
        (0..1 + dice.roll(3)).map(|_| one(dice)).collect::<Value>()
    };
    match dice.roll(14) {
        0 => json!({ "tool_search_tags": tag(dice) }),
        1 | 2 => json!({ "tool_search_tags": { "$in": some(dice, tag) } }),
        3 => json!({ "tool_search_tags": { "$all": some(dice, tag) } }),
        4 => json!({ "tool_search_tags": { "$nin": some(dice, tag) } }),
        5 => json!({ "tool_search_tags": { "$not": { "$in": some(dice, tag) } } }),
        6 => json!({ "tool_search_tags": { "$in": [tag(dice), null] } }),
        7 => json!({ "tool_id": { "$in": (0..40).map(|_| id(dice)).collect::<Value>() } }),
        8 => json!({ "tool_id": { "$gte": id(dice), "$lt": id(dice) } }),
        9 => json!({ "tool_id": { "$gt": id(dice) } }),
        10 => {
            let patterns = ["^d", "^e-0", "^f\\.g-", "^f.g", "^d-1?0", "[0-5]$"];
            let pattern = patterns[dice.roll(6)];
            json!({ "tool_id": { "$regex": pattern } })
        }
        11 => json!({ "$or": [{ "tool_search_tags": tag(dice) }, { "tool_search_tags": tag(dice) }] }),
        12 => json!({ "$nor": [{ "tool_search_tags": tag(dice) }, { "tool_id": { "$lt": id(dice) } }] }),
        _ => json!({ "$or": [{ "tool_search_tags": tag(dice) }, { "tool_id": id(dice) }] }),
    }
}

fn filter(dice: &mut Maker, number: usize) -> (Value, Option<&'static str>) {
    match number % 3 {
        // One operator alone, each in its turn, to see that it decides both ways.
        0 => {
            let name = NAMES[number / 3 % NAMES.len()];
            let key = ["a", "b", "c"][dice.roll(3)];
            let operand = dice.operator(name, 1);
            (below_metadata(&json!({ key: { name: operand } })), Some(name))
        }
        1 => {
            let combined = ["$and", "$or"][dice.roll(2)];
            (json!({ combined: [indexed(dice), below_metadata(&dice.filter(1))] }), None)
        }
        _ => {
            let mut both = json!({ ["$and", "$or", "$nor"][dice.roll(3)]: [indexed(dice), indexed(dice)] });
            if dice.roll(3) == 0 {
                both = json!({ "$or": [both, below_metadata(&dice.filter(1))] });
            }
            (both, None)
        }
    }
}

#[tokio::test]
async fn a_query_gives_what_the_filter_matches_whatever_index_serves_it() {
    let count: usize = std::env::var("PAIRS").ok().and_then(|count| count.parse().ok()).unwrap_or(PAIRS);
    let mut dice = Maker(Dice(11));
    let definitions: Vec<Value> = (0..DEFINITIONS).map(|at| definition(&mut dice, at)).collect();
    let service = Launch::new().memory().start().await;
    // The catalog's own are none of these.
    let (_, told) = service.rest("POST", "/tools", "{}").await;
    for own in told["data"].as_array().unwrap() {
        let path = format!("/tool/{}", own["tool_id"].as_str().unwrap());
        assert_eq!(service.rest("DELETE", &path, "").await.0, 200);
    }
    for definition in &definitions {
        service.create(definition).await;
    }
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut peer = Peer::install();
    let (mut matched, mut narrowed, mut beside) = (0, 0, 0);
    let mut decided = BTreeMap::<&str, [usize; 2]>::new();
    for number in 0..count / DEFINITIONS {
        let (body, name) = filter(&mut dice, number);
        let ours = Filter::parse(Kind::Tool, &body).unwrap_or_else(|error| panic!("{error}: {body}"));
        let plan = ours.plan();
        narrowed += usize::from(
            plan.ids.is_some() || plan.from.is_some() || plan.to.is_some() || !plan.tags.is_empty(),
        );
        let expected: BTreeSet<&str> = definitions
            .iter()
            .filter(|definition| ours.matches(definition))
            .map(|definition| definition["tool_id"].as_str().unwrap())
            .collect();
        matched += expected.len();
        if let Some(name) = name {
            let both = decided.entry(name).or_default();
            both[1] += expected.len();
            both[0] += DEFINITIONS - expected.len();
        }
        let sort = ["id", "-id", "created", "-updated"][number % 4];
        let request = client.post(service.url(&format!("/tools?limit=10000&sort={sort}")));
        let request = request.header("content-type", "application/json").body(body.to_string());
        let told: Value =
            serde_json::from_slice(&request.send().await.unwrap().bytes().await.unwrap()).unwrap();
        let data = told["data"].as_array().unwrap_or_else(|| panic!("{body}: {told}"));
        let found: BTreeSet<&str> = data.iter().map(|item| item["tool_id"].as_str().unwrap()).collect();
        assert_eq!(found, expected, "{body} by {sort}");
        assert_eq!(data.len(), expected.len(), "{body} gives one twice");
        if let Some(peer) = &mut peer {
            for definition in definitions.iter().filter(|definition| !is_apart(&body, definition)) {
                let id = definition["tool_id"].as_str().unwrap();
                peer.ask(body.clone(), definition.clone(), expected.contains(id));
                beside += 1;
            }
        }
    }
    let different = peer.map_or_else(Vec::new, Peer::different);
    let shown = different.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    let count = count / DEFINITIONS * DEFINITIONS;
    println!(
        "{count} pairs, {matched} match, {narrowed} of {} filters are narrowed by an index, {beside} pairs beside mingo; \
         by operator [not, yes]: {decided:?}",
        count / DEFINITIONS
    );
    assert!(different.is_empty(), "{} differ:\n{shown}", different.len());
    assert!(matched * 5 >= count, "only {matched} of {count} match");
    assert!(narrowed * 8 >= count / DEFINITIONS, "only {narrowed} filters are narrowed");
    // A few filters of each operator say little of how often it decides which way.
    let least = if count >= 500_000 { 100 } else { 1_000 };
    for (name, [no, yes]) in decided {
        let least = (no + yes) / least;
        assert!(no >= least && yes >= least, "{name} decides {no} no and {yes} yes");
    }
}
