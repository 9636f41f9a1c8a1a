//! Secrets: given to executions by name, and found afterwards nowhere: in no answer, log, error, metric or file. Each
//! value has a word in it that nothing else has, and is looked for in whatever form it may stand.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::podman::{IMAGE, podman};
use crate::program::{Gate, function, lines, put_source, python, shell, shell_within, streamed, tool};
use crate::server::{Answer, Server};
use crate::service::{Launch, PATIENCE, Service, eventually};
use crate::socket::Talk;
use crate::wasm::guests;

mod needles;

use needles::Needles;

/// What must be found nowhere, and what is in no value besides.
const WORDS: [&str; 5] =
    ["qenvq7f3a9c01", "qfileq5b8d2e44", "qcmdq9d1c6b27", "qpemqa1b2c3d4e5f6", "qnextq3c5e7a90"];

const BY_ENV: &str = "x\"y/qenvq7f3a9c01+ü=";
const BY_FILE: &str = "qfileq5b8d2e44";
const BY_COMMAND: &str = "user:qcmdq9d1c6b27@host";
const BY_LINES: &str =
    "-----BEGIN KEY-----\nqpemqa1b2c3d4e5f6AAAA\nqpemqa1b2c3d4e5f6BBBB\n-----END KEY-----\n";

/// What `BY_FILE` becomes.
const NEXT: &str = "qnextq3c5e7a90";

/// A service that has four secrets, and everything that it said.
struct Bench {
    service: Service,
    said: Mutex<String>,
}

impl Bench {
    async fn new(launch: Launch) -> Self {
        let (file, printed, pem) = (launch.path("file"), launch.path("printed"), launch.path("lines"));
        std::fs::write(&file, format!("{BY_FILE}\n")).unwrap();
        std::fs::write(&printed, BY_COMMAND).unwrap();
        std::fs::write(&pem, BY_LINES).unwrap();
        let config = format!(
            "[secrets]\n\
             by_env = {{ env = 'SECRET_OF_A_TEST', definitions = ['may-*'] }}\n\
             by_file = {{ file = '{}', definitions = ['may-*'] }}\n\
             by_command = {{ command = ['cat', '{}'], definitions = ['may-*', 'other'] }}\n\
             by_lines = {{ file = '{}', trim = false, definitions = ['may-*'] }}\n\
             absent = {{ file = '/no/such/file', definitions = ['may-*'] }}\n\
             refused = {{ command = ['sh', '-c', 'echo {BY_FILE}; echo {BY_FILE} >&2; exit 3'], definitions = ['*'] }}\n\
             short = {{ env = 'SHORT_SECRET_OF_A_TEST', definitions = ['*'] }}\n\
             for_nobody = {{ env = 'SECRET_OF_A_TEST' }}\n",
            file.display(),
            printed.display(),
            pem.display(),
        );
        let launch =
            launch.config(&config).env("SECRET_OF_A_TEST", BY_ENV).env("SHORT_SECRET_OF_A_TEST", "abc");
        Self { service: launch.start().await, said: Mutex::default() }
    }

    /// Registers a definition with all secrets, under a name that may have them, and runs it with a stream.
    async fn run(&self, name: &str, mut metadata: Value) -> Talk {
        if metadata.get("secrets").is_none() {
            metadata["secrets"] =
                json!({ "E": "by_env", "F": "by_file", "C": "by_command", "L": "by_lines" });
        }
        let id = format!("may-{name}");
        self.service.create(&tool(&id, metadata)).await;
        self.again(&id).await
    }

    async fn again(&self, id: &str) -> Talk {
        self.heard(streamed(&self.service, id, json!({})).await)
    }

    /// Keeps what was heard, and what is told of the execution afterwards.
    fn heard(&self, talk: Talk) -> Talk {
        self.said.lock().unwrap().push_str(&format!("{:?}\n", talk.frames));
        talk
    }

    async fn log_of(&self, talk: &Talk) -> String {
        let path = format!("/execution/{}/log", talk.uuid().unwrap());
        self.service.rest("GET", &path, "").await.1["data"]["lines"].to_string()
    }

