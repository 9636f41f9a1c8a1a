//! Redirects: each is checked like a first address, and none takes a credential to another origin.

use serde_json::{Value, json};

use super::DeniedListener;
use crate::program::{function, tool};
use crate::server::{Answer, Asked, Server};
use crate::service::{ALLOW, Launch, Service};

/// A server that sends on: `/301/2` to the target of this number with this status, `/hop/…` to there first.
async fn sending(targets: Vec<String>) -> Server {
    Server::start(move |asked| {
        let to = |status: &str, location: &str| {
            Answer::With(status.parse().unwrap(), format!("location: {location}\r\n"), json!({}))
        };
        let parts: Vec<&str> = asked.path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            ["hop", rest @ ..] => to("307", &format!("/{}", rest.join("/"))),
            [status, number] => to(status, &targets[number.parse::<usize>().unwrap()]),
            _ => Answer::Json(404, json!({})),
        }
    })
    .await
}

/// A service that lets in these servers and nothing else.
async fn letting_in(servers: &[&Server], sources: &str) -> Service {
    let entries: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
    Launch::new().set(ALLOW, json!(entries)).config(sources).start().await
}

const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];

#[tokio::test]
async fn a_redirect_to_what_is_denied_is_not_followed_on_any_way_out() {
    let denied = DeniedListener::start().await;
    let port = denied.port();
    let targets: Vec<String> = [
        format!("http://127.0.0.1:{port}/"),
        format!("//127.0.0.1:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://[::ffff:7f00:1]:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://0x7f.1:{port}/"),
        format!("http://user:password@127.0.0.1:{port}/"),
        format!("\\\\127.0.0.1:{port}\\x"),
        "http://169.254.169.254/latest/meta-data/".into(),
        "http://10.0.0.1/".into(),
        "file:///etc/passwd".into(),
        "gopher://127.0.0.1:1/x".into(),
        "ftp://127.0.0.1/x".into(),
        "data:text/plain,x".into(),
    ]
    .into();
    let server = sending(targets.clone()).await;
    let mut paths = Vec::new();
    for number in 0..targets.len() {
        paths.extend(STATUSES.iter().map(|status| format!("/{status}/{number}")));
        paths.push(format!("/hop/hop/302/{number}"));
    }
    let sources: String = paths
        .iter()
        .enumerate()
        .map(|(index, path)| {
            let url = server.url(path);
            format!("[[sources]]\nname = \"o{index}\"\nopenapi = \"{url}\"\n[[sources]]\nname = \"m{index}\"\nmcp_url = \"{url}\"\n[[sources]]\nname = \"f{index}\"\nfunction_url = \"{url}?{{id}}\"\n")
        })
        .collect();
    let service = letting_in(&[&server], &sources).await;
    let run = async |kind: &str, metadata: Value| {
        let made = if kind == "tool" { tool("call", metadata) } else { function("call", metadata) };
        service.create(&made).await;
        let talk = service.run(kind, "call", json!({ "a": 1 })).await;
        assert_eq!(service.rest("DELETE", &format!("/{kind}/call"), "").await.0, 200);
        let (error, code) = talk.error();
        (error.to_owned(), code.to_owned())
    };
    let is_refusal = |error: &str| {
        ["can name it", "neither http nor https", "to another origin"].iter().any(|part| error.contains(part))
    };
    for (index, path) in paths.iter().enumerate() {
        let url = server.url(path);
        for method in ["GET", "POST"] {
            let (error, code) =
                run("function", json!({ "runtime": "http", "url": url, "method": method })).await;
            assert!(code == "egress_denied" && is_refusal(&error), "{path}: {code} {error}");
        }
        let socket = url.replacen("http", "ws", 1);
        let (error, code) = run("function", json!({ "runtime": "websocket", "url": socket })).await;
        assert_eq!(code, "service_unavailable", "{path}: {error}");
        let (error, code) = run("tool", json!({ "runtime": "mcp", "url": url })).await;
        // What is no address to its library is no redirect to it.
        let is_denied = is_refusal(&error) || error.contains("another origin");
        let expected = if is_denied { "egress_denied" } else { "service_unavailable" };
        assert_eq!(code, expected, "{path}: {error}");
        let metadata = json!({ "runtime": "script", "source_url": url });
        let (status, told) = service.rest("POST", "/tool", &tool("call", metadata).to_string()).await;
        assert_eq!(status, 400, "{path}: {told}");
        assert!(is_refusal(told["error"].as_str().unwrap()), "{path}: {told}");
        for (kind, name) in [("function", format!("o{index}")), ("tool", format!("m{index}"))] {
            let (status, told) = service.rest("POST", &format!("/{kind}s/import/{name}"), "").await;
            assert_eq!(status, 502, "{path}: {told}");
            let error = told["error"].as_str().unwrap();
            assert!(kind == "tool" || is_refusal(error), "{path}: {told}");
        }
    }
    let (status, told) = service.rest("POST", "/function/register/nowhere", "").await;
    assert_eq!(status, 502, "{told}");
    println!("{} redirects on each of 8 ways", paths.len());
    assert_eq!(denied.connections(), 0);
}

