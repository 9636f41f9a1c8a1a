//! Definitions that come from the organisation's registries.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{Answer, Asked, Server};
use crate::service::{Launch, Service};

/// A service with one source for each of these addresses.
async fn with_sources(urls: &[String]) -> Service {
    let source = |(index, url): (usize, &String)| {
        format!(
            r#"{{name="reg{index}", tool_url="{url}/tool/{{id}}", function_url="{url}/function/{{id}}", allow_private=true, timeout_ms=1000, headers={{x-token="t0ken"}}}}"#
        )
    };
    let sources: Vec<String> = urls.iter().enumerate().map(source).collect();
    let sources = format!("[{}]", sources.join(", "));
    Launch::new().set("SOURCES", sources).start().await
}

/// A service and its one source, which answers so.
async fn with_source(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (Service, Server) {
    let server = Server::start(handler).await;
    (with_sources(&[server.url("")]).await, server)
}

fn own_tool() -> Value {
    json!({
        "tool_id": "fetched",
        "tool_search_tags": ["a", "b"],
        "tool_metadata": { "runtime": "binary", "entrypoint": "cat", "note": [1, 2] },
        "tool_description": "from afar",
        "tool_default_params": { "x": 1 },
    })
}

fn org_tool() -> Value {
    json!({
        "tool_id": "fetched",
        "tool_metadata": { "note": [1, 2] },
        "tool_search_description": "from afar",
        "tool_tags": ["a", "b"],
        "tool_type": "binary",
        "tool_sub_type": "coreutils",
        "tool_runtime_type": "binary",
        "tool_api_spec": { "input": { "x": { "type": "integer" } } },
        "tool_input_schema": {},
        "tool_output_schema": {},
        "tool_data": {},
        "tool_source_code_link": "http://example.org/source",
        "tool_man_page_doc_link": "http://example.org/man",
    })
}

fn org_function(url: &str) -> Value {
    json!({
        "function_name": "fetched",
        "function_version": { "version": "v1.0.0", "tag": "stable" },
        "function_type": "api",
        "function_sub_type": "weather",
        "function_description": "from afar",
        "function_tags": ["a", "b"],
        "function_protocol_type": "http",
        "function_url": url,
        "function_api_spec": { "input": { "city": { "type": "string" } } },
        "function_calling_data": { "method": "POST", "headers": { "x-call": "yes" } },
        "function_man_page": "http://example.org/man",
    })
}

fn enveloped(data: &Value) -> Value {
    json!({ "success": true, "data": data })
}

/// Registers it: what the store then answers.
async fn registered(answer: Value, kind: &str, id: &str) -> (Value, Service, Server) {
    let (service, server) = with_source(move |_| Answer::Json(200, answer.clone())).await;
    let path = format!("/{kind}/register/{id}");
    let (status, told) = service.rest("POST", &path, "").await;
    assert_eq!(status, 201, "{told}");
    assert_eq!(told["success"], true, "{told}");
    let message = format!("Inserted {kind} with id: {id}");
    assert_eq!(told["message"], message);
    let asked = &server.asked()[0];
    assert_eq!(asked.path, format!("/{kind}/{id}"));
    assert!(asked.headers.contains("x-token: t0ken"), "{asked:?}");
    let (status, stored) = service.rest("GET", &format!("/{kind}/{id}"), "").await;
    assert_eq!(status, 200, "{stored}");
    assert_eq!(stored["data"], told["data"]);
    (stored["data"].clone(), service, server)
}

#[tokio::test]
async fn a_tool_in_the_projects_own_shape_is_stored_as_it_is() {
    for answer in [own_tool(), enveloped(&own_tool())] {
        let (mut stored, service, server) = registered(answer, "tool", "fetched").await;
        let provenance = stored["tool_metadata"].as_object_mut().unwrap().remove("provenance").unwrap();
        assert_eq!(provenance, json!({ "source": "reg0", "url": server.url("/tool/fetched") }));
        assert_eq!(stored, own_tool());
        let talk = service.run("tool", "fetched", json!({ "y": 2 })).await;
        assert_eq!(*talk.output(), json!({ "x": 1, "y": 2 }));
    }
}

#[tokio::test]
async fn a_tool_in_the_shape_of_the_orgs_registry_is_translated() {
    for answer in [org_tool(), enveloped(&org_tool())] {
        let (stored, _service, _server) = registered(answer, "tool", "fetched").await;
        assert_eq!(stored["tool_id"], "fetched");
        assert_eq!(stored["tool_description"], "from afar");
        assert_eq!(stored["tool_search_tags"], json!(["a", "b"]));
        assert_eq!(stored.as_object().unwrap().len(), 5, "{stored}");
        let metadata = &stored["tool_metadata"];
        assert_eq!(metadata["runtime"], "binary", "{metadata}");
        assert_eq!(metadata["type"], "binary", "{metadata}");
        assert_eq!(metadata["subtype"], "coreutils", "{metadata}");
        let spec = json!({ "input": { "x": { "type": "integer" } } });
        assert_eq!(metadata["api_spec"], spec, "{metadata}");
        assert_eq!(metadata["note"], json!([1, 2]), "{metadata}");
    }
}

#[tokio::test]
async fn a_function_in_the_shape_of_the_orgs_registry_is_translated_and_runs() {
    let api = Server::start(|_| Answer::Json(200, json!({ "temperature": 28 }))).await;
    let (id, org) = ("fetched:v1.0.0-stable", org_function(&api.url("/f")));
    for answer in [org.clone(), enveloped(&org)] {
        let (stored, service, _server) = registered(answer, "function", id).await;
        assert_eq!(stored["function_id"], id);
        assert_eq!(stored["function_description"], "from afar");
        assert_eq!(stored["function_search_tags"], json!(["a", "b"]));
        assert_eq!(stored["function_metadata"]["url"], api.url("/f"));
        let input = json!({ "city": "Delhi" });
        let talk = service.run("function", "fetched", input).await;
        assert_eq!(*talk.output(), json!({ "temperature": 28 }));
        let refused = service.run("function", id, json!({ "city": 5 })).await;
        assert!(refused.refusal().0.contains("/city: "), "{refused:?}");
    }
    let asked = &api.asked()[0];
    assert!(asked.headers.contains("x-call: yes"), "{asked:?}");
}

#[tokio::test]
async fn an_id_that_exists_already_is_a_conflict() {
    let (service, _server) = with_source(|_| Answer::Json(200, own_tool())).await;
    let register = || service.rest("POST", "/tool/register/fetched", "");
    assert_eq!(register().await.0, 201);
    let (status, told) = register().await;
    assert_eq!((status, &told["code"]), (409, &json!("conflict")), "{told}");
}

#[tokio::test]
async fn sources_are_asked_in_their_order() {
    let first = Server::start(|_| Answer::Json(404, json!({ "success": false }))).await;
    let second = Server::start(|_| Answer::Json(200, own_tool())).await;
    let service = with_sources(&[first.url(""), second.url("")]).await;
    let (status, told) = service.rest("POST", "/tool/register/fetched", "").await;
    assert_eq!(status, 201, "{told}");
    assert_eq!((first.asked().len(), second.asked().len()), (1, 1));
}

#[tokio::test]
async fn what_is_wrong_with_each_source_is_told() {
    let first = Server::start(|_| Answer::Text(200, "hello".into())).await;
    let second = Server::start(|_| Answer::Text(500, String::new())).await;
    let service = with_sources(&[first.url(""), second.url("")]).await;
    let (status, told) = service.rest("POST", "/tool/register/fetched", "").await;
    let parts: Vec<&str> = told["error"].as_str().unwrap().split("; ").collect();
    assert!(status == 502 && parts.len() == 2 && parts[1].contains("status 500"), "{told}");
    assert!(parts[0].contains("JSON"), "{told}");
}

/// Registering fails so, and nothing is stored.
async fn assert_fails(service: &Service, status: u16, code: &str) {
    let start = Instant::now();
    let (told_status, told) = service.rest("POST", "/tool/register/fetched", "").await;
    assert_eq!(told_status, status, "{told}");
    assert_eq!((&told["success"], &told["code"]), (&json!(false), &json!(code)));
    assert!(!told["error"].as_str().unwrap().is_empty());
    assert!(start.elapsed() < Duration::from_secs(5), "{told}");
    let (stored, _) = service.rest("GET", "/tool/fetched", "").await;
    assert_eq!(stored, 404);
}

#[tokio::test]
async fn what_no_source_knows_is_not_found() {
    let (service, _server) = with_source(|_| Answer::Json(404, json!({}))).await;
    assert_fails(&service, 404, "not_found").await;
}

#[tokio::test]
async fn a_source_that_is_down_is_unavailable() {
    let (service, server) = with_source(|_| Answer::Silence).await;
    drop(server);
    assert_fails(&service, 502, "source_unavailable").await;
}

#[tokio::test]
async fn a_source_that_is_slow_is_unavailable() {
    let (service, _server) = with_source(|_| Answer::Silence).await;
    assert_fails(&service, 502, "source_unavailable").await;
}

#[tokio::test]
async fn an_unusable_answer_of_a_source_is_refused() {
    let mut another = own_tool();
    another["tool_id"] = json!("another");
    let mut large = own_tool();
    large["tool_description"] = json!("x".repeat(3 << 20));
    let answers = [
        (200, another.to_string()),
        (200, enveloped(&another).to_string()),
        (200, large.to_string()),
        (200, "hello".to_owned()),
        (200, String::new()),
        (200, "[]".to_owned()),
        (200, "[".repeat(100_000)),
        (500, own_tool().to_string()),
    ];
    for (status, body) in answers {
        let (service, _server) = with_source(move |_| Answer::Text(status, body.clone())).await;
        assert_fails(&service, 502, "source_unavailable").await;
    }
}

#[tokio::test]
async fn a_source_on_a_private_address_is_refused_unless_allowed() {
    let server = Server::start(|_| Answer::Json(200, own_tool())).await;
    let sources = format!(r#"[{{name="reg", tool_url="{}/{{id}}"}}]"#, server.url(""));
    let service = Launch::new().guarded().set("SOURCES", sources).start().await;
    let (status, told) = service.rest("POST", "/tool/register/fetched", "").await;
    assert_eq!((status, &told["code"]), (502, &json!("source_unavailable")), "{told}");
    assert!(told["error"].as_str().unwrap().contains("`allow_private`"), "{told}");
    assert!(server.asked().is_empty(), "{:?}", server.asked());
}

/// A registry whose answer is what the test last said, with an ETag that it honours.
async fn changing() -> (Server, Arc<Mutex<Value>>) {
    let now = Arc::new(Mutex::new(own_tool()));
    let said = now.clone();
    let server = Server::start(move |asked| {
        let now = said.lock().unwrap().clone();
        if now.is_null() {
            return Answer::Json(404, json!({}));
        }
        let etag = format!("\"{}\"", now["tool_description"].as_str().unwrap());
        if asked.headers.contains(&format!("if-none-match: {etag}\r\n")) {
            return Answer::With(304, String::new(), Value::Null);
        }
        Answer::With(200, format!("etag: {etag}\r\n"), now)
    });
    (server.await, now)
}

#[tokio::test]
async fn what_has_changed_at_its_source_becomes_a_new_revision_when_it_is_refreshed() {
    let (server, now) = changing().await;
    let service = with_sources(&[server.url("")]).await;
    assert_eq!(service.rest("POST", "/tool/register/fetched", "").await.0, 201);
    let refresh = || service.rest("POST", "/tool/refresh/fetched", "");
    let (status, told) = refresh().await;
    assert_eq!(status, 200, "{told}");
    assert_eq!((&told["data"]["changed"], &told["data"]["revision"]), (&json!(false), &json!(1)));
    assert!(server.asked()[1].headers.contains("if-none-match: \"from afar\""), "{:?}", server.asked());
    now.lock().unwrap()["tool_description"] = json!("newer");
    let (status, told) = refresh().await;
    assert_eq!((status, &told["data"]["changed"], &told["data"]["revision"]), (200, &json!(true), &json!(2)));
    let (_, told) = service.rest("GET", "/tool/fetched", "").await;
    assert_eq!(told["data"]["tool_description"], "newer");
    assert_eq!(told["data"]["tool_metadata"]["provenance"]["etag"], "\"newer\"");
    // What its owner wrote here stays until the source changes again.
    *now.lock().unwrap() = Value::Null;
    let (status, told) = refresh().await;
    assert_eq!((status, &told["code"]), (404, &json!("not_found")), "{told}");
    assert_eq!(service.rest("GET", "/tool/fetched", "").await.0, 200);
    service.create(&crate::program::tool("own", json!({}))).await;
    let (status, told) = service.rest("POST", "/tool/refresh/own", "").await;
    assert_eq!((status, &told["code"]), (409, &json!("conflict")), "{told}");
    assert_eq!(service.rest("POST", "/tool/refresh/none", "").await.0, 404);
}

#[tokio::test]
async fn a_source_with_an_interval_is_asked_again_by_itself() {
    let (server, now) = changing().await;
    let url = server.url("");
    let sources =
        format!(r#"[{{name="reg", tool_url="{url}/tool/{{id}}", allow_private=true, refresh_ms=100}}]"#);
    let service = Launch::new().set("SOURCES", sources).start().await;
    assert_eq!(service.rest("POST", "/tool/register/fetched", "").await.0, 201);
    now.lock().unwrap()["tool_description"] = json!("newer");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (_, told) = service.rest("GET", "/tool/fetched", "").await;
        if told["data"]["tool_description"] == "newer" {
            break;
        }
        assert!(Instant::now() < deadline, "it was not asked again: {:?}", server.asked());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (_, told) = service.rest("GET", "/tool/fetched/revisions", "").await;
    assert_eq!(told["data"].as_array().unwrap().len(), 2, "{told}");
}