    /// Asks for all that the service tells, ends it, and looks for the words in all that it said and all that it keeps.
    async fn assert_no_trace(mut self) {
        let list = self.service.rest("GET", "/executions?limit=1000", "").await.1;
        let executions = list["data"].as_array().unwrap().clone();
        assert!(!executions.is_empty());
        let mut paths: Vec<String> =
            ["/executions", "/system", "/metrics", "/readyz", "/openapi.json", "/tools/export"]
                .map(str::to_owned)
                .into();
        for execution in &executions {
            let uuid = execution["uuid"].as_str().unwrap();
            paths.extend([format!("/execution/{uuid}"), format!("/execution/{uuid}/log")]);
        }
        for path in paths {
            let (status, text) = self.service.rest_text("GET", &path, "").await;
            assert_eq!(status, 200, "{path}: {text}");
            self.said.lock().unwrap().push_str(&text);
        }
        self.service.signal(Signal::SIGTERM);
        assert!(self.service.exit().await.success());
        self.said.lock().unwrap().push_str(&self.service.log());
        let needles = Needles::of(&WORDS);
        needles.assert_absent("what the service said", self.said.lock().unwrap().as_bytes());
        let files = assert_absent_below(&needles, &self.service.path("data"));
        println!("{} executions, {files} files without a trace", executions.len());
        assert!(files > 5);
    }
}

fn assert_absent_below(needles: &Needles, folder: &Path) -> usize {
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let about = std::fs::symlink_metadata(&path).unwrap();
        if about.is_dir() {
            files += assert_absent_below(needles, &path);
        } else if about.is_file() {
            needles.assert_absent(&path.display().to_string(), path.display().to_string().as_bytes());
            needles.assert_absent(&path.display().to_string(), &std::fs::read(&path).unwrap());
            files += 1;
        }
    }
    files
}

fn text(script: &str) -> Value {
    let mut metadata = shell(script);
    metadata["output"] = json!("text");
    metadata
}

