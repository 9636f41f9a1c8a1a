//! The body of a query. What is JSON is taken as it is; anything else chooses the parts of a plausible filter.
#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use org_executor_fuzz::definition::Kind;
use org_executor_fuzz::query::{Filter, Plan};
use org_executor_fuzz::{json, judge};
use serde_json::{Map, Value, json};

/// How long a message about a filter may become, and how deep and wide a filter may be.
const MAX_MESSAGE: usize = 1_000;
const MAX_DEPTH: usize = 16;
const MAX_CONDITIONS: usize = 1_000;

fuzz_target!(|bytes: &[u8]| {
    let text = str::from_utf8(bytes).ok();
    let read = text.and_then(|text| json::parse(text).ok());
    let Some(body) = read.or_else(|| filter(&mut Unstructured::new(bytes), 0).ok()) else { return };
    for kind in Kind::ALL {
        check(kind, &body);
    }
});

fn check(kind: Kind, body: &Value) {
    let parsed = Filter::parse(kind, body);
    assert_eq!(format!("{parsed:?}"), format!("{:?}", Filter::parse(kind, body)), "it is read one way");
    let filter = match parsed {
        Ok(filter) => filter,
        Err(error) => {
            judge::error_with_place(&error);
            assert!(error.to_string().chars().count() <= MAX_MESSAGE, "{error}");
            return;
        }
    };
    let (depth, width) = size(body);
    assert!(depth <= MAX_DEPTH && width <= MAX_CONDITIONS, "{depth} deep, {width} wide");
    let plan = filter.plan();
    assert_eq!(plan.text.is_some(), filter.has_text());
    let opposite = Filter::parse(kind, &json!({ "$nor": [body] }));
    let within = Filter::parse(kind, &json!({ "$and": [body] }));
    let twice = filter.clone().and(filter.clone());
    for document in documents(kind) {
        let matches = filter.matches(&document);
        assert_eq!(filter.matches(&document), matches, "it says the same twice");
        assert_eq!(twice.matches(&document), matches, "with itself it is the same");
        assert!(!matches || admits(&plan, kind, &document), "{plan:?} leaves out {document}");
        if let Ok(opposite) = &opposite {
            assert_ne!(opposite.matches(&document), matches, "`$nor` denies it");
        }
        if let Ok(within) = &within {
            assert_eq!(within.matches(&document), matches, "`$and` of one is that one");
        }
    }
}

/// How deep filters stand in each other by `$and`, `$or` and `$nor`, and how many conditions there are at least.
fn size(body: &Value) -> (usize, usize) {
    let (mut depth, mut width) = (1, 0);
    for (key, value) in body.as_object().into_iter().flatten() {
        let is_logical = matches!(key.as_str(), "$and" | "$or" | "$nor");
        let Some(filters) = value.as_array().filter(|_| is_logical) else {
            width += 1;
            continue;
        };
        for (inner, conditions) in filters.iter().map(size) {
            depth = depth.max(inner + 1);
            width += conditions;
        }
    }
    (depth, width)
}

/// Whether an index that goes by the plan would find it. What the search finds is not known here.
fn admits(plan: &Plan, kind: Kind, document: &Value) -> bool {
    let id = document[kind.field("id")].as_str().unwrap_or_default();
    let tags = document[kind.field("search_tags")].as_array();
    let has = |tag: &String| tags.is_some_and(|tags| tags.iter().any(|one| one == tag));
    plan.ids.as_ref().is_none_or(|ids| ids.iter().any(|one| one == id))
        && plan.from.as_ref().is_none_or(|from| from.as_str() <= id)
        && plan.to.as_ref().is_none_or(|to| id <= to.as_str())
        && plan.tags.iter().all(|group| group.iter().any(has))
}

/// Definitions of this kind, some in the manner of the seed and some with whatever a filter can meet.
fn documents(kind: Kind) -> Vec<Value> {
    let with = |id: &str, tags: Value, metadata: Value, description: &str, params: Value| {
        let fields = ["id", "search_tags", "metadata", "description", "default_params"];
        let values = [id.into(), tags, metadata, description.into(), params];
        Value::Object(fields.iter().map(|field| kind.field(field)).zip(values).collect())
    };
    vec![
        with(
            "gawk",
            json!(["text", "awk"]),
            json!({"runtime": "binary", "n": 2, "a": [1, {"b": [null, "x"]}, []]}),
            "Finds lines\nand fields",
            json!({"value": 1}),
        ),
        with(
            "add:v1.0.0",
            json!([]),
            json!({"n": 2.5, "a": {"b": {"0": true}}, "0": [[1, 2], [3]]}),
            "",
            json!({}),
        ),
        with(
            "\u{1f600}",
            json!(["math"]),
            json!({"n": null, "a": [{"b": 18_446_744_073_709_551_615_u64}, {"b": -1e308}]}),
            "a",
            json!({"value": [[], {}]}),
        ),
        with("a", json!(["a", "a"]), json!({}), "A", json!({"a": {"a": {"a": "a"}}})),
    ]
}

