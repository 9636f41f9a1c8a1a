//! Handlers of the runtime `python`: how they are found and called, and what becomes of all that they print, give
//! and raise.

use serde_json::{Value, json};

use crate::program::{lines, put_source, python, streamed, tool};
use crate::service::Service;
use crate::socket::is_final;

/// A service with this source's handler as the tool `handler`.
async fn with_handler(source: &str) -> Service {
    with_metadata(source, python("handler.py")).await
}

async fn with_metadata(source: &str, metadata: Value) -> Service {
    let service = Service::start().await;
    put_source(&service, "handler.py", source);
    service.create(&tool("handler", metadata)).await;
    service
}

/// Sources that double `x`, each in another way that a handler may be written.
const DOUBLING: [(&str, &str); 6] = [
    ("a function", "def handler(input):\n    return input['x'] * 2\n"),
    ("a function with a context", "def handler(input, context):\n    return input['x'] * 2\n"),
    (
        "a coroutine",
        "import asyncio\n\nasync def handler(input, context):\n    await asyncio.sleep(0)\n    return input['x'] * 2\n",
    ),
    ("a class with execute", "class Tool:\n    def execute(self, input):\n        return input['x'] * 2\n"),
    ("a class with eval", "class Tool:\n    def eval(self, input):\n        return input['x'] * 2\n"),
    (
        "a class with a coroutine",
        "class Tool:\n    async def execute(self, input):\n        return input['x'] * 2\n",
    ),
];

#[tokio::test]
async fn functions_coroutines_and_classes_are_handlers() {
    let service = Service::start().await;
    for (index, (what, source)) in DOUBLING.into_iter().enumerate() {
        let (id, file) = (format!("handler-{index}"), format!("{index}.py"));
        put_source(&service, &file, source);
        service.create(&tool(&id, python(&file))).await;
        let talk = service.run("tool", &id, json!({ "x": 21 })).await;
        assert_eq!(*talk.output(), json!(42), "{what}");
    }
}

#[tokio::test]
async fn a_definition_names_one_of_several_handlers() {
    let source =
        "def one(input):\n    return 1\n\nclass Two:\n    def eval(self, input):\n        return 2\n";
    let service = Service::start().await;
    put_source(&service, "several.py", source);
    for (handler, output) in [("one", 1), ("Two", 2)] {
        let mut metadata = python("several.py");
        metadata["handler"] = json!(handler);
        service.create(&tool(handler, metadata)).await;
        let talk = service.run("tool", handler, json!({})).await;
        assert_eq!(*talk.output(), json!(output));
    }
}

#[tokio::test]
async fn a_handler_in_a_folder_imports_what_stands_there() {
    let service = Service::start().await;
    put_source(&service, "package/words.py", "WORD = 'beside'\n");
    put_source(&service, "package/inner/deep.py", "WORD = 'deep'\n");
    let main =
        "import words\nfrom inner import deep\n\ndef handler(input):\n    return [words.WORD, deep.WORD]\n";
    put_source(&service, "package/main.py", main);
    // Without a runtime: the entrypoint's ending tells it.
    let metadata = json!({ "source_url": "package", "entrypoint": "main.py" });
    service.create(&tool("package", metadata)).await;
    let talk = service.run("tool", "package", json!({})).await;
    assert_eq!(*talk.output(), json!(["beside", "deep"]));
}

const TALKING: &str = r#"
import os, sys

def handler(input, context):
    print("first")
    print('{"output": 1}')
    print("second", file=sys.stderr)
    os.system("echo third")
    context.log("fourth")
    return {"said": True}
"#;

