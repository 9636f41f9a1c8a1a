//! The registry beyond single calls: revisions, orders and pages, searches, many definitions at a time.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::client::client;
use crate::program::{function, shell, tool};
use crate::service::{Launch, Service};

fn described(id: &str, tags: &[&str], description: &str) -> Value {
    json!({
        "tool_id": id, "tool_search_tags": tags, "tool_metadata": {}, "tool_description": description,
        "tool_default_params": {}
    })
}

/// The ids that a query finds, over all of its pages of this size.
async fn ids(service: &Service, filter: &Value, parameters: &str, limit: usize) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/tools?limit={limit}{parameters}{cursor}");
        let (status, told) = service.rest("POST", &path, &filter.to_string()).await;
        assert_eq!(status, 200, "{told}");
        let page = told["data"].as_array().unwrap();
        found.extend(page.iter().map(|item| item["tool_id"].as_str().unwrap().to_owned()));
        match told["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

/// Sends JSON lines: the answer's lines.
async fn lines(service: &Service, path: &str, body: String) -> Vec<Value> {
    let request = service.client().post(service.url(path)).header("content-type", "application/x-ndjson");
    let answer = request.body(body).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    let text = answer.text().await.unwrap();
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[tokio::test]
async fn each_write_is_a_revision_that_can_be_read_and_rolled_back_to() {
    let service = Service::start().await;
    service.create(&tool("x", json!({ "runtime": "binary", "entrypoint": "cat", "n": 1.50 }))).await;
    let first = service.rest("GET", "/tool/x", "").await.1["data"].clone();
    let update = json!({ "tool_metadata": { "n": 2 }, "tool_description": "second" }).to_string();
    assert_eq!(service.rest("PUT", "/tool/x", &update).await.0, 200);
    let (status, told) = service.rest("GET", "/tool/x/revisions", "").await;
    assert_eq!(status, 200, "{told}");
    let numbers: Vec<_> = told["data"].as_array().unwrap().iter().map(|one| &one["revision"]).collect();
    assert_eq!(json!(numbers), json!([2, 1]));
    assert_eq!(told["data"][0]["in_force"], true);
    assert_eq!(told["data"][1]["in_force"], false);
    let (status, old) = service.rest("GET", "/tool/x/revisions/1", "").await;
    assert_eq!((status, &old["data"]), (200, &first));
    // By its own call, and by PUT of what it was.
    let (status, told) = service.rest("PUT", "/tool/x/revisions/1", "").await;
    assert_eq!((status, &told["data"]["revision"]), (200, &json!(3)), "{told}");
    assert_eq!(service.rest("GET", "/tool/x", "").await.1["data"], first);
    let (status, ran) = service.rest("POST", "/tool/x/execute?wait=30", r#"{"a":1}"#).await;
    assert_eq!(
        (status, &ran["data"]["output"], &ran["data"]["revision"]),
        (200, &json!({ "a": 1 }), &json!(3))
    );
    let second = service.rest("GET", "/tool/x/revisions/2", "").await.1["data"].clone();
    assert_eq!(service.rest("PUT", "/tool/x", &second.to_string()).await.0, 200);
    assert_eq!(service.rest("GET", "/tool/x/revisions/4", "").await.1["data"], second);
    for (path, status) in [
        ("/tool/x/revisions/9", 404),
        ("/tool/x/revisions/0", 400),
        ("/tool/x/revisions/first", 400),
        ("/tool/none/revisions", 404),
        ("/tool/none/revisions/1", 404),
    ] {
        assert_eq!(service.rest("GET", path, "").await.0, status, "{path}");
    }
    // What bears the id after it was removed has a history of its own.
    assert_eq!(service.rest("DELETE", "/tool/x", "").await.0, 200);
    service.create(&tool("x", json!({}))).await;
    let (_, told) = service.rest("GET", "/tool/x/revisions", "").await;
    assert_eq!(told["data"].as_array().unwrap().len(), 1, "{told}");
    assert_eq!(service.rest("PUT", "/tool/x/revisions/2", "").await.0, 404);
}

#[tokio::test]
async fn a_revision_is_guarded_by_if_match_also_in_a_roll_back() {
    let service = Service::start().await;
    service.create(&tool("x", json!({}))).await;
    assert_eq!(service.rest("PUT", "/tool/x", r#"{"tool_description":"new"}"#).await.0, 200);
    let (_, told) = service.rest("GET", "/tool/x/revisions", "").await;
    let etag = |at: usize| told["data"][at]["etag"].as_str().unwrap().to_owned();
    for (etag, status) in [(etag(1), 412), (etag(0), 200), (etag(0), 412)] {
        let request = service.client().put(service.url("/tool/x/revisions/1")).header("if-match", etag);
        assert_eq!(request.send().await.unwrap().status().as_u16(), status);
    }
}

/// Ten clients write in rounds, each from the revision that it has read: one wins each round.
#[tokio::test]
async fn of_those_that_write_from_the_same_revision_one_wins() {
    const ROUNDS: usize = 20;
    let service = Service::start().await;
    service.create(&tool("x", json!({}))).await;
    for round in 0..ROUNDS {
        let etag = service.client().get(service.url("/tool/x")).send().await.unwrap();
        let etag = etag.headers()["etag"].to_str().unwrap().to_owned();
        let writes = (0..10).map(|client| {
            let body = json!({ "tool_description": format!("{round} by {client}") }).to_string();
            let request = service.client().put(service.url("/tool/x")).header("if-match", &etag);
            request.header("content-type", "application/json").body(body).send()
        });
        let answers = futures_util::future::join_all(writes).await;
        let mut statuses: Vec<u16> =
            answers.into_iter().map(|answer| answer.unwrap().status().as_u16()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [vec![200], vec![412; 9]].concat());
    }
    let (_, told) = service.rest("GET", "/tool/x/revisions", "").await;
    assert_eq!(told["data"][0]["revision"], ROUNDS + 1);
}

#[tokio::test]
async fn pages_follow_each_order_and_stay_whole_while_others_write() {
    let service = Service::start().await;
    let names: Vec<String> = (0..25).map(|at| format!("t{:02}", (at * 7) % 25)).collect();
    for name in &names {
        service.create(&described(name, &["all"], "")).await;
    }
    for name in names.iter().rev().take(10) {
        assert_eq!(
            service.rest("PUT", &format!("/tool/{name}"), r#"{"tool_tags":["all","new"]}"#).await.0,
            200
        );
    }
    let mut sorted = names.clone();
    sorted.sort();
    let mut updated = names[..15].to_vec();
    updated.extend(names.iter().rev().take(10).cloned());
    let reversed = |list: &[String]| list.iter().rev().cloned().collect::<Vec<_>>();
    // What was written within the same millisecond stands in the order of its ids, so only the set is sure there.
    for (sort, expected) in [("id", &sorted), ("-id", &reversed(&sorted))] {
        for filter in [json!({ "tool_id": { "$regex": "^t[0-9]" } }), json!({ "tool_search_tags": "all" })] {
            for limit in [1, 7, 25] {
                assert_eq!(&ids(&service, &filter, &format!("&sort={sort}"), limit).await, expected);
            }
        }
    }
    for sort in ["created", "-created", "updated", "-updated"] {
        for filter in [json!({ "tool_id": { "$regex": "^t[0-9]" } }), json!({ "tool_search_tags": "new" })] {
            let whole = ids(&service, &filter, &format!("&sort={sort}"), 1_000).await;
            for limit in [1, 4] {
                assert_eq!(ids(&service, &filter, &format!("&sort={sort}"), limit).await, whole, "{sort}");
            }
        }
    }
    let whole = ids(&service, &json!({ "tool_search_tags": "all" }), "&sort=-updated", 1_000).await;
    let (front, back): (BTreeSet<_>, BTreeSet<_>) =
        (whole[..10].iter().collect(), names.iter().rev().take(10).collect());
    assert_eq!(front, back);
    // Between two pages one is removed, one is added before and one behind.
    let first = service.rest("POST", "/tools?limit=10", r#"{"tool_tags":"all"}"#).await.1;
    service.rest("DELETE", "/tool/t03", "").await;
    service.create(&described("a-first", &["all"], "")).await;
    service.create(&described("z-last", &["all"], "")).await;
    let path = format!("/tools?limit=100&cursor={}", first["next"].as_str().unwrap());
    let (_, rest) = service.rest("POST", &path, r#"{"tool_tags":"all"}"#).await;
    let rest: Vec<_> = rest["data"].as_array().unwrap().iter().map(|item| &item["tool_id"]).collect();
    let expected: Vec<_> = sorted[10..].iter().map(String::as_str).chain(["z-last"]).collect();
    assert_eq!(json!(rest), json!(expected));
    for bad in [
        "sort=age",
        "sort=relevance",
        "cursor=zz",
        &format!("sort=-id&cursor={}", first["next"].as_str().unwrap()),
    ] {
        let (status, told) = service.rest("POST", &format!("/tools?{bad}"), "{}").await;
        assert_eq!(status, 400, "{bad}: {told}");
    }
}

#[tokio::test]
async fn a_search_ranks_forgives_and_finds_what_was_just_written() {
    let service = Service::start().await;
    for (id, tags, description) in [
        ("forecast", &["weather", "daily"][..], "Tells the temperature of tomorrow"),
        ("weather-map", &["maps"], "Draws clouds over a country"),
        ("umbrella", &["shop"], "Recommends one, by the weather of the day"),
        ("sum", &["math"], "Adds numbers"),
    ] {
        service.create(&described(id, tags, description)).await;
    }
    let search = |words: &str| json!({ "$text": { "$search": words } });
    assert_eq!(ids(&service, &search("weather"), "", 10).await, ["weather-map", "forecast", "umbrella"]);
    assert_eq!(ids(&service, &search("weather"), "", 1).await, ["weather-map", "forecast", "umbrella"]);
    assert_eq!(
        ids(&service, &search("weather"), "&sort=id", 2).await,
        ["forecast", "umbrella", "weather-map"]
    );
    assert_eq!(ids(&service, &search("wether temprature"), "", 1).await.len(), 3);
    assert_eq!(ids(&service, &search("weath -daily"), "", 10).await, ["weather-map", "umbrella"]);
    assert_eq!(ids(&service, &search("\"weather of the day\""), "", 10).await, ["umbrella"]);
    let both = json!({ "$and": [search("weather"), { "tool_search_tags": { "$in": ["shop", "maps"] } }] });
    assert_eq!(ids(&service, &both, "", 1).await, ["weather-map", "umbrella"]);
    assert_eq!(service.rest("PUT", "/tool/sum", r#"{"tool_description":"Weather by numbers"}"#).await.0, 200);
    assert_eq!(ids(&service, &search("weather"), "", 10).await.len(), 4);
    assert_eq!(service.rest("DELETE", "/tool/weather-map", "").await.0, 200);
    assert_eq!(ids(&service, &search("weather"), "", 10).await.len(), 3);
    for bad in [
        json!({ "$or": [search("x"), {}] }),
        json!({ "$text": "x" }),
        json!({ "tool_id": { "$text": { "$search": "x" } } }),
        json!({ "$nor": [search("x")] }),
        json!({ "$text": { "$search": "x", "$language": "en" } }),
    ] {
        let (status, told) = service.rest("POST", "/tools", &bad.to_string()).await;
        assert_eq!((status, &told["code"]), (400, &json!("invalid")), "{bad}: {told}");
        assert!(told["details"]["field"].as_str().unwrap().contains("$text"), "{told}");
    }
}

#[tokio::test]
async fn pages_by_relevance_are_exact_whatever_is_written_between_them() {
    let service = Service::start().await;
    let mut body = String::new();
    for at in 0..250 {
        let words = if at % 2 == 0 { "common" } else { "rare and longer" };
        body += &format!("{}\n", described(&format!("w{at:03}"), &["of-a-walk"], words));
    }
    lines(&service, "/tools/import", body).await;
    let search = json!({ "$text": { "$search": "common rare" } }).to_string();
    let (status, whole) = service.rest("POST", "/tools?limit=1000", &search).await;
    assert_eq!(status, 200, "{whole}");
    let id = |tool: &Value| tool["tool_id"].as_str().unwrap().to_owned();
    let mut expected: Vec<_> = whole["data"].as_array().unwrap().iter().map(id).collect();
    assert_eq!(expected.len(), 250);
    let (mut found, mut path) = (Vec::new(), "/tools?limit=40".to_owned());
    loop {
        let (status, page) = service.rest("POST", &path, &search).await;
        assert_eq!(status, 200, "{page}");
        found.extend(page["data"].as_array().unwrap().iter().map(id));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/tools?limit=40&cursor={next}");
        // These move the scores of all, and what is common becomes rarer than what was rare.
        for more in 0..40 {
            service.create(&described(&format!("x{}-{more}", found.len()), &[], "rare")).await;
        }
        let gone = expected.pop().unwrap();
        assert_eq!(service.rest("DELETE", &format!("/tool/{gone}"), "").await.0, 200);
    }
    assert_eq!(found, expected);
    // A cursor of a search that is not held any more says so.
    let folder = service.folder();
    drop(service);
    let service = Launch::on(folder).start().await;
    let (status, told) = service.rest("POST", &path, &search).await;
    assert_eq!((status, &told["details"]["field"]), (400, &json!("cursor")), "{told}");
    assert!(told["error"].as_str().unwrap().contains("begin again"), "{told}");
}

#[tokio::test]
async fn a_search_finds_the_same_after_the_process_was_killed_and_after_its_index_was_lost() {
    let service = Service::start().await;
    for at in 0..50 {
        service.create(&described(&format!("kept-{at:02}"), &["tagged"], "durable words")).await;
    }
    let search = json!({ "$text": { "$search": "durable" } });
    let before = ids(&service, &search, "", 100).await;
    assert_eq!(before.len(), 50);
    service.create(&described("kept-late", &[], "durable words")).await;
    assert_eq!(service.rest("DELETE", "/tool/kept-00", "").await.0, 200);
    let folder = service.folder();
    drop(service);
    let service = Launch::on(folder.clone()).start().await;
    let after: BTreeSet<String> = ids(&service, &search, "", 100).await.into_iter().collect();
    let mut expected: BTreeSet<String> = before.into_iter().collect();
    expected.remove("kept-00");
    expected.insert("kept-late".into());
    assert_eq!(after, expected);
    assert!(service.stop().await.success());
    std::fs::remove_dir_all(folder.path().join("data/search")).unwrap();
    let service = Launch::on(folder).start().await;
    let again: BTreeSet<String> = ids(&service, &search, "", 100).await.into_iter().collect();
    assert_eq!(again, expected);
}

#[tokio::test]
async fn an_import_tells_of_each_line_and_an_export_gives_all_back_byte_for_byte() {
    let service = Service::start().await;
    service.create(&described("there", &[], "stays")).await;
    let mut body = String::new();
    for at in 0..1_200 {
        body += &format!(
            "{{\"tool_id\":\"many-{at:04}\",\"tool_tags\":[\"bulk\"],\"tool_metadata\":{{\"n\":{at}.50,\"big\":18446744073709551615}}}}\n"
        );
    }
    body += "\n{\"tool_id\":\"there\",\"tool_description\":\"other\"}\n";
    body += "not json\n{\"tool_id\":\"a/b\"}\n{\"tool_id\":\"x\",\"tool_metadata\":{\"runtime\":\"cobol\"}}\n[1]\n";
    body += "{\"tool_id\":\"twice\",\"tool_description\":\"1\"}\n{\"tool_id\":\"twice\",\"tool_description\":\"2\"}";
    let dry = lines(&service, "/tools/import?dry_run=true", body.clone()).await;
    let told = lines(&service, "/tools/import", body.clone()).await;
    assert_eq!(dry[..dry.len() - 1], told[..told.len() - 1]);
    assert_eq!(told.len(), 1_200 + 7 + 1);
    assert_eq!(told[0], json!({ "line": 1, "id": "many-0000", "result": "created" }));
    // The line without anything on it counts, and is passed over.
    assert_eq!(told[1_200], json!({ "line": 1_202, "id": "there", "result": "exists" }));
    for (at, field) in [(1_202, Some("tool_id")), (1_203, Some("tool_metadata.runtime"))] {
        assert_eq!(told[at]["result"], "failed", "{}", told[at]);
        assert_eq!(told[at]["details"]["field"].as_str(), field, "{}", told[at]);
    }
    assert_eq!(told[1_201]["code"], "invalid");
    assert_eq!((&told[1_205]["result"], &told[1_206]["result"]), (&json!("created"), &json!("exists")));
    let summary = json!({
        "success": true,
        "data": { "created": 1_201, "updated": 0, "unchanged": 0, "exists": 2, "failed": 4, "dry_run": false }
    });
    assert_eq!(told[told.len() - 1], summary);
    let replaced = lines(&service, "/tools/import?existing=replace", body).await;
    let data = &replaced[replaced.len() - 1]["data"];
    // `twice` is another one twice more; the rest is as it was.
    assert_eq!((&data["updated"], &data["unchanged"]), (&json!(2), &json!(1_201)), "{data}");
    let (_, revisions) = service.rest("GET", "/tool/twice/revisions", "").await;
    assert_eq!(revisions["data"].as_array().unwrap().len(), 2, "{revisions}");

    let filter = "%7B%22tool_tags%22%3A%22bulk%22%7D";
    let (status, exported) = service.rest_text("GET", &format!("/tools/export?filter={filter}"), "").await;
    assert_eq!((status, exported.lines().count()), (200, 1_200));
    let other = Service::start().await;
    lines(&other, "/tools/import", exported.clone()).await;
    let (_, again) = other.rest_text("GET", &format!("/tools/export?filter={filter}"), "").await;
    assert_eq!(exported, again);
    assert!(exported.contains("\"n\":7.50,\"big\":18446744073709551615"));
    for (path, body) in [("/tools/import?existing=maybe", "{}"), ("/tools/import?dry_run=1", "{}")] {
        let request = service.client().post(service.url(path)).header("content-type", "application/x-ndjson");
        assert_eq!(request.body(body).send().await.unwrap().status().as_u16(), 400, "{path}");
    }
    assert_eq!(service.rest("POST", "/tools/import", "{}").await.0, 415);
    assert_eq!(service.rest("GET", "/tools/export?filter=%7B%22a%22%3A1%7D", "").await.0, 400);
}

#[tokio::test]
async fn a_line_that_is_too_long_is_refused_and_the_next_is_taken() {
    let service = Launch::new().set("REST__BODY_BYTES", 2_000).start().await;
    let long = described("long", &[], &"x".repeat(3_000));
    let body = format!("{}\n{long}\n{}", described("a", &[], ""), described("b", &[], ""));
    let told = lines(&service, "/tools/import", body).await;
    let results: Vec<_> = told.iter().map(|line| &line["result"]).collect();
    assert_eq!(json!(results), json!(["created", "failed", "created", null]));
    assert_eq!(told[1]["code"], "too_large");
}

/// A client sends a line, waits for its answer, and sends the next.
#[tokio::test]
async fn an_import_answers_while_the_body_is_still_coming() {
    use futures_util::StreamExt;
    let service = Service::start().await;
    let (sender, mut waiting) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(1);
    let body = futures_util::stream::poll_fn(move |context| waiting.poll_recv(context));
    let request = service.client().post(service.url("/functions/import"));
    let request = request.header("content-type", "application/x-ndjson");
    let answering = tokio::spawn(request.body(reqwest::Body::wrap_stream(body)).send());
    sender.send(Ok(format!("{}\n", function("one:v1.0.0", json!({}))))).await.unwrap();
    let mut told = answering.await.unwrap().unwrap().bytes_stream();
    let first = told.next().await.unwrap().unwrap();
    assert!(std::str::from_utf8(&first).unwrap().contains("one:v1.0.0"));
    sender.send(Ok(format!("{}\n", function("two:v1.0.0", json!({}))))).await.unwrap();
    let second = told.next().await.unwrap().unwrap();
    assert!(std::str::from_utf8(&second).unwrap().contains("two:v1.0.0"));
    drop(sender);
    let last = told.next().await.unwrap().unwrap();
    assert!(std::str::from_utf8(&last).unwrap().contains("\"created\":2"));
}

#[tokio::test]
async fn a_removed_version_gives_way_to_the_next() {
    let service = Service::start().await;
    for version in ["v1.0.0", "v1.1.0", "v2.0.0"] {
        let metadata =
            json!({ "runtime": "binary", "entrypoint": "echo", "args": [version], "output": "text" });
        service.create(&function(&format!("greet:{version}"), metadata)).await;
    }
    for (asked, removed, ran) in [
        ("greet", "greet:v2.0.0", "v2.0.0"),
        ("greet", "", "v1.1.0"),
        ("greet:latest", "", "v1.1.0"),
        ("greet:^1.0", "greet:v1.1.0", "v1.1.0"),
        ("greet:^1.0", "", "v1.0.0"),
    ] {
        let output = service.run("function", asked, json!({})).await.output().clone();
        assert_eq!(output["stdout"].as_str().unwrap().trim(), ran, "{asked}");
        if !removed.is_empty() {
            assert_eq!(service.rest("DELETE", &format!("/function/{removed}"), "").await.0, 200);
        }
    }
}

#[tokio::test]
async fn who_runs_what_is_deprecated_is_told() {
    let service = Service::start().await;
    let metadata = json!({ "runtime": "binary", "entrypoint": "cat", "deprecated": "use `y` instead" });
    service.create(&function("old:v1.0.0", metadata.clone())).await;
    service.create(&tool("x", metadata)).await;
    // Once while nobody knows the definition, and once when it is kept ready.
    for _ in 0..2 {
        let talk = service.run("function", "old", json!({ "a": 1 })).await;
        assert_eq!(talk.frames[0]["warning"], "use `y` instead", "{talk:?}");
        assert_eq!(*talk.output(), json!({ "a": 1 }));
    }
    for (path, key) in [("/tool/x/execute", "uuid"), ("/tool/x/execute?wait=30", "output")] {
        let (status, told) = service.rest("POST", path, "{}").await;
        assert!([200, 202].contains(&status), "{told}");
        assert_eq!(told["data"]["warning"], "use `y` instead", "{told}");
        assert!(!told["data"][key].is_null(), "{told}");
    }
    let mut socket = service.socket("/session").await;
    socket.send(r#"{"id":1,"tool_id":"x","input_data":{}}"#).await;
    let accepted = socket.frame().await;
    assert_eq!(accepted.unwrap()["warning"], "use `y` instead");
    let said = client(&service, "run tool x {\"a\":1}").await;
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), "warning: use `y` instead\n"));
    assert_eq!(said.stdout, "{\n  \"a\": 1\n}\n");
    service.create(&tool("new", json!({ "runtime": "binary", "entrypoint": "cat" }))).await;
    assert!(service.run("tool", "new", json!({})).await.frames[0].get("warning").is_none());
}

#[tokio::test]
async fn definitions_that_come_together_are_each_answered() {
    let service = Launch::new().start().await;
    // Each twice, and now and then one that is refused for itself.
    let creating = (0..120).map(async |number| {
        let mut definition = tool(&format!("together-{}", number % 60), shell("printf 1"));
        if number >= 110 {
            definition["tool_metadata"]["limits"] = json!({ "timeout_ms": "soon" });
        }
        service.rest("POST", "/tool", &definition.to_string()).await
    });
    let answers = futures_util::future::join_all(creating).await;
    let count = |status: u16| answers.iter().filter(|(answer, _)| *answer == status).count();
    let refused = count(422) + count(400);
    assert_eq!((count(201), count(409), refused), (60, 50, 10), "{answers:?}");
    for number in 0..60 {
        let (status, answer) = service.rest("GET", &format!("/tool/together-{number}"), "").await;
        assert_eq!(status, 200, "{answer}");
    }
    let filter = json!({ "tool_id": { "$regex": "^together-" } });
    assert_eq!(ids(&service, &filter, "", 50).await.len(), 60);
}
