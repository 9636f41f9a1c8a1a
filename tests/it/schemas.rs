//! Inputs are checked before the queue and outputs after the run, ids resolve to versions, defaults
//! are overlaid.

use serde_json::{Value, json};

use crate::program::{function, shell, tool};
use crate::service::Service;

/// A service with a tool that echoes its input and has these further keys of metadata.
async fn echo_with(keys: Value) -> Service {
    let service = Service::start().await;
    let mut metadata = shell("cat");
    for (key, value) in keys.as_object().unwrap() {
        metadata[key] = value.clone();
    }
    service.create(&tool("echo", metadata)).await;
    service
}

/// An input that fits runs; each of the others is refused before the queue, at its place.
async fn assert_refused_at(service: &Service, fits: Value, others: &[(&str, Value)]) {
    let talk = service.run("tool", "echo", fits.clone()).await;
    assert_eq!(*talk.output(), fits);
    for (place, input) in others {
        let talk = service.run("tool", "echo", input.clone()).await;
        let (error, code) = talk.refusal();
        assert!(error.contains(place), "{input} at {place}: {error}");
        assert_eq!(code, "unprocessable", "{input}");
    }
}

#[tokio::test]
async fn an_input_that_does_not_fit_its_schema_is_refused_before_the_queue() {
    let schema = json!({
        "type": "object",
        "required": ["value"],
        "properties": {
            "value": { "type": "integer", "minimum": 0 },
            "list": { "type": "array", "items": { "type": "string" } },
        },
    });
    let service = echo_with(json!({ "input_schema": schema })).await;
    let others = [
        ("/value: ", json!({ "value": "x" })),
        ("/value: ", json!({ "value": -1 })),
        ("/list/1: ", json!({ "value": 1, "list": ["a", 2] })),
        ("value", json!({})),
    ];
    assert_refused_at(&service, json!({ "value": 5 }), &others).await;
}

#[tokio::test]
async fn an_input_that_does_not_fit_its_api_spec_is_refused_before_the_queue() {
    let spec = json!({ "input": {
        "value": { "type": "integer", "min": 0, "max": 10 },
        "unit": { "type": "string", "choices": ["C", "F"] },
        "place": { "type": "object", "properties": { "city": { "type": "string" } } },
    } });
    let service = echo_with(json!({ "api_spec": spec })).await;
    let fits = json!({ "value": 5, "unit": "C", "place": { "city": "Delhi" } });
    let with = |path: &str, value: Value| {
        let mut input = fits.clone();
        *input.pointer_mut(path).unwrap() = value;
        input
    };
    let others = [
        ("/value: ", with("/value", json!("x"))),
        ("/value: ", with("/value", json!(1.5))),
        ("/value: ", with("/value", json!(-1))),
        ("/value: ", with("/value", json!(11))),
        ("/unit: ", with("/unit", json!("K"))),
        ("/place/city: ", with("/place/city", json!(5))),
        ("city", with("/place", json!({}))),
        ("unit", json!({ "value": 5, "place": { "city": "Delhi" } })),
    ];
    assert_refused_at(&service, fits.clone(), &others).await;
}

#[tokio::test]
async fn an_output_that_does_not_fit_its_schema_is_invalid() {
    let schema = json!({
        "type": "object",
        "required": ["value"],
        "properties": { "value": { "type": "integer" } },
    });
    let spec = json!({ "output": { "value": { "type": "integer" } } });
    for keys in [json!({ "output_schema": schema }), json!({ "api_spec": spec })] {
        let service = echo_with(keys).await;
        let talk = service.run("tool", "echo", json!({ "value": 5 })).await;
        assert_eq!(*talk.output(), json!({ "value": 5 }));
        let talk = service.run("tool", "echo", json!({ "value": "x" })).await;
        let (error, code) = talk.error();
        assert!(talk.uuid().is_some(), "it was accepted: {talk:?}");
        assert_eq!(code, "invalid_output", "{error}");
        assert!(error.contains("/value: "), "{error}");
    }
}

#[tokio::test]
async fn the_catalog_checks_what_it_is_given() {
    let service = Service::start().await;
    let talk = service.run("function", "weather_lookup:v1.0.0-stable", json!({ "city": 5 })).await;
    assert!(talk.refusal().0.contains("/city: "), "{talk:?}");
}

