//! The REST calls beyond the seed's examples: conflicts, revisions, ids, filters, pages.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::program::{function, tool};
use crate::service::{Launch, Service};

#[tokio::test]
async fn of_100_creations_of_one_id_one_wins() {
    let service = Service::start().await;
    let body = tool("once", json!({})).to_string();
    let creations = (0..100).map(|_| service.rest("POST", "/tool", &body));
    let mut statuses: Vec<u16> =
        futures_util::future::join_all(creations).await.iter().map(|answer| answer.0).collect();
    statuses.sort_unstable();
    let losers = [409].repeat(99);
    assert_eq!(statuses, [vec![201], losers].concat());
}

#[tokio::test]
async fn an_update_replaces_the_given_fields_and_no_other() {
    let service = Service::start().await;
    service.create(&tool("x", json!({ "a": 1, "b": 2 }))).await;
    let update = json!({ "tool_id": "x", "tool_metadata": { "a": 3 }, "tool_tags": ["new"] });
    let (status, told) = service.rest("PUT", "/tool/x", &update.to_string()).await;
    assert_eq!(status, 200, "{told}");
    assert_eq!(told["data"], json!({ "message": "Tool updated" }));
    let mut expected = tool("x", json!({ "a": 3 }));
    expected["tool_search_tags"] = json!(["new"]);
    let (_, told) = service.rest("GET", "/tool/x", "").await;
    assert_eq!(told["data"], expected);
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let service = Service::start().await;
    for (method, body) in [("GET", ""), ("PUT", "{}"), ("DELETE", "")] {
        for kind in ["tool", "function"] {
            let (status, told) = service.rest(method, &format!("/{kind}/none"), body).await;
            assert_eq!((status, &told["code"]), (404, &json!("not_found")), "{told}");
        }
    }
}