/// What of the credentials was seen.
fn seen(asked: &Asked) -> Vec<&'static str> {
    let credentials = ["x-api-key", "authorization", "cookie", "x-org-execution", "x-from-input"];
    let headers = format!("\n{}", asked.headers);
    credentials.into_iter().filter(|name| headers.contains(&format!("\n{name}:"))).collect()
}

#[tokio::test]
async fn no_header_goes_to_another_origin_and_none_comes_back() {
    let here = Server::start(|_| Answer::Json(200, json!("there"))).await;
    let there = here.url("/there");
    let other = Server::start(move |_| Answer::Redirect(there.clone())).await;
    let target = other.url("/other");
    let first = Server::start(move |asked| {
        let status = asked.path.trim_start_matches('/').parse().unwrap_or(200);
        let location = if asked.query.contains("here") { "/200".to_owned() } else { target.clone() };
        Answer::With(status, format!("location: {location}\r\n"), json!(1))
    })
    .await;
    let openapi = first.url("/302");
    let sources = format!(
        "[[sources]]\nname = \"own\"\nopenapi = \"{openapi}\"\nheaders = {{ x-api-key = \"s3cret\", authorization = \"Bearer s3cret\" }}\n"
    );
    let service = letting_in(&[&first, &other, &here], &sources).await;
    for status in STATUSES {
        let url = first.url(&format!("/{status}")).replace("http://", "http://user:s3cret@");
        let metadata = json!({
            "runtime": "http",
            "url": url,
            "headers": { "X-Api-Key": "s3cret", "Cookie": "session=s3cret", "Content-Type": "application/x-own" },
        });
        let id = format!("call-{status}");
        service.create(&function(&id, metadata)).await;
        let talk = service.run("function", &id, json!({ "a": 1 })).await;
        assert_eq!(*talk.output(), json!("there"));
        let [first, other, here] = [&first, &other, &here].map(|server| server.asked().pop().unwrap());
        assert_eq!(seen(&first), ["x-api-key", "authorization", "cookie", "x-org-execution"], "{first:?}");
        for asked in [&other, &here] {
            assert_eq!(seen(asked), [] as [&str; 0], "{status}: {asked:?}");
            assert!(!asked.headers.contains("s3cret") && !asked.query.contains("s3cret"), "{asked:?}");
            let kept = status >= 307;
            let (method, body) = if kept { ("POST", r#"{"a":1}"#) } else { ("GET", "") };
            assert_eq!((asked.method.as_str(), asked.body.as_str()), (method, body), "{status}");
            assert_eq!(asked.headers.contains("content-type: application/x-own"), kept, "{asked:?}");
        }
    }
    // Within its origin, it keeps them.
    let metadata =
        json!({ "runtime": "http", "url": first.url("/307?here"), "headers": { "X-Api-Key": "s3cret" } });
    service.create(&function("same", metadata)).await;
    assert_eq!(*service.run("function", "same", json!({})).await.output(), json!(1));
    let asked = first.asked().pop().unwrap();
    assert_eq!((asked.path.as_str(), seen(&asked)), ("/200", vec!["x-api-key", "x-org-execution"]));
    // A header that comes from the input is one of these.
    let metadata = json!({
        "runtime": "http", "url": first.url("/308"), "parameters": { "x-from-input": "header" },
    });
    service.create(&function("input", metadata)).await;
    service.run("function", "input", json!({ "x-from-input": "s3cret" })).await.output();
    assert!(seen(&first.asked().pop().unwrap()).contains(&"x-from-input"));
    assert_eq!(seen(&here.asked().pop().unwrap()), [] as [&str; 0]);
    // A source, and an MCP server, which is not followed at all.
    service.rest("POST", "/functions/import/own", "").await;
    assert_eq!(seen(&first.asked().pop().unwrap()), ["x-api-key", "authorization"]);
    assert_eq!(seen(&here.asked().pop().unwrap()), [] as [&str; 0]);
    let before = other.asked().len();
    let metadata =
        json!({ "runtime": "mcp", "url": first.url("/307"), "headers": { "X-Api-Key": "s3cret" } });
    service.create(&tool("server", metadata)).await;
    let talk = service.run("tool", "server", json!({})).await;
    assert!(talk.error().0.contains("it redirects to another origin"), "{talk:?}");
    assert_eq!(other.asked().len(), before);
}

#[tokio::test]
async fn redirects_without_end_or_aim_are_told() {
    let server = Server::start(|asked| match asked.path.as_str() {
        "/nowhere" => Answer::Redirect("http://[".to_owned()),
        _ => Answer::Redirect("/again".to_owned()),
    })
    .await;
    let service = letting_in(&[&server], "").await;
    for (path, sentence) in
        [("/again", "it redirects more than 5 times"), ("/nowhere", "to no valid address")]
    {
        let id = path.trim_start_matches('/');
        service.create(&function(id, json!({ "runtime": "http", "url": server.url(path) }))).await;
        let talk = service.run("function", id, json!({})).await;
        let (error, code) = talk.error();
        assert!(code == "service_unavailable" && error.contains(sentence), "{code}: {error}");
    }
    assert_eq!(server.asked().len(), 6 + 1);
}