#[tokio::test]
async fn programs_have_secrets_and_none_of_what_they_print_has_one() {
    let bench = Bench::new(Launch::new()).await;
    let file = "[redacted:by_file]";

    // They have them: as they are, and nothing but them.
    let talk = bench
        .run("lengths", text("echo ${#F} ${#C}; printf %s \"$L\" | wc -c; env | grep -c QQQ; true"))
        .await;
    let lengths = format!("{} {}\n{}\n0\n", BY_FILE.len(), BY_COMMAND.len(), BY_LINES.len());
    assert_eq!(talk.output()["stdout"], lengths);

    let talk = bench.run("plain", text("echo \"$E|$F|$C|\"; echo \"$L\"")).await;
    let said =
        format!("[redacted:by_env]|{file}|[redacted:by_command]|\n{}\n", "[redacted:by_lines]\n".repeat(4));
    assert_eq!(talk.output()["stdout"], said);

    let json_of = r#"printf '{"%s":["a%sb",{"x":"%s"}],"n":1.50}' "$F" "$F" "$C""#;
    let talk = bench.run("json", shell(json_of)).await;
    let told = json!({ file: [format!("a{file}b"), { "x": "[redacted:by_command]" }], "n": 1.5 });
    assert_eq!(*talk.output(), told);

    let mut metadata = shell("echo \"$L\"");
    metadata["output"] = json!("lines");
    assert_eq!(
        *bench.run("lines", metadata).await.output(),
        json!(vec!["[redacted:by_lines]"; 4].into_iter().chain([""]).collect::<Vec<_>>())
    );

    for (name, script) in [
        (
            "base64",
            "printf %s \"$F\" | base64; printf 'user:%s' \"$F\" | base64; printf 'a:%s:b' \"$E\" | base64",
        ),
        (
            "wrapped",
            "printf %s \"$L\" | base64; printf %s \"$L\" | base64 -w 64; printf %s \"$L\" | base64 -w 0",
        ),
        ("url-safe", "printf %s \"$E\" | base64 | tr '+/' '-_'; printf %s \"$E\" | base64 | tr -d =\\\\n"),
        ("hex", "printf %s \"$E\" | od -An -v -tx1 | tr -d ' \\n'"),
    ] {
        let talk = bench.run(name, text(script)).await;
        println!("{name}: {}", talk.output());
        assert!(talk.output()["stdout"].as_str().unwrap().contains("[redacted:by_"), "{talk:?}");
    }

    let log = "printf %s qfileq5b >&2; sleep 0.05; printf '8d2e44\\n' >&2; echo \"see $E and $F\" >&2; echo \"$L\" >&2; echo null";
    let talk = bench.run("log", shell(log)).await;
    let heard = [
        file,
        &format!("see [redacted:by_env] and {file}"),
        "[redacted:by_lines]",
        "[redacted:by_lines]",
        "[redacted:by_lines]",
        "[redacted:by_lines]",
        "",
    ];
    assert_eq!(lines(&talk), heard);
    assert!(bench.log_of(&talk).await.contains(&format!("see [redacted:by_env] and {file}")));

    let progress = r#"printf '{"progress":0.5,"message":"at %s"}\n' "$F" >&2; echo null"#;
    let talk = bench.run("progress", shell(progress)).await;
    let told = talk.frames.iter().find(|frame| frame["event"] == "progress").expect("progress");
    assert_eq!((&told["progress"], &told["message"]), (&json!(0.5), &json!(format!("at {file}"))));

    let talk = bench.run("fails", shell("echo \"bad token $F\" >&2; printf %s \"$C\" >&2; exit 3")).await;
    assert_eq!(
        talk.error(),
        (
            &*format!("the program ended with exit status 3: bad token {file}\n[redacted:by_command]"),
            "exit_status"
        )
    );

    // The sentence about an output that does not fit is cut: here in the middle of a secret.
    let mut metadata = shell(&format!("printf '\"{}%s\"' \"$F\"", "0".repeat(299 - BY_FILE.len() / 2)));
    metadata["output_schema"] = json!({ "type": "integer" });
    let talk = bench.run("misfit", metadata).await;
    let (error, code) = talk.error();
    assert_eq!(code, "invalid_output");
    assert!(error.ends_with("0[redacted:by_file]…"), "{error}");

    let talk = bench.run("no-json", shell("echo \"$F\"")).await;
    assert_eq!(talk.error().1, "invalid_output");

    // A line that is open when its program is ended.
    let talk = bench.run("late", shell_within(500, "printf 'open %s' \"$F\" >&2; sleep 60")).await;
    assert_eq!(talk.error().1, "timed_out");
    assert!(bench.log_of(&talk).await.contains(&format!("open {file}")));

    put_source(&bench.service, "files.sh", "echo \"$F\"; printf '{\"a\":\"%s\"}' \"$F\" > \"$2\"");
    let talk =
        bench.run("files", json!({ "runtime": "script", "source_url": "files.sh", "io": "files" })).await;
    assert_eq!(*talk.output(), json!({ "a": file }));

    bench.assert_no_trace().await;
}

#[tokio::test]
async fn another_program_finds_no_secret_in_its_environment_or_in_proc() {
    let bench = Bench::new(Launch::new().limits()).await;
    let gate = Gate::new();
    let mut holder = gate.program("echo null");
    holder["secrets"] = json!({ "F": "by_file", "E": "by_env" });
    bench.service.create(&tool("may-hold", holder)).await;
    let holding = tokio::spawn({
        let (address, text) =
            (bench.service.websocket, json!({ "tool_id": "may-hold", "input_data": {} }).to_string());
        async move { Talk::hold(address, "/tool", &text).await.unwrap() }
    });
    gate.arrived(1).await;
    let spy = "env; cat /proc/self/environ /proc/$PPID/environ; for p in /proc/[0-9]*; do tr '\\0' '\\n' < $p/cmdline; done; true";
    bench.service.create(&tool("spy", text(spy))).await;
    let talk = bench.again("spy").await;
    assert!(talk.output()["stdout"].as_str().unwrap().contains("ORG_EXECUTION="), "{talk:?}");
    gate.open();
    bench.heard(holding.await.unwrap()).output();
    bench.assert_no_trace().await;
}

const HANDLER: &str = r#"
import base64, json, os, sys, urllib.parse, uuid

