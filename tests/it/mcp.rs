//! Tools of MCP servers: called over streamable HTTP and over stdio, and taken from a server that is a source. The server
//! is real: FastMCP, in a Python of its own.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::census::processes_with;
use crate::program::{accepted, lines, streamed, tool};
use crate::seed::python_with;
use crate::service::{Launch, PATIENCE, Service, eventually, request_with};

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/mcp/server.py");

/// The environment variable by which the processes of one test are known.
const MARK: &str = "TEST_MARK";

/// How long a call may take: a server that is a program has to start first.
const LIMITS: u64 = 120_000;

/// A Python with FastMCP, made once for all tests. Where there is none, that is said, and the test is left out.
async fn python() -> Option<PathBuf> {
    static MADE: OnceCell<Option<PathBuf>> = OnceCell::const_new();
    let make = async || {
        let made = python_with("fastmcp").await;
        made.inspect_err(|why| println!("skipped: no Python with fastmcp: {why}")).ok()
    };
    MADE.get_or_init(make).await.clone()
}

/// A server over HTTP, which is a process of the test; dropping it kills it.
struct Http {
    process: Child,
    port: u16,
}

impl Http {
    async fn start(python: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::start_on(python, port).await
    }

    async fn start_on(python: &Path, port: u16) -> Self {
        let mut command = Command::new(python);
        command.arg(SERVER).arg(port.to_string()).stdin(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        let is_there = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        eventually("the server listens", PATIENCE, is_there).await;
        Self { process, port }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.port)
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A service with one executor for MCP, and a server of each kind.
struct Bench {
    service: Service,
    http: Http,
    python: PathBuf,
    mark: String,
}

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Over {
    Http,
    Stdio,
}

use Over::{Http as HTTP, Stdio as STDIO};

impl Bench {
    async fn new() -> Option<Self> {
        let python = python().await?;
        let service = Launch::new().set("POOLS__MCP__MAX", 1).start().await;
        let http = Http::start(&python).await;
        let mark = service.path("").display().to_string();
        Some(Self { service, http, python, mark })
    }

    /// The metadata of a tool.
    fn metadata(&self, over: Over, name: &str) -> Value {
        let mut metadata = match over {
            HTTP => json!({ "url": self.http.url() }),
            STDIO => json!({ "entrypoint": self.python, "args": [SERVER], "env": { MARK: self.mark } }),
        };
        metadata["runtime"] = json!("mcp");
        metadata["tool"] = json!(name);
        metadata["limits"] = json!({ "timeout_ms": LIMITS, "output_bytes": 10_000 });
        metadata
    }

    /// Registers a tool of the server: its id.
    async fn create(&self, over: Over, name: &str) -> String {
        let id = format!("{over:?}.{name}");
        self.service.create(&tool(&id, self.metadata(over, name))).await;
        id
    }

    async fn run(&self, id: &str, input: Value) -> Value {
        self.service.run("tool", id, input).await.output().clone()
    }

    async fn failure(&self, id: &str, input: Value) -> (String, String) {
        let talk = self.service.run("tool", id, input).await;
        let (error, code) = talk.error();
        (code.to_owned(), error.to_owned())
    }

    /// The processes of the server that is a program.
    fn processes(&self) -> Vec<u32> {
        processes_with(MARK, &self.mark)
    }
}

#[tokio::test]
async fn a_tool_gives_what_is_structured_or_its_json_or_its_content() {
    let Some(bench) = Bench::new().await else { return };
    for over in [HTTP, STDIO] {
        let add = bench.create(over, "add").await;
        assert_eq!(bench.run(&add, json!({ "a": 1, "b": 41 })).await, json!({ "result": 42 }));
        // The library would hand on another number.
        let input = format!(r#"{{"tool_id":"{add}","input_data":{{"a":12345678901234567890123,"b":1}}}}"#);
        let talk = bench.service.talk("/tool", &input).await;
        assert_eq!(talk.error().1, "invalid_input", "{talk:?}");
        let whole = bench.create(over, "whole").await;
        let expected = json!({ "name": "Ada", "number": 1.5 });
        assert_eq!(bench.run(&whole, json!({ "name": "Ada" })).await, expected);
        let greet = bench.create(over, "greet").await;
        let expected = json!({ "content": [{ "type": "text", "text": "Hello, Ada" }] });
        assert_eq!(bench.run(&greet, json!({ "name": "Ada" })).await, expected);
        let picture = bench.create(over, "picture").await;
        let content = &bench.run(&picture, json!({})).await["content"][0];
        assert_eq!((&content["type"], &content["mimeType"]), (&json!("image"), &json!("image/png")));
        let fail = bench.create(over, "fail").await;
        let (code, error) = bench.failure(&fail, json!({ "why": "too cold" })).await;
        assert_eq!((code.as_str(), error.as_str()), ("tool_error", "too cold"), "{over:?}");
    }
    // Without `tool`, the id is the name.
    let mut metadata = bench.metadata(HTTP, "");
    metadata.as_object_mut().unwrap().remove("tool");
    bench.service.create(&tool("add", metadata)).await;
    assert_eq!(bench.run("add", json!({ "a": 2, "b": 2 })).await, json!({ "result": 4 }));
}

#[tokio::test]
async fn progress_and_log_of_a_tool_are_heard_in_their_order() {
    let Some(bench) = Bench::new().await else { return };
    for over in [HTTP, STDIO] {
        let steps = bench.create(over, "steps").await;
        let talk = streamed(&bench.service, &steps, json!({})).await;
        assert_eq!(*talk.output(), json!({ "result": "done" }));
        let is_told = |frame: &&Value| {
            frame["event"] == "progress"
                || frame["line"].as_str().is_some_and(|line| line.starts_with("did "))
        };
        let told = talk.frames.iter().filter(is_told);
        let told: Vec<Value> = told
            .map(|frame| match frame["line"].as_str() {
                Some(line) => json!(line),
                None => json!([frame["progress"], frame["message"]]),
            })
            .collect();
        let expected = [json!([0.25, "step 1"]), json!("did 1"), json!([0.5, "step 2"]), json!("did 2")];
        assert_eq!(told, expected, "{over:?}");
    }
    let say = bench.create(STDIO, "say").await;
    let talk = streamed(&bench.service, &say, json!({ "line": "to standard error" })).await;
    assert!(lines(&talk).contains(&"to standard error"), "{talk:?}");
}

#[tokio::test]
async fn one_server_answers_for_all_its_tools_in_a_folder_of_its_own() {
    let Some(bench) = Bench::new().await else { return };
    let (about, add) = (bench.create(STDIO, "about").await, bench.create(STDIO, "add").await);
    let first = bench.run(&about, json!({})).await;
    bench.run(&add, json!({ "a": 1, "b": 1 })).await;
    let second = bench.run(&about, json!({})).await;
    assert_eq!(first["me"], second["me"]);
    let run = bench.service.path("data/run").canonicalize().unwrap();
    assert!(Path::new(first["folder"].as_str().unwrap()).starts_with(run), "{first}");
    let env = first["env"].as_object().unwrap();
    // Python sets its locale itself.
    let known = ["PATH", "HOME", MARK, "LC_CTYPE"];
    assert!(env.keys().all(|name| known.contains(&name.as_str())), "{env:?}");
}

#[tokio::test]
async fn a_server_that_was_killed_between_two_calls_is_there_again() {
    let Some(mut bench) = Bench::new().await else { return };
    for over in [HTTP, STDIO] {
        let about = bench.create(over, "about").await;
        let first = bench.run(&about, json!({})).await;
        if over == HTTP {
            bench.http.kill();
            bench.http = Http::start_on(&bench.python, bench.http.port).await;
        } else {
            let pids = bench.processes();
            for pid in &pids {
                kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
            }
            // Once it was reaped its pipes are closed; its environment goes before them.
            let is_gone = || pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists());
            eventually("it is gone", PATIENCE, is_gone).await;
        }
        let second = bench.run(&about, json!({})).await;
        assert_ne!(first["me"], second["me"], "{over:?}");
    }
}

#[tokio::test]
async fn a_server_that_dies_in_a_call_is_told_and_is_there_for_the_next_one() {
    let Some(mut bench) = Bench::new().await else { return };
    for over in [HTTP, STDIO] {
        let (die, add) = (bench.create(over, "die").await, bench.create(over, "add").await);
        let start = Instant::now();
        let (code, error) = bench.failure(&die, json!({})).await;
        assert!(start.elapsed() < PATIENCE, "{over:?}");
        if over == HTTP {
            assert_eq!(code, "service_unavailable", "{error}");
            bench.http.kill();
            let (code, error) = bench.failure(&add, json!({ "a": 1, "b": 2 })).await;
            assert_eq!(code, "service_unavailable", "{error}");
            assert!(!error.contains("127.0.0.1"), "{error}");
            bench.http = Http::start_on(&bench.python, bench.http.port).await;
        } else {
            assert_eq!(code, "exit_status", "{error}");
            assert!(error.contains("the MCP server ended with exit status 3"), "{error}");
        }
        assert_eq!(bench.run(&add, json!({ "a": 1, "b": 2 })).await, json!({ "result": 3 }), "{over:?}");
    }
}

#[tokio::test]
async fn a_call_that_takes_too_long_or_is_cancelled_ends_on_both_sides() {
    let Some(bench) = Bench::new().await else { return };
    let said = |name: &str| std::fs::read_to_string(bench.service.path(name)).unwrap_or_default();
    for over in [HTTP, STDIO] {
        let (hang, add) = (bench.create(over, "hang").await, bench.create(over, "add").await);
        // The server is there, so that the time is that of the call.
        bench.run(&add, json!({ "a": 1, "b": 2 })).await;
        let input = |name: &str| json!({ "mark": bench.service.path(name) });
        let late = format!("{over:?}.late");
        let text = request_with("tool", &hang, input(&late), json!({ "timeout_ms": 1_500 }));
        let talk = bench.service.talk("/tool", &text).await;
        assert_eq!(talk.error().1, "timed_out", "{over:?}");
        assert_eq!(bench.run(&add, json!({ "a": 1, "b": 2 })).await, json!({ "result": 3 }));

        let ended = format!("{over:?}.ended");
        let (mut socket, uuid) = accepted(&bench.service, &hang, input(&ended), json!({})).await;
        eventually("it hangs", PATIENCE, || said(&ended).contains("began")).await;
        socket.send(&json!({ "cancel": uuid }).to_string()).await;
        assert_eq!(socket.rest().await.error().1, "cancelled", "{over:?}");
        if over == HTTP {
            for name in [late, ended] {
                eventually("it was told", PATIENCE, || said(&name).contains("cancelled")).await;
            }
        } else {
            assert_eq!(bench.processes(), [0_u32; 0]);
        }
        assert_eq!(bench.run(&add, json!({ "a": 1, "b": 2 })).await, json!({ "result": 3 }));
    }
}

#[tokio::test]
async fn an_output_that_is_too_large_is_refused_and_the_next_one_is_well() {
    let Some(bench) = Bench::new().await else { return };
    for over in [HTTP, STDIO] {
        let large = bench.create(over, "large").await;
        // A little too large; and more than is read of one message.
        for count in [10_000, 1_000_000] {
            let (code, error) = bench.failure(&large, json!({ "count": count })).await;
            assert_eq!(code, "output_too_large", "{over:?}: {error}");
        }
        let output = bench.run(&large, json!({ "count": 9_000 })).await;
        assert_eq!(output["result"].as_str().unwrap().len(), 9_000, "{over:?}");
    }
}

#[tokio::test]
async fn nothing_of_a_server_is_left_when_the_service_has_ended() {
    let Some(bench) = Bench::new().await else { return };
    let child = bench.create(STDIO, "child").await;
    bench.run(&child, json!({})).await;
    assert!(bench.processes().len() >= 2, "{:?}", bench.processes());
    let Bench { service, mark, .. } = bench;
    assert_eq!(service.stop().await.code(), Some(0));
    let is_gone = || processes_with(MARK, &mark).is_empty();
    eventually("it is gone", Duration::from_secs(3), is_gone).await;
}

#[tokio::test]
async fn a_server_that_cannot_be_had_says_why() {
    let service = Service::start().await;
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stranger = crate::server::Server::start(|_| crate::server::Answer::Text(200, "hello".into())).await;
    for (id, metadata, code, part) in [
        ("none", json!({}), "not_startable", "neither `url` nor `entrypoint`"),
        ("absent", json!({ "entrypoint": "no-such-server" }), "not_startable", "not on this machine's PATH"),
        (
            "short",
            json!({ "entrypoint": "sh", "args": ["-c", "echo oh no >&2; exit 4"] }),
            "not_startable",
            "it ended with exit status 4: oh no",
        ),
        (
            "nobody",
            json!({ "url": format!("http://{nobody}/mcp?key=s3cret") }),
            "service_unavailable",
            "refused",
        ),
        ("stranger", json!({ "url": stranger.url("/mcp") }), "service_unavailable", "cannot be reached"),
        ("nonsense", json!({ "url": "nonsense" }), "service_unavailable", "not valid"),
    ] {
        let mut metadata = metadata;
        metadata["runtime"] = json!("mcp");
        service.create(&tool(id, metadata)).await;
        let talk = service.run("tool", id, json!({})).await;
        let (error, told) = talk.error();
        assert_eq!(told, code, "{id}: {error}");
        assert!(error.contains(part) && !error.contains("s3cret"), "{id}: {error}");
    }
    assert!(!service.log().contains("s3cret"), "{}", service.log());
    let silent =
        json!({ "runtime": "mcp", "entrypoint": "sleep", "args": ["60"], "limits": { "timeout_ms": 500 } });
    service.create(&tool("silent", silent)).await;
    assert_eq!(service.run("tool", "silent", json!({})).await.error().1, "timed_out");
}

/// A service with this source, of which `demo.add` is registered, run and looked at.
async fn registered(source: &str) -> Value {
    let sources = format!(r#"[{{name = "demo", prefix = "demo.", timeout_ms = 60000, {source}}}]"#);
    let service = Launch::new().set("SOURCES", sources).start().await;
    let (status, told) = service.rest("POST", "/tool/register/demo.add", "").await;
    assert_eq!(status, 201, "{told}");
    assert_eq!(told["message"], "Inserted tool with id: demo.add");
    let (_, stored) = service.rest("GET", "/tool/demo.add", "").await;
    let stored = stored["data"].clone();
    assert_eq!(stored["tool_description"], "Adds two numbers.");
    assert_eq!(stored["tool_search_tags"], json!(["mcp", "demo"]));
    let metadata = &stored["tool_metadata"];
    assert_eq!((&metadata["runtime"], &metadata["tool"]), (&json!("mcp"), &json!("add")), "{metadata}");
    assert_eq!(metadata["idempotent"], true, "{metadata}");
    assert_eq!(metadata["input_schema"]["required"], json!(["a", "b"]), "{metadata}");
    let text = request_with("tool", "demo.add", json!({ "a": 1, "b": 2 }), json!({}));
    let talk = service.talk("/tool", &text).await;
    assert_eq!(*talk.output(), json!({ "result": 3 }));
    let refused = service.run("tool", "demo.add", json!({ "a": "x", "b": 2 })).await;
    assert!(refused.refusal().0.contains("/a: "), "{refused:?}");
    let (status, told) = service.rest("POST", "/tool/register/demo.none", "").await;
    assert_eq!((status, &told["code"]), (404, &json!("not_found")), "{told}");
    let import = service.client().post(service.url("/tools/import/demo")).send().await.unwrap();
    let lines: Vec<Value> =
        import.text().await.unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let failed: Vec<&Value> = lines.iter().filter(|line| line["result"] == "failed").collect();
    assert_eq!((failed.len(), &failed[0]["code"]), (1, &json!("invalid")), "{lines:?}");
    assert!(failed[0]["error"].as_str().unwrap().contains("\"files/read\""), "{failed:?}");
    let tally = &lines.last().unwrap()["data"];
    assert_eq!((&tally["exists"], &tally["failed"]), (&json!(1), &json!(1)), "{tally}");
    assert_eq!(tally["created"], json!(lines.len() - 3), "{tally}");
    stored
}

#[tokio::test]
async fn the_tools_of_a_server_that_is_a_source_register_and_run() {
    let Some(python) = python().await else { return };
    let http = Http::start(&python).await;
    let url = http.url();
    let source = format!(r#"mcp_url = "{url}", allow_private = true, headers = {{x-token = "s3cret"}}"#);
    let stored = registered(&source).await;
    assert_eq!(stored["tool_metadata"]["url"], json!(url), "{stored}");
    assert!(!stored.to_string().contains("s3cret"), "{stored}");
    let source = format!(r#"mcp_command = ["{}", "{SERVER}"]"#, python.display());
    let stored = registered(&source).await;
    assert_eq!(stored["tool_metadata"]["args"], json!([SERVER]), "{stored}");
}
