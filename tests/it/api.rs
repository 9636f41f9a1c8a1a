//! Functions that call an API: over HTTP, and over a WebSocket.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use crate::program::function;
use crate::server::{Answer, Asked, Server, decoded};
use crate::service::{PATIENCE, Service};
use crate::socket::Talk;

/// A service with the function `call`, which asks this URL.
async fn calling(url: String, keys: Value) -> Service {
    let service = Service::start().await;
    let mut metadata = json!({ "runtime": "http", "url": url });
    for (key, value) in keys.as_object().unwrap() {
        metadata[key] = value.clone();
    }
    service.create(&function("call", metadata)).await;
    service
}

async fn call(service: &Service, input: Value) -> Talk {
    service.run("function", "call", input).await
}

/// Calls a server that answers this at any path.
async fn answered(answer: impl Fn() -> Answer + Send + Sync + 'static, keys: Value) -> Talk {
    let server = Server::start(move |_| answer()).await;
    let service = calling(server.url("/f"), keys).await;
    call(&service, json!({ "city": "Delhi" })).await
}

#[tokio::test]
async fn the_input_is_posted_as_json_with_the_headers() {
    let server = Server::start(|_| Answer::Json(200, json!({ "temperature": 28 }))).await;
    let keys = json!({ "headers": { "X-Token": "t0ken" } });
    let service = calling(server.url("/f?key=1"), keys).await;
    let talk = call(&service, json!({ "city": "Delhi" })).await;
    assert_eq!(*talk.output(), json!({ "temperature": 28 }));
    let asked = &server.asked()[0];
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/f"));
    assert_eq!(asked.query, "key=1");
    assert_eq!(asked.body, r#"{"city":"Delhi"}"#);
    assert!(asked.headers.contains("x-token: t0ken"), "{asked:?}");
    assert!(asked.headers.contains("content-type: application/json"));
}

#[tokio::test]
async fn get_sends_query_parameters() {
    let server = Server::start(|_| Answer::Json(200, json!([1]))).await;
    let service = calling(server.url("/f"), json!({ "method": "GET" })).await;
    let talk = call(&service, json!({ "city": "New Delhi & Co", "days": 3 })).await;
    assert_eq!(*talk.output(), json!([1]));
    let asked = &server.asked()[0];
    assert_eq!((asked.method.as_str(), asked.body.as_str()), ("GET", ""));
    let mut parameters: Vec<String> = asked.query.split('&').map(decoded).collect();
    parameters.sort();
    assert_eq!(parameters, ["city=New Delhi & Co", "days=3"]);
    // As they are written: a library that reads them as doubles makes others of them.
    let talk = service
        .talk("/function", r#"{"function_id":"call","input_data":{"n":12345678901234567890123,"f":1.50}}"#)
        .await;
    assert_eq!(*talk.output(), json!([1]));
    assert_eq!(server.asked()[1].query, "f=1.50&n=12345678901234567890123");
    let talk = call(&service, json!({ "city": "x".repeat(66_000) })).await;
    assert_eq!(talk.error().1, "invalid_input");
}

#[tokio::test]
async fn the_runtime_follows_from_the_protocol() {
    let server = Server::start(|_| Answer::Json(200, json!(1))).await;
    let service = Service::start().await;
    let metadata = json!({ "protocol": "http", "url": server.url("/f") });
    service.create(&function("call", metadata)).await;
    assert_eq!(*call(&service, json!({})).await.output(), json!(1));
}

#[tokio::test]
async fn an_envelope_is_unwrapped_where_told() {
    let envelope = || Answer::Json(200, json!({ "success": true, "data": { "a": 1 } }));
    let talk = answered(envelope, json!({ "unwrap": true })).await;
    assert_eq!(*talk.output(), json!({ "a": 1 }));
    let talk = answered(envelope, json!({})).await;
    assert_eq!(*talk.output(), json!({ "success": true, "data": { "a": 1 } }));
    let wrapped = json!({ "unwrap": true, "parameters": {}, "output": { "told": "json" } });
    assert_eq!(*answered(envelope, wrapped.clone()).await.output(), json!({ "told": { "a": 1 } }));
    let failed = || Answer::Json(200, json!({ "success": false, "error": "x".repeat(100_000) }));
    let talk = answered(failed, wrapped).await;
    assert_eq!(talk.error().1, "service_failed");
    assert!(talk.error().0.len() < 1_000);
}

#[tokio::test]
async fn a_status_that_is_no_success_fails() {
    for status in [404, 500, 503] {
        let answer = move || Answer::Json(status, json!({ "temperature": 28 }));
        let talk = answered(answer, json!({})).await;
        let (error, _) = talk.error();
        assert!(error.contains(&status.to_string()), "{error}");
    }
    // However much it says.
    let answer = || Answer::Text(500, "x".repeat(3_000_000));
    let talk = answered(answer, json!({})).await;
    assert_eq!(talk.error().1, "http_status");
    assert!(talk.error().0.len() < 1_000);
}

#[tokio::test]
async fn an_answer_that_is_not_json_is_invalid() {
    for body in ["hello", "{} {}", "{\"a\":"] {
        let talk = answered(move || Answer::Text(200, body.to_owned()), json!({})).await;
        assert_eq!(talk.error().1, "invalid_output", "{body}");
    }
}

#[tokio::test]
async fn a_success_without_a_body_is_null() {
    for (method, status) in [("DELETE", 204), ("HEAD", 200), ("POST", 200)] {
        let talk = answered(move || Answer::Text(status, String::new()), json!({ "method": method })).await;
        assert_eq!(*talk.output(), Value::Null, "{method}");
    }
}

#[tokio::test]
async fn cookies_of_the_definition_and_of_the_input_are_one_header() {
    let server = Server::start(|_| Answer::Json(200, json!(1))).await;
    let keys = json!({ "headers": { "Cookie": "fixed=1" }, "parameters": { "c": "cookie" } });
    let service = calling(server.url("/f"), keys).await;
    assert_eq!(*call(&service, json!({ "c": 2 })).await.output(), json!(1));
    assert!(server.asked()[0].headers.contains("cookie: fixed=1; c=2\r\n"), "{:?}", server.asked());
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_refused() {
    let answer = || Answer::Json(200, json!("x".repeat(1 << 20)));
    let talk = answered(answer, json!({ "limits": { "output_bytes": 65_536 } })).await;
    assert_eq!(talk.error().1, "output_too_large");
}

#[tokio::test]
async fn an_api_that_is_silent_times_out() {
    let server = Server::start(|_| Answer::Silence).await;
    let keys = json!({ "limits": { "timeout_ms": 300 } });
    let service = calling(server.url("/f"), keys).await;
    let start = Instant::now();
    assert_eq!(call(&service, json!({})).await.error().1, "timed_out");
    println!("a silent API with 300 ms allowed: {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_millis(300 + 3_000));
}

#[tokio::test]
async fn an_api_that_is_down_fails() {
    let server = Server::start(|_| Answer::Silence).await;
    let service = calling(server.url("/f"), json!({})).await;
    drop(server);
    let start = Instant::now();
    let talk = call(&service, json!({})).await;
    talk.error();
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn redirects_are_followed_within_bounds() {
    let hop = |asked: &Asked| match asked.path.as_str() {
        "/1" => Answer::Redirect("/2".to_owned()),
        "/2" => Answer::Redirect("/3".to_owned()),
        "/3" => Answer::Json(200, json!({ "arrived": asked.body })),
        _ => Answer::Redirect("/round".to_owned()),
    };
    let server = Server::start(hop).await;
    let service = calling(server.url("/1"), json!({})).await;
    let talk = call(&service, json!({ "a": 1 })).await;
    assert_eq!(*talk.output(), json!({ "arrived": "{\"a\":1}" }));
    let metadata = json!({ "runtime": "http", "url": server.url("/round") });
    service.create(&function("round", metadata)).await;
    service.run("function", "round", json!({})).await.error();
    assert!(server.asked().len() < 40, "{}", server.asked().len());
}

#[tokio::test]
async fn calls_run_side_by_side() {
    let server = Server::start(|_| Answer::Json(200, json!(1))).await;
    let service = calling(server.url("/f"), json!({})).await;
    let calls = (0..50).map(|_| call(&service, json!({})));
    for talk in futures_util::future::join_all(calls).await {
        assert_eq!(*talk.output(), json!(1));
    }
}

/// A WebSocket server for one connection: what it heard, when that has ended.
async fn socket_server(answer: Option<Message>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/f", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let mut heard = Vec::new();
        while let Some(Ok(message)) = socket.next().await {
            let Message::Text(text) = message else {
                continue;
            };
            heard.push(text.as_str().to_owned());
            let sent = match &answer {
                Some(answer) => socket.send(answer.clone()).await,
                None => socket.close(None).await,
            };
            sent.unwrap();
        }
        heard
    });
    (url, serving)
}

/// What a websocket function says that gets this answer.
async fn heard_from(answer: Option<Message>) -> Talk {
    let (url, serving) = socket_server(answer).await;
    let service = Service::start().await;
    let metadata = json!({ "protocol": "websocket", "url": url });
    service.create(&function("call", metadata)).await;
    let talk = call(&service, json!({ "city": "Delhi" })).await;
    let heard = tokio::time::timeout(PATIENCE, serving);
    let heard = heard.await.expect("the connection is closed").unwrap();
    assert_eq!(heard, [r#"{"city":"Delhi"}"#]);
    talk
}

#[tokio::test]
async fn a_websocket_function_sends_its_input_and_reads_one_message() {
    let talk = heard_from(Some(Message::text(r#"{"temperature":28}"#))).await;
    assert_eq!(*talk.output(), json!({ "temperature": 28 }));
}

#[tokio::test]
async fn a_websocket_message_that_is_not_json_is_invalid() {
    let talk = heard_from(Some(Message::text("hello"))).await;
    assert_eq!(talk.error().1, "invalid_output");
}

#[tokio::test]
async fn a_websocket_that_closes_without_a_message_fails() {
    heard_from(None).await.error();
}