ME = uuid.uuid4().hex
SECRET = os.environ["F"]

def handler(input, context):
    how = input["how"]
    if how == "return":
        return {"plain": SECRET, "quoted": [urllib.parse.quote(os.environ["E"], safe=safe) for safe in ("", "/", ":")], SECRET: [base64.b64encode(("a" + SECRET).encode()).decode()],
                "json": json.dumps(json.dumps(dict(os.environ)))}
    if how == "raise":
        raise ValueError("no access with " + SECRET + os.environ["E"])
    if how == "print":
        print("printed " + SECRET)
        sys.stderr.write(os.environ["E"])
        sys.stdout.write(SECRET[:5])
        sys.stdout.flush()
        sys.stdout.write(SECRET[5:] + "\n")
        context.progress(0.5, SECRET)
        return None
    if how == "exit":
        sys.stderr.write(SECRET)
        sys.stderr.flush()
        os._exit(3)
    return {"me": ME, "is_next": "next" in SECRET, "left": [name for name in os.environ if name in "EFCL"]}
"#;

#[tokio::test]
async fn a_handler_returns_raises_and_prints_none_and_gets_a_value_that_changed() {
    let bench = Bench::new(Launch::new().set("POOLS__PYTHON__MAX", 1)).await;
    put_source(&bench.service, "handler.py", HANDLER);
    let mut metadata = python("handler.py");
    metadata["secrets"] = json!({ "E": "by_env", "F": "by_file" });
    bench.service.create(&tool("may-handle", metadata)).await;
    let run = async |how: &str| {
        let text =
            json!({ "tool_id": "may-handle", "input_data": { "how": how }, "options": { "stream": true } });
        bench.heard(bench.service.talk("/tool", &text.to_string()).await)
    };
    let file = "[redacted:by_file]";
    let talk = run("return").await;
    assert_eq!(talk.output()["plain"], file);
    assert_eq!(talk.output()["quoted"], json!(vec!["[redacted:by_env]"; 3]));
    assert!(talk.output()[file][0].as_str().unwrap().contains(file), "{talk:?}");
    let talk = run("raise").await;
    assert_eq!(talk.error(), (&*format!("ValueError: no access with {file}[redacted:by_env]"), "exception"));
    let talk = run("print").await;
    // What was printed to standard error ends without an end of line, and is flushed last.
    assert_eq!(lines(&talk), [&*format!("printed {file}"), file, "[redacted:by_env]"]);
    let talk = run("exit").await;
    assert!(talk.error().0.contains(file), "{talk:?}");

    let first = run("look").await.output().clone();
    assert_eq!((&first["is_next"], &first["left"]), (&json!(false), &json!(["E", "F"])));
    assert_eq!(run("look").await.output()["me"], first["me"]);
    std::fs::write(bench.service.path("file"), NEXT).unwrap();
    let next = run("look").await.output().clone();
    assert_eq!(next["is_next"], true);
    assert_ne!(next["me"], first["me"]);
    bench.assert_no_trace().await;
}

#[tokio::test]
async fn what_is_called_gets_secrets_in_headers_and_may_echo_them() {
    let server = Server::start(|asked| match asked.path.as_str() {
        "/fails" => Answer::Text(500, format!("{}{}", "x".repeat(400), asked.headers)),
        "/moves" => Answer::Redirect("/echo".into()),
        _ => Answer::Json(200, json!({ "headers": asked.headers })),
    })
    .await;
    let bench = Bench::new(Launch::new()).await;
    let headers = json!({ "authorization": "Bearer {{secrets.F}}", "x-user": "{{ secrets.C }}" });
    let calls = |path: &str| {
        let url = server.url(path);
        json!({ "runtime": "http", "url": url, "headers": headers, "secrets": { "F": "by_file", "C": "by_command" } })
    };
    for (name, path) in [("echo", "/echo"), ("moves", "/moves")] {
        let talk = bench.run(name, calls(path)).await;
        let told = talk.output()["headers"].as_str().unwrap();
        assert!(told.contains("authorization: bearer [redacted:by_file]"), "{told}");
        assert!(told.contains("x-user: [redacted:by_command]"), "{told}");
    }
    let talk = bench.run("fails", calls("/fails")).await;
    assert_eq!(talk.error().1, "http_status");
    for asked in server.asked() {
        assert!(asked.headers.contains(&format!("authorization: bearer {BY_FILE}\r\n")), "{asked:?}");
        assert!(asked.headers.contains(&format!("x-user: {BY_COMMAND}\r\n")), "{asked:?}");
    }
    // A value of several lines is not for a header.
    let mut metadata = calls("/echo");
    metadata["headers"] = json!({ "x": "{{secrets.L}}" });
    metadata["secrets"] = json!({ "L": "by_lines" });
    let talk = bench.run("lines", metadata).await;
    assert_eq!(talk.error().1, "secret_unavailable");
    assert_eq!(server.asked().len(), 4);
    bench.assert_no_trace().await;
}