/// One call with a header: the status and the answer's ETag.
async fn call_with(service: &Service, method: &str, header: (&str, &str)) -> (u16, String) {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let update = if method == "PUT" { r#"{"tool_description":"new"}"# } else { "" };
    let request = service.client().request(method, service.url("/tool/x"));
    let request = request.header("content-type", "application/json").header(header.0, header.1).body(update);
    let answer = request.send().await.unwrap();
    let etag = answer.headers().get("etag");
    let etag = etag.map_or("", |etag| etag.to_str().unwrap()).to_owned();
    (answer.status().as_u16(), etag)
}

#[tokio::test]
async fn a_revision_answers_304_and_guards_an_update() {
    let service = Service::start().await;
    service.create(&tool("x", json!({}))).await;
    let (status, first) = call_with(&service, "GET", ("accept", "*/*")).await;
    assert_eq!(status, 200);
    assert!(!first.is_empty());
    let unchanged = call_with(&service, "GET", ("if-none-match", &first)).await;
    assert_eq!(unchanged.0, 304);
    // As what compresses answers on their way makes of it.
    let weakened = call_with(&service, "GET", ("if-none-match", &format!("\"x\", W/{first}"))).await;
    assert_eq!(weakened.0, 304);
    let stale = call_with(&service, "PUT", ("if-match", "\"never\"")).await;
    assert_eq!(stale.0, 412);
    let fresh = call_with(&service, "PUT", ("if-match", &first)).await;
    assert_eq!(fresh.0, 200);
    let again = call_with(&service, "PUT", ("if-match", &first)).await;
    assert_eq!(again.0, 412);
    let (status, second) = call_with(&service, "GET", ("if-none-match", &first)).await;
    assert_eq!(status, 200);
    assert_ne!(first, second);
}

#[tokio::test]
async fn an_id_is_kept_byte_for_byte() {
    let service = Service::start().await;
    let longest = "a".repeat(256);
    // Among them one letter in two normal forms, and what other layers might unescape.
    let ids = [
        "é",
        "e\u{301}",
        "名🦀",
        "a b",
        " ",
        "%41",
        "A",
        "a",
        "tool:⟨x⟩",
        "`x`",
        "'; --",
        "\\",
        "...",
        "x:y:z",
        "?#&=+",
        "Register",
        &longest,
    ];
    for id in ids {
        service.create(&tool(id, json!({ "of": id }))).await;
    }
    for id in ids {
        let encoded: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let (status, told) = service.rest("GET", &format!("/tool/{encoded}"), "").await;
        assert_eq!(status, 200, "{id}: {told}");
        assert_eq!(told["data"], tool(id, json!({ "of": id })));
        let talk = service.run("tool", id, json!({})).await;
        assert_ne!(talk.error().0, "Tool not registered", "{id}");
    }
    let too_long = tool(&"a".repeat(257), json!({})).to_string();
    assert_eq!(service.rest("POST", "/tool", &too_long).await.0, 400);
}

#[tokio::test]
async fn values_come_back_as_the_text_that_they_were() {
    let service = Service::start().await;
    let numbers = "[18446744073709551615,9007199254740993,1e308,0.1,-0.0,1.0,1E2,\"\\u00e9\"]";
    let body = format!(r#"{{"tool_id":"n","tool_metadata":{{"z":{numbers},"a":1}}}}"#);
    let (status, told) = service.rest_text("POST", "/tool", &body).await;
    assert_eq!(status, 201, "{told}");
    let (_, told) = service.rest_text("GET", "/tool/n", "").await;
    assert!(told.contains(numbers), "{told}");
    let query = r#"{"tool_id":"n"}"#;
    let (_, told) = service.rest_text("POST", "/tools", query).await;
    assert!(told.contains(numbers), "{told}");
}

#[tokio::test]
async fn json_may_name_its_charset() {
    let service = Service::start().await;
    let body = tool("x", json!({})).to_string();
    let request = service.client().post(service.url("/tool")).body(body);
    let request = request.header("content-type", "application/json; charset=utf-8");
    assert_eq!(request.send().await.unwrap().status(), 201);
}

/// The ids of the functions that a filter finds, in order.
async fn found(service: &Service, filter: &str) -> String {
    let (status, told) = service.rest("POST", "/functions", filter).await;
    assert_eq!(status, 200, "{filter}: {told}");
    let ids = told["data"].as_array().unwrap().iter();
    let mut ids: Vec<&str> = ids.filter_map(|f| f["function_id"].as_str()).collect();
    ids.retain(|id| id.len() == 1);
    ids.sort_unstable();
    ids.concat()
}

#[tokio::test]
async fn filters_find_what_mongodb_would() {
    let service = Service::start().await;
    for (id, tags, metadata) in [
        ("a", json!(["math", "utils"]), json!({ "n": 1, "deep": { "x": "p" } })),
        ("b", json!(["math"]), json!({ "n": 2.5, "deep": { "x": ["p", "q"] } })),
        ("c", json!(["text"]), json!({ "n": "2", "none": null })),
        ("d", json!([]), json!({})),
    ] {
        let mut definition = function(id, metadata);
        definition["function_search_tags"] = tags;
        service.create(&definition).await;
    }
    for line in FILTERS.lines().filter(|line| !line.is_empty()) {
        let (filter, ids) = line.split_once(" -> ").unwrap();
        let filter = filter.replace("TAGS", "function_search_tags");
        let filter = filter.replace("META", "function_metadata");
        let filter = filter.replace("ID", "function_id");
        let ids = ids.replace("none", "");
        assert_eq!(found(&service, &filter).await, ids, "{filter}");
    }
}

/// Filters and the ids that they find.
const FILTERS: &str = r#"
{} -> abcd
{"ID":"a"} -> a
{"ID":{"$eq":"a"}} -> a
{"ID":{"$in":["a","c","z"]}} -> ac
{"ID":{"$in":[]}} -> none
{"ID":{"$gt":"b","$lte":"d"}} -> cd
{"TAGS":"math"} -> ab
{"TAGS":{"$in":["math","text"]}} -> abc
{"TAGS":{"$all":["math","utils"]}} -> a
{"TAGS":{"$nin":["math"]},"ID":{"$in":["a","b","c","d"]}} -> cd
{"TAGS":{"$ne":"utils"},"ID":{"$in":["a","b","c","d"]}} -> bcd
{"META.n":1} -> a
{"META.n":{"$gte":1}} -> ab
{"META.n":{"$lt":2}} -> a
{"META.n":"2"} -> c
{"META.n":{"$exists":true},"ID":{"$lt":"e"}} -> abc
{"META.n":{"$exists":false},"ID":{"$in":["a","b","c","d"]}} -> d
{"META.deep.x":"p"} -> ab
{"META.deep.x":{"$all":["p","q"]}} -> b
{"META.none":null,"ID":{"$in":["a","c"]}} -> ac
{"$and":[{"TAGS":"math"},{"META.n":2.5}]} -> b
{"$or":[{"ID":"a"},{"TAGS":"text"}]} -> ac
{"$or":[{"$and":[{"ID":"a"},{"TAGS":"text"}]},{"ID":"d"}]} -> d
{"TAGS":{"$in":["'; DELETE function; --"]}} -> none
"#;

#[tokio::test]
async fn pages_give_every_definition_once() {
    let service = Service::start().await;
    for number in 0..25 {
        service.create(&tool(&format!("page-{number:02}"), json!({}))).await;
    }
    let (mut ids, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let path = format!("/tools?limit=10{cursor}");
        let filter = r#"{"tool_search_tags":"test"}"#;
        let (status, told) = service.rest("POST", &path, filter).await;
        assert_eq!(status, 200, "{told}");
        let data = told["data"].as_array().unwrap();
        assert!(data.len() <= 10, "{told}");
        ids.extend(data.iter().map(|tool| tool["tool_id"].as_str().unwrap().to_owned()));
        pages += 1;
        match told.get("next").and_then(Value::as_str) {
            Some(next) => {
                let next: String = next.bytes().map(|byte| format!("%{byte:02x}")).collect();
                cursor = format!("&cursor={next}");
            }
            None => break,
        }
    }
    ids.sort_unstable();
    let all: Vec<String> = (0..25).map(|number| format!("page-{number:02}")).collect();
    assert_eq!(ids, all);
    assert_eq!(pages, 3);
}

#[tokio::test]
async fn the_service_tells_how_it_is() {
    let service = Service::start().await;
    for path in ["/healthz", "/readyz", "/system", "/openapi.json", "/docs"] {
        let (status, text) = service.rest_text("GET", path, "").await;
        assert_eq!(status, 200, "{path}: {text}");
    }
    let (_, tree) = service.rest_text("GET", "/system", "").await;
    for actor in ["registry", "dispatcher", "pool", "sessions"] {
        assert!(tree.to_lowercase().contains(actor), "{actor}: {tree}");
    }
    let (_, paths) = service.rest("GET", "/openapi.json", "").await;
    assert!(paths["paths"].is_object(), "{paths}");
}

#[tokio::test]
async fn a_request_that_is_sent_in_half_gives_its_place_back() {
    let launch = Launch::new().set("REST__IDLE_TIMEOUT_MS", 300).set("REST__MAX_CONNECTIONS", 2);
    let service = launch.start().await;
    let address = service.url("").replace("http://", "");
    let half = "POST /tool HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let mut stalled = Vec::new();
    for text in [half, "GET /healthz HT"] {
        let mut stream = tokio::net::TcpStream::connect(address.trim_end_matches('/')).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stalled.push(stream);
    }
    let answered = tokio::time::timeout(Duration::from_secs(10), service.rest("GET", "/healthz", "")).await;
    assert_eq!(answered.expect("an answer once the stalled ones are gone").0, 200);
}