#[tokio::test]
async fn what_a_handler_prints_is_log_and_never_output() {
    let service = with_handler(TALKING).await;
    // The first run is the one that starts the interpreter.
    for _ in 0..2 {
        let talk = streamed(&service, "handler", json!({})).await;
        assert_eq!(*talk.output(), json!({ "said": true }));
        assert_eq!(lines(&talk), ["first", r#"{"output": 1}"#, "second", "third", "fourth"]);
        let (_, between) = talk.frames.split_last().unwrap();
        assert!(!between.iter().any(is_final), "{talk:?}");
    }
    let quiet = service.run("tool", "handler", json!({})).await;
    assert_eq!(quiet.frames.len(), 2, "{quiet:?}");
}

#[tokio::test]
async fn progress_is_told_in_frames_of_its_own() {
    let source =
        "def handler(input, context):\n    context.progress(0.25, 'a quarter')\n    context.progress(7)\n";
    let service = with_handler(source).await;
    let talk = streamed(&service, "handler", json!({})).await;
    assert_eq!(*talk.output(), Value::Null);
    let progress = talk.frames.iter().filter(|frame| frame["event"] == "progress");
    let told: Vec<_> =
        progress.map(|frame| (frame["progress"].as_f64(), frame["message"].as_str())).collect();
    assert_eq!(told, [(Some(0.25), Some("a quarter")), (Some(1.0), Some(""))]);
    assert!(lines(&talk).is_empty(), "{talk:?}");
}

const ASKING: &str = r#"
import os

def handler(input, context):
    return {
        "execution": context.execution, "environment": os.environ["ORG_EXECUTION"],
        "definition": context.definition, "attempt": context.attempt, "remaining": context.remaining(),
    }
"#;

#[tokio::test]
async fn a_handler_knows_whose_run_it_is() {
    let mut metadata = python("handler.py");
    metadata["limits"] = json!({ "timeout_ms": 20_000 });
    let service = with_metadata(ASKING, metadata).await;
    for _ in 0..2 {
        let talk = service.run("tool", "handler", json!({})).await;
        let told = talk.output();
        let uuid = json!(talk.uuid());
        assert_eq!((&told["execution"], &told["environment"]), (&uuid, &uuid));
        assert_eq!((&told["definition"], &told["attempt"]), (&json!("handler"), &json!(1)));
        let remaining = told["remaining"].as_f64().unwrap();
        assert!(remaining > 0.0 && remaining <= 20.0, "{remaining}");
    }
}

const RAISING: &str = r#"
def inner():
    raise ValueError("bad value")

def handler(input):
    inner()
"#;

#[tokio::test]
async fn an_exception_is_the_failure_and_its_traceback_is_log() {
    let service = with_handler(RAISING).await;
    let talk = streamed(&service, "handler", json!({})).await;
    assert_eq!(talk.error(), ("ValueError: bad value", "exception"));
    let log = lines(&talk);
    assert_eq!(log.first(), Some(&"Traceback (most recent call last):"), "{log:?}");
    assert_eq!(log.last(), Some(&"ValueError: bad value"), "{log:?}");
    let place = |line: &&str| line.contains("handler.py") && line.ends_with("in inner");
    assert!(log.iter().any(place), "{log:?}");
    // Neither paths of this machine nor the worker's own frames.
    assert!(!log.iter().any(|line| line.contains("artifacts") || line.contains("worker")), "{log:?}");
}

const ODD: &str = r#"
import math

def handler(input):
    cycle = []
    cycle.append(cycle)
    return {
        "set": {1}, "bytes": b"x", "object": object(), "key": {(1, 2): 3}, "nan": math.nan,
        "infinity": [math.inf], "surrogate": "\ud800", "cycle": cycle, "fine": "ü",
    }[input["what"]]
"#;

#[tokio::test]
async fn a_result_that_is_not_json_is_invalid() {
    let service = with_handler(ODD).await;
    for what in ["set", "bytes", "object", "key", "nan", "infinity", "surrogate", "cycle"] {
        let talk = service.run("tool", "handler", json!({ "what": what })).await;
        let (error, code) = talk.error();
        assert_eq!(code, "invalid_output", "{what}: {error}");
        assert!(error.starts_with("the handler's result is not JSON"), "{what}: {error}");
        let talk = service.run("tool", "handler", json!({ "what": "fine" })).await;
        assert_eq!(*talk.output(), json!("ü"), "after {what}");
    }
}

#[tokio::test]
async fn a_result_that_is_too_large_is_refused() {
    let mut metadata = python("handler.py");
    metadata["limits"] = json!({ "output_bytes": 1_000 });
    let service = with_metadata("def handler(input):\n    return 'x' * input['n']\n", metadata).await;
    // By a little, and by so much that not even the answer is read to its end.
    for n in [999, 5_000_000] {
        let talk = service.run("tool", "handler", json!({ "n": n })).await;
        assert_eq!(talk.error().1, "output_too_large", "{n}");
    }
    let talk = service.run("tool", "handler", json!({ "n": 998 })).await;
    assert_eq!(talk.output().as_str().map(str::len), Some(998));
}

/// Sources that cannot be loaded, and what the client is told of each.
const UNLOADABLE: [(&str, &str); 6] = [
    ("def handler(input:\n", "SyntaxError: "),
    ("import no_such_module_here\n", "No module named 'no_such_module_here'"),
    ("raise RuntimeError('not today')\n", "RuntimeError: not today"),
    ("x = 1\n", "the source has no handler"),
    ("def handler():\n    return 1\n", "`handler()` cannot be called"),
    (
        "class A:\n    def eval(self, i):\n        return 1\n\nclass B:\n    def eval(self, i):\n        return 1\n",
        "more than one class",
    ),
];

#[tokio::test]
async fn a_source_that_cannot_be_loaded_says_why() {
    let service = Service::start().await;
    for (index, (source, why)) in UNLOADABLE.into_iter().enumerate() {
        let (id, file) = (format!("unloadable-{index}"), format!("{index}.py"));
        put_source(&service, &file, source);
        service.create(&tool(&id, python(&file))).await;
        let talk = service.run("tool", &id, json!({})).await;
        let (error, code) = talk.error();
        assert_eq!(code, "not_startable", "{error}");
        assert!(error.contains(why), "{why}: {error}");
        assert!(!error.contains("/data/"), "{error}");
    }
    let mut metadata = python("3.py");
    metadata["handler"] = json!("missing");
    service.create(&tool("missing", metadata)).await;
    let talk = service.run("tool", "missing", json!({})).await;
    let (error, code) = talk.error();
    assert_eq!(code, "not_startable", "{error}");
    assert!(error.contains("'missing'"), "{error}");
}
