//! What the service asks at addresses that others chose: nothing private is reached in any way of writing it, on any of
//! the ways out, unless `egress.allow` names it.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener as Listener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use crate::program::{function, tool};
use crate::server::{Answer, Server};
use crate::service::{ALLOW, Launch, Service, eventually};
use crate::socket::is_final;

mod rebinding;
mod redirects;
mod spellings;

use spellings::Spelling;

/// A listener that nothing may come to. It counts what does.
struct DeniedListener {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl DeniedListener {
    /// At all loopback addresses, of both families where the machine has both.
    async fn start() -> Self {
        let listen = |socket: std::io::Result<TcpSocket>, any: &str| {
            let socket = socket?;
            // Any address, and nobody but this machine comes to it.
            socket.bind_device(Some(b"lo"))?;
            socket.bind(any.parse().unwrap())?;
            socket.listen(1_024)?.into_std()
        };
        let listener = listen(TcpSocket::new_v6(), "[::]:0");
        Self::with(listener.or_else(|_| listen(TcpSocket::new_v4(), "0.0.0.0:0")).unwrap())
    }

    fn with(listener: Listener) -> Self {
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let task = tokio::spawn(async move {
            // They stay open, so that who comes has to wait.
            let mut kept = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                kept.push(stream);
            }
        });
        Self { address, connections, task }
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for DeniedListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why it was refused: the address is denied, is none, or has a host that nobody knows. Anything else fails the test.
fn refusal(error: &str, what: &str) -> &'static str {
    for (part, kind) in [
        ("`egress.allow` can name it", "private"),
        ("its address is neither", "scheme"),
        ("url is not valid", "no address"),
        ("no valid address", "no address"),
        ("its host does not resolve", "unresolved"),
        // A source without `://` is a path.
        ("no such source under an allowed root", "a path"),
    ] {
        if error.contains(part) {
            return kind;
        }
    }
    panic!("{what}: {error}")
}

/// How many of each kind.
fn counted(way: &str, refusals: impl IntoIterator<Item = &'static str>) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for kind in refusals {
        *counts.entry(kind).or_default() += 1;
    }
    println!("{way}: {} refused: {counts:?}", counts.values().sum::<usize>());
    counts
}

/// Runs a definition for each of these, on one connection: the last frame of each.
async fn run_all(service: &Service, kind: &str, metadata: &[Value]) -> Vec<Value> {
    let make = |(index, metadata): (usize, &Value)| {
        let id = format!("run-{index}");
        let made = if kind == "tool" { tool(&id, metadata.clone()) } else { function(&id, metadata.clone()) };
        made.to_string()
    };
    let lines: Vec<String> = metadata.iter().enumerate().map(make).collect();
    let told = import(service, &format!("/{kind}s/import?existing=replace"), &lines).await;
    assert!(told.iter().all(|line| line.get("error").is_none()), "{told:?}");
    let mut socket = service.socket("/session").await;
    let requests = (0..metadata.len())
        .map(|index| json!({ "id": index, format!("{kind}_id"): format!("run-{index}"), "input_data": {} }));
    socket.send_all(requests.map(|request| request.to_string())).await;
    let mut last = vec![Value::Null; metadata.len()];
    while last.iter().any(Value::is_null) {
        let frame = socket.frame().await.expect("an open connection");
        if is_final(&frame) {
            let index = frame["id"].as_u64().unwrap();
            last[usize::try_from(index).unwrap()] = frame;
        }
    }
    last
}