/// A filter with the operators where they may belong, and with some where they do not.
fn filter(bytes: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    let mut body = Map::new();
    for _ in 0..bytes.int_in_range(1..=3)? {
        let (key, value) = match bytes.int_in_range(0..=9)? {
            0 if depth < MAX_DEPTH => ("$and".into(), filters(bytes, depth)?),
            1 if depth < MAX_DEPTH => ("$or".into(), filters(bytes, depth)?),
            2 if depth < MAX_DEPTH => ("$nor".into(), filters(bytes, depth)?),
            3 => ("$text".into(), json!({ "$search": text(bytes)? })),
            4 => (field(bytes)?, value(bytes, 0)?),
            _ => (field(bytes)?, operators(bytes, depth)?),
        };
        body.insert(key, value);
    }
    Ok(body.into())
}

fn filters(bytes: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    let count = bytes.int_in_range(1..=3)?;
    (0..count).map(|_| filter(bytes, depth + 1)).collect()
}

fn field(bytes: &mut Unstructured<'_>) -> Result<String> {
    let fields = ["id", "tags", "search_tags", "metadata", "description", "default_params"];
    let mut field = format!("{}_{}", bytes.choose(&["tool", "function"])?, bytes.choose(&fields)?);
    for _ in 0..bytes.int_in_range(0..=3)? {
        field = format!("{field}.{}", bytes.choose(&["a", "b", "n", "0", "1", "value", "runtime"])?);
    }
    Ok(field)
}

fn operators(bytes: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    let mut object = Map::new();
    for _ in 0..bytes.int_in_range(1..=2)? {
        let (name, operand) = match bytes.int_in_range(0..=11)? {
            0 => (*bytes.choose(&["$eq", "$ne"])?, value(bytes, 0)?),
            1 | 2 => (*bytes.choose(&["$gt", "$gte", "$lt", "$lte"])?, value(bytes, 0)?),
            3 | 4 => (*bytes.choose(&["$in", "$nin", "$all"])?, values(bytes, 0)?),
            5 => ("$size", bytes.int_in_range(0..=3)?.into()),
            6 => ("$exists", bytes.arbitrary::<bool>()?.into()),
            7 => ("$type", (*bytes.choose(&["string", "array", "int", "number", "null", "bool"])?).into()),
            8 => {
                object.insert("$options".into(), (*bytes.choose(&["", "i", "imsx"])?).into());
                ("$regex", text(bytes)?.into())
            }
            9 if depth < MAX_DEPTH => ("$not", operators(bytes, depth + 1)?),
            10 if depth < MAX_DEPTH => ("$elemMatch", operators(bytes, depth + 1)?),
            11 if depth < MAX_DEPTH => ("$elemMatch", element(bytes, depth + 1)?),
            _ => ("$all", json!([{ "$elemMatch": element(bytes, MAX_DEPTH)? }])),
        };
        object.insert(name.into(), operand);
    }
    Ok(object.into())
}

/// A filter of an element, in which any name is a field.
fn element(bytes: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    let name = *bytes.choose(&["a", "b", "n", "0", "a.b"])?;
    let asked = if depth < MAX_DEPTH { operators(bytes, depth)? } else { value(bytes, 0)? };
    Ok(json!({ name: asked }))
}

fn value(bytes: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    Ok(match bytes.int_in_range(0..=9)? {
        0 => Value::Null,
        1 => bytes.arbitrary::<bool>()?.into(),
        2 => bytes.int_in_range(-3_i64..=3)?.into(),
        3 => bytes.arbitrary::<i64>()?.into(),
        4 => bytes.arbitrary::<f64>()?.into(),
        5 if depth < 3 => values(bytes, depth + 1)?,
        6 if depth < 3 => json!({ *bytes.choose(&["a", "b", "n"])?: value(bytes, depth + 1)? }),
        7 => text(bytes)?.into(),
        _ => (*bytes.choose(&["gawk", "text", "awk", "math", "a", "x", "add:v1.0.0", "binary"])?).into(),
    })
}

fn values(bytes: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    let count = bytes.int_in_range(0..=3)?;
    (0..count).map(|_| value(bytes, depth)).collect()
}

fn text(bytes: &mut Unstructured<'_>) -> Result<String> {
    let length = bytes.int_in_range(1..=8)?;
    (0..length)
        .map(|_| bytes.choose(&["a", "w", "^", "$", ".", "*", "(", ")", "\"", "-", " "]).copied())
        .collect()
}
