//! Strings that break naive services, in every field and every place of a filter: each comes back byte for byte, is found by
//! itself, and changes nothing else. The list is the Big List of Naughty Strings, which npm installs into a folder of the
//! test's own; where it cannot, the test says so and goes on with the strings below, which aim at this store.

use std::process::Command;

use serde_json::{Value, json};

use crate::npm;
use crate::service::{Launch, Service};

const LIST: &str = "blns@2.0.4";

/// Statements, operators and paths of the query language below, and of others.
const OWN: [&str; 24] = [
    "'; DELETE tool; --",
    "\"; REMOVE TABLE tool; //",
    "`; DELETE tool; `",
    "⟨x⟩; DELETE tool",
    "$record",
    "$tags_a",
    "tool:⟨x⟩",
    "tool:`x`",
    "type::record('tool', 'x')",
    "|tool:1000|",
    "{ RETURN DELETE tool }",
    "(DELETE tool RETURN BEFORE)",
    "<future> { DELETE tool }",
    "x' OR 1=1",
    "x' OR true; UPDATE tool SET definition = '{}'",
    "{\"$gt\":\"\"}",
    "{\"$where\":\"sleep(1000)\"}",
    "function() { return true }",
    "/* */ DELETE tool /*",
    "\\'; DELETE tool; --",
    "fn::x()",
    "1..=9",
    "*",
    "tool_id:*",
];

/// The strings; those that a field of one line can hold.
fn strings() -> Vec<String> {
    let mut strings: Vec<String> = OWN.iter().map(|text| (*text).to_owned()).collect();
    if let Some(folder) = npm::installed(LIST) {
        let script = "process.stdout.write(JSON.stringify(require('blns')))";
        let list = Command::new("node").args(["-e", script]).current_dir(folder.path()).output().unwrap();
        let list: Value = serde_json::from_slice(&list.stdout).expect("the list is JSON");
        strings.extend(texts(&list));
    }
    strings.sort_unstable();
    strings.dedup();
    strings
}

/// All strings in a value, however the list is laid out.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(map) => map.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

/// A string in every field but the id, which has one of its own.
fn definition(id: &str, text: &str) -> Value {
    json!({
        "tool_id": id,
        "tool_search_tags": [text],
        "tool_metadata": { "value": text, "key": { text: text }, "list": [text, [text]] },
        "tool_description": text,
        "tool_default_params": { text: text },
    })
}

async fn found(service: &Service, filter: &Value) -> (u16, Vec<String>) {
    let (status, told) = service.rest("POST", "/tools?limit=10000", &filter.to_string()).await;
    let data = told["data"].as_array().cloned().unwrap_or_default();
    (status, data.iter().map(|item| item["tool_id"].as_str().unwrap().to_owned()).collect())
}

#[tokio::test]
async fn a_naughty_string_comes_back_as_it_is_and_changes_nothing_else() {
    let strings = strings();
    let service = Launch::new().start().await;
    let bystander = definition("bystander", "nothing special");
    service.create(&bystander).await;
    let is_id = |text: &str| {
        (1..=256).contains(&text.chars().count())
            && !text.contains(['/'])
            && !text.chars().any(char::is_control)
            && ![".", "..", "register", "refresh", "import", "export"].contains(&text)
    };
    let (mut as_ids, mut searched) = (0, 0);
    for (at, text) in strings.iter().enumerate() {
        let id = format!("row-{at:04}");
        let row = definition(&id, text);
        service.create(&row).await;
        let (status, told) = service.rest("GET", &format!("/tool/{id}"), "").await;
        assert_eq!((status, &told["data"]), (200, &row), "{text:?}");
        // As an id, where it can be one.
        let body = json!({ "tool_id": text }).to_string();
        let (status, told) = service.rest("POST", "/tool", &body).await;
        assert_eq!(status, if is_id(text) { 201 } else { 400 }, "{text:?}: {told}");
        if is_id(text) {
            as_ids += 1;
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            for path in [format!("/tool/{encoded}"), format!("/tool/{encoded}/revisions/1")] {
                let (status, told) = service.rest("GET", &path, "").await;
                assert_eq!((status, &told["data"]["tool_id"]), (200, &json!(text)), "{path}");
            }
            assert_eq!(found(&service, &json!({ "tool_id": text })).await, (200, vec![text.clone()]));
            assert_eq!(service.rest("DELETE", &format!("/tool/{encoded}"), "").await.0, 200);
        }
        // In every place of a filter that takes a value.
        let rows = (200, vec![id.clone()]);
        for filter in [
            json!({ "tool_search_tags": text }),
            json!({ "tool_search_tags": { "$in": [text, format!("no {text}")] } }),
            json!({ "tool_search_tags": { "$all": [text] } }),
            json!({ "tool_search_tags": { "$elemMatch": { "$eq": text } } }),
            json!({ "tool_description": text }),
            json!({ "tool_metadata.value": { "$eq": text } }),
            json!({ "tool_metadata.list": text, "tool_id": { "$gte": "row" } }),
            json!({ "tool_metadata.key": { text: text } }),
            json!({ "tool_default_params": { "$in": [{ text: text }] } }),
            json!({ "$or": [{ "tool_metadata.value": text }, { "tool_search_tags": text }] }),
            json!({ "tool_id": id, "tool_description": { "$gte": text, "$lte": text } }),
        ] {
            // A key with a `$` is taken for an operator inside a plain value, and refused.
            let refused =
                text.starts_with('$') && filter.to_string().contains(&json!({ text: text }).to_string());
            let expected = if refused { (400, Vec::new()) } else { rows.clone() };
            assert_eq!(found(&service, &filter).await, expected, "{filter}");
        }
        // As a name, a pattern and a search it may be refused, and never more.
        let name = format!("tool_metadata.key.{text}");
        for filter in [
            json!({ text: 1 }),
            json!({ name: text }),
            json!({ "tool_description": { text: 1 } }),
            json!({ "tool_description": { "$regex": text } }),
            json!({ "tool_id": { "$regex": "x", "$options": text } }),
            json!({ "tool_id": { "$type": text } }),
            json!({ "$text": { "$search": text } }),
        ] {
            let (status, ids) = found(&service, &filter).await;
            assert!([200, 400].contains(&status), "{filter}: {status}");
            searched += usize::from(status == 200 && !ids.is_empty());
        }
        for path in ["/tools?sort=", "/tools?cursor=", "/tools?limit=", "/tools/export?filter="] {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let method = if path.contains("export") { "GET" } else { "POST" };
            let body = if method == "GET" { "" } else { "{}" };
            let (status, told) = service.rest(method, &format!("{path}{encoded}"), body).await;
            let is_default = text.is_empty() || text.parse::<usize>().is_ok();
            assert!(status == 400 || (status == 200 && is_default), "{path}{text:?}: {status} {told}");
        }
    }
    println!("{} strings, {as_ids} of them as ids, {searched} filters found something", strings.len());
    // Every row is what it was.
    assert_eq!(service.rest("GET", "/tool/bystander", "").await.1["data"], bystander);
    let (status, told) =
        service.rest("POST", "/tools?limit=10000", r#"{"tool_id":{"$regex":"^row-"}}"#).await;
    assert_eq!(status, 200);
    let rows: Vec<Value> = told["data"].as_array().unwrap().clone();
    let expected: Vec<Value> =
        strings.iter().enumerate().map(|(at, text)| definition(&format!("row-{at:04}"), text)).collect();
    assert_eq!(rows, expected);
}