/// What became of each line, and the sum.
async fn import(service: &Service, path: &str, lines: &[String]) -> Vec<Value> {
    let request = service.client().post(service.url(path)).header("content-type", "application/x-ndjson");
    let answer = request.body(lines.join("\n")).send().await.unwrap().text().await.unwrap();
    answer.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// All of them are refused with a clear sentence, those that are denied with their own code.
async fn assert_refused(service: &Service, kind: &str, runtime: &str, urls: &[String]) {
    // Who does come to the listener waits there.
    let limits = json!({ "timeout_ms": 5_000 });
    let metadata = |url| json!({ "runtime": runtime, "url": url, "limits": limits });
    let metadata: Vec<Value> = urls.iter().map(metadata).collect();
    let frames = run_all(service, kind, &metadata).await;
    let refusals = frames.iter().zip(urls).map(|(frame, url)| {
        assert_eq!(frame["success"], false, "{url:?}: {frame}");
        let why = refusal(frame["error"].as_str().unwrap(), url);
        let code = match why {
            "private" | "scheme" => "egress_denied",
            "no address" if runtime != "mcp" => "not_startable",
            _ => "service_unavailable",
        };
        assert_eq!(frame["code"], code, "{url:?}: {frame}");
        why
    });
    let counts = counted(runtime, refusals);
    assert!(counts["private"] >= 300, "{runtime}: {counts:?}");
}

fn urls(spellings: &[Spelling]) -> Vec<String> {
    spellings.iter().map(|spelling| spelling.url.clone()).collect()
}

#[tokio::test]
async fn no_function_and_no_mcp_tool_reaches_a_private_address_however_it_is_written() {
    let denied = DeniedListener::start().await;
    let spellings = spellings::all(denied.port());
    println!("{} spellings", spellings.len());
    assert!(spellings.len() >= 300);
    let service = Launch::new().guarded().start().await;
    assert_refused(&service, "function", "http", &urls(&spellings)).await;
    assert_refused(&service, "tool", "mcp", &urls(&spellings)).await;
    let to_socket =
        |url: String| url.replacen("http", "ws", 1).replacen("HTTP", "WS", 1).replacen("hTtP", "wS", 1);
    let sockets: Vec<String> = urls(&spellings).into_iter().map(to_socket).collect();
    assert_refused(&service, "function", "websocket", &sockets).await;
    assert_eq!(denied.connections(), 0);
}

#[tokio::test]
async fn no_source_of_a_program_is_fetched_from_a_private_address_however_it_is_written() {
    let denied = DeniedListener::start().await;
    let urls = urls(&spellings::all(denied.port()));
    let service = Launch::new().guarded().start().await;
    let mut refusals = Vec::new();
    for (index, url) in urls.iter().enumerate() {
        let metadata = json!({ "runtime": "script", "source_url": url });
        let body = tool(&format!("source-{index}"), metadata).to_string();
        let (status, told) = service.rest("POST", "/tool", &body).await;
        if status == 201 {
            // What cannot be reached now is looked for when it runs.
            let talk = service.run("tool", &format!("source-{index}"), json!({})).await;
            let (error, code) = talk.error();
            assert_eq!(code, "not_startable", "{url:?}: {error}");
            refusals.push(refusal(error, url));
        } else {
            assert_eq!(status, 400, "{url:?}: {told}");
            refusals.push(refusal(told["error"].as_str().unwrap(), url));
        }
    }
    let counts = counted("source_url", refusals);
    assert!(counts["private"] >= 300, "{counts:?}");
    assert_eq!(denied.connections(), 0);
}

#[tokio::test]
async fn no_source_of_definitions_is_asked_at_a_private_address_however_it_is_written() {
    let denied = DeniedListener::start().await;
    // Others are refused with the configuration.
    let fits = |url: &String| {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        rest.is_some_and(|rest| !rest.starts_with('/'))
            && !url.contains(char::is_whitespace)
            && !url.contains(['#', '?', '\\', '\u{1}'])
    };
    let urls: Vec<String> = urls(&spellings::all(denied.port())).into_iter().filter(fits).collect();
    assert!(urls.len() >= 300, "{}", urls.len());
    let entry = |key: &str, index: usize, url: &str| {
        format!("[[sources]]\nname = \"{key}-{index}\"\n{key} = {}\n", json!(url))
    };
    let config: String = urls
        .iter()
        .enumerate()
        .map(|(index, url)| {
            let template = format!("{}/{{id}}", url.trim_end_matches('/'));
            entry("tool_url", index, &template)
                + &entry("openapi", index, url)
                + &entry("mcp_url", index, url)
        })
        .collect();
    let service = Launch::new().guarded().config(&config).start().await;
    for (kind, key) in [("function", "openapi"), ("tool", "mcp_url")] {
        let mut refusals = Vec::new();
        for (index, url) in urls.iter().enumerate() {
            let (status, told) = service.rest("POST", &format!("/{kind}s/import/{key}-{index}"), "").await;
            assert_eq!((status, &told["code"]), (502, &json!("source_unavailable")), "{url:?}: {told}");
            refusals.push(refusal(told["error"].as_str().unwrap(), url));
        }
        let counts = counted(key, refusals);
        assert!(counts["private"] >= 300, "{key}: {counts:?}");
    }
    // Every source is asked, one after the other, for what none of them has.
    let (status, told) = service.rest("POST", "/tool/register/nowhere", "").await;
    assert_eq!((status, &told["code"]), (502, &json!("source_unavailable")), "{told}");
    refusal(told["error"].as_str().unwrap(), "tool_url");
    println!("tool_url: {} sources asked", urls.len());
    assert_eq!(denied.connections(), 0);
}

/// Without this, the three above might hold because nothing could be reached at all.
#[tokio::test]
async fn the_same_spellings_lead_there_where_they_are_let_in() {
    let denied = DeniedListener::start().await;
    let leading: Vec<Spelling> =
        spellings::all(denied.port()).into_iter().filter(|spelling| spelling.leads).collect();
    let service = Launch::new().set(ALLOW, r#"["0.0.0.0/8", "127.0.0.0/8", "::/127"]"#).start().await;
    let limits = json!({ "timeout_ms": 200 });
    let metadata: Vec<Value> = leading
        .iter()
        .map(|spelling| json!({ "runtime": "http", "url": spelling.url, "limits": limits }))
        .collect();
    let frames = run_all(&service, "function", &metadata).await;
    let reached = frames.iter().filter(|frame| frame["code"] == "timed_out").count();
    for (frame, spelling) in frames.iter().zip(&leading).filter(|(frame, _)| frame["code"] != "timed_out") {
        println!("not there: {:?}: {frame}", spelling.url);
    }
    println!("{reached} of {} lead there, {} connections", leading.len(), denied.connections());
    assert!(reached >= 150, "{reached}");
    assert!(denied.connections() >= 100, "{}", denied.connections());
}

#[tokio::test]
async fn what_is_let_in_is_let_in_by_its_name_and_its_port_and_a_sighup_changes_it() {
    let server = Server::start(|_| Answer::Json(200, json!(1))).await;
    let denied = DeniedListener::start().await;
    let allow = |entries: Value| format!("[egress]\nallow = {entries}\n");
    let launch = Launch::new().guarded().config(&allow(json!([])));
    let service = launch.start().await;
    let port = server.address.port();
    for (id, url) in [
        ("address", server.url("/f")),
        ("name", format!("http://LocalHost:{port}/f")),
        ("other", format!("http://127.0.0.1:{}/f", denied.port())),
        ("other-name", format!("http://localhost:{}/f", denied.port())),
    ] {
        service.create(&function(id, json!({ "runtime": "http", "url": url }))).await;
    }
    let mut changes = 0;
    for (entries, let_in) in [
        (json!([]), [].as_slice()),
        (json!([format!("127.0.0.1:{port}"), format!("[::1]:{port}")]), &["address", "name"]),
        (json!(["10.0.0.0/8", format!("localhost:{port}")]), &["name"]),
        (json!([]), &[]),
    ] {
        if changes > 0 || !let_in.is_empty() {
            std::fs::write(service.path("config.toml"), allow(entries.clone())).unwrap();
            service.signal(Signal::SIGHUP);
            changes += 1;
            let is_changed = || service.log().matches("`egress.allow` was changed").count() == changes;
            eventually("the list is changed", Duration::from_secs(10), is_changed).await;
        }
        for id in ["address", "name", "other", "other-name"] {
            let talk = service.run("function", id, json!({})).await;
            if let_in.contains(&id) {
                assert_eq!(*talk.output(), json!(1), "{entries}");
            } else {
                let (error, code) = talk.error();
                assert_eq!(code, "egress_denied", "{id} {entries}: {error}");
                assert!(error.contains("private address; `egress.allow` can name it"), "{error}");
            }
        }
    }
    assert_eq!(denied.connections(), 0);
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn a_bad_entry_is_named_at_the_start() {
    let (status, log) = Launch::new().set(ALLOW, r#"["::1", "*.internal"]"#).refused().await;
    assert!(!status.success());
    assert!(log.contains("egress.allow[1]") && log.contains("*.internal"), "{log}");
}

#[tokio::test]
async fn a_denied_call_is_not_tried_again_and_tells_no_address() {
    let service = Launch::new().guarded().start().await;
    let metadata = json!({
        "runtime": "http", "url": "http://localhost:1/", "idempotent": true,
        "retries": { "max": 3, "backoff_ms": 50 },
    });
    service.create(&function("call", metadata)).await;
    let talk = service.run("function", "call", json!({})).await;
    let (error, code) = talk.error();
    assert_eq!(
        (code, error),
        (
            "egress_denied",
            "the service is not called: `localhost` resolves to a private address; `egress.allow` can name it"
        )
    );
    let uuid = talk.frames[0]["uuid"].as_str().unwrap();
    let (_, told) = service.rest("GET", &format!("/execution/{uuid}"), "").await;
    assert_eq!(told["data"]["attempts"], 1, "{told}");
    assert!(!service.log().contains("is tried again"));
}
