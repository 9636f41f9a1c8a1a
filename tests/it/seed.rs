//! All that the seed shows, as it shows it: its Python clients and its curl calls.

use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::server::{Answer, Server};
use crate::service::{Launch, Service};

const RUN_TOOL: &str = include_str!("seed/run_tool.py");
const RUN_FUNCTION: &str = include_str!("seed/run_function.py");

/// The output of a program that succeeded, or why there is none.
async fn try_run(command: &mut Command) -> Result<String, String> {
    let output: Output = command.output().await.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&[output.stdout, output.stderr].concat()))
    }
}

/// A Python that has this package: the machine's own, or one made for the tests.
pub async fn python_with(package: &str) -> Result<PathBuf, String> {
    let own = PathBuf::from("python3");
    if has(&own, package).await.is_ok() {
        return Ok(own);
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(package);
    let made = folder.join("bin/python");
    if has(&made, package).await.is_err() {
        try_run(Command::new(own).args(["-m", "venv", "--clear"]).arg(&folder)).await?;
        try_run(Command::new(&made).args(["-m", "pip", "install", "--quiet", package])).await?;
    }
    Ok(made)
}

async fn has(python: &PathBuf, package: &str) -> Result<String, String> {
    try_run(Command::new(python).args(["-c", &format!("import {package}")])).await
}

#[tokio::test]
async fn the_python_clients_of_the_seed_get_their_results() {
    let python = match python_with("websockets").await {
        Ok(python) => python,
        Err(why) => return println!("skipped: no Python with websockets: {why}"),
    };
    let service = Service::start().await;
    let port = format!("localhost:{}", service.websocket.port());
    let run = async |script: &str| {
        assert!(script.contains("localhost:8765"));
        let script = script.replace("localhost:8765", &port);
        let mut command = Command::new(&python);
        try_run(command.arg("-c").arg(script)).await.unwrap()
    };
    let tool = run(RUN_TOOL).await;
    assert!(tool.contains("'uuid': '"), "{tool}");
    assert!(tool.contains("'output': {'result': 6}"), "{tool}");
    let function = run(RUN_FUNCTION).await;
    assert!(function.contains("'uuid': '"), "{function}");
    assert!(function.contains("'temperature': "), "{function}");
    assert!(function.contains("'unit': 'C'"), "{function}");
}

/// How the calls of the seed are made.
enum Caller {
    /// By the seed's own command lines.
    Curl,
    Client,
}

/// A service, a source to register from, and what its calls are answered.
struct Seed {
    service: Service,
    source: Server,
    caller: Caller,
}

impl Seed {
    async fn new(caller: Caller) -> Self {
        let source = Server::start(|asked| {
            let mut words = asked.path.split('/').skip(1);
            let (kind, id) = (words.next().unwrap(), words.next().unwrap());
            Answer::Json(200, definition(kind, id))
        });
        let source = source.await;
        let url = source.url("");
        let sources = format!(
            r#"[{{name="reg", tool_url="{url}/tool/{{id}}", function_url="{url}/function/{{id}}", allow_private=true}}]"#
        );
        let service = Launch::new().set("SOURCES", sources).start().await;
        let seed = Self { service, source, caller };
        for kind in ["tool", "function"] {
            let file = seed.service.path(&format!("{kind}.json"));
            std::fs::write(file, definition(kind, "created").to_string()).unwrap();
        }
        // Curl prints the status behind the answer, without a change to the command line.
        let settings = "silent\nwrite-out = \"\\n%{http_code}\"\n";
        std::fs::write(seed.service.path(".curlrc"), settings).unwrap();
        seed
    }

    /// One call of the seed: the status and the answer.
    async fn call(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        match self.caller {
            Caller::Curl => self.curl(method, path, body).await,
            Caller::Client if body.starts_with('@') => {
                let body = std::fs::read_to_string(self.service.path(&body[1..])).unwrap();
                self.service.rest(method, path, &body).await
            }
            Caller::Client => self.service.rest(method, path, body).await,
        }
    }

    /// The command line as the seed writes it, but for the port.
    async fn curl(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let url = format!("http://localhost:8000{path}");
        let json = r#"-H "Content-Type: application/json""#;
        let line = match (method, body) {
            ("GET", _) => format!("curl {url}"),
            (_, "") => format!("curl -X {method} {url}"),
            (_, file) if file.starts_with('@') => format!("curl -X {method} {url} {json} -d {file}"),
            _ => format!("curl -X {method} {url} {json} -d '{body}'"),
        };
        let port = self.service.rest.port().to_string();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &line.replace("8000", &port)])
            .current_dir(self.service.folder().path())
            .env("CURL_HOME", self.service.folder().path())
            .env("NO_PROXY", "*");
        let printed = try_run(&mut shell).await.unwrap();
        let (answer, status) = printed.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), serde_json::from_str(answer).unwrap())
    }

    /// The seed's calls that make, read and change a definition.
    async fn write(&self, kind: &str, id: &str) {
        let (one, all, file) = (format!("/{kind}/{id}"), format!("/{kind}"), format!("@{kind}.json"));
        let (status, answer) = self.call("POST", &all, &file).await;
        assert_eq!(status, 201, "{answer}");
        assert_eq!(answer["success"], true);
        let message = format!("{} created", title(kind));
        assert_eq!(answer["data"], json!({ "message": message, "id": "created" }));

        let (status, answer) = self.call("GET", &one, "").await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["data"][format!("{kind}_id")], id);
        assert_eq!(answer["data"].as_object().unwrap().len(), 5);

        let description = format!("{kind}_description");
        let update = json!({ &description: "Updated description" }).to_string();
        let (status, answer) = self.call("PUT", &one, &update).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["data"], json!({ "message": format!("{} updated", title(kind)) }));
        let (_, answer) = self.call("GET", &one, "").await;
        assert_eq!(answer["data"][description], "Updated description");
    }

    /// The seed's calls that find, delete and register one.
    async fn find(&self, kind: &str, id: &str, tags: &[&str]) {
        let one = format!("/{kind}/{id}");
        let filter = json!({ format!("{kind}_search_tags"): { "$in": tags } }).to_string();
        let (status, answer) = self.call("POST", &format!("/{kind}s"), &filter).await;
        assert_eq!(status, 200, "{answer}");
        let found = answer["data"].as_array().unwrap().iter();
        let ids: Vec<&Value> = found.map(|found| &found[format!("{kind}_id")]).collect();
        assert!(ids.contains(&&json!("created")), "{answer}");

        let (status, answer) = self.call("DELETE", &one, "").await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["data"], json!({ "message": format!("{} deleted", title(kind)) }));
        assert_eq!(self.call("GET", &one, "").await.0, 404);

        let register = format!("/{kind}/register/{id}");
        let (status, answer) = self.call("POST", &register, "").await;
        assert_eq!(status, 201, "{answer}");
        assert_eq!(answer["message"], format!("Inserted {kind} with id: {id}"));
        assert_eq!(self.call("GET", &one, "").await.0, 200);
        assert!(!self.source.asked().is_empty());
    }

    /// Every call of the seed.
    async fn walk(&self) {
        let (increment, weather) = ("binary-increment-tool", "weather_lookup:v1.0.0-stable");
        self.write("tool", increment).await;
        self.find("tool", increment, &["math", "utils"]).await;
        self.write("function", weather).await;
        self.find("function", weather, &["weather", "location"]).await;
    }
}

