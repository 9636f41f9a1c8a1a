//! What a definition's metadata says: an object is taken as metadata, and any JSON as its `api_spec` and as its schemas.
//! What is refused names a field; what is not compiles, and can be asked about any input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use org_executor_fuzz::compiled::{Compiled, Revision};
use org_executor_fuzz::definition::{Definition, Kind};
use org_executor_fuzz::error::Code;
use org_executor_fuzz::schema::Schema;
use org_executor_fuzz::spec::{Spec, filled, pieces};
use org_executor_fuzz::{json, judge};
use serde_json::{Value, json};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Some(value) = judge::json(text) else { return };
    let inputs =
        [value.clone(), json!({ "value": 1 }), json!({ "a": ["b", null, 0.5, {}] }), json!(1), json!("a")];
    metadata(&value, &inputs);
    for side in ["input", "output"] {
        metadata(&json!({ "api_spec": { side: value } }), &inputs);
        metadata(&json!({ format!("{side}_schema"): value }), &inputs);
    }
    metadata(&json!({ "api_spec": value }), &inputs);
});

fn metadata(metadata: &Value, inputs: &[Value]) {
    let Some(object) = metadata.as_object() else { return };
    let body = json!({ "tool_id": "fuzzed", "tool_metadata": metadata }).to_string();
    let definition = Definition::parse(Kind::Tool, &body);
    let spec = match Spec::parse(object) {
        Ok(spec) => spec,
        Err(error) => {
            judge::error_with_place(&error);
            judge::error(&definition.expect_err("it is refused as a whole too"));
            return;
        }
    };
    // Wrapped in a definition it may be one level too deep.
    let Ok(definition) = definition.inspect_err(judge::error) else { return };
    for schema in [&spec.input, &spec.output].into_iter().flatten() {
        inputs.iter().for_each(|input| check(schema, input));
    }
    for input in inputs {
        assert!(spec.misfit(input).is_none_or(|misfit| misfit.place.starts_with('/')));
    }
    if let Some(url) = &spec.api.url
        && let Some(parts) = pieces(url)
    {
        assert_eq!(filled(&parts, |name| format!("{{{name}}}")), *url, "a url is the sum of its pieces");
    }
    run(definition, inputs);
}

/// It says the same each time, and what is wrong at a place.
fn check(schema: &Schema, input: &Value) {
    let found = schema.check(input);
    assert_eq!(schema.check(input), found);
    if let Err(misfit) = found {
        let is_there = misfit.place == "/" || input.pointer(&misfit.place).is_some();
        assert!(is_there && !misfit.reason.is_empty(), "{misfit}");
        assert!(!misfit.to_string().contains('\n'), "it is one line: {misfit}");
    }
}

/// It is stored, comes back, and takes inputs.
fn run(definition: Definition, inputs: &[Value]) {
    assert_eq!(Definition::from_stored(definition.kind, &definition.to_json()).as_ref(), Ok(&definition));
    let revision = Revision { definition, number: 1, created_ms: 0, updated_ms: 0, pin: None };
    let compiled = Compiled::new(&revision).expect("it was checked");
    assert_eq!(compiled.definition().as_ref(), Ok(&revision.definition));
    for input in inputs.iter().filter(|input| input.is_object()) {
        let given = json::members(&input.to_string()).expect("it is an object");
        match compiled.input(given) {
            Ok(taken) => assert_eq!(taken.value(), *input, "what runs is what was checked"),
            Err(error) => {
                judge::error_with_place(&error);
                assert_eq!(error.code(), Code::Unprocessable, "{error}");
            }
        }
    }
}