const MCP_SERVER: &str = r#"
import json, os, sys
for line in sys.stdin:
    asked = json.loads(line)
    if asked["method"] == "initialize":
        result = {"protocolVersion": asked["params"]["protocolVersion"], "capabilities": {"tools": {}},
                  "serverInfo": {"name": "t", "version": "1"}}
    elif asked["method"] == "tools/call":
        sys.stderr.write("called with " + os.environ["F"] + "\n")
        sys.stderr.flush()
        told = {"method": "notifications/message", "params": {"level": "info", "data": "told " + os.environ["F"]}}
        print(json.dumps({"jsonrpc": "2.0", **told}), flush=True)
        fails = asked["params"]["name"] == "fails"
        result = {"content": [{"type": "text", "text": "x" * (2040 if fails else 1) + os.environ["F"]}], "isError": fails}
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"#;

#[tokio::test]
async fn an_mcp_server_has_secrets_and_passes_none_on() {
    let bench = Bench::new(Launch::new()).await;
    let metadata = |name: &str| json!({ "runtime": "mcp", "entrypoint": "python3", "args": ["-c", MCP_SERVER], "tool": name, "secrets": { "F": "by_file" } });
    let talk = bench.run("says", metadata("says")).await;
    assert_eq!(talk.output()["content"][0]["text"], "x[redacted:by_file]");
    let mut heard = lines(&talk);
    heard.sort_unstable();
    assert_eq!(heard, ["called with [redacted:by_file]", "told [redacted:by_file]"]);
    // What is told is cut at 2,048 bytes, in the middle of the value.
    let talk = bench.run("fails", metadata("fails")).await;
    assert_eq!(talk.error(), (&*format!("{}[redacted:by_file]…", "x".repeat(2_040)), "tool_error"));
    bench.assert_no_trace().await;
}

#[tokio::test]
async fn a_guest_of_webassembly_has_secrets_and_its_output_none() {
    let bench = Bench::new(Launch::new()).await;
    put_source(&bench.service, "tell.wat", guests::command(guests::TELL));
    let metadata = json!({ "runtime": "wasm", "source_url": "tell.wat", "output": "text", "secrets": { "F": "by_file" } });
    let talk = bench.run("tell", metadata).await;
    let told = talk.output()["stdout"].as_str().unwrap();
    assert!(told.contains("F=[redacted:by_file]\0"), "{told:?}");
    bench.assert_no_trace().await;
}

#[tokio::test]
async fn a_container_has_secrets_and_its_output_none() {
    let Some(podman) = podman().await else { return };
    let launch = Launch::new().set("CONTAINERS__SOCKET", podman.socket()).set("POOLS__CONTAINER__MAX", 1);
    let bench = Bench::new(launch).await;
    for mode in ["fresh", "warm", "warm_once"] {
        let script = "echo \"$F $C\"; echo \"log $L\" >&2; tr '\\0' '\\n' < /proc/1/cmdline";
        let metadata = json!({
            "runtime": "container",
            "image": IMAGE,
            "command": ["sh", "-c", script],
            "container": { "mode": mode, "pull": "never" },
            "output": "text",
        });
        let talk = bench.run(mode, metadata).await;
        let told = talk.output()["stdout"].as_str().unwrap();
        assert!(told.starts_with("[redacted:by_file] [redacted:by_command]\n"), "{mode}: {told}");
        assert_eq!(lines(&talk)[1], "[redacted:by_lines]", "{mode}");
    }
    eventually("no container is left", PATIENCE, || podman.containers(&bench.service).len() <= 2).await;
    bench.assert_no_trace().await;
}