/// `Tool` or `Function`.
fn title(kind: &str) -> String {
    format!("{}{}", kind[..1].to_uppercase(), &kind[1..])
}

/// A definition under the names that the seed's `from_dict` reads.
fn definition(kind: &str, id: &str) -> Value {
    json!({
        format!("{kind}_id"): id,
        format!("{kind}_tags"): ["math", "weather"],
        format!("{kind}_metadata"): { "runtime": "binary", "entrypoint": "cat" },
        format!("{kind}_description"): "Echoes its input",
        format!("{kind}_default_params"): { "value": 1 },
    })
}

#[tokio::test]
async fn every_curl_of_the_seed_is_answered() {
    if let Err(why) = try_run(Command::new("curl").arg("--version")).await {
        return println!("skipped: no curl: {why}");
    }
    Seed::new(Caller::Curl).await.walk().await;
}

#[tokio::test]
async fn every_call_of_the_seed_is_answered() {
    Seed::new(Caller::Client).await.walk().await;
}

#[tokio::test]
async fn tool_tags_is_another_name_of_tool_search_tags() {
    let service = Service::start().await;
    for kind in ["tool", "function"] {
        service.create(&definition(kind, "tagged")).await;
        let (_, answer) = service.rest("GET", &format!("/{kind}/tagged"), "").await;
        let tags = &answer["data"][format!("{kind}_search_tags")];
        assert_eq!(*tags, json!(["math", "weather"]), "{answer}");
        assert!(answer["data"].get(format!("{kind}_tags")).is_none());
    }
}

#[tokio::test]
async fn after_a_restart_all_is_there() {
    let service = Service::start().await;
    service.create(&definition("tool", "kept")).await;
    let update = r#"{"function_description":"Updated"}"#;
    let weather = "/function/weather_lookup:v1.0.0-stable";
    assert_eq!(service.rest("PUT", weather, update).await.0, 200);
    let deleted = "/tool/binary-increment-tool";
    assert_eq!(service.rest("DELETE", deleted, "").await.0, 200);
    let before = service.rest("GET", "/tool/kept", "").await;
    let folder = service.folder();
    assert_eq!(service.stop().await.code(), Some(0));

    let service = Launch::on(folder).start().await;
    assert_eq!(service.rest("GET", "/tool/kept", "").await, before);
    let (_, answer) = service.rest("GET", weather, "").await;
    assert_eq!(answer["data"]["function_description"], "Updated");
    assert_eq!(service.rest("GET", deleted, "").await.0, 404);
    let (_, answer) = service.rest("POST", "/tools", r#"{"tool_search_tags":"math"}"#).await;
    let found = answer["data"].as_array().unwrap();
    assert!(found.iter().any(|tool| tool["tool_id"] == "kept"), "{answer}");
    let talk = service.run("tool", "kept", json!({ "x": 2 })).await;
    assert_eq!(*talk.output(), json!({ "value": 1, "x": 2 }));
}

#[tokio::test]
async fn the_catalog_answers_as_the_seed_shows() {
    let service = Service::start().await;
    for (value, result) in [(5, 6), (-1, 0), (0, 1), (1_000_000, 1_000_001)] {
        let input = json!({ "value": value });
        let frames = service.run_tool("binary-increment-tool", input).await;
        let output = json!({ "success": true, "output": { "result": result } });
        assert_eq!(frames[1], output);
    }
    let input = json!({ "city": "Delhi" });
    let weather = service.run("function", "weather_lookup:v1.0.0-stable", input).await;
    assert!(weather.output()["temperature"].is_number(), "{weather:?}");
    assert_eq!(weather.output()["unit"], "C");
}