/// A function that tells its own version.
fn versioned(version: &str) -> Value {
    let script = format!(r#"printf '{{"version":"{version}"}}'"#);
    function(&format!("versioned:{version}"), shell(&script))
}

#[tokio::test]
async fn a_bare_name_latest_and_a_range_resolve_to_the_highest_version() {
    let service = Service::start().await;
    for version in
        ["v1.0.0-stable", "v1.10.0-stable", "v1.10.0-beta", "v1.9.0", "v2.1.0-rc.1", "v2.1.0", "0.3.0"]
    {
        service.create(&versioned(version)).await;
    }
    for (id, version) in [
        ("versioned", "v2.1.0"),
        ("versioned:latest", "v2.1.0"),
        ("versioned:^1", "v1.10.0-stable"),
        ("versioned:^1.0", "v1.10.0-stable"),
        ("versioned:~1.9", "v1.9.0"),
        ("versioned:v1.0.0-stable", "v1.0.0-stable"),
        ("versioned:v1.10.0-beta", "v1.10.0-beta"),
        ("versioned:0.3.0", "0.3.0"),
    ] {
        let talk = service.run("function", id, json!({})).await;
        assert_eq!(*talk.output(), json!({ "version": version }), "{id}");
    }
    let (status, answer) = service.rest("GET", "/function/versioned/versions", "").await;
    let listed: Vec<&str> =
        answer["data"].as_array().unwrap().iter().map(|one| one["version"].as_str().unwrap()).collect();
    let sorted =
        ["v2.1.0", "v2.1.0-rc.1", "v1.10.0-stable", "v1.10.0-beta", "v1.9.0", "v1.0.0-stable", "0.3.0"];
    assert_eq!((status, listed.as_slice()), (200, sorted.as_slice()), "{answer}");
    let first = json!({ "function_id": "versioned:v2.1.0", "version": "v2.1.0", "latest": true });
    assert_eq!((&answer["data"][0], &answer["data"][1]["latest"]), (&first, &json!(false)), "{answer}");
    assert_eq!(service.rest("GET", "/tool/versioned/versions", "").await.0, 404);
    for id in ["versioned:^3", "versioned:v9.9.9", "version"] {
        let talk = service.run("function", id, json!({})).await;
        assert_eq!(talk.refusal().0, "Function not registered", "{id}");
    }
}

#[tokio::test]
async fn a_bare_name_that_is_an_id_is_that_id() {
    let service = Service::start().await;
    service.create(&versioned("v1.0.0")).await;
    let bare = function("versioned", shell(r#"printf '{"version":"none"}'"#));
    service.create(&bare).await;
    let talk = service.run("function", "versioned", json!({})).await;
    assert_eq!(*talk.output(), json!({ "version": "none" }));
}

#[tokio::test]
async fn a_version_that_is_added_or_removed_is_seen_at_once() {
    let service = Service::start().await;
    for (step, version) in [("add", "v1.0.0"), ("add", "v1.1.0"), ("remove", "v1.0.0")] {
        if step == "add" {
            service.create(&versioned(version)).await;
        } else {
            let path = "/function/versioned:v1.1.0";
            assert_eq!(service.rest("DELETE", path, "").await.0, 200);
        }
        let talk = service.run("function", "versioned", json!({})).await;
        assert_eq!(*talk.output(), json!({ "version": version }), "{step}");
    }
}

#[tokio::test]
async fn defaults_are_overlaid_by_the_input_key_by_key() {
    let service = Service::start().await;
    let mut echo = tool("echo", shell("cat"));
    echo["tool_default_params"] = json!({ "a": 1, "b": { "x": 1 }, "c": null });
    service.create(&echo).await;
    let input = json!({ "b": { "y": 2 }, "d": [] });
    let talk = service.run("tool", "echo", input).await;
    let overlaid = json!({ "a": 1, "b": { "y": 2 }, "c": null, "d": [] });
    assert_eq!(*talk.output(), overlaid);
}

#[tokio::test]
async fn defaults_count_when_the_input_is_checked() {
    let service = Service::start().await;
    let mut metadata = shell("cat");
    metadata["input_schema"] = json!({ "required": ["value"] });
    let mut echo = tool("echo", metadata);
    echo["tool_default_params"] = json!({ "value": 7 });
    service.create(&echo).await;
    let talk = service.run("tool", "echo", json!({})).await;
    assert_eq!(*talk.output(), json!({ "value": 7 }));
}

#[tokio::test]
async fn args_are_templates_without_a_shell() {
    let service = Service::start().await;
    let metadata = json!({
        "runtime": "binary",
        "entrypoint": "printf",
        "args": ["%s|%s", "{{a}}", "<{{b}}> {one} $HOME"],
        "output": "text",
    });
    service.create(&tool("print", metadata)).await;
    let input = json!({ "a": "$(id); 'x' \"y\" {{b}}", "b": -1 });
    let talk = service.run("tool", "print", input).await;
    let printed = "$(id); 'x' \"y\" {{b}}|<-1> {one} $HOME";
    assert_eq!(*talk.output(), json!({ "stdout": printed }));
}

#[tokio::test]
async fn a_program_sees_a_cleared_environment() {
    let service = Service::start().await;
    let mut metadata = shell("env");
    metadata["output"] = json!("lines");
    metadata["env"] = json!({ "MINE": "1" });
    service.create(&tool("env", metadata)).await;
    let talk = service.run("tool", "env", json!({})).await;
    let lines = talk.output().as_array().unwrap();
    let names: Vec<&str> =
        lines.iter().map(|line| line.as_str().unwrap().split('=').next().unwrap()).collect();
    // PWD, OLDPWD, SHLVL and _ are the shell's own.
    let known = "PATH ORG_EXECUTION ORG_DEFINITION TRACEPARENT MINE PWD OLDPWD SHLVL _";
    for name in &names {
        assert!(known.split(' ').any(|known| known == *name), "{names:?}");
    }
    for name in ["PATH", "ORG_EXECUTION", "ORG_DEFINITION", "MINE"] {
        assert!(names.contains(&name), "{names:?}");
    }
}