#[tokio::test]
async fn a_secret_that_cannot_be_had_is_told_by_its_name_only() {
    let bench = Bench::new(Launch::new()).await;
    for (secret, code, why) in [
        ("nowhere", "not_startable", "is not there for this definition"),
        ("for_nobody", "not_startable", "is not there for this definition"),
        ("absent", "secret_unavailable", "has a file that cannot be read: entity not found"),
        ("refused", "secret_unavailable", "has a command that ended with exit status: 3"),
        ("short", "secret_unavailable", "is shorter than 4 bytes"),
    ] {
        let mut metadata = shell("echo '\"ran\"'");
        metadata["secrets"] = json!({ "X": secret });
        let talk = bench.run(secret, metadata).await;
        let (error, told) = talk.error();
        assert_eq!(told, code, "{error}");
        assert!(error.starts_with(&format!("the secret {secret:?} {why}")), "{error}");
    }
    // Whose id the configuration does not name has none either.
    let mut metadata = shell("echo '\"ran\"'");
    metadata["secrets"] = json!(["by_file"]);
    bench.service.create(&tool("other", metadata)).await;
    assert_eq!(bench.again("other").await.error().1, "not_startable");
    bench.assert_no_trace().await;
}

#[tokio::test]
async fn what_cannot_be_given_is_refused_at_registration() {
    let bench = Bench::new(Launch::new()).await;
    let url = "http://127.0.0.1:1/";
    for (metadata, place) in [
        (json!({ "runtime": "binary", "secrets": 5 }), "secrets"),
        (json!({ "runtime": "binary", "secrets": ["PATH"] }), "secrets.PATH"),
        (json!({ "runtime": "binary", "secrets": ["a-b"] }), "secrets.a-b"),
        (json!({ "runtime": "http", "url": url, "secrets": ["a"] }), "secrets.a"),
        (json!({ "runtime": "http", "url": format!("{url}?k={{{{secrets.a}}}}"), "secrets": ["a"] }), "url"),
    ] {
        let (status, told) =
            bench.service.rest("POST", "/function", &function("f", metadata).to_string()).await;
        assert_eq!(status, 400, "{told}");
        assert_eq!(told["details"]["field"], format!("function_metadata.{place}"), "{told}");
    }
    // The definition is answered as it was written: it has names only.
    let mut metadata = shell("true");
    metadata["secrets"] = json!({ "TOKEN": "by_file" });
    bench.service.create(&tool("may-be", metadata.clone())).await;
    let (_, told) = bench.service.rest("GET", "/tool/may-be", "").await;
    assert_eq!(told["data"]["tool_metadata"], metadata);
    // One execution, so that there is something to look through.
    bench.again("may-be").await;
    bench.assert_no_trace().await;
}

#[tokio::test]
async fn a_secret_is_in_its_place_a_hundred_times_at_once() {
    let bench = Bench::new(Launch::new().executors(4)).await;
    let mut metadata = text("echo \"$C\"; echo \"$C\" >&2");
    metadata["secrets"] = json!({ "C": "by_command" });
    bench.service.create(&tool("may-often", metadata)).await;
    let mut socket = bench.service.socket("/session").await;
    let requests =
        (0..100).map(|id| json!({ "id": id, "tool_id": "may-often", "input_data": {} }).to_string());
    socket.send_all(requests).await;
    let mut ended = 0;
    while ended < 100 {
        let frame = tokio::time::timeout(Duration::from_secs(60), socket.frame()).await.unwrap().unwrap();
        if let Some(output) = frame.get("output") {
            assert_eq!(output["stdout"], "[redacted:by_command]\n");
            ended += 1;
        }
        assert_ne!(frame["success"], false, "{frame}");
        bench.said.lock().unwrap().push_str(&frame.to_string());
    }
    bench.assert_no_trace().await;
}
